/* The typed store: every state change and every read that the service knows, each one call of a Redis function.
 *
 * A store belongs to one thread and has one connection. Calls are queued, calls of the same function and partition
 * merged into one, all sent in one write, and answered in order: each `done` runs exactly once, from store_flush,
 * store_step or store_ready, or with STORE_UNAVAILABLE when Redis does not answer. What a result points at lives until
 * `done` returns; copy what is needed longer. A `done` may queue further calls. Arguments are copied when a call is
 * queued.
 *
 * After STORE_UNAVAILABLE the outcome is unknown. Every call may be repeated, except a lease and a submit without
 * request_id.
 *
 * Times are Unix milliseconds of Redis's clock, spans milliseconds. `bucket` and `queue` are plain names that have been
 * validated; the store trusts its caller with lengths and ranges.
 */
#ifndef RINGBACK_REDIS_STORE_H
#define RINGBACK_REDIS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "redis/id.h"

struct store;
struct redis_target; /* redis/connection.h */

enum store_code {
  STORE_OK,
  STORE_NOT_FOUND,      /* the queue, job or delivery that the call is about */
  STORE_ALREADY_EXISTS, /* a queue of that name; a request_id with another content */
  STORE_FULL,           /* max_size reached; limit says how many, current how many there are */
  STORE_TOO_MANY,       /* another bound, such as queues a bucket */
  STORE_CONFLICT,       /* the etag is not the current one */
  STORE_PRECONDITION,   /* reason says what stands against it */
  STORE_OUT_OF_RANGE,   /* the log no longer reaches back to the cursor */
  STORE_INVALID,        /* reason says which settings contradict each other */
  STORE_OUT_OF_MEMORY,  /* Redis is over its memory limit */
  STORE_UNAVAILABLE,    /* Redis cannot be reached or did not answer in time; outcome unknown */
  STORE_INTERNAL,       /* Redis or the function library answered what must not be; logged */
};

/* reason is a sentence part such as "the job has ended", never NULL. */
struct store_error {
  enum store_code code;
  const char *reason;
  int64_t limit;
  int64_t current;
};

struct bytes {
  const uint8_t *data;
  size_t length;
};

/* --- the store itself --- */

struct store_metrics {
  uint64_t calls;     /* of functions, as the callers see them */
  uint64_t commands;  /* sent to Redis: calls / commands is the mean merged batch */
  uint64_t batch_max; /* the largest number of calls merged into one command */
  uint64_t failures;  /* calls answered STORE_UNAVAILABLE */
  uint64_t reconnects;
  uint64_t batch_sizes[8]; /* commands that merged 1, 2, 3-4, 5-8, 9-16, 17-32, 33-64, more calls */
};

/* Does not connect yet: the first flush does. target stays the caller's and must outlive the store. */
struct store *store_create(const struct redis_target *target);
void store_destroy(struct store *store);

/* Tells for whom calls are made: `hold` when one is queued, its answer is handed to `begin` before and to `let_go`
 * after the call's `done` has run. */
struct store_owners {
  void *(*hold)(void);
  void (*begin)(void *owner);
  void (*let_go)(void *owner);
};
void store_set_owners(struct store *store, const struct store_owners *owners);

/* Sends what is queued and runs the continuations until nothing is queued, waiting at most wait_ms for each round of
 * answers. */
void store_flush(struct store *store, int wait_ms);
/* A part of a flush: sends what is queued, unless much is under way already, waits up to wait_us for an answer and runs
 * the continuations of those that are there. */
void store_step(struct store *store, int wait_us, int wait_ms);
/* How many calls were ever queued, and up to which of them all are answered. */
uint64_t store_asked(const struct store *store);
uint64_t store_answered(const struct store *store);
/* Milliseconds since the oldest unanswered command was queued; 0: nothing waits. */
int64_t store_waiting_ms(const struct store *store);

/* The same for an event loop: store_send writes what it can and never blocks; then wait for store_fd to be readable (or
 * writable where store_wants_write) and call store_ready. -1: not connected; call store_send again later. store_expire
 * fails calls older than wait_ms. */
