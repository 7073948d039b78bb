/* Checks of a request's fields. Each finding names the field by its path in the request, the value, and what would be
 * right. Pure.
 *
 * A handler makes one `struct check`, runs every check (each answers with a usable value even after a finding), and
 * refuses the request with all findings at once when there are any. Paths are kept as a chain on the stack and only
 * written out for a finding.
 */
#ifndef RINGBACK_SERVER_SERVICES_VALIDATE_H
#define RINGBACK_SERVER_SERVICES_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "redis/id.h"
#include "server/base/arena.h"
#include "server/callback/address.h"
#include "server/services/names.h"

/* A field in its parents. index is -1 unless it is an element of a list. */
struct field {
  const struct field *parent;
  const char *name;
  long index;
};

#define FIELD(parent, name) (&(const struct field){(parent), (name), -1})
#define FIELD_AT(parent, name, index) (&(const struct field){(parent), (name), (long)(index)})

enum { FINDINGS_MAX = 32 }; /* of one request; the further ones are left out */

struct finding {
  const char *field;
  const char *description;
};

struct check {
  struct arena *arena;
  size_t count; /* 0: everything is right */
  struct finding findings[FINDINGS_MAX];
};

#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS (60 * MINUTE_MS)
#define DAY_MS (24 * HOUR_MS)

/* The path as text, such as `jobs[3].tag`. */
char *field_path(struct arena *arena, const struct field *field);

void check_fail(struct check *check, const struct field *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* min to max. */
int64_t check_range(struct check *check, const struct field *field, int64_t value, int64_t min, int64_t max);
/* The same, where 0 stands for fallback. */
int64_t check_range_or(struct check *check, const struct field *field, int64_t value, int64_t min, int64_t max,
                       int64_t fallback);
/* The number of elements of a list. */
void check_count(struct check *check, const struct field *field, size_t count, size_t min, size_t max);

/* Milliseconds, fractions rounded up; absent when duration is NULL, which is not checked. */
int64_t check_duration(struct check *check, const struct field *field, const Google__Protobuf__Duration *duration,
                       int64_t min_ms, int64_t max_ms, int64_t absent_ms);
/* Unix milliseconds, fractions rounded up; absent when NULL. */
int64_t check_time(struct check *check, const struct field *field, const Google__Protobuf__Timestamp *time,
                   int64_t absent_ms);
/* A time within a Timestamp's years as a finding shows it, such as 2026-11-22T19:30:20Z. */
const char *check_show_time(struct check *check, int64_t time_ms);

/* At most max characters of printable ASCII (space to ~). */
void check_ascii(struct check *check, const struct field *field, const char *text, size_t max);
/* 1 to max characters of A-Z a-z 0-9 _ . and - */
void check_token(struct check *check, const struct field *field, const char *text, size_t max);
/* min to max bytes of text that XML can carry. */
void check_text(struct check *check, const struct field *field, const char *text, size_t min, size_t max);
/* An absolute http or https URL without user information. */
void check_url(struct check *check, const struct field *field, const char *text);
/* The same of an URL that is to be called back; "" passes. A name is looked up when it is dialled; an address that the
 * operator does not allow, or the rule's own ranges (NULL: it has none) do not, is refused now. */
void check_callback_url(struct check *check, const struct field *field, const char *text,
                        const struct address_set *allow, const struct address_set *narrowed);
/* A CallbackFormat; unspecified becomes XML_SEED. */
int check_callback_format(struct check *check, const struct field *field, int value);
/* A header of a callback rule. */
void check_callback_header(struct check *check, const struct field *field, const char *name, const char *value);
/* Empty, or a W3C traceparent. */
void check_traceparent(struct check *check, const struct field *field, const char *text);

/* Names; "" or {"", ""} after a finding. */
const char *check_bucket(struct check *check, const struct field *field, const char *name);
struct queue_name check_queue(struct check *check, const struct field *field, const char *name);
/* A well-formed id that the service cannot have given to a job becomes one of zeros: it is unknown, not wrong. */
void check_job_id(struct check *check, const struct field *field, const char *text, struct job_id *id);
/* 1 to max ids, with the path job_ids[i]. */
struct job_id *check_job_ids(struct check *check, const struct field *field, char *const *texts, size_t count,
                             size_t max);

#endif
