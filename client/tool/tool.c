/*
 * One invocation of the tool: the values of its options, its connection, and how calls and their errors are handled.
 * The commands stand in commands.c.
 */
#include "client/tool/tool.h"
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/output.h"
#include "client/tool/safe.h"
#include "client/tool/values.h"
#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TIMEOUT_DEFAULT_MS 30000
/* So long a call is repeated without a word. */
#define SILENT_MS 1000

static void check_name(const struct tool *tool, const char *name) {
  for (const struct option_row *row = tool->command->options; row != NULL && row->name != NULL; row++)
    if (strcmp(row->name, name) == 0)
      return;
  for (const struct option_row *row = tool_grammar.globals; row->name != NULL; row++)
    if (strcmp(row->name, name) == 0)
      return;
  assert(!"the command has no such option");
}

static const struct option_value *find_last(const struct tool *tool, const char *name) {
  check_name(tool, name);
  for (size_t i = tool->value_count; i > 0; i--)
    if (strcmp(tool->values[i - 1].row->name, name) == 0)
      return &tool->values[i - 1];
  return NULL;
}

bool tool_given(const struct tool *tool, const char *name) {
  return find_last(tool, name) != NULL;
}

const char *tool_text(const struct tool *tool, const char *name, const char *fallback) {
  const struct option_value *value = find_last(tool, name);
  return value == NULL ? fallback : value->text;
}

int64_t tool_number(const struct tool *tool, const char *name, int64_t fallback) {
  const struct option_value *value = find_last(tool, name);
  return value == NULL ? fallback : value->number;
}

const char *tool_next_text(const struct tool *tool, const char *name, size_t *position) {
  check_name(tool, name);
  for (; *position < tool->value_count; (*position)++)
    if (strcmp(tool->values[*position].row->name, name) == 0)
      return tool->values[(*position)++].text;
  return NULL;
}

/* How errors are told: of the whole process, since they are told from everywhere. */
static bool errors_as_json;
static const char *server_name = "the server";
static int64_t call_ms = TIMEOUT_DEFAULT_MS;

void tool_errors_as_json(bool json) {
  errors_as_json = json;
}

/* HOST:PORT, [IPV6]:PORT, or with a scheme that gRPC knows in front. */
static bool check_server(const char *server) {
  static const char *const schemes[] = {"dns:", "ipv4:", "ipv6:"};
  if (strncmp(server, "unix:", 5) == 0)
    return true;
  const char *host = server;
  for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
    if (strncmp(server, schemes[i], strlen(schemes[i])) == 0)
      host = server + strlen(schemes[i]);
  const char *colon = strrchr(host, ':');
  bool bare = host == server && colon != NULL && host[0] != '[' && memchr(host, ':', (size_t)(colon - host)) != NULL;
  size_t digits = colon == NULL ? 0 : strspn(colon + 1, "0123456789");
  long port = digits > 0 && digits <= 5 ? strtol(colon + 1, NULL, 10) : 0;
  if (colon != NULL && colon > host && !bare && colon[1 + digits] == '\0' && port >= 1 && port <= 65535)
    return true;
  tool_error("the server \"%s\" is not HOST:PORT, such as 127.0.0.1:7080 or [::1]:7080", server);
  return false;
}

struct ringback_client *tool_client(struct tool *tool) {
  if (tool->client != NULL)
    return tool->client;
  if (!check_server(tool->server))
    exit(TOOL_USAGE);
  server_name = tool->server;
  struct ringback_error error;
  call_ms = tool->timeout_ms > 0 ? tool->timeout_ms : TIMEOUT_DEFAULT_MS;
  /* The timeout alone ends repeating. */
  struct ringback_options options = {
      .timeout_ms = call_ms, .attempts_max = INT_MAX, .user_agent = "ringback/" RINGBACK_VERSION};
  tool->client = ringback_connect(tool->server, &options, &error);
  if (tool->client == NULL) {
    tool_call_failed(&error);
    exit(TOOL_UNAVAILABLE);
  }
  return tool->client;
}

static const char *failure_message(const struct ringback_error *error, char *text, size_t text_bytes);

