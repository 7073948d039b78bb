/* Job specifications and payloads on their way in: see spec.h. */
#include "server/services/spec.h"

#include <string.h>

#include "server/base/text.h"
#include "server/callback/xml.h"
#include "server/services/convert.h"

enum {
  CONTENT_TYPE_CHARACTERS_MAX = 127,
  USER_DATA_CHARACTERS_MAX = 1024,
  OBJECT_BYTES_MAX = 1024,
  REGION_CHARACTERS_MAX = 64,
};

#define AHEAD_MAX_MS (366 * DAY_MS)
#define XML_CONTENT_TYPE "application/xml"

static void check_size(struct check *check, const struct field *field, size_t size, int64_t max) {
  if (size > (uint64_t)max)
    check_fail(check, field, "has %zu bytes; at most %lld are allowed", size, (long long)max);
}

static void check_opaque(struct check *check, const struct field *field, const Ringback__V1__OpaquePayload *opaque,
                         int64_t max) {
  check_size(check, FIELD(field, "data"), opaque->data.len, max);
  check_ascii(check, FIELD(field, "content_type"), opaque->content_type, CONTENT_TYPE_CHARACTERS_MAX);
}

/* The operation as it is kept; NULL after a finding. */
static Ringback__V1__Payload *read_operation(struct check *check, const struct field *field,
                                             const Ringback__V1__Payload *operation, int64_t max) {
  if (operation->form_case == RINGBACK__V1__PAYLOAD__FORM_OPAQUE)
    check_opaque(check, FIELD(field, "opaque"), operation->opaque, max);
  if (operation->form_case != RINGBACK__V1__PAYLOAD__FORM_XML)
    return (Ringback__V1__Payload *)operation;
  size_t size;
  const char *error = NULL;
  const char *xml =
      xml_operation_rewrite(check->arena, operation->xml, strlen(operation->xml), (size_t)max, &size, &error);
  if (!xml) {
    check_fail(check, FIELD(field, "xml"), "%s", error);
    return NULL;
  }
  Ringback__V1__Payload *kept = ARENA_NEW(check->arena, Ringback__V1__Payload);
  ringback__v1__payload__init(kept);
  kept->form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  kept->xml = (char *)xml;
  return kept;
}

static void check_input(struct check *check, const struct field *field, const Ringback__V1__JobInput *input) {
  if (input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_URL)
    check_url(check, FIELD(field, "url"), input->url);
  if (input->source_case != RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT)
    return;
  const struct field *object = FIELD(field, "object");
  check_text(check, FIELD(object, "bucket"), input->object->bucket, 0, BUCKET_CHARACTERS_MAX);
  check_text(check, FIELD(object, "object"), input->object->object, 1, OBJECT_BYTES_MAX);
  check_ascii(check, FIELD(object, "region"), input->object->region, REGION_CHARACTERS_MAX);
}

static void read_times(struct check *check, const struct field *field, const Ringback__V1__JobSpec *spec,
                       int64_t now_ms, struct store_new_job *job) {
  const struct field *not_before = FIELD(field, "not_before");
  job->not_before_ms = check_time(check, not_before, spec->not_before, 0);
  if (job->not_before_ms > now_ms + AHEAD_MAX_MS)
    check_fail(check, not_before, "is %s, which is more than 366 days ahead",
               check_show_time(check, job->not_before_ms));
  if (job->not_before_ms <= now_ms)
    job->not_before_ms = 0;

  if (!spec->expire_time)
    return;
  const struct field *expire_time = FIELD(field, "expire_time");
  job->expire_ms = check_time(check, expire_time, spec->expire_time, now_ms);
  if (job->expire_ms < now_ms)
    check_fail(check, expire_time, "is %s, which is in the past", check_show_time(check, job->expire_ms));
  else if (job->expire_ms > now_ms + AHEAD_MAX_MS)
    check_fail(check, expire_time, "is %s, which is more than 366 days ahead", check_show_time(check, job->expire_ms));
  else if (job->expire_ms <= job->not_before_ms)
    check_fail(check, expire_time, "is %s, which is not after not_before, %s", check_show_time(check, job->expire_ms),
               check_show_time(check, job->not_before_ms));
}

