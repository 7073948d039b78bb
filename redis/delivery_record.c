/* See delivery_record.h. Numbers are big-endian. */
#include "redis/delivery_record.h"

#include <stdlib.h>
#include <string.h>

#include "redis/pack.h"
#include "ringback/v1/callback.pb-c.h"

enum {
  ID_SIZE = 19, /* a job's id, event, run */
  ATTEMPT_SIZE = 49,
  BODY_VERSION = 1,
  BODY_HEAD_SIZE = 5,
};

static const char task_finish[] = "TaskFinish";

/* What is left of something packed; `bad` once more was asked for than there is. */
struct reader {
  const uint8_t *at;
  size_t left;
  bool bad;
};

static const uint8_t *take(struct reader *reader, size_t size) {
  if (reader->bad || size > reader->left) {
    reader->bad = true;
    return NULL;
  }
  const uint8_t *at = reader->at;
  reader->at += size;
  reader->left -= size;
  return at;
}

static int64_t take_number(struct reader *reader, size_t size) {
  const uint8_t *at = take(reader, size);
  return at ? (int64_t)unpack_number(&at, size) : 0;
}

static const char *take_text(struct reader *reader, struct arena *arena, size_t size) {
  const uint8_t *at = take(reader, size);
  return at ? arena_strndup(arena, (const char *)at, size) : "";
}

static size_t at_most(const char *text, size_t most) {
  return strnlen(text, most);
}

/* --- ids --- */

struct bytes delivery_id_parse(struct arena *arena, const char *text) {
  struct bytes as_it_is = {(const uint8_t *)text, strlen(text)};
  enum { JOB_AT = 3, EVENT_AT = JOB_AT + ID_TEXT_SIZE };
  size_t run_at = EVENT_AT + sizeof task_finish;
  char job_text[ID_TEXT_SIZE];
  struct job_id job;
  if (as_it_is.length <= run_at || strncmp(text, "cb_", JOB_AT) != 0 || text[EVENT_AT - 1] != '_' ||
      strncmp(text + EVENT_AT, task_finish, sizeof task_finish - 1) != 0 || text[run_at - 1] != '_')
    return as_it_is;
  memcpy(job_text, text + JOB_AT, ID_TEXT_SIZE - 1);
  job_text[ID_TEXT_SIZE - 1] = 0;
  const char *run = text + run_at;
  char *end;
  long number = strtol(run, &end, 10);
  bool plain = *run >= '0' && *run <= '9' && (*run != '0' || !run[1]) && !*end && number <= UINT16_MAX;
  if (!plain || !id_parse_job(job_text, &job))
    return as_it_is;
  uint8_t *id = arena_alloc(arena, ID_SIZE);
  uint8_t *at = pack_bytes(id, job.bytes, sizeof job.bytes);
  at = pack_number(at, RINGBACK__V1__CALLBACK_EVENT__CALLBACK_EVENT_TASK_FINISH, 1);
  pack_number(at, (uint64_t)number, 2);
  return (struct bytes){id, ID_SIZE};
}

const char *delivery_id_format(struct arena *arena, struct bytes id, struct job_id *job, int *event) {
  *event = RINGBACK__V1__CALLBACK_EVENT__CALLBACK_EVENT_TASK_FINISH;
  if (id.length != ID_SIZE)
    return arena_strndup(arena, (const char *)id.data, id.length);
  struct reader reader = {id.data, id.length, false};
  memcpy(job->bytes, take(&reader, sizeof job->bytes), sizeof job->bytes);
  *event = (int)take_number(&reader, 1);
  int run = (int)take_number(&reader, 2);
  char job_text[ID_TEXT_SIZE];
  id_format_job(job, job_text);
  return arena_printf(arena, "cb_%s_%s_%d", job_text, task_finish, run);
}

/* --- attempts --- */

