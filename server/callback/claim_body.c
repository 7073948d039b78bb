/* See claim_body.h. */
#include "server/callback/claim_body.h"

#include <string.h>

#include "ringback/v1/common.pb-c.h"
#include "server/callback/json.h"
#include "server/callback/xml.h"

static Google__Protobuf__Timestamp *timestamp(struct arena *arena, int64_t unix_ms) {
  if (!unix_ms)
    return 0;
  Google__Protobuf__Timestamp *time = ARENA_NEW(arena, Google__Protobuf__Timestamp);
  google__protobuf__timestamp__init(time);
  time->seconds = unix_ms / 1000;
  time->nanos = (int32_t)(unix_ms % 1000 * 1000000);
  return time;
}

static char *queue_id_text(struct arena *arena, const uint8_t bytes[16]) {
  char *text = arena_alloc(arena, ID_TEXT_SIZE);
  id_format_queue(bytes, text);
  return text;
}

static Ringback__V1__Job *job_of_record(struct arena *arena, const struct store_job *record) {
  Ringback__V1__Job *job = ARENA_NEW(arena, Ringback__V1__Job);
  ringback__v1__job__init(job);
  job->spec = ringback__v1__job_spec__unpack(arena_allocator(arena), record->spec.length, record->spec.data);
  if (!job->spec)
    return 0;
  job->spec->priority = record->priority;
  job->id = arena_alloc(arena, ID_TEXT_SIZE);
  id_format_job(&record->id, job->id);
  job->queue_id = queue_id_text(arena, record->queue_id);
  job->state = (Ringback__V1__JobState)record->state;
  job->progress = record->progress;
  job->code = arena_strdup(arena, record->code);
  job->message = arena_strdup(arena, record->message);
  if (record->result.length)
    job->result = ringback__v1__payload__unpack(arena_allocator(arena), record->result.length, record->result.data);
  job->create_time = timestamp(arena, id_job_create_ms(&record->id));
  job->start_time = timestamp(arena, record->start_ms);
  job->end_time = timestamp(arena, record->end_ms);
  return job;
}

/* What SendTestCallback posts: a job that says of itself that it is none. */
static Ringback__V1__Job *job_made_up(struct arena *arena, const struct store_job *record, int64_t now_ms) {
  Ringback__V1__Job *job = ARENA_NEW(arena, Ringback__V1__Job);
  ringback__v1__job__init(job);
  job->spec = ARENA_NEW(arena, Ringback__V1__JobSpec);
  ringback__v1__job_spec__init(job->spec);
  job->spec->tag = arena_strdup(arena, "Test");
  job->spec->user_data = arena_strdup(arena, "a test of this callback rule");
  job->id = arena_strdup(arena, "j00000000000000000000000000000000");
  job->queue_id = queue_id_text(arena, record->queue_id);
  job->state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS;
  job->progress = 100;
  job->create_time = job->start_time = job->end_time = timestamp(arena, now_ms);
  return job;
}

const char *claim_body_render(struct arena *arena, const struct store_claim *claim, int64_t now_ms,
                              struct store_body *body) {
  if (!claim->test && !claim->job.spec.length)
    return "the job is gone";
  const Ringback__V1__Job *job =
      claim->test ? job_made_up(arena, &claim->job, now_ms) : job_of_record(arena, &claim->job);
  if (!job)
    return "the job's record cannot be read";
  const Ringback__V1__CallbackOverride *own = job->spec->callback;
  bool own_url = claim->own_url && own && own->target_case == RINGBACK__V1__CALLBACK_OVERRIDE__TARGET_URL;
  struct body_source source = {.job = job,
                               .bucket = claim->bucket,
                               .zone = body_zone_local,
                               .format = own_url ? own->format : (Ringback__V1__CallbackFormat)claim->format};
  bool json = source.format == RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_JSON;
  size_t size;
  const char *text = json ? json_callback_render(arena, &source, &size) : xml_callback_render(arena, &source, &size);
  if (!text)
    return json ? "the body cannot be written as JSON" : "the body cannot be written as XML";
  *body = (struct store_body){.bytes = {(const uint8_t *)text, size},
                              .content_type = json ? "application/json" : "application/xml",
                              .traceparent = job->spec->traceparent,
                              .url = own_url ? own->url : claim->url};
  return 0;
}
