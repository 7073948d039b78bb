/* Resource names (https://google.aip.dev/122): `buckets/{bucket}` and `buckets/{bucket}/queues/{queue}`. Pure.
 *
 * {bucket} is 1 to 63 characters of a-z 0-9 . and -, beginning and ending with a letter or digit; {queue} is 1 to 128
 * characters of A-Z a-z 0-9 _ . and -.
 */
#ifndef RINGBACK_SERVER_SERVICES_NAMES_H
#define RINGBACK_SERVER_SERVICES_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "server/base/arena.h"

enum { BUCKET_CHARACTERS_MAX = 63, QUEUE_CHARACTERS_MAX = 128, TAG_CHARACTERS_MAX = 64 };

struct queue_name {
  const char *bucket;
  const char *queue;
};

bool names_is_bucket(const char *text, size_t length);
/* 1 to `max` characters of A-Z a-z 0-9 _ . and - */
bool names_is_token(const char *text, size_t length, size_t max);

/* The bucket of `buckets/{bucket}`, a part of `name`; NULL when it is no such name. */
const char *names_parse_bucket(const char *name);
/* The parts of `buckets/{bucket}/queues/{queue}`, copied to the arena; false when it is no such name. */
bool names_parse_queue(struct arena *arena, const char *name, struct queue_name *parsed);

char *names_format_queue(struct arena *arena, const char *bucket, const char *queue);

#endif
