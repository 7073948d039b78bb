/* The store's calls about jobs as workers see them (40_workers.lua). */
#include <string.h>

#include "redis/call.h"
#include "redis/pack.h"
#include "redis/record.h"
#include "redis/store.h"
#include "ringback/v1/common.pb-c.h"

enum { QUEUE_VALUES = 3, LEASED_VALUES = 3 };

/* --- lease --- */

static struct store_call *bucket_call(struct store *store, const char *function, const char *bucket, size_t items,
                                      call_answer *answer, void (*done)(void), void *context) {
  struct store_call *call = call_create(store, function, id_partition(bucket), answer, done, context);
  call_add_text(call, bucket);
  call->items = items;
  return call;
}

/* The job's queue among those of the answer, by the number in its id. */
static bool set_queue(const struct redis_value *queues, struct store_job *job) {
  int64_t number = (int64_t)id_job_queue_number(&job->id);
  for (size_t i = 0; i + QUEUE_VALUES <= redis_count(queues); i += QUEUE_VALUES) {
    if (value_number(queues, i) != number)
      continue;
    struct bytes id = value_bytes(queues, i + 2);
    job->queue = value_text(queues, i + 1);
    if (id.length == sizeof job->queue_id)
      memcpy(job->queue_id, id.data, id.length);
    return id.length == sizeof job->queue_id;
  }
  return false;
}

static bool read_leased(struct store_call *call, const struct redis_value *reply, size_t at, struct store_job *job) {
  const struct redis_value *values = redis_at(reply, 2);
  struct bytes id = value_bytes(values, at);
  if (id.length != sizeof job->id.bytes)
    return false;
  memcpy(job->id.bytes, id.data, id.length);
  job->state = RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING;
  return set_queue(redis_at(reply, 1), job) &&
         record_read(call->arena, value_bytes(values, at + 1), value_bytes(values, at + 2), job);
}

static void answer_lease(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_lease_done *done = (store_lease_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  const struct redis_value *queues = redis_at(reply, 1), *values = redis_at(reply, 2);
  struct store_leased result = {.wait_key_count = redis_count(queues) / QUEUE_VALUES};
  uint64_t *keys = ARENA_ARRAY(call->arena, uint64_t, result.wait_key_count + 1);
  for (size_t i = 0; i < result.wait_key_count; i++)
    keys[i] = store_key_queue(call->partition, (uint64_t)value_number(queues, i * QUEUE_VALUES));
  result.wait_keys = keys;
  size_t most = redis_count(values) / LEASED_VALUES;
  struct store_job *jobs = ARENA_ARRAY(call->arena, struct store_job, most + 1);
  for (size_t i = 0; i < most; i++)
    if (read_leased(call, reply, i * LEASED_VALUES, &jobs[result.count]))
      result.count++;
  result.jobs = jobs;
  done(call->context, error, &result);
}

void store_lease(struct store *store, const struct store_lease *request, store_lease_done *done, void *context) {
  struct store_call *call =
      bucket_call(store, "lease", request->bucket, request->max_jobs, answer_lease, (void (*)(void))done, context);
  call_add_number(call, (int64_t)request->max_jobs);
  call_add_text(call, request->worker);
  call_add_number(call, request->lease_ms);
  for (size_t i = 0; i < request->queue_count; i++)
    call_add_text(call, request->queues[i]);
  call_send(store, call);
}

/* --- what workers say of their leases --- */

enum { NAMED_SIZE = sizeof(struct job_id) + 7 };

/* Packs how a worker's call names a job. */
static uint8_t *name_job(uint8_t *at, const struct job_id *id, int64_t token) {
  bool possible = token > 0 && token < (int64_t)1 << 56; /* 0 is nobody's */
  at = pack_bytes(at, id->bytes, sizeof id->bytes);
  return pack_number(at, possible ? (uint64_t)token : 0, 7);
}

static void add_packed(struct store_call *call, const uint8_t *data, const uint8_t *end) {
  call_add_kept(call, (struct bytes){data, (size_t)(end - data)});
}

void store_renew(struct store *store, const char *bucket, const struct store_renewal *renewals, size_t count,
                 store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, "renew", bucket, count, answer_items, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++) {
    uint8_t *data = arena_alloc(call->arena, NAMED_SIZE + 1 + 6);
    uint8_t *at = name_job(data, &renewals[i].id, renewals[i].fencing_token);
    at = pack_number(at, (uint64_t)renewals[i].progress, 1);
    at = pack_number(at, (uint64_t)renewals[i].extension_ms, 6);
    add_packed(call, data, at);
  }
  call_send(store, call);
}

static char outcome_of(const struct store_finish *job) {
  if (job->success)
    return 's';
  return job->retry == STORE_RETRY_NEVER ? 'n' : job->retry == STORE_RETRY_AFTER ? 'a' : 'd';
}

void store_finish(struct store *store, const char *bucket, const struct store_finish *jobs, size_t count,
                  store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, "finish", bucket, count, answer_items, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++) {
    const struct store_finish *job = &jobs[i];
    const char *code = job->success ? "" : job->code;
    size_t code_size = strlen(code), message_size = strlen(job->message);
    uint8_t *data =
        arena_alloc(call->arena, NAMED_SIZE + 1 + 6 + 1 + 2 + code_size + message_size + job->result.length);
    uint8_t *at = name_job(data, &job->id, job->fencing_token);
    at = pack_number(at, (uint64_t)(unsigned char)outcome_of(job), 1);
    at = pack_number(at, (uint64_t)job->after_ms, 6);
    at = pack_number(at, code_size, 1);
    at = pack_number(at, message_size, 2);
    at = pack_bytes(at, code, code_size);
    at = pack_bytes(at, job->message, message_size);
    at = pack_bytes(at, job->result.data, job->result.length);
    add_packed(call, data, at);
  }
  call_send(store, call);
}

void store_release(struct store *store, const char *bucket, const struct store_release *leases, size_t count,
                   store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, "release", bucket, count, answer_items, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++) {
    uint8_t *data = arena_alloc(call->arena, NAMED_SIZE);
    uint8_t *at = name_job(data, &leases[i].id, leases[i].fencing_token);
    add_packed(call, data, at);
  }
  call_send(store, call);
}
