/*
 * Durations, times and bytes as people and JSON write them. Everything here is a pure function of its arguments (and,
 * for times shown to people, of the time zone).
 */
#include "client/tool/values.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* 10,000 years, the range of google.protobuf.Duration. */
#define SECONDS_MAX 315576000000

static const struct {
  const char *name;
  int64_t milliseconds;
} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

/* Digits with an optional fraction, in thousandths; digits beyond those are dropped. */
static const char *parse_thousandths(const char *text, int64_t *thousandths) {
  if (!isdigit((unsigned char)*text))
    return NULL;
  int64_t value = 0;
  for (; isdigit((unsigned char)*text); text++) {
    value = value * 10 + (*text - '0');
    if (value > SECONDS_MAX)
      return NULL;
  }
  value *= 1000;
  if (*text == '.') {
    text++;
    if (!isdigit((unsigned char)*text))
      return NULL;
    for (int64_t scale = 100; isdigit((unsigned char)*text); text++, scale /= 10)
      value += (*text - '0') * scale;
  }
  *thousandths = value;
  return text;
}

bool value_parse_duration(const char *text, int64_t *milliseconds) {
  int64_t total = 0, number = 0;
  if (*text == '\0')
    return false;
  while (*text != '\0') {
    const char *unit = parse_thousandths(text, &number);
    if (unit == NULL)
      return false;
    if (*unit == '\0' && total == 0) {
      *milliseconds = number;
      return true;
    }
    size_t length = strspn(unit, "abcdefghijklmnopqrstuvwxyz");
    int64_t scale = 0;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
      if (strlen(units[i].name) == length && memcmp(unit, units[i].name, length) == 0)
        scale = units[i].milliseconds;
    if (scale == 0 || number / 1000 > SECONDS_MAX * 1000 / scale)
      return false;
    total += number / 1000 * scale + number % 1000 * scale / 1000;
    if (total > SECONDS_MAX * 1000)
      return false;
    text = unit + length;
  }
  *milliseconds = total;
  return true;
}

/* Exactly `digits` digits. */
static const char *parse_digits(const char *text, int digits, int *number) {
  *number = 0;
  for (int i = 0; i < digits; i++, text++) {
    if (!isdigit((unsigned char)*text))
      return NULL;
    *number = *number * 10 + (*text - '0');
  }
  return text;
}

static const char *parse_fields(const char *text, const char *format, int *numbers) {
  for (; *format != '\0' && text != NULL; format++) {
    if (isdigit((unsigned char)*format)) {
      text = parse_digits(text, *format - '0', numbers++);
    } else if (toupper((unsigned char)*text) == *format || (*format == 'T' && *text == ' ')) {
      text++;
    } else {
      return NULL;
    }
  }
  return text;
}

static const char *parse_offset(const char *text, int *offset_seconds) {
  int numbers[2];
  *offset_seconds = 0;
  if (*text == 'Z' || *text == 'z')
    return text + 1;
  if (*text != '+' && *text != '-')
    return NULL;
  int sign = *text == '-' ? -1 : 1;
  text = parse_fields(text + 1, "2:2", numbers);
  if (text == NULL || numbers[0] > 23 || numbers[1] > 59)
    return NULL;
  *offset_seconds = sign * (numbers[0] * 3600 + numbers[1] * 60);
  return text;
}

bool value_parse_time(const char *text, int64_t *milliseconds) {
  const char *end = parse_thousandths(text, milliseconds);
  if (end != NULL && *end == '\0')
    return true;
  int n[6], offset;
  const char *rest = parse_fields(text, "4-2-2T2:2:2", n);
  if (rest == NULL || n[0] < 1 || n[1] < 1 || n[1] > 12 || n[2] < 1 || n[2] > 31 || n[3] > 23 || n[4] > 59 || n[5] > 60)
    return false;
  int64_t fraction = 0;
  if (*rest == '.') {
    rest++;
    if (!isdigit((unsigned char)*rest))
      return false;
    for (int64_t scale = 100; isdigit((unsigned char)*rest); rest++, scale /= 10)
      fraction += (*rest - '0') * scale;
  }
  rest = parse_offset(rest, &offset);
  if (rest == NULL || *rest != '\0')
    return false;
  struct tm broken = {.tm_year = n[0] - 1900,
                      .tm_mon = n[1] - 1,
                      .tm_mday = n[2],
                      .tm_hour = n[3],
                      .tm_min = n[4],
                      .tm_sec = n[5] == 60 ? 59 : n[5]};
  time_t seconds = timegm(&broken);
  /* timegm makes the 31st of April the 1st of May: that was no date. */
  if (broken.tm_mday != n[2])
    return false;
  seconds += n[5] == 60; /* a leap second is the second after */
  *milliseconds = ((int64_t)seconds - offset) * 1000 + fraction;
  return true;
}

bool value_parse_integer(const char *text, int64_t *number) {
  int64_t sign = 1, value = 0;
  if (*text == '-') {
    sign = -1;
    text++;
  }
  if (*text == '\0')
    return false;
  for (; *text != '\0'; text++) {
    if (!isdigit((unsigned char)*text) || value > (INT64_MAX - 9) / 10)
      return false;
    value = value * 10 + (*text - '0');
  }
  *number = sign * value;
  return true;
}

