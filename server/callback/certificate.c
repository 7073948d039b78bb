/* See certificate.h. OpenSSL's queue of errors belongs to the thread, and others read it: it is left empty. */
#include "server/callback/certificate.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pemerr.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PEM_BEGIN "-----BEGIN "
/* What Debian's OpenSSL asks of a key that is to be shown: RSA has them from 2,048 bits on. */
#define KEY_STRENGTH_MIN 112

static BIO *open_text(const char *pem) {
  BIO *in = BIO_new_mem_buf(pem, -1);
  if (!in)
    abort();
  return in;
}

static size_t count_blocks(const char *pem) {
  size_t count = 0;
  for (const char *at = pem; (at = strstr(at, PEM_BEGIN)); at += strlen(PEM_BEGIN))
    count++;
  return count;
}

/* The next block as a certificate; NULL at the end too. *wrong is set where it is none. */
static X509 *read_certificate(BIO *in, const char **wrong) {
  char *name = 0, *header = 0;
  unsigned char *data = 0;
  long size = 0;
  if (!PEM_read_bio(in, &name, &header, &data, &size)) {
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
      *wrong = "has a block that is not well-formed PEM";
    return 0;
  }
  const unsigned char *at = data;
  X509 *certificate = 0;
  if (strcmp(name, PEM_STRING_X509) != 0)
    *wrong = "must hold blocks of BEGIN CERTIFICATE and nothing else";
  else if (!(certificate = d2i_X509(0, &at, size)) || at != data + size)
    *wrong = "has a block that is no X.509 certificate";
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_clear_free(data, (size_t)size);
  return certificate;
}

const char *certificate_check(const char *pem, size_t *count) {
  const char *wrong = 0;
  BIO *in = open_text(pem);
  *count = 0;
  for (X509 *certificate; (certificate = read_certificate(in, &wrong)); X509_free(certificate))
    ++*count;
  BIO_free(in);
  ERR_clear_error();
  if (!wrong && !*count)
    wrong = "holds no certificate in PEM";
  /* The reader passes over what it does not take for the beginning of a block. */
  if (!wrong && *count != count_blocks(pem))
    wrong = "has a block that is not well-formed PEM";
  return wrong;
}

static X509 *first_certificate(const char *pem) {
  const char *wrong;
  BIO *in = open_text(pem);
  X509 *certificate = read_certificate(in, &wrong);
  BIO_free(in);
  ERR_clear_error();
  return certificate;
}

static int refuse_to_ask(char *buffer, int size, int writing, void *context) {
  (void)buffer;
  (void)size;
  (void)writing;
  *(bool *)context = true;
  return -1;
}

const char *certificate_check_key(const char *chain, const char *key) {
  bool encrypted = false;
  BIO *in = open_text(key);
  EVP_PKEY *read = PEM_read_bio_PrivateKey(in, 0, refuse_to_ask, &encrypted);
  BIO_free(in);
  X509 *certificate = first_certificate(chain);
  const char *wrong = 0;
  if (encrypted)
    wrong = "is encrypted; it must be given without a passphrase";
  else if (!read)
    wrong = "is no private key in PEM";
  else if (EVP_PKEY_get_security_bits(read) < KEY_STRENGTH_MIN)
    wrong = "is too weak; an RSA key must have 2048 bits, an elliptic one 224";
  else if (!certificate || !X509_check_private_key(certificate, read))
    wrong = "is not the key of client_certificate";
  X509_free(certificate);
  EVP_PKEY_free(read);
  ERR_clear_error();
  return wrong;
}

bool certificate_describe(const char *pem, struct certificate_summary *summary) {
  memset(summary, 0, sizeof *summary);
  X509 *certificate = first_certificate(pem);
  if (!certificate)
    return false;
  BIO *out = BIO_new(BIO_s_mem());
  if (!out)
    abort();
  X509_NAME_print_ex(out, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  int length = BIO_read(out, summary->subject, CERTIFICATE_SUBJECT_SIZE - 1);
  summary->subject[length > 0 ? length : 0] = 0;
  BIO_free(out);
  struct tm expiry;
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &expiry))
    summary->expire_ms = timegm(&expiry) * INT64_C(1000);
  X509_free(certificate);
  ERR_clear_error();
  return true;
}
