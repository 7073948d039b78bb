/* A server from its options to its end: binding methods to descriptors, listening, metrics, drain. It starts the
 * threads and joins them; what they do stands in thread.c.
 */
#include <assert.h>
#include <grpc/support/log.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/socket.h"
#include "server/rpc/bridge.h"

#define SERVICES_MAX 32
#define SYSTEM_SERVICES 3
#define MEMORY_QUOTA_BYTES ((size_t)512 << 20) /* gRPC's own buffers */
#define KEEPALIVE_TIME_MS 60000
#define KEEPALIVE_TIMEOUT_MS 20000
#define PING_INTERVAL_MIN_MS 9000 /* clients may ping every 10 s */
#define DRAIN_STEP_MS 20
#define DRAIN_QUIET_STEPS 5
#define CONNECTION_IDLE_MAX_MS (30 * 60 * 1000)

extern const unsigned char ringback_descriptor_set[];
extern const size_t ringback_descriptor_set_size;

static void log_grpc(gpr_log_func_args *line) {
  enum log_level level = line->severity == GPR_LOG_SEVERITY_ERROR ? LOG_WARN : LOG_DEBUG;
  log_event(level, "grpc", log_text("message", line->message), log_text("file", line->file),
            log_number("line", line->line));
}

/* --- binding --- */

static const struct rpc_method *find_handler(const struct rpc_service *service, const char *name) {
  for (const struct rpc_method *method = service->methods; method->name; method++)
    if (strcmp(method->name, name) == 0)
      return method;
  return NULL;
}

static bool bind_method(struct rpc_server *server, struct rpc_lane *lane, const struct rpc_service *service,
                        const ProtobufCMethodDescriptor *method) {
  const struct rpc_method *handler = find_handler(service, method->name);
  if (!handler)
    return true;
  const char *service_name = service->descriptor->name;
  const Google__Protobuf__MethodDescriptorProto *proto =
      descriptor_method(server->descriptors, service_name, method->name);
  if (!proto) {
    log_event(LOG_ERROR, "a method is not in the descriptor set", log_text("service", service_name),
              log_text("method", method->name));
    return false;
  }
  struct rpc_bound_method *bound = &lane->methods[lane->method_count++];
  bound->handler = handler;
  bound->input = method->input;
  bound->path = arena_printf(server->arena, "/%s/%s", service_name, method->name);
  bound->request_streams = proto->client_streaming;
  bound->answer_streams = proto->server_streaming;
  assert(handler->start || bound->request_streams);
  bound->registered = grpc_server_register_method(
      server->core, bound->path, NULL,
      bound->request_streams ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
  if (!bound->registered)
    log_event(LOG_ERROR, "a method cannot be registered", log_text("method", bound->path));
  return bound->registered != NULL;
}

static bool bind_services(struct rpc_server *server, struct rpc_lane *lane, const struct rpc_service *const *services,
                          size_t count) {
  size_t method_count = 0;
  for (size_t i = 0; i < count; i++)
    method_count += services[i]->descriptor->n_methods;
  lane->methods = ARENA_ARRAY(server->arena, struct rpc_bound_method, method_count);
  for (size_t i = 0; i < count; i++)
    for (unsigned k = 0; k < services[i]->descriptor->n_methods; k++)
      if (!bind_method(server, lane, services[i], &services[i]->descriptor->methods[k]))
        return false;
  return true;
}

static bool bind_all(struct rpc_server *server, const struct rpc_options *options) {
  size_t count = 0;
  const char *names[SERVICES_MAX + SYSTEM_SERVICES];
  const struct rpc_service *system[SYSTEM_SERVICES] = {health_service(), reflection_service_v1(),
                                                       reflection_service_v1alpha()};
  const void *set = options->descriptor_set ? options->descriptor_set : ringback_descriptor_set;
  size_t set_size = options->descriptor_set ? options->descriptor_set_size : ringback_descriptor_set_size;
  server->descriptors = descriptor_pool_create();
  /* The contract's own set is there in any case, for health and reflection. */
  if (!descriptor_pool_add(server->descriptors, set, set_size) ||
      !descriptor_pool_add(server->descriptors, ringback_descriptor_set, ringback_descriptor_set_size)) {
    log_event(LOG_ERROR, "the descriptor set cannot be read", log_number("bytes", (int64_t)set_size));
    return false;
  }
  for (; options->services && options->services[count]; count++) {
    assert(count < SERVICES_MAX);
    names[count] = options->services[count]->descriptor->name;
  }
  for (size_t i = 0; i < SYSTEM_SERVICES; i++)
    names[count + i] = system[i]->descriptor->name;
  server->health = health_create(server, names, count + SYSTEM_SERVICES);
  server->reflection = reflection_create(server, names, count + SYSTEM_SERVICES);
  return bind_services(server, &server->services, options->services, count) &&
         bind_services(server, &server->system, system, SYSTEM_SERVICES);
}

/* --- the gRPC server --- */

static grpc_arg integer_arg(const char *key, int value) {
  grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};
  return arg;
}