void store_send(struct store *store);
int store_fd(const struct store *store);
bool store_wants_write(const struct store *store);
void store_ready(struct store *store);
void store_expire(struct store *store, int wait_ms);

bool store_is_connected(const struct store *store);
void store_metrics(const struct store *store, struct store_metrics *metrics); /* thread-safe */

/* --- queues --- */

/* Settings of a queue. In an update, fields with a bit in `mask` are changed. */
struct store_settings {
  int64_t head_start_ms; /* 0: strict priority. Only at creation. */
  int64_t max_size;
  int64_t max_concurrent;
  int64_t default_lease_ms;
  int64_t max_attempts;
  int64_t min_backoff_ms;
  int64_t max_backoff_ms;
  int64_t retention_age_ms;
  int64_t retention_count;
  int64_t idempotency_ms;
};

enum {
  SETTING_MAX_SIZE = 1 << 1,
  SETTING_MAX_CONCURRENT = 1 << 2,
  SETTING_DEFAULT_LEASE = 1 << 3,
  SETTING_MAX_ATTEMPTS = 1 << 4,
  SETTING_MIN_BACKOFF = 1 << 5,
  SETTING_MAX_BACKOFF = 1 << 6,
  SETTING_RETENTION_AGE = 1 << 7,
  SETTING_RETENTION_COUNT = 1 << 8,
  SETTING_IDEMPOTENCY = 1 << 9,
};

struct store_queue {
  const char *name;
  uint64_t number;
  uint8_t id[16];
  int feature; /* Ringback__V1__Feature */
  bool paused;
  bool feature_default;
  struct store_settings settings;
  int64_t create_ms, update_ms;
  const char *etag;
  int64_t waiting, delayed, running, success, failed, cancel;
  int64_t oldest_waiting_ms; /* age; -1: none waits */
};

typedef void store_queues_done(void *context, const struct store_error *error, const struct store_queue *queues,
                               size_t count);

/* One queue in the answer for each feature, in that order. */
void store_activate(struct store *store, const char *bucket, const int *features, size_t count,
                    const struct store_settings *defaults, store_queues_done *done, void *context);
void store_create_queue(struct store *store, const char *bucket, const char *queue, int feature,
                        const struct store_settings *settings, store_queues_done *done, void *context);
void store_get_queue(struct store *store, const char *bucket, const char *queue, store_queues_done *done,
                     void *context);
/* Up to count queues whose names come after `after` ("" for the first); there may be more when count came. */
void store_list_queues(struct store *store, const char *bucket, const char *after, size_t count,
                       store_queues_done *done, void *context);
/* etag "" : whatever it is. */
void store_update_queue(struct store *store, const char *bucket, const char *queue, const char *etag, unsigned mask,
                        const struct store_settings *settings, store_queues_done *done, void *context);
void store_pause_queue(struct store *store, const char *bucket, const char *queue, bool paused, store_queues_done *done,
                       void *context);

typedef void store_count_done(void *context, const struct store_error *error, int64_t count);

void store_purge_queue(struct store *store, const char *bucket, const char *queue, store_count_done *done,
                       void *context);
void store_delete_queue(struct store *store, const char *bucket, const char *queue, bool force, store_count_done *done,
                        void *context);

/* --- jobs --- */

/* What the store itself must know of a new job, besides its packed JobSpec, which it keeps as it is. */
struct store_new_job {
  int priority;
  int64_t not_before_ms;  /* 0: now */
  int64_t expire_ms;      /* 0: never */
  int64_t lease_ms;       /* 0: the queue's default */
  int64_t run_timeout_ms; /* 0: none */
  int max_attempts;       /* 0: the queue's */
  bool callback_none;
  const char *callback_url; /* NULL: the queue's rule */
  struct bytes spec;        /* packed Ringback__V1__JobSpec: it begins with the tag, field 1 */
};

struct store_submit {
  const char *bucket;
  const char *queue; /* NULL: the default queue of `feature` */
  int feature;
  const char *request_id; /* "": none */
  uint64_t digest;        /* of the content, to tell another request under the same id */
  const struct store_new_job *jobs;
  size_t count; /* 1 to 250 */
};

