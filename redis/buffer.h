/* Bytes on their way out: appended at the end, taken from the start. Its user limits its size. */
#ifndef RINGBACK_REDIS_BUFFER_H
#define RINGBACK_REDIS_BUFFER_H

#include <stddef.h>

/* All zero: empty. The bytes are data[start..end). */
struct buffer {
  char *data;
  size_t start, end, capacity;
};

static inline size_t buffer_length(const struct buffer *buffer) {
  return buffer->end - buffer->start;
}

void buffer_append(struct buffer *buffer, const char *bytes, size_t length);
/* Empties it; one that has been large gives its memory back. */
void buffer_clear(struct buffer *buffer);
void buffer_close(struct buffer *buffer);

#endif
