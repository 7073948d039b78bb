/* What protobuf-c does not check about bytes from outside: that strings are UTF-8 without NUL (which would cut them
 * short), that messages nest no deeper than 64, that a message has no more than 100,000 fields (each costs memory when
 * decoded, an empty one costs the sender two bytes). Walks the wire format by the descriptor, before anything is
 * decoded. Pure.
 */
#ifndef RINGBACK_SERVER_RPC_WIRE_CHECK_H
#define RINGBACK_SERVER_RPC_WIRE_CHECK_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/base/arena.h"

#define WIRE_DEPTH_MAX 64
#define WIRE_FIELDS_MAX 100000

struct wire_problem {
  const char *path; /* such as "jobs[3].tag"; "" for the message itself; in the arena */
  const char *description;
};

/* True when the bytes may be unpacked. Otherwise the problem is set. */
bool wire_check(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t size, struct arena *arena,
                struct wire_problem *problem);

#endif
