/* The sender against real receivers of every temper (receiver.py): what counts as success, what every failure is
 * called, what is never dialled, and that nothing a receiver does takes longer or more memory than it may.
 */
#include "server/callback/sender.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/clock.h"
#include "tests/unit/receiver.h"

/* --- one request at a time --- */

struct outcome {
  int count;
  struct sender_result result;
};

static void keep(void *context, const struct sender_result *result) {
  struct outcome *outcome = context;
  outcome->count++;
  outcome->result = *result;
}

static struct sender *sender_with(const char *allowed) {
  char dns[32];
  snprintf(dns, sizeof(dns), "127.0.0.1:%d", receiver.dns);
  struct sender_options options = {.ca_file = receiver.ca, .dns_servers = dns, .in_flight_max = 64};
  assert_null(address_set_parse(allowed, &options.allowed));
  struct sender *sender = sender_create(&options);
  assert_non_null(sender);
  return sender;
}

static void wait_for(struct sender *sender, const struct outcome *outcome, int count) {
  int64_t until_us = clock_monotonic_us() + 120 * 1000000LL;
  while (outcome->count < count && clock_monotonic_us() < until_us)
    sender_poll(sender, 0, 0, 100);
  assert_int_equal(outcome->count, count);
}

static const struct sender_header headers[] = {{"Content-Type", "application/xml"}, {"X-Test", "1"}};
static const char body[] = "<Response/>";

/* timeout_ms 0: as long as a machine with other things to do may take. */
static struct sender_request request_to(const char *url, int timeout_ms) {
  return (struct sender_request){.url = url,
                                 .headers = headers,
                                 .header_count = 2,
                                 .body = body,
                                 .body_bytes = strlen(body),
                                 .timeout_ms = timeout_ms ? timeout_ms : 60000,
                                 .connect_timeout_ms = timeout_ms ? 0 : 60000};
}

static struct sender_result post_url(struct sender *sender, const char *url, int timeout_ms) {
  struct outcome outcome = {0};
  struct sender_request request = request_to(url, timeout_ms);
  assert_true(sender_post(sender, &request, keep, &outcome));
  wait_for(sender, &outcome, 1);
  assert_int_equal(sender_in_flight(sender), 0);
  return outcome.result;
}

static struct sender_result post(struct sender *sender, const char *scheme, const char *host, const char *path) {
  char url[256];
  snprintf(url, sizeof(url), "%s://%s:%d%s", scheme, host, strcmp(scheme, "http") ? receiver.https : receiver.http,
           path);
  return post_url(sender, url, 0);
}

static void expect(const struct sender_result *result, int status, const char *error) {
  if (result->http_status != status || strcmp(callback_error_name(result->error), error) != 0)
    fail_msg("status %d, error \"%s\" (%s); expected %d, \"%s\"", result->http_status,
             callback_error_name(result->error), result->message, status, error);
  assert_true(!result->message[0] == !result->error);
}

static void expect_path(struct sender *sender, const char *path, int status, const char *error) {
  struct sender_result result = post(sender, "http", "127.0.0.1", path);
  expect(&result, status, error);
}

static void only_2xx_is_success(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  expect_path(sender, "/expected", 200, "");
  expect_path(sender, "/status/204", 204, "");
  expect_path(sender, "/status/299", 299, "");
  expect_path(sender, "/status/301", 301, "redirect");
  expect_path(sender, "/status/302", 302, "redirect");
  expect_path(sender, "/status/307", 307, "redirect");
  expect_path(sender, "/status/400", 400, "status_4xx");
  expect_path(sender, "/status/410", 410, "gone");
  expect_path(sender, "/status/429", 429, "status_429");
  expect_path(sender, "/status/500", 500, "status_5xx");
  expect_path(sender, "/status/503", 503, "status_5xx");
  expect_path(sender, "/body", 200, "");
  expect_path(sender, "/gzip", 200, "");
  expect_path(sender, "/gzip-bomb", 200, "");
  sender_destroy(sender);
}