static void core_create(struct rpc_server *server, const struct rpc_options *options) {
  unsigned header_bytes_max = options->header_bytes_max ? options->header_bytes_max : 16384;
  unsigned streams_max = options->streams_per_connection_max ? options->streams_per_connection_max : 10000;
  grpc_resource_quota *quota = grpc_resource_quota_create("ringback");
  grpc_resource_quota_resize(quota, MEMORY_QUOTA_BYTES);
  grpc_arg quota_arg = {.type = GRPC_ARG_POINTER, .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA};
  quota_arg.value.pointer.p = quota;
  quota_arg.value.pointer.vtable = grpc_resource_quota_arg_vtable();
  grpc_arg args[] = {
      quota_arg,
      integer_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
      integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)server->request_bytes_max),
      integer_arg(GRPC_ARG_MAX_METADATA_SIZE, (int)header_bytes_max),
      integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)streams_max),
      integer_arg(GRPC_ARG_MAX_CONNECTION_IDLE_MS, CONNECTION_IDLE_MAX_MS),
      integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_TIME_MS),
      integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
      integer_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
      integer_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MIN_MS),
      integer_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
      /* Compressed requests are refused: 4 MiB of them can unfold into gigabytes before any limit is asked. */
      integer_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
  };
  grpc_channel_args channel_args = {sizeof args / sizeof args[0], args};
  server->core = grpc_server_create(&channel_args, NULL);
  grpc_resource_quota_unref(quota);
}

static void log_grpc_at_debug(gpr_log_func_args *line) {
  line->severity = GPR_LOG_SEVERITY_DEBUG;
  log_grpc(line);
}

/* What gRPC itself says of a port that it cannot have is a tree of errors a line long: the reason is found out anew. */
static bool core_listen(struct rpc_server *server, const char *address) {
  grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
  gpr_set_log_function(log_grpc_at_debug);
  server->port = grpc_server_add_http2_port(server->core, address, credentials);
  gpr_set_log_function(log_grpc);
  grpc_server_credentials_release(credentials);
  if (server->port > 0)
    return true;
  const char *why;
  int fd = socket_listen(address, &why);
  if (fd >= 0) {
    close(fd);
    why = "gRPC refuses it; --log-level debug shows what it says";
  }
  log_event(LOG_ERROR, "cannot listen", log_text("address", address), log_text("why", why));
  return false;
}

static unsigned all_threads(const struct rpc_server *server) {
  return server->thread_count + 1;
}

static struct rpc_thread *system_thread(struct rpc_server *server) {
  return &server->threads[server->thread_count];
}

static bool threads_open(struct rpc_server *server) {
  for (unsigned i = 0; i < all_threads(server); i++) {
    struct rpc_thread *thread = &server->threads[i];
    if (!thread_open(thread, server, i < server->thread_count ? &server->services : &server->system, i))
      return false;
  }
  return true;
}

static void server_free(struct rpc_server *server) {
  if (server->core)
    grpc_server_destroy(server->core);
  for (unsigned i = 0; i < all_threads(server); i++)
    if (server->threads[i].queue)
      thread_stop(&server->threads[i]);
  for (unsigned i = 0; i < all_threads(server); i++)
    thread_close(&server->threads[i]);
  free(server->threads);
  descriptor_pool_destroy(server->descriptors);
  arena_destroy(server->arena);
  free(server);
  grpc_shutdown_blocking();
}

