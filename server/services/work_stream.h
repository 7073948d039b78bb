/* What work.c (a stream's life) and work_items.c (renewals, outcomes and releases on it) share. */
#ifndef RINGBACK_SERVER_SERVICES_WORK_STREAM_H
#define RINGBACK_SERVER_SERVICES_WORK_STREAM_H

#include "ringback/v1/worker.pb-c.h"
#include "server/services/services.h"
#include "server/services/work_held.h"

enum {
  WORK_CREDIT_MAX = 1000,
  WORK_HELD_MAX = 1000,
  WORK_UNACKNOWLEDGED_MAX = 64, /* messages; at more no more is leased */
  WORK_RESULTS_MAX = 1000,      /* not sent yet; at more nothing is read */
};

/* Results for the next message, in its arena. */
struct work_list {
  void **items;
  size_t count, capacity;
};

struct work {
  struct rpc_call *call;
  struct store *store;
  const struct services_config *config;

  /* From `open`; in the call's arena. */
  bool opened, keep_leases;
  const char *bucket, *worker, *what;
  const char **queues;
  size_t queue_count;
  uint64_t *keys; /* what a lease in vain waits for; one a queue */
  int64_t lease_ms, acknowledge_ms;

  unsigned under_way;     /* store calls */
  bool leasing, waiting;  /* waiting: the queues had too little, and will tell */
  size_t asked;           /* by the lease under way */
  int64_t lease_again_ms; /* not before, after the store was away */
  int64_t credit;
  struct held_jobs held;

  bool drained;       /* the worker wants no more */
  bool shutting_down; /* the server goes away */
  bool half_closed;
  bool over;
  bool paused;

  bool parked, parked_waiting;
  int64_t parked_until_ms, open_by_ms;

  int64_t sequence, acknowledged;
  int64_t sent_ms[WORK_UNACKNOWLEDGED_MAX]; /* by sequence */
  bool sending;
  int64_t sending_since_ms;

  /* The next message; in `out`, which is emptied when it is sent, and NULL while the stream is idle. */
  struct arena *out;
  Ringback__V1__LeasedJob **jobs;
  size_t job_count;
  struct work_list renewals, finished, released;
  Ringback__V1__DrainReason notice;
};

/* Hands the items of a message to the store; their results go into the lists, in order. The counts have been checked.
 */
void work_take_items(struct work *work, const Ringback__V1__WorkRequest *request);

/* To be called at the end of every continuation of a store call. */
void work_settle(struct work *work);
void work_acknowledge(struct work *work, int64_t sequence);

#endif
