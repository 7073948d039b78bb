/* One request on one curl handle: its settings, its hooks, and what its end means. Belongs to sender.c. */
#ifndef RINGBACK_SERVER_CALLBACK_SENDER_TRANSFER_H
#define RINGBACK_SERVER_CALLBACK_SENDER_TRANSFER_H

#include <curl/curl.h>

#include "server/callback/sender.h"
#include "server/callback/sender_urls.h"

struct transfer {
  struct transfer *next, **link; /* of the sender's list of those in flight */
  struct sender *sender;
  const struct address_set *allowed, *narrowed; /* the operator's; the request's or NULL */
  char *kept;                                   /* the beginning of the answer; NULL: not wanted */
  size_t kept_bytes;
  struct sender_loop *loop;
  const struct sender_trust *trust;
  sender_done *done;
  void *context;
  bool (*may_send)(void *context);
  CURL *easy;                 /* NULL: not dialling yet */
  struct curl_slist *headers; /* the first of an array at the transfer's end */
  struct curl_slist *resolve;
  const void *body;
  size_t body_bytes;
  int64_t timeout_us, connect_timeout_us, start_us;
  int64_t begin_us; /* when curl was given it */
  int64_t
      dialled_us; /* from then until a new connection was there and its handshake began; 0: it did not come to that */
  struct sender_url *url;

  enum callback_error stopped; /* by a hook, or before dialling; message says why */
  bool connected;              /* a connection is there, new or reused */
  bool repeated;               /* curl sent it again by itself, because a kept connection had died */
  size_t received_bytes;
  char retry_after[128]; /* "": not given */
  char curl_message[CURL_ERROR_SIZE];
  struct sender_result result;
  struct curl_slist header_lines[]; /* and their texts behind them */
};

/* Takes over everything of the request but its body. Never NULL; `stopped` is set when the request cannot be sent. */
struct transfer *transfer_create(const struct sender_request *request, struct sender_urls *urls, int64_t now_us);
void transfer_destroy(struct transfer *transfer);

/* Ends it before or while dialling. */
void transfer_stop(struct transfer *transfer, enum callback_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* False, and stopped, when one of the addresses is denied. Their port is set. */
bool transfer_vet(struct transfer *transfer, struct sockaddr_storage *addresses, size_t count);

/* Sets what is the same for all requests, once for a new handle. False when curl refuses a setting. */
bool transfer_prepare(CURL *easy, const char *ca_file);

/* Sets what the request brings on a prepared handle, whatever the one before it set. False, and stopped, when curl
 * refuses a setting or no time is left. */
bool transfer_begin(struct transfer *transfer, CURL *easy, const struct sockaddr_storage *addresses, size_t count,
                    int64_t now_us);

/* Fills the result in. */
void transfer_end(struct transfer *transfer, CURLcode code, int64_t now_us, int64_t wall_ms);

#endif
