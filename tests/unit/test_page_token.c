/* Page tokens: they come back as they went, and fit only their filter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/services/page_token.h"

static void a_position_comes_back_from_its_token(void **state) {
  (void)state;
  static const char *const positions[] = {"1", "12", "123", "1234", "1795391208026-17", "queue-doc-process-1"};
  struct arena *arena = arena_create();
  for (size_t i = 0; i < sizeof positions / sizeof positions[0]; i++) {
    char *token = page_token_write(arena, 42, positions[i]);
    assert_non_null(page_token_read(arena, 42, token));
    assert_string_equal(page_token_read(arena, 42, token), positions[i]);
    assert_null(strpbrk(token, "+/= "));
  }
  arena_destroy(arena);
}

static void the_end_and_the_beginning_are_empty(void **state) {
  (void)state;
  struct arena *arena = arena_create();
  assert_string_equal(page_token_write(arena, 1, ""), "");
  assert_string_equal(page_token_read(arena, 1, ""), "");
  arena_destroy(arena);
}

static void a_token_of_another_filter_is_refused(void **state) {
  (void)state;
  struct arena *arena = arena_create();
  char *token = page_token_write(arena, 1, "position");
  assert_null(page_token_read(arena, 2, token));
  arena_destroy(arena);
}

static void a_damaged_token_is_refused(void **state) {
  (void)state;
  struct arena *arena = arena_create();
  char *token = page_token_write(arena, 1, "some-position");
  for (size_t i = 0; i < strlen(token); i++) {
    char *damaged = arena_strdup(arena, token);
    damaged[i] = damaged[i] == 'A' ? 'B' : 'A';
    assert_null(page_token_read(arena, 1, damaged));
    damaged[i] = '!';
    assert_null(page_token_read(arena, 1, damaged));
    damaged[i] = 0;
    if (i > 0)
      assert_null(page_token_read(arena, 1, damaged));
  }
  arena_destroy(arena);
}

static void an_endless_token_is_refused(void **state) {
  (void)state;
  struct arena *arena = arena_create();
  char text[2000];
  memset(text, 'A', sizeof text - 1);
  text[sizeof text - 1] = 0;
  assert_null(page_token_read(arena, 1, text));
  arena_destroy(arena);
}

static void parts_of_a_filter_do_not_run_into_each_other(void **state) {
  (void)state;
  assert_true(hash_text(hash_text(HASH_START, "ab"), "c") != hash_text(hash_text(HASH_START, "a"), "bc"));
  assert_true(hash_text(hash_text(HASH_START, ""), "a") != hash_text(hash_text(HASH_START, "a"), ""));
  assert_true(hash_number(HASH_START, 1) != hash_number(HASH_START, 256));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_position_comes_back_from_its_token),
      cmocka_unit_test(the_end_and_the_beginning_are_empty),
      cmocka_unit_test(a_token_of_another_filter_is_refused),
      cmocka_unit_test(a_damaged_token_is_refused),
      cmocka_unit_test(an_endless_token_is_refused),
      cmocka_unit_test(parts_of_a_filter_do_not_run_into_each_other),
  };
  return cmocka_run_group_tests_name("page_token", tests, NULL, NULL);
}
