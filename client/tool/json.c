/*
 * Messages as JSON, driven by protobuf-c's descriptors alone: nothing here knows a message of Ringback's. The types of
 * google.protobuf and google.rpc that have a form of their own in JSON are rows of one table.
 */
#include "client/tool/json.h"
#include "client/tool/safe.h"
#include "client/tool/tool.h"
#include "client/tool/values.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_name(const char *name, char out[JSON_NAME_BYTES]) {
  size_t length = 0;
  bool up = false;
  for (; *name != '\0' && length < JSON_NAME_BYTES - 1; name++) {
    if (*name == '_') {
      up = true;
      continue;
    }
    out[length++] = up && *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name;
    up = false;
  }
  out[length] = '\0';
}

json_t *json_of_text(const char *text) {
  json_t *string = json_string(text);
  return string != NULL ? string : json_string(safe_text(text));
}

static json_t *json_of_timestamp(const ProtobufCMessage *message) {
  const Google__Protobuf__Timestamp *time = (const Google__Protobuf__Timestamp *)message;
  char text[VALUE_TEXT_BYTES];
  value_format_time(time->seconds, time->nanos, text);
  return json_string(text);
}

static json_t *json_of_duration(const ProtobufCMessage *message) {
  const Google__Protobuf__Duration *duration = (const Google__Protobuf__Duration *)message;
  char text[VALUE_TEXT_BYTES];
  value_format_duration(duration->seconds, duration->nanos, text);
  return json_string(text);
}

static json_t *json_of_field_mask(const ProtobufCMessage *message) {
  const Google__Protobuf__FieldMask *mask = (const Google__Protobuf__FieldMask *)message;
  json_t *joined = json_string("");
  for (size_t i = 0; i < mask->n_paths; i++) {
    char name[JSON_NAME_BYTES];
    json_name(mask->paths[i], name);
    json_t *longer = json_sprintf("%s%s%s", json_string_value(joined), i == 0 ? "" : ",", name);
    json_decref(joined);
    joined = longer;
  }
  return joined;
}

static json_t *json_of_any(const ProtobufCMessage *message) {
  static const ProtobufCMessageDescriptor *const known[] = {&google__rpc__bad_request__descriptor,
                                                            &google__rpc__retry_info__descriptor,
                                                            &google__rpc__error_info__descriptor};
  const Google__Protobuf__Any *any = (const Google__Protobuf__Any *)message;
  const char *slash = strrchr(any->type_url, '/');
  json_t *object = NULL;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(slash == NULL ? any->type_url : slash + 1, known[i]->name) != 0)
      continue;
    ProtobufCMessage *content = protobuf_c_message_unpack(known[i], NULL, any->value.len, any->value.data);
    if (content != NULL)
      object = json_of_message(content);
    ringback_free(content);
  }
  if (object == NULL) {
    char *base64 = value_encode_base64(any->value.data, any->value.len);
    object = json_pack("{s:s}", "value", base64);
    free(base64);
  }
  json_object_set_new(object, "@type", json_of_text(any->type_url));
  return object;
}

static const struct {
  const ProtobufCMessageDescriptor *descriptor;
  json_t *(*json)(const ProtobufCMessage *message);
} special_types[] = {
    {&google__protobuf__timestamp__descriptor, json_of_timestamp},
    {&google__protobuf__duration__descriptor, json_of_duration},
    {&google__protobuf__field_mask__descriptor, json_of_field_mask},
    {&google__protobuf__any__descriptor, json_of_any},
};

static json_t *json_of_enum(const ProtobufCFieldDescriptor *field, int value) {
  const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(field->descriptor, value);
  return row != NULL ? json_string(row->name) : json_integer(value);
}

