/* Callback URLs from outside: whatever is accepted has a host and a port and is accepted again. */
// libraries: ringback_callback
#include "server/callback/url.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct callback_url url, again;
  if (url_parse((const char *)data, size, &url))
    return 0;
  assert(url.host[0] && strlen(url.host) < URL_HOST_SIZE && url.port);
  assert(!url_parse((const char *)data, size, &again));
  assert(memcmp(&url, &again, sizeof(url)) == 0);
  return 0;
}