struct store_submitted {
  bool repeated;
  const char *queue; /* its name */
  uint8_t queue_id[16];
  int state; /* Ringback__V1__JobState of the first job, Submitted or Pause unless repeated */
  const struct job_id *ids;
  size_t count;
};

typedef void store_submit_done(void *context, const struct store_error *error, const struct store_submitted *result);
void store_submit(struct store *store, const struct store_submit *request, store_submit_done *done, void *context);

/* A job as it is read. Texts are NUL-terminated and never NULL. */
struct store_job {
  struct job_id id;
  const char *queue; /* its name */
  uint8_t queue_id[16];
  int state;    /* Ringback__V1__JobState; Pause and purged jobs are derived already */
  int priority; /* the current one: ChangePriority does not touch the spec */
  int progress;
  int attempts;
  int64_t due_ms;           /* when it becomes or became leasable */
  int64_t start_ms, end_ms; /* 0: not yet */
  const char *code, *message, *worker;
  struct bytes spec;   /* packed JobSpec */
  struct bytes result; /* packed Payload; empty: none */
  int64_t fencing_token;
  int64_t lease_expire_ms; /* of a lease just granted; later ones are not kept here */
};

struct store_jobs {
  const struct store_job *jobs;
  size_t count;
  const struct job_id *missing; /* get: ids that no job of the bucket has */
  size_t missing_count;
  size_t looked_at;          /* get: how many of the ids were looked at before the answer was full */
  const char *next_position; /* list: where to go on; "" at the end */
  const char *watch_cursor;  /* list */
};

typedef void store_jobs_done(void *context, const struct store_error *error, const struct store_jobs *result);

void store_get_jobs(struct store *store, const char *bucket, const struct job_id *ids, size_t count,
                    store_jobs_done *done, void *context);

struct store_filter {
  const char *queue;
  const char *tag;  /* "": any */
  unsigned states;  /* bit 1 << Ringback__V1__JobState; 0: any. Submitted and Pause are the same. */
  int64_t start_ms; /* 0: none */
  int64_t end_ms;   /* 0: none; exclusive */
};

void store_list_jobs(struct store *store, const char *bucket, const struct store_filter *filter, bool ascending,
                     size_t count, const char *position, store_jobs_done *done, void *context);

/* What became of each item of a batch. */
struct store_item {
  struct store_error error; /* code STORE_OK: done */
  int state;                /* finish: Ringback__V1__JobState afterwards */
  int stop_reason;          /* renew: Ringback__V1__StopReason when not OK */
  int64_t lease_expire_ms;  /* renew */
};

struct store_items {
  const struct store_item *items; /* by id: one an id, in order */
  size_t count;
  int64_t changed;           /* cancel and retry: how many jobs this call changed */
  const char *next_position; /* by filter: "" when everything has been examined */
};

typedef void store_items_done(void *context, const struct store_error *error, const struct store_items *result);

void store_cancel_jobs(struct store *store, const char *bucket, const struct job_id *ids, size_t count,
                       store_items_done *done, void *context);
void store_cancel_filter(struct store *store, const char *bucket, const struct store_filter *filter,
                         const char *position, store_items_done *done, void *context);
void store_retry_jobs(struct store *store, const char *bucket, const struct job_id *ids, size_t count,
                      store_items_done *done, void *context);
void store_retry_filter(struct store *store, const char *bucket, const struct store_filter *filter,
                        const char *position, store_items_done *done, void *context);
/* The result has the one job as it is afterwards. */
void store_change_priority(struct store *store, const char *bucket, const struct job_id *id, int priority,
                           store_jobs_done *done, void *context);

struct store_explanation {
  struct store_job job;
  int reason; /* Ringback__V1__WaitReason */
  int64_t position, waiting, running, max_concurrent;
  int64_t lease_expire_ms; /* 0: not running */
};

typedef void store_explain_done(void *context, const struct store_error *error, const struct store_explanation *result);
void store_explain_job(struct store *store, const char *bucket, const struct job_id *id, store_explain_done *done,
                       void *context);

struct store_event {
  struct job_id id;
  const char *queue; /* its name; "" when the queue is gone */
  int state;
  int progress;
  int64_t time_ms;
};

