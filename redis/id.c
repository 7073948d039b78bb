/* Job and queue ids: sixteen bytes and their text. */
#include "redis/id.h"

#include <string.h>

/* Ringback__V1__Feature is the index. */
static const char letters[4] = {0, 'j', 's', 'd'};

unsigned id_partition(const char *bucket) {
  uint32_t hash = 2166136261u; /* FNV-1a, 32 bits */
  for (const unsigned char *at = (const unsigned char *)bucket; *at; at++)
    hash = (hash ^ *at) * 16777619u;
  return hash % PARTITIONS;
}

static void format(char letter, const uint8_t bytes[16], char *text) {
  static const char digits[] = "0123456789abcdef";
  *text++ = letter;
  for (size_t i = 0; i < 16; i++) {
    *text++ = digits[bytes[i] >> 4];
    *text++ = digits[bytes[i] & 15];
  }
  *text = 0;
}

/* -1 unless it is a lower-case hex digit. */
static int digit_value(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return -1;
}

void id_format_job(const struct job_id *id, char *text) {
  int feature = id_job_feature(id);
  format(feature ? letters[feature] : 'x', id->bytes, text);
}

void id_format_queue(const uint8_t bytes[16], char *text) {
  format('p', bytes, text);
}

bool id_parse_job(const char *text, struct job_id *id) {
  struct job_id parsed;
  char letter = *text;
  if (!letter)
    return false;
  text++;
  for (size_t i = 0; i < sizeof parsed.bytes; i++) {
    int high = digit_value(*text);
    if (high < 0)
      return false;
    int low = digit_value(text[1]);
    if (low < 0)
      return false;
    parsed.bytes[i] = (uint8_t)(high << 4 | low);
    text += 2;
  }
  int feature = id_job_feature(&parsed);
  if (*text || feature == 0 || letters[feature] != letter)
    return false;
  *id = parsed;
  return true;
}

static uint64_t big_endian(const uint8_t *bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; i++)
    value = value << 8 | bytes[i];
  return value;
}

unsigned id_job_partition(const struct job_id *id) {
  return id->bytes[0] & 63u;
}

uint64_t id_job_queue_number(const struct job_id *id) {
  return big_endian(id->bytes + 1, 5);
}

int64_t id_job_create_ms(const struct job_id *id) {
  return (int64_t)big_endian(id->bytes + 6, 6);
}

int id_job_feature(const struct job_id *id) {
  return id->bytes[0] >> 6;
}
