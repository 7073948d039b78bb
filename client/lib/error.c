/*
 * Errors of calls: gRPC's status with the google.rpc details that Ringback's servers send along, in a struct that owns
 * no memory. Details of an unknown type are passed over: a newer server may send more than this library knows.
 */
#include "client/lib/error.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *ringback_code_name(int code) {
  static const char *const names[] = {
      "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED",
  };
  if (code < 0 || (size_t)code >= sizeof names / sizeof *names)
    return "UNKNOWN";
  return names[code];
}

void error_clear(struct ringback_error *error) {
  error->code = RINGBACK_OK;
  error->message[0] = '\0';
  error->reason[0] = '\0';
  error->retry_delay_ms = -1;
  error->violation_count = 0;
}

void error_set(struct ringback_error *error, int code, const char *format, ...) {
  error_clear(error);
  error->code = code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
}

static void error_add_bad_request(struct ringback_error *error, const ProtobufCBinaryData *value) {
  Google__Rpc__BadRequest *bad = google__rpc__bad_request__unpack(NULL, value->len, value->data);
  if (bad == NULL)
    return;
  for (size_t i = 0; i < bad->n_field_violations && error->violation_count < RINGBACK_VIOLATIONS_MAX; i++) {
    struct ringback_violation *violation = &error->violations[error->violation_count++];
    snprintf(violation->field, sizeof violation->field, "%s", bad->field_violations[i]->field);
    snprintf(violation->description, sizeof violation->description, "%s", bad->field_violations[i]->description);
  }
  google__rpc__bad_request__free_unpacked(bad, NULL);
}

static void error_add_retry_info(struct ringback_error *error, const ProtobufCBinaryData *value) {
  Google__Rpc__RetryInfo *retry = google__rpc__retry_info__unpack(NULL, value->len, value->data);
  if (retry == NULL)
    return;
  /* A day is more than anything here would wait; it keeps the arithmetic in range whatever the server sends. */
  if (retry->retry_delay != NULL && retry->retry_delay->seconds >= 0 && retry->retry_delay->seconds <= 86400)
    error->retry_delay_ms = retry->retry_delay->seconds * 1000 + retry->retry_delay->nanos / 1000000;
  google__rpc__retry_info__free_unpacked(retry, NULL);
}

static void error_add_error_info(struct ringback_error *error, const ProtobufCBinaryData *value) {
  Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, value->len, value->data);
  if (info == NULL)
    return;
  snprintf(error->reason, sizeof error->reason, "%s", info->reason);
  google__rpc__error_info__free_unpacked(info, NULL);
}

static const struct {
  const char *type;
  void (*add)(struct ringback_error *error, const ProtobufCBinaryData *value);
} detail_types[] = {
    {"google.rpc.BadRequest", error_add_bad_request},
    {"google.rpc.RetryInfo", error_add_retry_info},
    {"google.rpc.ErrorInfo", error_add_error_info},
};

static void error_add_any(struct ringback_error *error, const Google__Protobuf__Any *detail) {
  const char *slash = strrchr(detail->type_url, '/');
  const char *type = slash == NULL ? detail->type_url : slash + 1;
  for (size_t i = 0; i < sizeof detail_types / sizeof *detail_types; i++)
    if (strcmp(type, detail_types[i].type) == 0)
      detail_types[i].add(error, &detail->value);
}

void error_add_details(struct ringback_error *error, const uint8_t *bytes, size_t byte_count) {
  Google__Rpc__Status *status = google__rpc__status__unpack(NULL, byte_count, bytes);
  if (status == NULL)
    return;
  for (size_t i = 0; i < status->n_details; i++)
    error_add_any(error, status->details[i]);
  google__rpc__status__free_unpacked(status, NULL);
}

void ringback_error_from_status(struct ringback_error *error, const ProtobufCMessage *status) {
  error_clear(error);
  if (status == NULL)
    return;
  assert(status->descriptor == &google__rpc__status__descriptor);
  const Google__Rpc__Status *parts = (const Google__Rpc__Status *)status;
  error_set(error, parts->code, "%s", parts->message);
  for (size_t i = 0; i < parts->n_details; i++)
    error_add_any(error, parts->details[i]);
}
