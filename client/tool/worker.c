/*
 * `ringback worker`: leases jobs and runs a command for each. The contract with the command stands in the description
 * below, which is also its --help.
 *
 * Main starts a thread a slot and then takes signals and draws bars until every thread has ended. Slots take their jobs
 * from one stream that has as much credit as there are free slots; or, with --poll, each asks for one job at a time
 * with a long poll. So with N slots at most N jobs are leased and none waits in the worker.
 */
#include "client/tool/worker.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEASE_WAIT_SECONDS 30
#define LEASE_CALL_MS 45000
#define EMPTY_RETRY_MS 200
#define ERROR_RETRY_MS 500
#define ERROR_RETRY_MS_MAX 10000
#define TICK_MS 200
/* Some who end processes signal them and their group at once: that is one request. */
#define SIGNAL_AGAIN_MS 300
#define GRACE_MS_DEFAULT 5000
/* After the third signal, for giving the jobs back. */
#define KILLING_MS 1000
#define METHOD_LEASE "/ringback.v1.WorkerService/LeaseJobs"

const char worker_description[] =
    "Leases jobs of the queues, the more important first, and runs CMD for each by "
    "`/bin/sh -c` in a process group of its\n"
    "own. The lease is renewed at a third of its length, at most 10 s apart.\n"
    "\n"
    "What the command gets:\n"
    "  standard input   the job (ringback.v1.Job) as one JSON object\n"
    "  environment      RINGBACK_JOB_ID, RINGBACK_BUCKET, RINGBACK_QUEUE, RINGBACK_TAG, "
    "RINGBACK_PRIORITY, RINGBACK_ATTEMPT,\n"
    "                   RINGBACK_ROOT, and where the job has them RINGBACK_INPUT_BUCKET "
    "and RINGBACK_OBJECT, RINGBACK_REGION,\n"
    "                   RINGBACK_INPUT_URL, RINGBACK_USER_DATA and TRACEPARENT\n"
    "What it gives back:\n"
    "  standard output  the result: XML when it begins with '<' (kept as opaque "
    "application/xml where it is not well-formed), else\n"
    "                   text or bytes; at most what the server takes (64 KiB)\n"
    "  descriptor 3     lines `progress N` (0 to 100), `message TEXT`, and for a failure "
    "`code NAME`; its number is also in\n"
    "                   RINGBACK_PROGRESS_FD\n"
    "  exit status      0 success; 65 failed and never to be tried again; anything else "
    "failed, tried again by the queue's retry\n"
    "                   policy (75 by convention). Without a `code` it is ExitStatusN or "
    "SignalN, without a `message` the end of\n"
    "                   standard error.\n"
    "\n"
    "When the job is cancelled, times out or its lease is lost, the process group gets "
    "SIGTERM, and SIGKILL after --grace.\n"
    "A worker hears of a cancellation at the next renewal: after a third of the lease, at "
    "most 10 s.\n"
    "SIGTERM or SIGINT to the worker: lease no more, finish what runs, exit. A second: "
    "end the commands and give their jobs\n"
    "back, their attempts uncounted. A third: without waiting for the commands.";

const struct option_row worker_options[] = {
    {.name = "queue",
     .letter = 'q',
     .kind = OPTION_QUEUE,
     .repeatable = true,
     .value = "Q[,Q...]",
     .help = "queues to lease from, all of one bucket; required"},
    {.name = "exec",
     .letter = 'e',
     .kind = OPTION_TEXT,
     .value = "CMD",
     .help = "the command to run for each job; required"},
    {.name = "concurrency",
     .letter = 'n',
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "jobs at the same time (default 1)",
     .low = 1,
     .high = WORKER_SLOTS_MAX},
    {.name = "root",
     .kind = OPTION_FILE,
     .value = "DIR",
     .help = "directory of the buckets, passed on as RINGBACK_ROOT"},
    {.name = "worker",
     .letter = 'w',
     .kind = OPTION_TEXT,
     .value = "NAME",
     .help = "who this is (default host and process id)"},
    {.name = "lease",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "length of the leases (default the job's or queue's)",
     .low = 1000,
     .high = 12 * 3600 * 1000},
    {.name = "grace",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "between SIGTERM and SIGKILL (default 5s)",
     .low = 1,
     .high = 3600 * 1000},
    {.name = "count", .kind = OPTION_INTEGER, .value = "N", .help = "end after N jobs", .low = 1, .high = 1000000000},
    {.name = "poll", .kind = OPTION_FLAG, .help = "lease by single calls instead of over one stream"},
    {.name = "until-empty", .kind = OPTION_FLAG, .help = "end when no job can be leased; implies --poll"},
    {.name = NULL},
};

