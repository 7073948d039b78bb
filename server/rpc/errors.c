/* See errors.h. Everything is built in an arena; nothing here fails. */
#include "server/rpc/errors.h"

#include <assert.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "server/base/text.h"

#define VIOLATIONS_MAX 20
#define VIOLATIONS_BYTES_MAX 2048
#define VIOLATION_TEXT_BYTES_MAX 240

static const char *const code_names[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

struct rpc_violations {
  struct arena *arena;
  size_t count; /* all, carried or not */
  size_t carried;
  size_t bytes;
  Google__Rpc__BadRequest__FieldViolation *rows[VIOLATIONS_MAX];
};

const char *rpc_code_name(int code) {
  return code >= 0 && (size_t)code < sizeof code_names / sizeof code_names[0] ? code_names[code] : "UNKNOWN";
}

/* At most bytes_max of the text, cut between characters. */
static char *cut(struct arena *arena, const char *text, size_t bytes_max) {
  return arena_strndup(arena, text, text_utf8_cut(text, strlen(text), bytes_max));
}

struct rpc_violations *rpc_violations_create(struct arena *arena) {
  struct rpc_violations *list = ARENA_NEW(arena, struct rpc_violations);
  list->arena = arena;
  return list;
}

static void violation_add(struct rpc_violations *list, const char *field, const char *format, va_list arguments) {
  list->count++;
  if (list->carried == VIOLATIONS_MAX)
    return;
  char *path = cut(list->arena, field, VIOLATION_TEXT_BYTES_MAX);
  char *description = cut(list->arena, arena_vprintf(list->arena, format, arguments), VIOLATION_TEXT_BYTES_MAX);
  size_t bytes = strlen(path) + strlen(description) + 8;
  if (list->bytes + bytes > VIOLATIONS_BYTES_MAX)
    return;
  Google__Rpc__BadRequest__FieldViolation *row = ARENA_NEW(list->arena, Google__Rpc__BadRequest__FieldViolation);
  google__rpc__bad_request__field_violation__init(row);
  row->field = path;
  row->description = description;
  list->bytes += bytes;
  list->rows[list->carried++] = row;
}

void rpc_violation_add(struct rpc_violations *list, const char *field, const char *description_format, ...) {
  va_list arguments;
  va_start(arguments, description_format);
  violation_add(list, field, description_format, arguments);
  va_end(arguments);
}

size_t rpc_violations_count(const struct rpc_violations *list) {
  return list->count;
}

#define TYPE_URL_PREFIX "type.googleapis.com/"

static void status_add(struct arena *arena, Google__Rpc__Status *status, const ProtobufCMessage *detail) {
  Google__Protobuf__Any *any = ARENA_NEW(arena, Google__Protobuf__Any);
  google__protobuf__any__init(any);
  any->type_url = arena_printf(arena, TYPE_URL_PREFIX "%s", detail->descriptor->name);
  any->value.len = protobuf_c_message_get_packed_size(detail);
  any->value.data = arena_alloc(arena, any->value.len);
  protobuf_c_message_pack(detail, any->value.data);
  status->details[status->n_details++] = any;
}

static Google__Rpc__Status *status_new(struct arena *arena, enum rpc_code code, const char *message) {
  Google__Rpc__Status *status = ARENA_NEW(arena, Google__Rpc__Status);
  google__rpc__status__init(status);
  status->code = (int)code;
  status->message = cut(arena, message, RPC_MESSAGE_BYTES_MAX);
  status->details = ARENA_ARRAY(arena, Google__Protobuf__Any *, 2);
  return status;
}

Google__Rpc__Status *rpc_status_vcreate(struct arena *arena, enum rpc_code code, const char *format,
                                        va_list arguments) {
  Google__Rpc__Status *status = status_new(arena, code, arena_vprintf(arena, format, arguments));
  if (code == RPC_UNAVAILABLE || code == RPC_RESOURCE_EXHAUSTED) {
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    delay.seconds = RPC_RETRY_DELAY_MS / 1000;
    delay.nanos = RPC_RETRY_DELAY_MS % 1000 * 1000000;
    retry.retry_delay = &delay;
    status_add(arena, status, &retry.base);
  }
  if (code != RPC_OK && code != RPC_INVALID_ARGUMENT) {
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    info.reason = arena_strdup(arena, rpc_code_name((int)code));
    info.domain = arena_strdup(arena, RPC_ERROR_DOMAIN);
    status_add(arena, status, &info.base);
  }
  return status;
}

Google__Rpc__Status *rpc_status_create(struct arena *arena, enum rpc_code code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Google__Rpc__Status *status = rpc_status_vcreate(arena, code, format, arguments);
  va_end(arguments);
  return status;
}

Google__Rpc__Status *rpc_status_violations(struct arena *arena, const struct rpc_violations *list) {
  assert(list->carried > 0);
  const Google__Rpc__BadRequest__FieldViolation *first = list->rows[0];
  const char *subject = *first->field ? arena_printf(arena, "%s:", first->field) : "the request";
  char *message = list->count == 1
                      ? arena_printf(arena, "%s %s", subject, first->description)
                      : arena_printf(arena, "%s %s (and %zu more)", subject, first->description, list->count - 1);
  Google__Rpc__Status *status = status_new(arena, RPC_INVALID_ARGUMENT, message);
  Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
  bad.n_field_violations = list->carried;
  bad.field_violations = arena_copy(arena, list->rows, list->carried * sizeof list->rows[0]);
  status_add(arena, status, &bad.base);
  return status;
}

void rpc_fail_violations(struct rpc_call *call, const struct rpc_violations *list) {
  rpc_fail_status(call, rpc_status_violations(rpc_arena(call), list));
}

void rpc_fail_field(struct rpc_call *call, const char *field, const char *description_format, ...) {
  struct rpc_violations *list = rpc_violations_create(rpc_arena(call));
  va_list arguments;
  va_start(arguments, description_format);
  violation_add(list, field, description_format, arguments);
  va_end(arguments);
  rpc_fail_violations(call, list);
}
