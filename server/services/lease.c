/* LeaseJobs: asks the store, and while it has nothing parks the call under the keys that the store named, until the
 * caller's time is nearly up. Jobs that were leased and cannot be answered (the answer is full, the caller is gone or
 * out of time) are given back without counting. */
#include "server/services/lease.h"

#include <string.h>

#include "ringback/v1/worker.pb-c.h"
#include "server/services/convert.h"
#include "server/services/status.h"

enum { QUEUES_MAX = 100 };

#define WAIT_MAX_MS (60 * SECOND_MS)
/* An empty answer leaves this much before the caller's deadline, so that it arrives as an answer. */
#define ANSWER_MARGIN_MS 250

struct lease_call {
  struct rpc_call *call;
  struct store_lease request;
  const char *what;
  int64_t until_ms;
  struct store_release *answered; /* what the answer carries */
  size_t answered_count;
};

static void reply_empty(struct rpc_call *call) {
  Ringback__V1__LeaseJobsResponse response = RINGBACK__V1__LEASE_JOBS_RESPONSE__INIT;
  rpc_reply(call, &response.base);
}

static void give_back_done(void *context, const struct store_error *error, const struct store_items *result) {
  /* A job that could not be given back returns when its lease runs out. */
  (void)context;
  (void)error;
  (void)result;
}

static struct store_release *releases_of(struct lease_call *context, const struct store_job *jobs, size_t count) {
  struct store_release *releases = ARENA_ARRAY(rpc_arena(context->call), struct store_release, count + 1);
  for (size_t i = 0; i < count; i++)
    releases[i] = (struct store_release){jobs[i].id, jobs[i].fencing_token};
  return releases;
}

static void give_back(struct lease_call *context, const struct store_release *releases, size_t count) {
  if (count > 0)
    store_release(services_store(context->call), context->request.bucket, releases, count, give_back_done, NULL);
}

static Ringback__V1__LeasedJob *convert_leased(struct lease_call *context, const struct store_job *leased) {
  struct arena *arena = rpc_arena(context->call);
  Ringback__V1__LeasedJob *message = ARENA_NEW(arena, Ringback__V1__LeasedJob);
  ringback__v1__leased_job__init(message);
  message->job = convert_job(arena, context->request.bucket, leased, true, rpc_now_ms(context->call));
  message->fencing_token = leased->fencing_token;
  message->lease_expire_time = convert_time(arena, leased->lease_expire_ms);
  return message;
}

static void reply_jobs(struct lease_call *context, const struct store_leased *result) {
  struct arena *arena = rpc_arena(context->call);
  Ringback__V1__LeaseJobsResponse response = RINGBACK__V1__LEASE_JOBS_RESPONSE__INIT;
  response.jobs = ARENA_ARRAY(arena, Ringback__V1__LeasedJob *, result->count);
  size_t size = 0;
  for (size_t i = 0; i < result->count; i++) {
    Ringback__V1__LeasedJob *job = convert_leased(context, &result->jobs[i]);
    size += ringback__v1__leased_job__get_packed_size(job) + 8;
    if (size > ANSWER_BYTES_MAX && i > 0)
      break;
    response.jobs[response.n_jobs++] = job;
  }
  size_t left_out = result->count - response.n_jobs;
  give_back(context, releases_of(context, result->jobs + response.n_jobs, left_out), left_out);
  context->answered = releases_of(context, result->jobs, response.n_jobs);
  context->answered_count = response.n_jobs;
  rpc_reply(context->call, &response.base);
}

static void wait(struct lease_call *context, const struct store_leased *result) {
  const struct store_lease *request = &context->request;
  nearby_learn(services_nearby(context->call), request->bucket, request->queues, result->wait_keys,
               result->wait_key_count);
  if (!rpc_park(context->call, result->wait_keys, result->wait_key_count, false, context->until_ms))
    rpc_fail_status(context->call, status_too_many_parked(rpc_arena(context->call)));
}

