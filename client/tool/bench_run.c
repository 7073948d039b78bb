/*
 * One run of the load generator under the tool: its settings from options, its line of progress, and its early end by a
 * signal.
 */
#include "client/tool/bench.h"
#include "client/tool/output.h"
#include "client/tool/values.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define BAR_WIDTH 20
#define TICKS_A_RATE 5 /* the rate and the latencies shown are those of half a second */
#define DRAIN_MS 30000
#define CALL_TIMEOUT_MS 30000
#define SIGNALS_PATIENT 3 /* as many end the process */

static volatile sig_atomic_t signals;

static void on_signal(int number) {
  if (++signals >= SIGNALS_PATIENT)
    _Exit(128 + number);
}

void bench_signals_take(void) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

bool bench_signals_came(void) {
  return signals > 0;
}

static bool has_option(const struct tool *tool, const char *name) {
  for (const struct option_row *row = tool->command->options; row->name != NULL; row++)
    if (strcmp(row->name, name) == 0)
      return true;
  return false;
}

static int64_t number(const struct tool *tool, const char *name, int64_t fallback) {
  return has_option(tool, name) ? tool_number(tool, name, fallback) : fallback;
}

void bench_settings_read(const struct tool *tool, const struct bench_settings *defaults,
                         struct bench_settings *settings) {
  *settings = *defaults;
  settings->in_flight = (unsigned)number(tool, "in-flight", defaults->in_flight);
  settings->batch = (unsigned)number(tool, "batch", defaults->batch);
  settings->workers = (unsigned)number(tool, "workers", defaults->workers);
  settings->credit = (unsigned)number(tool, "credit", defaults->credit);
  settings->connections = (unsigned)number(tool, "connections", defaults->connections);
  settings->threads = (unsigned)number(tool, "threads", defaults->threads);
  settings->priorities = (unsigned)number(tool, "priorities", defaults->priorities);
  settings->count = (uint64_t)number(tool, "count", (int64_t)defaults->count);
  settings->backlog = (uint64_t)number(tool, "backlog", (int64_t)defaults->backlog);
  settings->payload_bytes = (size_t)number(tool, "payload-bytes", (int64_t)defaults->payload_bytes);
  settings->rate = number(tool, "rate", defaults->rate);
  settings->duration_ms = number(tool, "duration", defaults->duration_ms);
  /* A run that is bounded by its jobs measures all of them. */
  settings->warm_up_ms = number(tool, "warm-up", settings->count > 0 ? 0 : defaults->warm_up_ms);
  settings->request_ids = has_option(tool, "request-ids") && tool_given(tool, "request-ids");
}

/* --- progress ---------------------------------------------------------------------------------------------------- */

static uint64_t items_of(const struct bench_run *run, const struct load_figures *figures) {
  return run->by_jobs ? figures->finished : figures->call_items;
}

static void look_at_rate(struct bench_run *run, struct load *load) {
  int64_t now_ns = load_now_ns();
  load_read(load, &run->latest);
  struct load_figures *since = &run->figures; /* free until the end */
  *since = run->latest;
  bool arrivals = run->by_jobs && histogram_count(&run->latest.arrival_ns) > 0;
  struct histogram *spans = arrivals ? &since->arrival_ns : &since->call_ns;
  histogram_subtract(spans, arrivals ? &run->before.arrival_ns : &run->before.call_ns);
  double seconds = (double)(now_ns - run->before_ns) / 1e9;
  run->rate_now = seconds <= 0 ? 0 : (double)(items_of(run, &run->latest) - items_of(run, &run->before)) / seconds;
  run->p50_now = histogram_percentile(spans, 0.5);
  run->p99_now = histogram_percentile(spans, 0.99);
  run->before = run->latest;
  run->before_ns = now_ns;
}

static int percent_of(const struct bench_run *run) {
  double by_time = (double)run->latest.elapsed_ns / 1e6 / (double)run->settings->duration_ms;
  double by_count = run->settings->count == 0 ? 0 : (double)items_of(run, &run->latest) / (double)run->settings->count;
  double part = by_time > by_count ? by_time : by_count;
  return part >= 1 ? 100 : (int)(part * 100);
}

static bool tick(void *context, struct load *load) {
  struct bench_run *run = context;
  static int signals_taken;
  if (run->tool->live && run->ticks++ % TICKS_A_RATE == 0)
    look_at_rate(run, load);
  if (run->tool->live && run->latest.elapsed_ns == 0) {
    output_progress(run->tool, "warming up");
  } else if (run->tool->live) {
    char bar[BAR_WIDTH + 16];
    output_bar(percent_of(run), BAR_WIDTH, bar, sizeof bar);
    output_progress(run->tool, "%s %s%.1f s  %.0f %s/s  p50 %.2f ms  p99 %.2f ms%s", bar,
                    run->filling != NULL ? run->filling : "", (double)run->latest.elapsed_ns / 1e9, run->rate_now,
                    run->unit, (double)run->p50_now / 1e6, (double)run->p99_now / 1e6,
                    run->latest.failed > 0 ? "  with errors" : "");
  }
  if (signals <= signals_taken)
    return true;
  signals_taken = signals;
  return false;
}

/* --- running ----------------------------------------------------------------------------------------------------- */

void bench_run_init(struct bench_run *run, struct tool *tool, const struct bench_settings *settings) {
  memset(run, 0, sizeof *run);
  run->tool = tool;
  run->settings = settings;
  run->unit = "jobs";
  struct load_options *options = &run->options;
  options->target = tool->server;
  options->connections = settings->connections;
  options->threads = settings->threads;
  options->warm_up_ms = settings->warm_up_ms;
  options->duration_ms = settings->duration_ms;
  options->timeout_ms = tool->timeout_ms > 0 ? tool->timeout_ms : CALL_TIMEOUT_MS;
  options->drain_ms = DRAIN_MS;
  options->context = run;
  options->tick = tick;
}

int bench_run_go(struct bench_run *run) {
  struct load *load = load_create(&run->options, &run->error);
  if (load == NULL) {
    run->end = LOAD_END_FAILED;
    return tool_call_failed(&run->error);
  }
  if (run->may_leave)
    run->options.drain_ms = 0;
  run->before_ns = load_now_ns();
  run->end = load_run(load, &run->drained, &run->error);
  output_progress_clear(run->tool);
  load_read(load, &run->figures);
  load_destroy(load);
  if (run->end == LOAD_END_FAILED)
    return tool_call_failed(&run->error);
  if (run->end == LOAD_END_STOPPED) {
    tool_error("interrupted; the results are those up to then");
    return TOOL_FAILED;
  }
  if (!run->drained && !run->may_leave) {
    tool_error("what was under way at the end did not end in time");
    return TOOL_FAILED;
  }
  return TOOL_OK;
}
