/* What /metrics says: one table of numbers, read from whoever counts them, in Prometheus's text format.
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
#ifndef RINGBACK_SERVER_METRICS_H
#define RINGBACK_SERVER_METRICS_H

#include <stdio.h>

#include "redis/store.h"
#include "server/callback/dispatcher.h"
#include "server/rpc/rpc.h"

/* A reading of everything. */
struct metrics {
  struct rpc_metrics rpc;
  struct store_metrics store; /* of all RPC threads together */
  struct dispatcher_metrics dispatcher;
  uint64_t sweep_slices, sweep_changes, repairs;
  uint64_t notifications;
  uint64_t redis_restarts;
  uint64_t redis_up; /* 0 or 1 */
};

/* Adds one thread's counts to the sum; batch_max is the larger of both. */
void metrics_add_store(struct store_metrics *sum, const struct store_metrics *part);
void metrics_write(const struct metrics *metrics, FILE *file);

#endif
