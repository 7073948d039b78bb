/* Page tokens: see page_token.h. */
#include "server/services/page_token.h"

#include <stdbool.h>
#include <string.h>

enum { HASH_BYTES = 8, TOKEN_CHARACTERS_MAX = ((HASH_BYTES + POSITION_BYTES_MAX) * 4 + 2) / 3 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static uint64_t mix(uint64_t hash, const void *data, size_t length) {
  const uint8_t *bytes = data;
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
  return hash;
}

uint64_t hash_number(uint64_t hash, int64_t number) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; i++)
    bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
  return mix(hash, bytes, sizeof bytes);
}

uint64_t hash_bytes(uint64_t hash, const void *data, size_t length) {
  return mix(hash_number(hash, (int64_t)length), data, length);
}

uint64_t hash_text(uint64_t hash, const char *text) {
  return hash_bytes(hash, text, strlen(text));
}

/* What a token begins with. */
static void write_hash(uint64_t filter, const char *position, uint8_t bytes[HASH_BYTES]) {
  uint64_t hash = hash_text(filter, position);
  for (int i = 0; i < HASH_BYTES; i++)
    bytes[i] = (uint8_t)(hash >> (8 * i));
}

char *page_token_write(struct arena *arena, uint64_t filter, const char *position) {
  size_t length = strlen(position);
  if (length == 0)
    return arena_strdup(arena, "");
  size_t size = HASH_BYTES + length;
  uint8_t *bytes = arena_alloc(arena, size);
  write_hash(filter, position, bytes);
  memcpy(bytes + HASH_BYTES, position, length);

  char *token = arena_alloc(arena, (size * 4 + 2) / 3 + 1);
  char *end = token;
  for (size_t i = 0; i < size; i += 3) {
    uint32_t group = (uint32_t)bytes[i] << 16;
    if (i + 1 < size)
      group |= (uint32_t)bytes[i + 1] << 8;
    if (i + 2 < size)
      group |= bytes[i + 2];
    *end++ = alphabet[group >> 18];
    *end++ = alphabet[group >> 12 & 63];
    if (i + 1 < size)
      *end++ = alphabet[group >> 6 & 63];
    if (i + 2 < size)
      *end++ = alphabet[group & 63];
  }
  *end = 0;
  return token;
}

/* The number of bytes, or 0 when the text is not canonical base64url. */
static size_t decode(const char *token, size_t length, uint8_t *bytes) {
  size_t size = 0;
  uint32_t bits = 0;
  unsigned bit_count = 0;
  if (length % 4 == 1)
    return 0;
  for (size_t i = 0; i < length; i++) {
    const char *digit = memchr(alphabet, token[i], 64);
    if (!digit)
      return 0;
    bits = bits << 6 | (uint32_t)(digit - alphabet);
    bit_count += 6;
    if (bit_count >= 8) {
      bit_count -= 8;
      bytes[size++] = (uint8_t)(bits >> bit_count);
      bits &= (1u << bit_count) - 1;
    }
  }
  return bits == 0 ? size : 0;
}

const char *page_token_read(struct arena *arena, uint64_t filter, const char *token) {
  size_t length = strlen(token);
  if (length == 0)
    return "";
  if (length > TOKEN_CHARACTERS_MAX)
    return NULL;
  uint8_t *bytes = arena_alloc(arena, length);
  size_t size = decode(token, length, bytes);
  if (size <= HASH_BYTES)
    return NULL;
  char *position = arena_strndup(arena, (const char *)bytes + HASH_BYTES, size - HASH_BYTES);
  uint8_t hash[HASH_BYTES];
  write_hash(filter, position, hash);
  bool whole = strlen(position) == size - HASH_BYTES;
  return whole && memcmp(hash, bytes, HASH_BYTES) == 0 ? position : NULL;
}
