/* Durations, times and bytes as people and JSON write them. Pure: `now` is never read here. */
#ifndef RINGBACK_CLIENT_TOOL_VALUES_H
#define RINGBACK_CLIENT_TOOL_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VALUE_TEXT_BYTES 48

/* "500ms", "5s", "2m", "1h", "3d", "1h30m", "0.5s"; a bare number is seconds. False when it is none of these or beyond
 * 10,000 years. */
bool value_parse_duration(const char *text, int64_t *milliseconds);
/* RFC 3339 with an offset, or seconds since 1970 with an optional fraction. */
bool value_parse_time(const char *text, int64_t *milliseconds);
/* A whole decimal number, possibly negative. */
bool value_parse_integer(const char *text, int64_t *number);

/* "2026-11-22T23:15:54.120Z", with 0, 3, 6 or 9 digits of a second as proto3's JSON has it. */
void value_format_time(int64_t seconds, int32_t nanoseconds, char text[VALUE_TEXT_BYTES]);
/* "5s", "0.500s", "-1.500s". */
void value_format_duration(int64_t seconds, int32_t nanoseconds, char text[VALUE_TEXT_BYTES]);
/* For people: "2026-11-22 23:15:54" in local time. */
void value_show_time(int64_t seconds, char text[VALUE_TEXT_BYTES]);
/* For people: "120ms", "5.2s", "3m 20s", "4h 12m", "3d 4h". */
void value_show_duration(int64_t milliseconds, char text[VALUE_TEXT_BYTES]);

/* Base64 of RFC 4648 with padding, NUL-terminated; freed by the caller. */
char *value_encode_base64(const uint8_t *bytes, size_t byte_count);
/* Standard or URL-safe alphabet, padded or not. NULL when it is no base64; freed by the caller. */
uint8_t *value_decode_base64(const char *text, size_t *byte_count);

#endif
