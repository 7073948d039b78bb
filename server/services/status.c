/* Statuses for callers: see status.h. */
#include "server/services/status.h"

#include <inttypes.h>

#include "server/rpc/errors.h"

/* What each code of the store means outside. */
static const enum rpc_code codes[] = {
    [STORE_OK] = RPC_OK,
    [STORE_NOT_FOUND] = RPC_NOT_FOUND,
    [STORE_ALREADY_EXISTS] = RPC_ALREADY_EXISTS,
    [STORE_FULL] = RPC_RESOURCE_EXHAUSTED,
    [STORE_TOO_MANY] = RPC_RESOURCE_EXHAUSTED,
    [STORE_CONFLICT] = RPC_ABORTED,
    [STORE_PRECONDITION] = RPC_FAILED_PRECONDITION,
    [STORE_OUT_OF_RANGE] = RPC_OUT_OF_RANGE,
    [STORE_INVALID] = RPC_INVALID_ARGUMENT,
    [STORE_OUT_OF_MEMORY] = RPC_RESOURCE_EXHAUSTED,
    [STORE_UNAVAILABLE] = RPC_UNAVAILABLE,
    [STORE_INTERNAL] = RPC_INTERNAL,
};

Google__Rpc__Status *status_ok(struct arena *arena) {
  Google__Rpc__Status *status = ARENA_NEW(arena, Google__Rpc__Status);
  google__rpc__status__init(status);
  return status;
}

Google__Rpc__Status *status_findings(struct arena *arena, const struct check *check) {
  struct rpc_violations *violations = rpc_violations_create(arena);
  for (size_t i = 0; i < check->count; i++)
    rpc_violation_add(violations, check->findings[i].field, "%s", check->findings[i].description);
  return rpc_status_violations(arena, violations);
}

static Google__Rpc__Status *invalid(struct arena *arena, const struct store_error *error, const char *field) {
  struct rpc_violations *violations = rpc_violations_create(arena);
  rpc_violation_add(violations, field, "%s", error->reason);
  return rpc_status_violations(arena, violations);
}

static const char *sentence(struct arena *arena, const struct store_error *error, const char *what) {
  switch (error->code) {
  case STORE_FULL:
    return arena_printf(arena, "%s has no room for this: %" PRId64 " jobs wait, at most %" PRId64 " may", what,
                        error->current, error->limit);
  case STORE_OUT_OF_MEMORY:
    return "Redis is at its memory limit and takes no more jobs";
  case STORE_UNAVAILABLE:
    return "Redis cannot be reached; the outcome of this call is unknown";
  case STORE_INTERNAL:
    return arena_printf(arena, "%s: the store answered what it must not; the server's log says more", what);
  default:
    return arena_printf(arena, "%s: %s", what, error->reason);
  }
}

Google__Rpc__Status *status_store(struct arena *arena, const struct store_error *error, const char *what,
                                  const char *field) {
  if (error->code == STORE_OK)
    return status_ok(arena);
  if (error->code == STORE_INVALID)
    return invalid(arena, error, field ? field : what);
  return rpc_status_create(arena, codes[error->code], "%s", sentence(arena, error, what));
}

Google__Rpc__Status *status_too_many_parked(struct arena *arena) {
  return rpc_status_create(arena, RPC_RESOURCE_EXHAUSTED, "as many calls wait for something as the server takes");
}

bool status_refuse(struct rpc_call *call, const struct check *check) {
  if (check->count == 0)
    return false;
  rpc_fail_status(call, status_findings(rpc_arena(call), check));
  return true;
}

bool status_failed(struct rpc_call *call, const struct store_error *error, const char *what, const char *field) {
  if (error->code == STORE_OK)
    return false;
  rpc_fail_status(call, status_store(rpc_arena(call), error, what, field));
  return true;
}
