/* A chain of blocks with a cursor in the newest. A piece that is large against a block gets a block of its own behind
 * the newest one, so that it does not waste what is left there. The first block is part of the arena's life and is kept
 * over resets: a server that reuses arenas takes no memory from malloc for ordinary requests.
 */
#include "server/base/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_FIRST_BLOCK_BYTES 8192
#define ARENA_BLOCK_BYTES 32768
#define ARENA_OWN_BLOCK_BYTES 8192 /* larger pieces get a block of their own */
#define ARENA_ALLOC_BYTES_MAX ((size_t)1 << 30)

struct arena_block {
  struct arena_block *older;
  size_t size; /* of data */
  size_t used;
  alignas(max_align_t) unsigned char data[];
};

struct arena {
  struct arena_block *newest; /* never NULL; the oldest is the first block */
  ProtobufCAllocator allocator;
};

static struct arena_block *block_create(size_t size, struct arena_block *older) {
  struct arena_block *block = malloc(sizeof(*block) + size);
  if (!block) {
    fputs("out of memory\n", stderr);
    abort();
  }
  block->older = older;
  block->size = size;
  block->used = 0;
  return block;
}

static void *allocator_alloc(void *arena, size_t size) {
  return arena_alloc(arena, size);
}

static void allocator_free(void *arena, void *piece) {
  (void)arena;
  (void)piece;
}

struct arena *arena_create(void) {
  struct arena *arena = malloc(sizeof(*arena));
  if (!arena) {
    fputs("out of memory\n", stderr);
    abort();
  }
  arena->newest = block_create(ARENA_FIRST_BLOCK_BYTES, NULL);
  arena->allocator = (ProtobufCAllocator){allocator_alloc, allocator_free, arena};
  return arena;
}

void arena_reset(struct arena *arena) {
  while (arena->newest->older) {
    struct arena_block *block = arena->newest;
    arena->newest = block->older;
    free(block);
  }
  arena->newest->used = 0;
}

void arena_destroy(struct arena *arena) {
  if (!arena)
    return;
  arena_reset(arena);
  free(arena->newest);
  free(arena);
}

void *arena_alloc(struct arena *arena, size_t size) {
  const size_t alignment = alignof(max_align_t);
  assert(size <= ARENA_ALLOC_BYTES_MAX);
  size = (size + alignment - 1) / alignment * alignment;
  if (size == 0)
    size = alignment;
  struct arena_block *block = arena->newest;
  if (size > block->size - block->used) {
    if (size > ARENA_OWN_BLOCK_BYTES && block->older) {
      block->older = block_create(size, block->older);
      block = block->older;
    } else {
      block = arena->newest = block_create(size > ARENA_BLOCK_BYTES ? size : ARENA_BLOCK_BYTES, block);
    }
  }
  void *piece = block->data + block->used;
  block->used += size;
  return memset(piece, 0, size);
}

void *arena_copy(struct arena *arena, const void *data, size_t size) {
  void *copy = arena_alloc(arena, size);
  if (size)
    memcpy(copy, data, size);
  return copy;
}

char *arena_strndup(struct arena *arena, const char *text, size_t length) {
  char *copy = arena_alloc(arena, length + 1);
  if (length)
    memcpy(copy, text, length);
  return copy;
}

char *arena_strdup(struct arena *arena, const char *text) {
  return arena_strndup(arena, text, strlen(text));
}

char *arena_vprintf(struct arena *arena, const char *format, va_list arguments) {
  char stack[256];
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(stack, sizeof stack, format, arguments);
  assert(length >= 0);
  char *text;
  if ((size_t)length < sizeof stack) {
    text = arena_strndup(arena, stack, (size_t)length);
  } else {
    text = arena_alloc(arena, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
  }
  va_end(again);
  return text;
}

char *arena_printf(struct arena *arena, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *text = arena_vprintf(arena, format, arguments);
  va_end(arguments);
  return text;
}

ProtobufCAllocator *arena_allocator(struct arena *arena) {
  return &arena->allocator;
}
