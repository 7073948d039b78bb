/* The life of a call: armed, arrived, handled, answered, released. One context owns every buffer of its call and is
 * used again afterwards.
 *
 * A context is released when either its final status was sent or its peer is gone, and nothing knows of it any more: no
 * batch, no list of its thread, and no continuation of its handler. That the peer is gone is told (`closed`) when no
 * continuation is due.
 */
#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/log.h"
#include "server/base/text.h"
#include "server/rpc/bridge.h"
#include "server/rpc/errors.h"
#include "server/rpc/wire_check.h"

#define OPS_MAX 3

static void on_arrived(void *self, bool ok);
static void on_closed(void *self, bool ok);
static void on_received(void *self, bool ok);
static void on_sent(void *self, bool ok);
static void on_answered(void *self, bool ok);

static void count(atomic_uint_least64_t *counter) {
  atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static struct rpc_call *call_take(struct rpc_thread *thread) {
  struct rpc_call *call = thread->spare;
  if (call) {
    thread->spare = call->next_done;
    thread->spare_count--;
  } else {
    call = malloc(sizeof *call);
    if (!call)
      abort();
  }
  memset(call, 0, sizeof *call);
  call->thread = thread;
  call->arrived = (struct rpc_tag){on_arrived, call};
  call->closed = (struct rpc_tag){on_closed, call};
  call->received = (struct rpc_tag){on_received, call};
  call->sent = (struct rpc_tag){on_sent, call};
  call->answered = (struct rpc_tag){on_answered, call};
  grpc_metadata_array_init(&call->headers);
  return call;
}

static void call_give(struct rpc_call *call) {
  struct rpc_thread *thread = call->thread;
  atomic_fetch_sub_explicit(&thread->lane->contexts, 1, memory_order_release);
  grpc_metadata_array_destroy(&call->headers);
  if (!call->method)
    grpc_call_details_destroy(&call->details);
  if (thread->spare_count == RPC_SPARE_CALLS_MAX) {
    free(call);
    return;
  }
  call->next_done = thread->spare;
  thread->spare = call;
  thread->spare_count++;
}

void call_free_spare(struct rpc_thread *thread) {
  while (thread->spare) {
    struct rpc_call *call = thread->spare;
    thread->spare = call->next_done;
    free(call);
  }
  thread->spare_count = 0;
}

void call_arm(struct rpc_thread *thread, struct rpc_bound_method *method) {
  struct rpc_call *call = call_take(thread);
  atomic_fetch_add_explicit(&thread->lane->contexts, 1, memory_order_relaxed);
  call->method = method;
  grpc_call_error error;
  if (method) {
    error = grpc_server_request_registered_call(thread->server->core, method->registered, &call->core, &call->deadline,
                                                &call->headers, method->request_streams ? NULL : &call->incoming,
                                                thread->queue, thread->queue, &call->arrived);
  } else {
    grpc_call_details_init(&call->details);
    error = grpc_server_request_call(thread->server->core, &call->core, &call->details, &call->headers, thread->queue,
                                     thread->queue, &call->arrived);
  }
  assert(error == GRPC_CALL_OK);
  (void)error;
}

static void call_start(struct rpc_call *call, const grpc_op *ops, size_t op_count, struct rpc_tag *tag) {
  grpc_call_error error = grpc_call_start_batch(call->core, ops, op_count, tag, NULL);
  assert(error == GRPC_CALL_OK);
  (void)error;
  call->pending++;
}

/* --- for which call something runs --- */

static _Thread_local struct rpc_call *running;

struct rpc_call *call_enter(struct rpc_call *call) {
  struct rpc_call *before = running;
  running = call;
  return before;
}

void call_leave(struct rpc_call *before) {
  running = before;
}

/* function NULL: the handler does not care. */
static void call_run(struct rpc_call *call, void (*function)(struct rpc_call *)) {
  if (!function)
    return;
  struct rpc_call *before = call_enter(call);
  function(call);
  call_leave(before);
}

struct rpc_call *rpc_hold(void) {
  if (running)
    running->asks++;
  return running;
}

void rpc_begin(struct rpc_call *call) {
  assert(!running);
  running = call;
}

void rpc_let_go(struct rpc_call *call) {
  running = NULL;
  if (!call)
    return;
  call->asks--;
  call_maybe_release(call);
}

/* --- the end of a call --- */

void call_maybe_release(struct rpc_call *call) {
  if (call->released || call->pending > 0 || call->asks > 0 || !call->over || !(call->final_started || call->peer_gone))
    return;
  assert(!call->parked);
  call->released = true;
  call->next_done = call->thread->done;
  call->thread->done = call;
}

static void call_release(struct rpc_call *call) {
  struct rpc_thread *thread = call->thread;
  atomic_fetch_sub_explicit(&thread->lane->calls_in_hand, 1, memory_order_relaxed);
  if (!call->final_started) {
    bool late = gpr_time_cmp(call->deadline, gpr_now(call->deadline.clock_type)) <= 0;
    count(&thread->counters.codes[late ? RPC_DEADLINE_EXCEEDED : RPC_CANCELLED]);
  }
  grpc_byte_buffer_destroy(call->incoming);
  grpc_byte_buffer_destroy(call->outgoing);
  if (call->has_trailer)
    grpc_slice_unref(call->trailer.value);
  grpc_slice_unref(call->message);
  grpc_call_unref(call->core);
  thread_give_arena(thread, call->arena);
  call_give(call);
}

void call_release_done(struct rpc_thread *thread) {
  while (thread->done) {
    struct rpc_call *call = thread->done;
    thread->done = call->next_done;
    call_release(call);
  }
}

void call_close_gone(struct rpc_thread *thread) {
  struct rpc_call *call = thread->gone, *next;
  for (thread->gone = NULL; call; call = next) {
    next = call->next_gone;
    if (call->asks > 0) {
      call->next_gone = thread->gone;
      thread->gone = call;
      continue;
    }
    if (!call->over) {
      park_remove(call);
      call->over = true;
      if (call->begun && call->method)
        call_run(call, call->method->handler->closed);
    }
    call->pending--;
    call_maybe_release(call);
  }
}

/* RECV_CLOSE is back: the call is complete, or its peer or its time is gone. */
static void on_closed(void *self, bool ok) {
  struct rpc_call *call = self;
  (void)ok;
  call->pending--;
  call->peer_gone = true;
  if (!call->over) {
    call->pending++;
    call->next_gone = call->thread->gone;
    call->thread->gone = call;
  }
  call_maybe_release(call);
}

static void on_answered(void *self, bool ok) {
  struct rpc_call *call = self;
  call->pending--;
  if (!ok && call->code == RPC_OK && call->method && !call->method->answer_streams)
    call_run(call, call->method->handler->undelivered);
  call_maybe_release(call);
}

static void call_start_final(struct rpc_call *call) {
  grpc_op ops[OPS_MAX];
  size_t op_count = 0;
  memset(ops, 0, sizeof ops);
  if (!call->headers_sent)
    ops[op_count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  call->headers_sent = true;
  if (call->outgoing && !call->method->answer_streams) {
    ops[op_count].op = GRPC_OP_SEND_MESSAGE;
    ops[op_count++].data.send_message.send_message = call->outgoing;
  }
  grpc_op *status = &ops[op_count++];
  status->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  status->data.send_status_from_server.status = (grpc_status_code)call->code;
  status->data.send_status_from_server.status_details = call->code == RPC_OK ? NULL : &call->message;
  if (call->has_trailer) {
    status->data.send_status_from_server.trailing_metadata = &call->trailer;
    status->data.send_status_from_server.trailing_metadata_count = 1;
  }
  call->final_started = true;
  count(&call->thread->counters.codes[call->code]);
  call_start(call, ops, op_count, &call->answered);
}

static void answer_behind(struct rpc_thread *thread) {
  while (thread->behind) {
    struct rpc_call *call = thread->behind;
    thread->behind = call->next_behind;
    call->pending--;
    call_start_final(call);
  }
}

/* The call is over for the handler; the status leaves at once, or after the message that is under way. */
static void call_finish(struct rpc_call *call, enum rpc_code code) {
  park_remove(call);
  call->over = true;
  call->code = code;
  if (call->sending) {
    call->end_wanted = true;
  } else if (call->reply_behind) {
    call->pending++;
    call->next_behind = call->thread->behind;
    call->thread->behind = call;
  } else {
    call_start_final(call);
    answer_behind(call->thread);
  }
}

void call_answer_behind(struct rpc_thread *thread) {
  if (thread->behind && thread_answered(thread) >= thread->behind_asked)
    answer_behind(thread);
}

void rpc_reply_behind(struct rpc_call *call) {
  call->reply_behind = true;
  call->thread->behind_asked = thread_asked(call->thread);
}

/* --- messages out --- */

static grpc_byte_buffer *message_serialize(const ProtobufCMessage *message) {
  size_t size = protobuf_c_message_get_packed_size(message);
  grpc_slice slice = grpc_slice_malloc(size);
  protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
  grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  return buffer;
}

void rpc_reply(struct rpc_call *call, const ProtobufCMessage *response) {
  assert(call->method && !call->method->answer_streams);
  if (call->over)
    return;
  call->outgoing = message_serialize(response);
  call_finish(call, RPC_OK);
}

bool rpc_send(struct rpc_call *call, const ProtobufCMessage *message) {
  assert(call->method && call->method->answer_streams);
  if (call->over || call->peer_gone || call->sending)
    return false;
  grpc_op ops[OPS_MAX];
  size_t op_count = 0;
  memset(ops, 0, sizeof ops);
  if (!call->headers_sent)
    ops[op_count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  call->headers_sent = true;
  call->outgoing = message_serialize(message);
  ops[op_count].op = GRPC_OP_SEND_MESSAGE;
  ops[op_count++].data.send_message.send_message = call->outgoing;
  call->sending = true;
  call_start(call, ops, op_count, &call->sent);
  answer_behind(call->thread);
  return true;
}

static void on_sent(void *self, bool ok) {
  struct rpc_call *call = self;
  call->pending--;
  call->sending = false;
  grpc_byte_buffer_destroy(call->outgoing);
  call->outgoing = NULL;
  if (call->end_wanted)
    call_start_final(call);
  else if (ok && !call->over && !call->peer_gone)
    call_run(call, call->method->handler->writable);
  call_maybe_release(call);
}

void rpc_end(struct rpc_call *call) {
  assert(call->method && call->method->answer_streams);
  if (!call->over)
    call_finish(call, RPC_OK);
}

void rpc_fail_status(struct rpc_call *call, const Google__Rpc__Status *status) {
  assert(status->code > RPC_OK && status->code <= RPC_UNAUTHENTICATED);
  if (call->over)
    return;
  const char *text = status->message ? status->message : "";
  call->message = grpc_slice_from_copied_buffer(text, text_utf8_cut(text, strlen(text), RPC_MESSAGE_BYTES_MAX));
  size_t size = google__rpc__status__get_packed_size(status);
  if (size <= RPC_DETAILS_BYTES_MAX) {
    memset(&call->trailer, 0, sizeof call->trailer);
    call->trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
    call->trailer.value = grpc_slice_malloc(size);
    google__rpc__status__pack(status, GRPC_SLICE_START_PTR(call->trailer.value));
    call->has_trailer = true;
  }
  call_finish(call, (enum rpc_code)status->code);
}

void rpc_fail(struct rpc_call *call, enum rpc_code code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  rpc_fail_status(call, rpc_status_vcreate(call->arena, code, format, arguments));
  va_end(arguments);
}

/* --- messages in --- */

/* NULL after the call was failed. */
static ProtobufCMessage *message_decode(struct rpc_call *call, grpc_byte_buffer *buffer, struct arena *arena) {
  grpc_byte_buffer_reader reader;
  if (!grpc_byte_buffer_reader_init(&reader, buffer)) {
    rpc_fail(call, RPC_INVALID_ARGUMENT, "the message cannot be read");
    return NULL;
  }
  grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
  grpc_byte_buffer_reader_destroy(&reader);
  struct wire_problem problem;
  ProtobufCMessage *message = NULL;
  if (!wire_check(call->method->input, GRPC_SLICE_START_PTR(whole), GRPC_SLICE_LENGTH(whole), call->arena, &problem)) {
    rpc_fail_field(call, problem.path, "%s", problem.description);
  } else {
    message = protobuf_c_message_unpack(call->method->input, arena_allocator(arena), GRPC_SLICE_LENGTH(whole),
                                        GRPC_SLICE_START_PTR(whole));
    if (!message)
      rpc_fail_field(call, "", "is not a valid protobuf message");
  }
  grpc_slice_unref(whole);
  return message;
}

static void call_defer(struct rpc_call *call) {
  if (call->deferred)
    return;
  struct rpc_thread *thread = call->thread;
  call->deferred = true;
  call->pending++;
  call->next_deferred = NULL;
  if (thread->deferred_last)
    thread->deferred_last->next_deferred = call;
  else
    thread->deferred_first = call;
  thread->deferred_last = call;
}

static void call_read(struct rpc_call *call) {
  if (call->over || call->peer_gone || call->reading || call->read_paused || call->half_closed || call->incoming)
    return;
  grpc_op op;
  memset(&op, 0, sizeof op);
  op.op = GRPC_OP_RECV_MESSAGE;
  op.data.recv_message.recv_message = &call->incoming;
  call->reading = true;
  call_start(call, &op, 1, &call->received);
}

static void call_deliver_message(struct rpc_call *call) {
  grpc_byte_buffer *buffer = call->incoming;
  call->incoming = NULL;
  ProtobufCMessage *message = message_decode(call, buffer, call->thread->message_arena);
  grpc_byte_buffer_destroy(buffer);
  if (!message) {
    call_run(call, call->method->handler->closed);
  } else if (call->method->handler->message) {
    struct rpc_call *before = call_enter(call);
    call->method->handler->message(call, message);
    call_leave(before);
  }
  arena_reset(call->thread->message_arena);
  call_read(call);
}

static void on_received(void *self, bool ok) {
  struct rpc_call *call = self;
  call->pending--;
  call->reading = false;
  if (call->over || call->peer_gone) {
    call_maybe_release(call);
    return;
  }
  if (call->incoming && !call->read_paused) {
    call_deliver_message(call);
    return;
  }
  if (!call->incoming) {
    /* Either the peer has finished, or it is gone, which must not be taken for the end of an upload: RECV_CLOSE will
     * say so. */
    call->half_closed = true;
    call->half_close_told = !ok || grpc_call_failed_before_recv_message(call->core);
  }
  call_defer(call);
}

void call_deliver_deferred(struct rpc_thread *thread) {
  while (thread->deferred_first) {
    struct rpc_call *call = thread->deferred_first;
    thread->deferred_first = call->next_deferred;
    if (!thread->deferred_first)
      thread->deferred_last = NULL;
    call->deferred = false;
    call->pending--;
    if (call->over || call->peer_gone) {
      call_maybe_release(call);
    } else if (call->incoming && !call->read_paused) {
      call_deliver_message(call);
    } else if (call->half_closed && !call->half_close_told) {
      call->half_close_told = true;
      call_run(call, call->method->handler->half_closed);
    }
  }
}

void rpc_pause_reading(struct rpc_call *call) {
  call->read_paused = true;
}

void rpc_resume_reading(struct rpc_call *call) {
  call->read_paused = false;
  if (call->incoming)
    call_defer(call);
  else
    call_read(call);
}

/* --- the beginning of a call --- */

static void start(struct rpc_call *call, const ProtobufCMessage *request) {
  struct rpc_call *before = call_enter(call);
  call->method->handler->start(call, request);
  call_leave(before);
}

static void call_begin(struct rpc_call *call) {
  const struct rpc_bound_method *method = call->method;
  if (method->request_streams) {
    call->begun = true;
    if (method->handler->start)
      start(call, NULL);
    call_read(call);
    return;
  }
  if (!call->incoming) {
    /* A client that gave up early, or one that sent no message; the first never reads this. */
    rpc_fail(call, RPC_INVALID_ARGUMENT, "the call carries no request message");
    return;
  }
  ProtobufCMessage *request = message_decode(call, call->incoming, call->arena);
  grpc_byte_buffer_destroy(call->incoming);
  call->incoming = NULL;
  if (request) {
    call->begun = true;
    start(call, request);
  }
}

static void on_arrived(void *self, bool ok) {
  struct rpc_call *call = self;
  struct rpc_thread *thread = call->thread;
  struct rpc_lane *lane = thread->lane;
  if (!ok) { /* the server is shutting down: nothing arrived, nothing more will */
    call_give(call);
    return;
  }
  call_arm(thread, call->method);
  count(&thread->counters.calls_started);
  unsigned in_hand = atomic_fetch_add_explicit(&lane->calls_in_hand, 1, memory_order_relaxed) + 1;
  call->arena = thread_take_arena(thread);
  call->message = grpc_empty_slice();
  if (!call->method)
    call->deadline = call->details.deadline;
  grpc_op op;
  memset(&op, 0, sizeof op);
  op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
  op.data.recv_close_on_server.cancelled = &call->cancelled;
  call_start(call, &op, 1, &call->closed);

  if (in_hand > lane->calls_max) {
    count(&thread->counters.calls_refused);
    rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "the server has %u calls in hand, as many as it takes", lane->calls_max);
  } else if (atomic_load_explicit(&thread->server->draining, memory_order_relaxed)) {
    rpc_fail(call, RPC_UNAVAILABLE, "the server is shutting down");
  } else if (!call->method) {
    rpc_fail(call, RPC_UNIMPLEMENTED, "unknown method %s", rpc_method_name(call));
  } else {
    call_begin(call);
  }
}

/* --- what handlers may ask --- */

struct arena *rpc_arena(struct rpc_call *call) {
  return call->arena;
}

void *rpc_thread(struct rpc_call *call) {
  return call->thread->context;
}

void *rpc_data(struct rpc_call *call) {
  return call->data;
}

void rpc_set_data(struct rpc_call *call, void *data) {
  call->data = data;
}

int64_t rpc_deadline_ms(struct rpc_call *call) {
  gpr_timespec deadline = gpr_convert_clock_type(call->deadline, GPR_CLOCK_REALTIME);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_REALTIME)) == 0)
    return INT64_MAX;
  return deadline.tv_sec * 1000 + deadline.tv_nsec / 1000000;
}

