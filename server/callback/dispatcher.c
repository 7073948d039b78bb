/* See dispatcher.h. The loop: ask for claims where something is due, send what the store was asked, wait for Redis,
 * transfers and wake-ups together, run what came back. Deliveries themselves are delivery.c's.
 *
 * A partition is asked again at once while it gives, when its next delivery is due, when a notification says so, after
 * a reconnection, and every 10 s in case a notification was lost.
 */
#include "server/callback/dispatcher.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "redis/store_callbacks.h"
#include "server/base/arena.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/callback/delivery.h"
#include "server/callback/sender.h"

#define CLAIM_COUNT_MAX 16 /* small ones let Redis take the next while this thread sends */
#define STORE_WAIT_MS 1000
#define STORE_PAUSE_MS 250 /* after the store did not answer */
#define POLL_BUSY_MS 250   /* the longest sleep while the store owes an answer */
#define POLL_IDLE_MS 1000
#define RECONNECT_POLL_MS 100
#define RESCAN_MS 10000
#define EMPTY_CLAIM_PAUSE_MS 10
#define STALL_US 50000 /* a turn that took longer kept everything in hand waiting */
_Static_assert(PARTITIONS == 64, "notified is a word of 64 bits");

struct partition {
  struct dispatcher *dispatcher;
  unsigned index;
  bool look;    /* there may be something due */
  size_t asked; /* how many claims are asked for; 0: no call under way */
  int64_t asked_us;
};

struct dispatcher {
  struct delivery_set set;
  size_t in_flight_max;
  size_t reserved; /* claims asked for */
  struct partition partitions[PARTITIONS];
  unsigned first; /* the partition to ask first, for fairness */
  bool connected;
  int64_t claims_resume_us;
  int64_t rescan_us;

  pthread_t thread;
  bool joined;
  _Atomic uint64_t turns, turn_us_max, turn_cpu_us_max, stalls;
  _Atomic uint64_t notified;      /* a bit a partition */
  _Atomic int64_t drain_until_us; /* 0: not draining */
};

/* --- claims --- */

static int64_t redis_now_ms(const struct dispatcher *dispatcher, int64_t now_us) {
  return (now_us + dispatcher->set.clock_offset_us) / 1000;
}

static void learn_clock(struct dispatcher *dispatcher, const struct store_claim *claim, int64_t now_us) {
  int64_t claimed_ms = claim->claim_expire_ms - claim->endpoint->timeout_ms - DISPATCHER_CLAIM_GRACE_MS;
  dispatcher->set.clock_offset_us = claimed_ms * 1000 - now_us;
}

static void on_claims(void *context, const struct store_error *error, const struct store_claims *result) {
  struct partition *partition = context;
  struct dispatcher *dispatcher = partition->dispatcher;
  int64_t now_us = clock_monotonic_us();
  size_t asked = partition->asked;
  partition->asked = 0;
  dispatcher->reserved -= asked;
  if (error->code) {
    partition->look = true;
    dispatcher->claims_resume_us = now_us + STORE_PAUSE_MS * 1000;
    return;
  }
  if (result->count)
    learn_clock(dispatcher, &result->claims[0], now_us);
  delivery_begin(&dispatcher->set, result->claims, result->count, partition->asked_us);
  if (result->too_old)
    delivery_count_too_old(&dispatcher->set, result->too_old);
  if (result->count >= asked)
    partition->look = true;
  /* Due, and yet nothing came: the clocks differ, or a group is at its limit. */
  int64_t due_ms = result->next_due_ms, soon_ms = redis_now_ms(dispatcher, now_us) + EMPTY_CLAIM_PAUSE_MS;
  if (!result->count && due_ms && due_ms < soon_ms)
    due_ms = soon_ms;
  delivery_set_due(&dispatcher->set, partition->index, due_ms);
}

static bool wants_claims(const struct partition *partition, int64_t now_ms) {
  int64_t due_ms = partition->dispatcher->set.due_ms[partition->index];
  return !partition->asked && (partition->look || (due_ms && due_ms <= now_ms));
}

static size_t free_slots(const struct dispatcher *dispatcher) {
  size_t used = dispatcher->set.count + dispatcher->reserved;
  return used < dispatcher->in_flight_max ? dispatcher->in_flight_max - used : 0;
}

static bool may_claim(const struct dispatcher *dispatcher, int64_t now_us) {
  return dispatcher->connected && now_us >= dispatcher->claims_resume_us && !atomic_load(&dispatcher->drain_until_us);
}

