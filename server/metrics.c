/* What /metrics says: see metrics.h. */
#include "server/metrics.h"

#include <inttypes.h>

#include "server/rpc/errors.h"

static const struct {
  const char *name, *type, *help;
  size_t offset;
} rows[] = {
    {"ringback_calls_started_total", "counter", "Calls that arrived.", offsetof(struct metrics, rpc.calls_started)},
    {"ringback_calls_refused_total", "counter", "Calls refused because of --calls-max.",
     offsetof(struct metrics, rpc.calls_refused)},
    {"ringback_calls_in_hand", "gauge", "Calls not yet answered.", offsetof(struct metrics, rpc.calls_in_hand)},
    {"ringback_calls_parked", "gauge", "Calls that wait for a job or a change.",
     offsetof(struct metrics, rpc.calls_parked)},
    {"ringback_event_batches_total", "counter", "Batches of events that the RPC threads took.",
     offsetof(struct metrics, rpc.batches)},
    {"ringback_events_total", "counter", "Events in them.", offsetof(struct metrics, rpc.batch_events)},
    {"ringback_store_failures_total", "counter", "Store calls that Redis did not answer.",
     offsetof(struct metrics, store.failures)},
    {"ringback_store_reconnects_total", "counter", "Connections to Redis made again.",
     offsetof(struct metrics, store.reconnects)},
    {"ringback_store_merged_calls_max", "gauge", "The most store calls that were merged into one command.",
     offsetof(struct metrics, store.batch_max)},
    {"ringback_callbacks_in_hand", "gauge", "Deliveries being sent.", offsetof(struct metrics, dispatcher.in_flight)},
    {"ringback_callbacks_claimed_total", "counter", "Deliveries taken from the outbox.",
     offsetof(struct metrics, dispatcher.claimed)},
    {"ringback_callbacks_attempts_total", "counter", "Callback requests that came to an end.",
     offsetof(struct metrics, dispatcher.attempts)},
    {"ringback_callbacks_attempt_ms_total", "counter", "Their durations together, in milliseconds.",
     offsetof(struct metrics, dispatcher.attempt_ms)},
    {"ringback_callbacks_delivered_total", "counter", "Deliveries that the receiver accepted.",
     offsetof(struct metrics, dispatcher.delivered)},
    {"ringback_callbacks_retried_total", "counter", "Failed attempts that will be tried again.",
     offsetof(struct metrics, dispatcher.retried)},
    {"ringback_callbacks_dead_total", "counter", "Deliveries given up.", offsetof(struct metrics, dispatcher.dead)},
    {"ringback_callbacks_dropped_total", "counter", "Claims lost or abandoned; they come back.",
     offsetof(struct metrics, dispatcher.dropped)},
    {"ringback_callbacks_breakers_opened_total", "counter",
     "Endpoints left alone for a while because they only failed.",
     offsetof(struct metrics, dispatcher.breakers_opened)},
    {"ringback_callbacks_breakers_closed_total", "counter", "Endpoints that accepted callbacks again.",
     offsetof(struct metrics, dispatcher.breakers_closed)},
    {"ringback_callbacks_loop_turns_total", "counter", "Turns of the dispatcher's loop.",
     offsetof(struct metrics, dispatcher.turns)},
    {"ringback_callbacks_loop_turn_us_max", "gauge", "Its longest turn since the start, in microseconds.",
     offsetof(struct metrics, dispatcher.turn_us_max)},
    {"ringback_callbacks_loop_turn_cpu_us_max", "gauge", "The most processor time that a turn took, in microseconds.",
     offsetof(struct metrics, dispatcher.turn_cpu_us_max)},
    {"ringback_callbacks_loop_stalls_total", "counter", "Its turns that took longer than 50 ms.",
     offsetof(struct metrics, dispatcher.stalls)},
    {"ringback_sweep_slices_total", "counter", "Slices of upkeep done.", offsetof(struct metrics, sweep_slices)},
    {"ringback_sweep_changes_total", "counter", "Changes made by them.", offsetof(struct metrics, sweep_changes)},
    {"ringback_callbacks_repaired_total", "counter", "Callbacks that were put back to where Redis had lost them from.",
     offsetof(struct metrics, repairs)},
    {"ringback_notifications_total", "counter", "Notifications received from Redis.",
     offsetof(struct metrics, notifications)},
    {"ringback_redis_restarts_total", "counter", "Times the server's own Redis was started again.",
     offsetof(struct metrics, redis_restarts)},
    {"ringback_redis_up", "gauge", "Whether Redis answers.", offsetof(struct metrics, redis_up)},
};