int64_t worker_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void worker_sleep_ms(struct worker *worker, int64_t duration_ms, enum worker_stage until) {
  int64_t end_ms = worker_now_ms() + duration_ms;
  for (int64_t now_ms; (now_ms = worker_now_ms()) < end_ms && atomic_load(&worker->stage) < (int)until;) {
    int64_t step_ms = end_ms - now_ms < 50 ? end_ms - now_ms : 50;
    struct timespec step = {.tv_nsec = step_ms * 1000000};
    nanosleep(&step, NULL);
  }
}

static void set_stage(struct worker *worker, enum worker_stage stage) {
  atomic_store(&worker->stage, stage);
  if (worker->work != NULL) {
    ringback_work_drain(worker->work);
  }
  ringback_cancel(worker->lease_canceller);
}

/* Waits for no answer any more. */
static void give_up(struct worker *worker) {
  if (worker->work != NULL) {
    ringback_work_stop(worker->work);
  }
  ringback_cancel(worker->call_canceller);
}

static bool may_pass(int code) {
  return code == RINGBACK_UNAVAILABLE || code == RINGBACK_DEADLINE_EXCEEDED || code == RINGBACK_RESOURCE_EXHAUSTED ||
         code == RINGBACK_ABORTED || code == RINGBACK_INTERNAL || code == RINGBACK_UNKNOWN;
}

static Ringback__V1__LeaseJobsResponse *lease_one(struct worker *worker, struct ringback_error *error) {
  Google__Protobuf__Duration lease = GOOGLE__PROTOBUF__DURATION__INIT, wait = GOOGLE__PROTOBUF__DURATION__INIT;
  Ringback__V1__LeaseJobsRequest request = RINGBACK__V1__LEASE_JOBS_REQUEST__INIT;
  request.queues = worker->queues;
  request.n_queues = worker->queue_count;
  request.max_jobs = 1;
  request.worker = (char *)worker->name;
  if (worker->lease_ms > 0) {
    lease.seconds = worker->lease_ms / 1000;
    lease.nanos = (int32_t)(worker->lease_ms % 1000 * 1000000);
    request.lease = &lease;
  }
  wait.seconds = worker->until_empty ? 0 : LEASE_WAIT_SECONDS;
  request.wait = &wait;
  struct ringback_call_options options = {
      .timeout_ms = LEASE_CALL_MS, .repeat_never = true, .canceller = worker->lease_canceller};
  return ringback_call(worker->client, METHOD_LEASE, &request.base, &options, error);
}

static void begin_job(struct worker_slot *slot, const Ringback__V1__Job *job) {
  atomic_fetch_add(&slot->worker->running, 1);
  pthread_mutex_lock(&slot->worker->show_lock);
  slot->busy = true;
  slot->progress = 0;
  snprintf(slot->job_id, sizeof slot->job_id, "%s", job->id);
  snprintf(slot->tag, sizeof slot->tag, "%s", job->spec->tag);
  pthread_mutex_unlock(&slot->worker->show_lock);
}

static void end_job(struct worker_slot *slot) {
  pthread_mutex_lock(&slot->worker->show_lock);
  slot->busy = false;
  pthread_mutex_unlock(&slot->worker->show_lock);
  atomic_fetch_sub(&slot->worker->running, 1);
}

/* Takes one of the jobs that --count allows. */
static bool take_permit(struct worker *worker) {
  if (!worker->counted || atomic_fetch_sub(&worker->remaining, 1) > 0) {
    return true;
  }
  atomic_fetch_add(&worker->remaining, 1);
  return false;
}

static void return_permit(struct worker *worker) {
  if (worker->counted) {
    atomic_fetch_add(&worker->remaining, 1);
  }
}

void worker_fail(struct worker *worker, const struct ringback_error *error) {
  int expected = TOOL_OK;
  if (atomic_compare_exchange_strong(&worker->exit_status, &expected, tool_exit_status(error->code))) {
    worker_clear_bars(worker);
    tool_call_failed(error);
  }
  int leasing = WORKER_LEASING;
  atomic_compare_exchange_strong(&worker->stage, &leasing, WORKER_DRAINING);
  ringback_cancel(worker->lease_canceller);
}

