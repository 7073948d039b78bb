/* Counts of time spans by their length, as HdrHistogram lays them out: buckets of powers of two, each cut into 128, so
 * that a percentile is wrong by less than 0.8 %. One thread records; any thread may read meanwhile, and then sees what
 * was there at about that time. */
#ifndef RINGBACK_CLIENT_LIB_HISTOGRAM_H
#define RINGBACK_CLIENT_LIB_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_PART_BITS 7
#define HISTOGRAM_VALUE_BITS 42 /* 73 minutes of nanoseconds; longer spans count as that */
#define HISTOGRAM_BUCKETS (((HISTOGRAM_VALUE_BITS - HISTOGRAM_PART_BITS) + 1) << HISTOGRAM_PART_BITS)

struct histogram {
  _Atomic uint64_t counts[HISTOGRAM_BUCKETS];
  _Atomic uint64_t count, sum, least, most; /* least is valid when count > 0 */
};

/* Zeroed memory is an empty histogram. */
void histogram_record(struct histogram *histogram, uint64_t value);
/* Adds what `from` holds. */
void histogram_add(struct histogram *histogram, const struct histogram *from);
/* Takes away what an earlier state of the same histogram held; least and most become those of the buckets. */
void histogram_subtract(struct histogram *histogram, const struct histogram *before);
void histogram_clear(struct histogram *histogram);

uint64_t histogram_count(const struct histogram *histogram);
/* The least value that is not exceeded by this part of all values (0 to 1); 0 when there is none. */
uint64_t histogram_percentile(const struct histogram *histogram, double part);
uint64_t histogram_least(const struct histogram *histogram);
uint64_t histogram_most(const struct histogram *histogram);
double histogram_mean(const struct histogram *histogram);

/* The buckets: the largest value that belongs to one. */
uint64_t histogram_bucket_end(unsigned bucket);

#endif
