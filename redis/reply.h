/* What Redis answers, and the values that it consists of. */
#ifndef RINGBACK_REDIS_REPLY_H
#define RINGBACK_REDIS_REPLY_H

#include <stddef.h>
#include <stdint.h>

/* A reply or a part of one; lives until the callback returns. */
struct redis_value;

enum redis_kind { REDIS_NIL, REDIS_INTEGER, REDIS_TEXT, REDIS_ARRAY, REDIS_ERROR };

enum redis_kind redis_kind(const struct redis_value *value);
int64_t redis_integer(const struct redis_value *value);                  /* also of a decimal text; else 0 */
const char *redis_text(const struct redis_value *value, size_t *length); /* NUL-terminated; "" if it is no text */
size_t redis_count(const struct redis_value *value);                     /* 0 unless an array */
const struct redis_value *redis_at(const struct redis_value *value, size_t index); /* a nil beyond the end */

#endif
