/* WorkerService: what each RPC does is said in proto/ringback/v1/worker.proto. LeaseJobs stands in lease.c. */
#include <string.h>

#include "ringback/v1/worker.pb-c.h"
#include "server/services/convert.h"
#include "server/services/lease.h"
#include "server/services/spec.h"
#include "server/services/status.h"

enum { MESSAGE_BYTES_MAX = 1024, CODE_CHARACTERS_MAX = 64 };

struct batch_call {
  struct rpc_call *call;
  const char *what;
  const char **items; /* `job ID`, for each item's errors */
};

static struct batch_call *begin(struct rpc_call *call, const char *bucket, size_t count) {
  struct batch_call *context = ARENA_NEW(rpc_arena(call), struct batch_call);
  context->call = call;
  context->what = arena_printf(rpc_arena(call), "bucket %s", bucket);
  context->items = ARENA_ARRAY(rpc_arena(call), const char *, count);
  return context;
}

static Google__Rpc__Status *item_status(struct batch_call *context, const struct store_items *result, size_t i) {
  return status_store(rpc_arena(context->call), &result->items[i].error, context->items[i], context->items[i]);
}

/* A lease of a batch: its job id, its token, and what to call it. */
static void read_lease(struct check *check, const struct field *field, const Ringback__V1__Lease *lease,
                       struct job_id *id, int64_t *fencing_token, const char **item) {
  if (!lease) {
    check_fail(check, field, "is missing");
    return;
  }
  check_job_id(check, FIELD(field, "job_id"), lease->job_id, id);
  *fencing_token = lease->fencing_token;
  *item = arena_printf(check->arena, "job %.40s", lease->job_id);
}

/* --- RenewLeases --- */

static void renew_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct batch_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__RenewLeasesResponse response = RINGBACK__V1__RENEW_LEASES_RESPONSE__INIT;
  response.results = ARENA_ARRAY(arena, Ringback__V1__RenewLeasesResult *, result->count);
  for (size_t i = 0; i < result->count; i++) {
    Ringback__V1__RenewLeasesResult *item = ARENA_NEW(arena, Ringback__V1__RenewLeasesResult);
    ringback__v1__renew_leases_result__init(item);
    item->status = item_status(context, result, i);
    if (result->items[i].error.code == STORE_OK)
      item->lease_expire_time = convert_time(arena, result->items[i].lease_expire_ms);
    else
      item->stop_reason = (Ringback__V1__StopReason)result->items[i].stop_reason;
    response.results[response.n_results++] = item;
  }
  rpc_reply(context->call, &response.base);
}

static void renew_leases(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__RenewLeasesRequest *request = (const Ringback__V1__RenewLeasesRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_count(&check, FIELD(NULL, "renewals"), request->n_renewals, 1, BATCH_MAX);
  if (status_refuse(call, &check))
    return;
  struct batch_call *context = begin(call, request->bucket, request->n_renewals);
  struct store_renewal *renewals = ARENA_ARRAY(check.arena, struct store_renewal, request->n_renewals);
  for (size_t i = 0; i < request->n_renewals; i++) {
    const Ringback__V1__LeaseRenewal *renewal = request->renewals[i];
    const struct field *field = FIELD_AT(NULL, "renewals", i);
    read_lease(&check, FIELD(field, "lease"), renewal->lease, &renewals[i].id, &renewals[i].fencing_token,
               &context->items[i]);
    renewals[i].progress = (int)check_range(&check, FIELD(field, "progress"), renewal->progress, 0, 100);
    renewals[i].extension_ms =
        check_duration(&check, FIELD(field, "extension"), renewal->extension, SECOND_MS, 12 * HOUR_MS, 0);
  }
  if (status_refuse(call, &check))
    return;
  store_renew(services_store(call), bucket, renewals, request->n_renewals, renew_done, context);
}

/* --- FinishJobs --- */

static void finish_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct batch_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__FinishJobsResponse response = RINGBACK__V1__FINISH_JOBS_RESPONSE__INIT;
  response.results = ARENA_ARRAY(arena, Ringback__V1__FinishJobsResult *, result->count);
  for (size_t i = 0; i < result->count; i++) {
    Ringback__V1__FinishJobsResult *item = ARENA_NEW(arena, Ringback__V1__FinishJobsResult);
    ringback__v1__finish_jobs_result__init(item);
    item->status = item_status(context, result, i);
    if (result->items[i].error.code == STORE_OK)
      item->state = (Ringback__V1__JobState)result->items[i].state;
    response.results[response.n_results++] = item;
  }
  rpc_reply(context->call, &response.base);
}

