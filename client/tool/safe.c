/*
 * Texts of others made fit for a terminal. UTF-8 is read strictly, since a byte of an overlong or broken sequence may
 * be a control character to a terminal that reads it differently.
 */
#include "client/tool/safe.h"
#include <stdlib.h>
#include <string.h>

#define RING_COUNT 8

/* How many bytes the character at `text` has; 0 when it is none, or a control character of C1 or DEL. */
static size_t character_bytes(const unsigned char *text, size_t length) {
  unsigned char first = text[0];
  size_t count = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (first == 0x7f || count > length)
    return 0;
  for (size_t i = 1; i < count; i++)
    if ((text[i] & 0xc0) != 0x80)
      return 0;
  if ((first == 0xc2 && text[1] < 0xa0) || (first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f) ||
      (first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f))
    return 0;
  return count;
}

size_t safe_clean(char *text, size_t length, bool lines) {
  size_t out = 0, count;
  for (size_t in = 0; in < length; in += count) {
    const unsigned char *at = (const unsigned char *)text + in;
    count = character_bytes(at, length - in);
    if (count == 0) {
      /* A well-formed C1 character is two bytes and one '?'. */
      count = at[0] == 0xc2 && length - in > 1 && (at[1] & 0xc0) == 0x80 ? 2 : 1;
      text[out++] = '?';
    } else if (at[0] == '\n' || at[0] == '\t' || (at[0] == '\r' && length - in > 1 && at[1] == '\n')) {
      text[out++] = lines ? (char)at[0] : ' ';
    } else if (at[0] < 0x20) {
      text[out++] = '?';
    } else {
      memmove(text + out, at, count);
      out += count;
    }
  }
  if (out < length)
    text[out] = '\0';
  return out;
}

const char *safe_text(const char *text) {
  static char *ring[RING_COUNT];
  static int next;
  size_t length = strlen(text);
  char *copy = malloc(length + 1);
  if (copy == NULL)
    return "?";
  memcpy(copy, text, length + 1);
  if (safe_clean(copy, length, false) == length && memcmp(copy, text, length) == 0) {
    free(copy);
    return text;
  }
  next = (next + 1) % RING_COUNT;
  free(ring[next]);
  ring[next] = copy;
  return copy;
}
