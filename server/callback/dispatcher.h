/* The dispatcher: one thread that takes due deliveries from the outbox, posts them, and writes down what came of it.
 *
 * A delivery is claimed (a lease with a fencing token), its body rendered at the first attempt and frozen in the store
 * before the first byte leaves, posted, and settled: delivered, dead, or due again by the schedule. The thread's Redis
 * socket lies in the same poll as its transfers, so neither ever waits for the other. Several dispatchers share one
 * outbox.
 */
#ifndef RINGBACK_SERVER_CALLBACK_DISPATCHER_H
#define RINGBACK_SERVER_CALLBACK_DISPATCHER_H

#include <stddef.h>
#include <stdint.h>

#include "server/callback/address.h"
#include "server/callback/schedule.h"

struct dispatcher;
struct redis_target;

#define DISPATCHER_IN_FLIGHT_DEFAULT 256
/* What a claim lasts beyond the rule's timeout: DNS, connecting and 15 s to settle. */
#define DISPATCHER_CLAIM_GRACE_MS 21000

struct dispatcher_options {
  const struct redis_target *redis; /* outlives the dispatcher */
  struct address_set allowed;
  const char *ca_file;     /* NULL: the system's bundle */
  const char *dns_servers; /* NULL: the system's */
  size_t in_flight_max;    /* deliveries in hand at once; 0: DISPATCHER_IN_FLIGHT_DEFAULT */
};

/* Counts since the start, but in_flight and the longest turns. */
struct dispatcher_metrics {
  uint64_t in_flight;
  uint64_t claimed;  /* deliveries taken from the outbox */
  uint64_t attempts; /* requests that came to an end */
  uint64_t delivered;
  uint64_t retried; /* failed and due again */
  uint64_t dead;
  uint64_t dropped; /* claims lost before the first byte, or abandoned at a drain's end: tried again without counting */
  uint64_t breakers_opened, breakers_closed;            /* by settlements of this dispatcher */
  uint64_t attempt_ms;                                  /* the attempts' durations together */
  uint64_t errors[CALLBACK_ERROR_COUNT];                /* failed attempts by class */
  uint64_t turns, turn_us_max, turn_cpu_us_max, stalls; /* of the loop; the longest; those over 50 ms */
};

/* Starts the thread. NULL when curl, c-ares or the thread cannot be set up. */
struct dispatcher *dispatcher_create(const struct dispatcher_options *options);

/* A partition has something due; PARTITIONS or more: look at all of them. From any thread. */
void dispatcher_notify(struct dispatcher *dispatcher, uint64_t partition);

/* Stops claiming, lets what is in hand end, and ends the thread; after grace_ms the rest is dropped and comes back when
 * its claims run out. */
void dispatcher_drain(struct dispatcher *dispatcher, int grace_ms);

/* Drains without grace if that was not done. */
void dispatcher_destroy(struct dispatcher *dispatcher);

/* From any thread. */
void dispatcher_metrics(const struct dispatcher *dispatcher, struct dispatcher_metrics *metrics);

#endif