static void read_success(struct check *check, const struct field *field, const Ringback__V1__JobSuccess *success,
                         const struct services_config *config, struct store_finish *finish) {
  finish->success = true;
  finish->code = "Success";
  finish->message = spec_read_text(check->arena, success->message, MESSAGE_BYTES_MAX);
  finish->result = spec_read_result(check, FIELD(field, "result"), success->result, config);
}

static void read_failure(struct check *check, const struct field *field, const Ringback__V1__JobFailure *failure,
                         const struct services_config *config, struct store_finish *finish) {
  finish->code = *failure->code ? failure->code : "Failed";
  check_token(check, FIELD(field, "code"), finish->code, CODE_CHARACTERS_MAX);
  finish->message = spec_read_text(check->arena, failure->message, MESSAGE_BYTES_MAX);
  finish->result = spec_read_result(check, FIELD(field, "result"), failure->result, config);
  if (failure->retry_case == RINGBACK__V1__JOB_FAILURE__RETRY_NEVER && failure->never)
    finish->retry = STORE_RETRY_NEVER;
  if (failure->retry_case == RINGBACK__V1__JOB_FAILURE__RETRY_AFTER) {
    finish->retry = STORE_RETRY_AFTER;
    finish->after_ms = check_duration(check, FIELD(field, "after"), failure->after, 0, DAY_MS, 0);
  }
}

static void finish_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__FinishJobsRequest *request = (const Ringback__V1__FinishJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const struct services_config *config = services_config(call);
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_count(&check, FIELD(NULL, "jobs"), request->n_jobs, 1, BATCH_MAX);
  if (status_refuse(call, &check))
    return;
  struct batch_call *context = begin(call, request->bucket, request->n_jobs);
  struct store_finish *finishes = ARENA_ARRAY(check.arena, struct store_finish, request->n_jobs);
  for (size_t i = 0; i < request->n_jobs; i++) {
    const Ringback__V1__FinishedJob *job = request->jobs[i];
    const struct field *field = FIELD_AT(NULL, "jobs", i);
    read_lease(&check, FIELD(field, "lease"), job->lease, &finishes[i].id, &finishes[i].fencing_token,
               &context->items[i]);
    if (job->outcome_case == RINGBACK__V1__FINISHED_JOB__OUTCOME_SUCCESS)
      read_success(&check, FIELD(field, "success"), job->success, config, &finishes[i]);
    else if (job->outcome_case == RINGBACK__V1__FINISHED_JOB__OUTCOME_FAILURE)
      read_failure(&check, FIELD(field, "failure"), job->failure, config, &finishes[i]);
    else
      check_fail(&check, FIELD(field, "outcome"), "is missing; it must be success or failure");
  }
  if (status_refuse(call, &check))
    return;
  store_finish(services_store(call), bucket, finishes, request->n_jobs, finish_done, context);
}

/* --- ReleaseJobs --- */

static void release_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct batch_call *context = data;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ReleaseJobsResponse response = RINGBACK__V1__RELEASE_JOBS_RESPONSE__INIT;
  response.results = ARENA_ARRAY(rpc_arena(context->call), Google__Rpc__Status *, result->count);
  for (size_t i = 0; i < result->count; i++)
    response.results[response.n_results++] = item_status(context, result, i);
  rpc_reply(context->call, &response.base);
}

static void release_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ReleaseJobsRequest *request = (const Ringback__V1__ReleaseJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_count(&check, FIELD(NULL, "leases"), request->n_leases, 1, BATCH_MAX);
  if (status_refuse(call, &check))
    return;
  struct batch_call *context = begin(call, request->bucket, request->n_leases);
  struct store_release *leases = ARENA_ARRAY(check.arena, struct store_release, request->n_leases);
  for (size_t i = 0; i < request->n_leases; i++)
    read_lease(&check, FIELD_AT(NULL, "leases", i), request->leases[i], &leases[i].id, &leases[i].fencing_token,
               &context->items[i]);
  if (status_refuse(call, &check))
    return;
  store_release(services_store(call), bucket, leases, request->n_leases, release_done, context);
}

static const struct rpc_method methods[] = {
    {.name = "LeaseJobs", .start = lease_jobs, .wake = lease_wake, .undelivered = lease_undelivered},
    {.name = "RenewLeases", .start = renew_leases},
    {.name = "FinishJobs", .start = finish_jobs},
    {.name = "ReleaseJobs", .start = release_jobs},
    {.name = NULL},
};

const struct rpc_service worker_service = {&ringback__v1__worker_service__descriptor, methods};
