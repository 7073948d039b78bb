/*
 * A job's specification from options and from lines of JSON. Both meet as JSON, in the form that the fields of JobSpec
 * have there: so a line of a file may leave out what the options say for all lines.
 */
#include "client/tool/spec.h"
#include "client/tool/files.h"
#include "client/tool/values.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool check_combinations(const struct tool *tool) {
  static const char *const pairs[][2] = {{"object", "url"},     {"input-bucket", "url"}, {"region", "url"},
                                         {"operation", "data"}, {"delay", "not-before"}, {"content-type", "operation"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    if (!tool_exclude(tool, pairs[i][0], pairs[i][1]))
      return false;
  if (!tool_needs(tool, "content-type", "data"))
    return false;
  if (!tool_given(tool, "callback-format") || tool_given(tool, "callback"))
    return true;
  tool_error("--callback-format goes with --callback only");
  return false;
}

/* jansson makes no string of what is not UTF-8: without this the option would be left out of the job. What --operation
 * names may be a file, so its text is checked where it is read. */
static bool check_texts(const struct tool *tool) {
  for (size_t i = 0; i < tool->value_count; i++) {
    const struct option_value *value = &tool->values[i];
    if (value->row->kind != OPTION_TEXT || strcmp(value->row->name, "operation") == 0)
      continue;
    json_t *string = json_string(value->text);
    if (string == NULL) {
      tool_error("--%s is not UTF-8", value->row->name);
      return false;
    }
    json_decref(string);
  }
  return true;
}

static void set_text(json_t *object, const char *key, const char *text) {
  if (text != NULL)
    json_object_set_new(object, key, json_string(text));
}

static void set_input(const struct tool *tool, json_t *spec) {
  json_t *input = json_object();
  if (tool_given(tool, "url")) {
    set_text(input, "url", tool_text(tool, "url", NULL));
  } else if (tool_given(tool, "object") || tool_given(tool, "input-bucket") || tool_given(tool, "region")) {
    json_t *object = json_object();
    set_text(object, "bucket", tool_text(tool, "input-bucket", NULL));
    set_text(object, "object", tool_text(tool, "object", NULL));
    set_text(object, "region", tool_text(tool, "region", NULL));
    json_object_set_new(input, "object", object);
  }
  if (json_object_size(input) > 0)
    json_object_set(spec, "input", input);
  json_decref(input);
}

static bool set_operation_xml(json_t *spec, const char *operation) {
  char *content = NULL;
  size_t byte_count;
  if (operation[0] == '@' || strcmp(operation, "-") == 0) {
    content = file_read(operation[0] == '@' ? operation + 1 : "-", &byte_count);
    if (content == NULL)
      return false;
    operation = content;
  }
  json_t *xml = json_string(operation);
  if (xml == NULL)
    tool_error("--operation is not UTF-8");
  else
    json_object_set_new(spec, "operation", json_pack("{s:o}", "xml", xml));
  free(content);
  return xml != NULL;
}

static bool set_operation_data(const struct tool *tool, json_t *spec, const char *path) {
  size_t byte_count;
  char *content = file_read(path, &byte_count);
  if (content == NULL)
    return false;
  char *base64 = value_encode_base64((const uint8_t *)content, byte_count);
  json_t *opaque = base64 == NULL ? NULL : json_pack("{s:s}", "data", base64);
  if (opaque == NULL) {
    tool_error("%s: out of memory", path);
    free(base64);
    free(content);
    return false;
  }
  set_text(opaque, "contentType", tool_text(tool, "content-type", NULL));
  json_object_set_new(spec, "operation", json_pack("{s:o}", "opaque", opaque));
  free(base64);
  free(content);
  return true;
}

static void set_time(json_t *spec, const char *key, int64_t ms) {
  char text[VALUE_TEXT_BYTES];
  value_format_time(ms / 1000 - (ms % 1000 < 0), (int32_t)((ms % 1000 + 1000) % 1000 * 1000000), text);
  set_text(spec, key, text);
}

static void set_duration(const struct tool *tool, json_t *spec, const char *key, const char *option) {
  char text[VALUE_TEXT_BYTES];
  int64_t ms = tool_number(tool, option, 0);
  if (!tool_given(tool, option))
    return;
  value_format_duration(ms / 1000, (int32_t)(ms % 1000 * 1000000), text);
  set_text(spec, key, text);
}

static bool set_times(const struct tool *tool, json_t *spec) {
  struct timespec clock;
  clock_gettime(CLOCK_REALTIME, &clock);
  int64_t now_ms = (int64_t)clock.tv_sec * 1000 + clock.tv_nsec / 1000000, ms;
  const char *expire = tool_text(tool, "expire", NULL);
  if (tool_given(tool, "delay"))
    set_time(spec, "notBefore", now_ms + tool_number(tool, "delay", 0));
  if (tool_given(tool, "not-before"))
    set_time(spec, "notBefore", tool_number(tool, "not-before", 0));
  if (expire == NULL)
    return true;
  /* A bare number can only mean seconds since 1970 here when it lies this side of 2001. */
  if (value_parse_time(expire, &ms) && (strpbrk(expire, "-T") != NULL || ms >= 1000000000000)) {
    set_time(spec, "expireTime", ms);
    return true;
  }
  if (value_parse_duration(expire, &ms)) {
    set_time(spec, "expireTime", now_ms + ms);
    return true;
  }
  tool_error("--expire: \"%s\" is neither a time nor a duration", expire);
  return false;
}

static const char *format_name(const char *choice) {
  if (strcmp(choice, "json") == 0)
    return "CALLBACK_FORMAT_JSON";
  return strcmp(choice, "current") == 0 ? "CALLBACK_FORMAT_XML_CURRENT" : "CALLBACK_FORMAT_XML_SEED";
}

json_t *spec_from_options(struct tool *tool) {
  const char *operation = tool_text(tool, "operation", NULL), *data = tool_text(tool, "data", NULL);
  const char *callback = tool_text(tool, "callback", NULL);
  if (!check_texts(tool) || !check_combinations(tool))
    return NULL;
  json_t *spec = json_object();
  set_text(spec, "tag", tool_text(tool, "tag", NULL));
  set_text(spec, "userData", tool_text(tool, "user-data", NULL));
  set_text(spec, "traceparent", tool_text(tool, "traceparent", NULL));
  set_input(tool, spec);
  set_duration(tool, spec, "lease", "lease");
  set_duration(tool, spec, "runTimeout", "run-timeout");
  if (tool_given(tool, "priority"))
    json_object_set_new(spec, "priority", json_integer(tool_number(tool, "priority", 0)));
  if (tool_given(tool, "max-attempts"))
    json_object_set_new(spec, "maxAttempts", json_integer(tool_number(tool, "max-attempts", 0)));
  if (callback != NULL)
    json_object_set_new(spec, "callback",
                        strcmp(callback, "none") == 0 ? json_pack("{s:b}", "none", 1)
                                                      : json_pack("{s:s}", "url", callback));
  if (tool_given(tool, "callback-format"))
    json_object_set_new(json_object_get(spec, "callback"), "format",
                        json_string(format_name(tool_text(tool, "callback-format", ""))));
  if (set_times(tool, spec) && (operation == NULL || set_operation_xml(spec, operation)) &&
      (data == NULL || set_operation_data(tool, spec, data)))
    return spec;
  json_decref(spec);
  return NULL;
}

Ringback__V1__JobSpec *spec_from_line(const json_t *defaults, const char *line, size_t line_bytes, char *problem,
                                      size_t problem_bytes) {
  json_error_t error;
  json_t *json = json_loadb(line, line_bytes, JSON_REJECT_DUPLICATES, &error);
  if (!json_is_object(json)) {
    snprintf(problem, problem_bytes, "%s", json == NULL ? error.text : "must be a JSON object");
    json_decref(json);
    return NULL;
  }
  json_t *merged = json_copy((json_t *)defaults);
  const char *key;
  json_t *value;
  json_object_foreach(json, key, value) {
    char name[JSON_NAME_BYTES];
    json_name(key, name);
    json_object_set(merged, name, value);
  }
  ProtobufCMessage *spec = json_to_message(merged, &ringback__v1__job_spec__descriptor, problem, problem_bytes);
  json_decref(merged);
  json_decref(json);
  return (Ringback__V1__JobSpec *)spec;
}