/* Upper bounds of store_metrics.batch_sizes; the last is open. */
static const unsigned merged_bounds[] = {1, 2, 4, 8, 16, 32, 64};
enum { MERGED_BOUNDS = sizeof merged_bounds / sizeof merged_bounds[0] };

_Static_assert(MERGED_BOUNDS + 1 == sizeof((struct store_metrics *)0)->batch_sizes / sizeof(uint64_t),
               "one bound a size");

void metrics_add_store(struct store_metrics *sum, const struct store_metrics *part) {
  sum->calls += part->calls;
  sum->commands += part->commands;
  sum->failures += part->failures;
  sum->reconnects += part->reconnects;
  if (part->batch_max > sum->batch_max)
    sum->batch_max = part->batch_max;
  for (size_t i = 0; i <= MERGED_BOUNDS; i++)
    sum->batch_sizes[i] += part->batch_sizes[i];
}

static void write_head(FILE *file, const char *name, const char *type, const char *help) {
  fprintf(file, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_codes(const struct rpc_metrics *rpc, FILE *file) {
  write_head(file, "ringback_calls_ended_total", "counter", "Calls that ended, by code.");
  for (int code = 0; code < (int)(sizeof rpc->codes / sizeof rpc->codes[0]); code++)
    fprintf(file, "ringback_calls_ended_total{code=\"%s\"} %" PRIu64 "\n", rpc_code_name(code), rpc->codes[code]);
}

static void write_callback_errors(const struct dispatcher_metrics *dispatcher, FILE *file) {
  write_head(file, "ringback_callbacks_errors_total", "counter",
             "Failed attempts by class, and as too_old what was given up for its age.");
  for (int error = CALLBACK_ERROR_NONE + 1; error < CALLBACK_ERROR_COUNT; error++)
    fprintf(file, "ringback_callbacks_errors_total{class=\"%s\"} %" PRIu64 "\n",
            callback_error_name((enum callback_error)error), dispatcher->errors[error]);
}

static void write_merged(const struct store_metrics *store, FILE *file) {
  static const char name[] = "ringback_store_merged_calls";
  uint64_t commands = 0;
  write_head(file, name, "histogram", "How many store calls were merged into one Redis command.");
  for (size_t i = 0; i < MERGED_BOUNDS; i++) {
    commands += store->batch_sizes[i];
    fprintf(file, "%s_bucket{le=\"%u\"} %" PRIu64 "\n", name, merged_bounds[i], commands);
  }
  commands += store->batch_sizes[MERGED_BOUNDS];
  fprintf(file, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %" PRIu64 "\n%s_count %" PRIu64 "\n", name, commands, name,
          store->calls, name, commands);
}

void metrics_write(const struct metrics *metrics, FILE *file) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const uint64_t *value = (const uint64_t *)(const void *)((const char *)metrics + rows[i].offset);
    write_head(file, rows[i].name, rows[i].type, rows[i].help);
    fprintf(file, "%s %" PRIu64 "\n", rows[i].name, *value);
  }
  write_codes(&metrics->rpc, file);
  write_merged(&metrics->store, file);
  write_callback_errors(&metrics->dispatcher, file);
  write_head(file, "ringback_build_info", "gauge", "The version.");
  fprintf(file, "ringback_build_info{version=\"%s\"} 1\n", RINGBACK_VERSION);
}
