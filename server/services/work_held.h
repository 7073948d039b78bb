/* The jobs that one Work stream holds: which leases, and with which message each was sent. A hash table by job id that
 * grows with what it holds and is empty, without memory, while it holds nothing. Pure.
 */
#ifndef RINGBACK_SERVER_SERVICES_WORK_HELD_H
#define RINGBACK_SERVER_SERVICES_WORK_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "redis/id.h"

struct held_job {
  struct job_id id;
  int64_t fencing_token; /* 0: the place is free */
  int64_t sequence;      /* of the message that brought it; 0: taken over by a renewal */
};

struct held_jobs {
  struct held_job *places;
  size_t capacity; /* a power of two, or 0 */
  size_t count;
};

void held_close(struct held_jobs *held);
/* NULL where this lease is not held. Valid until the next change. */
struct held_job *held_find(const struct held_jobs *held, const struct job_id *id, int64_t fencing_token);
/* Replaces an older lease of the same job. fencing_token is not 0. */
void held_add(struct held_jobs *held, const struct job_id *id, int64_t fencing_token, int64_t sequence);
/* Does nothing where this lease is not held. */
void held_remove(struct held_jobs *held, const struct job_id *id, int64_t fencing_token);

#endif