/* One value of a field, at `place`. */
static json_t *json_of_value(const ProtobufCFieldDescriptor *field, const void *place) {
  switch (field->type) {
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_SINT32:
  case PROTOBUF_C_TYPE_SFIXED32:
    return json_integer(*(const int32_t *)place);
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FIXED32:
    return json_integer(*(const uint32_t *)place);
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
    return json_sprintf("%lld", (long long)*(const int64_t *)place);
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
    return json_sprintf("%llu", (unsigned long long)*(const uint64_t *)place);
  case PROTOBUF_C_TYPE_FLOAT:
    return json_real((double)*(const float *)place);
  case PROTOBUF_C_TYPE_DOUBLE:
    return json_real(*(const double *)place);
  case PROTOBUF_C_TYPE_BOOL:
    return json_boolean(*(const protobuf_c_boolean *)place);
  case PROTOBUF_C_TYPE_ENUM:
    return json_of_enum(field, *(const int *)place);
  case PROTOBUF_C_TYPE_STRING: {
    const char *text = *(char *const *)place;
    json_t *string = json_string(text == NULL ? "" : text);
    return string != NULL ? string : json_null();
  }
  case PROTOBUF_C_TYPE_BYTES: {
    const ProtobufCBinaryData *bytes = place;
    char *base64 = value_encode_base64(bytes->data, bytes->len);
    json_t *string = json_string(base64);
    free(base64);
    return string;
  }
  case PROTOBUF_C_TYPE_MESSAGE:
    return json_of_message(*(ProtobufCMessage *const *)place);
  }
  return json_null();
}

static size_t value_bytes(const ProtobufCFieldDescriptor *field) {
  switch (field->type) {
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
  case PROTOBUF_C_TYPE_DOUBLE:
    return 8;
  case PROTOBUF_C_TYPE_BOOL:
    return sizeof(protobuf_c_boolean);
  case PROTOBUF_C_TYPE_STRING:
  case PROTOBUF_C_TYPE_MESSAGE:
    return sizeof(void *);
  case PROTOBUF_C_TYPE_BYTES:
    return sizeof(ProtobufCBinaryData);
  default:
    return 4;
  }
}

/* protobuf-c knows a map as a list of entries with a key and a value. */
static bool is_map(const ProtobufCFieldDescriptor *field) {
  if (field->type != PROTOBUF_C_TYPE_MESSAGE)
    return false;
  const ProtobufCMessageDescriptor *entry = field->descriptor;
  size_t length = strlen(entry->short_name);
  return entry->n_fields == 2 && length > 5 && strcmp(entry->short_name + length - 5, "Entry") == 0 &&
         strcmp(entry->fields[0].name, "key") == 0 && entry->fields[0].type == PROTOBUF_C_TYPE_STRING;
}

static json_t *json_of_repeated(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message) {
  size_t count = *(const size_t *)((const char *)message + field->quantifier_offset);
  const char *items = *(char *const *)((const char *)message + field->offset);
  bool map = is_map(field);
  json_t *list = map ? json_object() : json_array();
  for (size_t i = 0; i < count; i++) {
    const char *place = items + i * value_bytes(field);
    if (map) {
      const ProtobufCMessage *entry = *(ProtobufCMessage *const *)place;
      const ProtobufCFieldDescriptor *fields = entry->descriptor->fields;
      const char *key = *(char *const *)((const char *)entry + fields[0].offset);
      /* jansson takes no key that is not UTF-8. */
      if (json_object_set_new(list, key, json_of_value(&fields[1], (const char *)entry + fields[1].offset)) != 0)
        json_object_set_new(list, safe_text(key), json_of_value(&fields[1], (const char *)entry + fields[1].offset));
    } else {
      json_array_append_new(list, json_of_value(field, place));
    }
  }
  return list;
}

static bool is_present(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message) {
  if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
    return *(const uint32_t *)((const char *)message + field->quantifier_offset) == field->id;
  if (field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED)
    return *(void *const *)((const char *)message + field->offset) != NULL;
  return true;
}

json_t *json_of_message(const ProtobufCMessage *message) {
  for (size_t i = 0; i < sizeof special_types / sizeof *special_types; i++)
    if (message->descriptor == special_types[i].descriptor)
      return special_types[i].json(message);
  json_t *object = json_object();
  for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
    char name[JSON_NAME_BYTES];
    if (!is_present(field, message))
      continue;
    json_name(field->name, name);
    json_object_set_new(object, name,
                        field->label == PROTOBUF_C_LABEL_REPEATED
                            ? json_of_repeated(field, message)
                            : json_of_value(field, (const char *)message + field->offset));
  }
  return object;
}

/* Where reading JSON has got to, for telling what is wrong. */
struct reader {
  char path[256];
  char *problem;
  size_t problem_bytes;
};

static bool refuse(struct reader *reader, const char *expected) {
  snprintf(reader->problem, reader->problem_bytes, "%s: %s", reader->path[0] == '\0' ? "the line" : reader->path,
           expected);
  return false;
}

