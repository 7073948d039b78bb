/* A growing array of bytes with a moving start. */
#include "redis/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { CAPACITY_MIN = 4096, CAPACITY_KEPT_MAX = 1 << 20 };

/* Room for length more bytes at the end: first by moving what is left to the front, then by doubling. */
static void make_room(struct buffer *buffer, size_t length) {
  if (buffer->start) {
    memmove(buffer->data, buffer->data + buffer->start, buffer_length(buffer));
    buffer->end -= buffer->start;
    buffer->start = 0;
  }
  size_t capacity = buffer->capacity ? buffer->capacity : CAPACITY_MIN;
  while (capacity < buffer->end + length)
    capacity *= 2;
  if (capacity == buffer->capacity)
    return;
  buffer->data = realloc(buffer->data, capacity);
  if (!buffer->data)
    abort();
  buffer->capacity = capacity;
}

void buffer_append(struct buffer *buffer, const char *bytes, size_t length) {
  if (!length)
    return;
  if (length > buffer->capacity - buffer->end)
    make_room(buffer, length);
  memcpy(buffer->data + buffer->end, bytes, length);
  buffer->end += length;
}

void buffer_clear(struct buffer *buffer) {
  if (buffer->capacity > CAPACITY_KEPT_MAX)
    buffer_close(buffer);
  buffer->start = buffer->end = 0;
}

void buffer_close(struct buffer *buffer) {
  free(buffer->data);
  *buffer = (struct buffer){0};
}
