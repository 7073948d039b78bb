/* Log lines: readable and JSON, escaping, cutting. Standard error is caught in a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "server/base/log.h"

static char caught[16384];

static int catch_begin(FILE **file) {
  *file = tmpfile();
  int kept = dup(STDERR_FILENO);
  dup2(fileno(*file), STDERR_FILENO);
  return kept;
}

static void catch_end(FILE *file, int kept) {
  dup2(kept, STDERR_FILENO);
  close(kept);
  rewind(file);
  caught[fread(caught, 1, sizeof caught - 1, file)] = 0;
  fclose(file);
}

#define CATCH(statement)                                                                                               \
  do {                                                                                                                 \
    FILE *file;                                                                                                        \
    int kept = catch_begin(&file);                                                                                     \
    statement;                                                                                                         \
    catch_end(file, kept);                                                                                             \
  } while (0)

static void a_readable_line_has_time_level_event_and_fields(void **state) {
  (void)state;
  log_configure(LOG_INFO, false);
  CATCH(log_event(LOG_WARN, "worker gone", log_text("job", "a1"), log_number("age_ms", -5),
                  log_text("why", "no \"answer\"\n")));
  assert_non_null(strstr(caught, "Z warn  worker gone job=a1 age_ms=-5 why=\"no \\\"answer\\\"\\n\"\n"));
  assert_int_equal(strlen(caught) - 1, strchr(caught, '\n') - caught);
}

static void levels_below_the_least_are_silent(void **state) {
  (void)state;
  log_configure(LOG_WARN, false);
  CATCH(log_event(LOG_INFO, "no", log_number("n", 1)));
  assert_string_equal(caught, "");
}

static json_t *parse(void) {
  json_error_t error;
  json_t *line = json_loads(caught, 0, &error);
  if (!line)
    fail_msg("not JSON: %s", caught);
  return line;
}

static void a_json_line_is_json_whatever_the_text_holds(void **state) {
  (void)state;
  log_configure(LOG_INFO, true);
  CATCH(log_event(LOG_ERROR, "odd \"event\"", log_text("t", "\x01\x7F\xC3\xA9\xFF\\\"\xC2\x85"),
                  log_number("n", INT64_MIN)));
  json_t *line = parse();
  assert_string_equal(json_string_value(json_object_get(line, "event")), "odd \"event\"");
  assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
  assert_string_equal(json_string_value(json_object_get(line, "t")), "\x01\x7F\xC3\xA9\xEF\xBF\xBD\\\"\xC2\x85");
  assert_int_equal(json_integer_value(json_object_get(line, "n")), INT64_MIN);
  json_decref(line);
}

static void a_line_that_is_too_long_is_cut_and_stays_json(void **state) {
  (void)state;
  static char text[9000];
  log_configure(LOG_INFO, true);
  for (size_t length = 3900; length < 4200; length++) {
    memset(text, length % 2 ? '\n' : 'x', length);
    text[length] = 0;
    CATCH(log_event(LOG_INFO, "long", log_text("t", text), log_number("after", 7)));
    json_t *line = parse();
    assert_true(strlen(caught) <= 4096);
    if (length > 4096)
      assert_true(json_is_true(json_object_get(line, "cut")));
    json_decref(line);
  }
  log_configure(LOG_INFO, false);
  CATCH(log_event(LOG_INFO, "long", log_text("t", text)));
  assert_non_null(strstr(caught, " (cut)\n"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_readable_line_has_time_level_event_and_fields),
      cmocka_unit_test(levels_below_the_least_are_silent),
      cmocka_unit_test(a_json_line_is_json_whatever_the_text_holds),
      cmocka_unit_test(a_line_that_is_too_long_is_cut_and_stays_json),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
