/*
 * The queue of a bench run: one of its own in a bucket of its own, which is deleted at the end, or one that the user
 * has named. A named queue's jobs are never worked on: it must be empty where workers are to run.
 */
#include "client/lib/retry.h"
#include "client/tool/bench.h"
#include "client/tool/messages.h"
#include "client/tool/output.h"
#include "ringback/v1/callback.pb-c.h"
#include "ringback/v1/queue.pb-c.h"
#include <string.h>

#define QUEUE_SIZE_MAX 100000000
#define QUEUE_CONCURRENT_MAX 1000000

static int create(struct tool *tool, const char *name) {
  Ringback__V1__CreateQueueRequest request = RINGBACK__V1__CREATE_QUEUE_REQUEST__INIT;
  Ringback__V1__Queue queue = RINGBACK__V1__QUEUE__INIT;
  queue.name = (char *)name;
  queue.feature = RINGBACK__V1__FEATURE__FEATURE_MEDIA;
  queue.max_size = QUEUE_SIZE_MAX;
  queue.max_concurrent = QUEUE_CONCURRENT_MAX;
  request.queue = &queue;
  int status = TOOL_OK;
  Ringback__V1__CreateQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/CreateQueue", &request.base, &status);
  ringback_free(response == NULL ? NULL : &response->base);
  return status;
}

static int set_callback(struct tool *tool, const char *queue, const char *url) {
  Ringback__V1__UpdateCallbackRuleRequest request = RINGBACK__V1__UPDATE_CALLBACK_RULE_REQUEST__INIT;
  Ringback__V1__CallbackRule rule = RINGBACK__V1__CALLBACK_RULE__INIT;
  Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
  char *paths[] = {(char *)"url", (char *)"state"};
  mask.n_paths = 2;
  mask.paths = paths;
  rule.queue = (char *)queue;
  rule.url = (char *)url;
  rule.state = RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_ON;
  request.rule = &rule;
  request.update_mask = &mask;
  int status = TOOL_OK;
  Ringback__V1__UpdateCallbackRuleResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/UpdateCallbackRule", &request.base, &status);
  ringback_free(response == NULL ? NULL : &response->base);
  return status;
}

static Ringback__V1__GetQueueResponse *get(struct tool *tool, const char *name, int *status) {
  Ringback__V1__GetQueueRequest request = RINGBACK__V1__GET_QUEUE_REQUEST__INIT;
  request.name = (char *)name;
  return tool_call(tool, "/ringback.v1.QueueService/GetQueue", &request.base, status);
}

static int check_given(struct tool *tool, const char *name, bool empty) {
  int status = TOOL_OK;
  Ringback__V1__GetQueueResponse *response = get(tool, name, &status);
  if (response == NULL)
    return status;
  const Ringback__V1__QueueCounts *counts = response->queue != NULL ? response->queue->counts : NULL;
  if (empty && counts != NULL && counts->waiting + counts->delayed + counts->running > 0) {
    tool_error(
        "queue %s has %lld waiting, %lld delayed and %lld running jobs, which the workers of this run would take: "
        "it must be empty",
        name, (long long)counts->waiting, (long long)counts->delayed, (long long)counts->running);
    status = TOOL_USAGE;
  }
  ringback_free(&response->base);
  return status;
}

int bench_queue_open(struct tool *tool, const char *given, bool empty, const char *callback_url,
                     struct bench_queue *queue) {
  *queue = (struct bench_queue){.own = given == NULL};
  if (given != NULL) {
    if (callback_url != NULL) {
      tool_error("--callback-url goes with a queue of the run's own, not with --queue");
      return TOOL_USAGE;
    }
    queue->name = tool_queue_name(tool, given);
    return queue->name == NULL ? TOOL_USAGE : check_given(tool, queue->name, empty);
  }
  char name[64];
  snprintf(name, sizeof name, "buckets/bench-%016llx/queues/bench", (unsigned long long)retry_random());
  queue->name = tool_queue_name(tool, name);
  int status = create(tool, queue->name);
  if (status != TOOL_OK)
    queue->own = false;
  else if (callback_url != NULL)
    status = set_callback(tool, queue->name, callback_url);
  if (status != TOOL_OK)
    bench_queue_close(tool, queue);
  return status;
}

/* Whether these are all successful jobs of `finished`, or as many of them as the queue keeps. */
static bool all_succeeded(const Ringback__V1__Queue *queue, uint64_t finished) {
  uint64_t success = (uint64_t)queue->counts->success;
  uint64_t kept = queue->retention == NULL ? finished : (uint64_t)queue->retention->max_count;
  return success <= finished && (success == finished || success >= kept);
}

bool bench_queue_check(struct tool *tool, const struct bench_queue *queue, const struct bench_ledger *ledger) {
  if (!queue->own)
    return true;
  int status = TOOL_OK;
  Ringback__V1__GetQueueResponse *response = get(tool, queue->name, &status);
  if (response == NULL)
    return false;
  const Ringback__V1__QueueCounts *counts = response->queue != NULL ? response->queue->counts : NULL;
  bool good = counts != NULL && counts->waiting + counts->delayed + counts->running == 0 &&
              counts->failed + counts->cancel == 0 && all_succeeded(response->queue, ledger->finished);
  if (!good && counts != NULL)
    tool_error("the server counts %lld waiting, %lld delayed, %lld running, %lld successful and %lld other jobs, where "
               "%llu have been finished",
               (long long)counts->waiting, (long long)counts->delayed, (long long)counts->running,
               (long long)counts->success, (long long)counts->failed + (long long)counts->cancel,
               (unsigned long long)ledger->finished);
  ringback_free(&response->base);
  return good;
}

void bench_queue_close(struct tool *tool, struct bench_queue *queue) {
  if (!queue->own)
    return;
  queue->own = false;
  Ringback__V1__DeleteQueueRequest request = RINGBACK__V1__DELETE_QUEUE_REQUEST__INIT;
  request.name = (char *)queue->name;
  request.force = true;
  int status = TOOL_OK;
  Ringback__V1__DeleteQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/DeleteQueue", &request.base, &status);
  if (response == NULL)
    tool_error("this run's queue is left: ringback queue delete --force %s", queue->name);
  ringback_free(response == NULL ? NULL : &response->base);
}
