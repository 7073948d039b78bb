/* The daemon's options: flags before environment before defaults, and messages that say what would be right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/options.h"

static const char *variable_name, *variable_value;

static char *environment(const char *name) {
  return variable_name && strcmp(name, variable_name) == 0 ? (char *)variable_value : NULL;
}

static struct options options;
static char message[OPTIONS_MESSAGE_SIZE];

static enum options_verdict parse(const char *first, const char *second) {
  char *argv[] = {(char *)"ringbackd", (char *)first, (char *)second, NULL};
  return options_parse(&options, first ? second ? 3 : 2 : 1, argv, environment, message);
}

static int no_environment(void **state) {
  (void)state;
  variable_name = NULL;
  return 0;
}

static void defaults_stand_where_nothing_is_said(void **state) {
  (void)state;
  assert_int_equal(parse(NULL, NULL), OPTIONS_RUN);
  assert_string_equal(options.listen, "127.0.0.1:7080");
  assert_string_equal(options.http, "127.0.0.1:7081");
  assert_string_equal(options.redis, "");
  assert_int_equal(options.request_bytes_max, 4 << 20);
  assert_int_equal(options.payload_bytes_max, 65536);
  assert_int_equal(options.grace_ms, 10000);
  assert_int_equal(options.log_level, LOG_INFO);
  assert_int_equal(options.appendfsync, OPTIONS_APPENDFSYNC_ALWAYS);
  assert_true(options.rpc_threads >= 1);
}

static void both_forms_of_a_flag_are_taken(void **state) {
  (void)state;
  assert_int_equal(parse("--listen", "0.0.0.0:1"), OPTIONS_RUN);
  assert_string_equal(options.listen, "0.0.0.0:1");
  assert_int_equal(parse("--listen=[::1]:2", NULL), OPTIONS_RUN);
  assert_string_equal(options.listen, "[::1]:2");
  assert_int_equal(parse("--http", "off"), OPTIONS_RUN);
  assert_string_equal(options.http, "off");
}

static void units_are_read(void **state) {
  (void)state;
  assert_int_equal(parse("--grace", "500ms"), OPTIONS_RUN);
  assert_int_equal(options.grace_ms, 500);
  assert_int_equal(parse("--grace", "2m"), OPTIONS_RUN);
  assert_int_equal(options.grace_ms, 120000);
  assert_int_equal(parse("--payload-bytes-max", "1MiB"), OPTIONS_RUN);
  assert_int_equal(options.payload_bytes_max, 1 << 20);
  assert_int_equal(parse("--payload-bytes-max", "70000"), OPTIONS_RUN);
  assert_int_equal(options.payload_bytes_max, 70000);
}

static void the_environment_is_read_and_a_flag_wins(void **state) {
  (void)state;
  variable_name = "RINGBACK_LOG_FORMAT";
  variable_value = "json";
  assert_int_equal(parse(NULL, NULL), OPTIONS_RUN);
  assert_int_equal(options.log_json, 1);
  assert_int_equal(parse("--log-format", "text"), OPTIONS_RUN);
  assert_int_equal(options.log_json, 0);
  variable_value = "xml";
  assert_int_equal(parse(NULL, NULL), OPTIONS_WRONG);
  assert_non_null(strstr(message, "RINGBACK_LOG_FORMAT is \"xml\"; it must be one of text|json"));
}

static void wrong_values_are_named_with_what_is_right(void **state) {
  (void)state;
  static const char *const wrong[][3] = {
      {"--rpc-threads", "0", "1 to 64"},      {"--rpc-threads", "x", "1 to 64"},
      {"--rpc-threads", "65", "1 to 64"},     {"--rpc-threads", "99999999999999999999", "1 to 64"},
      {"--grace", "10", "such as 500ms"},     {"--grace", "601s", "600s"},
      {"--listen", "nonsense", "HOST:PORT"},  {"--listen", "a:70000", "HOST:PORT"},
      {"--listen", "::1:80", "HOST:PORT"},    {"--listen", "off", "HOST:PORT"},
      {"--log-level", "loud", "debug|info"},  {"--payload-bytes-max", "1048577", "1048576"},
      {"--payload-bytes-max", "1GiB", "MiB"}, {"--appendfsync", "no", "always|everysec"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    assert_int_equal(parse(wrong[i][0], wrong[i][1]), OPTIONS_WRONG);
    if (!strstr(message, wrong[i][0]) || !strstr(message, wrong[i][1]) || !strstr(message, wrong[i][2]))
      fail_msg("not said well: %s", message);
  }
}

static void unknown_stray_and_empty_options_are_refused(void **state) {
  (void)state;
  assert_int_equal(parse("--no-such-option", NULL), OPTIONS_WRONG);
  assert_non_null(strstr(message, "--no-such-option"));
  assert_int_equal(parse("stray", NULL), OPTIONS_WRONG);
  assert_int_equal(parse("--listen", NULL), OPTIONS_WRONG);
  assert_non_null(strstr(message, "has no value"));
}

static void help_is_there_for_every_option(void **state) {
  (void)state;
  char *text = NULL;
  size_t size = 0;
  FILE *file = open_memstream(&text, &size);
  options_print_help(file);
  fclose(file);
  assert_non_null(strstr(text, "--callback-allow CIDR[,CIDR...]"));
  assert_non_null(strstr(text, "(RINGBACK_CALLBACK_ALLOW)"));
  assert_non_null(strstr(text, "[127.0.0.1:7080]"));
  free(text);
  assert_int_equal(parse("--listen", "--help"), OPTIONS_HELP);
  assert_int_equal(parse("--version", NULL), OPTIONS_VERSION);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup(name, no_environment)
  const struct CMUnitTest tests[] = {
      TEST(defaults_stand_where_nothing_is_said),
      TEST(both_forms_of_a_flag_are_taken),
      TEST(units_are_read),
      TEST(the_environment_is_read_and_a_flag_wins),
      TEST(wrong_values_are_named_with_what_is_right),
      TEST(unknown_stray_and_empty_options_are_refused),
      TEST(help_is_there_for_every_option),
  };
  return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
