/* See sender_urls.h. A place for each hash, which holds the last text that had it: whoever comes next with another one
 * takes the place over.
 */
#include "server/callback/sender_urls.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static size_t place_of(const char *text) {
  uint32_t hash = 2166136261u;
  for (; *text; text++)
    hash = (hash ^ (unsigned char)*text) * 16777619u;
  return (hash ^ hash >> 16) % SENDER_URLS_KEPT;
}

static struct sender_url *url_create(const char *text) {
  size_t length = strlen(text);
  struct sender_url *url = calloc(1, sizeof(*url) + length + 1);
  if (!url)
    abort();
  memcpy(url->text, text, length + 1);
  url->error = url_parse_for_curl(text, length, &url->url, &url->parsed);
  return url;
}

void sender_url_release(struct sender_url *url) {
  assert(url->users);
  if (--url->users)
    return;
  curl_url_cleanup(url->parsed);
  free(url);
}

struct sender_url *sender_urls_take(struct sender_urls *urls, const char *text) {
  struct sender_url **place = &urls->kept[place_of(text)];
  if (!*place || strcmp((*place)->text, text) != 0) {
    if (*place)
      sender_url_release(*place);
    *place = url_create(text);
    (*place)->users = 1; /* the place's own */
  }
  (*place)->users++;
  return *place;
}

void sender_urls_close(struct sender_urls *urls) {
  for (size_t i = 0; i < SENDER_URLS_KEPT; i++) {
    if (urls->kept[i])
      sender_url_release(urls->kept[i]);
    urls->kept[i] = 0;
  }
}
