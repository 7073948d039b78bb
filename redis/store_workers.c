/* The store's calls about jobs as workers see them (40_workers.lua). */
#include "redis/call.h"
#include "redis/record.h"
#include "redis/store.h"

enum { LEASED_VALUES = 9 };

static struct store_call *bucket_call(struct store *store, const char *function, const char *bucket, size_t items,
                                      call_answer *answer, void (*done)(void), void *context) {
  struct store_call *call = call_create(store, function, id_partition(bucket), answer, done, context);
  call_add_text(call, bucket);
  call->items = items;
  return call;
}

static void answer_lease(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_lease_done *done = (store_lease_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  const struct redis_value *numbers = redis_at(reply, 1), *values = redis_at(reply, 2);
  struct store_leased result = {.wait_key_count = redis_count(numbers)};
  uint64_t *keys = ARENA_ARRAY(call->arena, uint64_t, result.wait_key_count + 1);
  for (size_t i = 0; i < result.wait_key_count; i++)
    keys[i] = store_key_queue(call->partition, (uint64_t)value_number(numbers, i));
  result.wait_keys = keys;
  size_t most = redis_count(values) / LEASED_VALUES;
  struct store_leased_job *jobs = ARENA_ARRAY(call->arena, struct store_leased_job, most + 1);
  for (size_t i = 0; i < most; i++) {
    struct store_leased_job *job = &jobs[result.count];
    job->fencing_token = value_number(values, i * LEASED_VALUES);
    job->lease_expire_ms = value_number(values, i * LEASED_VALUES + 1);
    if (value_job(call, values, i * LEASED_VALUES + 2, &job->job))
      result.count++;
  }
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

void store_renew(struct store *store, const char *bucket, const struct store_renewal *renewals, size_t count,
                 store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, "renew", bucket, count, answer_items, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++) {
    call_add_id(call, &renewals[i].id);
    call_add_number(call, renewals[i].fencing_token);
    call_add_number(call, renewals[i].progress);
    call_add_number(call, renewals[i].extension_ms);
  }
  call_send(store, call);
}

static const char *outcome_of(const struct store_finish *job) {
  if (job->success)
    return "s";
  return job->retry == STORE_RETRY_NEVER ? "n" : job->retry == STORE_RETRY_AFTER ? "a" : "d";
}

void store_finish(struct store *store, const char *bucket, const struct store_finish *jobs, size_t count,
                  store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, "finish", bucket, count, answer_items, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++) {
    call_add_id(call, &jobs[i].id);
    call_add_number(call, jobs[i].fencing_token);
    call_add_text(call, outcome_of(&jobs[i]));
    call_add_number(call, jobs[i].after_ms);
    call_add_text(call, jobs[i].success ? "Success" : jobs[i].code);
    call_add_text(call, jobs[i].message);
    call_add(call, jobs[i].result);
  }
  call_send(store, call);
}

void store_release(struct store *store, const char *bucket, const struct store_release *leases, size_t count,
                   store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, "release", bucket, count, answer_items, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++) {
    call_add_id(call, &leases[i].id);
    call_add_number(call, leases[i].fencing_token);
  }
  call_send(store, call);
}
