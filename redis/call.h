/* Inside the store: one call of a function, from its arguments to its typed answer. Used by store_*.c only. */
#ifndef RINGBACK_REDIS_CALL_H
#define RINGBACK_REDIS_CALL_H

#include "redis/connection.h"
#include "redis/store.h"
#include "server/base/arena.h"

struct store_call;

/* Turns the reply of one call into what its caller's `done` takes. error is not OK: reply is a nil. */
typedef void call_answer(struct store_call *call, const struct store_error *error, const struct redis_value *reply);

struct store_call {
  struct arena *arena; /* lives until the answer has been given */
  const char *function;
  unsigned partition;
  struct bytes *arguments;
  size_t count, capacity;
  size_t items; /* jobs that it carries, for the bound on merging */
  size_t size;  /* bytes of its arguments */
  call_answer *answer;
  void (*done)(void); /* the caller's, cast back by `answer` */
  void *context;
  void *extra; /* what `answer` needs to know of the request */
  void *owner; /* for whom it is made (store_owners) */
  struct store_call *next;
};

/* A new call; arguments are added and then it is queued with call_send. */
struct store_call *call_create(struct store *store, const char *function, unsigned partition, call_answer *answer,
                               void (*done)(void), void *context);
/* Bytes are copied; text too. */
void call_add(struct store_call *call, struct bytes argument);
void call_add_text(struct store_call *call, const char *text);
void call_add_number(struct store_call *call, int64_t number);
void call_add_id(struct store_call *call, const struct job_id *id);
/* The argument lives in the call's arena already. */
void call_add_kept(struct store_call *call, struct bytes argument);
void call_send(struct store *store, struct store_call *call);

/* A plain command instead of a function, for upkeep; the reply comes as it is. */
void store_command(struct store *store, size_t count, const char *const *arguments, redis_reply_done *done,
                   void *context);

/* NUL-terminated, as long as the reply; numbers. */
const char *value_text(const struct redis_value *array, size_t index);
struct bytes value_bytes(const struct redis_value *array, size_t index);
int64_t value_number(const struct redis_value *array, size_t index);

/* A job as the functions tell of it. */
struct job_values {
  struct bytes record, state; /* as they are stored */
  struct bytes queue_id;
  const char *queue;
  int seen;         /* its state as a reader sees it */
  int64_t purge_ms; /* the queue's last purge */
};

/* All of a job but its id, which is there. False: not a job. */
bool job_read(struct store_call *call, const struct job_values *values, struct store_job *job);

/* The seven values of a job from `at` on (add_job of 30_jobs.lua). False: not a job. */
bool value_job(struct store_call *call, const struct redis_value *array, size_t at, struct store_job *job);

/* What became of each item: a number, or of a refused one {code, reason, number}. */
void answer_items(struct store_call *call, const struct store_error *error, const struct redis_value *reply);

#endif
