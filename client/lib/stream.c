/*
 * Calls whose answer is a stream. A stream has a completion queue of its own and keeps one message ahead requested, so
 * that waiting with a time limit can give up and come back. It belongs to one thread at a time; only a canceller
 * reaches it from others.
 */
#include "client/lib/client.h"
#include "client/lib/error.h"
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>

struct ringback_stream {
  grpc_completion_queue *queue;
  grpc_call *call;
  const ProtobufCMessageDescriptor *output;
  struct ringback_canceller *canceller; /* may be NULL */
  struct cancellable cancellable;
  grpc_byte_buffer *sent;
  grpc_metadata_array headers;
  grpc_byte_buffer *received;
  struct call_status status;
  bool receiving; /* a message has been asked for and has not been taken */
  bool ended;     /* the status has been taken: `end` is valid */
  struct ringback_error end;
  /* Tags: their addresses tell the batches apart. */
  char started_tag, message_tag, status_tag;
};

static void stream_start(struct ringback_stream *stream, const grpc_op *ops, size_t count, void *tag) {
  grpc_call_error started = grpc_call_start_batch(stream->call, ops, count, tag, NULL);
  assert(started == GRPC_CALL_OK);
  (void)started;
}

static bool stream_pluck(struct ringback_stream *stream, void *tag, gpr_timespec deadline) {
  return grpc_completion_queue_pluck(stream->queue, tag, deadline, NULL).type != GRPC_QUEUE_TIMEOUT;
}

static void stream_receive(struct ringback_stream *stream) {
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
  op.data.recv_message.recv_message = &stream->received;
  stream->receiving = true;
  stream_start(stream, &op, 1, &stream->message_tag);
}

struct ringback_stream *ringback_stream_open(struct ringback_client *client, const char *path,
                                             const ProtobufCMessage *request,
                                             const struct ringback_call_options *options,
                                             struct ringback_error *error) {
  static const struct ringback_call_options defaults;
  struct ringback_error unwanted;
  struct method method;
  if (error == NULL)
    error = &unwanted;
  if (options == NULL)
    options = &defaults;
  error_clear(error);
  if (!method_find(path, &method) || !method.streaming) {
    error_set(error, RINGBACK_UNIMPLEMENTED, "%s is no method that answers with a stream", path);
    return NULL;
  }
  assert(request->descriptor == method.input);
  struct ringback_stream *stream = calloc(1, sizeof *stream);
  if (stream == NULL) {
    error_set(error, RINGBACK_RESOURCE_EXHAUSTED, "out of memory");
    return NULL;
  }
  error_clear(&stream->end);
  stream->output = method.output;
  stream->canceller = options->canceller;
  stream->queue = grpc_completion_queue_create_for_pluck(NULL);
  stream->call =
      call_create(client, path, stream->queue, call_deadline(options->timeout_ms != 0 ? options->timeout_ms : -1));
  stream->sent = call_pack(request);
  grpc_metadata_array_init(&stream->headers);
  call_status_init(&stream->status);
  canceller_add(stream->canceller, &stream->cancellable, stream->call);

  grpc_op ops[4] = {0};
  ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  ops[0].flags = call_initial_flags(options);
  ops[1].op = GRPC_OP_SEND_MESSAGE;
  ops[1].data.send_message.send_message = stream->sent;
  ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
  ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
  ops[3].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
  stream_start(stream, ops, 4, &stream->started_tag);
  grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
  end.data.recv_status_on_client.trailing_metadata = &stream->status.trailers;
  end.data.recv_status_on_client.status = &stream->status.code;
  end.data.recv_status_on_client.status_details = &stream->status.details;
  stream_start(stream, &end, 1, &stream->status_tag);
  stream_receive(stream);
  return stream;
}

/* Takes the status, which is there once no message comes any more. */
static void stream_take_end(struct ringback_stream *stream) {
  stream_pluck(stream, &stream->status_tag, gpr_inf_future(GPR_CLOCK_MONOTONIC));
  call_status_read(&stream->status, &stream->end);
  stream->ended = true;
}

enum ringback_stream_status ringback_stream_next(struct ringback_stream *stream, int64_t timeout_ms,
                                                 ProtobufCMessage **message, struct ringback_error *error) {
  struct ringback_error unwanted;
  if (error == NULL)
    error = &unwanted;
  error_clear(error);
  *message = NULL;
  if (!stream->ended) {
    if (!stream_pluck(stream, &stream->message_tag, call_deadline(timeout_ms)))
      return RINGBACK_STREAM_TIMEOUT;
    stream->receiving = false;
    if (stream->received != NULL) {
      *message = call_unpack(stream->output, stream->received, &stream->end);
      grpc_byte_buffer_destroy(stream->received);
      stream->received = NULL;
    }
    if (*message != NULL) {
      stream_receive(stream);
      return RINGBACK_STREAM_MESSAGE;
    }
    struct ringback_error malformed = stream->end;
    if (malformed.code != RINGBACK_OK)
      grpc_call_cancel(stream->call, NULL);
    stream_take_end(stream);
    if (malformed.code != RINGBACK_OK)
      stream->end = malformed;
  }
  *error = stream->end;
  return RINGBACK_STREAM_END;
}

void ringback_stream_close(struct ringback_stream *stream) {
  if (stream == NULL)
    return;
  gpr_timespec forever = gpr_inf_future(GPR_CLOCK_MONOTONIC);
  if (!stream->ended)
    grpc_call_cancel(stream->call, NULL);
  stream_pluck(stream, &stream->started_tag, forever);
  if (stream->receiving)
    stream_pluck(stream, &stream->message_tag, forever);
  if (!stream->ended)
    stream_pluck(stream, &stream->status_tag, forever);
  canceller_remove(stream->canceller, &stream->cancellable);
  if (stream->received != NULL)
    grpc_byte_buffer_destroy(stream->received);
  grpc_byte_buffer_destroy(stream->sent);
  grpc_metadata_array_destroy(&stream->headers);
  call_status_close(&stream->status);
  grpc_call_unref(stream->call);
  grpc_completion_queue_shutdown(stream->queue);
  grpc_completion_queue_destroy(stream->queue);
  free(stream);
}
