/* The same as sender_load by nothing but libcurl: what the sender can reach at most. No hook, no address is vetted,
 * every setting is made once and a handle whose post has ended is added again as it is.
 *
 *   curl_load URL BODY-BYTES IN-FLIGHT SECONDS CA-FILE
 *
 * Prints the posts that succeeded and the seconds they took; fails when one did not succeed.
 */
#include <curl/curl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/clock.h"

#define ARGUMENTS 6
#define BODY_BYTES_MAX 65536
#define STATUS_WANTED 204

static char body[BODY_BYTES_MAX];

/* Everything that libcurl can be spared is: the URL is parsed once, and nothing is set twice. */
static bool prepare(CURL *easy, char **arguments, CURLU *url, struct curl_slist *headers) {
  return !curl_easy_setopt(easy, CURLOPT_CURLU, url) && !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body) &&
         !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strtol(arguments[2], 0, 10)) &&
         !curl_easy_setopt(easy, CURLOPT_CAPATH, (char *)0) && !curl_easy_setopt(easy, CURLOPT_CAINFO, arguments[5]) &&
         !curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) &&
         !curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) && !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
         !curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 2048L);
}

int main(int count, char **arguments) {
  if (count != ARGUMENTS) {
    fputs("usage: curl_load URL BODY-BYTES IN-FLIGHT SECONDS CA-FILE\n", stderr);
    return 2;
  }
  long in_flight = strtol(arguments[3], 0, 10);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  CURLM *multi = curl_multi_init();
  CURLU *url = curl_url();
  memset(body, 'x', sizeof(body));
  struct curl_slist *headers = curl_slist_append(0, "Content-Type: application/xml");
  headers = curl_slist_append(headers, "User-Agent: Ringback/bench");
  headers = curl_slist_append(headers, "webhook-id: cb_j47000000000101a205b3995f00000000_TaskFinish_0");
  headers = curl_slist_append(headers, "Expect:");
  if (!multi || !headers || curl_url_set(url, CURLUPART_URL, arguments[1], 0) ||
      strtoul(arguments[2], 0, 10) > sizeof(body))
    return 1;
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, in_flight);
  for (long i = 0; i < in_flight; i++) {
    CURL *easy = curl_easy_init();
    if (!easy || !prepare(easy, arguments, url, headers) || curl_multi_add_handle(multi, easy) != CURLM_OK)
      return 1;
  }
  int64_t start_us = clock_monotonic_us(), until_us = start_us + (int64_t)(strtod(arguments[4], 0) * 1e6);
  unsigned long done = 0;
  bool failed = false;
  for (int running = 1; running && !failed;) {
    if (curl_multi_perform(multi, &running) != CURLM_OK)
      return 1;
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(multi, &left));) {
      CURL *easy = message->easy_handle;
      long status = 0;
      curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
      if (message->data.result != CURLE_OK || status != STATUS_WANTED) {
        fprintf(stderr, "curl_load: %s, status %ld\n", curl_easy_strerror(message->data.result), status);
        failed = true;
      }
      done++;
      curl_multi_remove_handle(multi, easy);
      if (clock_monotonic_us() < until_us && !failed) {
        curl_multi_add_handle(multi, easy);
        running = 1;
      } else {
        curl_easy_cleanup(easy);
      }
    }
    if (running)
      curl_multi_poll(multi, 0, 0, 1000, 0);
  }
  printf("%lu %.6f\n", done, (double)(clock_monotonic_us() - start_us) / 1e6);
  curl_multi_cleanup(multi);
  curl_slist_free_all(headers);
  curl_url_cleanup(url);
  return failed;
}
