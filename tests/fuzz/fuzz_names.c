/* Names, ids and page tokens from outside: what is accepted is written again as it came. */
// libraries: ringback_services
#include "redis/id.h"
#include "server/services/names.h"
#include "server/services/page_token.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct arena *arena = arena_create();
  const char *text = arena_strndup(arena, (const char *)data, size);
  struct queue_name name;
  if (names_parse_queue(arena, text, &name)) {
    assert(strcmp(names_format_queue(arena, name.bucket, name.queue), text) == 0);
    assert(names_is_bucket(name.bucket, strlen(name.bucket)) && id_partition(name.bucket) < PARTITIONS);
    assert(!names_parse_bucket(text));
  }
  struct job_id id;
  if (id_parse_job(text, &id)) {
    char again[ID_TEXT_SIZE];
    id_format_job(&id, again);
    assert(strcmp(again, text) == 0 && id_job_partition(&id) < PARTITIONS);
  }
  uint64_t filter = hash_text(HASH_START, "filter");
  const char *position = page_token_read(arena, filter, text);
  if (position)
    assert(strlen(position) <= POSITION_BYTES_MAX);
  if (strlen(text) <= POSITION_BYTES_MAX) {
    const char *token = page_token_write(arena, filter, text);
    const char *back = page_token_read(arena, filter, token);
    assert(back && strcmp(back, text) == 0);
    assert(*token == '\0' || !page_token_read(arena, filter + 1, token));
  }
  arena_destroy(arena);
  return 0;
}
