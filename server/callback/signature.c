/* See signature.h. Keys are wiped from the stack after use. */
#include "server/callback/signature.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_PREFIX "whsec_"
#define KEY_BYTES_MIN 24
#define KEY_BYTES_MAX 64
#define MAC_BYTES 32

/* Rounded up to whole groups of three, as EVP_DecodeBlock writes them. */
struct key {
  unsigned char bytes[66];
  size_t size;
};

static const char *key_parse(const char *secret, struct key *key) {
  if (strncmp(secret, SECRET_PREFIX, strlen(SECRET_PREFIX)) != 0)
    return "must begin with whsec_";
  const char *text = secret + strlen(SECRET_PREFIX);
  size_t length = strlen(text);
  size_t digits = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
  size_t padding = strspn(text + digits, "=");
  if (length % 4 || digits + padding != length || padding > 2)
    return "must be whsec_ and base64 with its padding";
  if (length < 32 || length > 88)
    return "must hold 24 to 64 bytes";
  int size = EVP_DecodeBlock(key->bytes, (const unsigned char *)text, (int)length);
  if (size < (int)padding)
    return "must be whsec_ and base64 with its padding";
  key->size = (size_t)size - padding;
  /* Left-over bits would make two texts of one key. */
  unsigned char again[96];
  EVP_EncodeBlock(again, key->bytes, (int)key->size);
  bool canonical = strcmp((const char *)again, text) == 0;
  OPENSSL_cleanse(again, sizeof(again));
  if (!canonical)
    return "must be whsec_ and base64 with its padding";
  if (key->size < KEY_BYTES_MIN || key->size > KEY_BYTES_MAX)
    return "must hold 24 to 64 bytes";
  return 0;
}

const char *signature_secret_check(const char *secret) {
  struct key key;
  const char *error = key_parse(secret, &key);
  OPENSSL_cleanse(&key, sizeof(key));
  return error;
}

/* Fetched once: it is a look-up under locks, which takes as long as signing a short body. Lives as long as the process.
 */
static EVP_MAC *hmac;

static void fetch_hmac(void) {
  hmac = EVP_MAC_fetch(0, "HMAC", 0);
}

static bool mac_compute(const struct key *key, const char *prefix, const void *body, size_t body_bytes,
                        unsigned char mac[MAC_BYTES]) {
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0), OSSL_PARAM_construct_end()};
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, fetch_hmac);
  EVP_MAC_CTX *context = hmac ? EVP_MAC_CTX_new(hmac) : 0;
  size_t size = 0;
  bool done = context && EVP_MAC_init(context, key->bytes, key->size, parameters) &&
              EVP_MAC_update(context, (const unsigned char *)prefix, strlen(prefix)) &&
              EVP_MAC_update(context, body, body_bytes) && EVP_MAC_final(context, mac, &size, MAC_BYTES) &&
              size == MAC_BYTES;
  EVP_MAC_CTX_free(context);
  return done;
}

bool signature_write(const char *const *secrets, size_t secret_count, const char *id, int64_t timestamp_s,
                     const void *body, size_t body_bytes, char header[SIGNATURE_HEADER_SIZE]) {
  header[0] = 0;
  char prefix[256];
  int prefix_length = snprintf(prefix, sizeof(prefix), "%s.%lld.", id, (long long)timestamp_s);
  if (!secret_count || secret_count > SIGNATURE_SECRETS_MAX || prefix_length < 0 ||
      (size_t)prefix_length >= sizeof(prefix))
    return false;
  size_t used = 0;
  for (size_t i = 0; i < secret_count; i++) {
    struct key key;
    unsigned char mac[MAC_BYTES], text[48];
    bool done = !key_parse(secrets[i], &key) && mac_compute(&key, prefix, body, body_bytes, mac);
    OPENSSL_cleanse(&key, sizeof(key));
    if (!done) {
      header[0] = 0;
      return false;
    }
    EVP_EncodeBlock(text, mac, MAC_BYTES);
    used += (size_t)snprintf(header + used, SIGNATURE_HEADER_SIZE - used, "%sv1,%s", i ? " " : "", (const char *)text);
  }
  return true;
}

void signature_secret_write(const uint8_t bytes[SIGNATURE_SECRET_BYTES], char secret[SIGNATURE_SECRET_SIZE]) {
  memcpy(secret, "whsec_", 6);
  EVP_EncodeBlock((unsigned char *)secret + 6, bytes, SIGNATURE_SECRET_BYTES);
}
