/*
 * Repeating calls: exponential backoff with jitter, so that many clients of a server that comes back do not arrive
 * together, and random request ids. The arithmetic is pure; randomness comes from the kernel.
 */
#include "client/lib/retry.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

int64_t retry_wait_ms(int attempt, int64_t server_delay_ms, uint64_t random) {
  int64_t longest = RETRY_FIRST_MS;
  for (int i = 1; i < attempt && longest < RETRY_LONGEST_MS; i++)
    longest *= 2;
  if (longest > RETRY_LONGEST_MS)
    longest = RETRY_LONGEST_MS;
  int64_t wait = longest - (int64_t)(random % (uint64_t)(longest / 2 + 1));
  /* The server's delay is a minimum; jitter goes on top of it. */
  if (server_delay_ms >= 0 && wait < server_delay_ms)
    wait = server_delay_ms + (int64_t)(random % (uint64_t)(server_delay_ms / 4 + 1));
  return wait;
}

static void random_fill(void *bytes, size_t byte_count) {
  /* Requests of up to 256 bytes are never cut short once the kernel's pool is ready, and waiting for that cannot fail.
   */
  if (getrandom(bytes, byte_count, 0) != (ssize_t)byte_count)
    abort();
}

uint64_t retry_random(void) {
  uint64_t random;
  random_fill(&random, sizeof random);
  return random;
}

void retry_request_id(char id[REQUEST_ID_BYTES]) {
  uint8_t b[16];
  random_fill(b, sizeof b);
  b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
  b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
  snprintf(id, REQUEST_ID_BYTES, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
           b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}
