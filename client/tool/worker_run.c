/*
 * One leased job in `ringback worker`: its command is started, its lease renewed with the progress it tells, and its
 * end reported. The command is stopped, SIGTERM first, when the service says so or when the lease has run out by our
 * own clock, so that whoever holds the lease next does not find the old command still at work.
 *
 * A result is reported only while the lease is ours; the fencing token settles every doubt on the server's side.
 */
#include "client/tool/json.h"
#include "client/tool/worker.h"
#include "client/tool/worker_process.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define EXIT_NEVER_RETRY 65 /* EX_DATAERR */
#define RENEW_MS_MAX 10000  /* a cancelled job is noticed within this */
#define RENEW_MS_MIN 200
#define RENEW_RETRY_MS 500
#define PROGRESS_MS 1000 /* news of progress are told this often */
#define CALL_MS_MAX 5000
#define CALL_MS_MIN 500
#define FINISH_MS_MIN 10000 /* a finish is tried this long even if the lease runs out meanwhile */
#define WAIT_MS 100
#define LEASE_MARGIN_MS_MAX 1000
#define LEASE_MS_ASSUMED 30000 /* of a server that does not say how long the lease is */

enum run_end {
  RUN_GOES_ON,
  RUN_CANCELLED,
  RUN_LEASE_LOST,
  RUN_TIMED_OUT,
  RUN_GONE,
  RUN_RELEASED,
};

struct run {
  struct worker_slot *slot;
  struct worker *worker;
  const Ringback__V1__Job *job;
  Ringback__V1__Lease lease;
  struct process process;
  int64_t lease_ms;
  int64_t lease_end_ms; /* monotonic */
  int64_t renew_at_ms;
  int64_t renewed_at_ms;
  int told_progress;
  bool streamed; /* the stream renews the lease and says when to stop */
  bool warned;   /* that renewing fails */
  enum run_end end;
  int64_t stop_at_ms; /* when SIGTERM was sent */
  bool killed;
};

/* --- the environment ------------------------------------------------------------------------------------------------
 */

extern char **environ;

struct environment {
  char **entries; /* ends with NULL */
  size_t count;
};

/* Sets a variable, replacing what was inherited; NULL only removes that. Returns false when memory is short. */
static bool environment_set(struct environment *environment, const char *name, const char *value) {
  size_t length = strlen(name), kept = 0;
  for (size_t i = 0; i < environment->count; i++) {
    char *entry = environment->entries[i];
    if (strncmp(entry, name, length) == 0 && entry[length] == '=') {
      free(entry);
    } else {
      environment->entries[kept++] = entry;
    }
  }
  environment->count = kept;
  environment->entries[kept] = NULL;
  if (value == NULL || value[0] == '\0') {
    return true;
  }
  char **larger = realloc(environment->entries, (kept + 2) * sizeof *larger);
  if (larger == NULL) {
    return false;
  }
  environment->entries = larger;
  if (asprintf(&larger[kept], "%s=%s", name, value) < 0) {
    larger[kept] = NULL;
    return false;
  }
  larger[kept + 1] = NULL;
  environment->count = kept + 1;
  return true;
}

static void environment_close(struct environment *environment) {
  for (size_t i = 0; i < environment->count; i++) {
    free(environment->entries[i]);
  }
  free(environment->entries);
}

