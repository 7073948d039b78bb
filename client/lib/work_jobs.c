/*
 * The jobs in hand of one ringback_work: see work.h. A stream that ends takes nothing from here: what was said on it
 * and not answered is said again on the next one, which the contract makes safe.
 *
 * Whatever changes when a job is due puts it to its place in the heap again.
 */
#include "client/lib/work.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define RENEW_MS_MAX 10000 /* a cancelled job is noticed within this */
#define RENEW_MS_MIN 200
#define PROGRESS_MS 1000
#define LEASE_MARGIN_MS_MAX 1000

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

/* --- by time --- */

static int64_t say_at_ms(const struct work_job *job) {
  if (job->said)
    return INT64_MAX;
  int64_t news_ms = job->renewed_ms + PROGRESS_MS;
  bool news = job->state == WORK_RUNNING && job->progress != job->told_progress;
  return news && news_ms < job->say_at_ms ? news_ms : job->say_at_ms;
}

static int64_t due_ms(const struct work_job *job) {
  int64_t at_ms = say_at_ms(job);
  return job->state == WORK_RUNNING && job->lease_end_ms < at_ms ? job->lease_end_ms : at_ms;
}

static void put_at(struct work_jobs *jobs, size_t place, struct work_job *job) {
  jobs->heap[place] = job;
  job->place = place;
}

static void sift_up(struct work_jobs *jobs, struct work_job *job) {
  size_t place = job->place;
  for (; place > 0 && jobs->heap[(place - 1) / 2]->due_ms > job->due_ms; place = (place - 1) / 2)
    put_at(jobs, place, jobs->heap[(place - 1) / 2]);
  put_at(jobs, place, job);
}

/* In a heap of the first `count`. */
static void sift_down(struct work_jobs *jobs, size_t count, struct work_job *job) {
  size_t place = job->place;
  for (;;) {
    size_t child = 2 * place + 1;
    if (child + 1 < count && jobs->heap[child + 1]->due_ms < jobs->heap[child]->due_ms)
      child++;
    if (child >= count || jobs->heap[child]->due_ms >= job->due_ms)
      break;
    put_at(jobs, place, jobs->heap[child]);
    place = child;
  }
  put_at(jobs, place, job);
}

static void place_again(struct work_jobs *jobs, struct work_job *job) {
  job->due_ms = due_ms(job);
  sift_up(jobs, job);
  sift_down(jobs, jobs->count, job);
}

int64_t work_jobs_next_ms(const struct work_jobs *jobs) {
  return jobs->count > 0 ? jobs->heap[0]->due_ms : INT64_MAX;
}

/* Of the job at that place and those below it, of which none is due before it. */
static struct work_job *expired_from(const struct work_jobs *jobs, size_t place, int64_t now_ms) {
  if (place >= jobs->count || jobs->heap[place]->due_ms > now_ms)
    return NULL;
  struct work_job *job = jobs->heap[place];
  if (job->state == WORK_RUNNING && job->lease_end_ms <= now_ms)
    return job;
  struct work_job *below = expired_from(jobs, 2 * place + 1, now_ms);
  return below != NULL ? below : expired_from(jobs, 2 * place + 2, now_ms);
}

struct work_job *work_jobs_expired(const struct work_jobs *jobs, int64_t now_ms) {
  return expired_from(jobs, 0, now_ms);
}

/* --- by id --- */

static size_t bucket_of(const char *job_id) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
  for (const char *at = job_id; *at != 0; at++)
    hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
  return (size_t)(hash ^ (hash >> 32)) % WORK_BUCKETS;
}

struct work_job *work_jobs_find(const struct work_jobs *jobs, const char *job_id, int64_t fencing_token) {
  struct work_job *job = jobs->buckets[bucket_of(job_id)];
  while (job != NULL &&
         ((fencing_token != 0 && job->fencing_token != fencing_token) || strcmp(job->job_id, job_id) != 0))
    job = job->next;
  return job;
}

static void renew(struct work_job *job, int64_t asked_ms) {
  job->renewed_ms = asked_ms;
  /* The answer was on its way for a while, and whoever works takes a moment to stop. */
  job->lease_end_ms = asked_ms + job->lease_ms - clamp(job->lease_ms / 10, 0, LEASE_MARGIN_MS_MAX);
  job->say_at_ms = asked_ms + clamp(job->lease_ms / 3, RENEW_MS_MIN, RENEW_MS_MAX);
}

struct work_job *work_jobs_add(struct work_jobs *jobs, const Ringback__V1__LeasedJob *leased, int64_t lease_ms,
                               int64_t now_ms) {
  if (jobs->count == jobs->capacity) {
    size_t capacity = jobs->capacity != 0 ? jobs->capacity * 2 : 16;
    struct work_job **larger = realloc(jobs->heap, capacity * sizeof(struct work_job *));
    if (larger == NULL)
      return NULL;
    jobs->heap = larger;
    jobs->capacity = capacity;
  }
  size_t id_size = strlen(leased->job->id) + 1;
  struct work_job *job = calloc(1, sizeof *job + id_size);
  if (job == NULL)
    return NULL;
  memcpy(job->job_id, leased->job->id, id_size);
  job->fencing_token = leased->fencing_token;
  job->lease_ms = lease_ms;
  job->progress = job->told_progress = leased->job->progress;
  renew(job, now_ms);
  struct work_job **bucket = &jobs->buckets[bucket_of(job->job_id)];
  job->next = *bucket;
  *bucket = job;
  job->due_ms = due_ms(job);
  job->place = jobs->count++;
  sift_up(jobs, job);
  jobs->running++;
  return job;
}

