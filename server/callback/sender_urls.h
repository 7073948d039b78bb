/* URLs as they were parsed: callbacks go to the same few again and again. Belongs to sender.c; no locks.
 *
 * What is checked and what curl dials is one and the same parse: curl is handed it instead of the text.
 */
#ifndef RINGBACK_SERVER_CALLBACK_SENDER_URLS_H
#define RINGBACK_SERVER_CALLBACK_SENDER_URLS_H

#include <curl/curl.h>
#include <stddef.h>

#include "server/callback/url.h"

#define SENDER_URLS_KEPT 256

struct sender_url {
  size_t users;
  const char *error; /* what is wrong with the text, as url_parse says it; NULL: the rest is valid */
  CURLU *parsed;
  struct callback_url url;
  char text[];
};

struct sender_urls {
  struct sender_url *kept[SENDER_URLS_KEPT]; /* by the hash of the text; NULL: none */
};

/* Never NULL. Must be released. */
struct sender_url *sender_urls_take(struct sender_urls *urls, const char *text);
void sender_url_release(struct sender_url *url);

/* Forgets what is kept; those taken stay until they are released. */
void sender_urls_close(struct sender_urls *urls);

#endif
