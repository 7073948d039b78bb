/* The methods that the library can call, and which of them may be called again after UNAVAILABLE. */
#ifndef RINGBACK_CLIENT_LIB_METHODS_H
#define RINGBACK_CLIENT_LIB_METHODS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

/* Longer than any "/package.Service/Method" of the contract. */
#define METHOD_PATH_BYTES 128

enum method_repeat {
  METHOD_REPEAT_NEVER,
  METHOD_REPEAT_ALWAYS,
  METHOD_REPEAT_WITH_REQUEST_ID, /* the library sees to it that there is one */
  METHOD_REPEAT_WITHOUT_ETAG,    /* with an etag a repetition would find that the first call has changed it */
};

struct method {
  const ProtobufCMessageDescriptor *input;
  const ProtobufCMessageDescriptor *output;
  enum method_repeat repeat;
  bool streaming; /* the answer is a stream */
};

/* Finds a method by its path. False when it is none of the contract's. */
bool method_find(const char *path, struct method *method);
/* Whether this request may be sent twice. */
bool method_may_repeat(const struct method *method, const ProtobufCMessage *request);

#endif
