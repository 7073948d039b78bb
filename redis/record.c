/* See record.h. The only C that knows the layout; the Lua side is redis/functions/00_base.lua. */
#include "redis/record.h"

#include <string.h>

#include "redis/pack.h"
#include "ringback/v1/common.pb-c.h"

enum { VERSION = 3, HEAD_SIZE = 2, LIMITS_SIZE = 16, STATE_SIZE = 53 };
enum { FLAG_NO_CALLBACK = 1, FLAG_OWN_URL = 2, FLAG_LIMITS = 4, FLAG_NOT_BEFORE = 8, FLAG_EXPIRES = 16, FLAGS = 32 };

/* FNV-1a of the URL up to its path: jobs that call the same host and port share an endpoint's limits. */
static uint32_t endpoint_hash(const char *url) {
  uint32_t hash = 2166136261u;
  const char *authority = strstr(url, "://");
  size_t length = authority ? (size_t)(authority - url) + 3 + strcspn(authority + 3, "/?#") : strlen(url);
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ (uint8_t)url[i]) * 16777619u;
  return hash;
}

static unsigned flags_of(const struct store_new_job *job) {
  unsigned flags = 0;
  if (job->callback_none)
    flags |= FLAG_NO_CALLBACK;
  if (job->callback_url)
    flags |= FLAG_OWN_URL;
  if (job->max_attempts || job->expire_ms || job->lease_ms || job->run_timeout_ms)
    flags |= FLAG_LIMITS;
  if (job->expire_ms)
    flags |= FLAG_EXPIRES;
  if (job->not_before_ms)
    flags |= FLAG_NOT_BEFORE;
  return flags;
}

struct bytes record_create(struct arena *arena, const struct store_new_job *job) {
  unsigned flags = flags_of(job);
  uint8_t *data = arena_alloc(arena, HEAD_SIZE + LIMITS_SIZE + 6 + 4 + job->spec.length);
  uint8_t *at = pack_number(data, VERSION * FLAGS + flags, 1);
  at = pack_number(at, (uint64_t)job->priority, 1);
  if (flags & FLAG_LIMITS) {
    at = pack_number(at, (uint64_t)job->max_attempts, 2);
    at = pack_number(at, (uint64_t)job->expire_ms, 6);
    at = pack_number(at, (uint64_t)job->lease_ms, 4);
    at = pack_number(at, (uint64_t)job->run_timeout_ms, 4);
  }
  if (flags & FLAG_NOT_BEFORE)
    at = pack_number(at, (uint64_t)job->not_before_ms, 6);
  if (flags & FLAG_OWN_URL)
    at = pack_number(at, endpoint_hash(job->callback_url), 4);
  at = pack_bytes(at, job->spec.data, job->spec.length);
  return (struct bytes){data, (size_t)(at - data)};
}

/* state gets the job's stored state; false when the bytes are none. */
static bool read_state(struct arena *arena, struct bytes bytes, struct store_job *job) {
  if (bytes.length < STATE_SIZE)
    return false;
  const uint8_t *at = bytes.data, *end = bytes.data + bytes.length;
  bool running = unpack_number(&at, 1) == RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING;
  unpack_number(&at, 1 + 2); /* flags, run */
  job->attempts = (int)unpack_number(&at, 2);
  job->progress = (int)unpack_number(&at, 1);
  job->fencing_token = (int64_t)unpack_number(&at, 7);
  unpack_number(&at, 7); /* last */
  job->start_ms = (int64_t)unpack_number(&at, 6);
  int64_t stop_ms = (int64_t)unpack_number(&at, 6), due_ms = (int64_t)unpack_number(&at, 6);
  unpack_number(&at, 6); /* mark */
  int64_t lease_ms = (int64_t)unpack_number(&at, 4);
  if (running) {
    job->lease_expire_ms = job->start_ms + lease_ms;
    if (stop_ms && stop_ms < job->lease_expire_ms)
      job->lease_expire_ms = stop_ms;
  } else {
    job->end_ms = stop_ms;
  }
  if (due_ms)
    job->due_ms = due_ms;
  size_t worker = unpack_number(&at, 1), code = unpack_number(&at, 1), message = unpack_number(&at, 2);
  if ((size_t)(end - at) < worker + code + message)
    return false;
  job->worker = arena_strndup(arena, (const char *)at, worker);
  job->code = arena_strndup(arena, (const char *)at + worker, code);
  job->message = arena_strndup(arena, (const char *)at + worker + code, message);
  at += worker + code + message;
  job->result = (struct bytes){at, (size_t)(end - at)};
  return true;
}

bool record_read(struct arena *arena, struct bytes record, struct bytes state, struct store_job *job) {
  if (record.length < HEAD_SIZE || record.data[0] / FLAGS != VERSION)
    return false;
  const uint8_t *at = record.data, *end = record.data + record.length;
  unsigned flags = (unsigned)unpack_number(&at, 1) % FLAGS;
  job->priority = (int)unpack_number(&at, 1);
  size_t limits = flags & FLAG_LIMITS ? LIMITS_SIZE : 0, not_before = flags & FLAG_NOT_BEFORE ? 6 : 0,
         group = flags & FLAG_OWN_URL ? 4 : 0;
  if ((size_t)(end - at) < limits + not_before + group)
    return false;
  at += limits;
  job->due_ms = id_job_create_ms(&job->id);
  if (not_before) {
    int64_t not_before_ms = (int64_t)unpack_number(&at, 6);
    if (not_before_ms > job->due_ms)
      job->due_ms = not_before_ms;
  }
  at += group;
  job->spec = (struct bytes){at, (size_t)(end - at)};
  job->worker = job->code = job->message = "";
  return !state.length || read_state(arena, state, job);
}
