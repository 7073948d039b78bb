/*
 * The client: a gRPC channel, and the blocking call with its repetitions. Every attempt has a completion queue of its
 * own that only its thread looks at, so threads share nothing but the channel and no lock is held while waiting.
 */
#include "client/lib/client.h"
#include "client/lib/error.h"
#include "client/lib/retry.h"
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS 30000
#define CONNECT_TIMEOUT_DEFAULT_MS 5000
#define KEEPALIVE_DEFAULT_MS 300000
#define KEEPALIVE_TIMEOUT_DEFAULT_MS 20000
#define RECEIVE_BYTES_MAX (16 << 20)
#define RESOLUTIONS_APART_MS 1000
#define CHANNEL_ARGUMENTS_MAX 12
#define LAST_ATTEMPT_MS 500

struct channel_arguments {
  size_t count;
  grpc_arg rows[CHANNEL_ARGUMENTS_MAX];
};

static void argument_integer(struct channel_arguments *arguments, const char *key, int64_t value) {
  assert(arguments->count < CHANNEL_ARGUMENTS_MAX);
  grpc_arg *row = &arguments->rows[arguments->count++];
  row->type = GRPC_ARG_INTEGER;
  row->key = (char *)key;
  row->value.integer = value > INT32_MAX ? INT32_MAX : (int)value;
}

static void argument_text(struct channel_arguments *arguments, const char *key, const char *value) {
  assert(arguments->count < CHANNEL_ARGUMENTS_MAX);
  grpc_arg *row = &arguments->rows[arguments->count++];
  row->type = GRPC_ARG_STRING;
  row->key = (char *)key;
  row->value.string = (char *)value;
}

static int64_t or_default(int64_t value, int64_t fallback) {
  return value > 0 ? value : fallback;
}

