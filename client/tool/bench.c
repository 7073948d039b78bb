/*
 * `ringback bench`: loads a running server and measures it. Each command says first what it will do, on standard error,
 * works on a queue of its own unless one is named, and ends by itself.
 */
#include "client/tool/bench.h"
#include "client/tool/output.h"
#include "client/tool/values.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define DURATION_MAX_MS (24 * 3600 * 1000)
#define CALLBACK_WAIT_MS (120 * 1000)
#define FILL_BATCH 250
#define FILL_IN_FLIGHT 4
#define FILL_MS (600 * 1000)

#define COMMON_OPTIONS                                                                                                 \
  {.name = "queue",                                                                                                    \
   .letter = 'q',                                                                                                      \
   .kind = OPTION_QUEUE,                                                                                               \
   .value = "QUEUE",                                                                                                   \
   .help = "use this queue and leave it; else one is made and deleted at the end"},                                    \
      {.name = "duration",                                                                                             \
       .letter = 'd',                                                                                                  \
       .kind = OPTION_DURATION,                                                                                        \
       .value = "DURATION",                                                                                            \
       .help = "how long to measure, at most (10s)",                                                                   \
       .low = 1,                                                                                                       \
       .high = DURATION_MAX_MS},                                                                                       \
      {.name = "payload-bytes",                                                                                        \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "size of a job's operation (300)",                                                                      \
       .low = BENCH_PAYLOAD_BYTES_MIN,                                                                                 \
       .high = 1 << 20},                                                                                               \
      {.name = "priorities",                                                                                           \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "spread the jobs over N priorities, 0 to N-1 in turn (1)",                                              \
       .low = 1,                                                                                                       \
       .high = 256},                                                                                                   \
      {.name = "connections",                                                                                          \
       .letter = 'c',                                                                                                  \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "connections for calls, and as many for workers (4)",                                                   \
       .low = 1,                                                                                                       \
       .high = LOAD_CONNECTIONS_MAX},                                                                                  \
  {                                                                                                                    \
    .name = "threads", .kind = OPTION_INTEGER, .value = "N", .help = "threads of this program (1)", .low = 1,          \
    .high = LOAD_THREADS_MAX                                                                                           \
  }

#define WARM_UP_OPTION                                                                                                 \
  {                                                                                                                    \
    .name = "warm-up", .kind = OPTION_DURATION, .value = "DURATION",                                                   \
    .help = "how long to run before measuring (1s; with --count not at all)", .low = 0, .high = DURATION_MAX_MS        \
  }
#define COUNT_OPTION                                                                                                   \
  {                                                                                                                    \
    .name = "count", .letter = 'n', .kind = OPTION_INTEGER, .value = "N",                                              \
    .help = "end after N jobs, warm-up included", .low = 1, .high = BENCH_NUMBERS_MAX                                  \
  }
#define IN_FLIGHT_OPTION                                                                                               \
  {                                                                                                                    \
    .name = "in-flight", .kind = OPTION_INTEGER, .value = "N", .help = "calls under way at once (64; 4 in cycle)",     \
    .low = 1, .high = LOAD_IN_FLIGHT_MAX                                                                               \
  }
#define BATCH_OPTION                                                                                                   \
  {                                                                                                                    \
    .name = "batch", .kind = OPTION_INTEGER, .value = "N",                                                             \
    .help = "jobs of one call: above 1 by SubmitJobs (1; 100 in cycle)", .low = 1, .high = 250                         \
  }
#define RATE_OPTION                                                                                                    \
  {                                                                                                                    \
    .name = "rate", .kind = OPTION_INTEGER, .value = "N",                                                              \
    .help = "start N calls a second, whether or not earlier ones have ended; latency counts from when they were due",  \
    .low = 1, .high = 10000000                                                                                         \
  }
#define REQUEST_IDS_OPTION                                                                                             \
  { .name = "request-ids", .kind = OPTION_FLAG, .help = "give every call a request_id, as clients that repeat do" }
