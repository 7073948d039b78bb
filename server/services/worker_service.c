/* WorkerService: what each RPC does is said in proto/ringback/v1/worker.proto. LeaseJobs stands in lease.c, Work in
 * work.c. */
#include <string.h>

#include "ringback/v1/worker.pb-c.h"
#include "server/services/convert.h"
#include "server/services/lease.h"
#include "server/services/outcome.h"
#include "server/services/status.h"
#include "server/services/work.h"

/* A batch between its handler and its continuation. An item that is not valid has its status at once; the others go to
 * the store, in their order. */
struct batch_call {
  struct rpc_call *call;
  const char *what;
  size_t count;
  Google__Rpc__Status **statuses; /* one an item; NULL: the store will tell */
  const char **items;             /* `job ID`, for the item's errors */
  size_t sent;                    /* how many went to the store */
};

static struct batch_call *begin(struct rpc_call *call, const char *bucket, size_t count) {
  struct arena *arena = rpc_arena(call);
  struct batch_call *context = ARENA_NEW(arena, struct batch_call);
  context->call = call;
  context->what = arena_printf(arena, "bucket %s", bucket);
  context->count = count;
  context->statuses = ARENA_ARRAY(arena, Google__Rpc__Status *, count);
  context->items = ARENA_ARRAY(arena, const char *, count);
  return context;
}

/* After item i was checked and written to the place `sent`: it goes to the store, or its place is taken by the next. */
static void settle_item(struct batch_call *context, size_t i, const struct check *check) {
  if (check->count)
    context->statuses[i] = status_findings(rpc_arena(context->call), check);
  else
    context->sent++;
}

/* What the store said of item i, *next being the next of its answers; NULL for an item that did not go there. */
static const struct store_item *item_answer(struct batch_call *context, size_t i, const struct store_items *result,
                                            size_t *next) {
  if (context->statuses[i])
    return NULL;
  const struct store_item *item = &result->items[(*next)++];
  context->statuses[i] = status_store(rpc_arena(context->call), &item->error, context->items[i], context->items[i]);
  return item;
}

/* Where no item goes to the store, its answer is empty. */
static const struct store_error no_error = {STORE_OK, "", 0, 0};
static const struct store_items no_items = {NULL, 0, 0, ""};

/* --- RenewLeases --- */

static void renew_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct batch_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__RenewLeasesResponse response = RINGBACK__V1__RENEW_LEASES_RESPONSE__INIT;
  response.results = ARENA_ARRAY(arena, Ringback__V1__RenewLeasesResult *, context->count);
  for (size_t i = 0, next = 0; i < context->count; i++) {
    Ringback__V1__RenewLeasesResult *renewed = ARENA_NEW(arena, Ringback__V1__RenewLeasesResult);
    ringback__v1__renew_leases_result__init(renewed);
    const struct store_item *item = item_answer(context, i, result, &next);
    renewed->status = context->statuses[i];
    if (item && item->error.code == STORE_OK)
      renewed->lease_expire_time = convert_time(arena, item->lease_expire_ms);
    else if (item)
      renewed->stop_reason = (Ringback__V1__StopReason)item->stop_reason;
    response.results[response.n_results++] = renewed;
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
    struct store_renewal *read = &renewals[context->sent];
    const struct field *field = FIELD_AT(NULL, "renewals", i);
    struct check item = {.arena = check.arena};
    outcome_read_renewal(&item, field, renewal, read, &context->items[i]);
    settle_item(context, i, &item);
  }
  if (context->sent == 0)
    renew_done(context, &no_error, &no_items);
  else
    store_renew(services_store(call), bucket, renewals, context->sent, renew_done, context);
}

/* --- FinishJobs --- */

static void finish_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct batch_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__FinishJobsResponse response = RINGBACK__V1__FINISH_JOBS_RESPONSE__INIT;
  response.results = ARENA_ARRAY(arena, Ringback__V1__FinishJobsResult *, context->count);
  for (size_t i = 0, next = 0; i < context->count; i++) {
    Ringback__V1__FinishJobsResult *finished = ARENA_NEW(arena, Ringback__V1__FinishJobsResult);
    ringback__v1__finish_jobs_result__init(finished);
    const struct store_item *item = item_answer(context, i, result, &next);
    finished->status = context->statuses[i];
    if (item && item->error.code == STORE_OK)
      finished->state = (Ringback__V1__JobState)item->state;
    response.results[response.n_results++] = finished;
  }
  rpc_reply(context->call, &response.base);
}

static void finish_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__FinishJobsRequest *request = (const Ringback__V1__FinishJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_count(&check, FIELD(NULL, "jobs"), request->n_jobs, 1, BATCH_MAX);
  if (status_refuse(call, &check))
    return;
  struct batch_call *context = begin(call, request->bucket, request->n_jobs);
  struct store_finish *finishes = ARENA_ARRAY(check.arena, struct store_finish, request->n_jobs);
  for (size_t i = 0; i < request->n_jobs; i++) {
    const Ringback__V1__FinishedJob *job = request->jobs[i];
    struct store_finish *read = &finishes[context->sent];
    const struct field *field = FIELD_AT(NULL, "jobs", i);
    struct check item = {.arena = check.arena};
    outcome_read_finish(&item, field, job, services_config(call), read, &context->items[i]);
    settle_item(context, i, &item);
  }
  if (context->sent == 0)
    finish_done(context, &no_error, &no_items);
  else
    store_finish(services_store(call), bucket, finishes, context->sent, finish_done, context);
}

/* --- ReleaseJobs --- */

static void release_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct batch_call *context = data;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  for (size_t i = 0, next = 0; i < context->count; i++)
    item_answer(context, i, result, &next);
  Ringback__V1__ReleaseJobsResponse response = RINGBACK__V1__RELEASE_JOBS_RESPONSE__INIT;
  response.results = context->statuses;
  response.n_results = context->count;
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
  for (size_t i = 0; i < request->n_leases; i++) {
    struct store_release *read = &leases[context->sent];
    struct check item = {.arena = check.arena};
    outcome_read_release(&item, FIELD_AT(NULL, "leases", i), request->leases[i], read, &context->items[i]);
    settle_item(context, i, &item);
  }
  if (context->sent == 0)
    release_done(context, &no_error, &no_items);
  else
    store_release(services_store(call), bucket, leases, context->sent, release_done, context);
}

static const struct rpc_method methods[] = {
    {.name = "LeaseJobs", .start = lease_jobs, .wake = lease_wake, .undelivered = lease_undelivered},
    {.name = "RenewLeases", .start = renew_leases},
    {.name = "FinishJobs", .start = finish_jobs},
    {.name = "ReleaseJobs", .start = release_jobs},
    {.name = "Work",
     .start = work_start,
     .message = work_message,
     .half_closed = work_half_closed,
     .writable = work_writable,
     .wake = work_wake,
     .closed = work_closed},
    {.name = NULL},
};

const struct rpc_service worker_service = {&ringback__v1__worker_service__descriptor, methods};
