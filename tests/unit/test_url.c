/* Callback URLs: what is accepted, what is refused, and that odd spellings of an address are seen for what they are. */
#include "server/callback/url.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *check(const char *text, struct callback_url *url) {
  return url_parse(text, strlen(text), url);
}

static void an_http_url_has_its_parts(void **state) {
  (void)state;
  struct callback_url url;
  assert_null(check("http://Example.COM/path?query=1", &url));
  assert_false(url.https);
  assert_string_equal(url.host, "example.com");
  assert_int_equal(url.port, 80);
  assert_false(url.is_address);
  assert_null(check("HTTPS://example.com:8443/", &url));
  assert_true(url.https);
  assert_int_equal(url.port, 8443);
  assert_null(check("https://example.com", &url));
  assert_int_equal(url.port, 443);
}

static void what_is_no_absolute_http_url_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {"",
                                      "example.com",
                                      "/path",
                                      "//example.com/",
                                      "ftp://example.com/",
                                      "file:///etc/passwd",
                                      "http:",
                                      "http://",
                                      "http:///path",
                                      "http:/example.com/",
                                      "http:example.com",
                                      "http://:80/",
                                      "http://./",
                                      "http://example.com:0/",
                                      "http://example.com:65536/",
                                      "http://example.com:port/",
                                      "gopher://example.com/",
                                      "http://[::1/",
                                      "http://[::1]x/",
                                      "http://exa mple.com/",
                                      "http://example.com/a b",
                                      "http://[fe80::1%25eth0]/",
                                      "http://\\example.com/",
                                      "javascript://example.com/",
                                      "unix:///run/x.sock"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    struct callback_url url;
    if (!check(texts[i], &url))
      fail_msg("accepted: %s", texts[i]);
  }
}

static void user_information_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {"http://user@example.com/",      "http://user:password@example.com/",
                                      "http://@example.com/",          "http://:@example.com/",
                                      "http://example.com@127.0.0.1/", "http://a%40b@example.com/"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    struct callback_url url;
    if (!check(texts[i], &url))
      fail_msg("accepted: %s", texts[i]);
  }
}

static void control_characters_are_refused(void **state) {
  (void)state;
  struct callback_url url;
  for (int c = 0; c < 256; c++) {
    if (c > 0x20 && c < 0x7f)
      continue;
    char text[] = "http://example.com/a?b";
    text[20] = (char)c;
    assert_non_null(url_parse(text, sizeof(text) - 1, &url));
    text[20] = '?';
    text[9] = (char)c;
    assert_non_null(url_parse(text, sizeof(text) - 1, &url));
  }
}

static void the_length_has_a_limit(void **state) {
  (void)state;
  char text[URL_BYTES_MAX + 2];
  memset(text, 'a', sizeof(text));
  memcpy(text, "http://example.com/", 19);
  struct callback_url url;
  assert_null(url_parse(text, URL_BYTES_MAX, &url));
  assert_non_null(url_parse(text, URL_BYTES_MAX + 1, &url));
}

static void every_spelling_of_loopback_is_an_address(void **state) {
  (void)state;
  static const char *const texts[] = {"http://127.0.0.1/",      "http://127.1/",         "http://0x7f.1/",
                                      "http://2130706433/",     "http://017700000001/",  "http://0x7f000001/",
                                      "http://127.0.0.1./",     "http://0177.0.0.1:80/", "http://127.0.1/",
                                      "http://%31%32%37.0.0.1/"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    struct callback_url url;
    const char *error = check(texts[i], &url);
    if (error)
      fail_msg("%s: %s", texts[i], error);
    if (!url.is_address)
      fail_msg("taken for a name: %s (%s)", texts[i], url.host);
    const struct sockaddr_in *four = (const struct sockaddr_in *)&url.address;
    assert_int_equal(four->sin_family, AF_INET);
    assert_int_equal(ntohl(four->sin_addr.s_addr), 0x7f000001);
    assert_int_equal(ntohs(four->sin_port), 80);
  }
}

static void an_ipv6_host_loses_its_brackets(void **state) {
  (void)state;
  struct callback_url url;
  assert_null(check("http://[::1]:8080/", &url));
  assert_true(url.is_address);
  assert_string_equal(url.host, "::1");
  assert_int_equal(((const struct sockaddr_in6 *)&url.address)->sin6_family, AF_INET6);
  assert_null(check("http://[::ffff:127.0.0.1]/", &url));
  assert_true(url.is_address);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_http_url_has_its_parts),       cmocka_unit_test(what_is_no_absolute_http_url_is_refused),
      cmocka_unit_test(user_information_is_refused),     cmocka_unit_test(control_characters_are_refused),
      cmocka_unit_test(the_length_has_a_limit),          cmocka_unit_test(every_spelling_of_loopback_is_an_address),
      cmocka_unit_test(an_ipv6_host_loses_its_brackets),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
