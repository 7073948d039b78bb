/*
 * `ringback job submit`: one job from options, or many from a file with a line of JSON each, in batches; and waiting
 * for their end.
 */
#include "client/tool/commands.h"
#include "client/tool/job.h"
#include "client/tool/output.h"
#include "client/tool/spec.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX (2 << 20)
/* Well below the 4 MiB that a server takes in one message. */
#define BATCH_BYTES_MAX (2 << 20)

const struct option_row job_submit_options[] = {
    {.name = "queue", .letter = 'q', .kind = OPTION_QUEUE, .value = "QUEUE", .help = "the queue"},
    {.name = "feature",
     .letter = 'f',
     .kind = OPTION_CHOICE,
     .value = "FEATURE",
     .help = "the queue is this feature's default (media)",
     .choices = feature_choices},
    SPEC_OPTIONS,
    {.name = "request-id",
     .kind = OPTION_TEXT,
     .value = "ID",
     .help = "makes repeating the command safe; a random one otherwise"},
    {.name = "jsonl", .kind = OPTION_FILE, .value = "FILE|-", .help = "one job a line, as JSON"},
    {.name = "wait",
     .letter = 'w',
     .kind = OPTION_FLAG,
     .help = "wait until the jobs have ended, with progress; as long as that takes, or --wait-timeout"},
    {.name = "wait-timeout",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "stop waiting after so long (exit status 4); --timeout is for one call and does not bound this"},
    {.name = NULL},
};

/* Where the jobs go. */
struct target {
  char *bucket;
  char *queue; /* NULL: the feature's default */
  Ringback__V1__DefaultQueue feature;
};

static bool read_target(struct tool *tool, struct target *target) {
  const char *queue = tool_text(tool, "queue", NULL);
  if (!tool_exclude(tool, "queue", "feature") || !tool_needs(tool, "wait-timeout", "wait"))
    return false;
  if (tool_given(tool, "request-id") && tool_text(tool, "request-id", "")[0] == '\0') {
    tool_error("--request-id is empty: give one, or leave it out for a random one");
    return false;
  }
  target->bucket = tool_bucket_name(tool, queue);
  target->queue = target->bucket == NULL || queue == NULL ? NULL : tool_queue_name(tool, queue);
  ringback__v1__default_queue__init(&target->feature);
  target->feature.bucket = target->bucket;
  target->feature.feature = message_feature(tool_text(tool, "feature", "media"));
  return target->bucket != NULL;
}

/* Ids of what was submitted. */
struct submitted {
  char **ids;
  size_t count, capacity;
};

static void submitted_add(struct submitted *submitted, const char *id) {
  if (submitted->count == submitted->capacity) {
    submitted->capacity = submitted->capacity == 0 ? 64 : submitted->capacity * 2;
    char **larger = realloc(submitted->ids, submitted->capacity * sizeof *larger);
    if (larger == NULL)
      abort();
    submitted->ids = larger;
  }
  submitted->ids[submitted->count++] = strdup(id);
}

static void submitted_close(struct submitted *submitted) {
  for (size_t i = 0; i < submitted->count; i++)
    free(submitted->ids[i]);
  free(submitted->ids);
}

/* Waits if that was asked for. */
static int wait_for(struct tool *tool, const struct target *target, const struct submitted *submitted) {
  if (!tool_given(tool, "wait") || submitted->count == 0)
    return TOOL_OK;
  return job_watch_until_ended(tool, target->bucket, submitted->ids, submitted->count,
                               tool_number(tool, "wait-timeout", 0));
}

/* After waiting for a single job, what became of it; with --json the whole job. */
static void show_end(struct tool *tool, const struct target *target, char *id) {
  Ringback__V1__GetJobsRequest request = RINGBACK__V1__GET_JOBS_REQUEST__INIT;
  request.bucket = target->bucket;
  request.job_ids = &id;
  request.n_job_ids = 1;
  request.view = RINGBACK__V1__JOB_VIEW__JOB_VIEW_FULL;
  int status;
  Ringback__V1__GetJobsResponse *response = tool_call(tool, "/ringback.v1.JobService/GetJobs", &request.base, &status);
  if (response == NULL)
    return;
  for (size_t i = 0; i < response->n_jobs; i++) {
    const Ringback__V1__Job *job = response->jobs[i];
    if (tool->json)
      tool_print_json_line(&job->base);
    else if (job->state == RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED)
      tool_error("the job failed: %s%s%s", job->code, job->message[0] == '\0' ? "" : ": ", job->message);
  }
  ringback_free(&response->base);
}

