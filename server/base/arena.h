/* Memory that lives as long as one request: taken piece by piece, given back as a whole.
 *
 * Running out of memory ends the process (an operating system that overcommits gives no chance to do better), so
 * nothing here returns NULL. Sizes are limited by their callers.
 */
#ifndef RINGBACK_SERVER_BASE_ARENA_H
#define RINGBACK_SERVER_BASE_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stdarg.h>
#include <stddef.h>

struct arena;

struct arena *arena_create(void);
void arena_destroy(struct arena *arena);
/* Gives everything back but keeps the first block for the next use. */
void arena_reset(struct arena *arena);

/* Zeroed, aligned for any type. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_copy(struct arena *arena, const void *data, size_t size);
/* NUL-terminated copies. */
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t length);
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(struct arena *arena, const char *format, va_list arguments);

/* For protobuf-c's unpack: frees nothing; never call free_unpacked on the result. */
ProtobufCAllocator *arena_allocator(struct arena *arena);

#define ARENA_NEW(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *)arena_alloc((arena), sizeof(type) * (count)))

#endif
