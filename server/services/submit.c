/* SubmitJob and SubmitJobs. */
#include <inttypes.h>
#include <string.h>

#include "server/services/convert.h"
#include "server/services/job_handlers.h"
#include "server/services/page_token.h"
#include "server/services/spec.h"
#include "server/services/status.h"

struct submit_call {
  struct rpc_call *call;
  const char *bucket;
  const char *what;
  const Ringback__V1__JobSpec *spec;         /* SubmitJob */
  Ringback__V1__SubmitJobsResponse response; /* SubmitJobs: refused items have their status already */
};

/* Where the jobs go: SubmitJobRequest and SubmitJobsRequest have the same oneof. */
struct target {
  const char *queue; /* NULL: default_queue counts */
  const Ringback__V1__DefaultQueue *default_queue;
};

static void read_target(struct check *check, const struct target *target, const char *request_id,
                        struct store_submit *submit, const char **what) {
  check_ascii(check, FIELD(NULL, "request_id"), request_id, REQUEST_ID_CHARACTERS_MAX);
  submit->request_id = request_id;
  if (!target->default_queue) {
    struct queue_name name = check_queue(check, FIELD(NULL, "queue"), target->queue ? target->queue : "");
    submit->bucket = name.bucket;
    submit->queue = name.queue;
    *what = arena_printf(check->arena, "queue %s", target->queue ? target->queue : "");
    return;
  }
  const struct field *field = FIELD(NULL, "default_queue");
  submit->bucket = check_bucket(check, FIELD(field, "bucket"), target->default_queue->bucket);
  submit->feature = (int)target->default_queue->feature;
  if (submit->feature < RINGBACK__V1__FEATURE__FEATURE_MEDIA ||
      submit->feature > RINGBACK__V1__FEATURE__FEATURE_DOCUMENT)
    check_fail(check, FIELD(field, "feature"), "is %d; it must be 1 (media), 2 (speech) or 3 (document)",
               submit->feature);
  *what = arena_printf(check->arena, "the default queue of %s", target->default_queue->bucket);
}

static uint64_t digest_word(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
  return hash ^ (hash >> 32);
}

/* Eight bytes a step: byte by byte it was a tenth of the CPU of a batch. */
static uint64_t digest_bytes(uint64_t hash, struct bytes bytes) {
  for (size_t at = 0; at < bytes.length; at += sizeof hash) {
    size_t left = bytes.length - at;
    uint64_t word = 0;
    memcpy(&word, bytes.data + at, left < sizeof word ? left : sizeof word);
    hash = digest_word(hash, word);
  }
  return digest_word(hash, bytes.length);
}

/* Of what the request asks for, so that the same request_id with something else is noticed; without one it is not
 * looked at. */
static uint64_t digest(const struct store_submit *submit) {
  if (!*submit->request_id)
    return 0;
  uint64_t hash = hash_number(hash_text(HASH_START, submit->queue ? submit->queue : ""), submit->feature);
  for (size_t i = 0; i < submit->count; i++)
    hash = digest_bytes(hash, submit->jobs[i].spec);
  return hash;
}

/* To a worker that waits on this thread, if there is one. */
static void offer(struct rpc_call *call, const struct store_submit *submit) {
  if (submit->queue && submit->jobs[0].not_before_ms <= rpc_now_ms(call))
    nearby_offer(services_nearby(call), call, submit->bucket, submit->queue);
}

static void submit_job_done(void *data, const struct store_error *error, const struct store_submitted *result) {
  struct submit_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__Job job = RINGBACK__V1__JOB__INIT;
  job.id = convert_job_id(arena, &result->ids[0]);
  job.queue = names_format_queue(arena, context->bucket, result->queue);
  job.queue_id = convert_queue_id(arena, result->queue_id);
  job.spec = (Ringback__V1__JobSpec *)context->spec;
  job.state = (Ringback__V1__JobState)result->state;
  job.create_time = convert_time(arena, id_job_create_ms(&result->ids[0]));
  Ringback__V1__SubmitJobResponse response = RINGBACK__V1__SUBMIT_JOB_RESPONSE__INIT;
  response.job = &job;
  response.repeated_request = result->repeated;
  rpc_reply(context->call, &response.base);
}