const char *rpc_peer(struct rpc_call *call) {
  if (!call->peer) {
    char *peer = grpc_call_get_peer(call->core);
    call->peer = arena_strdup(call->arena, peer ? peer : "unknown");
    gpr_free(peer);
  }
  return call->peer;
}

const char *rpc_caller(struct rpc_call *call) {
  (void)call;
  return "anonymous";
}

const char *rpc_method_name(struct rpc_call *call) {
  if (call->method)
    return call->method->path;
  return arena_strndup(call->arena, (const char *)GRPC_SLICE_START_PTR(call->details.method),
                       GRPC_SLICE_LENGTH(call->details.method));
}

const char *rpc_header(struct rpc_call *call, const char *name) {
  for (size_t i = 0; i < call->headers.count; i++) {
    const grpc_metadata *header = &call->headers.metadata[i];
    if (grpc_slice_str_cmp(header->key, name) == 0)
      return arena_strndup(call->arena, (const char *)GRPC_SLICE_START_PTR(header->value),
                           GRPC_SLICE_LENGTH(header->value));
  }
  return NULL;
}

bool rpc_is_over(const struct rpc_call *call) {
  return call->over || call->peer_gone;
}

int64_t rpc_now_ms(struct rpc_call *call) {
  return call->thread->now_ms;
}
