/*
 * What a bench run has measured, as tables for people or as one JSON object. Latencies are in milliseconds in both; a
 * row of the histogram holds what was longer than the row before says and no longer than this one.
 */
#include "client/tool/bench.h"
#include "client/tool/json.h"
#include "client/tool/output.h"
#include <stdlib.h>
#include <string.h>

#define BAR_WIDTH 40
#define STEPS_MAX 64
#define NS_PER_MS 1e6

static const struct {
  const char *heading, *name;
  double part;
} percentiles[] = {
    {">P50", "p50", 0.5},  {">P75", "p75", 0.75},     {">P90", "p90", 0.9},         {">P95", "p95", 0.95},
    {">P99", "p99", 0.99}, {">P99.9", "p999", 0.999}, {">P99.99", "p9999", 0.9999},
};
#define PERCENTILES (sizeof percentiles / sizeof *percentiles)

static const char *milliseconds(double ns, char text[32]) {
  double ms = ns / NS_PER_MS;
  snprintf(text, 32, ms < 10 ? "%.3f" : ms < 1000 ? "%.1f" : "%.0f", ms);
  return text;
}

static double seconds_of(const struct bench_run *run) {
  return (double)run->figures.elapsed_ns / 1e9;
}

static uint64_t items_of(const struct bench_run *run) {
  return run->by_jobs ? run->figures.finished : run->figures.call_items;
}

static double a_second(const struct bench_run *run, uint64_t count) {
  return run->figures.elapsed_ns <= 0 ? 0 : (double)count / seconds_of(run);
}

/* The rows of a histogram for people: 1, 1.5, 2, 3, 5, 7, 10 and so on. */
struct step {
  uint64_t up_to_ns, count;
};

static size_t steps_of(const struct histogram *spans, struct step steps[STEPS_MAX]) {
  static const double series[] = {1, 1.5, 2, 3, 5, 7};
  size_t count = 0, next = 0;
  double decade = 1000; /* ns */
  unsigned bucket = 0;
  uint64_t most = histogram_most(spans);
  if (histogram_count(spans) == 0)
    return 0;
  while (count < STEPS_MAX) {
    uint64_t up_to = (uint64_t)(series[next] * decade), inside = 0;
    for (; bucket < HISTOGRAM_BUCKETS && histogram_bucket_end(bucket) <= up_to; bucket++)
      inside += spans->counts[bucket];
    if (count > 0 || inside > 0)
      steps[count++] = (struct step){up_to, inside};
    if (up_to >= most && bucket < HISTOGRAM_BUCKETS) {
      /* What lies in the bucket that the last edge cuts. */
      for (uint64_t rest = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        rest += spans->counts[bucket];
        if (count > 0 && bucket + 1 == HISTOGRAM_BUCKETS)
          steps[count - 1].count += rest;
      }
      break;
    }
    next = (next + 1) % (sizeof series / sizeof *series);
    decade *= next == 0 ? 10 : 1;
  }
  return count;
}

/* --- for people -------------------------------------------------------------------------------------------------- */

static void show_latency_row(struct table *table, const char *name, const struct histogram *spans) {
  char texts[PERCENTILES][32], mean[32], most[32];
  if (histogram_count(spans) == 0)
    return;
  for (size_t i = 0; i < PERCENTILES; i++)
    milliseconds((double)histogram_percentile(spans, percentiles[i].part), texts[i]);
  milliseconds(histogram_mean(spans), mean);
  milliseconds((double)histogram_most(spans), most);
  table_add(table, name, mean, texts[0], texts[1], texts[2], texts[3], texts[4], texts[5], texts[6], most);
}

static void show_histogram(const char *name, const struct histogram *spans) {
  struct step steps[STEPS_MAX];
  size_t count = steps_of(spans, steps);
  uint64_t largest = 1, all = histogram_count(spans);
  for (size_t i = 0; i < count; i++)
    largest = steps[i].count > largest ? steps[i].count : largest;
  if (count == 0)
    return;
  printf("\n%s\n", name);
  for (size_t i = 0; i < count; i++) {
    char bar[BAR_WIDTH + 1];
    size_t width = (size_t)((double)steps[i].count / (double)largest * BAR_WIDTH + 0.5);
    memset(bar, '#', width);
    bar[width] = '\0';
    printf("  up to %8.3g ms %6.2f %%  %s\n", (double)steps[i].up_to_ns / NS_PER_MS,
           100.0 * (double)steps[i].count / (double)all, bar);
  }
}

