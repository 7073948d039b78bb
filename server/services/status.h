/* google.rpc.Status for whole calls and for items: findings and store errors become codes, sentences and details.
 *
 * INVALID_ARGUMENT carries a BadRequest, UNAVAILABLE and RESOURCE_EXHAUSTED a RetryInfo, every other error an ErrorInfo
 * of the domain `ringback.v1`.
 */
#ifndef RINGBACK_SERVER_SERVICES_STATUS_H
#define RINGBACK_SERVER_SERVICES_STATUS_H

#include "redis/store.h"
#include "server/rpc/rpc.h"
#include "server/services/validate.h"

/* OK, for an item. */
Google__Rpc__Status *status_ok(struct arena *arena);

/* INVALID_ARGUMENT with the findings, of which there must be at least one. */
Google__Rpc__Status *status_findings(struct arena *arena, const struct check *check);

/* What a store error means for a caller. `what` is what the call was about, such as `queue buckets/b/queues/q`; `field`
 * is the request's field that STORE_INVALID speaks of. */
Google__Rpc__Status *status_store(struct arena *arena, const struct store_error *error, const char *what,
                                  const char *field);

/* RESOURCE_EXHAUSTED: more long polls than the server takes. */
Google__Rpc__Status *status_too_many_parked(struct arena *arena);

/* True after having failed the call because of findings. */
bool status_refuse(struct rpc_call *call, const struct check *check);

/* True after having failed the call because of a store error; `what` and `field` as above. */
bool status_failed(struct rpc_call *call, const struct store_error *error, const char *what, const char *field);

#endif
