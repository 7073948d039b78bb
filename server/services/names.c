/* Resource names: see names.h. */
#include "server/services/names.h"

#include <string.h>

static const char bucket_prefix[] = "buckets/";
static const char queue_prefix[] = "/queues/";

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}

static bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}

bool names_is_bucket(const char *text, size_t length) {
  if (length == 0 || length > BUCKET_CHARACTERS_MAX)
    return false;
  for (size_t i = 0; i < length; i++) {
    bool at_end = i == 0 || i == length - 1;
    if (!is_lower(text[i]) && !is_digit(text[i]) && (at_end || (text[i] != '.' && text[i] != '-')))
      return false;
  }
  return true;
}

bool names_is_token(const char *text, size_t length, size_t max) {
  if (length == 0 || length > max)
    return false;
  for (size_t i = 0; i < length; i++) {
    char c = text[i];
    if (!is_lower(c) && !is_upper(c) && !is_digit(c) && c != '_' && c != '.' && c != '-')
      return false;
  }
  return true;
}

const char *names_parse_bucket(const char *name) {
  if (strncmp(name, bucket_prefix, sizeof bucket_prefix - 1) != 0)
    return NULL;
  const char *bucket = name + sizeof bucket_prefix - 1;
  return names_is_bucket(bucket, strlen(bucket)) ? bucket : NULL;
}

bool names_parse_queue(struct arena *arena, const char *name, struct queue_name *parsed) {
  if (strncmp(name, bucket_prefix, sizeof bucket_prefix - 1) != 0)
    return false;
  const char *bucket = name + sizeof bucket_prefix - 1;
  const char *slash = strchr(bucket, '/');
  if (!slash || !names_is_bucket(bucket, (size_t)(slash - bucket)))
    return false;
  if (strncmp(slash, queue_prefix, sizeof queue_prefix - 1) != 0)
    return false;
  const char *queue = slash + sizeof queue_prefix - 1;
  if (!names_is_token(queue, strlen(queue), QUEUE_CHARACTERS_MAX))
    return false;
  parsed->bucket = arena_strndup(arena, bucket, (size_t)(slash - bucket));
  parsed->queue = arena_strdup(arena, queue);
  return true;
}

char *names_format_queue(struct arena *arena, const char *bucket, const char *queue) {
  return arena_printf(arena, "%s%s%s%s", bucket_prefix, bucket, queue_prefix, queue);
}
