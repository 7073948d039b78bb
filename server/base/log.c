/* One line is put together on the stack and leaves by one write(2), so lines of several threads never mix and nothing
 * is allocated. What does not fit is left out; a JSON line stays valid JSON.
 */
#include "server/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/base/text.h"

#define LOG_LINE_BYTES_MAX 4096
#define LOG_TAIL_BYTES 40 /* kept free for what closes a line */

static enum log_level log_least = LOG_INFO;
static bool log_json = false;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
  char bytes[LOG_LINE_BYTES_MAX];
  size_t used;
  bool cut;
};

void log_configure(enum log_level least, bool json) {
  log_least = least;
  log_json = json;
}

bool log_wants(enum log_level level) {
  return level >= log_least;
}

/* All or nothing; `limit` counts from the line's start. */
static bool line_add(struct line *line, size_t limit, const char *bytes, size_t length) {
  if (line->used + length > limit) {
    line->cut = true;
    return false;
  }
  memcpy(line->bytes + line->used, bytes, length);
  line->used += length;
  return true;
}

static bool __attribute__((format(printf, 3, 4))) line_print(struct line *line, size_t limit, const char *format, ...) {
  char text[192];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length < 0)
    return false;
  size_t size = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
  return line_add(line, limit, text, size);
}

/* Escaped as in JSON, and DEL and the C1 controls too, which terminals obey. Bytes that are no UTF-8 show as U+FFFD in
 * JSON, which has no other way, and as \xNN for people. */
static void line_escape(struct line *line, size_t limit, const char *text) {
  size_t length = strlen(text);
  for (size_t at = 0; at < length;) {
    uint32_t point;
    size_t size = text_decode(text + at, length - at, &point);
    bool added;
    if (size == 0) {
      size = 1;
      added =
          log_json ? line_print(line, limit, "\\ufffd") : line_print(line, limit, "\\x%02x", (unsigned char)text[at]);
    } else if (point == '"' || point == '\\') {
      added = line_print(line, limit, "\\%c", (char)point);
    } else if (point == '\n') {
      added = line_print(line, limit, "\\n");
    } else if (point < 0x20 || (point >= 0x7F && point < 0xA0)) {
      added = line_print(line, limit, "\\u%04x", (unsigned)point);
    } else {
      added = line_add(line, limit, text + at, size);
    }
    if (!added)
      return;
    at += size;
  }
}

static bool needs_quotes(const char *text) {
  if (!*text)
    return true;
  for (; *text; text++)
    if (*text == ' ' || *text == '"' || *text == '\\' || *text == '=' || (unsigned char)*text < 0x20 ||
        (unsigned char)*text >= 0x7F)
      return true;
  return false;
}

static void line_quote(struct line *line, const char *text) {
  line_add(line, LOG_LINE_BYTES_MAX, "\"", 1);
  line_escape(line, LOG_LINE_BYTES_MAX - LOG_TAIL_BYTES, text);
  line_add(line, LOG_LINE_BYTES_MAX, "\"", 1);
}

/* Leaves the field out when its name and a number do not fit. */
static void line_field(struct line *line, const struct log_field *field) {
  size_t limit = LOG_LINE_BYTES_MAX - LOG_TAIL_BYTES;
  size_t name_length = strlen(field->name);
  if (line->used + name_length + 32 > limit) {
    line->cut = true;
    return;
  }
  line_add(line, limit, log_json ? ",\"" : " ", log_json ? 2 : 1);
  line_add(line, limit, field->name, name_length);
  line_add(line, limit, log_json ? "\":" : "=", log_json ? 2 : 1);
  if (!field->text)
    line_print(line, limit, "%" PRId64, field->number);
  else if (log_json || needs_quotes(field->text))
    line_quote(line, field->text);
  else
    line_escape(line, limit, field->text);
}

static void line_begin(struct line *line, enum log_level level, const char *event) {
  struct timespec now;
  struct tm utc;
  char date[32];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  int ms = (int)(now.tv_nsec / 1000000);
  if (log_json) {
    line_print(line, LOG_LINE_BYTES_MAX, "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"event\":", date, ms,
               level_names[level]);
    line_quote(line, event);
  } else {
    line_print(line, LOG_LINE_BYTES_MAX, "%s.%03dZ %-5s ", date, ms, level_names[level]);
    line_escape(line, LOG_LINE_BYTES_MAX - LOG_TAIL_BYTES, event);
  }
}

void log_write(enum log_level level, const char *event, const struct log_field *fields) {
  if (!log_wants(level))
    return;
  struct line line;
  line.used = 0;
  line.cut = false;
  line_begin(&line, level, event);
  for (const struct log_field *field = fields; field && field->name; field++)
    line_field(&line, field);
  if (line.cut)
    line_print(&line, LOG_LINE_BYTES_MAX, log_json ? ",\"cut\":true" : " (cut)");
  line_add(&line, LOG_LINE_BYTES_MAX, log_json ? "}\n" : "\n", log_json ? 2 : 1);
  for (size_t at = 0; at < line.used;) {
    ssize_t written = write(STDERR_FILENO, line.bytes + at, line.used - at);
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return;
    at += (size_t)written;
  }
}
