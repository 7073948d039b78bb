/* Random jobs and their callbacks' bodies, for `render`, which reads the bodies with parsers of its own.
 *
 *   render_jobs SEED FIRST COUNT
 *
 * Each job goes to the standard output as one frame: the length of what follows, numbers, the lengths of the texts, the
 * texts (struct frame, little-endian). A job depends on the seed and its number only.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringback/v1/common.pb-c.h"
#include "server/callback/claim_body.h"
#include "tests/callbacks/random_xml.h"

enum {
  TEXT_ERROR, /* why there is no body; empty when there is one */
  TEXT_BODY,
  TEXT_TYPE,
  TEXT_ID,
  TEXT_QUEUE_ID,
  TEXT_BUCKET,
  TEXT_CODE,
  TEXT_MESSAGE,
  TEXT_TAG,
  TEXT_USER_DATA,
  TEXT_INPUT_BUCKET,
  TEXT_OBJECT,
  TEXT_REGION,
  TEXT_URL,
  TEXT_OPERATION,
  TEXT_OPERATION_TYPE,
  TEXT_RESULT,
  TEXT_RESULT_TYPE,
  TEXT_COUNT
};

enum { PAYLOAD_NONE, PAYLOAD_BYTES, PAYLOAD_GOOD_XML, PAYLOAD_BAD_XML };

struct frame {
  uint32_t size; /* of all after this field */
  uint8_t format, input, operation, result;
  int32_t state, progress, priority;
  int64_t create_ms, start_ms, end_ms;
  uint32_t lengths[TEXT_COUNT];
} __attribute__((packed));

struct made {
  struct frame frame;
  struct text texts[TEXT_COUNT];
  Ringback__V1__JobSpec spec;
  Ringback__V1__JobInput input;
  Ringback__V1__ObjectInput object;
  Ringback__V1__Payload operation, result;
  Ringback__V1__OpaquePayload operation_bytes, result_bytes;
  struct store_claim claim;
};

static char *text_of(struct random *random, struct made *made, int which) {
  random_text(random, &made->texts[which]);
  return made->texts[which].bytes;
}

static uint8_t make_payload(struct random *random, struct made *made, int which, Ringback__V1__Payload *payload,
                            Ringback__V1__OpaquePayload *opaque) {
  struct text *text = &made->texts[which];
  ringback__v1__payload__init(payload);
  text_clear(text);
  text_clear(&made->texts[which + 1]);
  unsigned kind = random_below(random, 8);
  if (kind == 0)
    return PAYLOAD_NONE;
  if (kind == 1) {
    random_bytes(random, text);
    ringback__v1__opaque_payload__init(opaque);
    opaque->data = (ProtobufCBinaryData){text->length, (uint8_t *)text->bytes};
    opaque->content_type = text_of(random, made, which + 1);
    payload->form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
    payload->opaque = opaque;
    return PAYLOAD_BYTES;
  }
  bool good = random_fragment(random, text);
  payload->form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  payload->xml = text->bytes;
  return good ? PAYLOAD_GOOD_XML : PAYLOAD_BAD_XML;
}

static void make_input(struct random *random, struct made *made) {
  ringback__v1__job_input__init(&made->input);
  ringback__v1__object_input__init(&made->object);
  for (int which = TEXT_INPUT_BUCKET; which <= TEXT_URL; which++)
    text_clear(&made->texts[which]);
  made->frame.input = (uint8_t)random_below(random, 4);
  if (made->frame.input == 0)
    return;
  made->spec.input = &made->input;
  if (made->frame.input == 1) {
    made->input.source_case = RINGBACK__V1__JOB_INPUT__SOURCE_URL;
    made->input.url = text_of(random, made, TEXT_URL);
    return;
  }
  made->input.source_case = RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT;
  made->input.object = &made->object;
  made->object.bucket = text_of(random, made, TEXT_INPUT_BUCKET);
  made->object.object = text_of(random, made, TEXT_OBJECT);
  made->object.region = text_of(random, made, TEXT_REGION);
}

/* Some moments only, so that the checker can remember how they are written; 0: not yet. */
static int64_t random_ms(struct random *random) {
  unsigned kind = random_below(random, 8);
  int64_t moment = random_below(random, 512);
  return kind == 0 ? 0 : kind == 1 ? 1 + moment * 490000000000 : 1656588620000 + moment * 3599999;
}

static void make_spec(struct random *random, struct made *made) {
  ringback__v1__job_spec__init(&made->spec);
  text_of(random, made, TEXT_TAG);
  text_add(&made->texts[TEXT_TAG], "T", 1); /* no job is without */
  made->spec.tag = made->texts[TEXT_TAG].bytes;
  made->spec.user_data = text_of(random, made, TEXT_USER_DATA);
  make_input(random, made);
  made->frame.operation = make_payload(random, made, TEXT_OPERATION, &made->operation, &made->operation_bytes);
  if (made->frame.operation != PAYLOAD_NONE)
    made->spec.operation = &made->operation;
}