static void job_free(struct work_job *job) {
  if (job->outcome != NULL)
    ringback__v1__finished_job__free_unpacked(job->outcome, NULL);
  free(job);
}

void work_jobs_remove(struct work_jobs *jobs, struct work_job *job) {
  struct work_job **link = &jobs->buckets[bucket_of(job->job_id)];
  while (*link != job)
    link = &(*link)->next;
  *link = job->next;
  jobs->running -= job->state == WORK_RUNNING;
  struct work_job *last = jobs->heap[--jobs->count];
  if (last != job) {
    put_at(jobs, job->place, last);
    place_again(jobs, last);
  }
  job_free(job);
}

void work_jobs_close(struct work_jobs *jobs) {
  for (size_t i = 0; i < jobs->count; i++)
    job_free(jobs->heap[i]);
  free(jobs->heap);
  memset(jobs, 0, sizeof *jobs);
}

/* --- what becomes of one --- */

static void say_from(struct work_jobs *jobs, struct work_job *job, int64_t at_ms) {
  job->said = false;
  job->say_at_ms = at_ms;
  place_again(jobs, job);
}

void work_job_end(struct work_jobs *jobs, struct work_job *job, enum work_state state,
                  Ringback__V1__FinishedJob *outcome) {
  assert(job->state == WORK_RUNNING && state != WORK_RUNNING);
  job->state = state;
  job->outcome = outcome;
  jobs->running--;
  say_from(jobs, job, 0);
}

void work_job_progress(struct work_jobs *jobs, struct work_job *job, int progress) {
  job->progress = progress;
  place_again(jobs, job);
}

void work_job_renewed(struct work_jobs *jobs, struct work_job *job) {
  job->said = false;
  renew(job, job->renewed_ms);
  place_again(jobs, job);
}

void work_job_again(struct work_jobs *jobs, struct work_job *job, int64_t at_ms) {
  say_from(jobs, job, at_ms);
}

void work_job_go_on(struct work_jobs *jobs, struct work_job *job) {
  assert(job->state == WORK_FINISHING);
  ringback__v1__finished_job__free_unpacked(job->outcome, NULL);
  job->outcome = NULL;
  job->state = WORK_RUNNING;
  jobs->running++;
  say_from(jobs, job, 0);
}

void work_jobs_forget_said(struct work_jobs *jobs) {
  for (size_t i = 0; i < jobs->count; i++) {
    struct work_job *job = jobs->heap[i];
    job->said = false;
    job->say_at_ms = job->due_ms = 0; /* the same for all, so any order is a heap */
  }
}

/* --- what there is to say --- */

static Ringback__V1__Lease *put_lease(Ringback__V1__Lease *lease, struct work_job *job) {
  ringback__v1__lease__init(lease);
  lease->job_id = job->job_id;
  lease->fencing_token = job->fencing_token;
  return lease;
}

/* False where the message has no room for it. */
static bool put_job(struct work_job *job, int64_t now_ms, struct work_saying *saying, size_t *lease_count,
                    Ringback__V1__WorkRequest *request) {
  if (job->state == WORK_RUNNING && request->n_renewals < WORK_ITEMS_MAX) {
    Ringback__V1__LeaseRenewal *renewal = &saying->renewal_messages[request->n_renewals];
    ringback__v1__lease_renewal__init(renewal);
    renewal->lease = put_lease(&saying->leases[(*lease_count)++], job);
    renewal->progress = job->told_progress = job->progress;
    saying->renewals[request->n_renewals++] = renewal;
    job->renewed_ms = now_ms;
  } else if (job->state == WORK_FINISHING && request->n_finished < WORK_ITEMS_MAX) {
    saying->finished[request->n_finished++] = job->outcome;
  } else if (job->state == WORK_RELEASING && request->n_released < WORK_ITEMS_MAX) {
    saying->released[request->n_released++] = put_lease(&saying->leases[(*lease_count)++], job);
  } else {
    return false;
  }
  return true;
}

void work_jobs_say(struct work_jobs *jobs, int64_t now_ms, struct work_saying *saying,
                   Ringback__V1__WorkRequest *request) {
  size_t lease_count = 0, left = jobs->count;
  /* What is due leaves the heap, to the places behind it, and then comes in again with what is due of it now. */
  while (left > 0 && jobs->heap[0]->due_ms <= now_ms) {
    struct work_job *job = jobs->heap[0], *last = jobs->heap[--left];
    put_at(jobs, left, job);
    if (last != job) {
      last->place = 0;
      sift_down(jobs, left, last);
    }
    if (say_at_ms(job) <= now_ms)
      job->said = put_job(job, now_ms, saying, &lease_count, request);
  }
  for (; left < jobs->count; left++) {
    jobs->heap[left]->due_ms = due_ms(jobs->heap[left]);
    sift_up(jobs, jobs->heap[left]);
  }
  request->renewals = saying->renewals;
  request->finished = saying->finished;
  request->released = saying->released;
}
