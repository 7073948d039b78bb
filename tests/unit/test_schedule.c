/* The retry schedule and Retry-After. */
#include "server/callback/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1700000000000LL

static struct schedule_failure failure(int attempts) {
  return (struct schedule_failure){
      .error = CALLBACK_ERROR_STATUS_5XX, .attempts = attempts, .created_ms = NOW, .now_ms = NOW, .retry_after_ms = -1};
}

static void waits_follow_the_table_within_a_fifth(void **state) {
  (void)state;
  static const int64_t waits_s[] = {5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 57600, 86400, 86400, 86400};
  for (int attempts = 1; attempts <= 14; attempts++) {
    int64_t wait_ms = waits_s[attempts - 1] * 1000, least = INT64_MAX, most = 0;
    for (uint32_t random = 0; random < 4000000000u; random += 612347) {
      struct schedule_failure f = failure(attempts);
      f.random = random;
      struct schedule_verdict verdict = schedule_after_failure(&f);
      assert_false(verdict.dead);
      int64_t got = verdict.next_ms - NOW;
      least = got < least ? got : least;
      most = got > most ? got : most;
    }
    assert_in_range(least, wait_ms * 80 / 100, wait_ms * 81 / 100);
    assert_in_range(most, wait_ms * 119 / 100, wait_ms * 120 / 100);
  }
}

static void a_delivery_dies_of_age(void **state) {
  (void)state;
  struct schedule_failure f = failure(1);
  f.random = 1000; /* 4 s + 1 s */
  f.now_ms = NOW + SCHEDULE_AGE_MAX_MS - 5000;
  struct schedule_verdict verdict = schedule_after_failure(&f);
  assert_false(verdict.dead);
  assert_true(verdict.next_ms == NOW + SCHEDULE_AGE_MAX_MS);
  f.now_ms++;
  verdict = schedule_after_failure(&f);
  assert_true(verdict.dead);
  assert_int_equal(verdict.error, CALLBACK_ERROR_TOO_OLD);
}

static void a_whole_life_has_thirteen_attempts_at_most(void **state) {
  (void)state;
  for (uint32_t random = 0; random < 4000000000u; random += 1234567) {
    struct schedule_failure f = failure(1);
    for (;; f.attempts++) {
      f.random = random * 2654435761u + (uint32_t)f.attempts * 40503u;
      struct schedule_verdict verdict = schedule_after_failure(&f);
      if (verdict.dead)
        break;
      assert_true(verdict.next_ms > f.now_ms);
      f.now_ms = verdict.next_ms;
    }
    assert_in_range(f.attempts, 12, 14);
  }
}

static void permanent_failures_are_dead_at_once(void **state) {
  (void)state;
  for (int error = CALLBACK_ERROR_DNS; error < CALLBACK_ERROR_COUNT; error++) {
    struct schedule_failure f = failure(1);
    f.error = (enum callback_error)error;
    struct schedule_verdict verdict = schedule_after_failure(&f);
    assert_true(verdict.dead == callback_error_is_permanent(f.error));
    assert_int_equal(verdict.error, error);
  }
  assert_true(callback_error_is_permanent(CALLBACK_ERROR_GONE));
  assert_true(callback_error_is_permanent(CALLBACK_ERROR_BLOCKED_ADDRESS));
  assert_false(callback_error_is_permanent(CALLBACK_ERROR_REDIRECT));
}

static void retry_after_is_honoured_up_to_the_age(void **state) {
  (void)state;
  struct schedule_failure f = failure(1);
  f.retry_after_ms = 3600 * 1000;
  assert_true(schedule_after_failure(&f).next_ms == NOW + 3600 * 1000);
  f.retry_after_ms = 1000;
  assert_true(schedule_after_failure(&f).next_ms >= NOW + 4000);
  f.retry_after_ms = 365LL * 86400 * 1000;
  assert_false(schedule_after_failure(&f).dead);
  assert_true(schedule_after_failure(&f).next_ms == NOW + SCHEDULE_AGE_MAX_MS);
  f.now_ms = NOW + SCHEDULE_AGE_MAX_MS;
  assert_true(schedule_after_failure(&f).dead);
}

static void retry_after_is_read_in_all_its_forms(void **state) {
  (void)state;
  int64_t now_ms = 784111777LL * 1000; /* Sun, 06 Nov 1994 08:49:37 GMT */
  assert_true(schedule_parse_retry_after("0", now_ms) == 0);
  assert_true(schedule_parse_retry_after("120", now_ms) == 120000);
  assert_true(schedule_parse_retry_after(" 120 ", now_ms) == 120000);
  assert_true(schedule_parse_retry_after("99999999999999999999999", now_ms) == 366LL * 86400 * 1000);
  assert_true(schedule_parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now_ms) == 60000);
  assert_true(schedule_parse_retry_after("Sunday, 06-Nov-94 08:50:37 GMT", now_ms) == 60000);
  assert_true(schedule_parse_retry_after("Sun Nov  6 08:50:37 1994", now_ms) == 60000);
  assert_true(schedule_parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now_ms) == 0);
  static const char *const bad[] = {"", " ", "-1", "1.5", "soon", "12 34", "Sun, 06 Nov 1994", "0x10"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    assert_true(schedule_parse_retry_after(bad[i], now_ms) == -1);
}

static void a_status_has_its_class(void **state) {
  (void)state;
  static const struct {
    int status;
    const char *name;
  } rows[] = {{200, ""},           {204, ""},           {299, ""},          {301, "redirect"},
              {304, "redirect"},   {400, "status_4xx"}, {410, "gone"},      {429, "status_429"},
              {499, "status_4xx"}, {500, "status_5xx"}, {503, "status_5xx"}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    assert_string_equal(callback_error_name(callback_error_of_status(rows[i].status)), rows[i].name);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(waits_follow_the_table_within_a_fifth),
      cmocka_unit_test(a_delivery_dies_of_age),
      cmocka_unit_test(a_whole_life_has_thirteen_attempts_at_most),
      cmocka_unit_test(permanent_failures_are_dead_at_once),
      cmocka_unit_test(retry_after_is_honoured_up_to_the_age),
      cmocka_unit_test(retry_after_is_read_in_all_its_forms),
      cmocka_unit_test(a_status_has_its_class),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
