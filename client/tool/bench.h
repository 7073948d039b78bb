/* What the `bench` commands are made of: settings from options, the jobs that are sent and their ledger, the queue that
 * is made for them, one measured run, and the report. */
#ifndef RINGBACK_CLIENT_TOOL_BENCH_H
#define RINGBACK_CLIENT_TOOL_BENCH_H

#include "client/lib/load.h"
#include "client/tool/tool.h"
#include <stdatomic.h>

/* What the options say; a command that lacks an option has the default. */
struct bench_settings {
  unsigned in_flight, batch, workers, credit, connections, threads, priorities;
  uint64_t count, backlog; /* 0: no end; no limit */
  size_t payload_bytes;
  int64_t rate; /* calls a second; 0: closed loop */
  int64_t duration_ms, warm_up_ms;
  bool request_ids;
};

/* --- bench_jobs.c: what is sent, and what became of it --- */

#define BENCH_PAYLOAD_BYTES_MIN 24
#define BENCH_NUMBERS_MAX (UINT64_C(1) << 28)

struct bench_jobs;

/* Jobs for a queue by its full name. NULL when memory is short. */
struct bench_jobs *bench_jobs_create(const char *queue, const struct bench_settings *settings);
void bench_jobs_destroy(struct bench_jobs *jobs);
/* Fill in which callbacks submit, and which take jobs. */
void bench_jobs_calls(struct bench_jobs *jobs, struct load_calls *calls);
void bench_jobs_streams(struct bench_jobs *jobs, struct load_streams *streams);

/* The ledger at the end. */
struct bench_ledger {
  uint64_t accepted;    /* jobs whose submission was answered with OK */
  uint64_t unknown;     /* whose submission failed, which the server may have seen nevertheless */
  uint64_t arrived;     /* at workers, each counted once */
  uint64_t again;       /* arrivals beyond the first */
  uint64_t finished;    /* each counted once */
  uint64_t twice;       /* finishes beyond the first */
  uint64_t lost;        /* accepted and never finished */
  uint64_t unconfirmed; /* outcomes that were refused */
};
void bench_jobs_ledger(const struct bench_jobs *jobs, struct bench_ledger *ledger);

/* --- bench_queue.c: the queue --- */

struct bench_queue {
  const char *name; /* buckets/{bucket}/queues/{queue} */
  bool own;         /* made for this run, to be deleted */
};

/* The queue of --queue, or one of our own in a bucket of our own; callback_url may be NULL. With `empty` a given queue
 * is refused unless nothing waits or runs in it. Returns the exit status. */
int bench_queue_open(struct tool *tool, const char *given, bool empty, const char *callback_url,
                     struct bench_queue *queue);
/* Compares the server's counts with the ledger, where the queue is our own. False after saying what differs. */
bool bench_queue_check(struct tool *tool, const struct bench_queue *queue, const struct bench_ledger *ledger);
void bench_queue_close(struct tool *tool, struct bench_queue *queue);

/* --- bench_callbacks.c: the callbacks --- */

struct bench_callbacks {
  bool ended;          /* every one, before the wait was over */
  double seconds;      /* how long after the run that took, or the wait */
  int64_t undelivered; /* given up or suppressed, of the ended ones that the server keeps; -1: not known */
};

/* Waits at most so long for the callbacks of the queue. False after saying which have not been delivered. */
bool bench_callbacks_wait(struct tool *tool, const struct bench_queue *queue, int64_t limit_ms,
                          struct bench_callbacks *callbacks);

/* --- bench_run.c: a run --- */

struct bench_run {
  struct tool *tool;
  const struct bench_settings *settings;
  struct load_options options;
  bool by_jobs;        /* the rate is that of finished jobs rather than of submitted ones */
  bool may_leave;      /* the time's end may leave jobs in the queue */
  const char *unit;    /* "jobs" */
  const char *filling; /* what is going on where it is not measured, or NULL */
  /* Results. */
  enum load_end end;
  bool drained;
  struct ringback_error error;
  struct load_figures figures;
  /* What the progress line remembers. */
  struct load_figures before, latest;
  int64_t before_ns;
  unsigned ticks;
  double rate_now;
  uint64_t p50_now, p99_now;
};

/* Reads the options of the tool's command. */
void bench_settings_read(const struct tool *tool, const struct bench_settings *defaults,
                         struct bench_settings *settings);
/* Sets threads, connections and times; calls and streams are the caller's. */
void bench_run_init(struct bench_run *run, struct tool *tool, const struct bench_settings *settings);
/* TOOL_OK, or the exit status after saying what went wrong. Results are there in any case but when nothing ran. */
int bench_run_go(struct bench_run *run);
/* From here on SIGINT and SIGTERM end a run early; a second one does not wait for what is under way. */
void bench_signals_take(void);
bool bench_signals_came(void);

/* --- bench_report.c: the results --- */

/* ledger and callbacks may be NULL. */
void bench_report(const struct bench_run *run, const char *queue, const struct bench_ledger *ledger, bool good,
                  const struct bench_callbacks *callbacks);

/* bench.c */
extern const char bench_description[];
extern const struct bench_settings bench_settings_default;
extern const struct option_row bench_submit_options[], bench_work_options[], bench_cycle_options[],
    bench_latency_options[];
int command_bench_submit(struct tool *tool, int argc, char **argv);
int command_bench_work(struct tool *tool, int argc, char **argv);
int command_bench_cycle(struct tool *tool, int argc, char **argv);
int command_bench_latency(struct tool *tool, int argc, char **argv);

#endif