static void read_callback(struct check *check, const struct field *field,
                          const Ringback__V1__CallbackOverride *callback, const struct address_set *allow,
                          struct store_new_job *job) {
  switch (callback->target_case) {
  case RINGBACK__V1__CALLBACK_OVERRIDE__TARGET_URL:
    if (*callback->url)
      check_callback_url(check, FIELD(field, "url"), callback->url, allow, NULL);
    else
      check_url(check, FIELD(field, "url"), callback->url);
    check_callback_format(check, FIELD(field, "format"), callback->format);
    job->callback_url = callback->url;
    break;
  case RINGBACK__V1__CALLBACK_OVERRIDE__TARGET_NONE:
    if (!callback->none)
      check_fail(check, FIELD(field, "none"), "is false; it must be true, or leave the callback out");
    if (callback->format)
      check_fail(check, FIELD(field, "format"), "goes with an url only");
    job->callback_none = true;
    break;
  default:
    check_fail(check, field, "has neither url nor none; it must have one, or leave the callback out");
  }
}

void spec_read(struct check *check, const struct field *field, const Ringback__V1__JobSpec *spec,
               const struct services_config *config, int64_t now_ms, struct store_new_job *job) {
  memset(job, 0, sizeof *job);
  if (!spec) {
    check_fail(check, field, "is missing");
    return;
  }
  size_t findings = check->count;
  Ringback__V1__JobSpec kept = *spec;
  check_token(check, FIELD(field, "tag"), spec->tag, TAG_CHARACTERS_MAX);
  if (spec->input)
    check_input(check, FIELD(field, "input"), spec->input);
  if (spec->operation)
    kept.operation = read_operation(check, FIELD(field, "operation"), spec->operation, config->payload_bytes_max);
  check_ascii(check, FIELD(field, "user_data"), spec->user_data, USER_DATA_CHARACTERS_MAX);
  job->priority = (int)check_range(check, FIELD(field, "priority"), spec->priority, 0, 255);
  read_times(check, field, spec, now_ms, job);
  job->lease_ms = check_duration(check, FIELD(field, "lease"), spec->lease, SECOND_MS, 12 * HOUR_MS, 0);
  job->run_timeout_ms =
      check_duration(check, FIELD(field, "run_timeout"), spec->run_timeout, SECOND_MS, 30 * DAY_MS, 0);
  job->max_attempts = (int)check_range_or(check, FIELD(field, "max_attempts"), spec->max_attempts, 1, 100, 0);
  if (spec->callback)
    read_callback(check, FIELD(field, "callback"), spec->callback, &config->callback_allow, job);
  check_traceparent(check, FIELD(field, "traceparent"), spec->traceparent);
  if (check->count == findings)
    job->spec = convert_pack(check->arena, &kept.base);
}

const char *spec_read_text(struct arena *arena, const char *text, size_t max) {
  size_t length = strlen(text);
  const char *repaired = xml_text_repair(arena, text, &length);
  return arena_strndup(arena, repaired, text_utf8_cut(repaired, length, max));
}

static struct bytes pack_opaque(struct check *check, const char *data, size_t length) {
  Ringback__V1__OpaquePayload opaque = RINGBACK__V1__OPAQUE_PAYLOAD__INIT;
  opaque.data = (ProtobufCBinaryData){length, (uint8_t *)data};
  opaque.content_type = (char *)XML_CONTENT_TYPE;
  Ringback__V1__Payload payload = RINGBACK__V1__PAYLOAD__INIT;
  payload.form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
  payload.opaque = &opaque;
  return convert_pack(check->arena, &payload.base);
}

static struct bytes read_result_xml(struct check *check, const struct field *field, const char *text, int64_t max) {
  size_t length = strlen(text);
  check_size(check, field, length, max);
  if (length > (uint64_t)max)
    return (struct bytes){NULL, 0};
  size_t repaired_length = length, size;
  const char *repaired = xml_text_repair(check->arena, text, &repaired_length);
  const char *error = NULL;
  /* Each bad byte grew to three and `>` may grow to four: what was within the limit stays welcome. */
  const char *xml = xml_operation_rewrite(check->arena, repaired, repaired_length, (size_t)max * 4, &size, &error);
  if (!xml)
    return pack_opaque(check, text, length);
  Ringback__V1__Payload payload = RINGBACK__V1__PAYLOAD__INIT;
  payload.form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  payload.xml = (char *)xml;
  return convert_pack(check->arena, &payload.base);
}

struct bytes spec_read_result(struct check *check, const struct field *field, const Ringback__V1__Payload *result,
                              const struct services_config *config) {
  if (!result || result->form_case == RINGBACK__V1__PAYLOAD__FORM__NOT_SET)
    return (struct bytes){NULL, 0};
  if (result->form_case == RINGBACK__V1__PAYLOAD__FORM_XML)
    return read_result_xml(check, FIELD(field, "xml"), result->xml, config->payload_bytes_max);
  check_opaque(check, FIELD(field, "opaque"), result->opaque, config->payload_bytes_max);
  return convert_pack(check->arena, &result->base);
}
