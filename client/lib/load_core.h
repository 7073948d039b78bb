/* What the files of the load generator share: a thread with its completion queue, and what its calls and streams do
 * when a batch of theirs is done. Each call and each stream belongs to one thread for life; only pokes, stages and
 * counters cross. */
#ifndef RINGBACK_CLIENT_LIB_LOAD_CORE_H
#define RINGBACK_CLIENT_LIB_LOAD_CORE_H

#include "client/lib/client.h"
#include "client/lib/load.h"
#include <pthread.h>
#include <stdatomic.h>

/* In this order and never back. */
enum load_stage {
  LOAD_RUNNING,
  LOAD_DRAINING,   /* no more calls start */
  LOAD_CLOSING,    /* streams say goodbye */
  LOAD_CANCELLING, /* whatever still goes on is cancelled */
};

/* The tag of a batch, embedded in whoever waits for it. */
struct load_tag {
  void (*done)(struct load_tag *tag, bool ok);
};

/* What one thread counts; only it writes. */
struct load_counters {
  _Atomic uint64_t calls, call_items, failed, codes[LOAD_CODES], arrived, finished, finish_failed, messages;
  _Atomic uint64_t request_bytes, response_bytes;
  _Atomic int64_t last_ns; /* of what was measured */
  struct histogram call_ns, arrival_ns;
};

struct load_slot;
struct load_stream;

struct load_thread {
  struct load *load;
  unsigned index;
  pthread_t thread;
  bool started;
  grpc_completion_queue *queue;
  grpc_call *lame_call; /* its empty batches wake the thread */
  struct load_tag poke_tag;
  atomic_bool poked, gated; /* gated: has room for a call that may_start held back */
  unsigned pending;         /* batches under way */
  _Atomic uint64_t in_flight;
  struct load_slot *slots, *free_slots;
  unsigned slot_count;
  struct load_stream *streams;
  unsigned stream_count;
  uint64_t calls_started; /* this thread's, for the open loop */
  int64_t rest_until_ns;  /* after an error */
  bool closing, cancelled;
  struct load_counters counters;
};

struct load {
  const struct load_options *options;
  struct ringback_client **connections; /* of the calls, then of the streams */
  void **registered;                    /* of each connection of the calls: its method */
  unsigned call_connections, stream_connections;
  grpc_channel *lame_channel;
  struct load_thread *threads;
  unsigned thread_count;
  atomic_int stage;
  _Atomic uint64_t next_item;
  atomic_bool items_over; /* items_max is reached */
  _Atomic int64_t start_ns, measure_from_ns, measure_until_ns;
  _Atomic int64_t cpu_from_ns, cpu_until_ns;
  atomic_bool failed;
  pthread_mutex_t mutex; /* of the error */
  struct ringback_error error;
};

/* Counting by the one thread that writes. */
static inline void load_count(_Atomic uint64_t *counter, uint64_t more) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

static inline enum load_stage load_stage(struct load *load) {
  return (enum load_stage)atomic_load_explicit(&load->stage, memory_order_relaxed);
}

/* Whether what belongs to this time is measured. */
static inline bool load_measures(struct load *load, int64_t time_ns) {
  return time_ns >= atomic_load_explicit(&load->measure_from_ns, memory_order_relaxed) &&
         time_ns < atomic_load_explicit(&load->measure_until_ns, memory_order_relaxed);
}

void load_start(struct load_thread *thread, grpc_call *call, const grpc_op *ops, size_t count, struct load_tag *tag);
void load_poke(struct load_thread *thread);
/* Pokes the threads whose calls wait for may_start. */
void load_poke_gated(struct load *load);
/* Keeps the first error; a fatal one ends the run. */
void load_tell(struct load *load, const struct ringback_error *error, bool fatal);
/* The bytes of a message where they lie, or in a copy when they lie in pieces: *slice is to be unreffed. */
struct wire load_bytes(grpc_byte_buffer *buffer, grpc_slice *slice);

/* load_call.c */
bool load_calls_open(struct load_thread *thread, unsigned count);
void load_calls_pump(struct load_thread *thread);
void load_calls_cancel(struct load_thread *thread);
void load_calls_close(struct load_thread *thread);

/* load_stream.c */
bool load_streams_open(struct load_thread *thread, unsigned count);
void load_streams_start(struct load_thread *thread);
void load_streams_end(struct load_thread *thread);
void load_streams_cancel(struct load_thread *thread);
void load_streams_close(struct load_thread *thread);

#endif
