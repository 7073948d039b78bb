/*
 * Checks signatures of callbacks: HMAC-SHA256 over "id.timestamp.body", base64, after "v1," in a list parted by spaces.
 * Comparing takes the same time wherever the texts differ.
 */
#include "client/tool/signature.h"
#include "client/tool/values.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES_MIN 24
#define DIGEST_BYTES 32

bool signature_read_key(const char *text, struct signature_key *key) {
  if (strncmp(text, "whsec_", 6) == 0)
    text += 6;
  size_t count = 0;
  uint8_t *bytes = value_decode_base64(text, &count);
  bool good = bytes != NULL && count >= KEY_BYTES_MIN && count <= SIGNATURE_KEY_BYTES_MAX;
  if (good) {
    memcpy(key->bytes, bytes, count);
    key->byte_count = count;
  }
  free(bytes);
  return good;
}

static bool digest(const struct signature_key *key, const char *content, size_t content_bytes,
                   uint8_t out[EVP_MAX_MD_SIZE]) {
  unsigned length = 0;
  return HMAC(EVP_sha256(), key->bytes, (int)key->byte_count, (const uint8_t *)content, content_bytes, out, &length) !=
             NULL &&
         length == DIGEST_BYTES;
}

/* Whether one of the listed signatures is this digest. */
static bool is_listed(const char *signatures, const uint8_t *expected) {
  for (const char *at = signatures; *at != '\0';) {
    size_t length = strcspn(at, " ");
    char text[128];
    if (length > 3 && length < sizeof text && memcmp(at, "v1,", 3) == 0) {
      snprintf(text, sizeof text, "%.*s", (int)(length - 3), at + 3);
      size_t count = 0;
      uint8_t *bytes = value_decode_base64(text, &count);
      bool same = bytes != NULL && count == DIGEST_BYTES && CRYPTO_memcmp(bytes, expected, DIGEST_BYTES) == 0;
      free(bytes);
      if (same)
        return true;
    }
    at += length;
    at += strspn(at, " ");
  }
  return false;
}

enum signature_result signature_check(const struct signature_key *keys, size_t key_count, const char *id,
                                      const char *timestamp, const char *signatures, const void *body,
                                      size_t body_bytes, int64_t now_seconds) {
  int64_t seconds;
  if (id == NULL || timestamp == NULL || signatures == NULL)
    return SIGNATURE_MISSING;
  if (!value_parse_integer(timestamp, &seconds))
    return SIGNATURE_WRONG;
  size_t head = strlen(id) + strlen(timestamp) + 2;
  char *content = malloc(head + body_bytes + 1);
  if (content == NULL)
    return SIGNATURE_WRONG;
  snprintf(content, head + 1, "%s.%s.", id, timestamp);
  memcpy(content + head, body, body_bytes);
  bool good = false;
  for (size_t i = 0; i < key_count && !good; i++) {
    uint8_t expected[EVP_MAX_MD_SIZE];
    good = digest(&keys[i], content, head + body_bytes, expected) && is_listed(signatures, expected);
  }
  free(content);
  if (!good)
    return SIGNATURE_WRONG;
  int64_t distance = seconds > now_seconds ? seconds - now_seconds : now_seconds - seconds;
  return distance <= SIGNATURE_TOLERANCE_SECONDS ? SIGNATURE_VALID : SIGNATURE_STALE;
}
