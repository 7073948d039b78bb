/* The Redis of servers that were not given one: a redis-server (or valkey-server) on a Unix socket in the data
 * directory, with an append-only file.
 *
 * It belongs to whoever holds the lock on the directory. It ends when its owner ends normally, survives when its owner
 * is killed, and is adopted by the next one. One owner a process, used by one thread.
 */
#ifndef RINGBACK_REDIS_EMBEDDED_H
#define RINGBACK_REDIS_EMBEDDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "redis/connection.h"

struct embedded;

struct embedded_options {
  const char *data_dir;    /* created (0700) where it is not there; its parent has to be */
  const char *appendfsync; /* NULL: "always"; else "everysec" or "no" */
  const char *program;     /* NULL: redis-server or valkey-server from PATH */
};

/* Takes the lock, then adopts or starts the server and waits until it answers (a large file may still be loading).
 * Blocks 30 s at most. NULL: error has a sentence for people. */
struct embedded *embedded_start(const struct embedded_options *options, char *error, size_t error_size);

/* Lives as long as the embedded server. */
const struct redis_target *embedded_target(const struct embedded *embedded);
pid_t embedded_pid(const struct embedded *embedded); /* 0: not running at the moment */
bool embedded_was_adopted(const struct embedded *embedded);
uint64_t embedded_restarts(const struct embedded *embedded);

/* Starts it again if it died: at once, then after 1 s doubling to 30 s while it keeps dying. Call it about once a
 * second, and after SIGCHLD. Never blocks. */
void embedded_check(struct embedded *embedded);

/* Ends the server (SIGTERM, after 10 s SIGKILL), gives the directory back, and frees it. */
void embedded_stop(struct embedded *embedded);

#endif
