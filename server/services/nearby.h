/* Queues that calls of this thread have waited for: so a submit can let a worker that waits on the same thread ask for
 * the job with the same write to Redis, before Redis's notification has gone the long way by the listener.
 *
 * Only a hint: what is forgotten, or belongs to another thread or server, is woken by the notification.
 */
#ifndef RINGBACK_SERVER_SERVICES_NEARBY_H
#define RINGBACK_SERVER_SERVICES_NEARBY_H

#include <stddef.h>
#include <stdint.h>

#include "server/rpc/rpc.h"

enum { NEARBY_PLACES = 1024 };

struct nearby {
  struct nearby_queue {
    uint64_t name; /* hash of bucket and queue; 0: none */
    uint64_t key;  /* what a lease in vain waits for */
  } places[NEARBY_PLACES];
};

/* The calls that park under these keys wait for these queues. */
void nearby_learn(struct nearby *nearby, const char *bucket, const char *const *queues, const uint64_t *keys,
                  size_t count);

/* The call has queued a submit to the queue: tries who waits for it here. */
void nearby_offer(struct nearby *nearby, struct rpc_call *call, const char *bucket, const char *queue);

#endif
