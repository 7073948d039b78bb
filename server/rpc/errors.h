/* Errors as callers see them: a canonical code, a sentence, and google.rpc details (BadRequest with field paths,
 * RetryInfo, ErrorInfo).
 *
 * The whole of an error travels in HTTP trailers, of which stock clients accept 8 KiB, so everything here is cut to
 * fit.
 */
#ifndef RINGBACK_SERVER_RPC_ERRORS_H
#define RINGBACK_SERVER_RPC_ERRORS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/base/arena.h"
#include "server/rpc/rpc.h"

#define RPC_ERROR_DOMAIN "ringback.v1"
#define RPC_MESSAGE_BYTES_MAX 512
#define RPC_DETAILS_BYTES_MAX 3072
#define RPC_RETRY_DELAY_MS 1000

/* "NOT_FOUND"; "UNKNOWN" for what is no code. */
const char *rpc_code_name(int code);

/* What is wrong with a request, field by field. Lives in the arena. What exceeds 20 violations or 2 KiB is counted but
 * not carried. */
struct rpc_violations;
struct rpc_violations *rpc_violations_create(struct arena *arena);
/* The field is a path such as "jobs[3].tag" (arena_printf makes one). */
void rpc_violation_add(struct rpc_violations *list, const char *field, const char *description_format, ...)
    __attribute__((format(printf, 3, 4)));
size_t rpc_violations_count(const struct rpc_violations *list);

/* A status with the details its code calls for: UNAVAILABLE and RESOURCE_EXHAUSTED get RetryInfo, every error but
 * INVALID_ARGUMENT gets ErrorInfo with the code's name as reason. For one item of a batch, or for rpc_fail_status.
 * Lives in the arena. */
Google__Rpc__Status *rpc_status_create(struct arena *arena, enum rpc_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
Google__Rpc__Status *rpc_status_vcreate(struct arena *arena, enum rpc_code code, const char *format, va_list arguments);
/* INVALID_ARGUMENT with BadRequest. */
Google__Rpc__Status *rpc_status_violations(struct arena *arena, const struct rpc_violations *list);

/* Ends the call with INVALID_ARGUMENT and BadRequest. The list must not be empty. */
void rpc_fail_violations(struct rpc_call *call, const struct rpc_violations *list);
/* The same for one field. */
void rpc_fail_field(struct rpc_call *call, const char *field, const char *description_format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