static int submit_one(struct tool *tool, struct target *target, const json_t *defaults) {
  char problem[PROBLEM_BYTES];
  Ringback__V1__JobSpec *spec = spec_from_line(defaults, "{}", 2, problem, sizeof problem);
  if (spec == NULL) {
    tool_error("%s", problem);
    return TOOL_USAGE;
  }
  Ringback__V1__SubmitJobRequest request = RINGBACK__V1__SUBMIT_JOB_REQUEST__INIT;
  request.job = spec;
  request.request_id = (char *)tool_text(tool, "request-id", "");
  request.target_case = target->queue != NULL ? RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_QUEUE
                                              : RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_DEFAULT_QUEUE;
  if (target->queue != NULL)
    request.queue = target->queue;
  else
    request.default_queue = &target->feature;
  int status = TOOL_OK;
  Ringback__V1__SubmitJobResponse *response =
      tool_call(tool, "/ringback.v1.JobService/SubmitJob", &request.base, &status);
  ringback_free(&spec->base);
  if (response == NULL)
    return status;
  if (tool->json && !tool_given(tool, "wait"))
    tool_print_json(&response->base);
  else if (!tool->json)
    puts(response->job->id);
  fflush(stdout);
  struct submitted submitted = {0};
  submitted_add(&submitted, response->job->id);
  ringback_free(&response->base);
  status = wait_for(tool, target, &submitted);
  if (tool_given(tool, "wait") && status != TOOL_UNAVAILABLE)
    show_end(tool, target, submitted.ids[0]);
  submitted_close(&submitted);
  return status;
}

/* Lines on their way into one call. */
struct batch {
  struct tool *tool;
  struct target *target;
  const char *path;
  Ringback__V1__JobSpec *specs[JOBS_PER_CALL];
  size_t lines[JOBS_PER_CALL];
  size_t count, bytes;
  size_t number; /* of the call, from 1 */
  size_t refused;
  struct submitted submitted;
  json_t *results;
};

static void batch_take(struct batch *batch, const Ringback__V1__SubmitJobsResponse *response) {
  for (size_t i = 0; i < response->n_results && i < batch->count; i++) {
    const Ringback__V1__SubmitJobsResult *result = response->results[i];
    char about[64];
    snprintf(about, sizeof about, "line %zu", batch->lines[i]);
    if (batch->tool->json)
      json_array_append_new(batch->results, json_of_message(&result->base));
    if (result->status != NULL && result->status->code != RINGBACK_OK) {
      message_item_failed(about, result->status);
      batch->refused++;
      continue;
    }
    submitted_add(&batch->submitted, result->job_id);
    if (!batch->tool->json)
      puts(result->job_id);
  }
}

/* Sends what has gathered. False with *status on an error of the call as a whole. */
static bool batch_send(struct batch *batch, int *status) {
  if (batch->count == 0)
    return true;
  struct tool *tool = batch->tool;
  Ringback__V1__SubmitJobsRequest request = RINGBACK__V1__SUBMIT_JOBS_REQUEST__INIT;
  const char *request_id = tool_text(tool, "request-id", NULL);
  char numbered[96] = "";
  /* Each call needs an id of its own; the same file with the same id makes the same ones again. */
  if (request_id != NULL)
    snprintf(numbered, sizeof numbered, "%.70s-%zu", request_id, ++batch->number);
  request.request_id = numbered;
  request.jobs = batch->specs;
  request.n_jobs = batch->count;
  request.target_case = batch->target->queue != NULL ? RINGBACK__V1__SUBMIT_JOBS_REQUEST__TARGET_QUEUE
                                                     : RINGBACK__V1__SUBMIT_JOBS_REQUEST__TARGET_DEFAULT_QUEUE;
  if (batch->target->queue != NULL)
    request.queue = batch->target->queue;
  else
    request.default_queue = &batch->target->feature;
  Ringback__V1__SubmitJobsResponse *response =
      tool_call(tool, "/ringback.v1.JobService/SubmitJobs", &request.base, status);
  if (response != NULL)
    batch_take(batch, response);
  for (size_t i = 0; i < batch->count; i++)
    ringback_free(&batch->specs[i]->base);
  batch->count = batch->bytes = 0;
  if (response != NULL)
    ringback_free(&response->base);
  output_progress(tool, "%zu submitted", batch->submitted.count);
  return response != NULL;
}