/* Says once that it is not over yet, when a call has been repeated for a while. */
static void tell_repetition(void *context, const struct ringback_error *error, int64_t left_ms) {
  static bool told;
  const struct tool *tool = context;
  char text[512];
  if (told || tool->json || call_ms - left_ms < SILENT_MS)
    return;
  told = true;
  output_progress_clear(tool);
  tool_error("%s; trying on for %lld s", failure_message(error, text, sizeof text), (long long)(left_ms + 999) / 1000);
}

void *tool_call(struct tool *tool, const char *method, const ProtobufCMessage *request, int *status) {
  struct ringback_error error;
  struct ringback_call_options options = {.on_repeat = tell_repetition, .context = tool};
  void *response = ringback_call(tool_client(tool), method, request, &options, &error);
  if (response == NULL) {
    output_progress_clear(tool);
    *status = tool_call_failed(&error);
  }
  return response;
}

bool tool_exclude(const struct tool *tool, const char *one, const char *other) {
  if (!tool_given(tool, one) || !tool_given(tool, other))
    return true;
  tool_error("--%s and --%s exclude each other", one, other);
  return false;
}

bool tool_needs(const struct tool *tool, const char *name, const char *other) {
  if (!tool_given(tool, name) || tool_given(tool, other))
    return true;
  tool_error("--%s is given without --%s", name, other);
  return false;
}

/* One error as a line of JSON. `about` may be NULL. */
static void print_json_error(const char *code, const char *about, const char *message,
                             const struct ringback_violation *violations, size_t violation_count) {
  json_t *list = json_array();
  for (size_t i = 0; i < violation_count; i++)
    json_array_append_new(list, json_pack("{s:o,s:o}", "field", json_of_text(violations[i].field), "description",
                                          json_of_text(violations[i].description)));
  json_t *inner = json_pack("{s:s,s:o,s:o}", "code", code, "message", json_of_text(message), "violations", list);
  if (about != NULL)
    json_object_set_new(inner, "about", json_of_text(about));
  json_t *error = json_pack("{s:o}", "error", inner);
  char *line = error == NULL ? NULL : json_dumps(error, 0);
  json_decref(error);
  fprintf(stderr, "%s\n", line == NULL ? "{\"error\": {}}" : line);
  free(line);
}

void tool_error(const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length < 0)
    return;
  fflush(stdout);
  if (errors_as_json) {
    print_json_error("LOCAL", NULL, text, NULL, 0);
  } else {
    safe_clean(text, (size_t)length, false);
    fprintf(stderr, "ringback: %s\n", text);
  }
  free(text);
}

/* What gRPC tells of a connection that did not come about is a paragraph of its internals. */
static const char *failure_message(const struct ringback_error *error, char *text, size_t text_bytes) {
  static const char *const reasons[][2] = {{"onnection refused", "connection refused"},
                                           {"unreachable", "no route to it"},
                                           {"No route to host", "no route to it"},
                                           {"DNS", "its name cannot be resolved"},
                                           {"Domain name", "its name cannot be resolved"},
                                           {"imed out", "no answer in time"},
                                           {"imeout", "no answer in time"},
                                           {"No such file", "there is no such socket"},
                                           {"Socket closed", "the connection was closed"},
                                           {"reset by peer", "the connection was closed"}};
  static const char *const openings[] = {"failed to connect to all addresses", "connections to all backends failing",
                                         "DNS resolution failed", "Failed to connect to remote host",
                                         "empty address list"};
  if (error->message[0] == '\0')
    return ringback_code_name(error->code);
  if (error->code == RINGBACK_DEADLINE_EXCEEDED && strcasecmp(error->message, "Deadline Exceeded") == 0) {
    char duration[VALUE_TEXT_BYTES];
    value_show_duration(call_ms, duration);
    snprintf(text, text_bytes, "%s did not answer within %s; --timeout says how long to wait", server_name, duration);
    return text;
  }
  bool grpcs_own = false;
  for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
    if (strncmp(error->message, openings[i], strlen(openings[i])) == 0)
      grpcs_own = true;
  if (error->code != RINGBACK_UNAVAILABLE || !grpcs_own)
    return error->message;
  const char *reason = "no connection";
  for (size_t i = sizeof reasons / sizeof *reasons; i > 0; i--)
    if (strstr(error->message, reasons[i - 1][0]) != NULL)
      reason = reasons[i - 1][1];
  snprintf(text, text_bytes, "cannot reach %s: %s", server_name, reason);
  return text;
}

