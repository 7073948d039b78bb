/*
 * What the parts of `ringback worker` share: worker.c (the command, its threads, leasing by long polls),
 * worker_stream.c (leasing, renewing and telling by the Work stream), worker_run.c (one leased
 * job: its command, renewals, report), worker_show.c (events and progress bars), worker_process.c (the process).
 *
 * Threads: main takes the signals and draws the bars; each slot is a thread that takes one job at a time and stays
 * with it to its end, so a slot's fields are its thread's own but for those that main draws, which are under
 * `show_lock`.
 */
#ifndef RINGBACK_CLIENT_TOOL_WORKER_H
#define RINGBACK_CLIENT_TOOL_WORKER_H

#include "client/lib/ringback.h"
#include "client/tool/tool.h"
#include "ringback/v1/worker.pb-c.h"
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#define WORKER_SLOTS_MAX 256
#define WORKER_QUEUES_MAX 100

/* What a worker has been told; it only ever goes up. */
enum worker_stage {
  WORKER_LEASING,
  WORKER_DRAINING,  /* lease nothing more, finish what runs */
  WORKER_RELEASING, /* end what runs and give it back */
  WORKER_KILLING,   /* the same, without waiting for the commands to clean up */
};

struct worker_slot {
  struct worker *worker;
  pthread_t thread;
  /* Under show_lock: what the bar shows. */
  bool busy;
  char job_id[40];
  char tag[65];
  int progress;
  /* Under stream_lock. */
  Ringback__V1__LeasedJob *leased; /* from the stream; NULL: none */
  int stop_reason;                 /* Ringback__V1__StopReason; 0: goes on */
  bool answered;                   /* its outcome or release has its result: */
  int answer_state;
  struct ringback_error answer;
};

struct worker {
  struct tool *tool;
  struct ringback_client *client;
  struct ringback_canceller *lease_canceller;
  struct ringback_canceller *call_canceller; /* of everything else: nothing is waited for any more */
  const char *command;
  const char *name;
  const char *root; /* NULL: none */
  char *bucket;     /* buckets/{bucket} */
  char *queues[WORKER_QUEUES_MAX];
  size_t queue_count;
  int64_t lease_ms; /* 0: the job's or queue's own */
  int64_t grace_ms; /* between SIGTERM and SIGKILL of a command */
  bool until_empty;
  bool counted;           /* --count was given */
  atomic_llong remaining; /* how many more jobs to take, when counted */
  atomic_int stage;       /* enum worker_stage */
  atomic_int running;     /* slots with a job */
  atomic_int alive;       /* slots whose thread goes on */
  atomic_int exit_status; /* of the first fatal error */
  atomic_llong succeeded, failed, stopped;
  /* The stream; `work` is NULL with --poll. */
  struct ringback_work *work;
  pthread_t stream_thread;
  bool troubled; /* the stream's thread's own: the last stream ended with an error */
  pthread_mutex_t stream_lock;
  pthread_cond_t stream_changed;
  bool stream_ended;                                  /* under stream_lock; so the next two: */
  Ringback__V1__LeasedJob *brought[WORKER_SLOTS_MAX]; /* not taken by a slot yet */
  size_t brought_count;
  pthread_mutex_t show_lock;
  int bars_shown; /* under show_lock: lines of bars on the terminal now */
  size_t slot_count;
  struct worker_slot slots[WORKER_SLOTS_MAX];
};

/* Runs one leased job to its end and reports it. granted_at_ms is the monotonic time when the lease came. */
void worker_run(struct worker_slot *slot, const Ringback__V1__LeasedJob *leased, int64_t granted_at_ms);

/* Tells of a job: one line for people or, with --json, one object. `more` is owned by the call and may be NULL; its
 * values follow the job's in the object, and are shown to people as `name value`. */
void worker_show_event(struct worker_slot *slot, const Ringback__V1__Job *job, const char *event, json_t *more);
/* Draws the bars of the busy slots on standard error, where that is a terminal. */
void worker_show_bars(struct worker *worker);
void worker_clear_bars(struct worker *worker);
/* An error or a remark, without tearing the bars. */
void worker_warn(struct worker *worker, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the worker with an error that will not pass. */
void worker_fail(struct worker *worker, const struct ringback_error *error);

/* worker_stream.c. False after saying why. */
bool worker_stream_start(struct worker *worker);
void worker_stream_end(struct worker *worker);
/* The next job for the slot, until worker_stream_done; NULL when no more comes. */
Ringback__V1__LeasedJob *worker_stream_take(struct worker_slot *slot);
void worker_stream_done(struct worker_slot *slot);
/* Ringback__V1__StopReason; 0: the job goes on. */
int worker_stream_stop_reason(struct worker_slot *slot);
/* Whether leases are renewed and results told by the stream. */
bool worker_stream_goes_on(struct worker *worker);
/* Waits for the result of what ringback_work_finish or ringback_work_release was told of the slot's job; false when it
 * did not come. */
bool worker_stream_answer(struct worker_slot *slot, int64_t timeout_ms, int *state, struct ringback_error *error);

int64_t worker_now_ms(void); /* monotonic */
void worker_sleep_ms(struct worker *worker, int64_t duration_ms, enum worker_stage until);

#endif
