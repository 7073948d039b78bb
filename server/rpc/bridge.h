/* What the files of the RPC layer share, and nobody else sees. From the outside in: a server has lanes (a set of
 * methods with limits: one for the services, one for health and reflection), a lane has threads, a thread has one
 * completion queue and the calls on it.
 *
 * Everything in a thread or a call belongs to that thread, but for what is atomic and for the inbox, which has the
 * layer's only lock.
 */
#ifndef RINGBACK_SERVER_RPC_BRIDGE_H
#define RINGBACK_SERVER_RPC_BRIDGE_H

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/rpc/descriptor.h"
#include "server/rpc/rpc.h"

#define RPC_EVENTS_PER_BATCH_MAX 256
#define RPC_ARMED_PER_METHOD 16
#define RPC_ARMED_GENERIC 4
#define RPC_SPARE_CALLS_MAX 2048 /* contexts kept for reuse, a thread */
#define RPC_SPARE_ARENAS_MAX 512
#define RPC_INBOX_KEYS_MAX 4096 /* more than that stands for every key */
#define RPC_PARK_KEYS_MAX 100
#define RPC_PARK_QUIET_MAX 64
#define RPC_PARK_QUIET_MS 5
#define RPC_THREADS_MAX 64
#define RPC_SYSTEM_CALLS_MAX 2000 /* health and reflection have limits of their own */
#define RPC_SYSTEM_PARKED_MAX 1000

/* What a completion queue hands back. */
struct rpc_tag {
  void (*done)(void *self, bool ok);
  void *self;
};

struct rpc_bound_method {
  const struct rpc_method *handler;
  const ProtobufCMessageDescriptor *input;
  const char *path; /* "/ringback.v1.JobService/SubmitJob" */
  void *registered; /* gRPC's handle */
  bool request_streams, answer_streams;
};

struct rpc_lane {
  struct rpc_bound_method *methods;
  size_t method_count;
  unsigned calls_max, parked_max;
  atomic_uint calls_in_hand, calls_parked;
  atomic_uint contexts; /* armed or in hand: what gRPC may still write to */
};

/* One (call, key) of a parked call. */
struct park_waiter {
  struct rpc_call *call;
  uint64_t key;
  struct park_waiter *previous, *next; /* in the key's bucket, by ticket */
};

struct park_bucket {
  struct park_waiter *first, *last;
};

/* An exclusive waiter of a key that is being tried: when it is answered, the next one is. */
struct park_trial {
  uint64_t key;
  struct rpc_call *call;
  uint64_t ticket; /* the call's; it draws another when it is served */
  uint64_t asked;  /* when so much is answered, so is what it asked */
  bool beside;     /* tried together with what it waited for, and not because of a notification */
};

/* A key whose waiter was served beside. The notification of that is still to come and concerns nobody, so what comes in
 * these milliseconds waits until they are over, or until the key is tried anyway. */
struct park_quiet {
  uint64_t key;
  int64_t until_ms;
  bool told; /* a notification came */
};

struct park_lot {
  struct park_bucket *buckets;
  size_t bucket_mask;
  struct rpc_call **heap; /* every parked call, the earliest until_ms first */
  size_t heap_count, heap_capacity;
  struct rpc_call **scratch; /* as large as the heap */
  struct park_trial *trials;
  size_t trial_count, trial_capacity;
  struct park_quiet quiet[RPC_PARK_QUIET_MAX];
  size_t quiet_count;
  uint64_t next_ticket;
};

struct rpc_inbox {
  pthread_mutex_t lock; /* of all below */
  uint64_t *keys;       /* RPC_INBOX_KEYS_MAX */
  size_t count;
  bool everything; /* the key 0 came, or more keys than fit */
  bool signalled;  /* a wake-up is on its way to the completion queue */
  bool closed;
};

/* What was taken out of an inbox and is not tried yet. */
struct rpc_woken {
  uint64_t *keys; /* swapped with the inbox's */
  size_t count;
  bool everything;
  uint64_t asked; /* to be answered before */
};

struct rpc_counters {
  atomic_uint_least64_t calls_started, calls_refused, batches, batch_events, codes[17];
};

struct rpc_thread {
  struct rpc_server *server;
  struct rpc_lane *lane;
  unsigned index;
  pthread_t handle;
  bool started;
  grpc_completion_queue *queue;
  void *context;          /* what thread_open returned */
  struct rpc_hooks hooks; /* none of the system thread's */
  int64_t now_ms;
  bool poked; /* the inbox has something */

  struct rpc_inbox inbox;
  struct rpc_woken taken;
  grpc_channel *lame_channel;
  grpc_call *lame_call;
  struct rpc_tag woken;

  struct park_lot parked;
  struct rpc_call *deferred_first, *deferred_last; /* have a message or a half-close that is to be delivered */
  struct rpc_call *gone;                           /* their peers are gone; `closed` is due */
  struct rpc_call *behind;                         /* answered, but to leave behind another's message */
  uint64_t behind_asked;                           /* or when so much is answered */
  struct rpc_call *done;                           /* to be released at the end of the turn */
  struct rpc_call *spare;
  size_t spare_count;
  struct arena *spare_arenas[RPC_SPARE_ARENAS_MAX];
  size_t spare_arena_count;
  struct arena *message_arena; /* of one streamed message */
  struct rpc_counters counters;
};

