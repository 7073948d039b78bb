/*
 * The unary calls of the load generator. A thread has as many slots as calls may be in flight; a slot's buffers and
 * metadata arrays are used again and again, so a call costs what gRPC costs and one byte buffer. What is called, with
 * which bytes, the caller's callbacks say.
 */
#include "client/lib/error.h"
#include "client/lib/load_core.h"
#include "client/lib/wire.h"
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdlib.h>

#define REST_NS 20000000 /* of a thread after an error that may pass */

struct load_slot {
  struct load_tag tag;
  struct load_thread *thread;
  struct load_slot *next_free;
  unsigned connection;
  grpc_call *call; /* NULL while free */
  uint64_t first;
  unsigned items;
  int64_t due_ns;
  size_t sent_bytes;
  grpc_byte_buffer *sent, *received;
  grpc_metadata_array headers;
  struct call_status status;
};

static void slot_done(struct load_tag *tag, bool ok);

bool load_calls_open(struct load_thread *thread, unsigned count) {
  thread->slots = calloc(count == 0 ? 1 : count, sizeof *thread->slots);
  if (thread->slots == NULL)
    return false;
  thread->slot_count = count;
  for (unsigned i = count; i-- > 0;) {
    struct load_slot *slot = &thread->slots[i];
    slot->tag.done = slot_done;
    slot->thread = thread;
    slot->connection = (thread->index + i * thread->load->thread_count) % thread->load->call_connections;
    slot->next_free = thread->free_slots;
    thread->free_slots = slot;
    grpc_metadata_array_init(&slot->headers);
    call_status_init(&slot->status);
  }
  return true;
}

void load_calls_close(struct load_thread *thread) {
  for (unsigned i = 0; thread->slots != NULL && i < thread->slot_count; i++) {
    grpc_metadata_array_destroy(&thread->slots[i].headers);
    call_status_close(&thread->slots[i].status);
  }
  free(thread->slots);
}

void load_calls_cancel(struct load_thread *thread) {
  for (unsigned i = 0; i < thread->slot_count; i++)
    if (thread->slots[i].call != NULL)
      grpc_call_cancel(thread->slots[i].call, NULL);
}

static void slot_start(struct load_slot *slot) {
  struct load_thread *thread = slot->thread;
  struct load *load = thread->load;
  const struct load_calls *calls = &load->options->calls;
  slot->sent_bytes = calls->request_bytes(calls->context, slot->first, slot->items);
  grpc_slice slice = grpc_slice_malloc(slot->sent_bytes);
  calls->request_write(calls->context, slot->first, slot->items, slot->due_ns, GRPC_SLICE_START_PTR(slice));
  slot->sent = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  slot->received = NULL;
  slot->headers.count = 0;
  slot->status.trailers.count = 0;
  slot->call = grpc_channel_create_registered_call(
      load->connections[slot->connection]->channel, NULL, GRPC_PROPAGATE_DEFAULTS, thread->queue,
      load->registered[slot->connection], call_deadline(load->options->timeout_ms), NULL);
  grpc_op ops[6] = {0};
  ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  ops[1].op = GRPC_OP_SEND_MESSAGE;
  ops[1].data.send_message.send_message = slot->sent;
  ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
  ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
  ops[3].data.recv_initial_metadata.recv_initial_metadata = &slot->headers;
  ops[4].op = GRPC_OP_RECV_MESSAGE;
  ops[4].data.recv_message.recv_message = &slot->received;
  ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
  ops[5].data.recv_status_on_client.trailing_metadata = &slot->status.trailers;
  ops[5].data.recv_status_on_client.status = &slot->status.code;
  ops[5].data.recv_status_on_client.status_details = &slot->status.details;
  load_count(&thread->in_flight, 1);
  load_start(thread, slot->call, ops, 6, &slot->tag);
}

/* The next numbers. False when there are none left. */
static bool take_items(struct load *load, struct load_slot *slot) {
  const struct load_calls *calls = &load->options->calls;
  slot->first = atomic_fetch_add_explicit(&load->next_item, calls->items, memory_order_relaxed);
  slot->items = calls->items;
  if (calls->items_max == 0)
    return true;
  if (slot->first >= calls->items_max) {
    atomic_store(&load->items_over, true);
    return false;
  }
  if (calls->items_max - slot->first < slot->items)
    slot->items = (unsigned)(calls->items_max - slot->first);
  if (slot->first + slot->items >= calls->items_max)
    atomic_store(&load->items_over, true);
  return true;
}

