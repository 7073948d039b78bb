/* The address guard, at the first and last address of every range and just outside it. */
#include "server/callback/address.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

static bool allowed(const struct address_set *set, const char *text) {
  struct sockaddr_storage address = {0};
  struct sockaddr_in *four = (struct sockaddr_in *)&address;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address;
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1)
    four->sin_family = AF_INET;
  else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1)
    six->sin6_family = AF_INET6;
  else
    fail_msg("not an address: %s", text);
  const char *why = "unset";
  bool answer = address_is_allowed(set, (const struct sockaddr *)&address, &why);
  assert_true(answer == !why);
  return answer;
}

static void expect_all(const struct address_set *set, const char *const *texts, bool expected) {
  for (size_t i = 0; texts[i]; i++)
    if (allowed(set, texts[i]) != expected)
      fail_msg("%s must be %s", texts[i], expected ? "allowed" : "denied");
}

static void special_ipv4_ranges_are_denied(void **state) {
  (void)state;
  static const char *const texts[] = {"0.0.0.0",         "0.255.255.255",   "10.0.0.0",        "10.255.255.255",
                                      "100.64.0.0",      "100.127.255.255", "127.0.0.0",       "127.0.0.1",
                                      "127.255.255.255", "169.254.0.0",     "169.254.169.254", "172.16.0.0",
                                      "172.31.255.255",  "192.0.0.0",       "192.0.0.255",     "192.0.2.0",
                                      "192.0.2.255",     "192.31.196.1",    "192.52.193.1",    "192.88.99.1",
                                      "192.168.0.0",     "192.168.255.255", "192.175.48.1",    "198.18.0.0",
                                      "198.19.255.255",  "198.51.100.1",    "203.0.113.255",   "224.0.0.0",
                                      "239.255.255.255", "240.0.0.0",       "255.255.255.255", 0};
  expect_all(0, texts, false);
}

static void ipv4_neighbours_of_the_ranges_are_allowed(void **state) {
  (void)state;
  static const char *const texts[] = {"1.0.0.0",
                                      "9.255.255.255",
                                      "11.0.0.0",
                                      "100.63.255.255",
                                      "100.128.0.0",
                                      "126.255.255.255",
                                      "128.0.0.0",
                                      "169.253.255.255",
                                      "169.255.0.0",
                                      "172.15.255.255",
                                      "172.32.0.0",
                                      "191.255.255.255",
                                      "192.0.1.0",
                                      "192.0.3.0",
                                      "192.167.255.255",
                                      "192.169.0.0",
                                      "198.17.255.255",
                                      "198.20.0.0",
                                      "198.51.99.255",
                                      "203.0.114.0",
                                      "223.255.255.255",
                                      "8.8.8.8",
                                      0};
  expect_all(0, texts, true);
}

static void ipv6_is_open_only_where_it_is_global(void **state) {
  (void)state;
  static const char *const open[] = {
      "2000::1", "2606:4700::1111", "2a00:1450:4001::200e", "2001:200::1", "3ffe::1", "3fff:1000::1", 0};
  static const char *const shut[] = {
      "::",      "::1",         "fe80::1",          "fc00::1",      "fd12::1",     "ff02::1", "100::1",
      "4000::1", "1fff::1",     "2001::1",          "2001:1ff::1",  "2001:db8::1", "2002::1", "2002:808:808::1",
      "3fff::1", "3fff:fff::1", "64:ff9b::808:808", "64:ff9b:1::1", "fec0::1",     0};
  expect_all(0, open, true);
  expect_all(0, shut, false);
}

