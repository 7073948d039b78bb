/* The histogram of time spans: buckets, percentiles, adding and taking away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/lib/histogram.h"

static struct histogram histogram, other;

static int setup(void **state) {
  (void)state;
  histogram_clear(&histogram);
  histogram_clear(&other);
  return 0;
}

static void an_empty_one_has_no_percentiles(void **state) {
  (void)state;
  assert_int_equal(histogram_count(&histogram), 0);
  assert_int_equal(histogram_percentile(&histogram, 0.5), 0);
  assert_int_equal(histogram_least(&histogram), 0);
  assert_int_equal(histogram_most(&histogram), 0);
  assert_true(histogram_mean(&histogram) == 0);
}

static void percentiles_of_small_values_are_exact(void **state) {
  (void)state;
  for (uint64_t value = 100; value >= 1; value--)
    histogram_record(&histogram, value);
  assert_int_equal(histogram_percentile(&histogram, 0), 1);
  assert_int_equal(histogram_percentile(&histogram, 0.5), 50);
  assert_int_equal(histogram_percentile(&histogram, 0.505), 51);
  assert_int_equal(histogram_percentile(&histogram, 0.99), 99);
  assert_int_equal(histogram_percentile(&histogram, 1), 100);
  assert_int_equal(histogram_least(&histogram), 1);
  assert_true(histogram_mean(&histogram) == 50.5);
}

static void every_value_lies_in_its_bucket_within_a_percent(void **state) {
  (void)state;
  for (uint64_t value = 1; value < UINT64_C(1) << HISTOGRAM_VALUE_BITS; value += value / 3 + 1) {
    histogram_clear(&histogram);
    histogram_record(&histogram, value);
    histogram_record(&histogram, UINT64_MAX); /* so that the most does not hide the bucket's end */
    uint64_t found = histogram_percentile(&histogram, 0.5);
    assert_true(found >= value);
    assert_true((double)(found - value) <= (double)value * 0.008);
  }
}

static void buckets_follow_each_other_without_a_gap(void **state) {
  (void)state;
  for (unsigned bucket = 1; bucket < HISTOGRAM_BUCKETS; bucket++) {
    histogram_clear(&histogram);
    histogram_record(&histogram, histogram_bucket_end(bucket - 1));
    histogram_record(&histogram, histogram_bucket_end(bucket - 1) + 1);
    assert_int_equal(histogram.counts[bucket - 1], 1);
    assert_int_equal(histogram.counts[bucket], 1);
  }
  assert_int_equal(histogram_bucket_end(HISTOGRAM_BUCKETS - 1), (UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1);
}

static void what_is_too_long_counts_as_the_longest(void **state) {
  (void)state;
  histogram_record(&histogram, UINT64_MAX);
  assert_int_equal(histogram_most(&histogram), (UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1);
  assert_int_equal(histogram.counts[HISTOGRAM_BUCKETS - 1], 1);
}

static void adding_and_taking_away_are_inverse(void **state) {
  (void)state;
  for (uint64_t i = 0; i < 1000; i++)
    histogram_record(&histogram, 1000 + i);
  static struct histogram before;
  histogram_clear(&before);
  histogram_add(&before, &histogram);
  for (uint64_t i = 0; i < 10; i++)
    histogram_record(&other, 50);
  histogram_add(&histogram, &other);
  assert_int_equal(histogram_count(&histogram), 1010);
  assert_int_equal(histogram_least(&histogram), 50);
  assert_int_equal(histogram_most(&histogram), 1999);
  histogram_subtract(&histogram, &before);
  assert_int_equal(histogram_count(&histogram), 10);
  assert_int_equal(histogram_percentile(&histogram, 0.99), 50);
  assert_int_equal(histogram_most(&histogram), 50);
  assert_true(histogram_mean(&histogram) == 50);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(an_empty_one_has_no_percentiles, setup),
      cmocka_unit_test_setup(percentiles_of_small_values_are_exact, setup),
      cmocka_unit_test_setup(every_value_lies_in_its_bucket_within_a_percent, setup),
      cmocka_unit_test_setup(buckets_follow_each_other_without_a_gap, setup),
      cmocka_unit_test_setup(what_is_too_long_counts_as_the_longest, setup),
      cmocka_unit_test_setup(adding_and_taking_away_are_inverse, setup),
  };
  return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
