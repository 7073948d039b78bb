/* See record.h. The only C that knows the layout; the Lua side is redis/functions/00_base.lua. */
#include "redis/record.h"

#include <string.h>

#include "ringback/v1/common.pb-c.h"

enum { HEAD_SIZE = 37, TAIL_SIZE = 31, RUN_SIZE = 32, FLAG_NO_CALLBACK = 1, FLAG_OWN_URL = 2, VERSION = 1 };

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

struct bytes record_create(struct arena *arena, const struct store_new_job *job) {
  size_t tag_size = strlen(job->tag);
  unsigned flags = (job->callback_none ? FLAG_NO_CALLBACK : 0u) | (job->callback_url ? FLAG_OWN_URL : 0u);
  size_t size = HEAD_SIZE + tag_size + (job->callback_url ? 4 : 0) + job->spec.length;
  uint8_t *data = arena_alloc(arena, size);
  uint8_t *at = put(data, VERSION, 1);
  at = put(at, RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED, 1);
  at = put(at, flags, 1);
  at = put(at, (uint64_t)job->priority, 1);
  at = put(at, 0, 2); /* attempts */
  at = put(at, (uint64_t)job->max_attempts, 2);
  at = put(at, 0, 4); /* purge epoch: the submit function knows it */
  at = put(at, (uint64_t)job->not_before_ms, 6);
  at = put(at, (uint64_t)job->expire_ms, 6);
  at = put(at, (uint64_t)job->lease_ms, 4);
  at = put(at, (uint64_t)job->run_timeout_ms, 4);
  at = put(at, tag_size, 1);
  at = put(at, job->spec.length, 4);
  memcpy(at, job->tag, tag_size);
  at += tag_size;
  if (job->callback_url)
    at = put(at, endpoint_hash(job->callback_url), 4);
  if (job->spec.length)
    memcpy(at, job->spec.data, job->spec.length);
  return (struct bytes){data, size};
}

static bool read_tail(struct arena *arena, const uint8_t *at, const uint8_t *end, struct store_job *job) {
  if (end - at < TAIL_SIZE)
    return false;
  get(&at, 2); /* run */
  job->progress = (int)get(&at, 1);
  job->start_ms = (int64_t)get(&at, 6);
  job->end_ms = (int64_t)get(&at, 6);
  get(&at, 8); /* last token */
  size_t worker = get(&at, 1), code = get(&at, 1), message = get(&at, 2), result = get(&at, 4);
  if ((size_t)(end - at) != worker + code + message + result)
    return false;
  job->worker = arena_strndup(arena, (const char *)at, worker);
  job->code = arena_strndup(arena, (const char *)at + worker, code);
  job->message = arena_strndup(arena, (const char *)at + worker + code, message);
  job->result = (struct bytes){at + worker + code + message, result};
  return true;
}

static void read_lease(struct arena *arena, struct bytes lease, struct store_job *job) {
  const uint8_t *at = lease.data;
  get(&at, 8); /* token */
  job->start_ms = (int64_t)get(&at, 6);
  get(&at, 6); /* hard end */
  get(&at, 4); /* lease */
  job->progress = (int)get(&at, 1);
  get(&at, 6); /* progress logged */
  job->attempts = (int)get(&at, 1);
  job->end_ms = 0;
  job->worker = arena_strndup(arena, (const char *)at, lease.length - RUN_SIZE);
}

bool record_read(struct arena *arena, struct bytes record, struct bytes lease, struct store_job *job) {
  if (record.length < HEAD_SIZE || record.data[0] != VERSION)
    return false;
  const uint8_t *at = record.data + 2, *end = record.data + record.length;
  unsigned flags = (unsigned)get(&at, 1);
  job->priority = (int)get(&at, 1);
  job->attempts = (int)get(&at, 2);
  get(&at, 2 + 4); /* max_attempts, purge epoch */
  job->due_ms = (int64_t)get(&at, 6);
  get(&at, 6); /* expire_time */
  get(&at, 4); /* lease */
  get(&at, 4); /* run_timeout */
  size_t tag = get(&at, 1), spec = get(&at, 4), group = flags & FLAG_OWN_URL ? 4 : 0;
  if ((size_t)(end - at) < tag + group + spec)
    return false;
  job->spec = (struct bytes){at + tag + group, spec};
  job->worker = job->code = job->message = "";
  at += tag + group + spec;
  if (at < end && !read_tail(arena, at, end, job))
    return false;
  if (lease.length >= RUN_SIZE)
    read_lease(arena, lease, job);
  return true;
}