/* When this thread's next call is due; the threads' turns interleave. */
static int64_t due_ns(const struct load_thread *thread) {
  struct load *load = thread->load;
  uint64_t turn = thread->calls_started * load->thread_count + thread->index;
  return atomic_load_explicit(&load->start_ns, memory_order_relaxed) +
         (int64_t)((double)turn * 1e9 / load->options->calls.rate);
}

void load_calls_pump(struct load_thread *thread) {
  struct load *load = thread->load;
  const struct load_calls *calls = &load->options->calls;
  while (thread->free_slots != NULL && load_stage(load) == LOAD_RUNNING &&
         !atomic_load_explicit(&load->items_over, memory_order_relaxed)) {
    int64_t now_ns = load_now_ns(), start_ns = now_ns;
    if (now_ns < thread->rest_until_ns)
      return;
    if (calls->rate > 0 && (start_ns = due_ns(thread)) > now_ns)
      return;
    if (calls->may_start != NULL && !calls->may_start(calls->context)) {
      atomic_store(&thread->gated, true);
      /* It may have been let go between the question and the flag. */
      if (!calls->may_start(calls->context))
        return;
    }
    struct load_slot *slot = thread->free_slots;
    if (!take_items(load, slot))
      return;
    thread->free_slots = slot->next_free;
    thread->calls_started++;
    slot->due_ns = start_ns;
    slot_start(slot);
  }
}

/* Whether calling again may fare better. */
static bool may_pass(int code) {
  return code == RINGBACK_UNAVAILABLE || code == RINGBACK_RESOURCE_EXHAUSTED || code == RINGBACK_DEADLINE_EXCEEDED ||
         code == RINGBACK_ABORTED || code == RINGBACK_CANCELLED || code == RINGBACK_UNKNOWN ||
         code == RINGBACK_INTERNAL;
}

static void slot_failed(struct load_slot *slot, int64_t now_ns) {
  struct load_thread *thread = slot->thread;
  if (load_stage(thread->load) == LOAD_CANCELLING)
    return;
  struct ringback_error error;
  call_status_read(&slot->status, &error);
  if (error.code == RINGBACK_OK)
    error_set(&error, RINGBACK_INTERNAL, "the server answered without a message, or with items refused");
  load_tell(thread->load, &error, !may_pass(error.code));
  thread->rest_until_ns = now_ns + REST_NS;
}

static void slot_done(struct load_tag *tag, bool ok) {
  (void)ok;
  struct load_slot *slot = (struct load_slot *)tag;
  struct load_thread *thread = slot->thread;
  struct load *load = thread->load;
  const struct load_calls *calls = &load->options->calls;
  int64_t now_ns = load_now_ns();
  int code = slot->received == NULL && slot->status.code == GRPC_STATUS_OK ? RINGBACK_INTERNAL : (int)slot->status.code;
  grpc_slice slice = grpc_empty_slice();
  struct wire bytes = {NULL, NULL};
  if (slot->received != NULL)
    bytes = load_bytes(slot->received, &slice);
  size_t byte_count = (size_t)(bytes.end - bytes.at);
  unsigned good = calls->answered(calls->context, slot->first, slot->items, code, bytes.at, byte_count);
  if (load_measures(load, calls->rate > 0 ? slot->due_ns : now_ns)) {
    struct load_counters *counters = &thread->counters;
    load_count(&counters->codes[code >= 0 && code < LOAD_CODES ? code : RINGBACK_UNKNOWN], 1);
    load_count(&counters->request_bytes, slot->sent_bytes);
    load_count(&counters->response_bytes, byte_count);
    load_count(code == RINGBACK_OK ? &counters->calls : &counters->failed, 1);
    load_count(&counters->call_items, good);
    if (code == RINGBACK_OK)
      histogram_record(&counters->call_ns, (uint64_t)(now_ns - slot->due_ns));
    atomic_store_explicit(&counters->last_ns, now_ns, memory_order_relaxed);
  }
  if (code != RINGBACK_OK || good < slot->items)
    slot_failed(slot, now_ns);

  grpc_slice_unref(slice);
  if (slot->received != NULL)
    grpc_byte_buffer_destroy(slot->received);
  grpc_byte_buffer_destroy(slot->sent);
  grpc_slice_unref(slot->status.details);
  slot->status.details = grpc_empty_slice();
  grpc_call_unref(slot->call);
  slot->call = NULL;
  slot->next_free = thread->free_slots;
  thread->free_slots = slot;
  load_count(&thread->in_flight, (uint64_t)-1);
}