static void show_errors(const struct bench_run *run) {
  if (run->figures.failed == 0)
    return;
  for (int code = 1; code < LOAD_CODES; code++)
    if (run->figures.codes[code] > 0)
      output_field(run->tool, "Failed", "%llu calls %s", (unsigned long long)run->figures.codes[code],
                   ringback_code_name(code));
  output_field(run->tool, "The first", "%s", run->error.message);
}

static void show_ledger(struct tool *tool, const struct bench_ledger *ledger, bool good) {
  if (ledger->again > 0)
    output_field(tool, "Came again", "%llu jobs", (unsigned long long)ledger->again);
  if (ledger->lost + ledger->twice + ledger->unconfirmed > 0)
    output_field(tool, "Wrong", "%llu jobs never finished, %llu finished twice, %llu outcomes refused",
                 (unsigned long long)ledger->lost, (unsigned long long)ledger->twice,
                 (unsigned long long)ledger->unconfirmed);
  if (good)
    output_field(tool, "Checked", "each of %llu jobs was finished exactly once", (unsigned long long)ledger->finished);
}

static const char *call_label(const struct bench_run *run) {
  return run->options.calls.items > 1 ? "call" : run->by_jobs ? "submit" : "call";
}

static void show_callbacks(struct tool *tool, const struct bench_callbacks *callbacks) {
  if (callbacks->ended)
    output_field(tool, "Callbacks", "the last one ended %.2f s after the run", callbacks->seconds);
  else
    output_field(tool, "Callbacks", "not all ended within %.2f s after the run", callbacks->seconds);
}

static void show(const struct bench_run *run, const struct bench_ledger *ledger, bool good,
                 const struct bench_callbacks *callbacks) {
  static const char *const headings[] = {"MILLISECONDS", ">MEAN", ">P50",   ">P75",    ">P90",
                                         ">P95",         ">P99",  ">P99.9", ">P99.99", ">MAX"};
  struct tool *tool = run->tool;
  const struct load_figures *figures = &run->figures;
  uint64_t items = items_of(run);
  output_field(tool, "Rate", "%.0f %s/s", a_second(run, items), run->unit);
  if (run->options.calls.in_flight > 0 && figures->call_items != figures->calls)
    output_field(tool, "Calls", "%.0f calls/s", a_second(run, figures->calls));
  output_field(tool, "Measured", "%llu %s in %.2f s", (unsigned long long)items, run->unit, seconds_of(run));
  if (items > 0)
    output_field(tool, "CPU of this", "%.1f µs of each of the %s, %.2f cores",
                 (double)figures->cpu_ns / 1e3 / (double)items, run->unit,
                 figures->elapsed_ns <= 0 ? 0 : (double)figures->cpu_ns / (double)figures->elapsed_ns);
  if (figures->messages > 0)
    output_field(tool, "Messages", "%.1f jobs in each that brought jobs",
                 (double)figures->arrived / (double)figures->messages);
  show_errors(run);
  if (ledger != NULL)
    show_ledger(tool, ledger, good);
  if (callbacks != NULL)
    show_callbacks(tool, callbacks);
  putchar('\n');
  struct table *table = table_create(10, headings);
  show_latency_row(table, call_label(run), &figures->call_ns);
  show_latency_row(table, "submit to worker", &figures->arrival_ns);
  table_print(tool, table, true);
  bool arrivals = histogram_count(&figures->arrival_ns) > 0;
  show_histogram(arrivals ? "submit to worker" : call_label(run), arrivals ? &figures->arrival_ns : &figures->call_ns);
}

/* --- as JSON ----------------------------------------------------------------------------------------------------- */

static json_t *json_of_spans(const struct histogram *spans) {
  if (histogram_count(spans) == 0)
    return json_null();
  json_t *object = json_object();
  json_object_set_new(object, "count", json_integer((json_int_t)histogram_count(spans)));
  json_object_set_new(object, "mean", json_real(histogram_mean(spans) / NS_PER_MS));
  json_object_set_new(object, "min", json_real((double)histogram_least(spans) / NS_PER_MS));
  for (size_t i = 0; i < PERCENTILES; i++)
    json_object_set_new(object, percentiles[i].name,
                        json_real((double)histogram_percentile(spans, percentiles[i].part) / NS_PER_MS));
  json_object_set_new(object, "max", json_real((double)histogram_most(spans) / NS_PER_MS));
  struct step steps[STEPS_MAX];
  size_t count = steps_of(spans, steps);
  json_t *rows = json_array();
  for (size_t i = 0; i < count; i++)
    json_array_append_new(rows, json_pack("{s:f,s:I}", "upTo", (double)steps[i].up_to_ns / NS_PER_MS, "count",
                                          (json_int_t)steps[i].count));
  json_object_set_new(object, "histogram", rows);
  return object;
}

