/* Operations from outside: whatever is accepted, written again, is accepted again and comes out unchanged; text of any
 * kind passes the gate after repair.
 */
// libraries: ringback_callback
#include "server/callback/xml.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#define BYTES_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct arena *arena;
  if (!arena)
    arena = arena_create();
  arena_reset(arena);
  size_t once_size, twice_size;
  const char *error;
  const char *once = xml_operation_rewrite(arena, (const char *)data, size, BYTES_MAX, &once_size, &error);
  assert(!once == !!error);
  if (once) {
    assert(xml_text_is_valid(once, once_size));
    const char *twice = xml_operation_rewrite(arena, once, once_size, BYTES_MAX, &twice_size, &error);
    assert(twice && twice_size == once_size && memcmp(once, twice, once_size) == 0);
  }
  size_t repaired_size = size;
  const char *repaired = xml_text_repair(arena, (const char *)data, &repaired_size);
  assert(xml_text_is_valid(repaired, repaired_size));
  return 0;
}
