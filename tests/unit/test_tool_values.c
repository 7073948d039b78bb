/* Durations, times and base64 as the tool reads and writes them. */
#include "client/tool/values.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void durations_are_read(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t ms;
  } good[] = {{"500ms", 500}, {"5s", 5000},       {"2m", 120000}, {"1h", 3600000}, {"3d", 259200000}, {"0", 0},
              {"7", 7000},    {"1h30m", 5400000}, {"0.5s", 500},  {"1.25", 1250},  {"0.001s", 1}};
  static const char *const bad[] = {"",    "s", "5x", "-5s", "5 s", "1h30", "1..5s", ".5s", "99999999999999999999s",
                                    "1e3s"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    int64_t ms = -1;
    assert_true(value_parse_duration(good[i].text, &ms));
    assert_int_equal(ms, good[i].ms);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int64_t ms;
    assert_false(value_parse_duration(bad[i], &ms));
  }
}

static void times_are_read(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t ms;
  } good[] = {{"1970-01-01T00:00:00Z", 0},
              {"2026-11-22T23:15:54Z", 1795389354000},
              {"2026-11-23T07:15:54.250+08:00", 1795389354250},
              {"2026-11-22t23:15:54z", 1795389354000},
              {"2026-11-22 23:15:54Z", 1795389354000},
              {"2024-02-29T00:00:00Z", 1709164800000},
              {"2016-12-31T23:59:60Z", 1483228800000},
              {"1795389354", 1795389354000},
              {"1795389354.5", 1795389354500}};
  static const char *const bad[] = {"",
                                    "now",
                                    "2026-11-22",
                                    "2026-11-22T23:15:54",
                                    "2026-13-01T00:00:00Z",
                                    "2026-02-29T00:00:00Z",
                                    "2026-04-31T23:00:00Z",
                                    "2026-11-22T24:00:00Z",
                                    "2026-11-22T23:15:54+24:00",
                                    "2026-11-22T23:15:54Zx",
                                    "2026-11-22T23:15:54.Z"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    int64_t ms = -1;
    assert_true(value_parse_time(good[i].text, &ms));
    assert_int_equal(ms, good[i].ms);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int64_t ms;
    assert_false(value_parse_time(bad[i], &ms));
  }
}

static void times_and_durations_are_written_as_json_has_them(void **state) {
  (void)state;
  char text[VALUE_TEXT_BYTES];
  value_format_time(1795389354, 0, text);
  assert_string_equal(text, "2026-11-22T23:15:54Z");
  value_format_time(1795389354, 120000000, text);
  assert_string_equal(text, "2026-11-22T23:15:54.120Z");
  value_format_time(0, 1000, text);
  assert_string_equal(text, "1970-01-01T00:00:00.000001Z");
  value_format_time(0, 1, text);
  assert_string_equal(text, "1970-01-01T00:00:00.000000001Z");
  value_format_duration(5, 0, text);
  assert_string_equal(text, "5s");
  value_format_duration(0, 500000000, text);
  assert_string_equal(text, "0.500s");
  value_format_duration(-1, -500000000, text);
  assert_string_equal(text, "-1.500s");
}

static void spans_are_shown_in_two_units(void **state) {
  (void)state;
  static const struct {
    int64_t ms;
    const char *text;
  } rows[] = {{0, "0ms"},         {999, "999ms"},       {5000, "5s"},         {5250, "5.2s"},
              {200000, "3m 20s"}, {15120000, "4h 12m"}, {273600000, "3d 4h"}, {-1500, "-1.5s"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char text[VALUE_TEXT_BYTES];
    value_show_duration(rows[i].ms, text);
    assert_string_equal(text, rows[i].text);
  }
}

static void whole_numbers_are_read(void **state) {
  (void)state;
  int64_t number;
  assert_true(value_parse_integer("-12", &number));
  assert_int_equal(number, -12);
  assert_true(value_parse_integer("922337203685477580", &number));
  assert_false(value_parse_integer("", &number));
  assert_false(value_parse_integer("-", &number));
  assert_false(value_parse_integer("1.5", &number));
  assert_false(value_parse_integer("99999999999999999999", &number));
}

static void base64_goes_both_ways(void **state) {
  (void)state;
  /* RFC 4648, section 10 */
  static const char *const rows[][2] = {{"", ""},
                                        {"f", "Zg=="},
                                        {"fo", "Zm8="},
                                        {"foo", "Zm9v"},
                                        {"foob", "Zm9vYg=="},
                                        {"fooba", "Zm9vYmE="},
                                        {"foobar", "Zm9vYmFy"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char *text = value_encode_base64((const uint8_t *)rows[i][0], strlen(rows[i][0]));
    assert_string_equal(text, rows[i][1]);
    size_t count;
    uint8_t *bytes = value_decode_base64(text, &count);
    assert_int_equal(count, strlen(rows[i][0]));
    assert_memory_equal(bytes, rows[i][0], count);
    free(bytes);
    free(text);
  }
  size_t count;
  uint8_t *bytes = value_decode_base64("-_-_", &count);
  assert_int_equal(count, 3);
  free(bytes);
  assert_null(value_decode_base64("Z", &count));
  assert_null(value_decode_base64("Zg=====", &count));
  assert_null(value_decode_base64("Z g", &count));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(durations_are_read),
      cmocka_unit_test(times_are_read),
      cmocka_unit_test(times_and_durations_are_written_as_json_has_them),
      cmocka_unit_test(spans_are_shown_in_two_units),
      cmocka_unit_test(whole_numbers_are_read),
      cmocka_unit_test(base64_goes_both_ways),
  };
  return cmocka_run_group_tests_name("tool_values", tests, NULL, NULL);
}
