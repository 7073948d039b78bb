/* See body.h. */
#include "server/callback/body.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int body_zone_local(int64_t unix_s) {
  time_t moment = (time_t)unix_s;
  struct tm broken;
  return localtime_r(&moment, &broken) ? (int)broken.tm_gmtoff : 0;
}

/* strftime and printf take ten times as long, three times a body. */
static char *write_digits(char *to, int number, int width) {
  for (int i = width - 1; i >= 0; i--, number /= 10)
    to[i] = (char)('0' + number % 10);
  return to + width;
}

const char *body_time(struct arena *arena, const Google__Protobuf__Timestamp *time, body_zone *zone) {
  if (!time)
    return "-";
  int offset_s = zone(time->seconds);
  time_t shifted = (time_t)(time->seconds + offset_s);
  struct tm broken;
  /* A Timestamp's years have four digits. */
  if (!gmtime_r(&shifted, &broken) || broken.tm_year < -1900 || broken.tm_year > 9999 - 1900)
    return "-";
  int minutes = abs(offset_s) / 60;
  char *text = arena_alloc(arena, sizeof("2022-06-30T19:30:20+0800")), *at = text;
  at = write_digits(at, broken.tm_year + 1900, 4);
  *at++ = '-';
  at = write_digits(at, broken.tm_mon + 1, 2);
  *at++ = '-';
  at = write_digits(at, broken.tm_mday, 2);
  *at++ = 'T';
  at = write_digits(at, broken.tm_hour, 2);
  *at++ = ':';
  at = write_digits(at, broken.tm_min, 2);
  *at++ = ':';
  at = write_digits(at, broken.tm_sec, 2);
  *at++ = offset_s < 0 ? '-' : '+';
  at = write_digits(at, minutes / 60, 2);
  write_digits(at, minutes % 60, 2);
  return text;
}

static const char *state_name(Ringback__V1__JobState state) {
  static const char *const names[] = {[RINGBACK__V1__JOB_STATE__JOB_STATE_UNSPECIFIED] = "",
                                      [RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED] = "Submitted",
                                      [RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING] = "Running",
                                      [RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS] = "Success",
                                      [RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED] = "Failed",
                                      [RINGBACK__V1__JOB_STATE__JOB_STATE_PAUSE] = "Pause",
                                      [RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL] = "Cancel"};
  return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "";
}

size_t body_details(struct arena *arena, const struct body_source *source,
                    struct body_detail details[BODY_DETAILS_MAX]) {
  const Ringback__V1__Job *job = source->job;
  bool failed = job->state == RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED;
  const char *code = !failed ? "Success" : job->code[0] ? job->code : "Failed";
  const struct body_detail all[] = {
      {"Code", code, false},
      {"Message", failed ? job->message : "", false},
      {"JobId", job->id, false},
      {"Tag", job->spec->tag, false},
      {"State", state_name(job->state), false},
      {"Progress", arena_printf(arena, "%d", job->progress), true},
      {"CreationTime", body_time(arena, job->create_time, source->zone), false},
      {"StartTime", body_time(arena, job->start_time, source->zone), false},
      {"EndTime", body_time(arena, job->end_time, source->zone), false},
      {"QueueId", job->queue_id, false},
  };
  _Static_assert(sizeof(all) / sizeof(all[0]) <= BODY_DETAILS_MAX, "room for all");
  memcpy(details, all, sizeof(all));
  return sizeof(all) / sizeof(all[0]);
}

size_t body_input(const struct body_source *source, struct body_detail details[3]) {
  const Ringback__V1__JobInput *input = source->job->spec->input;
  if (input && input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_URL) {
    details[0] = (struct body_detail){"Url", input->url, false};
    return 1;
  }
  const Ringback__V1__ObjectInput *object =
      input && input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT ? input->object : 0;
  bool own_bucket = object && object->bucket[0];
  details[0] = (struct body_detail){"BucketId", own_bucket ? object->bucket : source->bucket, false};
  details[1] = (struct body_detail){"Object", object ? object->object : "", false};
  details[2] = (struct body_detail){"Region", object ? object->region : "", false};
  return 3;
}

static const char *base64(struct arena *arena, const void *data, size_t length) {
  char *text = arena_alloc(arena, (length + 2) / 3 * 4 + 1);
  EVP_EncodeBlock((unsigned char *)text, data, (int)length);
  return text;
}

struct body_payload body_payload(struct arena *arena, const Ringback__V1__Payload *payload, bool xml_is_good) {
  struct body_payload result = {0};
  if (!payload)
    return result;
  if (payload->form_case == RINGBACK__V1__PAYLOAD__FORM_XML) {
    if (xml_is_good) {
      result.xml = payload->xml;
    } else {
      result.content_type = "application/xml";
      result.base64 = base64(arena, payload->xml, strlen(payload->xml));
    }
  } else if (payload->form_case == RINGBACK__V1__PAYLOAD__FORM_OPAQUE && payload->opaque) {
    const char *type = payload->opaque->content_type;
    result.content_type = type[0] ? type : "application/octet-stream";
    result.base64 = base64(arena, payload->opaque->data.data, payload->opaque->data.len);
  }
  return result;
}
