/* What the modules of the library that speak gRPC share: the client itself, and the pieces of a call. */
#ifndef RINGBACK_CLIENT_LIB_CLIENT_H
#define RINGBACK_CLIENT_LIB_CLIENT_H

#include "client/lib/methods.h"
#include "client/lib/ringback.h"
#include <grpc/grpc.h>
#include <pthread.h>

struct ringback_client {
  grpc_channel *channel;
  int64_t timeout_ms;
  int attempts_max;
};

/* A call that a canceller can reach; embedded in whoever runs the call. */
struct cancellable {
  grpc_call *call;
  struct cancellable *next;
  struct cancellable **link; /* what points here */
};

struct ringback_canceller {
  pthread_mutex_t mutex;
  pthread_cond_t changed; /* on the monotonic clock */
  bool cancelled;
  struct cancellable *calls;
};

/* Puts a call under a canceller, which may be NULL. A canceller that has fired cancels it at once. */
void canceller_add(struct ringback_canceller *canceller, struct cancellable *entry, grpc_call *call);
/* Must come before the call is given back. */
void canceller_remove(struct ringback_canceller *canceller, struct cancellable *entry);
/* Waits; false when it was cancelled. */
bool canceller_wait_ms(struct ringback_canceller *canceller, int64_t wait_ms);

/* How a call ended. */
struct call_status {
  grpc_metadata_array trailers;
  grpc_status_code code;
  grpc_slice details;
};

void call_status_init(struct call_status *status);
void call_status_close(struct call_status *status);
/* Fills an error from an ended call. */
void call_status_read(const struct call_status *status, struct ringback_error *error);

/* `timeout_ms` from now on the monotonic clock; negative means never. */
gpr_timespec call_deadline(int64_t timeout_ms);
grpc_call *call_create(struct ringback_client *client, const char *method, grpc_completion_queue *queue,
                       gpr_timespec deadline);
grpc_byte_buffer *call_pack(const ProtobufCMessage *request);
/* NULL with *error filled when the bytes are no such message. The buffer stays the caller's. */
ProtobufCMessage *call_unpack(const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer,
                              struct ringback_error *error);
uint32_t call_initial_flags(const struct ringback_call_options *options);

#endif