static void retry_after_is_taken_in_both_forms(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_result result;
  for (int i = 0; i < 2; i++) {
    int status = i ? 503 : 429;
    char path[64];
    snprintf(path, sizeof(path), "/retry-after/seconds/%d", status);
    result = post(sender, "http", "127.0.0.1", path);
    expect(&result, status, i ? "status_5xx" : "status_429");
    assert_int_equal(result.retry_after_ms, 120000);
    snprintf(path, sizeof(path), "/retry-after/date/%d", status);
    result = post(sender, "http", "127.0.0.1", path);
    expect(&result, status, i ? "status_5xx" : "status_429");
    assert_in_range(result.retry_after_ms, 590000, 601000);
  }
  result = post(sender, "http", "127.0.0.1", "/status/503");
  assert_int_equal(result.retry_after_ms, -1);
  sender_destroy(sender);
}

static void an_answer_has_a_limit(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  expect_path(sender, "/endless-body", 200, "response_too_large");
  expect_path(sender, "/claims-much", 200, "response_too_large");
  expect_path(sender, "/endless-chunks", 200, "response_too_large");
  expect_path(sender, "/endless-headers", 200, "response_too_large");
  expect_path(sender, "/endless-trailers", 200, "response_too_large");
  expect_path(sender, "/endless-continue", 100, "response_too_large");
  struct sender_result result = post(sender, "http", "127.0.0.1", "/endless-header");
  assert_int_equal(result.error, CALLBACK_ERROR_RESPONSE_TOO_LARGE);
  sender_destroy(sender);
}

static void a_connection_that_breaks_is_a_reset(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  expect_path(sender, "/reset", 0, "reset");
  expect_path(sender, "/silent-close", 0, "reset");
  expect_path(sender, "/cut", 200, "reset");
  expect_path(sender, "/reset-after-headers", 200, "reset");
  struct sender_result result = post(sender, "http", "127.0.0.1", "/garbage");
  assert_int_equal(result.error, CALLBACK_ERROR_RESET);
  sender_destroy(sender);
}

static void nobody_listening_is_connect_refused(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_result result = post_url(sender, "http://127.0.0.1:1/", 0);
  expect(&result, 0, "connect_refused");
  sender_destroy(sender);
}

static void an_attempt_takes_no_longer_than_its_timeout(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  static const char *const paths[] = {"/hang", "/drip", "/drip-headers"};
  for (size_t i = 0; i < 3; i++) {
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", receiver.http, paths[i]);
    struct sender_result result = post_url(sender, url, 6000);
    expect(&result, i ? 200 : 0, "timeout");
    assert_in_range(result.total_us, 5990000, 40000000);
  }
  sender_destroy(sender);
}

/* Its backlog is full, so that it never answers a SYN. */
static void a_host_that_does_not_answer_is_connect_timeout(void **state) {
  (void)state;
  int listener = socket(AF_INET, SOCK_STREAM, 0), fillers[3];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
  socklen_t size = sizeof(address);
  assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(listener, 0), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
  for (size_t i = 0; i < 3; i++) {
    fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(fillers[i], (struct sockaddr *)&address, size);
  }
  struct sender *sender = sender_with("127.0.0.0/8");
  char url[64];
  snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(address.sin_port));
  struct sender_result result = post_url(sender, url, 60000);
  expect(&result, 0, "connect_timeout");
  assert_in_range(result.total_us, 2900000, 30000000);
  sender_destroy(sender);
  for (size_t i = 0; i < 3; i++)
    close(fillers[i]);
  close(listener);
}

