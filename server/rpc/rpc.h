/* The bridge between the gRPC C core and protobuf-c: services are tables of plain C functions that know neither.
 *
 * A server has N threads, each with one completion queue. A call stays with its thread for life, so no call has a lock.
 * A thread takes whatever events are ready, runs the handlers, calls `step` of its hooks (which sends what the handlers
 * asked of the store and runs the continuations of what is answered), and goes on. A call stays as long as one of its
 * continuations is due (rpc_hold), so it cannot disappear between a handler and its continuation.
 *
 * Health and reflection are answered by a thread of their own, also while all others wait for what flush waits for.
 */
#ifndef RINGBACK_SERVER_RPC_RPC_H
#define RINGBACK_SERVER_RPC_RPC_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "google/rpc/status.pb-c.h"
#include "server/base/arena.h"

struct rpc_server;
struct rpc_call;

/* Canonical gRPC codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
enum rpc_code {
  RPC_OK = 0,
  RPC_CANCELLED = 1,
  RPC_UNKNOWN = 2,
  RPC_INVALID_ARGUMENT = 3,
  RPC_DEADLINE_EXCEEDED = 4,
  RPC_NOT_FOUND = 5,
  RPC_ALREADY_EXISTS = 6,
  RPC_PERMISSION_DENIED = 7,
  RPC_RESOURCE_EXHAUSTED = 8,
  RPC_FAILED_PRECONDITION = 9,
  RPC_ABORTED = 10,
  RPC_OUT_OF_RANGE = 11,
  RPC_UNIMPLEMENTED = 12,
  RPC_INTERNAL = 13,
  RPC_UNAVAILABLE = 14,
  RPC_DATA_LOSS = 15,
  RPC_UNAUTHENTICATED = 16,
};

/* Why a parked call is tried again. */
enum rpc_wake {
  RPC_WAKE_KEY,      /* something happened to one of its keys */
  RPC_WAKE_DEADLINE, /* its `until_ms` has come */
  RPC_WAKE_DRAIN,    /* the server is shutting down: end the call cleanly */
};

/* One method. Which functions apply follows from the method's shape, which is taken from the descriptor set. */
struct rpc_method {
  const char *name; /* as in the .proto: "SubmitJobs" */

  /* Unary and server-streaming: the request has arrived. Client- and bidi-streaming: the call has begun, request is
   * NULL. The request lives in the call's arena, as long as the call. */
  void (*start)(struct rpc_call *call, const ProtobufCMessage *request);

  /* Client- and bidi-streaming: one more message; it lives until this function returns or, if the function needs it
   * longer, must be copied. Reading of the next one begins when it returns, unless rpc_pause_reading was called. */
  void (*message)(struct rpc_call *call, const ProtobufCMessage *message);

  /* Client- and bidi-streaming: the peer has finished sending. */
  void (*half_closed)(struct rpc_call *call);

  /* Streaming answers: the message given to rpc_send has been taken by the transport; another may be sent. */
  void (*writable)(struct rpc_call *call);

  /* A parked call is to be tried again. It is no longer parked: answer it or park it again (with RPC_WAKE_DEADLINE and
   * RPC_WAKE_DRAIN: answer it). */
  void (*wake)(struct rpc_call *call, enum rpc_wake why);

  /* The call is over before it was answered: the peer cancelled or went away, the deadline passed, or a streamed
   * message could not be decoded (which answers the call). The last function called with this call; the call's arena is
   * still there. Never called after rpc_reply, rpc_fail or rpc_end, and, but for a message that cannot be decoded,
   * never while a continuation is due. Optional. */
  void (*closed)(struct rpc_call *call);

  /* The call was answered, but the answer could not be handed to the transport, because the peer was gone by then (that
   * it is not called does not mean that the peer has read the answer). Unary and client-streaming only. The last
   * function called with this call. Optional. */
  void (*undelivered)(struct rpc_call *call);
};

struct rpc_service {
  const ProtobufCServiceDescriptor *descriptor;
  const struct rpc_method
      *methods; /* ended by a row without a name; a method of the .proto without a row is UNIMPLEMENTED */
};

/* What a thread does besides calls. */
struct rpc_hooks {
  void *context;                                              /* handed to thread_open */
  void *(*thread_open)(void *context, unsigned thread_index); /* NULL: the server does not start */
  /* What handlers ask of whatever answers later, all three or none. `asked` counts what was ever queued, `answered` is
   * up to where all of it has been answered (in whatever order). While they differ, `step` is called between events:
   * it sends what is queued, waits a little for an answer, a millisecond at most, and runs the continuations of those
   * that are there, each between rpc_begin and rpc_let_go. */
  void (*step)(void *thread);
  uint64_t (*asked)(const void *thread);
  uint64_t (*answered)(const void *thread);
  void (*thread_close)(void *thread);
};

/* A number that is 0 stands for its default. */
struct rpc_options {
  const char *listen;                  /* host:port, port 0 for any */
  unsigned threads;                    /* 1 to 64; default 1 */
  unsigned calls_max;                  /* calls in hand, above which a new one is RESOURCE_EXHAUSTED; default 10,000 */
  unsigned parked_max;                 /* parked calls, above which rpc_park is refused; default 5,000 */
  unsigned request_bytes_max;          /* one message received; default 4 MiB */
  unsigned header_bytes_max;           /* all metadata of one call; default 16 KiB */
  unsigned streams_per_connection_max; /* default 1,000 */
  const struct rpc_service *const *services; /* ended by NULL */
  /* A serialized FileDescriptorSet, with imports, of the services. NULL: ringback_descriptor_set. Lives as long as the
   * server. */
  const void *descriptor_set;
  size_t descriptor_set_size;
  struct rpc_hooks hooks;
};