/* False when the worker cannot go on. */
static bool survive(struct worker_slot *slot, const struct ringback_error *error, int64_t *wait_ms) {
  struct worker *worker = slot->worker;
  if (atomic_load(&worker->stage) != WORKER_LEASING) {
    return true;
  }
  if (!may_pass(error->code)) {
    worker_fail(worker, error);
    return false;
  }
  if (slot == &worker->slots[0] && *wait_ms == 0) {
    worker_warn(worker, "cannot lease, trying on: %s", error->message);
  }
  *wait_ms = *wait_ms == 0 ? ERROR_RETRY_MS : *wait_ms * 2 < ERROR_RETRY_MS_MAX ? *wait_ms * 2 : ERROR_RETRY_MS_MAX;
  int64_t asked_ms = error->retry_delay_ms > ERROR_RETRY_MS_MAX ? ERROR_RETRY_MS_MAX : error->retry_delay_ms;
  worker_sleep_ms(worker, asked_ms > *wait_ms ? asked_ms : *wait_ms, WORKER_DRAINING);
  return true;
}

static void *streamed_slot_thread(void *argument) {
  struct worker_slot *slot = argument;
  Ringback__V1__LeasedJob *leased;
  while ((leased = worker_stream_take(slot)) != NULL) {
    begin_job(slot, leased->job);
    worker_run(slot, leased, worker_now_ms());
    end_job(slot);
    worker_stream_done(slot);
  }
  atomic_fetch_sub(&slot->worker->alive, 1);
  return NULL;
}

static void *slot_thread(void *argument) {
  struct worker_slot *slot = argument;
  struct worker *worker = slot->worker;
  int64_t error_wait_ms = 0;
  while (atomic_load(&worker->stage) == WORKER_LEASING && take_permit(worker)) {
    struct ringback_error error;
    Ringback__V1__LeaseJobsResponse *response = lease_one(worker, &error);
    if (response == NULL) {
      return_permit(worker);
      if (!survive(slot, &error, &error_wait_ms)) {
        break;
      }
      continue;
    }
    error_wait_ms = 0;
    if (response->n_jobs == 0) {
      return_permit(worker);
      ringback_free(&response->base);
      if (worker->until_empty && atomic_load(&worker->running) == 0) {
        break;
      }
      if (worker->until_empty) {
        worker_sleep_ms(worker, EMPTY_RETRY_MS, WORKER_DRAINING);
      }
      continue;
    }
    begin_job(slot, response->jobs[0]->job);
    worker_run(slot, response->jobs[0], worker_now_ms());
    end_job(slot);
    ringback_free(&response->base);
  }
  atomic_fetch_sub(&worker->alive, 1);
  return NULL;
}

/* Fills the queues and the bucket from --queue; TOOL_OK or TOOL_USAGE. */
static int take_queues(struct worker *worker) {
  size_t position = 0;
  const char *given;
  while ((given = tool_next_text(worker->tool, "queue", &position)) != NULL) {
    char *list = strdup(given), *rest = list;
    for (char *name; list != NULL && (name = strsep(&rest, ",")) != NULL;) {
      if (worker->queue_count == WORKER_QUEUES_MAX) {
        tool_error("at most %d queues", WORKER_QUEUES_MAX);
        free(list);
        return TOOL_USAGE;
      }
      char *full = tool_queue_name(worker->tool, name);
      if (full == NULL) {
        free(list);
        return TOOL_USAGE;
      }
      worker->queues[worker->queue_count++] = full;
    }
    free(list);
  }
  if (worker->queue_count == 0) {
    tool_error("--queue is required");
    return TOOL_USAGE;
  }
  worker->bucket = tool_bucket_name(worker->tool, worker->queues[0]);
  return worker->bucket != NULL ? TOOL_OK : TOOL_USAGE;
}

