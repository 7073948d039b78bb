/* See callback_values.h. */
#include "redis/callback_values.h"

#include <stdlib.h>
#include <string.h>

const char *const *split_lines(struct arena *arena, const char *text, size_t *count) {
  size_t most = 1;
  for (const char *at = text; *at; at++)
    most += *at == '\n';
  const char **secrets = ARENA_ARRAY(arena, const char *, most);
  *count = 0;
  while (*text) {
    size_t length = strcspn(text, "\n");
    secrets[(*count)++] = arena_strndup(arena, text, length);
    text += length + (text[length] == '\n');
  }
  return secrets;
}

const struct store_header *split_headers(struct arena *arena, const char *text, size_t *count) {
  const char *const *lines = split_lines(arena, text, count);
  struct store_header *headers = ARENA_ARRAY(arena, struct store_header, *count + 1);
  for (size_t i = 0; i < *count; i++) {
    size_t name = strcspn(lines[i], ":");
    headers[i] = (struct store_header){arena_strndup(arena, lines[i], name), lines[i] + name + (lines[i][name] == ':')};
  }
  return headers;
}

const int64_t *split_numbers(struct arena *arena, const char *text, size_t *count) {
  size_t most = 1;
  for (const char *at = text; *at; at++)
    most += *at == ',';
  int64_t *numbers = ARENA_ARRAY(arena, int64_t, most);
  *count = 0;
  while (*text) {
    char *end;
    numbers[(*count)++] = strtoll(text, &end, 10);
    text = *end == ',' ? end + 1 : "";
  }
  return numbers;
}

struct store_call *call_create_for_queue(struct store *store, const char *function, const char *bucket,
                                         const char *queue, call_answer *answer, void (*done)(void), void *context) {
  struct store_call *call = call_create(store, function, id_partition(bucket), answer, done, context);
  call_add_text(call, bucket);
  call_add_text(call, queue);
  return call;
}
