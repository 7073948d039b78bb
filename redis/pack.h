/* Big-endian numbers and bytes, one after the other: how records, states and arguments are laid out (struct.pack of
 * Redis's Lua with '>'). Whoever packs has reserved the room.
 */
#ifndef RINGBACK_REDIS_PACK_H
#define RINGBACK_REDIS_PACK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The low `size` bytes of value. Returns what is behind them. */
static inline uint8_t *pack_number(uint8_t *at, uint64_t value, size_t size) {
  for (size_t i = size; i > 0; i--) {
    at[i - 1] = (uint8_t)(value & 0xff);
    value >>= 8;
  }
  return at + size;
}

static inline uint8_t *pack_bytes(uint8_t *at, const void *data, size_t size) {
  if (size)
    memcpy(at, data, size);
  return at + size;
}

/* The number of `size` bytes, up to 8, behind *at, which moves on. */
static inline uint64_t unpack_number(const uint8_t **at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; i++)
    value = value << 8 | (*at)[i];
  *at += size;
  return value;
}

#endif