#define WORKERS_OPTION                                                                                                 \
  {                                                                                                                    \
    .name = "workers", .letter = 'w', .kind = OPTION_INTEGER, .value = "N", .help = "Work streams (4; 1 in latency)",  \
    .low = 1, .high = LOAD_STREAMS_MAX                                                                                 \
  }
#define CREDIT_OPTION                                                                                                  \
  {                                                                                                                    \
    .name = "credit", .kind = OPTION_INTEGER, .value = "N", .help = "jobs that a worker may hold (250)", .low = 1,     \
    .high = 1000                                                                                                       \
  }

const struct option_row bench_submit_options[] = {
    IN_FLIGHT_OPTION, BATCH_OPTION,   RATE_OPTION,    REQUEST_IDS_OPTION,
    COUNT_OPTION,     WARM_UP_OPTION, COMMON_OPTIONS, {.name = NULL},
};

const struct option_row bench_work_options[] = {
    {.name = "count",
     .letter = 'n',
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "how many jobs to submit first (100000)",
     .low = 1,
     .high = BENCH_NUMBERS_MAX},
    WORKERS_OPTION,
    CREDIT_OPTION,
    COMMON_OPTIONS,
    {.name = NULL},
};

const struct option_row bench_cycle_options[] = {
    IN_FLIGHT_OPTION,
    BATCH_OPTION,
    WORKERS_OPTION,
    CREDIT_OPTION,
    {.name = "backlog",
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "submit no more while so many jobs are not yet finished (10000)",
     .low = 1,
     .high = BENCH_NUMBERS_MAX},
    RATE_OPTION,
    REQUEST_IDS_OPTION,
    {.name = "callback-url",
     .kind = OPTION_TEXT,
     .value = "URL",
     .help = "every job that ends calls back there; the figures are those of the jobs alone"},
    {.name = "callback-wait",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "how long to wait, once the jobs are finished, for the callbacks to end (2m); those that have not by "
             "then are dropped with the queue. 0s: not at all",
     .high = DURATION_MAX_MS},
    COUNT_OPTION,
    WARM_UP_OPTION,
    COMMON_OPTIONS,
    {.name = NULL},
};

const struct option_row bench_latency_options[] = {
    {.name = "rate",
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "submit N jobs a second by the clock; without it the next one when the last is finished",
     .low = 1,
     .high = 10000000},
    WORKERS_OPTION,
    CREDIT_OPTION,
    REQUEST_IDS_OPTION,
    COUNT_OPTION,
    WARM_UP_OPTION,
    COMMON_OPTIONS,
    {.name = NULL},
};

const char bench_description[] =
    "The load comes from this program, over connections and Work streams of its own, to a queue that is made for the "
    "run "
    "and\n"
    "deleted at its end, also when SIGINT or SIGTERM ends it early (what was measured until then is shown, and the "
    "exit "
    "status\n"
    "is 1; a second signal does not wait for jobs under way). With --queue the named queue is used and left as it is "
    "then: where\n"
    "workers run it must be empty, and a job that is not of this run ends the run without being touched.\n"
    "Where workers run, every job is followed by its number: the exit status is 1 unless each that was submitted has "
    "been\n"
    "finished exactly once, and also when a call failed, or when a callback that was waited for was not delivered.";

/* What every command has in common until its run begins. */
struct bench {
  struct tool *tool;
  struct bench_settings settings;
  struct bench_queue queue;
  struct bench_jobs *jobs;
  int64_t callback_wait_ms; /* 0: none are waited for */
};