struct store_events {
  const struct store_event *events;
  size_t count;
  const char *cursor; /* after these events; never empty */
  bool more;          /* there is more to read at once */
};

typedef void store_watch_done(void *context, const struct store_error *error, const struct store_events *result);
/* cursor "": from now on. When there is nothing new the next change of the bucket is published to store_key_watch. */
void store_watch(struct store *store, const char *bucket, const char *cursor, store_watch_done *done, void *context);

/* --- workers --- */

struct store_lease {
  const char *bucket;
  const char *const *queues;
  size_t queue_count; /* 1 to 100 */
  size_t max_jobs;    /* 1 to 250 */
  const char *worker;
  int64_t lease_ms; /* 0: each job's or its queue's */
};

struct store_leased {
  const struct store_job *jobs; /* with fencing_token and lease_expire_ms */
  size_t count;
  const uint64_t *wait_keys; /* what rpc_park waits for: one a queue of the request, in order */
  size_t wait_key_count;
};

typedef void store_lease_done(void *context, const struct store_error *error, const struct store_leased *result);
void store_lease(struct store *store, const struct store_lease *request, store_lease_done *done, void *context);

struct store_renewal {
  struct job_id id;
  int64_t fencing_token;
  int progress;
  int64_t extension_ms; /* 0: as granted */
};

void store_renew(struct store *store, const char *bucket, const struct store_renewal *renewals, size_t count,
                 store_items_done *done, void *context);

enum store_retry { STORE_RETRY_DEFAULT, STORE_RETRY_NEVER, STORE_RETRY_AFTER };

struct store_finish {
  struct job_id id;
  int64_t fencing_token;
  bool success;
  const char *code; /* failure */
  const char *message;
  struct bytes result; /* packed Payload */
  enum store_retry retry;
  int64_t after_ms;
};

void store_finish(struct store *store, const char *bucket, const struct store_finish *jobs, size_t count,
                  store_items_done *done, void *context);

struct store_release {
  struct job_id id;
  int64_t fencing_token;
};

void store_release(struct store *store, const char *bucket, const struct store_release *leases, size_t count,
                   store_items_done *done, void *context);

/* --- upkeep --- */

struct store_sweep_result {
  int64_t changed;     /* what this slice did; another slice is due at once when it is not 0 */
  int64_t next_due_ms; /* of the earliest timer; 0: none */
};

typedef void store_sweep_done(void *context, const struct store_error *error, const struct store_sweep_result *result);
/* One bounded slice of expired leases, due jobs, expiry, retention, abandoned claims and trash. */
void store_sweep(struct store *store, unsigned partition, store_sweep_done *done, void *context);

/* Where a repair goes on: a queue's number and a position in its deliveries. All zero: from the start, and afterwards:
 * all were seen. */
struct store_repair {
  uint64_t queue_number;
  char position[24];
  int64_t repaired; /* in this slice */
};

typedef void store_repair_done(void *context, const struct store_error *error, const struct store_repair *next);
/* One bounded slice of a look at whether deliveries are where their records say, which puts them there (65_repair.lua).
 */
void store_repair(struct store *store, unsigned partition, const struct store_repair *from, store_repair_done *done,
                  void *context);

typedef void store_timers_done(void *context, const struct store_error *error, const int64_t due_ms[PARTITIONS],
                               int64_t now_ms);
/* The earliest timer of every partition (INT64_MAX: none; 0 where trash waits). */
void store_timers(struct store *store, store_timers_done *done, void *context);

/* --- notifications --- */

/* Redis publishes to this channel; store_parse_notification tells what. */
extern const char store_channel[];

enum store_notification { STORE_NOTIFY_NONE, STORE_NOTIFY_KEY, STORE_NOTIFY_DUE };
/* KEY: *key is to be handed to rpc_server_wake. DUE: *key is a partition with a delivery due. */
enum store_notification store_parse_notification(const char *message, size_t length, uint64_t *key);

uint64_t store_key_queue(unsigned partition, uint64_t queue_number);
uint64_t store_key_watch(const char *bucket);
uint64_t store_key_delivery(const char *id);
uint64_t store_key_rule(unsigned partition, uint64_t queue_number);

#endif
