/* The daemon's parts, in the order in which they start: Redis, the RPC server, dispatcher, sweeper, listener, side
 * port. They end in the reverse order, but for the drain, which comes first.
 *
 * Threads: main owns the embedded Redis and takes the signals; what the other threads own stands in their headers.
 */
#ifndef RINGBACK_SERVER_DAEMON_H
#define RINGBACK_SERVER_DAEMON_H

#include <stdbool.h>

#include "redis/connection.h"
#include "server/options.h"
#include "server/services/services.h"

struct daemon;

/* What was read from texts in the options; both are checked before anything starts. */
struct daemon_config {
  const struct options *options;
  struct redis_target redis; /* where options->redis is not empty */
  struct services_config services;
};

/* Starts everything and waits until Redis has answered. NULL after logging why not, or when SIGTERM or SIGINT is
 * pending meanwhile. Signals must be blocked. config must outlive it. */
struct daemon *daemon_start(const struct daemon_config *config);

/* Looks after the embedded Redis: about once a second, and after SIGCHLD. On main's thread. */
void daemon_tick(struct daemon *daemon);
/* Once many calls have left and stayed away for ten looks, gives the memory that they took back to the system. To be
 * called once a second, and not while the server drains. */
void daemon_give_memory_back(struct daemon *daemon);

/* Lets calls finish for the grace time, then stops every thread. Blocks. Not yet the embedded Redis: daemon_tick goes
 * on meanwhile. */
void daemon_drain(struct daemon *daemon);

/* After daemon_drain: ends the embedded Redis, on main's thread, and frees everything. */
void daemon_end(struct daemon *daemon);

#endif
