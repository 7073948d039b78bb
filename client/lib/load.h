/* A load generator over gRPC's C core: unary calls and Work streams, many at once on few threads, measured. It is what
 * `ringback bench` and the project's own comparisons run on, and no part of libringback.
 *
 * Closed loop: in_flight calls are kept going. Open loop (`rate`): calls start by the clock, and their latency counts
 * from when they should have started, so that a server that stalls is charged for every call that it held up.
 *
 * Callbacks run on the generator's threads, several at once, and must not block. Times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef RINGBACK_CLIENT_LIB_LOAD_H
#define RINGBACK_CLIENT_LIB_LOAD_H

#include "client/lib/histogram.h"
#include "client/lib/ringback.h"

#define LOAD_THREADS_MAX 64
#define LOAD_CONNECTIONS_MAX 1000
#define LOAD_IN_FLIGHT_MAX 100000
#define LOAD_STREAMS_MAX 10000
#define LOAD_CODES 17 /* the canonical ones of gRPC */

/* Unary calls. Every item that is sent has a number, from 0 on; a call has the next few of them. */
struct load_calls {
  const char *path;   /* "/ringback.v1.JobService/SubmitJob" */
  unsigned in_flight; /* 0: no calls at all */
  unsigned items;     /* of one call */
  double rate;        /* calls a second of all threads together; 0: closed loop */
  uint64_t items_max; /* in all; 0: no end */
  void *context;
  /* Whether a call may start now; asked again when something has come back. NULL: always. */
  bool (*may_start)(void *context);
  size_t (*request_bytes)(void *context, uint64_t first, unsigned items);
  void (*request_write)(void *context, uint64_t first, unsigned items, int64_t due_ns, uint8_t *bytes);
  /* Takes the answer of an ended call; the bytes are there when code is RINGBACK_OK. Returns how many items went well.
   */
  unsigned (*answered)(void *context, uint64_t first, unsigned items, int code, const uint8_t *bytes,
                       size_t byte_count);
};

/* Streams of WorkerService.Work whose jobs succeed at once. */
struct load_streams {
  unsigned count;  /* 0: none */
  unsigned credit; /* of each: jobs sent and not yet finished, 1 to 1,000 */
  const char *queue;
  void *context;
  /* Reads number and time of submission from a job's opaque operation. False: not one of ours, which ends the run. */
  bool (*arrived)(void *context, const uint8_t *payload, size_t byte_count, uint64_t *number, int64_t *due_ns);
  void (*finished)(void *context, uint64_t number, int code);
  /* How many jobs are still to be finished, once no more are submitted. */
  uint64_t (*left)(void *context);
};

struct load;

struct load_options {
  const char *target;
  unsigned connections, threads; /* of the calls; streams have as many again, at most one each */
  int64_t warm_up_ms;            /* not measured */
  int64_t duration_ms;           /* measured */
  int64_t timeout_ms;            /* of a call */
  int64_t drain_ms;              /* how long what is under way at the end may take */
  struct load_calls calls;
  struct load_streams streams;
  /* Called by the caller's own thread ten times a second, and where it returns false the run ends early. */
  void *context;
  bool (*tick)(void *context, struct load *load);
};

/* What has been measured, up to now or in all. */
struct load_figures {
  int64_t elapsed_ns;         /* of the measured time */
  bool measuring;             /* the warm-up is over */
  uint64_t calls, call_items; /* that went well */
  uint64_t failed;            /* calls */
  uint64_t codes[LOAD_CODES]; /* of calls, each code */
  uint64_t arrived, finished; /* jobs over streams */
  uint64_t finish_failed;
  uint64_t messages; /* that brought jobs */
  uint64_t request_bytes, response_bytes;
  int64_t cpu_ns;              /* of this process while measured */
  struct histogram call_ns;    /* due to answered */
  struct histogram arrival_ns; /* due to arrived at a worker */
};

enum load_end {
  LOAD_END_TIME,
  LOAD_END_COUNT,
  LOAD_END_STOPPED, /* by tick */
  LOAD_END_FAILED,  /* *error says why */
};

/* Connects. NULL with *error filled when the server cannot be reached in time or memory is short. The options must
 * outlive it. */
struct load *load_create(const struct load_options *options, struct ringback_error *error);
/* Runs to the end; once. *drained is false when something that was under way did not come to its end in time. The first
 * error of a call is in *error also when the run went on. */
enum load_end load_run(struct load *load, bool *drained, struct ringback_error *error);
/* While it runs (from tick) or afterwards. */
void load_read(struct load *load, struct load_figures *figures);
void load_destroy(struct load *load);

int64_t load_now_ns(void);

#endif
