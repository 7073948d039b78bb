/*
 * One invocation of the tool: the values of its options, its connection, and how calls and their errors are handled.
 * The commands stand in commands.c.
 */
#include "client/tool/tool.h"
#include "client/tool/commands.h"
#include "client/tool/output.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct ringback_client *tool_client(struct tool *tool) {
  if (tool->client != NULL)
    return tool->client;
  struct ringback_error error;
  struct ringback_options options = {.timeout_ms = tool->timeout_ms, .user_agent = "ringback/" RINGBACK_VERSION};
  tool->client = ringback_connect(tool->server, &options, &error);
  if (tool->client == NULL) {
    tool_call_failed(&error);
    exit(TOOL_UNAVAILABLE);
  }
  return tool->client;
}

void *tool_call(struct tool *tool, const char *method, const ProtobufCMessage *request, int *status) {
  struct ringback_error error;
  void *response = ringback_call(tool_client(tool), method, request, NULL, &error);
  if (response == NULL) {
    output_progress_clear(tool);
    *status = tool_call_failed(&error);
  }
  return response;
}

void tool_error(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fflush(stdout);
  fputs("ringback: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
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

int tool_print_failure(const char *about, const struct ringback_error *error) {
  const char *message = error->message[0] != '\0' ? error->message : ringback_code_name(error->code);
  tool_error("%s%s%s", about == NULL ? "" : about, about == NULL ? "" : ": ", message);
  for (size_t i = 0; i < error->violation_count; i++)
    if (!is_told(error, &error->violations[i]))
      fprintf(stderr, "  %s: %s\n", error->violations[i].field, error->violations[i].description);
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