static grpc_channel *channel_create(const char *target, const struct ringback_options *options) {
  struct channel_arguments arguments = {0};
  argument_integer(&arguments, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   or_default(options->connect_timeout_ms, CONNECT_TIMEOUT_DEFAULT_MS));
  argument_integer(&arguments, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RETRY_FIRST_MS);
  argument_integer(&arguments, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RETRY_LONGEST_MS / 2);
  argument_integer(&arguments, GRPC_ARG_KEEPALIVE_TIME_MS, or_default(options->keepalive_ms, KEEPALIVE_DEFAULT_MS));
  argument_integer(&arguments, GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   or_default(options->keepalive_timeout_ms, KEEPALIVE_TIMEOUT_DEFAULT_MS));
  argument_integer(&arguments, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RECEIVE_BYTES_MAX);
  /* Each client has connections of its own. */
  argument_integer(&arguments, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  /* A web proxy from the environment has no business between a producer and its queue. */
  argument_integer(&arguments, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  /* Servers come and go behind one name: calls go to all of its addresses in turn, and a lost one has it asked again.
   */
  argument_text(&arguments, GRPC_ARG_LB_POLICY_NAME, "round_robin");
  argument_integer(&arguments, GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RESOLUTIONS_APART_MS);
  if (options->user_agent != NULL)
    argument_text(&arguments, GRPC_ARG_PRIMARY_USER_AGENT_STRING, options->user_agent);
  grpc_channel_args channel_args = {arguments.count, arguments.rows};
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  grpc_channel *channel = grpc_channel_create(target, credentials, &channel_args);
  grpc_channel_credentials_release(credentials);
  return channel;
}

struct ringback_client *ringback_connect(const char *target, const struct ringback_options *options,
                                         struct ringback_error *error) {
  static const struct ringback_options defaults;
  struct ringback_error unwanted;
  if (error == NULL)
    error = &unwanted;
  error_clear(error);
  if (options == NULL)
    options = &defaults;
  if (target == NULL || target[0] == '\0') {
    error_set(error, RINGBACK_INVALID_ARGUMENT, "the server's address is empty");
    return NULL;
  }
  struct ringback_client *client = calloc(1, sizeof *client);
  if (client == NULL) {
    error_set(error, RINGBACK_RESOURCE_EXHAUSTED, "out of memory");
    return NULL;
  }
  grpc_init();
  client->channel = channel_create(target, options);
  client->timeout_ms = or_default(options->timeout_ms, TIMEOUT_DEFAULT_MS);
  client->attempts_max = options->attempts_max > 0 ? options->attempts_max : RETRY_ATTEMPTS_DEFAULT;
  return client;
}

void ringback_disconnect(struct ringback_client *client) {
  if (client == NULL)
    return;
  grpc_channel_destroy(client->channel);
  grpc_shutdown();
  free(client);
}

void ringback_free(ProtobufCMessage *message) {
  protobuf_c_message_free_unpacked(message, NULL);
}

/* Everything that stays the same from one attempt to the next. */
struct unary_call {
  struct ringback_client *client;
  const char *path;
  const struct method *method;
  const ProtobufCMessage *request;
  const struct ringback_call_options *options;
  gpr_timespec deadline;
};

static ProtobufCMessage *attempt(const struct unary_call *unary, struct ringback_error *error) {
  grpc_completion_queue *queue = grpc_completion_queue_create_for_pluck(NULL);
  grpc_call *call = call_create(unary->client, unary->path, queue, unary->deadline);
  struct cancellable cancellable;
  canceller_add(unary->options->canceller, &cancellable, call);

  grpc_byte_buffer *sent = call_pack(unary->request);
  grpc_byte_buffer *received = NULL;
  grpc_metadata_array headers;
  grpc_metadata_array_init(&headers);
  struct call_status status;
  call_status_init(&status);
  grpc_op ops[6] = {0};
  ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  ops[0].flags = call_initial_flags(unary->options);
  ops[1].op = GRPC_OP_SEND_MESSAGE;
  ops[1].data.send_message.send_message = sent;
  ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
  ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
  ops[3].data.recv_initial_metadata.recv_initial_metadata = &headers;
  ops[4].op = GRPC_OP_RECV_MESSAGE;
  ops[4].data.recv_message.recv_message = &received;
  ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
  ops[5].data.recv_status_on_client.trailing_metadata = &status.trailers;
  ops[5].data.recv_status_on_client.status = &status.code;
  ops[5].data.recv_status_on_client.status_details = &status.details;
  grpc_call_error started = grpc_call_start_batch(call, ops, 6, call, NULL);
  assert(started == GRPC_CALL_OK);
  (void)started;
  grpc_completion_queue_pluck(queue, call, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

  ProtobufCMessage *response = NULL;
  call_status_read(&status, error);
  if (error->code == RINGBACK_OK && received == NULL)
    error_set(error, RINGBACK_INTERNAL, "the server answered without a message");
  else if (error->code == RINGBACK_OK)
    response = call_unpack(unary->method->output, received, error);

  canceller_remove(unary->options->canceller, &cancellable);
  if (received != NULL)
    grpc_byte_buffer_destroy(received);
  grpc_byte_buffer_destroy(sent);
  grpc_metadata_array_destroy(&headers);
  call_status_close(&status);
  grpc_call_unref(call);
  grpc_completion_queue_shutdown(queue);
  grpc_completion_queue_destroy(queue);
  return response;
}

/* Whether another attempt makes sense, after having waited for it. */
static bool wait_for_repetition(const struct unary_call *unary, int attempts, struct ringback_error *error) {
  if (error->code != RINGBACK_UNAVAILABLE || attempts >= unary->client->attempts_max || unary->options->repeat_never ||
      !method_may_repeat(unary->method, unary->request))
    return false;
  int64_t wait_ms = retry_wait_ms(attempts, error->retry_delay_ms, retry_random()), left_ms = -1;
  if (gpr_time_cmp(unary->deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) != 0) {
    left_ms = gpr_time_to_millis(gpr_time_sub(unary->deadline, gpr_now(GPR_CLOCK_MONOTONIC)));
    /* A wait that is longer than what is left is cut, so that the last attempt is made shortly before the end. */
    if (wait_ms > left_ms - LAST_ATTEMPT_MS)
      wait_ms = left_ms - LAST_ATTEMPT_MS;
    /* The error at hand says more than a deadline that ran out in the wait would. */
    if (wait_ms < RETRY_FIRST_MS / 2 || wait_ms < error->retry_delay_ms)
      return false;
  }
  if (unary->options->on_repeat != NULL)
    unary->options->on_repeat(unary->options->context, error, left_ms);
  if (canceller_wait_ms(unary->options->canceller, wait_ms))
    return true;
  error_set(error, RINGBACK_CANCELLED, "cancelled");
  return false;
}

/* A copy of the request with a request_id, where it has a place for one and none yet; NULL where that is not so. The
 * copy is shallow: freed with free(), and before the request. */
static ProtobufCMessage *with_request_id(const struct method *method, const ProtobufCMessage *request, char *id) {
  if (method->repeat != METHOD_REPEAT_WITH_REQUEST_ID)
    return NULL;
  const ProtobufCFieldDescriptor *field =
      protobuf_c_message_descriptor_get_field_by_name(request->descriptor, "request_id");
  const char *present = *(char *const *)((const char *)request + field->offset);
  if (present != NULL && present[0] != '\0')
    return NULL;
  char *copy = malloc(request->descriptor->sizeof_message);
  if (copy == NULL)
    return NULL;
  memcpy(copy, request, request->descriptor->sizeof_message);
  retry_request_id(id);
  memcpy(copy + field->offset, &id, sizeof id);
  return (ProtobufCMessage *)copy;
}

void *ringback_call(struct ringback_client *client, const char *path, const ProtobufCMessage *request,
                    const struct ringback_call_options *options, struct ringback_error *error) {
  static const struct ringback_call_options defaults;
  struct ringback_error unwanted;
  struct method method;
  if (error == NULL)
    error = &unwanted;
  if (options == NULL)
    options = &defaults;
  error_clear(error);
  if (!method_find(path, &method) || method.streaming) {
    error_set(error, RINGBACK_UNIMPLEMENTED, "%s is no unary method", path);
    return NULL;
  }
  assert(request->descriptor == method.input);

  char id[REQUEST_ID_BYTES];
  ProtobufCMessage *copy = with_request_id(&method, request, id);
  struct unary_call unary = {
      client,  path,
      &method, copy != NULL ? copy : request,
      options, call_deadline(options->timeout_ms != 0 ? options->timeout_ms : client->timeout_ms)};
  ProtobufCMessage *response;
  struct ringback_error before;
  int attempts = 0;
  do {
    before = *error;
    response = attempt(&unary, error);
    attempts++;
  } while (response == NULL && wait_for_repetition(&unary, attempts, error));
  /* Why it had to be repeated says more than that the last repetition ran out of time. */
  if (response == NULL && attempts > 1 && error->code == RINGBACK_DEADLINE_EXCEEDED)
    *error = before;
  free(copy);
  return response;
}
