/* A job in Redis: its record, a string that never changes but for the priority, and its state, a field of a hash, from
 * its first lease or its end on. Both are laid out as redis/functions/00_base.lua says (HEAD_SIZE, STATE). Big-endian.
 */
#ifndef RINGBACK_REDIS_RECORD_H
#define RINGBACK_REDIS_RECORD_H

#include "redis/store.h"
#include "server/base/arena.h"

/* The record of a new job, in the arena. */
struct bytes record_create(struct arena *arena, const struct store_new_job *job);

/* What a record and a state (empty: none yet) say, as a job whose id is set already. Texts are copied into the arena;
 * spec and result point into the bytes. False when they are not a record or not a state. state and queue stay the
 * caller's. */
bool record_read(struct arena *arena, struct bytes record, struct bytes state, struct store_job *job);

#endif