int tool_exit_status(int code) {
  switch (code) {
  case RINGBACK_OK:
    return TOOL_OK;
  case RINGBACK_INVALID_ARGUMENT:
    return TOOL_USAGE;
  case RINGBACK_NOT_FOUND:
    return TOOL_NOT_FOUND;
  case RINGBACK_UNAVAILABLE:
  case RINGBACK_DEADLINE_EXCEEDED:
    return TOOL_UNAVAILABLE;
  default:
    return TOOL_FAILED;
  }
}

/* A server's message tells the first violation itself; a line that says the same again helps nobody. */
static bool is_told(const struct ringback_error *error, const struct ringback_violation *violation) {
  size_t length = strlen(violation->field);
  return error->violation_count == 1 && strncmp(error->message, violation->field, length) == 0 &&
         strncmp(error->message + length, ": ", 2) == 0 &&
         strcmp(error->message + length + 2, violation->description) == 0;
}

/* Whether a message begins with what it is about: "delivery cb_1: there is no such delivery". */
static bool names_it(const char *message, const char *about) {
  size_t kind = strcspn(message, " "), length = strlen(about);
  return message[kind] == ' ' && strncmp(message + kind + 1, about, length) == 0 &&
         strncmp(message + kind + 1 + length, ": ", 2) == 0;
}

int tool_print_failure(const char *about, const struct ringback_error *error) {
  char text[512];
  const char *message = failure_message(error, text, sizeof text);
  if (errors_as_json) {
    fflush(stdout);
    print_json_error(ringback_code_name(error->code), about, message, error->violations, error->violation_count);
    return tool_exit_status(error->code);
  }
  if (about == NULL || names_it(message, about))
    tool_error("%s", message);
  else
    tool_error("%s: %s", about, message);
  for (size_t i = 0; i < error->violation_count; i++)
    if (!is_told(error, &error->violations[i]))
      fprintf(stderr, "  %s: %s\n", safe_text(error->violations[i].field), safe_text(error->violations[i].description));
  return tool_exit_status(error->code);
}

int tool_call_failed(const struct ringback_error *error) {
  return tool_print_failure(NULL, error);
}

/* Takes a text into the tool's keeping. */
static char *keep(struct tool *tool, char *text) {
  if (text == NULL || tool->text_count == TOOL_TEXTS_MAX) {
    tool_error("out of memory for names");
    exit(TOOL_FAILED);
  }
  tool->texts[tool->text_count++] = text;
  return text;
}

static char *join(const char *a, const char *b, const char *c, const char *d) {
  char *text = NULL;
  return asprintf(&text, "%s%s%s%s", a, b, c, d) < 0 ? NULL : text;
}

char *tool_queue_name(struct tool *tool, const char *name) {
  if (strncmp(name, "buckets/", 8) == 0)
    return keep(tool, join(name, "", "", ""));
  if (tool->bucket != NULL)
    return keep(tool, join("buckets/", tool->bucket, "/queues/", name));
  tool_error("queue \"%s\": give its bucket with --bucket or RINGBACK_BUCKET, or name it buckets/BUCKET/queues/%s",
             name, name);
  return NULL;
}

char *tool_bucket_name(struct tool *tool, const char *queue_name) {
  if (queue_name != NULL && strncmp(queue_name, "buckets/", 8) == 0) {
    char *name = keep(tool, join(queue_name, "", "", ""));
    char *end = strchr(name + 8, '/');
    if (end != NULL)
      *end = '\0';
    return name;
  }
  if (tool->bucket != NULL)
    return keep(tool, join("buckets/", tool->bucket, "", ""));
  tool_error("give the bucket with --bucket or RINGBACK_BUCKET");
  return NULL;
}
