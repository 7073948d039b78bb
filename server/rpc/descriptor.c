/* See descriptor.h. The files' own bytes are kept beside what they decode to: reflection sends them as protoc wrote
 * them. Symbols are looked up by walking the files; that is for people's tools, not for calls.
 */
#include "server/rpc/descriptor.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "server/base/arena.h"

#define DESCRIPTOR_FILES_MAX 256

struct descriptor_pool {
  struct arena *arena;
  size_t count;
  struct descriptor_file files[DESCRIPTOR_FILES_MAX];
};

struct descriptor_pool *descriptor_pool_create(void) {
  struct arena *arena = arena_create();
  struct descriptor_pool *pool = ARENA_NEW(arena, struct descriptor_pool);
  pool->arena = arena;
  return pool;
}

void descriptor_pool_destroy(struct descriptor_pool *pool) {
  if (pool)
    arena_destroy(pool->arena);
}

const struct descriptor_file *descriptor_file_by_name(const struct descriptor_pool *pool, const char *name) {
  for (size_t i = 0; i < pool->count; i++)
    if (strcmp(pool->files[i].name, name) == 0)
      return &pool->files[i];
  return NULL;
}

static bool add_file(struct descriptor_pool *pool, const uint8_t *data, size_t size) {
  Google__Protobuf__FileDescriptorProto *proto =
      google__protobuf__file_descriptor_proto__unpack(arena_allocator(pool->arena), size, data);
  if (!proto || !proto->name)
    return false;
  if (descriptor_file_by_name(pool, proto->name))
    return true;
  if (pool->count == DESCRIPTOR_FILES_MAX)
    return false;
  pool->files[pool->count++] = (struct descriptor_file){proto->name, data, size, proto};
  return true;
}

/* FileDescriptorSet has one field: repeated FileDescriptorProto file = 1. */
bool descriptor_pool_add(struct descriptor_pool *pool, const void *data, size_t size) {
  const uint8_t *at = data, *end = at + size;
  while (at < end) {
    if (*at++ != 0x0A)
      return false;
    size_t length = 0;
    for (unsigned shift = 0;; shift += 7) {
      if (at == end || shift > 28)
        return false;
      length |= (size_t)(*at & 0x7F) << shift;
      if (!(*at++ & 0x80))
        break;
    }
    if (length > (size_t)(end - at) || !add_file(pool, at, length))
      return false;
    at += length;
  }
  return true;
}

/* When `symbol` is `name` or begins with `name` and a dot, what follows: "" or the rest. Otherwise NULL. */
static const char *below(const char *symbol, const char *name) {
  if (!name || !*name)
    return NULL;
  size_t length = strlen(name);
  if (strncmp(symbol, name, length) != 0)
    return NULL;
  if (symbol[length] == 0)
    return symbol + length;
  return symbol[length] == '.' ? symbol + length + 1 : NULL;
}

static bool enum_has(const Google__Protobuf__EnumDescriptorProto *proto, const char *symbol) {
  const char *rest = below(symbol, proto->name);
  if (!rest || !*rest)
    return rest != NULL;
  for (size_t i = 0; i < proto->n_value; i++)
    if (strcmp(rest, proto->value[i]->name) == 0)
      return true;
  return false;
}

static bool message_has(const Google__Protobuf__DescriptorProto *proto, const char *symbol) {
  const char *rest = below(symbol, proto->name);
  if (!rest || !*rest)
    return rest != NULL;
  for (size_t i = 0; i < proto->n_field; i++)
    if (strcmp(rest, proto->field[i]->name) == 0)
      return true;
  for (size_t i = 0; i < proto->n_enum_type; i++)
    if (enum_has(proto->enum_type[i], rest))
      return true;
  for (size_t i = 0; i < proto->n_nested_type; i++)
    if (message_has(proto->nested_type[i], rest))
      return true;
  return false;
}

static const Google__Protobuf__MethodDescriptorProto *
service_method(const Google__Protobuf__ServiceDescriptorProto *proto, const char *method) {
  for (size_t i = 0; i < proto->n_method; i++)
    if (strcmp(method, proto->method[i]->name) == 0)
      return proto->method[i];
  return NULL;
}

static bool file_has(const Google__Protobuf__FileDescriptorProto *proto, const char *symbol) {
  const char *rest = proto->package && *proto->package ? below(symbol, proto->package) : symbol;
  if (!rest || !*rest)
    return false;
  for (size_t i = 0; i < proto->n_service; i++) {
    const char *method = below(rest, proto->service[i]->name);
    if (method && (!*method || service_method(proto->service[i], method)))
      return true;
  }
  for (size_t i = 0; i < proto->n_message_type; i++)
    if (message_has(proto->message_type[i], rest))
      return true;
  for (size_t i = 0; i < proto->n_enum_type; i++)
    if (enum_has(proto->enum_type[i], rest))
      return true;
  return false;
}

const struct descriptor_file *descriptor_file_by_symbol(const struct descriptor_pool *pool, const char *symbol) {
  for (size_t i = 0; i < pool->count; i++)
    if (file_has(pool->files[i].proto, symbol))
      return &pool->files[i];
  return NULL;
}

const Google__Protobuf__MethodDescriptorProto *descriptor_method(const struct descriptor_pool *pool,
                                                                 const char *service, const char *method) {
  assert(service && method);
  for (size_t i = 0; i < pool->count; i++) {
    const Google__Protobuf__FileDescriptorProto *proto = pool->files[i].proto;
    const char *name = proto->package && *proto->package ? below(service, proto->package) : service;
    for (size_t k = 0; name && k < proto->n_service; k++)
      if (strcmp(name, proto->service[k]->name) == 0)
        return service_method(proto->service[k], method);
  }
  return NULL;
}