static bool environment_init(struct environment *environment, const struct worker *worker,
                             const Ringback__V1__Job *job) {
  size_t inherited = 0;
  while (environ[inherited] != NULL) {
    inherited++;
  }
  environment->count = 0;
  environment->entries = calloc(inherited + 1, sizeof *environment->entries);
  if (environment->entries == NULL) {
    return false;
  }
  for (size_t i = 0; i < inherited; i++) {
    if ((environment->entries[i] = strdup(environ[i])) == NULL) {
      return false;
    }
    environment->count++;
  }
  const Ringback__V1__JobSpec *spec = job->spec;
  const Ringback__V1__ObjectInput *object = NULL;
  const char *url = NULL;
  if (spec->input != NULL && spec->input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT) {
    object = spec->input->object;
  } else if (spec->input != NULL && spec->input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_URL) {
    url = spec->input->url;
  }
  const char *bucket = worker->bucket + strlen("buckets/");
  char priority[16], attempt[16];
  snprintf(priority, sizeof priority, "%d", spec->priority);
  snprintf(attempt, sizeof attempt, "%d", job->attempts);
  const char *queue = strrchr(job->queue, '/');
  const char *input_bucket = object == NULL ? NULL : object->bucket[0] != '\0' ? object->bucket : bucket;
  return environment_set(environment, "RINGBACK_JOB_ID", job->id) &&
         environment_set(environment, "RINGBACK_BUCKET", bucket) &&
         environment_set(environment, "RINGBACK_QUEUE", queue != NULL ? queue + 1 : job->queue) &&
         environment_set(environment, "RINGBACK_TAG", spec->tag) &&
         environment_set(environment, "RINGBACK_INPUT_BUCKET", input_bucket) &&
         environment_set(environment, "RINGBACK_OBJECT", object != NULL ? object->object : NULL) &&
         environment_set(environment, "RINGBACK_REGION", object != NULL ? object->region : NULL) &&
         environment_set(environment, "RINGBACK_INPUT_URL", url) &&
         environment_set(environment, "RINGBACK_USER_DATA", spec->user_data) &&
         environment_set(environment, "RINGBACK_PRIORITY", priority) &&
         environment_set(environment, "RINGBACK_ATTEMPT", attempt) &&
         environment_set(environment, "TRACEPARENT", spec->traceparent) &&
         environment_set(environment, "RINGBACK_PROGRESS_FD", "3") &&
         (worker->root == NULL || environment_set(environment, "RINGBACK_ROOT", worker->root));
}

/* --- the lease ------------------------------------------------------------------------------------------------------
 */

static int64_t milliseconds_of(const Google__Protobuf__Timestamp *time) {
  return time->seconds * 1000 + time->nanos / 1000000;
}

