/* Texts of others on a terminal: what may pass and what becomes a question mark. */
#include "client/tool/safe.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void check(const char *text, bool lines, const char *expected) {
  char copy[64];
  strcpy(copy, text);
  assert_int_equal(safe_clean(copy, strlen(copy), lines), strlen(expected));
  assert_string_equal(copy, expected);
}

static void controls_of_every_kind_become_question_marks(void **state) {
  (void)state;
  check("a\033[31mb\x07", true, "a?[31mb?");
  check("\x7f", true, "?");
  check("\xc2\x80\xc2\x9b\xc2\x9f", true, "???");
  check("\r", true, "?");
}

static void other_text_stays(void **state) {
  (void)state;
  check("caf\xc3\xa9 \xc2\xa0 \xe2\x82\xac \xf0\x9f\x98\x80", false,
        "caf\xc3\xa9 \xc2\xa0 \xe2\x82\xac \xf0\x9f\x98\x80");
}

static void lines_stay_where_they_are_meant(void **state) {
  (void)state;
  check("a\n\tb\r\n", true, "a\n\tb\r\n");
  check("a\n\tb", false, "a  b");
}

static void what_is_no_utf_8_becomes_question_marks(void **state) {
  (void)state;
  check("\x9b", false, "?");
  check("\xe0\x82\x9b", false, "???");
  check("\xc2", false, "?");
  check("\xed\xa0\x80", false, "???");
  check("\xf5z", false, "?z");
}

static void a_clean_text_is_not_copied(void **state) {
  (void)state;
  const char *text = "clean";
  assert_ptr_equal(safe_text(text), text);
  assert_string_equal(safe_text("a\033"), "a?");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(controls_of_every_kind_become_question_marks),
      cmocka_unit_test(other_text_stays),
      cmocka_unit_test(lines_stay_where_they_are_meant),
      cmocka_unit_test(what_is_no_utf_8_becomes_question_marks),
      cmocka_unit_test(a_clean_text_is_not_copied),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
