/*
 * The commands that cancel jobs and put them back: by id, in calls of 250, or all that a filter selects, from
 * continuation to continuation until the server says that there is no more.
 */
#include "client/tool/commands.h"
#include "client/tool/job.h"
#include "client/tool/json.h"
#include "client/tool/output.h"
#include <stdlib.h>
#include <string.h>

#define CHANGE_OPTIONS                                                                                                 \
  {.name = "queue", .letter = 'q', .kind = OPTION_QUEUE, .value = "QUEUE", .help = "the queue whose jobs are meant"},  \
      FILTER_OPTIONS

const struct option_row job_cancel_options[] = {CHANGE_OPTIONS, {.name = NULL}};

const struct option_row job_retry_options[] = {
    CHANGE_OPTIONS,
    {.name = "failed", .kind = OPTION_FLAG, .help = "the failed ones"},
    {.name = NULL},
};

/* One command's work, in terms that cancelling and retrying share. */
struct change {
  const char *counted;  /* the answer's name of the count, for JSON */
  const char *sentence; /* what is said of the count */
  /* One call: with ids or with the filter and *token, which it replaces by a copy of the next one, "" at the end. False
   * with *status on an error. */
  bool (*call)(struct tool *tool, struct change *change, char **ids, size_t id_count, int *status);
  char *bucket;
  struct job_filter filter;
  char *token;
  int64_t count;
  int64_t accepted; /* ids whose result was good: more than `count` when jobs were that way already */
  json_t *results;  /* of ids */
};

/* Failures of one kind keep their exit status; of several kinds they are just failures. */
static int join_status(int worst, int status) {
  if (status == TOOL_OK || worst == status)
    return worst;
  return worst == TOOL_OK ? status : TOOL_FAILED;
}

static int take_results(struct tool *tool, struct change *change, char **ids, size_t id_count,
                        Google__Rpc__Status **results, size_t result_count) {
  int worst = TOOL_OK;
  for (size_t i = 0; i < id_count && i < result_count; i++) {
    change->accepted += results[i]->code == RINGBACK_OK;
    json_t *row = json_of_message(&results[i]->base);
    json_object_set_new(row, "jobId", json_of_text(ids[i]));
    json_array_append_new(change->results, row);
    int status = tool->json ? tool_exit_status(results[i]->code) : message_item_failed(ids[i], results[i]);
    worst = join_status(worst, status);
  }
  return worst;
}

static void take_token(struct change *change, const char *token) {
  free(change->token);
  change->token = strdup(token);
}

static bool call_cancel(struct tool *tool, struct change *change, char **ids, size_t id_count, int *status) {
  Ringback__V1__CancelJobsRequest request = RINGBACK__V1__CANCEL_JOBS_REQUEST__INIT;
  request.bucket = change->bucket;
  request.job_ids = ids;
  request.n_job_ids = id_count;
  request.filter = id_count == 0 ? &change->filter.filter : NULL;
  request.page_token = change->token;
  Ringback__V1__CancelJobsResponse *response =
      tool_call(tool, "/ringback.v1.JobService/CancelJobs", &request.base, status);
  if (response == NULL)
    return false;
  change->count += response->cancelled_count;
  *status = take_results(tool, change, ids, id_count, response->results, response->n_results);
  take_token(change, response->next_page_token);
  ringback_free(&response->base);
  return true;
}

static bool call_retry(struct tool *tool, struct change *change, char **ids, size_t id_count, int *status) {
  Ringback__V1__RetryJobsRequest request = RINGBACK__V1__RETRY_JOBS_REQUEST__INIT;
  request.bucket = change->bucket;
  request.job_ids = ids;
  request.n_job_ids = id_count;
  request.filter = id_count == 0 ? &change->filter.filter : NULL;
  request.page_token = change->token;
  Ringback__V1__RetryJobsResponse *response =
      tool_call(tool, "/ringback.v1.JobService/RetryJobs", &request.base, status);
  if (response == NULL)
    return false;
  change->count += response->retried_count;
  *status = take_results(tool, change, ids, id_count, response->results, response->n_results);
  take_token(change, response->next_page_token);
  ringback_free(&response->base);
  return true;
}

static int change_by_ids(struct tool *tool, struct change *change, int argc, char **argv) {
  int worst = TOOL_OK;
  size_t count = (size_t)argc, step;
  for (size_t done = 0; done < count; done += step) {
    int status = TOOL_OK;
    step = count - done < JOBS_PER_CALL ? count - done : JOBS_PER_CALL;
    bool answered = change->call(tool, change, argv + done, step, &status);
    worst = join_status(worst, status);
    if (!answered)
      break;
    output_progress(tool, "%lld %s", (long long)change->count, change->sentence);
  }
  return worst;
}

static int change_by_filter(struct tool *tool, struct change *change) {
  int status = TOOL_OK;
  while (change->call(tool, change, NULL, 0, &status) && change->token != NULL && change->token[0] != '\0')
    output_progress(tool, "%lld %s", (long long)change->count, change->sentence);
  return status;
}

static int change_run(struct tool *tool, struct change *change, int argc, char **argv) {
  const char *queue = tool_text(tool, "queue", NULL);
  change->bucket = tool_bucket_name(tool, queue);
  if (change->bucket == NULL)
    return TOOL_USAGE;
  bool filtered = queue != NULL || tool_given(tool, "tag") || tool_given(tool, "state") || tool_given(tool, "since") ||
                  tool_given(tool, "until") || (change->call == call_retry && tool_given(tool, "failed"));
  if ((argc > 0) == filtered) {
    tool_error("give ids of jobs, or --queue and what else selects them");
    return TOOL_USAGE;
  }
  if (change->call == call_retry && !tool_exclude(tool, "failed", "state"))
    return TOOL_USAGE;
  if (filtered && !message_job_filter(tool, queue, &change->filter))
    return TOOL_USAGE;
  Ringback__V1__JobFilter *filter = &change->filter.filter;
  if (filtered && change->call == call_retry && tool_given(tool, "failed") && filter->n_states < 8)
    filter->states[filter->n_states++] = RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED;
  if (filtered && change->call == call_retry && filter->n_states == 0) {
    tool_error("say which jobs of the queue: --failed, or --state");
    return TOOL_USAGE;
  }
  change->token = strdup("");
  change->results = json_array();
  int status = filtered ? change_by_filter(tool, change) : change_by_ids(tool, change, argc, argv);
  output_progress_clear(tool);
  if (tool->json)
    json_print(json_pack("{s:I,s:O}", change->counted, (json_int_t)change->count, "results", change->results));
  else if (change->accepted > change->count)
    printf("%lld %s, %lld earlier\n", (long long)change->count, change->sentence,
           (long long)(change->accepted - change->count));
  else if (change->count > 0 || status == TOOL_OK) /* a failure has been told; that nothing was done adds nothing */
    printf("%lld %s\n", (long long)change->count, change->sentence);
  json_decref(change->results);
  free(change->token);
  return status;
}

int command_job_cancel(struct tool *tool, int argc, char **argv) {
  struct change change = {.counted = "cancelledCount", .sentence = "cancelled", .call = call_cancel};
  return change_run(tool, &change, argc, argv);
}

int command_job_retry(struct tool *tool, int argc, char **argv) {
  struct change change = {.counted = "retriedCount", .sentence = "put back", .call = call_retry};
  return change_run(tool, &change, argc, argv);
}
