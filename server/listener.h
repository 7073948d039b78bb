/* The listener: a thread that is subscribed to what Redis publishes and passes it on: keys to the RPC threads, whose
 * parked calls are then tried again, and due deliveries to the dispatcher.
 *
 * Notifications can be lost, so everything is tried again after each (re)subscription and about every 10 s.
 */
#ifndef RINGBACK_SERVER_LISTENER_H
#define RINGBACK_SERVER_LISTENER_H

#include <stdint.h>

#include "redis/connection.h"

struct listener;

/* Whom it tells; both run on the listener's thread. */
struct listener_hooks {
  void *context;
  void (*wake)(void *context, uint64_t key);      /* 0: everything */
  void (*due)(void *context, unsigned partition); /* PARTITIONS: everything */
};

/* target must outlive it. */
struct listener *listener_create(const struct redis_target *target, const struct listener_hooks *hooks);
void listener_destroy(struct listener *listener);

uint64_t listener_notifications(const struct listener *listener); /* received so far; thread-safe */

#endif
