/* JobService: the table of its methods, and those that read. What each RPC does is said in proto/ringback/v1/job.proto.
 */
#include <inttypes.h>
#include <string.h>

#include "server/services/convert.h"
#include "server/services/filter.h"
#include "server/services/job_handlers.h"
#include "server/services/page_token.h"
#include "server/services/status.h"

struct read_call {
  struct rpc_call *call;
  const char *bucket;
  const char *what;
  bool full;
  /* GetJobs */
  const struct job_id *ids;
  char *const *texts; /* the ids as they were sent */
  size_t id_count;
  /* ListJobs */
  struct job_filter filter;
  uint64_t token_hash;
  bool ascending;
  size_t page_size;
  const char *position;
};

static struct read_call *begin(struct rpc_call *call, const char *bucket, const char *what) {
  struct read_call *context = ARENA_NEW(rpc_arena(call), struct read_call);
  context->call = call;
  context->bucket = bucket;
  context->what = what;
  return context;
}

static bool read_view(struct check *check, Ringback__V1__JobView view) {
  if (view < RINGBACK__V1__JOB_VIEW__JOB_VIEW_UNSPECIFIED || view > RINGBACK__V1__JOB_VIEW__JOB_VIEW_FULL)
    check_fail(check, FIELD(NULL, "view"), "is %d; it must be 0 or 1 (basic) or 2 (full)", (int)view);
  return view == RINGBACK__V1__JOB_VIEW__JOB_VIEW_FULL;
}

/* Converts jobs until the answer is full; at least one. */
static size_t add_jobs(struct read_call *context, const struct store_job *jobs, size_t count,
                       Ringback__V1__Job **added) {
  size_t size = 0, i = 0;
  for (; i < count; i++) {
    added[i] =
        convert_job(rpc_arena(context->call), context->bucket, &jobs[i], context->full, rpc_now_ms(context->call));
    size += ringback__v1__job__get_packed_size(added[i]) + 8;
    if (size > ANSWER_BYTES_MAX && i > 0)
      break;
  }
  return i;
}

/* --- GetJobs --- */

static void get_jobs_done(void *data, const struct store_error *error, const struct store_jobs *result) {
  struct read_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__GetJobsResponse response = RINGBACK__V1__GET_JOBS_RESPONSE__INIT;
  response.jobs = ARENA_ARRAY(arena, Ringback__V1__Job *, result->count + 1);
  response.n_jobs = add_jobs(context, result->jobs, result->count, response.jobs);
  response.non_exist_job_ids = ARENA_ARRAY(arena, char *, result->missing_count + 1);
  for (size_t i = 0, next = 0; i < result->looked_at && next < result->missing_count; i++)
    if (memcmp(&context->ids[i], &result->missing[next], sizeof *context->ids) == 0) {
      response.non_exist_job_ids[response.n_non_exist_job_ids++] = context->texts[i];
      next++;
    }
  size_t left_out = result->count - response.n_jobs;
  size_t remaining = context->id_count - result->looked_at + left_out;
  response.remaining_job_ids = ARENA_ARRAY(arena, char *, remaining + 1);
  for (size_t i = response.n_jobs; i < result->count; i++)
    response.remaining_job_ids[response.n_remaining_job_ids++] = convert_job_id(arena, &result->jobs[i].id);
  for (size_t i = result->looked_at; i < context->id_count; i++)
    response.remaining_job_ids[response.n_remaining_job_ids++] = context->texts[i];
  rpc_reply(context->call, &response.base);
}

static void get_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__GetJobsRequest *request = (const Ringback__V1__GetJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  struct job_id *ids = check_job_ids(&check, FIELD(NULL, "job_ids"), request->job_ids, request->n_job_ids, BATCH_MAX);
  bool full = read_view(&check, request->view);
  if (status_refuse(call, &check))
    return;
  struct read_call *context = begin(call, bucket, arena_printf(check.arena, "bucket %s", request->bucket));
  context->full = full;
  context->ids = ids;
  context->texts = request->job_ids;
  context->id_count = request->n_job_ids;
  store_get_jobs(services_store(call), bucket, ids, request->n_job_ids, get_jobs_done, context);
}

/* --- ListJobs --- */

static void list_jobs_done(void *data, const struct store_error *error, const struct store_jobs *result);

static void list_jobs_ask(struct read_call *context) {
  store_list_jobs(services_store(context->call), context->bucket, &context->filter.store, context->ascending,
                  context->page_size, context->position, list_jobs_done, context);
}

