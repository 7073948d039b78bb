/* Certificates and keys in PEM, as a callback rule brings them: whether they can be used, and what they say. Pure. */
#ifndef RINGBACK_SERVER_CALLBACK_CERTIFICATE_H
#define RINGBACK_SERVER_CALLBACK_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CERTIFICATE_BUNDLE_BYTES_MAX 65536 /* of certificates that are trusted */
#define CERTIFICATE_CHAIN_BYTES_MAX 16384  /* of a certificate with its issuers, and of a key */
#define CERTIFICATE_SUBJECT_SIZE 256

/* NULL when the text holds certificates, at least one, and no other PEM; or what is wrong, to follow the field's name.
 * *count becomes how many. */
const char *certificate_check(const char *pem, size_t *count);

/* NULL when the key is that of the first certificate of the chain, which has passed certificate_check; or what is
 * wrong. Needs no passphrase and asks for none. */
const char *certificate_check_key(const char *chain, const char *key);

struct certificate_summary {
  char subject[CERTIFICATE_SUBJECT_SIZE]; /* RFC 2253, printable ASCII, cut at its end */
  int64_t expire_ms;
};

/* Of the first certificate. False when there is none. */
bool certificate_describe(const char *pem, struct certificate_summary *summary);

#endif
