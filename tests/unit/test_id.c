/* Ids: the layout of their bytes, their text, and the partition of a bucket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "redis/id.h"

/* Document feature (3), partition 5, queue 0x0102030405, ms 0x060708090a0b, sequence 0x0c0d0e0f. */
static const struct job_id sample = {{0xc5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

static void an_id_has_its_parts_in_their_places(void **state) {
  (void)state;
  assert_int_equal(id_job_feature(&sample), 3);
  assert_int_equal(id_job_partition(&sample), 5);
  assert_int_equal(id_job_queue_number(&sample), 0x0102030405);
  assert_int_equal(id_job_create_ms(&sample), 0x060708090a0b);
}

static void text_and_back_is_the_same_id(void **state) {
  (void)state;
  const char letters[] = " jsd";
  for (unsigned feature = 1; feature <= 3; feature++) {
    struct job_id id = sample, parsed;
    char text[ID_TEXT_SIZE];
    id.bytes[0] = (uint8_t)(feature << 6 | 5);
    id_format_job(&id, text);
    assert_int_equal(strlen(text), 33);
    assert_int_equal(text[0], letters[feature]);
    assert_true(id_parse_job(text, &parsed));
    assert_memory_equal(&parsed, &id, sizeof id);
  }
}

static void a_queue_id_is_p_and_32_digits(void **state) {
  (void)state;
  char text[ID_TEXT_SIZE];
  id_format_queue(sample.bytes, text);
  assert_string_equal(text, "pc50102030405060708090a0b0c0d0e0f");
}

static void texts_that_are_no_job_id_are_refused(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      "d",
      "dc5",
      "c50102030405060708090a0b0c0d0e0f",
      "dc50102030405060708090a0b0c0d0e0",
      "dc50102030405060708090a0b0c0d0e0f0",
      "dC50102030405060708090a0b0c0d0e0f",
      "dc50102030405060708090a0b0c0d0e0g",
      "jc50102030405060708090a0b0c0d0e0f", /* another feature's letter */
      "pc50102030405060708090a0b0c0d0e0f",
      "x050102030405060708090a0b0c0d0e0f", /* no feature */
      "dc50102030405060708090a0b0c0d0e0\xc3",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct job_id id;
    if (id_parse_job(texts[i], &id))
      fail_msg("accepted: %s", texts[i]);
  }
}

static void a_buckets_partition_never_changes(void **state) {
  (void)state;
  /* FNV-1a 32 mod 64, computed elsewhere. */
  assert_int_equal(id_partition(""), 2166136261u % 64);
  assert_int_equal(id_partition("a"), 0xe40c292cu % 64);
  assert_int_equal(id_partition("foobar"), 0xbf9cf968u % 64);
}

static void buckets_spread_over_all_partitions(void **state) {
  (void)state;
  unsigned hits[PARTITIONS] = {0};
  for (int i = 0; i < 6400; i++) {
    char bucket[32];
    snprintf(bucket, sizeof bucket, "bucket-%d", i);
    unsigned partition = id_partition(bucket);
    assert_in_range(partition, 0, PARTITIONS - 1);
    hits[partition]++;
  }
  for (int i = 0; i < PARTITIONS; i++)
    assert_in_range(hits[i], 30, 300);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_id_has_its_parts_in_their_places), cmocka_unit_test(text_and_back_is_the_same_id),
      cmocka_unit_test(a_queue_id_is_p_and_32_digits),       cmocka_unit_test(texts_that_are_no_job_id_are_refused),
      cmocka_unit_test(a_buckets_partition_never_changes),   cmocka_unit_test(buckets_spread_over_all_partitions),
  };
  return cmocka_run_group_tests_name("id", tests, NULL, NULL);
}
