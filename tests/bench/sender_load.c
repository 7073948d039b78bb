/* Posts one body to one URL as fast as the sender can, without outbox or Redis: what the HTTP side alone is worth.
 *
 *   sender_load URL BODY-BYTES IN-FLIGHT SECONDS CA-FILE
 *
 * Prints the posts that succeeded and the seconds they took; fails when one did not succeed. Only loopback is dialled.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/clock.h"
#include "server/callback/sender.h"

#define ARGUMENTS 6
#define BODY_BYTES_MAX 65536

static struct {
  struct sender *sender;
  struct sender_request request;
  int64_t until_us;
  unsigned long done;
  bool failed;
} load;

static void keep_going(void *context, const struct sender_result *result) {
  if (result->error) {
    fprintf(stderr, "sender_load: %s: %s\n", callback_error_name(result->error), result->message);
    load.failed = true;
    return;
  }
  load.done++;
  if (clock_monotonic_us() < load.until_us && !load.failed)
    sender_post(load.sender, &load.request, keep_going, context);
}

int main(int count, char **arguments) {
  if (count != ARGUMENTS) {
    fputs("usage: sender_load URL BODY-BYTES IN-FLIGHT SECONDS CA-FILE\n", stderr);
    return 2;
  }
  size_t bytes = strtoul(arguments[2], 0, 10), in_flight = strtoul(arguments[3], 0, 10);
  static char body[BODY_BYTES_MAX];
  struct sender_options options = {.in_flight_max = in_flight, .ca_file = arguments[5]};
  if (bytes > sizeof(body) || address_set_parse("127.0.0.0/8", &options.allowed) ||
      !(load.sender = sender_create(&options)))
    return 1;
  memset(body, 'x', bytes);
  static const struct sender_header headers[] = {{"Content-Type", "application/xml"},
                                                 {"User-Agent", "Ringback/bench"},
                                                 {"webhook-id", "cb_j47000000000101a205b3995f00000000_TaskFinish_0"}};
  load.request = (struct sender_request){
      .url = arguments[1], .headers = headers, .header_count = 3, .body = body, .body_bytes = bytes};
  int64_t start_us = clock_monotonic_us();
  load.until_us = start_us + (int64_t)(strtod(arguments[4], 0) * 1e6);
  for (size_t i = 0; i < in_flight; i++)
    sender_post(load.sender, &load.request, keep_going, 0);
  while (sender_in_flight(load.sender))
    sender_poll(load.sender, 0, 0, 1000);
  printf("%lu %.6f\n", load.done, (double)(clock_monotonic_us() - start_us) / 1e6);
  sender_destroy(load.sender);
  return load.failed;
}
