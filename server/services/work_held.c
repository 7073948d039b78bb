/* Open addressing with linear probing; a removal moves the followers up, so no place is ever marked as deleted. */
#include "server/services/work_held.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES_MIN = 8 };

static size_t home_of(const struct held_jobs *held, const struct job_id *id) {
  uint64_t high, low;
  memcpy(&high, id->bytes, sizeof high);
  memcpy(&low, id->bytes + sizeof high, sizeof low);
  uint64_t mixed = high ^ (low * UINT64_C(0x9E3779B97F4A7C15));
  /* Ids of one batch differ in their last bytes only, which are the highest here: they must come down to count. */
  mixed = (mixed ^ (mixed >> 32)) * UINT64_C(0xD6E8FEB86659FD93);
  return (size_t)(mixed >> 32) & (held->capacity - 1);
}

/* Where the job is, or the free place where it would be. */
static size_t place_of(const struct held_jobs *held, const struct job_id *id) {
  size_t at = home_of(held, id);
  while (held->places[at].fencing_token != 0 && memcmp(&held->places[at].id, id, sizeof *id) != 0)
    at = (at + 1) & (held->capacity - 1);
  return at;
}

static void resize(struct held_jobs *held, size_t capacity) {
  struct held_jobs larger = {calloc(capacity, sizeof *larger.places), capacity, held->count};
  if (!larger.places)
    abort();
  for (size_t i = 0; i < held->capacity; i++)
    if (held->places[i].fencing_token != 0)
      larger.places[place_of(&larger, &held->places[i].id)] = held->places[i];
  free(held->places);
  *held = larger;
}

void held_close(struct held_jobs *held) {
  free(held->places);
  memset(held, 0, sizeof *held);
}

struct held_job *held_find(const struct held_jobs *held, const struct job_id *id, int64_t fencing_token) {
  if (held->count == 0 || fencing_token == 0)
    return NULL;
  struct held_job *job = &held->places[place_of(held, id)];
  return job->fencing_token == fencing_token ? job : NULL;
}

void held_add(struct held_jobs *held, const struct job_id *id, int64_t fencing_token, int64_t sequence) {
  assert(fencing_token != 0);
  if ((held->count + 1) * 4 > held->capacity * 3)
    resize(held, held->capacity ? held->capacity * 2 : PLACES_MIN);
  struct held_job *job = &held->places[place_of(held, id)];
  held->count += job->fencing_token == 0;
  *job = (struct held_job){*id, fencing_token, sequence};
}

void held_remove(struct held_jobs *held, const struct job_id *id, int64_t fencing_token) {
  struct held_job *job = held_find(held, id, fencing_token);
  if (!job)
    return;
  if (--held->count == 0) {
    held_close(held);
    return;
  }
  size_t mask = held->capacity - 1, hole = (size_t)(job - held->places), at = hole;
  for (;;) {
    at = (at + 1) & mask;
    if (held->places[at].fencing_token == 0)
      break;
    size_t home = home_of(held, &held->places[at].id);
    if (((at - home) & mask) >= ((at - hole) & mask)) {
      held->places[hole] = held->places[at];
      hole = at;
    }
  }
  held->places[hole].fencing_token = 0;
}