void submit_job(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__SubmitJobRequest *request = (const Ringback__V1__SubmitJobRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct target target = {NULL, NULL};
  if (request->target_case == RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_QUEUE)
    target.queue = request->queue;
  if (request->target_case == RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_DEFAULT_QUEUE)
    target.default_queue = request->default_queue;
  struct store_submit submit = {.count = 1};
  struct store_new_job job;
  struct submit_call *context = ARENA_NEW(check.arena, struct submit_call);
  read_target(&check, &target, request->request_id, &submit, &context->what);
  spec_read(&check, FIELD(NULL, "job"), request->job, services_config(call), rpc_now_ms(call), &job);
  if (status_refuse(call, &check))
    return;
  context->call = call;
  context->bucket = submit.bucket;
  context->spec = request->job;
  submit.jobs = &job;
  submit.digest = digest(&submit);
  store_submit(services_store(call), &submit, submit_job_done, context);
  offer(call, &submit);
}

static void submit_jobs_done(void *data, const struct store_error *error, const struct store_submitted *result) {
  struct submit_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  size_t next = 0;
  for (size_t i = 0; i < context->response.n_results; i++) {
    Ringback__V1__SubmitJobsResult *item = context->response.results[i];
    if (item->status || next >= result->count)
      continue;
    item->status = status_ok(arena);
    item->job_id = convert_job_id(arena, &result->ids[next++]);
  }
  context->response.repeated_request = result->repeated;
  rpc_reply(context->call, &context->response.base);
}

void submit_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__SubmitJobsRequest *request = (const Ringback__V1__SubmitJobsRequest *)message;
  struct arena *arena = rpc_arena(call);
  struct check check = {.arena = arena};
  struct target target = {NULL, NULL};
  if (request->target_case == RINGBACK__V1__SUBMIT_JOBS_REQUEST__TARGET_QUEUE)
    target.queue = request->queue;
  if (request->target_case == RINGBACK__V1__SUBMIT_JOBS_REQUEST__TARGET_DEFAULT_QUEUE)
    target.default_queue = request->default_queue;
  struct store_submit submit = {.count = 0};
  struct submit_call *context = ARENA_NEW(arena, struct submit_call);
  read_target(&check, &target, request->request_id, &submit, &context->what);
  check_count(&check, FIELD(NULL, "jobs"), request->n_jobs, 1, BATCH_MAX);
  if (status_refuse(call, &check))
    return;

  ringback__v1__submit_jobs_response__init(&context->response);
  context->response.results = ARENA_ARRAY(arena, Ringback__V1__SubmitJobsResult *, request->n_jobs);
  context->response.n_results = request->n_jobs;
  struct store_new_job *jobs = ARENA_ARRAY(arena, struct store_new_job, request->n_jobs);
  for (size_t i = 0; i < request->n_jobs; i++) {
    struct check item_check = {.arena = arena};
    spec_read(&item_check, FIELD_AT(NULL, "jobs", i), request->jobs[i], services_config(call), rpc_now_ms(call),
              &jobs[submit.count]);
    Ringback__V1__SubmitJobsResult *item = ARENA_NEW(arena, Ringback__V1__SubmitJobsResult);
    ringback__v1__submit_jobs_result__init(item);
    context->response.results[i] = item;
    if (item_check.count)
      item->status = status_findings(arena, &item_check);
    else
      submit.count++;
  }
  if (submit.count == 0) {
    rpc_reply(call, &context->response.base);
    return;
  }
  context->call = call;
  context->bucket = submit.bucket;
  submit.jobs = jobs;
  submit.digest = digest(&submit);
  store_submit(services_store(call), &submit, submit_jobs_done, context);
  offer(call, &submit);
}
