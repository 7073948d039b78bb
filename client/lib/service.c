/*
 * The face of a client as a ProtobufCService, so that the stubs of protoc-c call over gRPC. A stub has no place for an
 * error, so that of a thread's latest call is kept for the thread.
 */
#include "client/lib/error.h"
#include "client/lib/methods.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct client_service {
  ProtobufCService base; /* first: protobuf-c knows the service by it */
  struct ringback_client *client;
};

static _Thread_local struct ringback_error last_error;

const struct ringback_error *ringback_last_error(void) {
  return &last_error;
}

static void invoke_stream(struct ringback_client *client, const char *path, const ProtobufCMessage *input,
                          ProtobufCClosure closure, void *closure_data) {
  struct ringback_stream *stream = ringback_stream_open(client, path, input, NULL, &last_error);
  if (stream != NULL) {
    /* The closure may call through a service itself, which is why the end is kept aside. */
    struct ringback_error end;
    ProtobufCMessage *message;
    while (ringback_stream_next(stream, -1, &message, &end) == RINGBACK_STREAM_MESSAGE) {
      closure(message, closure_data);
      ringback_free(message);
    }
    ringback_stream_close(stream);
    last_error = end;
  }
  closure(NULL, closure_data);
}

static void service_invoke(ProtobufCService *base, unsigned method_index, const ProtobufCMessage *input,
                           ProtobufCClosure closure, void *closure_data) {
  struct client_service *service = (struct client_service *)base;
  assert(method_index < base->descriptor->n_methods);
  char path[METHOD_PATH_BYTES];
  struct method method;
  snprintf(path, sizeof path, "/%s/%s", base->descriptor->name, base->descriptor->methods[method_index].name);
  if (method_find(path, &method) && method.streaming) {
    invoke_stream(service->client, path, input, closure, closure_data);
    return;
  }
  ProtobufCMessage *response = ringback_call(service->client, path, input, NULL, &last_error);
  closure(response, closure_data);
  ringback_free(response);
}

static void service_destroy(ProtobufCService *service) {
  free(service);
}

ProtobufCService *ringback_service(struct ringback_client *client, const ProtobufCServiceDescriptor *descriptor) {
  struct client_service *service = calloc(1, sizeof *service);
  if (service == NULL)
    return NULL;
  service->base.descriptor = descriptor;
  service->base.invoke = service_invoke;
  service->base.destroy = service_destroy;
  service->client = client;
  return &service->base;
}