static void denied_addresses_are_not_dialled(void **state) {
  (void)state;
  struct sender *sender = sender_with("");
  static const char *const hosts[] = {
      "127.0.0.1",       "127.1",         "0x7f.1",     "2130706433",        "017700000001", "[::ffff:127.0.0.1]",
      "[::1]",           "localhost",     "localhost.", "[64:ff9b::7f00:1]", "ok.test",      "0.0.0.0",
      "169.254.169.254", "metadata.test", "nat64.test", "10.0.0.1",          "[fe80::1]",    "[2002:7f00:1::1]"};
  for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
    struct sender_result result = post(sender, "http", hosts[i], "/status/200");
    if (result.error != CALLBACK_ERROR_BLOCKED_ADDRESS || result.http_status || result.address[0])
      fail_msg("%s: %s %s", hosts[i], callback_error_name(result.error), result.message);
  }
  struct sender_result result = post_url(sender, "http://user@127.0.0.1/", 0);
  expect(&result, 0, "blocked_address");
  sender_destroy(sender);
}

static void one_denied_answer_denies_the_name(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_result result = post(sender, "http", "ok.test", "/status/200");
  expect(&result, 200, "");
  assert_string_equal(result.address, "127.0.0.1");
  static const char *const hosts[] = {"public-and-private.test", "private-second-family.test", "private.test",
                                      "nat64.test"};
  for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
    result = post(sender, "http", hosts[i], "/status/200");
    expect(&result, 0, "blocked_address");
  }
  sender_destroy(sender);
}

static void a_name_that_is_rebound_is_vetted_again(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_result result = post(sender, "http", "rebind.test", "/close-later");
  expect(&result, 200, "");
  usleep(1100 * 1000); /* the shortest time that an answer is kept */
  result = post(sender, "http", "rebind.test", "/status/200");
  expect(&result, 0, "blocked_address");
  sender_destroy(sender);
}

static void names_that_do_not_resolve_are_dns_failures(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_result result = post(sender, "http", "nobody.test", "/status/200");
  expect(&result, 0, "dns");
  result = post(sender, "http", "many.test", "/status/200");
  expect(&result, 0, "dns");
  result = post(sender, "http", "silent.test", "/status/200");
  expect(&result, 0, "dns");
  /* 3 s; a c-ares that has seen the server answer quickly (1.31 and later) gives up sooner. */
  assert_in_range(result.total_us, 900000, 30000000);
  sender_destroy(sender);
}

static void a_silent_name_server_stalls_nobody_else(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct outcome slow = {0}, fast = {0};
  char url[64];
  snprintf(url, sizeof(url), "http://silent.test:%d/status/200", receiver.http);
  struct sender_request request = request_to(url, 0);
  for (int i = 0; i < 48; i++)
    assert_true(sender_post(sender, &request, keep, &slow));
  snprintf(url, sizeof(url), "http://ok.test:%d/status/200", receiver.http);
  request = request_to(url, 0);
  int64_t start_us = clock_monotonic_us();
  for (int i = 0; i < 16; i++)
    assert_true(sender_post(sender, &request, keep, &fast));
  wait_for(sender, &fast, 16);
  assert_true(clock_monotonic_us() - start_us < 30000000); /* one after the other the silent ones would take minutes */
  wait_for(sender, &slow, 48);
  sender_destroy(sender);
}

static void tls_is_verified(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_result result = post(sender, "https", "ok.test", "/status/200");
  expect(&result, 200, "");
  assert_true(result.tls_us > 0);
  result = post(sender, "https", "other.test", "/status/200");
  expect(&result, 0, "tls");
  result = post(sender, "https", "127.0.0.1", "/status/200");
  expect(&result, 0, "tls");
  result = post(sender, "https", "expired.test", "/status/200");
  expect(&result, 0, "tls");
  assert_non_null(strstr(result.message, "expired"));
  result = post(sender, "https", "unknown-issuer.test", "/status/200");
  expect(&result, 0, "tls");
  sender_destroy(sender);

  struct sender_options options = {0};
  assert_null(address_set_parse("127.0.0.0/8", &options.allowed));
  char dns[32];
  snprintf(dns, sizeof(dns), "127.0.0.1:%d", receiver.dns);
  options.dns_servers = dns;
  sender = sender_create(&options);
  result = post(sender, "https", "ok.test", "/status/200");
  expect(&result, 0, "tls");
  sender_destroy(sender);
}