static json_t *json_of_settings(const struct bench_run *run) {
  const struct bench_settings *settings = run->settings;
  return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b}", "inFlight",
                   (json_int_t)run->options.calls.in_flight, "batch", (json_int_t)settings->batch, "rate",
                   (json_int_t)settings->rate, "workers", (json_int_t)run->options.streams.count, "credit",
                   (json_int_t)settings->credit, "connections", (json_int_t)settings->connections, "threads",
                   (json_int_t)settings->threads, "payloadBytes", (json_int_t)settings->payload_bytes, "priorities",
                   (json_int_t)settings->priorities, "backlog", (json_int_t)settings->backlog, "warmUpMs",
                   (json_int_t)settings->warm_up_ms, "requestIds", (int)settings->request_ids);
}

static json_t *json_of_errors(const struct bench_run *run) {
  json_t *errors = json_object();
  for (int code = 1; code < LOAD_CODES; code++)
    if (run->figures.codes[code] > 0)
      json_object_set_new(errors, ringback_code_name(code), json_integer((json_int_t)run->figures.codes[code]));
  return errors;
}

static json_t *json_of_ledger(const struct bench_ledger *ledger, bool good) {
  return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b}", "accepted", (json_int_t)ledger->accepted, "unknown",
                   (json_int_t)ledger->unknown, "finished", (json_int_t)ledger->finished, "cameAgain",
                   (json_int_t)ledger->again, "finishedTwice", (json_int_t)ledger->twice, "lost",
                   (json_int_t)ledger->lost, "refused", (json_int_t)ledger->unconfirmed, "exactlyOnce", (int)good);
}

static json_t *json_of_callbacks(const struct bench_callbacks *callbacks) {
  return json_pack("{s:b,s:f,s:o}", "ended", (int)callbacks->ended, "seconds", callbacks->seconds, "undelivered",
                   callbacks->undelivered < 0 ? json_null() : json_integer((json_int_t)callbacks->undelivered));
}

static void show_json(const struct bench_run *run, const char *queue, const struct bench_ledger *ledger, bool good,
                      const struct bench_callbacks *callbacks) {
  static const char *const ends[] = {"time", "count", "interrupted", "failed"};
  const struct load_figures *figures = &run->figures;
  uint64_t items = items_of(run), ended = figures->calls + figures->failed;
  json_t *root = json_object();
  json_object_set_new(root, "command", json_string(run->tool->command->name));
  json_object_set_new(root, "queue", queue == NULL ? json_null() : json_of_text(queue));
  json_object_set_new(root, "settings", json_of_settings(run));
  json_object_set_new(root, "end", json_string(ends[run->end]));
  json_object_set_new(root, "seconds", json_real(seconds_of(run)));
  json_object_set_new(root, run->unit, json_integer((json_int_t)items));
  json_object_set_new(root, "perSecond", json_real(a_second(run, items)));
  json_object_set_new(root, "calls", json_integer((json_int_t)figures->calls));
  json_object_set_new(root, "callsPerSecond", json_real(a_second(run, figures->calls)));
  json_object_set_new(root, "failedCalls", json_integer((json_int_t)figures->failed));
  json_object_set_new(root, "errors", json_of_errors(run));
  json_object_set_new(root, "requestBytes", json_real(ended == 0 ? 0 : (double)figures->request_bytes / (double)ended));
  json_object_set_new(root, "responseBytes",
                      json_real(figures->calls == 0 ? 0 : (double)figures->response_bytes / (double)figures->calls));
  json_object_set_new(root, "arrived", json_integer((json_int_t)figures->arrived));
  json_object_set_new(root, "messages", json_integer((json_int_t)figures->messages));
  json_object_set_new(root, "cpuSeconds", json_real((double)figures->cpu_ns / 1e9));
  json_object_set_new(root, "callMs", json_of_spans(&figures->call_ns));
  json_object_set_new(root, "submitToWorkerMs", json_of_spans(&figures->arrival_ns));
  json_object_set_new(root, "ledger", ledger == NULL ? json_null() : json_of_ledger(ledger, good));
  json_object_set_new(root, "callbacks", callbacks == NULL ? json_null() : json_of_callbacks(callbacks));
  json_print(root);
}

void bench_report(const struct bench_run *run, const char *queue, const struct bench_ledger *ledger, bool good,
                  const struct bench_callbacks *callbacks) {
  if (run->tool->json)
    show_json(run, queue, ledger, good, callbacks);
  else
    show(run, ledger, good, callbacks);
}
