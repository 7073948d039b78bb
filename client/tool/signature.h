/* Checks the signatures of callbacks by Standard Webhooks, https://www.standardwebhooks.com. Pure. */
#ifndef RINGBACK_CLIENT_TOOL_SIGNATURE_H
#define RINGBACK_CLIENT_TOOL_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGNATURE_TOLERANCE_SECONDS 300
#define SIGNATURE_KEY_BYTES_MAX 64

enum signature_result {
  SIGNATURE_VALID,
  SIGNATURE_MISSING, /* a header is not there */
  SIGNATURE_STALE,   /* signed well, but the timestamp is further from now than the tolerance */
  SIGNATURE_WRONG,
};

struct signature_key {
  uint8_t bytes[SIGNATURE_KEY_BYTES_MAX];
  size_t byte_count;
};

/* Reads "whsec_" and base64, or the base64 alone, of 24 to 64 bytes. */
bool signature_read_key(const char *text, struct signature_key *key);

/* Checks the headers webhook-id, webhook-timestamp and webhook-signature (NULL where absent) against the body. One
 * signature by one of the keys is enough. */
enum signature_result signature_check(const struct signature_key *keys, size_t key_count, const char *id,
                                      const char *timestamp, const char *signatures, const void *body,
                                      size_t body_bytes, int64_t now_seconds);

#endif
