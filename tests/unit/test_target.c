/* The URLs of --redis: what is understood, what is refused, and that no text for people has the password. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "redis/connection.h"

struct expectation {
  const char *url;
  const char *host; /* NULL: a Unix socket */
  int port;
  const char *unix_path, *user, *password;
  int database;
  const char *description;
};

static void same(const char *is, const char *wanted) {
  if (wanted)
    assert_string_equal(is ? is : "(null)", wanted);
  else
    assert_null(is);
}

static void good_urls_are_taken_apart(void **state) {
  (void)state;
  static const struct expectation all[] = {
      {"redis://localhost", "localhost", 6379, NULL, NULL, NULL, 0, "redis://localhost:6379/0"},
      {"redis://", "127.0.0.1", 6379, NULL, NULL, NULL, 0, "redis://127.0.0.1:6379/0"},
      {"redis://:7000", "127.0.0.1", 7000, NULL, NULL, NULL, 0, "redis://127.0.0.1:7000/0"},
      {"REDIS://h:6380/3", "h", 6380, NULL, NULL, NULL, 3, "redis://h:6380/3"},
      {"redis://h/", "h", 6379, NULL, NULL, NULL, 0, "redis://h:6379/0"},
      {"redis://[::1]:6380/15", "::1", 6380, NULL, NULL, NULL, 15, "redis://[::1]:6380/15"},
      {"redis://:secret@h", "h", 6379, NULL, NULL, "secret", 0, "redis://h:6379/0"},
      {"redis://me:se%40c%2fret@h:1", "h", 1, NULL, "me", "se@c/ret", 0, "redis://me@h:1/0"},
      {"redis://me:a@b:c@h:1/2", "h", 1, NULL, "me", "a@b:c", 2, "redis://me@h:1/2"},
      {"unix:///run/redis.sock", NULL, 0, "/run/redis.sock", NULL, NULL, 0, "unix:///run/redis.sock"},
      {"unix:///run/a%20b?db=4", NULL, 0, "/run/a b", NULL, NULL, 4, "unix:///run/a b?db=4"},
      {"redis+unix://me:pw@/r.sock?db=1", NULL, 0, "/r.sock", "me", "pw", 1, "unix://me@/r.sock?db=1"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct redis_target target;
    const char *reason;
    char text[256];
    if (!redis_target_parse(all[i].url, &target, &reason))
      fail_msg("%s: %s", all[i].url, reason);
    same(target.host, all[i].host);
    assert_int_equal(target.port, all[i].port);
    same(target.unix_path, all[i].unix_path);
    same(target.user, all[i].user);
    same(target.password, all[i].password);
    assert_int_equal(target.database, all[i].database);
    redis_target_describe(&target, text, sizeof text);
    assert_string_equal(text, all[i].description);
    redis_target_clear(&target);
  }
}

static void bad_urls_are_refused_with_a_reason(void **state) {
  (void)state;
  static const char *const urls[] = {
      "",
      "localhost:6379",
      "http://localhost",
      "rediss://localhost",
      "redis://h:0",
      "redis://h:65536",
      "redis://h:x",
      "redis://h:",
      "redis://[::1",
      "redis://[::1]x",
      "redis://h/x",
      "redis://h/1/2",
      "redis://h/-1",
      "redis://h/99999",
      "redis://h?db=1",
      "redis://user@h",
      "redis://user:@h",
      "redis://u%0:p@h",
      "redis://u:p%zz@h",
      "redis://u:p%00@h",
      "redis://h%00",
      "unix://",
      "unix:///",
      "unix://relative/path",
      "unix:///a?db=x",
      "unix:///a?x=1",
      "unix:///a%",
  };
  for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
    struct redis_target target;
    const char *reason = NULL;
    if (redis_target_parse(urls[i], &target, &reason))
      fail_msg("accepted: %s", urls[i]);
    assert_non_null(reason);
    assert_true(strlen(reason) > 10);
    assert_null(target.host);
    assert_null(target.password);
  }
}

static void an_overlong_url_is_refused(void **state) {
  (void)state;
  static char url[5000];
  struct redis_target target;
  const char *reason;
  memset(url, 'a', sizeof url - 1);
  memcpy(url, "redis://", 8);
  assert_false(redis_target_parse(url, &target, &reason));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(good_urls_are_taken_apart),
      cmocka_unit_test(bad_urls_are_refused_with_a_reason),
      cmocka_unit_test(an_overlong_url_is_refused),
  };
  return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