static int64_t lease_length_ms(const struct worker *worker, const Ringback__V1__LeasedJob *leased) {
  if (leased->lease_expire_time != NULL && leased->job->start_time != NULL) {
    int64_t length_ms = milliseconds_of(leased->lease_expire_time) - milliseconds_of(leased->job->start_time);
    if (length_ms > 0) {
      return length_ms;
    }
  }
  return worker->lease_ms > 0 ? worker->lease_ms : LEASE_MS_ASSUMED;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

static void lease_extended(struct run *run, int64_t asked_at_ms) {
  run->renewed_at_ms = asked_at_ms;
  /* A grant's answer was on its way for a while, and a command takes a moment to die. */
  run->lease_end_ms = asked_at_ms + run->lease_ms - clamp(run->lease_ms / 10, 0, LEASE_MARGIN_MS_MAX);
  run->renew_at_ms = asked_at_ms + clamp(run->lease_ms / 3, RENEW_MS_MIN, RENEW_MS_MAX);
}

static enum run_end end_of_reason(Ringback__V1__StopReason reason) {
  switch (reason) {
  case RINGBACK__V1__STOP_REASON__STOP_REASON_CANCELLED:
    return RUN_CANCELLED;
  case RINGBACK__V1__STOP_REASON__STOP_REASON_TIMED_OUT:
    return RUN_TIMED_OUT;
  case RINGBACK__V1__STOP_REASON__STOP_REASON_GONE:
    return RUN_GONE;
  default:
    return RUN_LEASE_LOST;
  }
}

static void set_progress(struct run *run, int progress) {
  pthread_mutex_lock(&run->worker->show_lock);
  run->slot->progress = progress;
  pthread_mutex_unlock(&run->worker->show_lock);
}

static void renew(struct run *run) {
  int64_t now_ms = worker_now_ms();
  Ringback__V1__LeaseRenewal renewal = RINGBACK__V1__LEASE_RENEWAL__INIT;
  Ringback__V1__LeaseRenewal *renewals[] = {&renewal};
  Ringback__V1__RenewLeasesRequest request = RINGBACK__V1__RENEW_LEASES_REQUEST__INIT;
  renewal.lease = &run->lease;
  renewal.progress = run->process.progress;
  request.bucket = run->worker->bucket;
  request.renewals = renewals;
  request.n_renewals = 1;
  /* Short enough that a second try fits in before the lease ends. */
  struct ringback_call_options options = {.timeout_ms =
                                              clamp((run->lease_end_ms - now_ms) / 2, CALL_MS_MIN, CALL_MS_MAX),
                                          .canceller = run->worker->call_canceller};
  struct ringback_error error;
  Ringback__V1__RenewLeasesResponse *response =
      ringback_call(run->worker->client, "/ringback.v1.WorkerService/RenewLeases", &request.base, &options, &error);
  if (response == NULL || response->n_results != 1) {
    if (!run->warned) {
      worker_warn(run->worker, "%s: the lease could not be renewed: %s", run->job->id,
                  response == NULL ? error.message : "an answer without a result");
      run->warned = true;
    }
    run->renew_at_ms = worker_now_ms() + RENEW_RETRY_MS;
    ringback_free((ProtobufCMessage *)response);
    return;
  }
  run->warned = false;
  const Ringback__V1__RenewLeasesResult *result = response->results[0];
  if (result->status != NULL && result->status->code != RINGBACK_OK) {
    run->end = end_of_reason(result->stop_reason);
  } else {
    lease_extended(run, now_ms);
    if (renewal.progress != run->told_progress) {
      run->told_progress = renewal.progress;
      worker_show_event(run->slot, run->job, "progress", json_pack("{si}", "progress", renewal.progress));
    }
  }
  ringback_free(&response->base);
}

static void tell_progress(struct run *run) {
  run->renewed_at_ms = worker_now_ms();
  run->told_progress = run->process.progress;
  if (ringback_work_progress(run->worker->work, run->job->id, run->lease.fencing_token, run->told_progress)) {
    worker_show_event(run->slot, run->job, "progress", json_pack("{si}", "progress", run->told_progress));
  }
}

/* What the stream says of the lease; where there is none any more, the lease is ours to renew. */
static void heed_stream(struct run *run, int64_t now_ms) {
  int reason = worker_stream_stop_reason(run->slot);
  if (reason != 0) {
    run->end = end_of_reason((Ringback__V1__StopReason)reason);
  } else if (!worker_stream_goes_on(run->worker)) {
    run->streamed = false;
    lease_extended(run, now_ms);
    run->renew_at_ms = now_ms;
  }
}

/* --- the command ----------------------------------------------------------------------------------------------------
 */

static void stop_command(struct run *run, int64_t now_ms) {
  if (run->stop_at_ms == 0) {
    run->stop_at_ms = now_ms;
    process_signal(&run->process, SIGTERM);
    process_signal(&run->process, SIGCONT);
  } else if (!run->killed && (now_ms - run->stop_at_ms >= run->worker->grace_ms ||
                              atomic_load(&run->worker->stage) == WORKER_KILLING)) {
    run->killed = true;
    process_signal(&run->process, SIGKILL);
  }
}

static void watch_command(struct run *run) {
  while (!process_wait(&run->process, WAIT_MS)) {
    int64_t now_ms = worker_now_ms();
    if (run->end == RUN_GOES_ON && atomic_load(&run->worker->stage) >= WORKER_RELEASING) {
      run->end = RUN_RELEASED;
    }
    if (run->end == RUN_GOES_ON && run->streamed) {
      heed_stream(run, now_ms);
    } else if (run->end == RUN_GOES_ON && now_ms >= run->lease_end_ms) {
      run->end = RUN_LEASE_LOST;
    }
    if (run->end != RUN_GOES_ON) {
      stop_command(run, now_ms);
      continue;
    }
    set_progress(run, run->process.progress);
    bool news = run->process.progress != run->told_progress && now_ms >= run->renewed_at_ms + PROGRESS_MS;
    if (run->streamed && news) {
      tell_progress(run);
    } else if (!run->streamed && (now_ms >= run->renew_at_ms || (news && !run->warned))) {
      renew(run);
    }
  }
}

/* --- the report -----------------------------------------------------------------------------------------------------
 */

/* What the command wrote, as a payload: XML when it begins like it, else text or bytes. False when there is nothing.
 * The output must stay while the payload is used. */
static bool payload_of_output(struct process *process, Ringback__V1__Payload *payload,
                              Ringback__V1__OpaquePayload *opaque) {
  size_t begin = 0, end = process->output_length;
  while (begin < end && strchr(" \t\r\n", process->output[begin]) != NULL && process->output[begin] != '\0') {
    begin++;
  }
  if (begin == end) {
    return false;
  }
  bool text = process_is_text(process->output, end);
  if (process->output[begin] == '<' && text && end < PROCESS_OUTPUT_BYTES_MAX) {
    while (strchr(" \t\r\n", process->output[end - 1]) != NULL) {
      end--;
    }
    if (end == process->output_size) {
      char *larger = realloc(process->output, end + 1);
      if (larger == NULL) {
        return false;
      }
      process->output = larger;
      process->output_size = end + 1;
    }
    process->output[end] = '\0';
    payload->form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
    payload->xml = process->output + begin;
    return true;
  }
  static char text_type[] = "text/plain; charset=utf-8", byte_type[] = "application/octet-stream";
  opaque->data.data = (uint8_t *)process->output;
  opaque->data.len = process->output_length;
  opaque->content_type = text ? text_type : byte_type;
  payload->form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
  payload->opaque = opaque;
  return true;
}

struct outcome {
  bool success;
  bool never;
  char code[PROCESS_CODE_BYTES_MAX + 1];
  char message[PROCESS_MESSAGE_BYTES_MAX];
  Ringback__V1__Payload *result; /* NULL: none */
};

static void judge(struct process *process, struct outcome *outcome) {
  int status = process->wait_status;
  outcome->success = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  snprintf(outcome->message, sizeof outcome->message, "%s", process->message);
  if (process->output_cut) {
    outcome->success = false;
    outcome->never = true;
    snprintf(outcome->code, sizeof outcome->code, "ResultTooLarge");
    snprintf(outcome->message, sizeof outcome->message, "the command wrote more than %d bytes",
             PROCESS_OUTPUT_BYTES_MAX);
    return;
  }
  if (outcome->success) {
    return;
  }
  outcome->never = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NEVER_RETRY;
  if (process->code[0] != '\0') {
    snprintf(outcome->code, sizeof outcome->code, "%s", process->code);
  } else if (WIFEXITED(status)) {
    snprintf(outcome->code, sizeof outcome->code, "ExitStatus%d", WEXITSTATUS(status));
  } else {
    snprintf(outcome->code, sizeof outcome->code, "Signal%d", WTERMSIG(status));
  }
  if (outcome->message[0] == '\0') {
    process_last_lines(process, outcome->message, sizeof outcome->message);
  }
}

/* One try to tell the outcome, over the stream or, where that gives no answer, by FinishJobs, which may well be the
 * second to tell the same. Returns the code of the call or of its item, with *state filled when it is OK and *error
 * otherwise.
 */
static int finish_once(struct run *run, struct outcome *outcome, Ringback__V1__JobState *state,
                       struct ringback_error *error) {
  Ringback__V1__JobSuccess success = RINGBACK__V1__JOB_SUCCESS__INIT;
  Ringback__V1__JobFailure failure = RINGBACK__V1__JOB_FAILURE__INIT;
  Ringback__V1__FinishedJob finished = RINGBACK__V1__FINISHED_JOB__INIT;
  Ringback__V1__FinishedJob *jobs[] = {&finished};
  Ringback__V1__FinishJobsRequest request = RINGBACK__V1__FINISH_JOBS_REQUEST__INIT;
  finished.lease = &run->lease;
  if (outcome->success) {
    success.message = outcome->message;
    success.result = outcome->result;
    finished.outcome_case = RINGBACK__V1__FINISHED_JOB__OUTCOME_SUCCESS;
    finished.success = &success;
  } else {
    failure.code = outcome->code;
    failure.message = outcome->message;
    failure.result = outcome->result;
    if (outcome->never) {
      failure.retry_case = RINGBACK__V1__JOB_FAILURE__RETRY_NEVER;
      failure.never = true;
    }
    finished.outcome_case = RINGBACK__V1__FINISHED_JOB__OUTCOME_FAILURE;
    finished.failure = &failure;
  }
  if (worker_stream_goes_on(run->worker) && ringback_work_finish(run->worker->work, &finished.base)) {
    int streamed_state;
    if (worker_stream_answer(run->slot, CALL_MS_MAX, &streamed_state, error)) {
      *state = (Ringback__V1__JobState)streamed_state;
      return error->code;
    }
  }
  request.bucket = run->worker->bucket;
  request.jobs = jobs;
  request.n_jobs = 1;
  struct ringback_call_options options = {.timeout_ms = CALL_MS_MAX, .canceller = run->worker->call_canceller};
  Ringback__V1__FinishJobsResponse *response =
      ringback_call(run->worker->client, "/ringback.v1.WorkerService/FinishJobs", &request.base, &options, error);
  if (response == NULL) {
    return error->code;
  }
  int code = RINGBACK_INTERNAL;
  if (response->n_results == 1) {
    const Ringback__V1__FinishJobsResult *result = response->results[0];
    code = result->status != NULL ? result->status->code : RINGBACK_OK;
    *state = result->state;
    if (code != RINGBACK_OK) {
      ringback_error_from_status(error, &result->status->base);
    }
  }
  ringback_free(&response->base);
  return code;
}

static bool may_pass(int code) {
  return code == RINGBACK_UNAVAILABLE || code == RINGBACK_DEADLINE_EXCEEDED || code == RINGBACK_RESOURCE_EXHAUSTED ||
         code == RINGBACK_ABORTED;
}

static void finish(struct run *run) {
  Ringback__V1__Payload result = RINGBACK__V1__PAYLOAD__INIT;
  Ringback__V1__OpaquePayload opaque = RINGBACK__V1__OPAQUE_PAYLOAD__INIT;
  struct outcome outcome = {.success = false};
  judge(&run->process, &outcome);
  outcome.result = !run->process.output_cut && payload_of_output(&run->process, &result, &opaque) ? &result : NULL;
  int64_t give_up_ms = worker_now_ms() + FINISH_MS_MIN;
  give_up_ms = give_up_ms > run->lease_end_ms ? give_up_ms : run->lease_end_ms;
  struct ringback_error error;
  Ringback__V1__JobState state = RINGBACK__V1__JOB_STATE__JOB_STATE_UNSPECIFIED;
  int code;
  while ((code = finish_once(run, &outcome, &state, &error)) != RINGBACK_OK) {
    if (code == RINGBACK_INVALID_ARGUMENT && outcome.result != NULL) {
      /* The server does not take what the command wrote: no XML, or too large. Another attempt would write it again. */
      outcome.result = NULL;
      if (outcome.success) {
        outcome.success = false;
        outcome.never = true;
        snprintf(outcome.code, sizeof outcome.code, "InvalidResult");
        snprintf(outcome.message, sizeof outcome.message, "%s",
                 error.violation_count > 0 ? error.violations[0].description : error.message);
      }
    } else if (may_pass(code) && worker_now_ms() < give_up_ms && atomic_load(&run->worker->stage) < WORKER_KILLING) {
      worker_sleep_ms(run->worker, RENEW_RETRY_MS, WORKER_KILLING);
    } else {
      atomic_fetch_add(&run->worker->stopped, 1);
      worker_show_event(run->slot, run->job, "refused", json_pack("{ss}", "message", error.message));
      return;
    }
  }
  if (outcome.success) {
    set_progress(run, 100);
    atomic_fetch_add(&run->worker->succeeded, 1);
    worker_show_event(run->slot, run->job, "succeeded", NULL);
  } else {
    atomic_fetch_add(&run->worker->failed, 1);
    const char *next = state == RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED ? "none" : "another attempt";
    worker_show_event(run->slot, run->job, "failed",
                      json_pack("{ss ss ss}", "code", outcome.code, "message", outcome.message, "next", next));
  }
}

static void released(struct run *run, const char *message) {
  atomic_fetch_add(&run->worker->stopped, 1);
  worker_show_event(run->slot, run->job, "released", message != NULL ? json_pack("{ss}", "message", message) : NULL);
}

static void release(struct run *run) {
  struct ringback_error error;
  int state;
  if (worker_stream_goes_on(run->worker) &&
      ringback_work_release(run->worker->work, run->lease.job_id, run->lease.fencing_token) &&
      worker_stream_answer(run->slot, CALL_MS_MAX, &state, &error)) {
    released(run, error.code != RINGBACK_OK ? error.message : NULL);
    return;
  }
  Ringback__V1__Lease *leases[] = {&run->lease};
  Ringback__V1__ReleaseJobsRequest request = RINGBACK__V1__RELEASE_JOBS_REQUEST__INIT;
  request.bucket = run->worker->bucket;
  request.leases = leases;
  request.n_leases = 1;
  struct ringback_call_options options = {.timeout_ms = CALL_MS_MAX, .canceller = run->worker->call_canceller};
  Ringback__V1__ReleaseJobsResponse *response =
      ringback_call(run->worker->client, "/ringback.v1.WorkerService/ReleaseJobs", &request.base, &options, &error);
  released(run, response == NULL ? error.message : NULL);
  ringback_free((ProtobufCMessage *)response);
}

static void report(struct run *run) {
  static const char *const reasons[] = {"", "cancelled", "lease lost", "timed out", "gone", ""};
  bool succeeded = WIFEXITED(run->process.wait_status) && WEXITSTATUS(run->process.wait_status) == 0;
  if (run->end == RUN_GOES_ON || (run->end == RUN_RELEASED && succeeded)) {
    finish(run);
  } else if (run->end == RUN_RELEASED) {
    release(run);
  } else {
    atomic_fetch_add(&run->worker->stopped, 1);
    worker_show_event(run->slot, run->job, "stopped", json_pack("{ss}", "reason", reasons[run->end]));
  }
}

/* The stream goes on saying what was not answered, and a draining worker would wait for that. */
static void let_go(struct run *run) {
  if (run->worker->work != NULL) {
    ringback_work_forget(run->worker->work, run->job->id, run->lease.fencing_token);
  }
}

static int start_command(struct run *run) {
  struct environment environment;
  json_t *object = json_of_message(&run->job->base);
  char *input = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
  json_decref(object);
  int error = ENOMEM;
  if (environment_init(&environment, run->worker, run->job) && input != NULL) {
    error = process_start(&run->process, run->worker->command, environment.entries, input, strlen(input));
  }
  environment_close(&environment);
  free(input);
  return error;
}

void worker_run(struct worker_slot *slot, const Ringback__V1__LeasedJob *leased, int64_t granted_at_ms) {
  struct run run = {.slot = slot, .worker = slot->worker, .job = leased->job, .told_progress = leased->job->progress};
  ringback__v1__lease__init(&run.lease);
  run.lease.job_id = leased->job->id;
  run.lease.fencing_token = leased->fencing_token;
  run.lease_ms = lease_length_ms(run.worker, leased);
  run.streamed = run.worker->work != NULL;
  lease_extended(&run, granted_at_ms);
  worker_show_event(slot, run.job, "leased", NULL);
  int error = start_command(&run);
  if (error != 0) {
    worker_warn(run.worker, "%s: the command could not be started: %s", run.job->id, strerror(error));
    release(&run);
    let_go(&run);
    worker_sleep_ms(run.worker, 1000, WORKER_DRAINING);
    return;
  }
  watch_command(&run);
  report(&run);
  let_go(&run);
  process_close(&run.process);
}
