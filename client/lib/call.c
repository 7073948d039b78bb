/*
 * The pieces of a call over gRPC's C core: deadlines, messages in and out of byte buffers, the status at the end, and
 * cancelling from another thread. Nothing here decides whether or when to call.
 */
#include "client/lib/client.h"
#include "client/lib/error.h"
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct ringback_canceller *ringback_canceller_create(void) {
  struct ringback_canceller *canceller = calloc(1, sizeof *canceller);
  if (canceller == NULL)
    return NULL;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&canceller->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_mutex_init(&canceller->mutex, NULL);
  return canceller;
}

void ringback_canceller_destroy(struct ringback_canceller *canceller) {
  if (canceller == NULL)
    return;
  pthread_cond_destroy(&canceller->changed);
  pthread_mutex_destroy(&canceller->mutex);
  free(canceller);
}

void ringback_cancel(struct ringback_canceller *canceller) {
  pthread_mutex_lock(&canceller->mutex);
  canceller->cancelled = true;
  for (struct cancellable *entry = canceller->calls; entry != NULL; entry = entry->next)
    grpc_call_cancel(entry->call, NULL);
  pthread_cond_broadcast(&canceller->changed);
  pthread_mutex_unlock(&canceller->mutex);
}

void canceller_add(struct ringback_canceller *canceller, struct cancellable *entry, grpc_call *call) {
  entry->call = call;
  if (canceller == NULL)
    return;
  pthread_mutex_lock(&canceller->mutex);
  entry->next = canceller->calls;
  entry->link = &canceller->calls;
  if (entry->next != NULL)
    entry->next->link = &entry->next;
  canceller->calls = entry;
  if (canceller->cancelled)
    grpc_call_cancel(call, NULL);
  pthread_mutex_unlock(&canceller->mutex);
}

void canceller_remove(struct ringback_canceller *canceller, struct cancellable *entry) {
  if (canceller == NULL)
    return;
  pthread_mutex_lock(&canceller->mutex);
  *entry->link = entry->next;
  if (entry->next != NULL)
    entry->next->link = entry->link;
  pthread_mutex_unlock(&canceller->mutex);
}

bool canceller_wait_ms(struct ringback_canceller *canceller, int64_t wait_ms) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += wait_ms / 1000;
  until.tv_nsec += wait_ms % 1000 * 1000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  if (canceller == NULL) {
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
    return true;
  }
  pthread_mutex_lock(&canceller->mutex);
  while (!canceller->cancelled && pthread_cond_timedwait(&canceller->changed, &canceller->mutex, &until) != ETIMEDOUT) {
  }
  bool cancelled = canceller->cancelled;
  pthread_mutex_unlock(&canceller->mutex);
  return !cancelled;
}

void call_status_init(struct call_status *status) {
  grpc_metadata_array_init(&status->trailers);
  status->code = GRPC_STATUS_UNKNOWN;
  status->details = grpc_empty_slice();
}

void call_status_close(struct call_status *status) {
  grpc_metadata_array_destroy(&status->trailers);
  grpc_slice_unref(status->details);
}

void call_status_read(const struct call_status *status, struct ringback_error *error) {
  if (status->code == GRPC_STATUS_OK) {
    error_clear(error);
    return;
  }
  size_t length = GRPC_SLICE_LENGTH(status->details);
  int shown = length < RINGBACK_MESSAGE_BYTES ? (int)length : RINGBACK_MESSAGE_BYTES - 1;
  const char *text = (const char *)GRPC_SLICE_START_PTR(status->details);
  error_set(error, (int)status->code, "%.*s", shown, text);
  if (length == 0)
    error_set(error, (int)status->code, "%s", ringback_code_name((int)status->code));
  for (size_t i = 0; i < status->trailers.count; i++) {
    const grpc_metadata *trailer = &status->trailers.metadata[i];
    if (grpc_slice_str_cmp(trailer->key, "grpc-status-details-bin") == 0)
      error_add_details(error, GRPC_SLICE_START_PTR(trailer->value), GRPC_SLICE_LENGTH(trailer->value));
  }
}

gpr_timespec call_deadline(int64_t timeout_ms) {
  if (timeout_ms < 0)
    return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

grpc_call *call_create(struct ringback_client *client, const char *method, grpc_completion_queue *queue,
                       gpr_timespec deadline) {
  grpc_slice path = grpc_slice_from_copied_string(method);
  grpc_call *call =
      grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue, path, NULL, deadline, NULL);
  grpc_slice_unref(path);
  return call;
}

grpc_byte_buffer *call_pack(const ProtobufCMessage *request) {
  grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(request));
  protobuf_c_message_pack(request, GRPC_SLICE_START_PTR(slice));
  grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  return buffer;
}

ProtobufCMessage *call_unpack(const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer,
                              struct ringback_error *error) {
  grpc_byte_buffer_reader reader;
  ProtobufCMessage *message = NULL;
  if (grpc_byte_buffer_reader_init(&reader, buffer)) {
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    message = protobuf_c_message_unpack(descriptor, NULL, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
    grpc_slice_unref(slice);
  }
  if (message == NULL)
    error_set(error, RINGBACK_INTERNAL, "the answer is no %s", descriptor->name);
  return message;
}

uint32_t call_initial_flags(const struct ringback_call_options *options) {
  if (options == NULL || !options->wait_for_ready)
    return 0;
  return GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
}