/* A file beside receiver.ca. */
static const char *read_pem(const char *name) {
  static char texts[8][8192];
  static size_t turn;
  char *text = texts[turn++ % 8], path[320];
  snprintf(path, sizeof(path), "%.*s/%s", (int)(strrchr(receiver.ca, '/') - receiver.ca), receiver.ca, name);
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  text[fread(text, 1, sizeof(texts[0]) - 1, file)] = 0;
  fclose(file);
  return text;
}

static struct sender_result post_as(struct sender *sender, const struct sender_trust *trust, const char *host, int port,
                                    const char *path) {
  char url[256];
  snprintf(url, sizeof(url), "https://%s:%d%s", host, port, path);
  struct outcome outcome = {0};
  struct sender_request request = request_to(url, 0);
  request.trust = trust;
  assert_true(sender_post(sender, &request, keep, &outcome));
  wait_for(sender, &outcome, 1);
  return outcome.result;
}

static void own_certificates_take_the_place_of_the_bundle(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_trust trust = {read_pem("unknown-issuer.test.pem"), "", ""};
  /* Twice: neither the bundle's cache nor a kept TLS session may make another answer of it. */
  for (int i = 0; i < 2; i++) {
    struct sender_result result = post_as(sender, &trust, "unknown-issuer.test", receiver.https, "/close-later");
    expect(&result, 200, "");
    result = post_as(sender, 0, "unknown-issuer.test", receiver.https, "/close-later");
    expect(&result, 0, "tls");
    result = post_as(sender, 0, "ok.test", receiver.https, "/close-later");
    expect(&result, 200, "");
    result = post_as(sender, &trust, "ok.test", receiver.https, "/close-later");
    expect(&result, 0, "tls");
  }
  sender_destroy(sender);
}

/* In TLS 1.3 the handshake is over when the receiver breaks off, so its alert may be lost with the connection. */
static void expect_refused(const struct sender_result *result) {
  if (result->http_status || (result->error != CALLBACK_ERROR_TLS && result->error != CALLBACK_ERROR_RESET))
    fail_msg("status %d, error \"%s\" (%s)", result->http_status, callback_error_name(result->error), result->message);
}

static void a_receiver_that_asks_who_calls_is_told(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_trust known = {"", read_pem("client.pem"), read_pem("client.key")};
  struct sender_trust unknown = {"", read_pem("unknown-issuer.test.pem"), read_pem("unknown-issuer.test.key")};
  struct sender_trust both = {read_pem("ok.test.pem"), known.client_certificate, known.client_key};
  for (int i = 0; i < 2; i++) {
    struct sender_result result = post_as(sender, &known, "ok.test", receiver.mutual, "/served");
    expect(&result, 200 + i, "");
    result = post_as(sender, 0, "ok.test", receiver.mutual, "/served");
    expect_refused(&result);
    result = post_as(sender, &unknown, "ok.test", receiver.mutual, "/served");
    expect_refused(&result);
    result = post_as(sender, &both, "ok.test", receiver.mutual, "/served");
    expect(&result, 200 + i, "");
  }
  sender_destroy(sender);
}

/* The receiver counts what each connection has served. */
static void a_connection_is_shared_by_equal_trust_only(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  const struct sender_trust classes[] = {
      {"", "", ""},
      {"", read_pem("client.pem"), read_pem("client.key")},
      {"", read_pem("unknown-issuer.test.pem"), read_pem("unknown-issuer.test.key")},
      {read_pem("ok.test.pem"), "", ""},
      {read_pem("ok.test.pem"), read_pem("client.pem"), read_pem("client.key")},
  };
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
      struct sender_result result = post_as(sender, &classes[i], "ok.test", receiver.https, "/served");
      expect(&result, 200 + round, "");
      assert_true((result.tls_us > 0) == (round == 0));
    }
  }
  /* NULL is the same as nothing of each. */
  struct sender_result result = post_as(sender, 0, "ok.test", receiver.https, "/served");
  expect(&result, 203, "");
  sender_destroy(sender);
}

