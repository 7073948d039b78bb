/* CancelJobs, RetryJobs and ChangePriority. */
#include <string.h>

#include "server/services/convert.h"
#include "server/services/filter.h"
#include "server/services/job_handlers.h"
#include "server/services/page_token.h"
#include "server/services/status.h"

#define WAITING_STATES                                                                                                 \
  (1u << RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED | 1u << RINGBACK__V1__JOB_STATE__JOB_STATE_PAUSE)
#define OPEN_STATES (WAITING_STATES | 1u << RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING)
#define ENDED_STATES                                                                                                   \
  (1u << RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS | 1u << RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED |                \
   1u << RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL)

/* CancelJobsRequest and RetryJobsRequest, and their answers, have the same shape. */
_Static_assert(sizeof(Ringback__V1__CancelJobsRequest) == sizeof(Ringback__V1__RetryJobsRequest), "one shape");
_Static_assert(sizeof(Ringback__V1__CancelJobsResponse) == sizeof(Ringback__V1__RetryJobsResponse), "one shape");

/* How the two differ. */
struct change {
  const char *name;
  const ProtobufCMessageDescriptor *response;
  unsigned states_possible; /* what the filter may select */
  unsigned states_default;  /* where it names none */
  void (*by_id)(struct store *store, const char *bucket, const struct job_id *ids, size_t count, store_items_done *done,
                void *context);
  void (*by_filter)(struct store *store, const char *bucket, const struct store_filter *filter, const char *position,
                    store_items_done *done, void *context);
};

static const struct change cancel = {"CancelJobs",      &ringback__v1__cancel_jobs_response__descriptor,
                                     OPEN_STATES,       OPEN_STATES,
                                     store_cancel_jobs, store_cancel_filter};
static const struct change retry = {"RetryJobs",      &ringback__v1__retry_jobs_response__descriptor,
                                    ENDED_STATES,     1u << RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED,
                                    store_retry_jobs, store_retry_filter};

struct change_call {
  struct rpc_call *call;
  const struct change *change;
  const char *bucket;
  const char *what;
  char *const *texts; /* the ids as they were sent; NULL: by filter */
  uint64_t token_hash;
};

static void change_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct change_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__CancelJobsResponse response;
  protobuf_c_message_init(context->change->response, &response);
  response.cancelled_count = (int32_t)result->changed;
  if (context->texts) {
    response.results = ARENA_ARRAY(arena, Google__Rpc__Status *, result->count + 1);
    for (size_t i = 0; i < result->count; i++)
      response.results[response.n_results++] = status_store(
          arena, &result->items[i].error, arena_printf(arena, "job %s", context->texts[i]), context->texts[i]);
  } else {
    response.next_page_token = page_token_write(arena, context->token_hash, result->next_position);
  }
  rpc_reply(context->call, &response.base);
}

static void change_by_filter(struct change_call *context, struct check *check,
                             const Ringback__V1__CancelJobsRequest *request) {
  struct job_filter filter;
  filter_read(check, FIELD(NULL, "filter"), request->filter, context->bucket, &filter);
  context->token_hash = hash_text(filter.hash, context->change->name);
  const char *position = page_token_read(check->arena, context->token_hash, request->page_token);
  if (!position)
    check_fail(check, FIELD(NULL, "page_token"), "is no next_page_token of this filter; leave it empty to begin anew");
  if (status_refuse(context->call, check))
    return;
  filter.store.states =
      filter.store.states ? filter.store.states & context->change->states_possible : context->change->states_default;
  if (filter.store.states == 0) {
    struct store_error none = {STORE_OK, "", 0, 0};
    struct store_items nothing = {NULL, 0, 0, ""};
    change_done(context, &none, &nothing);
    return;
  }
  context->what = arena_printf(check->arena, "queue %s", filter.queue_name);
  context->change->by_filter(services_store(context->call), context->bucket, &filter.store, position, change_done,
                             context);
}

static void change_by_id(struct change_call *context, struct check *check,
                         const Ringback__V1__CancelJobsRequest *request) {
  struct job_id *ids = check_job_ids(check, FIELD(NULL, "job_ids"), request->job_ids, request->n_job_ids, BATCH_MAX);
  if (*request->page_token)
    check_fail(check, FIELD(NULL, "page_token"), "is given with job_ids; it goes with a filter only");
  if (status_refuse(context->call, check))
    return;
  context->what = arena_printf(check->arena, "bucket %s", request->bucket);
  context->texts = request->job_ids;
  context->change->by_id(services_store(context->call), context->bucket, ids, request->n_job_ids, change_done, context);
}

static void change_jobs(struct rpc_call *call, const Ringback__V1__CancelJobsRequest *request,
                        const struct change *change) {
  struct check check = {.arena = rpc_arena(call)};
  struct change_call *context = ARENA_NEW(check.arena, struct change_call);
  context->call = call;
  context->change = change;
  context->bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  if (request->n_job_ids && request->filter) {
    check_fail(&check, FIELD(NULL, "filter"), "is given together with job_ids; give one of them");
    status_refuse(call, &check);
  } else if (request->filter) {
    change_by_filter(context, &check, request);
  } else {
    change_by_id(context, &check, request);
  }
}

void cancel_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  change_jobs(call, (const Ringback__V1__CancelJobsRequest *)message, &cancel);
}

void retry_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  change_jobs(call, (const Ringback__V1__CancelJobsRequest *)message, &retry);
}

static void change_priority_done(void *data, const struct store_error *error, const struct store_jobs *result) {
  struct change_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ChangePriorityResponse response = RINGBACK__V1__CHANGE_PRIORITY_RESPONSE__INIT;
  response.job = convert_job(arena, context->bucket, &result->jobs[0], false, rpc_now_ms(context->call));
  rpc_reply(context->call, &response.base);
}

void change_priority(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ChangePriorityRequest *request = (const Ringback__V1__ChangePriorityRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct change_call *context = ARENA_NEW(check.arena, struct change_call);
  struct job_id id;
  context->call = call;
  context->bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_job_id(&check, FIELD(NULL, "job_id"), request->job_id, &id);
  check_range(&check, FIELD(NULL, "priority"), request->priority, 0, 255);
  if (status_refuse(call, &check))
    return;
  context->what = arena_printf(check.arena, "job %s", request->job_id);
  store_change_priority(services_store(call), context->bucket, &id, request->priority, change_priority_done, context);
}
