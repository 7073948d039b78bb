/* The sweeper: see sweeper.h. */
#include "server/sweeper.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/base/log.h"

enum {
  LOOK_MS_MAX = 100, /* a timer set meanwhile is late by this at most */
  ANSWER_MS_MAX = 1000,
  REPAIR_MS = 100, /* at least between two slices of the repair: a thousand deliveries a second */
  SLICES_MAX = 64, /* in a row, before the next look and the next slice of the repair */
};

struct sweeper {
  struct store *store;
  pthread_t thread;
  int stop_fd;
  void (*changed)(void *context, bool answers);
  void *context;
  int64_t wait_ms; /* until the next look */
  bool due[PARTITIONS];
  unsigned partition; /* that was swept last */
  int slices_left;    /* of the round */
  bool failed;        /* the look got no answer */
  atomic_bool answers;
  atomic_uint_least64_t slices, changes, repairs;
  unsigned repair_partition;
  struct store_repair repair; /* where it goes on in that partition */
  int64_t repair_us;          /* when the last slice began */
};

static void swept(void *context, const struct store_error *error, const struct store_sweep_result *result);

/* The round's next slice, in the next partition that has something due. One at a time: what a connection sends at once
 * Redis does in a row, and between two slices others are to get their turn. */
static void sweep_on(struct sweeper *sweeper) {
  for (unsigned i = 1; i <= PARTITIONS; i++) {
    unsigned partition = (sweeper->partition + i) % PARTITIONS;
    if (!sweeper->due[partition])
      continue;
    if (sweeper->slices_left == 0) {
      sweeper->wait_ms = 0; /* there is more: go on after a look at what else is due */
      return;
    }
    sweeper->slices_left--;
    sweeper->partition = partition;
    store_sweep(sweeper->store, partition, swept, sweeper);
    return;
  }
}

static void swept(void *context, const struct store_error *error, const struct store_sweep_result *result) {
  struct sweeper *sweeper = context;
  if (error->code == STORE_UNAVAILABLE)
    return; /* nor would the others be answered */
  if (error->code == STORE_OK) {
    atomic_fetch_add(&sweeper->slices, 1);
    atomic_fetch_add(&sweeper->changes, (uint64_t)result->changed);
  }
  if (error->code != STORE_OK || result->changed <= 0)
    sweeper->due[sweeper->partition] = false;
  sweep_on(sweeper);
}

static void looked(void *context, const struct store_error *error, const int64_t due_ms[PARTITIONS], int64_t now_ms) {
  struct sweeper *sweeper = context;
  sweeper->failed = error->code != STORE_OK;
  sweeper->wait_ms = LOOK_MS_MAX;
  for (unsigned i = 0; i < PARTITIONS; i++) {
    sweeper->due[i] = !sweeper->failed && due_ms[i] <= now_ms;
    if (!sweeper->failed && !sweeper->due[i] && due_ms[i] - now_ms < sweeper->wait_ms)
      sweeper->wait_ms = due_ms[i] - now_ms;
  }
}

static void sweep_due(struct sweeper *sweeper) {
  sweeper->slices_left = SLICES_MAX;
  sweep_on(sweeper);
  store_flush(sweeper->store, ANSWER_MS_MAX);
}

static void repaired(void *context, const struct store_error *error, const struct store_repair *next) {
  struct sweeper *sweeper = context;
  if (error->code != STORE_OK)
    return;
  if (next->repaired > 0) {
    atomic_fetch_add(&sweeper->repairs, (uint64_t)next->repaired);
    log_event(LOG_WARN, "callbacks that redis had lost from their places were put back",
              log_number("partition", sweeper->repair_partition), log_number("count", next->repaired));
  }
  sweeper->repair = *next;
  if (next->queue_number == 0)
    sweeper->repair_partition = (sweeper->repair_partition + 1) % PARTITIONS;
}

/* One slice at a time, partition after partition, for as long as the server runs. */
static void repair_on(struct sweeper *sweeper) {
  int64_t now_us = clock_monotonic_us();
  if (now_us - sweeper->repair_us < REPAIR_MS * 1000)
    return;
  sweeper->repair_us = now_us;
  struct store_repair from = sweeper->repair;
  store_repair(sweeper->store, sweeper->repair_partition, &from, repaired, sweeper);
  store_flush(sweeper->store, ANSWER_MS_MAX);
}

static void note_pulse(struct sweeper *sweeper) {
  bool answers = !sweeper->failed;
  if (atomic_exchange(&sweeper->answers, answers) == answers)
    return;
  log_event(answers ? LOG_INFO : LOG_WARN, answers ? "redis answers" : "redis does not answer",
            log_text("redis", answers ? "up" : "down"));
  if (sweeper->changed)
    sweeper->changed(sweeper->context, answers);
}

static void *run(void *data) {
  struct sweeper *sweeper = data;
  struct pollfd stop = {.fd = sweeper->stop_fd, .events = POLLIN};
  do {
    store_timers(sweeper->store, looked, sweeper);
    store_flush(sweeper->store, ANSWER_MS_MAX);
    note_pulse(sweeper);
    if (!sweeper->failed) {
      sweep_due(sweeper);
      repair_on(sweeper);
    }
  } while (poll(&stop, 1, (int)sweeper->wait_ms) == 0);
  return NULL;
}

struct sweeper *sweeper_create(const struct redis_target *target, void (*changed)(void *context, bool answers),
                               void *context) {
  struct sweeper *sweeper = calloc(1, sizeof *sweeper);
  if (!sweeper)
    abort();
  sweeper->store = store_create(target);
  sweeper->stop_fd = eventfd(0, EFD_CLOEXEC);
  sweeper->changed = changed;
  sweeper->context = context;
  if (sweeper->stop_fd < 0 || pthread_create(&sweeper->thread, NULL, run, sweeper) != 0)
    abort();
  return sweeper;
}

void sweeper_destroy(struct sweeper *sweeper) {
  if (eventfd_write(sweeper->stop_fd, 1) != 0)
    abort();
  pthread_join(sweeper->thread, NULL);
  close(sweeper->stop_fd);
  store_destroy(sweeper->store);
  free(sweeper);
}

bool sweeper_redis_answers(const struct sweeper *sweeper) {
  return atomic_load(&sweeper->answers);
}

uint64_t sweeper_slices(const struct sweeper *sweeper) {
  return atomic_load(&sweeper->slices);
}

uint64_t sweeper_changes(const struct sweeper *sweeper) {
  return atomic_load(&sweeper->changes);
}

uint64_t sweeper_repairs(const struct sweeper *sweeper) {
  return atomic_load(&sweeper->repairs);
}
