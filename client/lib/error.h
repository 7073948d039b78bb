/* Errors of the client library, as its modules fill them. */
#ifndef RINGBACK_CLIENT_LIB_ERROR_H
#define RINGBACK_CLIENT_LIB_ERROR_H

#include "client/lib/ringback.h"

/* Resets an error to RINGBACK_OK without details. */
void error_clear(struct ringback_error *error);
/* Sets code and message; no details. */
void error_set(struct ringback_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Adds the details of a packed google.rpc.Status (the trailer grpc-status-details-bin). Bytes that do not parse add
 * nothing. */
void error_add_details(struct ringback_error *error, const uint8_t *bytes, size_t byte_count);

#endif