static void ask_for_claims(struct dispatcher *dispatcher, int64_t now_us) {
  int64_t now_ms = redis_now_ms(dispatcher, now_us);
  size_t wanting = 0;
  for (unsigned i = 0; i < PARTITIONS; i++)
    wanting += wants_claims(&dispatcher->partitions[i], now_ms);
  size_t share = wanting ? free_slots(dispatcher) / wanting : 0;
  share = share < 1 ? 1 : share > CLAIM_COUNT_MAX ? CLAIM_COUNT_MAX : share;
  unsigned start = dispatcher->first;
  for (unsigned i = 0; i < PARTITIONS && free_slots(dispatcher); i++) {
    struct partition *partition = &dispatcher->partitions[(start + i) % PARTITIONS];
    if (!wants_claims(partition, now_ms))
      continue;
    size_t room = free_slots(dispatcher);
    partition->asked = share < room ? share : room;
    partition->asked_us = now_us;
    partition->look = false;
    dispatcher->set.due_ms[partition->index] = 0;
    dispatcher->reserved += partition->asked;
    dispatcher->first = (partition->index + 1) % PARTITIONS;
    dispatcher->set.store_calls++;
    store_claim(dispatcher->set.store, partition->index, partition->asked, DISPATCHER_CLAIM_GRACE_MS, on_claims,
                partition);
  }
}

static void look_at_all(struct dispatcher *dispatcher) {
  for (unsigned i = 0; i < PARTITIONS; i++)
    dispatcher->partitions[i].look = true;
}

static void take_notifications(struct dispatcher *dispatcher, int64_t now_us) {
  uint64_t notified = atomic_exchange(&dispatcher->notified, 0);
  for (unsigned i = 0; notified; i++, notified >>= 1)
    if (notified & 1)
      dispatcher->partitions[i].look = true;
  bool connected = store_is_connected(dispatcher->set.store);
  if (now_us >= dispatcher->rescan_us || (connected && !dispatcher->connected)) {
    look_at_all(dispatcher);
    uint16_t random = 0;
    (void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
    dispatcher->rescan_us = now_us + (RESCAN_MS + random % 2000 - 1000) * 1000LL;
  }
  dispatcher->connected = connected;
}

/* --- the loop --- */

static int poll_timeout_ms(const struct dispatcher *dispatcher, int64_t now_us) {
  bool owed = dispatcher->reserved || dispatcher->set.count;
  int64_t timeout_ms = !dispatcher->connected ? RECONNECT_POLL_MS : owed ? POLL_BUSY_MS : POLL_IDLE_MS;
  if (!may_claim(dispatcher, now_us) || !free_slots(dispatcher))
    return (int)timeout_ms;
  int64_t now_ms = redis_now_ms(dispatcher, now_us);
  for (unsigned i = 0; i < PARTITIONS; i++) {
    const struct partition *partition = &dispatcher->partitions[i];
    if (wants_claims(partition, now_ms))
      return 0;
    int64_t due_ms = dispatcher->set.due_ms[i];
    if (!partition->asked && due_ms && due_ms - now_ms < timeout_ms)
      timeout_ms = due_ms - now_ms;
  }
  return (int)timeout_ms;
}

static int64_t thread_cpu_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * INT64_C(1000000) + time.tv_nsec / 1000;
}

static void raise_to(_Atomic uint64_t *most, int64_t value) {
  if (value > 0 && (uint64_t)value > atomic_load_explicit(most, memory_order_relaxed))
    atomic_store_explicit(most, (uint64_t)value, memory_order_relaxed);
}

/* A turn is what happens between two waits. By the clock it also has the time that other programs had the processor. */
static void count_turn(struct dispatcher *dispatcher, int64_t turn_us, int64_t cpu_us) {
  atomic_fetch_add_explicit(&dispatcher->turns, 1, memory_order_relaxed);
  if (turn_us > STALL_US)
    atomic_fetch_add_explicit(&dispatcher->stalls, 1, memory_order_relaxed);
  raise_to(&dispatcher->turn_us_max, turn_us);
  raise_to(&dispatcher->turn_cpu_us_max, cpu_us);
}

static void run_once(struct dispatcher *dispatcher) {
  struct delivery_set *set = &dispatcher->set;
  int64_t now_us = clock_monotonic_us(), cpu_us = thread_cpu_us();
  take_notifications(dispatcher, now_us);
  delivery_retry_store(set, now_us);
  if (may_claim(dispatcher, now_us))
    ask_for_claims(dispatcher, now_us);
  /* What comes back while sending may ask for more, which must not wait for the next event. */
  uint64_t calls;
  do {
    calls = set->store_calls;
    store_send(set->store);
  } while (calls != set->store_calls);
  store_expire(set->store, STORE_WAIT_MS);

  int fd = store_fd(set->store);
  struct pollfd redis = {.fd = fd, .events = (short)(POLLIN | (store_wants_write(set->store) ? POLLOUT : 0))};
  int timeout_ms = poll_timeout_ms(dispatcher, clock_monotonic_us());
  if (calls != set->store_calls)
    timeout_ms = 0;
  int64_t waited_us = sender_poll(set->sender, &redis, fd >= 0, timeout_ms);
  store_ready(set->store);
  count_turn(dispatcher, clock_monotonic_us() - now_us - waited_us, thread_cpu_us() - cpu_us);
}