/* What has happened since the start, for /metrics. Values are monotonous unless said otherwise. */
struct rpc_metrics {
  uint64_t calls_started;
  uint64_t calls_refused; /* by calls_max */
  uint64_t calls_in_hand; /* now */
  uint64_t calls_parked;  /* now */
  uint64_t codes[17];     /* calls ended, by code */
  uint64_t batches;       /* turns of a thread that had at least one event */
  uint64_t batch_events;  /* events in all of them */
};

/* Starts listening and the threads. NULL after logging why not (a bad address, the port is taken, thread_open refused).
 * grpc_init is called here; signals that main waits for must be blocked before. Handlers may run before this returns.
 */
struct rpc_server *rpc_server_create(const struct rpc_options *options);

/* The port that is listened on. */
int rpc_server_port(const struct rpc_server *server);

/* What health answers, for the server ("") and every service. Thread-safe. Starts as NOT_SERVING. */
void rpc_server_set_serving(struct rpc_server *server, bool serving);

/* Tries the calls parked under the key: shared waiters all, exclusive ones one after another in the order of their
 * first parking while each is answered or, being streams, goes on without waiting for the key again. Thread-safe;
 * called by the listener. The key 0 stands for every key.
 */
void rpc_server_wake(struct rpc_server *server, uint64_t key);

void rpc_server_metrics(const struct rpc_server *server, struct rpc_metrics *metrics);

/* Refuses new calls, wakes parked ones with RPC_WAKE_DRAIN, lets the others finish for at most grace_ms, then cancels
 * them. Blocks until every call is back. */
void rpc_server_drain(struct rpc_server *server, int64_t grace_ms);

/* After rpc_server_drain: joins the threads, frees everything, grpc_shutdown. */
void rpc_server_destroy(struct rpc_server *server);

/* --- for what answers later, on the call's own thread --- */

/* The call whose handler or continuation runs, NULL if none; what is asked now is asked for it. It stays until
 * rpc_let_go, which follows once for each rpc_hold; NULL may be handed back, too. */
struct rpc_call *rpc_hold(void);
/* Around the continuation: what it asks is asked for the same call. */
void rpc_begin(struct rpc_call *call);
void rpc_let_go(struct rpc_call *call);

/* --- within a call; all of it on the call's own thread --- */

struct arena *rpc_arena(struct rpc_call *call);       /* lives as long as the call */
void *rpc_thread(struct rpc_call *call);              /* what thread_open returned */
void *rpc_data(struct rpc_call *call);                /* the handler's own state, NULL at the start */
void rpc_set_data(struct rpc_call *call, void *data); /* usually from the arena */
int64_t rpc_deadline_ms(struct rpc_call *call);       /* wall clock, Unix ms; INT64_MAX: none */
const char *rpc_peer(struct rpc_call *call);          /* such as "ipv4:127.0.0.1:4711" */
const char *rpc_caller(struct rpc_call *call);        /* who calls: "anonymous" while the service has no keys */
const char *rpc_method_name(struct rpc_call *call);   /* "/ringback.v1.JobService/SubmitJobs" */
/* A request header (lower case), NULL when absent. Lives as long as the call. */
const char *rpc_header(struct rpc_call *call, const char *name);

/* Once, before rpc_reply: the answer leaves behind the next message of another call of this thread, or when everything
 * is answered that has been asked so far. For who has woken another beside: to it the message matters more. */
void rpc_reply_behind(struct rpc_call *call);

/* Unary, client-streaming: answers with OK. The message is serialized before this returns. The call is over for the
 * handler. */
void rpc_reply(struct rpc_call *call, const ProtobufCMessage *response);

/* Server- and bidi-streaming: sends one message; only one may be under way: the next after `writable`. True when it was
 * taken. */
bool rpc_send(struct rpc_call *call, const ProtobufCMessage *message);

/* Server- and bidi-streaming: ends the call with OK once what was sent is out. */
void rpc_end(struct rpc_call *call);

/* Any call: ends it with an error. */
void rpc_fail(struct rpc_call *call, enum rpc_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Any call: ends it with an error whose details (BadRequest, RetryInfo, ErrorInfo) go into grpc-status-details-bin. The
 * status is serialized before this returns. */
void rpc_fail_status(struct rpc_call *call, const Google__Rpc__Status *status);

/* Whether the call is answered, or its peer is known to be gone. Then sending and answering have no effect, and a
 * continuation that finds it true may undo what it did for the caller; `closed` still follows unless the call was
 * answered. */
bool rpc_is_over(const struct rpc_call *call);

/* Bidi- and client-streaming: no further `message` until rpc_resume_reading. */
void rpc_pause_reading(struct rpc_call *call);
void rpc_resume_reading(struct rpc_call *call);

/* Parks the call under 1 to 100 keys until one of them is woken, until_ms (Unix ms, INT64_MAX: no end) has come, or the
 * server drains; then `wake` is called. A shared waiter is woken together with others. False when as many are parked as
 * parked_max allows: the call is then not parked and the handler must answer. A call that parks again keeps its place
 * in line. Cancelling a parked call unparks it. A handler may tell from rpc_is_over that its call ended. */
bool rpc_park(struct rpc_call *call, const uint64_t *keys, size_t key_count, bool shared, int64_t until_ms);

/* Tries the first call of this thread that waits exclusively for the key, at once: for a handler that has just queued
 * what it may be waiting for. False: there is none, or one is being tried. */
bool rpc_wake_beside(struct rpc_call *call, uint64_t key);

/* The call has had its turn: when it parks again it stands behind the others. */
void rpc_leave_line(struct rpc_call *call);

/* When this turn of the thread began, wall clock, Unix ms: one clock reading a turn. */
int64_t rpc_now_ms(struct rpc_call *call);

#endif
