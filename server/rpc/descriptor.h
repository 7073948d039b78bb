/* What the descriptor set says: which methods stream (protobuf-c's own descriptors do not), and the files that
 * reflection hands out. Immutable once made, so any thread may read it.
 */
#ifndef RINGBACK_SERVER_RPC_DESCRIPTOR_H
#define RINGBACK_SERVER_RPC_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "google/protobuf/descriptor.pb-c.h"

struct descriptor_pool;

struct descriptor_file {
  const char *name;
  const void *data; /* its FileDescriptorProto, serialized */
  size_t size;
  const Google__Protobuf__FileDescriptorProto *proto;
};

struct descriptor_pool *descriptor_pool_create(void);
void descriptor_pool_destroy(struct descriptor_pool *pool);

/* Adds the files of a serialized FileDescriptorSet, whose bytes must outlive the pool; a file whose name is already
 * there is left out. False when the bytes are no such set. */
bool descriptor_pool_add(struct descriptor_pool *pool, const void *data, size_t size);

/* NULL: there is none. */
const struct descriptor_file *descriptor_file_by_name(const struct descriptor_pool *pool, const char *name);
/* The file that defines a service, method, message, field, enum or enum value, by full name. */
const struct descriptor_file *descriptor_file_by_symbol(const struct descriptor_pool *pool, const char *symbol);
/* "ringback.v1.JobService", "SubmitJob". */
const Google__Protobuf__MethodDescriptorProto *descriptor_method(const struct descriptor_pool *pool,
                                                                 const char *service, const char *method);

#endif
