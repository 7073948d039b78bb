/* What an external Redis promises: asked once at start, so that nobody learns later that acknowledged jobs can vanish.
 */
#ifndef RINGBACK_REDIS_POLICY_H
#define RINGBACK_REDIS_POLICY_H

#include <stddef.h>

#include "redis/connection.h"

enum policy_result {
  POLICY_OK,
  POLICY_REFUSED,    /* older than 7, or keys could be evicted */
  POLICY_UNREACHABLE /* no answer in time */
};

/* Blocks for timeout_ms at most. Logs version, durability and memory policy as one event, and a warning where jobs can
 * be lost. text gets what stands against it; "" when POLICY_OK. */
enum policy_result redis_policy_check(const struct redis_target *target, int timeout_ms, char *text, size_t size);

#endif
