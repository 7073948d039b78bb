/*
 * The jobs in hand of one ringback_work: see work.h. A stream that ends takes nothing from here: what was said on it
 * and not answered is said again on the next one, which the contract makes safe.
 */
#include "client/lib/work.h"
#include <stdlib.h>
#include <string.h>

#define RENEW_MS_MAX 10000 /* a cancelled job is noticed within this */
#define RENEW_MS_MIN 200
#define PROGRESS_MS 1000
#define LEASE_MARGIN_MS_MAX 1000

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

struct work_job *work_jobs_find(struct work_jobs *jobs, const char *job_id, int64_t fencing_token) {
  for (size_t i = jobs->count; i-- > 0;) {
    struct work_job *job = &jobs->jobs[i];
    if ((fencing_token == 0 || job->fencing_token == fencing_token) && strcmp(job->job_id, job_id) == 0)
      return job;
  }
  return NULL;
}

void work_job_renewed(struct work_job *job, int64_t asked_ms) {
  job->renewed_ms = asked_ms;
  /* The answer was on its way for a while, and whoever works takes a moment to stop. */
  job->lease_end_ms = asked_ms + job->lease_ms - clamp(job->lease_ms / 10, 0, LEASE_MARGIN_MS_MAX);
  job->say_at_ms = asked_ms + clamp(job->lease_ms / 3, RENEW_MS_MIN, RENEW_MS_MAX);
}

struct work_job *work_jobs_add(struct work_jobs *jobs, const Ringback__V1__LeasedJob *leased, int64_t lease_ms,
                               int64_t now_ms) {
  if (jobs->count == jobs->capacity) {
    size_t capacity = jobs->capacity != 0 ? jobs->capacity * 2 : 16;
    struct work_job *larger = realloc(jobs->jobs, capacity * sizeof *larger);
    if (larger == NULL)
      return NULL;
    jobs->jobs = larger;
    jobs->capacity = capacity;
  }
  struct work_job *job = &jobs->jobs[jobs->count];
  memset(job, 0, sizeof *job);
  job->job_id = strdup(leased->job->id);
  if (job->job_id == NULL)
    return NULL;
  job->fencing_token = leased->fencing_token;
  job->lease_ms = lease_ms;
  job->progress = job->told_progress = leased->job->progress;
  work_job_renewed(job, now_ms);
  jobs->count++;
  return job;
}

static void job_close(struct work_job *job) {
  free(job->job_id);
  if (job->outcome != NULL)
    ringback__v1__finished_job__free_unpacked(job->outcome, NULL);
}

void work_jobs_remove(struct work_jobs *jobs, struct work_job *job) {
  job_close(job);
  *job = jobs->jobs[--jobs->count];
}

void work_jobs_close(struct work_jobs *jobs) {
  for (size_t i = 0; i < jobs->count; i++)
    job_close(&jobs->jobs[i]);
  free(jobs->jobs);
  memset(jobs, 0, sizeof *jobs);
}

size_t work_jobs_running(const struct work_jobs *jobs) {
  size_t running = 0;
  for (size_t i = 0; i < jobs->count; i++)
    running += jobs->jobs[i].state == WORK_RUNNING;
  return running;
}

void work_jobs_forget_said(struct work_jobs *jobs) {
  for (size_t i = 0; i < jobs->count; i++) {
    jobs->jobs[i].said = false;
    jobs->jobs[i].say_at_ms = 0;
  }
}

static int64_t say_at_ms(const struct work_job *job) {
  if (job->said)
    return INT64_MAX;
  int64_t news_ms = job->renewed_ms + PROGRESS_MS;
  bool news = job->state == WORK_RUNNING && job->progress != job->told_progress;
  return news && news_ms < job->say_at_ms ? news_ms : job->say_at_ms;
}

int64_t work_jobs_next_ms(const struct work_jobs *jobs) {
  int64_t next_ms = INT64_MAX;
  for (size_t i = 0; i < jobs->count; i++) {
    const struct work_job *job = &jobs->jobs[i];
    int64_t at_ms = say_at_ms(job);
    if (job->state == WORK_RUNNING && job->lease_end_ms < at_ms)
      at_ms = job->lease_end_ms;
    if (at_ms < next_ms)
      next_ms = at_ms;
  }
  return next_ms;
}

static Ringback__V1__Lease *put_lease(Ringback__V1__Lease *lease, const struct work_job *job) {
  ringback__v1__lease__init(lease);
  lease->job_id = job->job_id;
  lease->fencing_token = job->fencing_token;
  return lease;
}

void work_jobs_say(struct work_jobs *jobs, int64_t now_ms, struct work_saying *saying,
                   Ringback__V1__WorkRequest *request) {
  size_t lease_count = 0;
  for (size_t i = 0; i < jobs->count; i++) {
    struct work_job *job = &jobs->jobs[i];
    if (say_at_ms(job) > now_ms)
      continue;
    if (job->state == WORK_RUNNING && request->n_renewals < WORK_ITEMS_MAX) {
      Ringback__V1__LeaseRenewal *renewal = &saying->renewal_messages[request->n_renewals];
      ringback__v1__lease_renewal__init(renewal);
      renewal->lease = put_lease(&saying->leases[lease_count++], job);
      renewal->progress = job->told_progress = job->progress;
      saying->renewals[request->n_renewals++] = renewal;
      job->renewed_ms = now_ms;
    } else if (job->state == WORK_FINISHING && request->n_finished < WORK_ITEMS_MAX) {
      saying->finished[request->n_finished++] = job->outcome;
    } else if (job->state == WORK_RELEASING && request->n_released < WORK_ITEMS_MAX) {
      saying->released[request->n_released++] = put_lease(&saying->leases[lease_count++], job);
    } else {
      continue;
    }
    job->said = true;
  }
  request->renewals = saying->renewals;
  request->finished = saying->finished;
  request->released = saying->released;
}
