/* Checks of a request's fields: see validate.h. */
#include "server/services/validate.h"

#include "ringback/v1/common.pb-c.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "server/base/text.h"
#include "server/callback/url.h"

/* A queue's name leaves less room, as the longest rule stands behind it. */
enum { SHOWN_CHARACTERS_MAX = 64, SHOWN_QUEUE_CHARACTERS_MAX = 40 };

/* The largest values of the well-known types, in seconds: 9999-12-31T23:59:59Z and 10,000 years. */
#define TIME_SECONDS_MIN INT64_C(-62135596800)
#define TIME_SECONDS_MAX INT64_C(253402300799)
#define DURATION_SECONDS_MAX INT64_C(315576000000)

char *field_path(struct arena *arena, const struct field *field) {
  const char *parent = field->parent ? field_path(arena, field->parent) : "";
  const char *dot = field->parent ? "." : "";
  if (field->index >= 0)
    return arena_printf(arena, "%s%s%s[%ld]", parent, dot, field->name, field->index);
  return arena_printf(arena, "%s%s%s", parent, dot, field->name);
}

void check_fail(struct check *check, const struct field *field, const char *format, ...) {
  if (check->count >= FINDINGS_MAX)
    return;
  va_list arguments;
  va_start(arguments, format);
  struct finding *finding = &check->findings[check->count++];
  finding->field = field_path(check->arena, field);
  finding->description = arena_vprintf(check->arena, format, arguments);
  va_end(arguments);
}

/* A text as a message can show it: printable ASCII, cut short, in quotes. */
static const char *shown_up_to(struct check *check, const char *text, size_t characters_max) {
  char buffer[SHOWN_CHARACTERS_MAX + 1];
  size_t length = 0;
  for (; text[length] && length < characters_max; length++)
    buffer[length] = text[length] >= ' ' && text[length] <= '~' ? text[length] : '?';
  buffer[length] = 0;
  return arena_printf(check->arena, "\"%s%s\"", buffer, text[length] ? "..." : "");
}

static const char *shown(struct check *check, const char *text) {
  return shown_up_to(check, text, SHOWN_CHARACTERS_MAX);
}

int64_t check_range(struct check *check, const struct field *field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max)
    return value;
  check_fail(check, field, "is %" PRId64 "; it must be %" PRId64 " to %" PRId64, value, min, max);
  return min;
}

int64_t check_range_or(struct check *check, const struct field *field, int64_t value, int64_t min, int64_t max,
                       int64_t fallback) {
  if (value == 0)
    return fallback;
  if (value >= min && value <= max)
    return value;
  check_fail(check, field, "is %" PRId64 "; it must be %" PRId64 " to %" PRId64 ", or 0 for the default", value, min,
             max);
  return fallback;
}

void check_count(struct check *check, const struct field *field, size_t count, size_t min, size_t max) {
  if (count < min || count > max)
    check_fail(check, field, "has %zu elements; it must have %zu to %zu", count, min, max);
}

/* A span for people, in the largest unit that divides it. */
static const char *span(struct check *check, int64_t ms) {
  static const struct {
    int64_t ms;
    const char *unit;
  } units[] = {{DAY_MS, "days"}, {HOUR_MS, "h"}, {MINUTE_MS, "min"}, {SECOND_MS, "s"}};
  if (ms == 0)
    return "0";
  if (ms == DAY_MS)
    return "1 day";
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
    if (ms % units[i].ms == 0)
      return arena_printf(check->arena, "%" PRId64 " %s", ms / units[i].ms, units[i].unit);
  return arena_printf(check->arena, "%" PRId64 " ms", ms);
}

int64_t check_duration(struct check *check, const struct field *field, const Google__Protobuf__Duration *duration,
                       int64_t min_ms, int64_t max_ms, int64_t absent_ms) {
  if (!duration)
    return absent_ms;
  int64_t seconds = duration->seconds;
  int32_t nanos = duration->nanos;
  if (seconds < -DURATION_SECONDS_MAX || seconds > DURATION_SECONDS_MAX || nanos <= -1000000000 ||
      nanos >= 1000000000 || (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0)) {
    check_fail(check, field, "is %" PRId64 " s and %d ns, which is no valid Duration", seconds, nanos);
    return absent_ms;
  }
  int64_t ms = seconds * 1000 + (nanos > 0 ? (nanos + 999999) / 1000000 : nanos / 1000000);
  bool negative = seconds < 0 || nanos < 0;
  /* Rounding must not carry a value across its limit. */
  bool above = ms > max_ms || (ms == max_ms && nanos % 1000000 != 0);
  bool below = negative || ms < min_ms || (ms == min_ms && min_ms > 0 && nanos % 1000000 != 0);
  if (!above && !below)
    return ms;
  const char *sign = negative ? "-" : "", *low = span(check, min_ms), *high = span(check, max_ms);
  if (nanos % 1000000 == 0)
    check_fail(check, field, "is %s%s; it must be %s to %s", sign, span(check, negative ? -ms : ms), low, high);
  else
    check_fail(check, field, "is %s%" PRId64 ".%09d s; it must be %s to %s", sign, seconds < 0 ? -seconds : seconds,
               nanos < 0 ? -nanos : nanos, low, high);
  return absent_ms;
}