/* libcurl parses it again for every new TLS connection unless all is set just so. */
static void the_ca_file_is_read_once_and_not_at_every_connection(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  int watch = inotify_init1(IN_NONBLOCK);
  assert_true(inotify_add_watch(watch, receiver.ca, IN_OPEN) >= 0);
  for (int i = 0; i < 5; i++) {
    struct sender_result result = post(sender, "https", "ok.test", "/close-later");
    expect(&result, 200, "");
    assert_true(result.tls_us > 0);
    usleep(20 * 1000); /* the end of the connection comes after the answer */
    char events[4096]; /* events of the same kind are one until they are read */
    assert_true((read(watch, events, sizeof(events)) > 0) == (i == 0));
  }
  close(watch);
  sender_destroy(sender);
}

static void a_handshake_that_hangs_ends_in_the_time_for_connecting(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  char url[64];
  snprintf(url, sizeof(url), "https://slow-tls.test:%d/status/200", receiver.https);
  struct sender_result result = post_url(sender, url, 60000);
  expect(&result, 0, "connect_timeout");
  assert_in_range(result.total_us, 2900000, 30000000);
  sender_destroy(sender);
}

static void connections_are_reused(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  for (int i = 0; i < 5; i++)
    expect_path(sender, "/served", 200 + i, "");
  struct sender_result result = post(sender, "https", "ok.test", "/served");
  expect(&result, 200, "");
  result = post(sender, "https", "ok.test", "/served");
  expect(&result, 201, "");
  assert_string_equal(result.address, "127.0.0.1");
  sender_destroy(sender);
}

static void a_connection_closed_between_requests_is_no_failure(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  for (int i = 0; i < 5; i++)
    expect_path(sender, "/close-later", 200, "");
  for (int i = 0; i < 20; i++)
    expect_path(sender, "/closes-on-reuse", 200, "");
  sender_destroy(sender);
}

static int may_send_calls;

static bool never(void *context) {
  (void)context;
  may_send_calls++;
  return false;
}

static void nothing_leaves_when_the_claim_has_run_out(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  char url[64];
  snprintf(url, sizeof(url), "http://127.0.0.1:%d/served", receiver.http);
  /* On a new connection and on a reused one. */
  for (int i = 0; i < 2; i++) {
    struct outcome outcome = {0};
    struct sender_request request = request_to(url, 0);
    request.may_send = never;
    may_send_calls = 0;
    assert_true(sender_post(sender, &request, keep, &outcome));
    wait_for(sender, &outcome, 1);
    expect(&outcome.result, 0, "cancelled");
    assert_int_equal(may_send_calls, 1);
    struct sender_result result = post_url(sender, url, 0);
    expect(&result, 200, "");
  }
  sender_destroy(sender);
}

static void control_characters_in_headers_are_refused(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct sender_header bad[] = {{"X-Test", "1\r\nX-Injected: 2"}};
  char url[64];
  snprintf(url, sizeof(url), "http://127.0.0.1:%d/status/200", receiver.http);
  struct sender_request request = request_to(url, 0);
  request.headers = bad;
  request.header_count = 1;
  struct outcome outcome = {0};
  assert_true(sender_post(sender, &request, keep, &outcome));
  assert_int_equal(outcome.count, 0);
  wait_for(sender, &outcome, 1);
  expect(&outcome.result, 0, "cancelled");
  sender_destroy(sender);
}

static void in_flight_has_a_limit(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  char url[64];
  snprintf(url, sizeof(url), "http://127.0.0.1:%d/status/200", receiver.http);
  struct sender_request request = request_to(url, 0);
  struct outcome outcome = {0};
  for (int i = 0; i < 64; i++)
    assert_true(sender_post(sender, &request, keep, &outcome));
  assert_false(sender_post(sender, &request, keep, &outcome));
  wait_for(sender, &outcome, 64);
  assert_true(sender_post(sender, &request, keep, &outcome));
  wait_for(sender, &outcome, 65);
  expect(&outcome.result, 200, "");
  sender_destroy(sender);
}