static bool read_message(struct reader *reader, const json_t *json, ProtobufCMessage *message);

static ProtobufCMessage *message_create(const ProtobufCMessageDescriptor *descriptor) {
  ProtobufCMessage *message = calloc(1, descriptor->sizeof_message);
  if (message != NULL)
    protobuf_c_message_init(descriptor, message);
  return message;
}

static bool read_integer(struct reader *reader, const json_t *json, int64_t low, int64_t high, int64_t *number) {
  if (json_is_integer(json))
    *number = json_integer_value(json);
  else if (!json_is_string(json) || !value_parse_integer(json_string_value(json), number))
    return refuse(reader, "must be a whole number");
  if (*number < low || *number > high)
    return refuse(reader, "is out of range");
  return true;
}

static bool read_enum(struct reader *reader, const ProtobufCFieldDescriptor *field, const json_t *json, int *value) {
  int64_t number = 0;
  if (json_is_string(json)) {
    const ProtobufCEnumValue *row =
        protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, json_string_value(json));
    if (row == NULL)
      return refuse(reader, "is no name of its enum");
    *value = row->value;
    return true;
  }
  if (!read_integer(reader, json, 0, INT32_MAX, &number))
    return false;
  *value = (int)number;
  return true;
}

static bool read_string(struct reader *reader, const json_t *json, char **text) {
  if (!json_is_string(json))
    return refuse(reader, "must be a string");
  *text = strdup(json_string_value(json));
  return *text != NULL || refuse(reader, "out of memory");
}

static bool read_bytes(struct reader *reader, const json_t *json, ProtobufCBinaryData *bytes) {
  if (!json_is_string(json))
    return refuse(reader, "must be a string of base64");
  bytes->data = value_decode_base64(json_string_value(json), &bytes->len);
  return bytes->data != NULL || refuse(reader, "must be base64");
}

static bool read_value(struct reader *reader, const ProtobufCFieldDescriptor *field, const json_t *json, void *place) {
  int64_t number = 0;
  switch (field->type) {
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_SINT32:
  case PROTOBUF_C_TYPE_SFIXED32:
    if (!read_integer(reader, json, INT32_MIN, INT32_MAX, &number))
      return false;
    *(int32_t *)place = (int32_t)number;
    return true;
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FIXED32:
    if (!read_integer(reader, json, 0, UINT32_MAX, &number))
      return false;
    *(uint32_t *)place = (uint32_t)number;
    return true;
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
    return read_integer(reader, json, INT64_MIN, INT64_MAX, place);
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
    return read_integer(reader, json, 0, INT64_MAX, place);
  case PROTOBUF_C_TYPE_FLOAT:
  case PROTOBUF_C_TYPE_DOUBLE:
    if (!json_is_number(json))
      return refuse(reader, "must be a number");
    if (field->type == PROTOBUF_C_TYPE_FLOAT)
      *(float *)place = (float)json_number_value(json);
    else
      *(double *)place = json_number_value(json);
    return true;
  case PROTOBUF_C_TYPE_BOOL:
    if (!json_is_boolean(json))
      return refuse(reader, "must be true or false");
    *(protobuf_c_boolean *)place = json_is_true(json);
    return true;
  case PROTOBUF_C_TYPE_ENUM:
    return read_enum(reader, field, json, place);
  case PROTOBUF_C_TYPE_STRING:
    return read_string(reader, json, place);
  case PROTOBUF_C_TYPE_BYTES:
    return read_bytes(reader, json, place);
  case PROTOBUF_C_TYPE_MESSAGE: {
    ProtobufCMessage *part = message_create(field->descriptor);
    *(ProtobufCMessage **)place = part;
    return part != NULL && read_message(reader, json, part);
  }
  }
  return refuse(reader, "has a type that is not known here");
}

static bool read_repeated(struct reader *reader, const ProtobufCFieldDescriptor *field, const json_t *json,
                          ProtobufCMessage *message) {
  if (!json_is_array(json) || is_map(field))
    return refuse(reader, "must be a list");
  size_t count = json_array_size(json), *filled = (size_t *)((char *)message + field->quantifier_offset);
  char *items = calloc(count + 1, value_bytes(field));
  *(char **)((char *)message + field->offset) = items;
  if (items == NULL)
    return refuse(reader, "out of memory");
  size_t end = strlen(reader->path);
  for (size_t i = 0; i < count; i++) {
    snprintf(reader->path + end, sizeof reader->path - end, "[%zu]", i);
    (*filled)++; /* first, so that freeing the message frees what a failed read leaves */
    if (!read_value(reader, field, json_array_get(json, i), items + i * value_bytes(field)))
      return false;
  }
  reader->path[end] = '\0';
  return true;
}