static void list_jobs_done(void *data, const struct store_error *error, const struct store_jobs *result) {
  struct read_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ListJobsResponse response = RINGBACK__V1__LIST_JOBS_RESPONSE__INIT;
  response.jobs = ARENA_ARRAY(arena, Ringback__V1__Job *, result->count + 1);
  response.n_jobs = add_jobs(context, result->jobs, result->count, response.jobs);
  if (response.n_jobs < result->count) {
    /* Only the store can say where a shorter page ends. */
    context->page_size = response.n_jobs;
    list_jobs_ask(context);
    return;
  }
  response.next_page_token = page_token_write(arena, context->token_hash, result->next_position);
  response.watch_cursor = arena_strdup(arena, result->watch_cursor);
  rpc_reply(context->call, &response.base);
}

static void list_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ListJobsRequest *request = (const Ringback__V1__ListJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct read_call *context = begin(call, NULL, NULL);
  filter_read(&check, FIELD(NULL, "filter"), request->filter, "", &context->filter);
  if (request->order < RINGBACK__V1__LIST_ORDER__LIST_ORDER_UNSPECIFIED ||
      request->order > RINGBACK__V1__LIST_ORDER__LIST_ORDER_ASC)
    check_fail(&check, FIELD(NULL, "order"), "is %d; it must be 0 or 1 (newest first) or 2 (oldest first)",
               (int)request->order);
  context->ascending = request->order == RINGBACK__V1__LIST_ORDER__LIST_ORDER_ASC;
  context->page_size =
      (size_t)check_range_or(&check, FIELD(NULL, "page_size"), request->page_size, 1, PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT);
  context->full = read_view(&check, request->view);
  context->token_hash = hash_number(hash_text(context->filter.hash, "ListJobs"), context->ascending);
  context->position = page_token_read(check.arena, context->token_hash, request->page_token);
  if (!context->position)
    check_fail(&check, FIELD(NULL, "page_token"),
               "is no next_page_token of this filter and order; leave it empty to begin anew");
  if (status_refuse(call, &check))
    return;
  context->bucket = context->filter.bucket;
  context->what = arena_printf(check.arena, "queue %s", context->filter.queue_name);
  list_jobs_ask(context);
}

/* --- ExplainJob --- */

static const char *explanation(struct arena *arena, const struct store_explanation *result) {
  switch (result->reason) {
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_TURN:
    if (result->position == 1)
      return "It is next, and waits for a worker to ask.";
    return arena_printf(arena, "It waits for its turn: %" PRId64 " of %" PRId64 " in line.", result->position,
                        result->waiting);
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_QUEUE_PAUSED:
    return "Its queue is paused.";
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_CONCURRENCY:
    return arena_printf(arena, "Its queue runs %" PRId64 " jobs, as many as max_concurrent allows.", result->running);
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_NOT_BEFORE:
    return "Its not_before lies ahead.";
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_BACKOFF:
    return "It waits for its next attempt after a failed one.";
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_WORKER:
    return "A worker runs it.";
  case RINGBACK__V1__WAIT_REASON__WAIT_REASON_ENDED:
    return "It has ended and waits for nothing.";
  default:
    return "";
  }
}

static void explain_done(void *data, const struct store_error *error, const struct store_explanation *result) {
  struct read_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ExplainJobResponse response = RINGBACK__V1__EXPLAIN_JOB_RESPONSE__INIT;
  response.job = convert_job(arena, context->bucket, &result->job, false, rpc_now_ms(context->call));
  response.reason = (Ringback__V1__WaitReason)result->reason;
  response.explanation = (char *)explanation(arena, result);
  response.position = result->position;
  response.waiting_count = result->waiting;
  response.running_count = result->running;
  response.max_concurrent = result->max_concurrent;
  response.lease_expire_time = convert_time(arena, result->lease_expire_ms);
  rpc_reply(context->call, &response.base);
}

static void explain_job(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ExplainJobRequest *request = (const Ringback__V1__ExplainJobRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct job_id id;
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_job_id(&check, FIELD(NULL, "job_id"), request->job_id, &id);
  if (status_refuse(call, &check))
    return;
  struct read_call *context = begin(call, bucket, arena_printf(check.arena, "job %s", request->job_id));
  store_explain_job(services_store(call), bucket, &id, explain_done, context);
}

static const struct rpc_method methods[] = {
    {.name = "SubmitJob", .start = submit_job},
    {.name = "SubmitJobs", .start = submit_jobs},
    {.name = "GetJobs", .start = get_jobs},
    {.name = "ListJobs", .start = list_jobs},
    {.name = "CancelJobs", .start = cancel_jobs},
    {.name = "RetryJobs", .start = retry_jobs},
    {.name = "ChangePriority", .start = change_priority},
    {.name = "WatchJobs", .start = watch_jobs, .writable = watch_writable, .wake = watch_wake, .closed = watch_closed},
    {.name = "ExplainJob", .start = explain_job},
    {.name = NULL},
};

const struct rpc_service job_service = {&ringback__v1__job_service__descriptor, methods};
