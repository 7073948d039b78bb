/* The four services of ringback.v1: what each RPC checks, which one store call it makes, and what it answers.
 *
 * A handler runs on its call's thread: it checks the request, queues a store call with a continuation, and returns; the
 * continuation answers. Nothing here blocks, keeps state between calls, or talks to the dispatcher.
 */
#ifndef RINGBACK_SERVER_SERVICES_SERVICES_H
#define RINGBACK_SERVER_SERVICES_SERVICES_H

#include "redis/store.h"
#include "server/callback/address.h"
#include "server/rpc/rpc.h"
#include "server/services/nearby.h"

enum { BATCH_MAX = 250, PAGE_SIZE_MAX = 100, PAGE_SIZE_DEFAULT = 10, REQUEST_ID_CHARACTERS_MAX = 64 };

/* Answers stop growing here, below the 4 MiB that gRPC clients take by default. */
#define ANSWER_BYTES_MAX ((size_t)3 << 20)

/* What the operator decides; read only. */
struct services_config {
  int64_t payload_bytes_max;
  int64_t redis_wait_ms;
  struct address_set callback_allow;
};

/* What rpc_thread(call) points to: one for each RPC thread. */
struct services_thread {
  struct store *store;
  const struct services_config *config;
  struct nearby nearby;
};

extern const struct rpc_service queue_service;
extern const struct rpc_service job_service;
extern const struct rpc_service worker_service;
extern const struct rpc_service callback_service;

static inline struct store *services_store(struct rpc_call *call) {
  return ((struct services_thread *)rpc_thread(call))->store;
}

static inline struct nearby *services_nearby(struct rpc_call *call) {
  return &((struct services_thread *)rpc_thread(call))->nearby;
}

static inline const struct services_config *services_config(struct rpc_call *call) {
  return ((struct services_thread *)rpc_thread(call))->config;
}

#endif