/* Whether reading the field once more would lose what it holds, which two spellings of its name bring about. */
static bool is_set(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message) {
  const void *place = (const char *)message + field->offset;
  if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
    return false; /* its case tells */
  if (field->label == PROTOBUF_C_LABEL_REPEATED || field->type == PROTOBUF_C_TYPE_MESSAGE)
    return *(void *const *)place != NULL;
  return field->type == PROTOBUF_C_TYPE_STRING && *(const void *const *)place != field->default_value;
}

static bool read_field(struct reader *reader, const char *key, const json_t *json, ProtobufCMessage *message) {
  for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
    char name[JSON_NAME_BYTES];
    json_name(field->name, name);
    if (strcmp(key, name) != 0 && strcmp(key, field->name) != 0)
      continue;
    if (json_is_null(json))
      return true;
    if (is_set(field, message))
      return refuse(reader, "is given twice");
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
      return read_repeated(reader, field, json, message);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
      uint32_t *which = (uint32_t *)((char *)message + field->quantifier_offset);
      if (*which != 0)
        return refuse(reader, "excludes another member that is given");
      *which = field->id;
    }
    return read_value(reader, field, json, (char *)message + field->offset);
  }
  return refuse(reader, "no such field");
}

static bool read_span(struct reader *reader, const json_t *json, ProtobufCMessage *message) {
  int64_t ms;
  if (message->descriptor == &google__protobuf__timestamp__descriptor) {
    if (!json_is_string(json) || !value_parse_time(json_string_value(json), &ms))
      return refuse(reader, "must be a time such as \"2026-11-22T23:15:54Z\"");
    Google__Protobuf__Timestamp *time = (Google__Protobuf__Timestamp *)message;
    time->seconds = ms / 1000 - (ms % 1000 < 0);
    time->nanos = (int32_t)((ms % 1000 + 1000) % 1000 * 1000000);
    return true;
  }
  if (!json_is_string(json) || !value_parse_duration(json_string_value(json), &ms))
    return refuse(reader, "must be a duration such as \"5s\"");
  Google__Protobuf__Duration *duration = (Google__Protobuf__Duration *)message;
  duration->seconds = ms / 1000;
  duration->nanos = (int32_t)(ms % 1000 * 1000000);
  return true;
}

static bool read_message(struct reader *reader, const json_t *json, ProtobufCMessage *message) {
  if (message->descriptor == &google__protobuf__timestamp__descriptor ||
      message->descriptor == &google__protobuf__duration__descriptor)
    return read_span(reader, json, message);
  if (!json_is_object(json))
    return refuse(reader, "must be an object");
  size_t end = strlen(reader->path);
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)json, key, value) {
    snprintf(reader->path + end, sizeof reader->path - end, "%s%s", end == 0 ? "" : ".", key);
    if (!read_field(reader, key, value, message))
      return false;
  }
  reader->path[end] = '\0';
  return true;
}

ProtobufCMessage *json_to_message(const json_t *json, const ProtobufCMessageDescriptor *descriptor, char *problem,
                                  size_t problem_bytes) {
  struct reader reader = {.problem = problem, .problem_bytes = problem_bytes};
  ProtobufCMessage *message = message_create(descriptor);
  if (message == NULL)
    refuse(&reader, "out of memory");
  else if (read_message(&reader, json, message))
    return message;
  ringback_free(message);
  return NULL;
}

static void json_put(json_t *json, size_t flags) {
  json_dumpf(json, stdout, flags | JSON_ENCODE_ANY);
  putchar('\n');
  fflush(stdout);
  json_decref(json);
}

void json_print(json_t *json) {
  json_put(json, JSON_INDENT(2));
}

void json_print_line(json_t *json) {
  json_put(json, JSON_COMPACT);
}

void tool_print_json(const ProtobufCMessage *message) {
  json_print(json_of_message(message));
}

void tool_print_json_line(const ProtobufCMessage *message) {
  json_print_line(json_of_message(message));
}