int64_t check_time(struct check *check, const struct field *field, const Google__Protobuf__Timestamp *time,
                   int64_t absent_ms) {
  if (!time)
    return absent_ms;
  if (time->seconds < TIME_SECONDS_MIN || time->seconds > TIME_SECONDS_MAX || time->nanos < 0 ||
      time->nanos >= 1000000000) {
    check_fail(check, field, "is %" PRId64 " s and %d ns, which is no valid Timestamp (years 1 to 9999)", time->seconds,
               time->nanos);
    return absent_ms;
  }
  return time->seconds * 1000 + (time->nanos + 999999) / 1000000;
}

const char *check_show_time(struct check *check, int64_t time_ms) {
  time_t seconds = (time_t)(time_ms >= 0 ? time_ms / 1000 : (time_ms - 999) / 1000);
  struct tm utc;
  gmtime_r(&seconds, &utc);
  return arena_printf(check->arena, "%04d-%02d-%02dT%02d:%02d:%02dZ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                      utc.tm_hour, utc.tm_min, utc.tm_sec);
}

void check_ascii(struct check *check, const struct field *field, const char *text, size_t max) {
  size_t length = strlen(text);
  if (length > max) {
    check_fail(check, field, "has %zu characters; at most %zu of printable ASCII are allowed", length, max);
    return;
  }
  for (size_t i = 0; i < length; i++)
    if (text[i] < ' ' || text[i] > '~') {
      check_fail(check, field, "is %s with the byte 0x%02x at %zu; only printable ASCII is allowed", shown(check, text),
                 (unsigned char)text[i], i);
      return;
    }
}

void check_token(struct check *check, const struct field *field, const char *text, size_t max) {
  if (!names_is_token(text, strlen(text), max))
    check_fail(check, field, "is %s; it must be 1 to %zu characters of A-Z a-z 0-9 _ . and -", shown(check, text), max);
}

void check_text(struct check *check, const struct field *field, const char *text, size_t min, size_t max) {
  size_t length = strlen(text);
  if (length < min || length > max) {
    check_fail(check, field, "has %zu bytes; it must have %zu to %zu", length, min, max);
    return;
  }
  for (size_t i = 0, step; i < length; i += step) {
    uint32_t character;
    step = text_decode(text + i, length - i, &character);
    if (step == 0 || !text_is_xml_char(character)) {
      check_fail(check, field, "is %s with a character at byte %zu that XML 1.0 cannot carry", shown(check, text), i);
      return;
    }
  }
}

void check_url(struct check *check, const struct field *field, const char *text) {
  struct callback_url url;
  const char *wrong = url_parse(text, strlen(text), &url);
  if (wrong)
    check_fail(check, field, "is %s; it %s", shown(check, text), wrong);
}

void check_callback_url(struct check *check, const struct field *field, const char *text,
                        const struct address_set *allow, const struct address_set *narrowed) {
  struct callback_url url;
  size_t findings = check->count;
  if (*text == 0)
    return;
  check_url(check, field, text);
  if (check->count > findings || url_parse(text, strlen(text), &url) || !url.is_address)
    return;
  const struct sockaddr *to = (const struct sockaddr *)&url.address;
  const char *why = "";
  char address[ADDRESS_TEXT_SIZE];
  address_print(to, address);
  if (!address_is_allowed(allow, to, &why))
    check_fail(check, field, "leads to the address %s, which the operator does not allow (%s)", address, why);
  else if (narrowed && !address_is_allowed(narrowed, to, &why))
    check_fail(check, field, "leads to the address %s, which the rule's allowed_cidrs do not allow (%s)", address, why);
}

/* https://www.w3.org/TR/trace-context/#traceparent-header: version 00, which has 55 characters. */
void check_traceparent(struct check *check, const struct field *field, const char *text) {
  static const char form[] = "00-iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii-ssssssssssssssss-ff";
  size_t length = strlen(text);
  if (length == 0)
    return;
  bool valid = length == sizeof form - 1;
  bool trace_id = false, span_id = false; /* all zero is no id */
  for (size_t i = 0; valid && i < length; i++) {
    bool hex = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    valid = form[i] == '-' || i < 2 ? (form[i] == '-' ? text[i] == '-' : hex) : hex;
    trace_id |= form[i] == 'i' && text[i] != '0';
    span_id |= form[i] == 's' && text[i] != '0';
  }
  if (!valid || !trace_id || !span_id || strncmp(text, "ff", 2) == 0)
    check_fail(check, field, "is %s; it must be empty or a W3C traceparent of 55 characters", shown(check, text));
}

const char *check_bucket(struct check *check, const struct field *field, const char *name) {
  const char *bucket = names_parse_bucket(name);
  if (bucket)
    return bucket;
  check_fail(
      check, field,
      "is %s; it must be buckets/{bucket}, where {bucket} is 1 to 63 characters of a-z 0-9 . and -, beginning and "
      "ending with a letter or digit",
      shown(check, name));
  return "";
}

struct queue_name check_queue(struct check *check, const struct field *field, const char *name) {
  struct queue_name parsed = {"", ""};
  if (!names_parse_queue(check->arena, name, &parsed))
    check_fail(
        check, field,
        "is %s; it must be buckets/{bucket}/queues/{queue}, where {bucket} is 1 to 63 of a-z 0-9 . and -, beginning "
        "and ending with a letter or digit, and {queue} 1 to 128 of A-Z a-z 0-9 _ . and -",
        shown_up_to(check, name, SHOWN_QUEUE_CHARACTERS_MAX));
  return parsed;
}

void check_job_id(struct check *check, const struct field *field, const char *text, struct job_id *id) {
  if (id_parse_job(text, id))
    return;
  memset(id, 0, sizeof *id); /* which no job has */
  if (strlen(text) == ID_TEXT_SIZE - 1 && strchr("jsd", text[0]) &&
      strspn(text + 1, "0123456789abcdef") == ID_TEXT_SIZE - 2)
    return;
  check_fail(check, field, "is %s; a job id is one letter (j, s or d) and 32 lower-case hex digits",
             shown(check, text));
}

struct job_id *check_job_ids(struct check *check, const struct field *field, char *const *texts, size_t count,
                             size_t max) {
  check_count(check, field, count, 1, max);
  if (count > max)
    return NULL;
  struct job_id *ids = ARENA_ARRAY(check->arena, struct job_id, count ? count : 1);
  for (size_t i = 0; i < count; i++)
    check_job_id(check, FIELD_AT(field->parent, field->name, i), texts[i], &ids[i]);
  return ids;
}

int check_callback_format(struct check *check, const struct field *field, int value) {
  if (value < 0 || value > RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_JSON)
    check_fail(check, field, "is %d; it must be 1 (XML, seed), 2 (XML, current) or 3 (JSON)", value);
  return value ? value : RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_SEED;
}

static bool is_reserved_header(const char *name) {
  static const char *const names[] = {"host",       "connection", "cookie",     "transfer-encoding",
                                      "te",         "trailer",    "upgrade",    "expect",
                                      "keep-alive", "user-agent", "traceparent"};
  static const char *const prefixes[] = {"content-", "proxy-", "webhook-", "ringback-"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcasecmp(name, names[i]) == 0)
      return true;
  for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
    if (strncasecmp(name, prefixes[i], strlen(prefixes[i])) == 0)
      return true;
  return false;
}

void check_callback_header(struct check *check, const struct field *field, const char *name, const char *value) {
  static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  size_t length = strlen(name), value_length = strlen(value);
  if (length == 0 || length > 64 || strspn(name, token) != length)
    check_fail(check, FIELD(field, "name"), "is %s; it must be 1 to 64 characters of A-Z a-z 0-9 !#$%%&'*+-.^_`|~",
               shown(check, name));
  else if (is_reserved_header(name))
    check_fail(check, FIELD(field, "name"), "is \"%s\", which is not for rules to set", name);
  bool control = false;
  for (size_t i = 0; i < value_length; i++)
    control = control || (unsigned char)value[i] < 0x20 || value[i] == 0x7f;
  if (value_length == 0 || value_length > 1024)
    check_fail(check, FIELD(field, "value"), "has %zu bytes; it must have 1 to 1024", value_length);
  else if (control)
    check_fail(check, FIELD(field, "value"), "has control characters");
}