struct bytes attempt_pack(struct arena *arena, const struct store_settlement *settlement) {
  size_t address = at_most(settlement->address, UINT8_MAX), class = at_most(settlement->error_class, UINT8_MAX);
  size_t message = at_most(settlement->error_message, 4096), url = at_most(settlement->url, 4096);
  size_t size = ATTEMPT_SIZE + address + class + message + url;
  uint8_t *data = arena_alloc(arena, size);
  uint8_t *at = pack_number(data, (uint64_t)settlement->state, 1);
  at = pack_number(at, (uint64_t)settlement->http_status, 2);
  at = pack_number(at, (uint64_t)settlement->next_reason, 1);
  at = pack_number(at, (uint64_t)settlement->claim_token, 7);
  at = pack_number(at, (uint64_t)settlement->start_ms, 6);
  at = pack_number(at, (uint64_t)settlement->next_ms, 6);
  at = pack_number(at, (uint64_t)settlement->dns_us, 4);
  at = pack_number(at, (uint64_t)settlement->connect_us, 4);
  at = pack_number(at, (uint64_t)settlement->tls_us, 4);
  at = pack_number(at, (uint64_t)settlement->first_byte_us, 4);
  at = pack_number(at, (uint64_t)settlement->total_us, 4);
  at = pack_number(at, address, 1);
  at = pack_number(at, class, 1);
  at = pack_number(at, message, 2);
  at = pack_number(at, url, 2);
  at = pack_bytes(at, settlement->address, address);
  at = pack_bytes(at, settlement->error_class, class);
  at = pack_bytes(at, settlement->error_message, message);
  pack_bytes(at, settlement->url, url);
  return (struct bytes){data, size};
}

static void attempt_unpack(struct arena *arena, struct reader *reader, struct store_attempt *attempt) {
  take_number(reader, 1); /* state */
  attempt->http_status = (int)take_number(reader, 2);
  attempt->next_reason = (int)take_number(reader, 1);
  take_number(reader, 7); /* token */
  attempt->start_ms = take_number(reader, 6);
  attempt->next_ms = take_number(reader, 6);
  attempt->dns_us = take_number(reader, 4);
  attempt->connect_us = take_number(reader, 4);
  attempt->tls_us = take_number(reader, 4);
  attempt->first_byte_us = take_number(reader, 4);
  attempt->total_us = take_number(reader, 4);
  size_t address = (size_t)take_number(reader, 1), class = (size_t)take_number(reader, 1);
  size_t message = (size_t)take_number(reader, 2), url = (size_t)take_number(reader, 2);
  attempt->address = take_text(reader, arena, address);
  attempt->error_class = take_text(reader, arena, class);
  attempt->error_message = take_text(reader, arena, message);
  take(reader, url);
}

const struct store_attempt *attempts_unpack(struct arena *arena, struct bytes log, size_t count, int last_number) {
  struct reader reader = {log.data, log.length, false};
  struct store_attempt *attempts = ARENA_ARRAY(arena, struct store_attempt, count + 1);
  for (size_t i = 0; i < count; i++) {
    attempt_unpack(arena, &reader, &attempts[i]);
    attempts[i].number = last_number - (int)(count - 1 - i);
  }
  return reader.bad || reader.left ? NULL : attempts;
}

/* --- bodies --- */

struct bytes body_pack(struct arena *arena, const struct store_body *body) {
  size_t type = at_most(body->content_type, UINT8_MAX), trace = at_most(body->traceparent, UINT8_MAX);
  size_t url = at_most(body->url, UINT16_MAX);
  size_t size = BODY_HEAD_SIZE + type + trace + url + body->bytes.length;
  uint8_t *data = arena_alloc(arena, size);
  uint8_t *at = pack_number(data, BODY_VERSION, 1);
  at = pack_number(at, type, 1);
  at = pack_number(at, trace, 1);
  at = pack_number(at, url, 2);
  at = pack_bytes(at, body->content_type, type);
  at = pack_bytes(at, body->traceparent, trace);
  at = pack_bytes(at, body->url, url);
  pack_bytes(at, body->bytes.data, body->bytes.length);
  return (struct bytes){data, size};
}

bool body_unpack(struct arena *arena, struct bytes packed, struct store_body *body) {
  struct reader reader = {packed.data, packed.length, false};
  if (take_number(&reader, 1) != BODY_VERSION)
    return false;
  size_t type = (size_t)take_number(&reader, 1), trace = (size_t)take_number(&reader, 1);
  size_t url = (size_t)take_number(&reader, 2);
  body->content_type = take_text(&reader, arena, type);
  body->traceparent = take_text(&reader, arena, trace);
  body->url = take_text(&reader, arena, url);
  body->bytes = (struct bytes){reader.at, reader.left};
  return !reader.bad;
}
