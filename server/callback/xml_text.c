/* The strict gate: UTF-8 (RFC 3629) and XML 1.0's production Char, decided without libxml2. */
#include <stdint.h>
#include <string.h>

#include "server/callback/xml.h"

static const char replacement[] = "\xef\xbf\xbd";

/* How many bytes the character at the start has; 0 when it is no well-formed UTF-8. */
static size_t utf8_decode(const unsigned char *bytes, size_t left, uint32_t *character) {
  unsigned char first = bytes[0];
  if (first < 0x80) {
    *character = first;
    return 1;
  }
  size_t size = first >= 0xc2 && first <= 0xdf   ? 2
                : (first & 0xf0) == 0xe0         ? 3
                : first >= 0xf0 && first <= 0xf4 ? 4
                                                 : 0;
  if (!size || size > left)
    return 0;
  uint32_t value = first & (0x7fu >> size);
  for (size_t i = 1; i < size; i++) {
    if ((bytes[i] & 0xc0) != 0x80)
      return 0;
    value = value << 6 | (bytes[i] & 0x3fu);
  }
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < least[size] || value > 0x10ffff)
    return 0;
  *character = value;
  return size;
}

static bool is_char(uint32_t c) {
  if (c < 0x20)
    return c == '\t' || c == '\n' || c == '\r';
  return c < 0xd800 || (c > 0xdfff && c != 0xfffe && c != 0xffff);
}

#define EVERY_BYTE(value) (UINT64_MAX / 0xff * (value))

/* How much of the start is printable ASCII, in whole words: what most text is, and of which nothing is to be asked. */
static size_t plain_length(const char *text, size_t length) {
  size_t at = 0;
  for (uint64_t word; length - at >= sizeof(word); at += sizeof(word)) {
    memcpy(&word, text + at, sizeof(word));
    /* A byte below 0x20 borrows its highest bit, one from 0x80 on has it. */
    if ((word | (word - EVERY_BYTE(0x20))) & EVERY_BYTE(0x80))
      break;
  }
  return at;
}

/* How long the valid text at the start is; *bad is the size of what stops it. */
static size_t valid_length(const char *text, size_t length, size_t *bad) {
  size_t at = 0;
  while ((at += plain_length(text + at, length - at)) < length) {
    uint32_t character = 0;
    size_t size = utf8_decode((const unsigned char *)text + at, length - at, &character);
    if (!size || !is_char(character)) {
      *bad = size ? size : 1;
      break;
    }
    at += size;
  }
  return at;
}

bool xml_text_is_valid(const char *text, size_t length) {
  size_t bad;
  return valid_length(text, length, &bad) == length;
}

const char *xml_text_repair(struct arena *arena, const char *text, size_t *length) {
  size_t bad = 0, left = *length;
  size_t good = valid_length(text, left, &bad);
  if (good == left)
    return text;
  char *copy = arena_alloc(arena, left * 3 + 1), *out = copy;
  for (;;) {
    memcpy(out, text, good);
    out += good;
    if (good == left)
      break;
    memcpy(out, replacement, 3);
    out += 3;
    text += good + bad;
    left -= good + bad;
    good = valid_length(text, left, &bad);
  }
  *length = (size_t)(out - copy);
  return copy;
}