/* The shortest of no, 3, 6 or 9 digits that loses nothing. */
static void format_fraction(int32_t nanoseconds, char text[16]) {
  text[0] = '\0';
  if (nanoseconds < 0 || nanoseconds > 999999999 || nanoseconds == 0)
    return;
  if (nanoseconds % 1000000 == 0)
    snprintf(text, 16, ".%03d", nanoseconds / 1000000);
  else if (nanoseconds % 1000 == 0)
    snprintf(text, 16, ".%06d", nanoseconds / 1000);
  else
    snprintf(text, 16, ".%09d", nanoseconds);
}

void value_format_time(int64_t seconds, int32_t nanoseconds, char text[VALUE_TEXT_BYTES]) {
  struct tm broken;
  char fraction[16], whole[24];
  time_t time = (time_t)seconds;
  if (gmtime_r(&time, &broken) == NULL || strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &broken) == 0)
    snprintf(whole, sizeof whole, "?");
  format_fraction(nanoseconds, fraction);
  snprintf(text, VALUE_TEXT_BYTES, "%s%sZ", whole, fraction);
}

void value_format_duration(int64_t seconds, int32_t nanoseconds, char text[VALUE_TEXT_BYTES]) {
  char fraction[16];
  bool negative = seconds < 0 || nanoseconds < 0;
  uint64_t whole = seconds < 0 ? 0 - (uint64_t)seconds : (uint64_t)seconds;
  format_fraction(nanoseconds < 0 ? -nanoseconds : nanoseconds, fraction);
  snprintf(text, VALUE_TEXT_BYTES, "%s%llu%ss", negative ? "-" : "", (unsigned long long)whole, fraction);
}

void value_show_time(int64_t seconds, char text[VALUE_TEXT_BYTES]) {
  struct tm broken;
  time_t time = (time_t)seconds;
  if (localtime_r(&time, &broken) == NULL || strftime(text, VALUE_TEXT_BYTES, "%Y-%m-%d %H:%M:%S", &broken) == 0)
    snprintf(text, VALUE_TEXT_BYTES, "?");
}

void value_show_duration(int64_t milliseconds, char text[VALUE_TEXT_BYTES]) {
  const char *sign = milliseconds < 0 ? "-" : "";
  int64_t left = milliseconds < 0 ? -milliseconds : milliseconds;
  size_t large = sizeof units / sizeof *units - 1;
  while (large > 0 && left < units[large].milliseconds)
    large--;
  int64_t whole = left / units[large].milliseconds, rest = left % units[large].milliseconds;
  if (large == 1 && rest >= 100) {
    snprintf(text, VALUE_TEXT_BYTES, "%s%lld.%llds", sign, (long long)whole, (long long)(rest / 100));
    return;
  }
  int length = snprintf(text, VALUE_TEXT_BYTES, "%s%lld%s", sign, (long long)whole, units[large].name);
  /* Of what is left only the next smaller unit is worth showing. */
  if (large > 1 && rest >= units[large - 1].milliseconds)
    snprintf(text + length, VALUE_TEXT_BYTES - (size_t)length, " %lld%s",
             (long long)(rest / units[large - 1].milliseconds), units[large - 1].name);
}

char *value_encode_base64(const uint8_t *bytes, size_t byte_count) {
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char *text = malloc((byte_count + 2) / 3 * 4 + 1);
  char *out = text;
  if (text == NULL)
    return NULL;
  for (size_t i = 0; i < byte_count; i += 3) {
    size_t left = byte_count - i;
    uint32_t group =
        (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    *out++ = alphabet[group >> 18];
    *out++ = alphabet[group >> 12 & 63];
    *out++ = left > 1 ? alphabet[group >> 6 & 63] : '=';
    *out++ = left > 2 ? alphabet[group & 63] : '=';
  }
  *out = '\0';
  return text;
}

static int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  if (c == '+' || c == '-')
    return 62;
  return c == '/' || c == '_' ? 63 : -1;
}

uint8_t *value_decode_base64(const char *text, size_t *byte_count) {
  size_t length = strlen(text), count = 0;
  while (length > 0 && text[length - 1] == '=')
    length--;
  if (length % 4 == 1 || strlen(text) - length > 2)
    return NULL;
  uint8_t *bytes = malloc(length / 4 * 3 + 3);
  if (bytes == NULL)
    return NULL;
  uint32_t group = 0;
  for (size_t i = 0; i < length; i++) {
    int digit = base64_digit(text[i]);
    if (digit < 0) {
      free(bytes);
      return NULL;
    }
    group = group << 6 | (uint32_t)digit;
    if (i % 4 == 1)
      bytes[count++] = (uint8_t)(group >> 4);
    else if (i % 4 == 2)
      bytes[count++] = (uint8_t)(group >> 2);
    else if (i % 4 == 3)
      bytes[count++] = (uint8_t)group;
  }
  *byte_count = count;
  return bytes;
}