static void lease_done(void *data, const struct store_error *error, const struct store_leased *result) {
  struct lease_call *context = data;
  if (rpc_is_over(context->call)) {
    if (error->code == STORE_OK)
      give_back(context, releases_of(context, result->jobs, result->count), result->count);
    return;
  }
  if (status_failed(context->call, error, context->what, NULL))
    return;
  if (result->count > 0)
    reply_jobs(context, result);
  else if (context->until_ms <= rpc_now_ms(context->call))
    reply_empty(context->call);
  else
    wait(context, result);
}

static void ask(struct lease_call *context) {
  store_lease(services_store(context->call), &context->request, lease_done, context);
}

/* When to answer even without a job. */
static int64_t read_wait(struct rpc_call *call, struct check *check, const Google__Protobuf__Duration *wait) {
  int64_t now_ms = rpc_now_ms(call);
  int64_t longest_ms = check_duration(check, FIELD(NULL, "wait"), wait, 0, 366 * DAY_MS, WAIT_MAX_MS);
  if (longest_ms > WAIT_MAX_MS)
    longest_ms = WAIT_MAX_MS;
  int64_t deadline_ms = rpc_deadline_ms(call);
  if (deadline_ms != INT64_MAX && deadline_ms - ANSWER_MARGIN_MS - now_ms < longest_ms)
    longest_ms = deadline_ms - ANSWER_MARGIN_MS - now_ms;
  return now_ms + longest_ms;
}

const char **lease_read_queues(struct check *check, const struct field *parent, char *const *names, size_t count,
                               const char **bucket) {
  check_count(check, FIELD(parent, "queues"), count, 1, QUEUES_MAX);
  *bucket = "";
  if (check->count)
    return NULL;
  const char **queues = ARENA_ARRAY(check->arena, const char *, count);
  for (size_t i = 0; i < count; i++) {
    const struct field *field = FIELD_AT(parent, "queues", i);
    struct queue_name name = check_queue(check, field, names[i]);
    queues[i] = name.queue;
    if (i == 0)
      *bucket = name.bucket;
    else if (*name.bucket && **bucket && strcmp(name.bucket, *bucket) != 0)
      check_fail(check, field, "is in the bucket \"%s\"; all queues of a request must be in one, here \"%s\"",
                 name.bucket, *bucket);
  }
  return queues;
}

void lease_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__LeaseJobsRequest *request = (const Ringback__V1__LeaseJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct lease_call *context = ARENA_NEW(check.arena, struct lease_call);
  context->call = call;
  const char **queues = lease_read_queues(&check, NULL, request->queues, request->n_queues, &context->request.bucket);
  if (!queues) {
    status_refuse(call, &check);
    return;
  }
  context->request.queues = queues;
  context->request.queue_count = request->n_queues;
  context->request.max_jobs =
      (size_t)check_range_or(&check, FIELD(NULL, "max_jobs"), request->max_jobs, 1, BATCH_MAX, 1);
  check_ascii(&check, FIELD(NULL, "worker"), request->worker, LEASE_WORKER_CHARACTERS_MAX);
  context->request.worker = request->worker;
  context->request.lease_ms = check_duration(&check, FIELD(NULL, "lease"), request->lease, SECOND_MS, 12 * HOUR_MS, 0);
  context->until_ms = read_wait(call, &check, request->wait);
  if (status_refuse(call, &check))
    return;
  context->what = request->n_queues == 1
                      ? arena_printf(check.arena, "queue %s", request->queues[0])
                      : arena_printf(check.arena, "queues of the bucket %s", context->request.bucket);
  rpc_set_data(call, context);
  ask(context);
}

void lease_wake(struct rpc_call *call, enum rpc_wake why) {
  if (why == RPC_WAKE_KEY)
    ask(rpc_data(call));
  else
    reply_empty(call);
}

void lease_undelivered(struct rpc_call *call) {
  struct lease_call *context = rpc_data(call);
  if (context)
    give_back(context, context->answered, context->answered_count);
}
