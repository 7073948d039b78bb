/* The sweeper: a thread with a store of its own that looks at every partition's earliest timer and has Redis do what is
 * due, one bounded slice a partition at a time. Each server has one; whichever gets to a partition first does the work.
 * Beside that it goes round all deliveries, slowly, and repairs what is not where it belongs.
 *
 * Its look is also the server's pulse: it tells whether Redis answers.
 */
#ifndef RINGBACK_SERVER_SWEEPER_H
#define RINGBACK_SERVER_SWEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "redis/store.h"

struct sweeper;

/* changed (may be NULL) runs on the sweeper's thread whenever Redis begins or ceases to answer. target must outlive it.
 */
struct sweeper *sweeper_create(const struct redis_target *target, void (*changed)(void *context, bool answers),
                               void *context);
/* Waits for the round under way. */
void sweeper_destroy(struct sweeper *sweeper);

/* Thread-safe. */
bool sweeper_redis_answers(const struct sweeper *sweeper);
uint64_t sweeper_slices(const struct sweeper *sweeper);  /* swept so far */
uint64_t sweeper_changes(const struct sweeper *sweeper); /* made by them */
uint64_t sweeper_repairs(const struct sweeper *sweeper); /* of callbacks that were not where they belong */

#endif