/* A line that is no job is told and counted; false with *status only on an error of a call. */
static bool batch_add(struct batch *batch, const json_t *defaults, const char *text, size_t text_bytes, size_t line,
                      int *status) {
  char problem[PROBLEM_BYTES];
  Ringback__V1__JobSpec *spec = spec_from_line(defaults, text, text_bytes, problem, sizeof problem);
  if (spec == NULL) {
    output_progress_clear(batch->tool);
    tool_error("%s, line %zu: %s", batch->path, line, problem);
    batch->refused++;
    return true;
  }
  size_t bytes = ringback__v1__job_spec__get_packed_size(spec);
  if ((batch->count == JOBS_PER_CALL || batch->bytes + bytes > BATCH_BYTES_MAX) && !batch_send(batch, status)) {
    ringback_free(&spec->base);
    return false;
  }
  batch->lines[batch->count] = line;
  batch->specs[batch->count++] = spec;
  batch->bytes += bytes;
  return true;
}

static int submit_lines(struct batch *batch, FILE *file, const json_t *defaults) {
  char *text = NULL;
  size_t capacity = 0, line = 0, jobs = 0;
  ssize_t length;
  int status = TOOL_OK;
  bool good = true;
  while (good && (length = getline(&text, &capacity, file)) >= 0) {
    line++;
    if (strspn(text, " \t\r\n") == (size_t)length)
      continue;
    jobs++;
    if (length > LINE_BYTES_MAX) {
      tool_error("%s, line %zu: longer than 2 MiB", batch->path, line);
      batch->refused++;
    } else {
      good = batch_add(batch, defaults, text, (size_t)length, line, &status);
    }
  }
  /* Before a failed call good lines may have gathered; they are not sent after it. */
  int sent = TOOL_OK;
  if (good)
    batch_send(batch, &sent);
  free(text);
  if (ferror(file)) {
    tool_error("%s: %s", batch->path, strerror(errno));
    return TOOL_USAGE;
  }
  if (jobs == 0) {
    tool_error("%s: there is no job in it", batch->path);
    return TOOL_USAGE;
  }
  return status != TOOL_OK ? status : sent;
}

static int submit_file(struct tool *tool, struct target *target, const json_t *defaults, const char *path) {
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
  if (file == NULL) {
    tool_error("%s: %s", path, strerror(errno));
    return TOOL_USAGE;
  }
  static struct batch batch;
  batch = (struct batch){.tool = tool, .target = target, .path = path, .results = json_array()};
  int status = submit_lines(&batch, file, defaults);
  if (file != stdin)
    fclose(file);
  output_progress_clear(tool);
  if (tool->json)
    json_print(json_pack("{s:O}", "results", batch.results));
  fflush(stdout);
  int waited = wait_for(tool, target, &batch.submitted);
  if (status == TOOL_OK)
    status = batch.refused > 0 ? TOOL_FAILED : waited;
  submitted_close(&batch.submitted);
  json_decref(batch.results);
  return status;
}

int command_job_submit(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  struct target target = {0};
  const char *path = tool_text(tool, "jsonl", NULL);
  if (!read_target(tool, &target))
    return TOOL_USAGE;
  if (path == NULL && !tool_given(tool, "tag")) {
    tool_error("--tag is needed: what kind of job it is");
    return TOOL_USAGE;
  }
  json_t *defaults = spec_from_options(tool);
  if (defaults == NULL)
    return TOOL_USAGE;
  int status = path != NULL ? submit_file(tool, &target, defaults, path) : submit_one(tool, &target, defaults);
  json_decref(defaults);
  return status;
}
