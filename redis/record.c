/* See record.h. The only C that knows the layout; the Lua side is redis/functions/00_base.lua. */
#include "redis/record.h"

#include <string.h>

#include "ringback/v1/common.pb-c.h"

enum { VERSION = 2, HEAD_SIZE = 4, LIMITS_SIZE = 16, STATE_SIZE = 53 };
enum { FLAG_NO_CALLBACK = 1, FLAG_OWN_URL = 2, FLAG_LIMITS = 4, FLAG_NOT_BEFORE = 8, FLAG_EXPIRES = 16 };

static uint8_t *put(uint8_t *at, uint64_t value, unsigned size) {
  for (unsigned i = size; i > 0; i--) {
    at[i - 1] = (uint8_t)(value & 0xff);
    value >>= 8;
  }
  return at + size;
}

static uint64_t get(const uint8_t **at, unsigned size) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; i++)
    value = value << 8 | (*at)[i];
  *at += size;
  return value;
}

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
  size_t tag_size = strlen(job->tag);
  unsigned flags = flags_of(job);
  uint8_t *data = arena_alloc(arena, HEAD_SIZE + LIMITS_SIZE + 6 + 4 + tag_size + job->spec.length);
  uint8_t *at = put(data, VERSION, 1);
  at = put(at, flags, 1);
  at = put(at, (uint64_t)job->priority, 1);
  at = put(at, tag_size, 1);
  if (flags & FLAG_LIMITS) {
    at = put(at, (uint64_t)job->max_attempts, 2);
    at = put(at, (uint64_t)job->expire_ms, 6);
    at = put(at, (uint64_t)job->lease_ms, 4);
    at = put(at, (uint64_t)job->run_timeout_ms, 4);
  }
  if (flags & FLAG_NOT_BEFORE)
    at = put(at, (uint64_t)job->not_before_ms, 6);
  if (flags & FLAG_OWN_URL)
    at = put(at, endpoint_hash(job->callback_url), 4);
  memcpy(at, job->tag, tag_size);
  at += tag_size;
  if (job->spec.length)
    memcpy(at, job->spec.data, job->spec.length);
  return (struct bytes){data, (size_t)(at - data) + job->spec.length};
}

/* state gets the job's stored state; false when the bytes are none. */
static bool read_state(struct arena *arena, struct bytes bytes, struct store_job *job) {
  if (bytes.length < STATE_SIZE)
    return false;
  const uint8_t *at = bytes.data, *end = bytes.data + bytes.length;
  bool running = get(&at, 1) == RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING;
  get(&at, 1 + 2); /* flags, run */
  job->attempts = (int)get(&at, 2);
  job->progress = (int)get(&at, 1);
  job->fencing_token = (int64_t)get(&at, 7);
  get(&at, 7); /* last */
  job->start_ms = (int64_t)get(&at, 6);
  int64_t stop_ms = (int64_t)get(&at, 6), due_ms = (int64_t)get(&at, 6);
  get(&at, 6); /* mark */
  int64_t lease_ms = (int64_t)get(&at, 4);
  if (running) {
    job->lease_expire_ms = job->start_ms + lease_ms;
    if (stop_ms && stop_ms < job->lease_expire_ms)
      job->lease_expire_ms = stop_ms;
  } else {
    job->end_ms = stop_ms;
  }
  if (due_ms)
    job->due_ms = due_ms;
  size_t worker = get(&at, 1), code = get(&at, 1), message = get(&at, 2);
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
  if (record.length < HEAD_SIZE || record.data[0] != VERSION)
    return false;
  const uint8_t *at = record.data + 1, *end = record.data + record.length;
  unsigned flags = (unsigned)get(&at, 1);
  job->priority = (int)get(&at, 1);
  size_t tag = get(&at, 1), limits = flags & FLAG_LIMITS ? LIMITS_SIZE : 0,
         not_before = flags & FLAG_NOT_BEFORE ? 6 : 0, group = flags & FLAG_OWN_URL ? 4 : 0;
  if ((size_t)(end - at) < limits + not_before + group + tag)
    return false;
  at += limits;
  job->due_ms = id_job_create_ms(&job->id);
  if (not_before) {
    int64_t not_before_ms = (int64_t)get(&at, 6);
    if (not_before_ms > job->due_ms)
      job->due_ms = not_before_ms;
  }
  at += group + tag;
  job->spec = (struct bytes){at, (size_t)(end - at)};
  job->worker = job->code = job->message = "";
  return !state.length || read_state(arena, state, job);
}
