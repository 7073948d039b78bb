/* The HTTP side of callbacks: posts bodies to URLs, many at a time, in one thread that never blocks; the only module,
 * with sender_transfer.c, that knows curl's transfers.
 *
 * No byte goes to an address that the operator does not allow: every answer of the DNS is vetted (one that is denied
 * denies the name), the vetted addresses are handed to curl, and the address that is dialled is vetted again, on the
 * socket and, for reused connections too, just before the first byte. Redirects are not followed; proxies are not used;
 * answers are read up to 64 KiB, headers included, and never decompressed; of a body at most the first 4 KiB are kept,
 * where the request asks for it.
 */
#ifndef RINGBACK_SERVER_CALLBACK_SENDER_H
#define RINGBACK_SERVER_CALLBACK_SENDER_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/callback/address.h"
#include "server/callback/schedule.h"

#define SENDER_DNS_TIMEOUT_MS 3000
#define SENDER_CONNECT_TIMEOUT_MS 3000
#define SENDER_TIMEOUT_MS 15000
#define SENDER_RESPONSE_BYTES_MAX 65536
#define SENDER_RESPONSE_KEPT_MAX 4096
#define SENDER_MESSAGE_SIZE 256
#define SENDER_EXTRA_FDS_MAX 8

struct sender;

struct sender_options {
  struct address_set allowed; /* beyond the public addresses */
  const char *ca_file;        /* NULL: the system's bundle */
  const char *dns_servers;    /* `address[:port],...`; NULL: the system's */
  size_t in_flight_max;       /* 0: 256 */
};

struct sender_header {
  const char *name;
  const char *value;
};

/* PEM; "" where there is none. */
struct sender_trust {
  const char *ca_certificates;    /* instead of the sender's bundle */
  const char *client_certificate; /* with its issuers */
  const char *client_key;
};

struct sender_request {
  const char *url;
  const struct sender_header *headers;
  size_t header_count;
  const void *body; /* not copied: must live until done runs */
  size_t body_bytes;
  /* Narrows what the operator allows beyond the public addresses; NULL: does not. Must live until done runs. */
  const struct address_set *allowed;
  /* Whom it trusts and as whom it goes; NULL: as the sender does, as nobody. Only requests with the same trust share
   * connections. Must live until done runs. */
  const struct sender_trust *trust;
  bool keep_response;
  int timeout_ms;         /* DNS, connecting and the answer together; 0: 15 s */
  int connect_timeout_ms; /* connecting, TLS included; 0: 3 s */
  /* Asked just before the first byte leaves, in the sender's thread; false means CALLBACK_ERROR_CANCELLED. May be NULL.
   */
  bool (*may_send)(void *context);
};

/* What came of a request. Phases that did not take place (DNS of an address, connecting on a reused connection) took 0.
 */
struct sender_result {
  enum callback_error error; /* CALLBACK_ERROR_NONE: the answer was 2xx and came to its end */
  int http_status;           /* 0: no answer */
  char message[SENDER_MESSAGE_SIZE];
  char address[ADDRESS_TEXT_SIZE];                             /* that was dialled; "" when none was */
  int64_t dns_us, connect_us, tls_us, first_byte_us, total_us; /* each phase by itself; total_us all of it */
  int64_t retry_after_ms;                                      /* -1: not given */
  const char *response; /* the beginning of the answer's body where it was to be kept; lives until done returns */
  size_t response_bytes;
};

typedef void sender_done(void *context, const struct sender_result *result);

/* NULL when curl or c-ares cannot be set up. The first one must be created before other threads use curl or OpenSSL. */
struct sender *sender_create(const struct sender_options *options);
/* Requests in flight are dropped: their done never runs. */
void sender_destroy(struct sender *sender);

/* done runs exactly once, from sender_poll. False, and nothing happens, when in_flight_max requests are in flight. */
bool sender_post(struct sender *sender, const struct sender_request *request, sender_done *done, void *context);

/* Waits up to timeout_ms for transfers, for the extra descriptors (as poll does; at most SENDER_EXTRA_FDS_MAX) or for a
 * wake-up, and moves everything along. A done may post again. Returns the microseconds that it waited. */
int64_t sender_poll(struct sender *sender, struct pollfd *extra, size_t extra_count, int timeout_ms);

/* Ends a sender_poll, this one or the next. From any thread. */
void sender_wakeup(struct sender *sender);

size_t sender_in_flight(const struct sender *sender);

#endif