static void say(const struct bench *bench, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* On standard error, for people only. */
static void say(const struct bench *bench, const char *format, ...) {
  if (bench->tool->json)
    return;
  char duration[VALUE_TEXT_BYTES], warm_up[VALUE_TEXT_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  value_show_duration(bench->settings.duration_ms, duration);
  value_show_duration(bench->settings.warm_up_ms, warm_up);
  fprintf(stderr, ", for at most %s%s%s%s,\non %s of %s%s\n", duration, bench->settings.warm_up_ms > 0 ? " after " : "",
          bench->settings.warm_up_ms > 0 ? warm_up : "", bench->settings.warm_up_ms > 0 ? " of warm-up" : "",
          bench->queue.name, bench->tool->server, bench->queue.own ? " (deleted at the end)" : "");
}

static int bench_open(struct bench *bench, struct tool *tool, const struct bench_settings *defaults, bool works,
                      const char *callback_url) {
  *bench = (struct bench){.tool = tool};
  bench_settings_read(tool, defaults, &bench->settings);
  tool_client(tool); /* checks the address before anything is made */
  bench_signals_take();
  int status = bench_queue_open(tool, tool_text(tool, "queue", NULL), works, callback_url, &bench->queue);
  if (status != TOOL_OK)
    return status;
  bench->jobs = bench_jobs_create(bench->queue.name, &bench->settings);
  if (bench->jobs != NULL)
    return TOOL_OK;
  tool_error("out of memory");
  bench_queue_close(tool, &bench->queue);
  return TOOL_FAILED;
}

static struct bench_run *run_open(struct bench *bench) {
  struct bench_run *run = malloc(sizeof *run);
  if (run != NULL)
    bench_run_init(run, bench->tool, &bench->settings);
  else
    tool_error("out of memory");
  return run;
}

/* Reports, checks, removes what was made; returns the exit status. */
static int bench_close(struct bench *bench, struct bench_run *run, int status, bool works) {
  struct bench_ledger ledger;
  struct bench_callbacks callbacks;
  if (run != NULL && bench->jobs != NULL && (run->end != LOAD_END_FAILED || run->figures.elapsed_ns > 0)) {
    bool good = true;
    if (works) {
      bench_jobs_ledger(bench->jobs, &ledger);
      bool left = run->may_leave && run->end == LOAD_END_TIME;
      good = ledger.twice + ledger.unconfirmed == 0 && (left || (ledger.lost == 0 && run->drained));
      if (good && !left && status == TOOL_OK)
        good = bench_queue_check(bench->tool, &bench->queue, &ledger);
    }
    bool waits = bench->callback_wait_ms > 0 && status == TOOL_OK;
    if (waits && !bench_callbacks_wait(bench->tool, &bench->queue, bench->callback_wait_ms, &callbacks))
      status = TOOL_FAILED;
    bench_report(run, bench->queue.name, works ? &ledger : NULL, good, waits ? &callbacks : NULL);
    if (run->figures.failed + run->figures.finish_failed > 0 || !good)
      status = status == TOOL_OK ? TOOL_FAILED : status;
  }
  bench_queue_close(bench->tool, &bench->queue);
  bench_jobs_destroy(bench->jobs);
  free(run);
  return status;
}

static void set_calls(struct bench *bench, struct bench_run *run) {
  bench_jobs_calls(bench->jobs, &run->options.calls);
  run->options.calls.in_flight = bench->settings.in_flight;
  run->options.calls.rate = (double)bench->settings.rate;
}

static void set_streams(struct bench *bench, struct bench_run *run) {
  bench_jobs_streams(bench->jobs, &run->options.streams);
  run->options.streams.count = bench->settings.workers;
  run->options.streams.credit = bench->settings.credit;
  run->options.streams.queue = bench->queue.name;
  run->by_jobs = true;
}

const struct bench_settings bench_settings_default = {
    .in_flight = 64,
    .batch = 1,
    .workers = 4,
    .credit = 250,
    .connections = 4,
    .threads = 1,
    .priorities = 1,
    .payload_bytes = 300,
    .duration_ms = 10000,
    .warm_up_ms = 1000,
};

int command_bench_submit(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  struct bench bench;
  struct bench_run *run = NULL;
  int status = bench_open(&bench, tool, &bench_settings_default, false, NULL);
  if (status != TOOL_OK)
    return status;
  const struct bench_settings *settings = &bench.settings;
  if ((run = run_open(&bench)) == NULL)
    return bench_close(&bench, run, TOOL_FAILED, false);
  set_calls(&bench, run);
  say(&bench, "submits jobs of %zu bytes, %u a call, %u calls in flight over %u connections", settings->payload_bytes,
      settings->batch, settings->in_flight, settings->connections);
  status = bench_run_go(run);
  return bench_close(&bench, run, status, false);
}

/* Submits the jobs that are then worked on. */
static int fill(struct bench *bench) {
  struct bench_settings settings = bench->settings;
  settings.duration_ms = FILL_MS;
  settings.warm_up_ms = 0;
  struct bench_run *run = run_open(bench);
  if (run == NULL)
    return TOOL_FAILED;
  run->settings = &settings;
  run->options.duration_ms = settings.duration_ms;
  run->filling = "submitting first  ";
  set_calls(bench, run);
  int status = bench_run_go(run);
  if (status == TOOL_OK && (run->figures.failed > 0 || run->end != LOAD_END_COUNT)) {
    tool_error("the jobs to work on could not all be submitted: %s",
               run->error.code != RINGBACK_OK ? run->error.message : "time is up");
    status = TOOL_FAILED;
  }
  free(run);
  return status;
}

int command_bench_work(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  struct bench_settings defaults = bench_settings_default;
  defaults.count = 100000;
  defaults.batch = FILL_BATCH;
  defaults.in_flight = FILL_IN_FLIGHT;
  defaults.warm_up_ms = 0;
  struct bench bench;
  struct bench_run *run = NULL;
  int status = bench_open(&bench, tool, &defaults, true, NULL);
  if (status != TOOL_OK)
    return status;
  const struct bench_settings *settings = &bench.settings;
  say(&bench, "submits %llu jobs of %zu bytes, then finishes them over %u Work streams of credit %u",
      (unsigned long long)settings->count, settings->payload_bytes, settings->workers, settings->credit);
  status = fill(&bench);
  if (status == TOOL_OK && (run = run_open(&bench)) != NULL) {
    set_streams(&bench, run);
    run->may_leave = true;
    status = bench_run_go(run);
  }
  return bench_close(&bench, run, status, true);
}

int command_bench_cycle(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  struct bench_settings defaults = bench_settings_default;
  defaults.in_flight = 4;
  defaults.batch = 100;
  defaults.backlog = 10000;
  struct bench bench;
  struct bench_run *run = NULL;
  const char *callback_url = tool_text(tool, "callback-url", NULL);
  if (callback_url == NULL && tool_given(tool, "callback-wait")) {
    tool_error("--callback-wait is given without --callback-url");
    return TOOL_USAGE;
  }
  int status = bench_open(&bench, tool, &defaults, true, callback_url);
  if (status != TOOL_OK)
    return status;
  if (callback_url != NULL)
    bench.callback_wait_ms = tool_number(tool, "callback-wait", CALLBACK_WAIT_MS);
  const struct bench_settings *settings = &bench.settings;
  if ((run = run_open(&bench)) == NULL)
    return bench_close(&bench, run, TOOL_FAILED, true);
  set_calls(&bench, run);
  set_streams(&bench, run);
  say(&bench,
      "submits jobs of %zu bytes, %u a call, %u calls in flight, and finishes them over %u Work streams of credit %u",
      settings->payload_bytes, settings->batch, settings->in_flight, settings->workers, settings->credit);
  status = bench_run_go(run);
  return bench_close(&bench, run, status, true);
}

int command_bench_latency(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  struct bench_settings defaults = bench_settings_default;
  bool idle = !tool_given(tool, "rate");
  defaults.workers = 1;
  defaults.in_flight = idle ? 1 : 64;
  defaults.backlog = idle ? 1 : 0;
  struct bench bench;
  struct bench_run *run = NULL;
  int status = bench_open(&bench, tool, &defaults, true, NULL);
  if (status != TOOL_OK)
    return status;
  const struct bench_settings *settings = &bench.settings;
  if ((run = run_open(&bench)) == NULL)
    return bench_close(&bench, run, TOOL_FAILED, true);
  set_calls(&bench, run);
  set_streams(&bench, run);
  if (idle)
    say(&bench, "submits one job of %zu bytes at a time to %u waiting workers", settings->payload_bytes,
        settings->workers);
  else
    say(&bench, "submits %lld jobs of %zu bytes a second to %u workers", (long long)settings->rate,
        settings->payload_bytes, settings->workers);
  status = bench_run_go(run);
  return bench_close(&bench, run, status, true);
}