struct rpc_server {
  grpc_server *core;
  int port;
  unsigned request_bytes_max;
  struct rpc_hooks hooks;
  struct rpc_lane services, system;
  struct rpc_thread *threads; /* the RPC threads, then the system thread */
  unsigned thread_count;      /* of the RPC threads */
  struct arena *arena;        /* paths, tables */
  struct descriptor_pool *descriptors;
  struct rpc_health *health;
  struct rpc_reflection *reflection;
  atomic_bool draining;
  bool drained;
};

struct rpc_call {
  struct rpc_thread *thread;
  struct rpc_bound_method *method;                                      /* NULL: a method that nobody serves */
  grpc_call *core;                                                      /* NULL while armed */
  struct rpc_call *next_deferred, *next_gone, *next_behind, *next_done; /* next_done also links spare ones */

  /* Filled by gRPC when the call arrives. */
  gpr_timespec deadline;
  grpc_metadata_array headers;
  grpc_call_details details; /* of generic calls only */

  struct rpc_tag arrived, closed, received, sent, answered;
  unsigned pending; /* batches under way, and lists of its thread that it stands in */
  unsigned asks;    /* what the store has not answered yet */

  struct arena *arena;
  void *data;
  const char *peer;
  grpc_byte_buffer *incoming; /* the request; of streams the message just received, held while reading is paused */
  grpc_byte_buffer *outgoing; /* must stay until its batch is back */
  int cancelled;              /* written by gRPC */

  bool over;      /* the handler has answered, or was told that the call is closed */
  bool peer_gone; /* RECV_CLOSE has said so */
  bool begun;     /* the handler knows of the call */
  bool headers_sent;
  bool sending;    /* a streamed message is under way */
  bool end_wanted; /* the final status waits for it */
  bool final_started;
  bool reading; /* a RECV_MESSAGE is under way */
  bool read_paused;
  bool half_closed; /* the peer has finished sending */
  bool half_close_told;
  bool deferred;
  bool released;

  /* The final status. */
  enum rpc_code code;
  grpc_slice message;
  grpc_metadata trailer; /* grpc-status-details-bin */
  bool has_trailer;

  bool parked, park_shared, drain_woken;
  bool reply_behind;
  uint64_t park_ticket; /* 0: never parked */
  bool park_anew;       /* draws another ticket when it parks again */
  int64_t park_until_ms;
  size_t park_index;           /* in the heap */
  struct park_waiter *waiters; /* in the arena */
  size_t waiter_count, waiter_capacity;
};

/* --- call.c: the batches of one call, and their completions --- */
/* Around everything that runs for a call, so that rpc_hold knows for which; call_enter's answer is for call_leave. */
struct rpc_call *call_enter(struct rpc_call *call);
void call_leave(struct rpc_call *before);
void call_arm(struct rpc_thread *thread, struct rpc_bound_method *method);
/* Hands over messages and half-closes that had to wait. */
void call_deliver_deferred(struct rpc_thread *thread);
/* Tells handlers of calls whose peers are gone and that have no continuation due. */
void call_close_gone(struct rpc_thread *thread);
/* Lets the answers leave that were to leave behind another call's message. */
void call_answer_behind(struct rpc_thread *thread);
void call_release_done(struct rpc_thread *thread);
void call_maybe_release(struct rpc_call *call);
void call_free_spare(struct rpc_thread *thread);

/* --- park.c --- */
void park_open(struct park_lot *lot, size_t parked_max);
void park_close(struct park_lot *lot);
void park_remove(struct rpc_call *call);
/* Unix ms, INT64_MAX: nobody waits for a time. */
int64_t park_next_deadline(const struct park_lot *lot);
/* Tries who waits for the keys (or, with everything set, everybody). */
void park_wake(struct rpc_thread *thread, const uint64_t *keys, size_t count, bool everything);
/* Tries the next exclusive waiter where the one tried before was served. */
void park_continue(struct rpc_thread *thread);
/* Wakes those whose time has come. */
void park_expire(struct rpc_thread *thread);
/* Ends everything that is parked. */
void park_drain(struct rpc_thread *thread);

/* --- thread.c --- */
bool thread_open(struct rpc_thread *thread, struct rpc_server *server, struct rpc_lane *lane, unsigned index);
void thread_arm(struct rpc_thread *thread);
void thread_start(struct rpc_thread *thread);
/* Joins, after every call is back. */
void thread_stop(struct rpc_thread *thread);
void thread_close(struct rpc_thread *thread);
/* Thread-safe. Without a key: just look (at `draining`). */
void thread_poke(struct rpc_thread *thread, const uint64_t *key);
/* The hooks' counts; 0 where there are none. */
uint64_t thread_asked(const struct rpc_thread *thread);
uint64_t thread_answered(const struct rpc_thread *thread);
struct arena *thread_take_arena(struct rpc_thread *thread);
void thread_give_arena(struct rpc_thread *thread, struct arena *arena);

/* --- health.c, reflection.c: services like any other, on the system thread --- */
struct rpc_health *health_create(struct rpc_server *server, const char *const *service_names, size_t count);
const struct rpc_service *health_service(void);
void health_set_serving(struct rpc_health *health, bool serving);
struct rpc_reflection *reflection_create(struct rpc_server *server, const char *const *service_names, size_t count);
const struct rpc_service *reflection_service_v1(void);
const struct rpc_service *reflection_service_v1alpha(void);

#endif