static void make_claim(struct arena *arena, struct random *random, struct made *made) {
  struct frame *frame = &made->frame;
  frame->format = (uint8_t)(1 + random_below(random, 3));
  frame->state = (int32_t)random_below(random, 8);
  frame->progress = (int32_t)random_below(random, 101);
  frame->priority = (int32_t)random_below(random, 256);
  frame->start_ms = random_ms(random);
  frame->end_ms = random_ms(random);
  make_spec(random, made);
  made->claim = (struct store_claim){.format = frame->format, .bucket = text_of(random, made, TEXT_BUCKET), .url = ""};
  struct store_job *job = &made->claim.job;
  *job = (struct store_job){.state = frame->state,
                            .priority = frame->priority,
                            .progress = frame->progress,
                            .start_ms = frame->start_ms,
                            .end_ms = frame->end_ms,
                            .queue = "q",
                            .code = text_of(random, made, TEXT_CODE),
                            .message = text_of(random, made, TEXT_MESSAGE),
                            .worker = ""};
  for (int i = 0; i < 16; i++) {
    job->queue_id[i] = (uint8_t)random_below(random, 256);
    job->id.bytes[i] = (uint8_t)random_below(random, 256);
  }
  int64_t create_ms = random_ms(random);
  for (int i = 0; i < 6; i++)
    job->id.bytes[6 + i] = (uint8_t)(create_ms >> (40 - 8 * i));
  job->id.bytes[0] = (uint8_t)(0x40 * (1 + random_below(random, 3)) | random_below(random, 64));
  frame->create_ms = id_job_create_ms(&job->id);
  size_t size = ringback__v1__job_spec__get_packed_size(&made->spec);
  uint8_t *packed = arena_alloc(arena, size + 1);
  job->spec = (struct bytes){packed, ringback__v1__job_spec__pack(&made->spec, packed)};
  frame->result = make_payload(random, made, TEXT_RESULT, &made->result, &made->result_bytes);
  if (frame->result == PAYLOAD_NONE)
    return;
  packed = arena_alloc(arena, ringback__v1__payload__get_packed_size(&made->result) + 1);
  job->result = (struct bytes){packed, ringback__v1__payload__pack(&made->result, packed)};
}

static void put_text(struct made *made, int which, const void *bytes, size_t length) {
  text_clear(&made->texts[which]);
  text_add(&made->texts[which], bytes, length);
}

static void render(struct arena *arena, struct made *made) {
  struct store_body body = {0};
  const char *error = claim_body_render(arena, &made->claim, 0, &body);
  put_text(made, TEXT_ERROR, error ? error : "", error ? strlen(error) : 0);
  put_text(made, TEXT_BODY, body.bytes.data, error ? 0 : body.bytes.length);
  put_text(made, TEXT_TYPE, error ? "" : body.content_type, error ? 0 : strlen(body.content_type));
  char id[ID_TEXT_SIZE];
  id_format_job(&made->claim.job.id, id);
  put_text(made, TEXT_ID, id, strlen(id));
  id_format_queue(made->claim.job.queue_id, id);
  put_text(made, TEXT_QUEUE_ID, id, strlen(id));
}

static void write_frame(struct made *made) {
  size_t size = sizeof(made->frame) - sizeof(made->frame.size);
  for (int i = 0; i < TEXT_COUNT; i++) {
    made->frame.lengths[i] = (uint32_t)made->texts[i].length;
    size += made->texts[i].length;
  }
  made->frame.size = (uint32_t)size;
  bool written = fwrite(&made->frame, sizeof(made->frame), 1, stdout) == 1;
  for (int i = 0; i < TEXT_COUNT; i++)
    written = written && fwrite(made->texts[i].bytes, 1, made->texts[i].length, stdout) == made->texts[i].length;
  if (!written)
    exit(1); /* nobody reads any more */
}

int main(int count, char **arguments) {
  if (count != 4) {
    fprintf(stderr, "usage: render_jobs SEED FIRST COUNT\n");
    return 2;
  }
  uint64_t seed = strtoull(arguments[1], 0, 10), first = strtoull(arguments[2], 0, 10);
  uint64_t end = first + strtoull(arguments[3], 0, 10);
  setvbuf(stdout, 0, _IOFBF, 1 << 20);
  struct arena *arena = arena_create();
  static struct made made;
  for (uint64_t number = first; number < end; number++) {
    struct random random;
    random_seed(&random, seed, number);
    make_claim(arena, &random, &made);
    render(arena, &made);
    write_frame(&made);
    arena_reset(arena);
  }
  arena_destroy(arena);
  for (int i = 0; i < TEXT_COUNT; i++)
    free(made.texts[i].bytes);
  return fflush(stdout) == 0 ? 0 : 1;
}