static void run_slots(struct worker *worker, const sigset_t *signals) {
  void *(*thread)(void *) = worker->work != NULL ? streamed_slot_thread : slot_thread;
  atomic_store(&worker->alive, (int)worker->slot_count);
  size_t started = 0;
  for (; started < worker->slot_count; started++) {
    worker->slots[started].worker = worker;
    if (pthread_create(&worker->slots[started].thread, NULL, thread, &worker->slots[started]) != 0) {
      tool_error("no thread for slot %zu", started);
      atomic_fetch_sub(&worker->alive, (int)(worker->slot_count - started));
      atomic_store(&worker->exit_status, TOOL_FAILED);
      set_stage(worker, WORKER_DRAINING);
      break;
    }
  }
  static const char *const remarks[] = {"", "draining: finishing what runs", "giving back what runs",
                                        "killing what runs"};
  struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
  int64_t signalled_ms = worker_now_ms() - SIGNAL_AGAIN_MS;
  bool given_up = false;
  while (atomic_load(&worker->alive) > 0) {
    if (sigtimedwait(signals, NULL, &tick) > 0 && atomic_load(&worker->stage) < WORKER_KILLING &&
        worker_now_ms() - signalled_ms >= SIGNAL_AGAIN_MS) {
      signalled_ms = worker_now_ms();
      set_stage(worker, (enum worker_stage)(atomic_load(&worker->stage) + 1));
      worker_warn(worker, "%s", remarks[atomic_load(&worker->stage)]);
    }
    if (atomic_load(&worker->stage) == WORKER_KILLING && !given_up &&
        (atomic_load(&worker->running) == 0 || worker_now_ms() - signalled_ms >= KILLING_MS)) {
      given_up = true;
      give_up(worker);
    }
    worker_show_bars(worker);
  }
  for (size_t i = 0; i < started; i++) {
    pthread_join(worker->slots[i].thread, NULL);
  }
  worker_clear_bars(worker);
}

int command_worker(struct tool *tool, int argc, char **argv) {
  (void)argc;
  (void)argv;
  struct worker *worker = calloc(1, sizeof *worker);
  if (worker == NULL) {
    tool_error("out of memory");
    return TOOL_FAILED;
  }
  char host[64] = "", name[96];
  gethostname(host, sizeof host - 1);
  snprintf(name, sizeof name, "%s-%ld", host, (long)getpid());
  worker->tool = tool;
  worker->command = tool_text(tool, "exec", NULL);
  worker->name = tool_text(tool, "worker", name);
  const char *root = tool_text(tool, "root", NULL);
  char *full_root = root != NULL ? realpath(root, NULL) : NULL;
  worker->root = full_root;
  worker->lease_ms = tool_number(tool, "lease", 0);
  worker->grace_ms = tool_number(tool, "grace", GRACE_MS_DEFAULT);
  worker->until_empty = tool_given(tool, "until-empty");
  worker->counted = tool_given(tool, "count");
  atomic_store(&worker->remaining, tool_number(tool, "count", 0));
  worker->slot_count = (size_t)tool_number(tool, "concurrency", 1);
  pthread_mutex_init(&worker->show_lock, NULL);
  pthread_mutex_init(&worker->stream_lock, NULL);
  pthread_cond_init(&worker->stream_changed, NULL);

  int status = take_queues(worker);
  if (status == TOOL_OK && worker->command == NULL) {
    tool_error("--exec is required");
    status = TOOL_USAGE;
  } else if (status == TOOL_OK && root != NULL && full_root == NULL) {
    tool_error("%s: %s", root, strerror(errno));
    status = TOOL_USAGE;
  }
  if (status == TOOL_OK) {
    /* Before the client, whose threads inherit the mask. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    worker->client = tool_client(tool);
    worker->lease_canceller = ringback_canceller_create();
    worker->call_canceller = ringback_canceller_create();
    /* A stream does not tell that there is nothing to lease. */
    bool poll = worker->until_empty || tool_given(tool, "poll");
    if (poll || worker_stream_start(worker)) {
      run_slots(worker, &signals);
      worker_stream_end(worker);
    } else {
      atomic_store(&worker->exit_status, TOOL_FAILED);
    }
    ringback_canceller_destroy(worker->call_canceller);
    ringback_canceller_destroy(worker->lease_canceller);
    status = atomic_load(&worker->exit_status);
    if (!tool->json) {
      printf("%lld succeeded, %lld failed, %lld stopped\n", (long long)atomic_load(&worker->succeeded),
             (long long)atomic_load(&worker->failed), (long long)atomic_load(&worker->stopped));
    }
  }
  pthread_cond_destroy(&worker->stream_changed);
  pthread_mutex_destroy(&worker->stream_lock);
  pthread_mutex_destroy(&worker->show_lock);
  free(full_root);
  free(worker);
  return status;
}
