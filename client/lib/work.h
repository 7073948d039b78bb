/* The jobs in hand of one ringback_work, and what is to be said of them. Knows messages and times, no gRPC and no
 * locks: work.c puts both around it. Times are monotonic milliseconds.
 */
#ifndef RINGBACK_CLIENT_LIB_WORK_H
#define RINGBACK_CLIENT_LIB_WORK_H

#include "ringback/v1/worker.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORK_ITEMS_MAX 250 /* of each kind in a message */
#define WORK_BUCKETS 1024

enum work_state {
  WORK_RUNNING,
  WORK_FINISHING, /* `outcome` is to be taken */
  WORK_RELEASING,
};

struct work_job {
  int64_t fencing_token;
  enum work_state state;
  bool said; /* on this stream: what `state` asks for, or for a running job a renewal; its result is due */
  int64_t lease_ms;
  int64_t lease_end_ms; /* by our clock */
  int64_t say_at_ms;    /* not before: the next renewal, or another try */
  int64_t renewed_ms;
  int progress, told_progress;
  Ringback__V1__FinishedJob *outcome;
  struct work_job *next; /* with the same hash, older */
  size_t place;          /* in the heap */
  int64_t due_ms;        /* its key there: when there is something to say, or the lease has run out */
  char job_id[];
};

/* Found by id and by time: a worker may have a thousand in hand, and each event asks for both. Jobs are read by whoever
 * likes and changed by the functions below. */
struct work_jobs {
  struct work_job *buckets[WORK_BUCKETS]; /* by job id, the newest first */
  struct work_job **heap;                 /* all of them, the earliest due_ms first */
  size_t count, capacity;
  size_t running;
};

/* The newest of that job with that token; any token where it is 0. NULL when it is not in hand. */
struct work_job *work_jobs_find(const struct work_jobs *jobs, const char *job_id, int64_t fencing_token);
/* NULL when memory is short. */
struct work_job *work_jobs_add(struct work_jobs *jobs, const Ringback__V1__LeasedJob *leased, int64_t lease_ms,
                               int64_t now_ms);
void work_jobs_remove(struct work_jobs *jobs, struct work_job *job);
void work_jobs_close(struct work_jobs *jobs);

/* To WORK_FINISHING with an outcome, which is taken over, or to WORK_RELEASING without: to be said at once. */
void work_job_end(struct work_jobs *jobs, struct work_job *job, enum work_state state,
                  Ringback__V1__FinishedJob *outcome);
void work_job_progress(struct work_jobs *jobs, struct work_job *job, int progress);
/* The renewal that was asked for has been granted: the lease counts from when it was asked for. */
void work_job_renewed(struct work_jobs *jobs, struct work_job *job);
/* What was said could not be done and is to be said again at at_ms. */
void work_job_again(struct work_jobs *jobs, struct work_job *job, int64_t at_ms);
/* The outcome will never be taken: the job goes on as a running one. */
void work_job_go_on(struct work_jobs *jobs, struct work_job *job);
/* A new stream: everything is to be said again, of running jobs that they go on. */
void work_jobs_forget_said(struct work_jobs *jobs);

/* When there will be something to say or a lease has run out; INT64_MAX: never. */
int64_t work_jobs_next_ms(const struct work_jobs *jobs);
/* A running job whose lease has run out by now_ms; NULL: none. */
struct work_job *work_jobs_expired(const struct work_jobs *jobs, int64_t now_ms);

/* Puts what is to be said now into the request and marks it as said. The arrays are for as many pointers as a message
 * may have, `renewals` for as many messages; what is put in lives until the jobs change. */
struct work_saying {
  Ringback__V1__LeaseRenewal *renewals[WORK_ITEMS_MAX];
  Ringback__V1__FinishedJob *finished[WORK_ITEMS_MAX];
  Ringback__V1__Lease *released[WORK_ITEMS_MAX];
  Ringback__V1__LeaseRenewal renewal_messages[WORK_ITEMS_MAX];
  Ringback__V1__Lease leases[2 * WORK_ITEMS_MAX];
};
void work_jobs_say(struct work_jobs *jobs, int64_t now_ms, struct work_saying *saying,
                   Ringback__V1__WorkRequest *request);

#endif
