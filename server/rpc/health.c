/* grpc.health.v1.Health: is the server, or one of its services, serving? Handlers like any other, on the system thread,
 * whose context is the server. Watchers are parked; a change wakes them all.
 */
#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "server/rpc/bridge.h"

#define WATCH_KEY 1

struct rpc_health {
  const char *const *names;
  size_t name_count;
  atomic_bool serving;
};

struct watch {
  bool known; /* the service that is asked for */
  bool told;
  Grpc__Health__V1__HealthCheckResponse__ServingStatus last;
};

struct rpc_health *health_create(struct rpc_server *server, const char *const *service_names, size_t count) {
  struct rpc_health *health = ARENA_NEW(server->arena, struct rpc_health);
  health->names = arena_copy(server->arena, service_names, count * sizeof *service_names);
  health->name_count = count;
  atomic_init(&health->serving, false);
  return health;
}

void health_set_serving(struct rpc_health *health, bool serving) {
  atomic_store_explicit(&health->serving, serving, memory_order_release);
}

static struct rpc_health *health_of(struct rpc_call *call) {
  struct rpc_server *server = rpc_thread(call);
  return server->health;
}

static bool is_known(const struct rpc_health *health, const char *name) {
  if (!*name)
    return true;
  for (size_t i = 0; i < health->name_count; i++)
    if (strcmp(health->names[i], name) == 0)
      return true;
  return false;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus status_now(struct rpc_health *health) {
  return atomic_load_explicit(&health->serving, memory_order_acquire)
             ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
             : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

static void check(struct rpc_call *call, const ProtobufCMessage *message) {
  const Grpc__Health__V1__HealthCheckRequest *request = (const Grpc__Health__V1__HealthCheckRequest *)message;
  struct rpc_health *health = health_of(call);
  if (!is_known(health, request->service)) {
    rpc_fail(call, RPC_NOT_FOUND, "unknown service %s", request->service);
    return;
  }
  Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
  response.status = status_now(health);
  rpc_reply(call, &response.base);
}

/* Sends the status when it differs from what was sent last; otherwise waits for a change. */
static void watch_advance(struct rpc_call *call) {
  struct watch *watch = rpc_data(call);
  Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
  response.status = watch->known ? status_now(health_of(call))
                                 : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
  if (!watch->told || response.status != watch->last) {
    watch->told = true;
    watch->last = response.status;
    rpc_send(call, &response.base);
    return;
  }
  const uint64_t key = WATCH_KEY;
  if (!rpc_park(call, &key, 1, true, INT64_MAX))
    rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "the server has as many health watchers as it takes");
}

static void watch_start(struct rpc_call *call, const ProtobufCMessage *message) {
  struct watch *watch = ARENA_NEW(rpc_arena(call), struct watch);
  watch->known = is_known(health_of(call), ((const Grpc__Health__V1__HealthCheckRequest *)message)->service);
  rpc_set_data(call, watch);
  watch_advance(call);
}

static void watch_wake(struct rpc_call *call, enum rpc_wake why) {
  if (why == RPC_WAKE_DRAIN)
    rpc_fail(call, RPC_UNAVAILABLE, "the server is shutting down");
  else
    watch_advance(call);
}

const struct rpc_service *health_service(void) {
  static const struct rpc_method methods[] = {
      {.name = "Check", .start = check},
      {.name = "Watch", .start = watch_start, .writable = watch_advance, .wake = watch_wake},
      {0}};
  static struct rpc_service service = {.methods = methods};
  service.descriptor = &grpc__health__v1__health__descriptor;
  return &service;
}