static void dropped_requests_leave_nothing_behind(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  struct outcome outcome = {0};
  static const char *const hosts[] = {"127.0.0.1", "ok.test", "silent.test", "10.0.0.1"};
  for (int i = 0; i < 16; i++) {
    char url[64];
    snprintf(url, sizeof(url), "http://%s:%d/hang", hosts[i % 4], receiver.http);
    struct sender_request request = request_to(url, 0);
    assert_true(sender_post(sender, &request, keep, &outcome));
    if (i == 8)
      sender_poll(sender, 0, 0, 10);
  }
  sender_destroy(sender);
}

static void extra_descriptors_and_wake_ups_end_a_poll(void **state) {
  (void)state;
  struct sender *sender = sender_with("127.0.0.0/8");
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  assert_int_equal(write(ends[1], "x", 1), 1);
  struct pollfd extra = {.fd = ends[0], .events = POLLIN};
  int64_t start_us = clock_monotonic_us();
  sender_poll(sender, &extra, 1, 60000);
  assert_true(extra.revents & POLLIN);
  sender_wakeup(sender);
  sender_poll(sender, 0, 0, 60000);
  assert_true(clock_monotonic_us() - start_us < 40000000);
  close(ends[0]);
  close(ends[1]);
  sender_destroy(sender);
}

static void a_poll_that_ran_a_done_waits_for_nothing_else(void **state) {
  (void)state;
  struct sender *sender = sender_with("");
  struct outcome outcome = {0};
  struct sender_request request = request_to("http://127.0.0.1:9/", 0);
  assert_true(sender_post(sender, &request, keep, &outcome));
  int64_t start_us = clock_monotonic_us();
  sender_poll(sender, 0, 0, 60000);
  assert_int_equal(outcome.count, 1);
  assert_true(clock_monotonic_us() - start_us < 40000000);
  sender_destroy(sender);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(only_2xx_is_success),
      cmocka_unit_test(retry_after_is_taken_in_both_forms),
      cmocka_unit_test(an_answer_has_a_limit),
      cmocka_unit_test(a_connection_that_breaks_is_a_reset),
      cmocka_unit_test(nobody_listening_is_connect_refused),
      cmocka_unit_test(an_attempt_takes_no_longer_than_its_timeout),
      cmocka_unit_test(a_host_that_does_not_answer_is_connect_timeout),
      cmocka_unit_test(denied_addresses_are_not_dialled),
      cmocka_unit_test(one_denied_answer_denies_the_name),
      cmocka_unit_test(a_name_that_is_rebound_is_vetted_again),
      cmocka_unit_test(names_that_do_not_resolve_are_dns_failures),
      cmocka_unit_test(a_silent_name_server_stalls_nobody_else),
      cmocka_unit_test(tls_is_verified),
      cmocka_unit_test(own_certificates_take_the_place_of_the_bundle),
      cmocka_unit_test(a_receiver_that_asks_who_calls_is_told),
      cmocka_unit_test(a_connection_is_shared_by_equal_trust_only),
      cmocka_unit_test(the_ca_file_is_read_once_and_not_at_every_connection),
      cmocka_unit_test(a_handshake_that_hangs_ends_in_the_time_for_connecting),
      cmocka_unit_test(connections_are_reused),
      cmocka_unit_test(a_connection_closed_between_requests_is_no_failure),
      cmocka_unit_test(nothing_leaves_when_the_claim_has_run_out),
      cmocka_unit_test(control_characters_in_headers_are_refused),
      cmocka_unit_test(in_flight_has_a_limit),
      cmocka_unit_test(dropped_requests_leave_nothing_behind),
      cmocka_unit_test(extra_descriptors_and_wake_ups_end_a_poll),
      cmocka_unit_test(a_poll_that_ran_a_done_waits_for_nothing_else),
  };
  return cmocka_run_group_tests(tests, start_receiver, stop_receiver);
}