static bool is_finished(const struct dispatcher *dispatcher) {
  int64_t until_us = atomic_load(&dispatcher->drain_until_us);
  if (!until_us)
    return false;
  return (!dispatcher->set.count && !dispatcher->reserved) || clock_monotonic_us() >= until_us;
}

static void *run(void *context) {
  struct dispatcher *dispatcher = context;
  while (!is_finished(dispatcher))
    run_once(dispatcher);
  return 0;
}

/* --- from outside --- */

struct dispatcher *dispatcher_create(const struct dispatcher_options *options) {
  struct dispatcher *dispatcher = calloc(1, sizeof(*dispatcher));
  if (!dispatcher)
    abort();
  dispatcher->in_flight_max = options->in_flight_max ? options->in_flight_max : DISPATCHER_IN_FLIGHT_DEFAULT;
  for (unsigned i = 0; i < PARTITIONS; i++)
    dispatcher->partitions[i] = (struct partition){.dispatcher = dispatcher, .index = i};
  struct delivery_set *set = &dispatcher->set;
  set->clock_offset_us = clock_wall_ms() * 1000 - clock_monotonic_us();
  if (getrandom(&set->random, sizeof(set->random), 0) != sizeof(set->random) || !set->random)
    set->random = (uint64_t)clock_monotonic_us() | 1;
  struct sender_options sending = {.allowed = options->allowed,
                                   .ca_file = options->ca_file,
                                   .dns_servers = options->dns_servers,
                                   .in_flight_max = dispatcher->in_flight_max};
  set->sender = sender_create(&sending);
  if (!set->sender) {
    free(dispatcher);
    return 0;
  }
  set->store = store_create(options->redis);
  set->scratch = arena_create();
  if (pthread_create(&dispatcher->thread, 0, run, dispatcher) != 0) {
    store_destroy(set->store);
    sender_destroy(set->sender);
    arena_destroy(set->scratch);
    free(dispatcher);
    return 0;
  }
  pthread_setname_np(dispatcher->thread, "dispatcher");
  return dispatcher;
}

void dispatcher_notify(struct dispatcher *dispatcher, uint64_t partition) {
  uint64_t bits = partition < PARTITIONS ? UINT64_C(1) << partition : ~UINT64_C(0);
  /* Bits that are there already have had their wake-up. */
  if ((atomic_fetch_or(&dispatcher->notified, bits) & bits) != bits)
    sender_wakeup(dispatcher->set.sender);
}

void dispatcher_drain(struct dispatcher *dispatcher, int grace_ms) {
  if (dispatcher->joined)
    return;
  atomic_store(&dispatcher->drain_until_us, clock_monotonic_us() + (grace_ms > 0 ? grace_ms : 0) * 1000LL);
  sender_wakeup(dispatcher->set.sender);
  pthread_join(dispatcher->thread, 0);
  dispatcher->joined = true;
}

void dispatcher_destroy(struct dispatcher *dispatcher) {
  if (!dispatcher)
    return;
  dispatcher_drain(dispatcher, 0);
  /* The store answers what is open with UNAVAILABLE, so the deliveries must still be there. */
  store_destroy(dispatcher->set.store);
  sender_destroy(dispatcher->set.sender);
  delivery_drop_all(&dispatcher->set);
  free(dispatcher);
}

static uint64_t read_counter(const _Atomic uint64_t *counter) {
  return atomic_load_explicit(counter, memory_order_relaxed);
}

void dispatcher_metrics(const struct dispatcher *dispatcher, struct dispatcher_metrics *metrics) {
  const struct delivery_set *set = &dispatcher->set;
  *metrics = (struct dispatcher_metrics){.in_flight = read_counter(&set->in_flight),
                                         .claimed = read_counter(&set->claimed),
                                         .attempts = read_counter(&set->attempts),
                                         .delivered = read_counter(&set->delivered),
                                         .retried = read_counter(&set->retried),
                                         .dead = read_counter(&set->dead),
                                         .dropped = read_counter(&set->dropped),
                                         .breakers_opened = read_counter(&set->breakers_opened),
                                         .breakers_closed = read_counter(&set->breakers_closed),
                                         .attempt_ms = read_counter(&set->attempt_ms),
                                         .turns = read_counter(&dispatcher->turns),
                                         .turn_us_max = read_counter(&dispatcher->turn_us_max),
                                         .turn_cpu_us_max = read_counter(&dispatcher->turn_cpu_us_max),
                                         .stalls = read_counter(&dispatcher->stalls)};
  for (size_t i = 0; i < CALLBACK_ERROR_COUNT; i++)
    metrics->errors[i] = read_counter(&set->errors[i]);
}
