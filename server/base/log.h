/* Structured log lines on standard error, readable or JSON. Thread-safe; one write(2) a line.
 *
 *   log_event(LOG_INFO, "worker gone", log_text("job", id), log_number("age_ms", age));
 */
#ifndef RINGBACK_SERVER_BASE_LOG_H
#define RINGBACK_SERVER_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
  const char *name;
  const char *text; /* NULL: the number counts */
  int64_t number;
};

static inline struct log_field log_text(const char *name, const char *text) {
  return (struct log_field){name, text ? text : "", 0};
}

static inline struct log_field log_number(const char *name, int64_t number) {
  return (struct log_field){name, 0, number};
}

/* Before any thread starts. Default: LOG_INFO, readable. */
void log_configure(enum log_level least, bool json);
bool log_wants(enum log_level level);
/* Fields end with one that has no name. Lines are cut at 4 KiB; control characters and bad UTF-8 in texts are escaped.
 */
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* Every use gives at least one field. */
#define log_event(level, event, ...)                                                                                   \
  (log_wants(level) ? log_write((level), (event), (const struct log_field[]){__VA_ARGS__, {0, 0, 0}}) : (void)0)

#endif
