/* Messages of the contract as JSON and back, by proto3's mapping. */
#ifndef RINGBACK_CLIENT_TOOL_JSON_H
#define RINGBACK_CLIENT_TOOL_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

/* A message as a JSON object: names in lowerCamelCase, enums by name, 64-bit integers as strings, bytes in base64,
 * Timestamp, Duration, FieldMask and Any in their own forms. Scalars and lists are always there, so that scripts need
 * no defaults; messages and members of a oneof only when they are set. Text that is no UTF-8 becomes null. */
json_t *json_of_message(const ProtobufCMessage *message);

/* A text as a JSON string; what is no UTF-8 in it becomes '?', so that it is never missing. */
json_t *json_of_text(const char *text);

/* The message that a JSON object describes, for the caller to free with ringback_free. NULL with what is wrong, and
 * where, in `problem`. Names may be in lowerCamelCase or as in the .proto; an unknown one is refused. */
ProtobufCMessage *json_to_message(const json_t *json, const ProtobufCMessageDescriptor *descriptor, char *problem,
                                  size_t problem_bytes);

#define JSON_NAME_BYTES 128

/* A field's name in JSON: retryPolicy of retry_policy; what is in lowerCamelCase stays. */
void json_name(const char *name, char out[JSON_NAME_BYTES]);

/* Prints on standard output and frees: indented, or on one line. */
void json_print(json_t *json);
void json_print_line(json_t *json);

#endif
