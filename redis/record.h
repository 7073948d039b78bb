/* A job's record: one string in Redis, laid out as redis/functions/00_base.lua says.
 *
 * HEAD (what every function needs), tag, hash of the job's own endpoint if it has one, packed JobSpec, and from the
 * first end, release or retry on TAIL (run, progress, times, last token, worker, code, message, result). Big-endian.
 */
#ifndef RINGBACK_REDIS_RECORD_H
#define RINGBACK_REDIS_RECORD_H

#include "redis/store.h"
#include "server/base/arena.h"

/* The record of a new job, in the arena. */
struct bytes record_create(struct arena *arena, const struct store_new_job *job);

/* What a record and a lease (empty: not running) say, as a job. Texts are copied into the arena; spec and result point
 * into the record. False when the bytes are not a record. state and queue stay the caller's. */
bool record_read(struct arena *arena, struct bytes record, struct bytes lease, struct store_job *job);

#endif