static void ipv4_inside_ipv6_is_decoded(void **state) {
  (void)state;
  static const char *const shut[] = {"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
                                     "::127.0.0.1",      "2002:7f00:1::1",  "2001:0:7f00:1::1",       0};
  expect_all(0, shut, false);
  static const char *const open[] = {"::ffff:8.8.8.8", 0};
  expect_all(0, open, true);

  /* An operator behind NAT64 opens its prefix, and still nobody reaches loopback through it. */
  struct address_set set;
  assert_null(address_set_parse("64:ff9b::/96,2001::/32,2002::/16", &set));
  static const char *const still_shut[] = {"64:ff9b::7f00:1",          "64:ff9b::a9fe:a9fe",        "2002:7f00:1::1",
                                           "2001:0:7f00:1::f7f7:f7f7", "2001:0:808:808::80ff:fffe", 0};
  static const char *const now_open[] = {"64:ff9b::808:808", "2002:808:808::1", "2001:0:808:808::f7f7:f7f7", 0};
  expect_all(&set, still_shut, false);
  expect_all(&set, now_open, true);
}

static void an_operator_opens_ranges(void **state) {
  (void)state;
  struct address_set set;
  assert_null(address_set_parse("127.0.0.0/8, 10.1.0.0/16,::1,fd00::/8", &set));
  assert_int_equal(set.count, 4);
  static const char *const open[] = {"127.0.0.1", "127.255.0.1", "10.1.2.3", "::1", "fd00::1", "::ffff:127.0.0.1", 0};
  static const char *const shut[] = {"10.2.0.1", "::2", "fc00::1", "::127.0.0.2", "192.168.1.1", 0};
  expect_all(&set, open, true);
  expect_all(&set, shut, false);
  assert_null(address_set_parse("", &set));
  assert_int_equal(set.count, 0);
}

static void a_bad_range_is_refused(void **state) {
  (void)state;
  static const char *const texts[] = {"localhost",
                                      "127.0.0.0/33",
                                      "127.0.0.1/8",
                                      "10.0.0.0/",
                                      "10.0.0.0/8x",
                                      "10.0.0.0/-1",
                                      "::/129",
                                      "10.0.0/8",
                                      "fd00::1/8",
                                      "10.0.0.0/8;11.0.0.0/8",
                                      "10.0.0.0/8,",
                                      ",10.0.0.0/8",
                                      "10.0.0.0/8,,11.0.0.0/8",
                                      " ",
                                      0};
  struct address_set set;
  for (size_t i = 0; texts[i]; i++)
    if (!address_set_parse(texts[i], &set))
      fail_msg("accepted: %s", texts[i]);
}

static void a_set_is_within_another_or_tells_the_stray(void **state) {
  (void)state;
  struct address_set outer, inner;
  size_t stray = 9;
  assert_null(address_set_parse("10.0.0.0/8,127.0.0.1,fd00::/8", &outer));
  assert_null(address_set_parse("10.1.0.0/16,10.0.0.0/8,127.0.0.1,fd12::/16", &inner));
  assert_true(address_set_contains(&outer, &inner, &stray));
  assert_null(address_set_parse("10.1.0.0/16,0.0.0.0/0", &inner));
  assert_false(address_set_contains(&outer, &inner, &stray));
  assert_int_equal(stray, 1);
  assert_null(address_set_parse("127.0.0.0/31", &inner));
  assert_false(address_set_contains(&outer, &inner, NULL));
  assert_null(address_set_parse("a00::/8", &inner)); /* the bytes of 10.0.0.0/8, of another family */
  assert_false(address_set_contains(&outer, &inner, NULL));
  assert_null(address_set_parse("", &inner));
  assert_true(address_set_contains(&outer, &inner, NULL));
}

static void other_families_are_denied(void **state) {
  (void)state;
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  const char *why = 0;
  assert_false(address_is_allowed(0, (const struct sockaddr *)&local, &why));
  assert_non_null(why);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(special_ipv4_ranges_are_denied),
      cmocka_unit_test(ipv4_neighbours_of_the_ranges_are_allowed),
      cmocka_unit_test(ipv6_is_open_only_where_it_is_global),
      cmocka_unit_test(ipv4_inside_ipv6_is_decoded),
      cmocka_unit_test(an_operator_opens_ranges),
      cmocka_unit_test(a_bad_range_is_refused),
      cmocka_unit_test(a_set_is_within_another_or_tells_the_stray),
      cmocka_unit_test(other_families_are_denied),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
