/* Signatures of callbacks after Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256 over
 * `id.timestamp.body`, every secret signing, so that a receiver may know the old or the new one while secrets rotate.
 * Pure.
 */
#ifndef RINGBACK_SERVER_CALLBACK_SIGNATURE_H
#define RINGBACK_SERVER_CALLBACK_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGNATURE_SECRETS_MAX 5
/* `v1,` and 44 characters a secret, spaces between, NUL. */
#define SIGNATURE_HEADER_SIZE (SIGNATURE_SECRETS_MAX * 48)

/* NULL, or why the text is no secret (static): `whsec_` and the canonical base64 of 24 to 64 bytes. */
const char *signature_secret_check(const char *secret);

/* `whsec_`, the base64 of so many bytes, NUL. */
#define SIGNATURE_SECRET_BYTES 32
#define SIGNATURE_SECRET_SIZE (6 + 44 + 1)

/* The secret of these bytes, which must come from a source of randomness. */
void signature_secret_write(const uint8_t bytes[SIGNATURE_SECRET_BYTES], char secret[SIGNATURE_SECRET_SIZE]);

/* Writes the value of `webhook-signature` for at most SIGNATURE_SECRETS_MAX secrets, in their order. False, with an
 * empty header, when there is no secret, there are too many, or one is not valid. */
bool signature_write(const char *const *secrets, size_t secret_count, const char *id, int64_t timestamp_s,
                     const void *body, size_t body_bytes, char header[SIGNATURE_HEADER_SIZE]);

#endif