struct rpc_server *rpc_server_create(const struct rpc_options *options) {
  assert(options->threads <= RPC_THREADS_MAX);
  struct rpc_server *server = calloc(1, sizeof *server);
  if (!server)
    abort();
  server->thread_count = options->threads ? options->threads : 1;
  server->request_bytes_max = options->request_bytes_max ? options->request_bytes_max : 4 << 20;
  server->hooks = options->hooks;
  server->services.calls_max = options->calls_max ? options->calls_max : 10000;
  server->services.parked_max = options->parked_max ? options->parked_max : 5000;
  server->system.calls_max = RPC_SYSTEM_CALLS_MAX;
  server->system.parked_max = RPC_SYSTEM_PARKED_MAX;
  server->arena = arena_create();
  server->threads = calloc(server->thread_count + 1, sizeof *server->threads);
  if (!server->threads)
    abort();
  gpr_set_log_function(log_grpc);
  grpc_init();
  core_create(server, options);
  if (!bind_all(server, options) || !threads_open(server) || !core_listen(server, options->listen)) {
    server_free(server);
    return NULL;
  }
  grpc_server_start(server->core);
  for (unsigned i = 0; i < all_threads(server); i++)
    thread_arm(&server->threads[i]);
  for (unsigned i = 0; i < all_threads(server); i++)
    thread_start(&server->threads[i]);
  return server;
}

int rpc_server_port(const struct rpc_server *server) {
  return server->port;
}

void rpc_server_set_serving(struct rpc_server *server, bool serving) {
  health_set_serving(server->health, serving);
  uint64_t everything = 0;
  thread_poke(system_thread(server), &everything);
}

void rpc_server_wake(struct rpc_server *server, uint64_t key) {
  for (unsigned i = 0; i < server->thread_count; i++)
    thread_poke(&server->threads[i], &key);
}

static uint64_t value(const atomic_uint_least64_t *counter) {
  return atomic_load_explicit(counter, memory_order_relaxed);
}

void rpc_server_metrics(const struct rpc_server *server, struct rpc_metrics *metrics) {
  memset(metrics, 0, sizeof *metrics);
  for (unsigned i = 0; i < server->thread_count; i++) {
    const struct rpc_counters *counters = &server->threads[i].counters;
    metrics->calls_started += value(&counters->calls_started);
    metrics->calls_refused += value(&counters->calls_refused);
    metrics->batches += value(&counters->batches);
    metrics->batch_events += value(&counters->batch_events);
    for (size_t code = 0; code < sizeof metrics->codes / sizeof metrics->codes[0]; code++)
      metrics->codes[code] += value(&counters->codes[code]);
  }
  metrics->calls_in_hand = atomic_load_explicit(&server->services.calls_in_hand, memory_order_relaxed);
  metrics->calls_parked = atomic_load_explicit(&server->services.calls_parked, memory_order_relaxed);
}

/* True when gRPC says that all connections are closed. False when it is time to close them: the grace is over, or no
 * call has been in hand for a while; gRPC itself waits for idle clients, some of which do not look at their connections
 * between calls. */
static bool await_calls(struct rpc_server *server, grpc_completion_queue *queue, int64_t until_us) {
  gpr_timespec step = gpr_time_from_millis(DRAIN_STEP_MS, GPR_TIMESPAN);
  for (unsigned quiet = 0; quiet < DRAIN_QUIET_STEPS;) {
    if (grpc_completion_queue_next(queue, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), step), NULL).type !=
        GRPC_QUEUE_TIMEOUT)
      return true;
    unsigned in_hand = atomic_load(&server->services.calls_in_hand) + atomic_load(&server->system.calls_in_hand);
    quiet = in_hand == 0 ? quiet + 1 : 0;
    if (in_hand > 0 && clock_monotonic_us() >= until_us) {
      log_event(LOG_WARN, "calls are cancelled at the end of the grace", log_number("calls", in_hand));
      return false;
    }
  }
  return false;
}

void rpc_server_drain(struct rpc_server *server, int64_t grace_ms) {
  if (server->drained)
    return;
  rpc_server_set_serving(server, false);
  grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
  grpc_server_shutdown_and_notify(server->core, queue, NULL);
  atomic_store_explicit(&server->draining, true, memory_order_release);
  for (unsigned i = 0; i < all_threads(server); i++)
    thread_poke(&server->threads[i], NULL);
  if (!await_calls(server, queue, clock_monotonic_us() + grace_ms * 1000)) {
    grpc_server_cancel_all_calls(server->core);
    grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  }
  grpc_completion_queue_shutdown(queue);
  while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type != GRPC_QUEUE_SHUTDOWN)
    ;
  grpc_completion_queue_destroy(queue);
  /* gRPC is done when its connections are gone; the threads may still have events of their calls to take. A completion
   * queue must not be shut down before the last of them, because handling it may start a batch. */
  while (atomic_load_explicit(&server->services.contexts, memory_order_acquire) > 0 ||
         atomic_load_explicit(&server->system.contexts, memory_order_acquire) > 0)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  server->drained = true;
}

void rpc_server_destroy(struct rpc_server *server) {
  assert(server->drained);
  server_free(server);
}
