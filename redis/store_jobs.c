/* The store's calls about jobs as producers see them (30_jobs.lua). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis/call.h"
#include "redis/record.h"
#include "redis/store.h"
#include "ringback/v1/common.pb-c.h"

enum { JOB_VALUES = 7, CHANGE_SIZE = 18, WATCH_ENTRIES = 200 };

static struct store_call *bucket_call(struct store *store, const char *function, const char *bucket,
                                      call_answer *answer, void (*done)(void), void *context) {
  struct store_call *call = call_create(store, function, id_partition(bucket), answer, done, context);
  call_add_text(call, bucket);
  return call;
}

/* --- submit --- */

static void put_id(struct job_id *id, unsigned first, uint64_t queue, uint64_t ms, uint64_t sequence) {
  id->bytes[0] = (uint8_t)first;
  for (size_t i = 0; i < 5; i++)
    id->bytes[1 + i] = (uint8_t)(queue >> (32 - 8 * i));
  for (size_t i = 0; i < 6; i++)
    id->bytes[6 + i] = (uint8_t)(ms >> (40 - 8 * i));
  for (size_t i = 0; i < 4; i++)
    id->bytes[12 + i] = (uint8_t)(sequence >> (24 - 8 * i));
}

static void answer_submit(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_submit_done *done = (store_submit_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_submitted result = {.repeated = value_number(reply, 1) == 1, .queue = value_text(reply, 2)};
  struct bytes queue_id = value_bytes(reply, 3);
  if (queue_id.length == sizeof result.queue_id)
    memcpy(result.queue_id, queue_id.data, sizeof result.queue_id);
  result.state = (int)value_number(reply, 4);
  unsigned first = (unsigned)value_number(reply, 5) << 6 | call->partition;
  result.count = (size_t)value_number(reply, 9);
  struct job_id *ids = ARENA_ARRAY(call->arena, struct job_id, result.count + 1);
  for (size_t i = 0; i < result.count; i++)
    put_id(&ids[i], first, (uint64_t)value_number(reply, 6), (uint64_t)value_number(reply, 7),
           (uint64_t)value_number(reply, 8) + i);
  result.ids = ids;
  done(call->context, error, &result);
}

void store_submit(struct store *store, const struct store_submit *request, store_submit_done *done, void *context) {
  struct store_call *call = bucket_call(store, "submit", request->bucket, answer_submit, (void (*)(void))done, context);
  call_add_text(call, request->queue ? request->queue : "");
  call_add_number(call, request->feature);
  call_add_text(call, request->request_id);
  uint8_t digest[8];
  memcpy(digest, &request->digest, sizeof digest);
  call_add(call, (struct bytes){digest, sizeof digest});
  for (size_t i = 0; i < request->count; i++)
    call_add_kept(call, record_create(call->arena, &request->jobs[i]));
  call->items = request->count;
  call_send(store, call);
}

/* --- reading --- */

bool job_read(struct store_call *call, const struct job_values *values, struct store_job *job) {
  if (values->queue_id.length != sizeof job->queue_id)
    return false;
  memcpy(job->queue_id, values->queue_id.data, sizeof job->queue_id);
  job->queue = values->queue;
  job->state = values->seen;
  if (!record_read(call->arena, values->record, values->state, job))
    return false;
  int stored = values->state.length ? values->state.data[0] : RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED;
  if (job->state == RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL && stored != job->state) {
    /* It was purged, and the sweep has not come to it yet. */
    job->end_ms = values->purge_ms;
    job->code = "Cancel";
    job->message = "the queue was purged";
  }
  return true;
}

bool value_job(struct store_call *call, const struct redis_value *array, size_t at, struct store_job *job) {
  struct bytes id = value_bytes(array, at);
  if (id.length != sizeof job->id.bytes)
    return false;
  memcpy(job->id.bytes, id.data, sizeof job->id.bytes);
  struct job_values values = {.record = value_bytes(array, at + 3),
                              .state = value_bytes(array, at + 4),
                              .queue_id = value_bytes(array, at + 6),
                              .queue = value_text(array, at + 5),
                              .seen = (int)value_number(array, at + 1),
                              .purge_ms = value_number(array, at + 2)};
  return job_read(call, &values, job);
}

static const struct store_job *read_jobs(struct store_call *call, const struct redis_value *array, size_t *count) {
  size_t most = redis_count(array) / JOB_VALUES;
  struct store_job *jobs = ARENA_ARRAY(call->arena, struct store_job, most + 1);
  *count = 0;
  for (size_t i = 0; i < most; i++)
    if (value_job(call, array, i * JOB_VALUES, &jobs[*count]))
      (*count)++;
  return jobs;
}

static void answer_get(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_jobs_done *done = (store_jobs_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_jobs result = {.next_position = "", .watch_cursor = ""};
  const struct redis_value *missing = redis_at(reply, 2);
  struct job_id *ids = ARENA_ARRAY(call->arena, struct job_id, redis_count(missing) + 1);
  for (size_t i = 0; i < redis_count(missing); i++) {
    struct bytes id = value_bytes(missing, i);
    if (id.length == sizeof ids[0].bytes)
      memcpy(ids[result.missing_count++].bytes, id.data, id.length);
  }
  result.missing = ids;
  result.looked_at = (size_t)value_number(reply, 1);
  result.jobs = read_jobs(call, redis_at(reply, 3), &result.count);
  done(call->context, error, &result);
}

void store_get_jobs(struct store *store, const char *bucket, const struct job_id *ids, size_t count,
                    store_jobs_done *done, void *context) {
  struct store_call *call = bucket_call(store, "get", bucket, answer_get, (void (*)(void))done, context);
  for (size_t i = 0; i < count; i++)
    call_add_id(call, &ids[i]);
  call->items = count;
  call_send(store, call);
}

static void answer_list(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_jobs_done *done = (store_jobs_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_jobs result = {.next_position = value_text(reply, 1), .watch_cursor = value_text(reply, 2)};
  result.jobs = read_jobs(call, redis_at(reply, 3), &result.count);
  done(call->context, error, &result);
}

static void add_filter(struct store_call *call, const struct store_filter *filter) {
  const unsigned waiting =
      1u << RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED | 1u << RINGBACK__V1__JOB_STATE__JOB_STATE_PAUSE;
  call_add_text(call, filter->queue);
  call_add_text(call, filter->tag);
  call_add_number(call, filter->states & waiting ? filter->states | waiting : filter->states);
  call_add_number(call, filter->start_ms);
  call_add_number(call, filter->end_ms);
}

void store_list_jobs(struct store *store, const char *bucket, const struct store_filter *filter, bool ascending,
                     size_t count, const char *position, store_jobs_done *done, void *context) {
  struct store_call *call = bucket_call(store, "list", bucket, answer_list, (void (*)(void))done, context);
  add_filter(call, filter);
  call_add_number(call, ascending);
  call_add_number(call, (int64_t)count);
  call_add_text(call, position);
  call->items = 100; /* a list examines many: two of them are enough for one command */
  call_send(store, call);
}

/* --- changing --- */

void answer_items(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_items_done *done = (store_items_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_items result = {.changed = value_number(reply, 1), .next_position = value_text(reply, 2)};
  result.count = redis_count(reply) - 3;
  struct store_item *items = ARENA_ARRAY(call->arena, struct store_item, result.count + 1);
  for (size_t i = 0; i < result.count; i++) {
    const struct redis_value *refused = redis_at(reply, 3 + i);
    bool done_so = redis_kind(refused) != REDIS_ARRAY;
    int64_t number = done_so ? value_number(reply, 3 + i) : value_number(refused, 2);
    items[i].error.code = done_so ? STORE_OK : (enum store_code)value_number(refused, 0);
    items[i].error.reason = done_so ? "" : value_text(refused, 1);
    items[i].state = (int)number;
    items[i].stop_reason = done_so ? 0 : (int)number;
    items[i].lease_expire_ms = number;
  }
  result.items = items;
  done(call->context, error, &result);
}

static void change_ids(struct store *store, const char *function, const char *bucket, const struct job_id *ids,
                       size_t count, store_items_done *done, void *context) {
  struct store_call *call = bucket_call(store, function, bucket, answer_items, (void (*)(void))done, context);
  call_add_text(call, "i");
  for (size_t i = 0; i < count; i++)
    call_add_id(call, &ids[i]);
  call->items = count;
  call_send(store, call);
}

static void change_filter(struct store *store, const char *function, const char *bucket,
                          const struct store_filter *filter, const char *position, store_items_done *done,
                          void *context) {
  struct store_call *call = bucket_call(store, function, bucket, answer_items, (void (*)(void))done, context);
  call_add_text(call, "f");
  add_filter(call, filter);
  call_add_text(call, position);
  call->items = 250;
  call_send(store, call);
}

void store_cancel_jobs(struct store *store, const char *bucket, const struct job_id *ids, size_t count,
                       store_items_done *done, void *context) {
  change_ids(store, "cancel", bucket, ids, count, done, context);
}

void store_cancel_filter(struct store *store, const char *bucket, const struct store_filter *filter,
                         const char *position, store_items_done *done, void *context) {
  change_filter(store, "cancel", bucket, filter, position, done, context);
}

void store_retry_jobs(struct store *store, const char *bucket, const struct job_id *ids, size_t count,
                      store_items_done *done, void *context) {
  change_ids(store, "retry", bucket, ids, count, done, context);
}

void store_retry_filter(struct store *store, const char *bucket, const struct store_filter *filter,
                        const char *position, store_items_done *done, void *context) {
  change_filter(store, "retry", bucket, filter, position, done, context);
}

void store_change_priority(struct store *store, const char *bucket, const struct job_id *id, int priority,
                           store_jobs_done *done, void *context) {
  struct store_call *call = bucket_call(store, "priority", bucket, answer_get, (void (*)(void))done, context);
  call_add_id(call, id);
  call_add_number(call, priority);
  call_send(store, call);
}

/* --- explain and watch --- */

static void answer_explain(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_explain_done *done = (store_explain_done *)call->done;
  struct store_explanation result = {.reason = 0};
  if (!error->code && !value_job(call, redis_at(reply, 7), 0, &result.job)) {
    struct store_error nonsense = {.code = STORE_INTERNAL, .reason = "the job's record cannot be read"};
    done(call->context, &nonsense, NULL);
    return;
  }
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  result.reason = (int)value_number(reply, 1);
  result.position = value_number(reply, 2);
  result.waiting = value_number(reply, 3);
  result.running = value_number(reply, 4);
  result.max_concurrent = value_number(reply, 5);
  result.lease_expire_ms = value_number(reply, 6);
  done(call->context, error, &result);
}

void store_explain_job(struct store *store, const char *bucket, const struct job_id *id, store_explain_done *done,
                       void *context) {
  struct store_call *call = bucket_call(store, "explain", bucket, answer_explain, (void (*)(void))done, context);
  call_add_id(call, id);
  call_send(store, call);
}

/* The name of an event's queue; a waiting job of a paused queue reads as Pause. */
static void name_event(const struct redis_value *names, struct store_event *event) {
  int64_t number = (int64_t)id_job_queue_number(&event->id);
  event->queue = "";
  for (size_t i = 0; i + 2 < redis_count(names); i += 3) {
    if (value_number(names, i) != number)
      continue;
    event->queue = value_text(names, i + 1);
    if (event->state == RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED && value_number(names, i + 2) == 1)
      event->state = RINGBACK__V1__JOB_STATE__JOB_STATE_PAUSE;
    return;
  }
}

static void answer_watch(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_watch_done *done = (store_watch_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_events result = {.cursor = value_text(reply, 1), .more = value_number(reply, 2) == 1};
  const struct redis_value *entries = redis_at(reply, 3), *names = redis_at(reply, 4);
  size_t most = 0;
  for (size_t i = 1; i < redis_count(entries); i += 2)
    most += value_bytes(entries, i).length / CHANGE_SIZE;
  struct store_event *events = ARENA_ARRAY(call->arena, struct store_event, most + 1);
  for (size_t i = 0; i + 1 < redis_count(entries); i += 2) {
    struct bytes changes = value_bytes(entries, i + 1);
    for (size_t at = 0; at + CHANGE_SIZE <= changes.length; at += CHANGE_SIZE) {
      struct store_event *event = &events[result.count++];
      memcpy(event->id.bytes, changes.data + at, sizeof event->id.bytes);
      event->state = changes.data[at + 16];
      event->progress = changes.data[at + 17];
      event->time_ms = value_number(entries, i);
      name_event(names, event);
    }
  }
  result.events = events;
  done(call->context, error, &result);
}

void store_watch(struct store *store, const char *bucket, const char *cursor, store_watch_done *done, void *context) {
  struct store_call *call = bucket_call(store, "watch", bucket, answer_watch, (void (*)(void))done, context);
  call_add_text(call, cursor);
  call_add_number(call, WATCH_ENTRIES);
  call->items = 50;
  call_send(store, call);
}
