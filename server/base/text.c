/* See text.h. Runs of ASCII, which are most of what comes, are skipped eight bytes at a time. */
#include "server/base/text.h"

#include <string.h>

size_t text_decode(const void *data, size_t length, uint32_t *code_point) {
  const unsigned char *bytes = data;
  if (length == 0)
    return 0;
  unsigned first = bytes[0];
  if (first < 0x80) {
    *code_point = first;
    return 1;
  }
  /* Every range of first bytes, and what its second byte may be (RFC 3629, section 4). */
  static const struct {
    unsigned char first_least, first_most, second_least, second_most, size;
  } forms[] = {
      {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
      {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
      {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
  };
  for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
    if (first < forms[i].first_least || first > forms[i].first_most)
      continue;
    size_t size = forms[i].size;
    if (length < size || bytes[1] < forms[i].second_least || bytes[1] > forms[i].second_most)
      return 0;
    uint32_t point = first & (0x7Fu >> size);
    for (size_t k = 1; k < size; k++) {
      if ((bytes[k] & 0xC0) != 0x80)
        return 0;
      point = point << 6 | (bytes[k] & 0x3Fu);
    }
    *code_point = point;
    return size;
  }
  return 0;
}

static size_t ascii_run(const unsigned char *bytes, size_t length) {
  size_t at = 0;
  while (length - at >= 8) {
    uint64_t word;
    memcpy(&word, bytes + at, 8);
    if (word & UINT64_C(0x8080808080808080))
      break;
    at += 8;
  }
  while (at < length && bytes[at] < 0x80)
    at++;
  return at;
}

bool text_is_utf8(const void *data, size_t length) {
  const unsigned char *bytes = data;
  size_t at = 0;
  for (;;) {
    at += ascii_run(bytes + at, length - at);
    if (at == length)
      return true;
    uint32_t point;
    size_t size = text_decode(bytes + at, length - at, &point);
    if (size == 0)
      return false;
    at += size;
  }
}

bool text_is_xml_char(uint32_t code_point) {
  if (code_point < 0x20)
    return code_point == '\t' || code_point == '\n' || code_point == '\r';
  return code_point < 0xD800 || (code_point > 0xDFFF && code_point < 0xFFFE) ||
         (code_point > 0xFFFF && code_point <= 0x10FFFF);
}

bool text_is_xml(const void *data, size_t length) {
  const unsigned char *bytes = data;
  for (size_t at = 0; at < length;) {
    uint32_t point;
    size_t size = text_decode(bytes + at, length - at, &point);
    if (size == 0 || !text_is_xml_char(point))
      return false;
    at += size;
  }
  return true;
}

bool text_is_printable_ascii(const void *data, size_t length) {
  const unsigned char *bytes = data;
  for (size_t at = 0; at < length; at++)
    if (bytes[at] < 0x20 || bytes[at] > 0x7E)
      return false;
  return true;
}

size_t text_utf8_characters(const void *data, size_t length) {
  const unsigned char *bytes = data;
  size_t count = 0;
  for (size_t at = 0; at < length; at++)
    count += (bytes[at] & 0xC0) != 0x80;
  return count;
}

size_t text_utf8_cut(const void *data, size_t length, size_t bytes_max) {
  const unsigned char *bytes = data;
  if (length <= bytes_max)
    return length;
  size_t cut = bytes_max;
  while (cut > 0 && (bytes[cut] & 0xC0) == 0x80)
    cut--;
  return cut;
}
