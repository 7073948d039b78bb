/* Resource names: what is a bucket's and a queue's name, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/services/names.h"

static void repeat(char *text, char c, size_t count) {
  memset(text, c, count);
  text[count] = 0;
}

static void a_bucket_is_found_in_its_name(void **state) {
  (void)state;
  assert_string_equal(names_parse_bucket("buckets/a"), "a");
  assert_string_equal(names_parse_bucket("buckets/my.bucket-1250000000"), "my.bucket-1250000000");
}

static void what_is_no_bucket_is_refused(void **state) {
  (void)state;
  static const char *const wrong[] = {
      "",           "a",          "buckets/",    "bucket/a",    "buckets/A", "buckets/-a",  "buckets/a-",
      "buckets/.a", "buckets/a.", "buckets/a b", "buckets/a/b", "Buckets/a", "buckets/a_b", "buckets/\xc3\xa4",
      "buckets/a/"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    assert_null(names_parse_bucket(wrong[i]));
}

static void a_bucket_has_63_characters_at_most(void **state) {
  (void)state;
  char text[80];
  repeat(text, 'b', 63);
  assert_true(names_is_bucket(text, 63));
  repeat(text, 'b', 64);
  assert_false(names_is_bucket(text, 64));
}

static void a_queue_is_split_into_bucket_and_queue(void **state) {
  (void)state;
  struct arena *arena = arena_create();
  struct queue_name name;
  assert_true(names_parse_queue(arena, "buckets/b-1/queues/Queue_1.x-y", &name));
  assert_string_equal(name.bucket, "b-1");
  assert_string_equal(name.queue, "Queue_1.x-y");
  assert_string_equal(names_format_queue(arena, name.bucket, name.queue), "buckets/b-1/queues/Queue_1.x-y");
  arena_destroy(arena);
}

static void what_is_no_queue_is_refused(void **state) {
  (void)state;
  static const char *const wrong[] = {"",
                                      "q",
                                      "buckets/b",
                                      "buckets/b/queues",
                                      "buckets/b/queues/",
                                      "buckets//queues/q",
                                      "buckets/b/queue/q",
                                      "buckets/B/queues/q",
                                      "buckets/b/queues/q q",
                                      "buckets/b/queues/q/r",
                                      "/buckets/b/queues/q",
                                      "buckets/b/queues/\xc3\xa4"};
  struct arena *arena = arena_create();
  struct queue_name name;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    assert_false(names_parse_queue(arena, wrong[i], &name));
  arena_destroy(arena);
}

static void a_queue_has_128_characters_at_most(void **state) {
  (void)state;
  struct arena *arena = arena_create();
  struct queue_name name;
  char queue[140], text[200];
  repeat(queue, 'q', 128);
  assert_true(names_parse_queue(arena, names_format_queue(arena, "b", queue), &name));
  repeat(queue, 'q', 129);
  snprintf(text, sizeof text, "buckets/b/queues/%s", queue);
  assert_false(names_parse_queue(arena, text, &name));
  arena_destroy(arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_bucket_is_found_in_its_name),      cmocka_unit_test(what_is_no_bucket_is_refused),
      cmocka_unit_test(a_bucket_has_63_characters_at_most), cmocka_unit_test(a_queue_is_split_into_bucket_and_queue),
      cmocka_unit_test(what_is_no_queue_is_refused),        cmocka_unit_test(a_queue_has_128_characters_at_most),
  };
  return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
