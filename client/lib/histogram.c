/*
 * A histogram of time spans: see histogram.h. It knows no clock and no unit. A bucket's number is the value itself up
 * to 255; from there on the value's leading eight bits, after as many times 128 as bits were dropped.
 */
#include "client/lib/histogram.h"
#include <stdbool.h>

#define PARTS (1u << HISTOGRAM_PART_BITS)
#define VALUE_MAX ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)

static uint64_t get(const _Atomic uint64_t *place) {
  return atomic_load_explicit(place, memory_order_relaxed);
}

/* There is one writer, so reading and writing need not be one step. */
static void put(_Atomic uint64_t *place, uint64_t value) {
  atomic_store_explicit(place, value, memory_order_relaxed);
}

static unsigned bucket_of(uint64_t value) {
  if (value < 2 * PARTS)
    return (unsigned)value;
  unsigned dropped = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_PART_BITS;
  return dropped * PARTS + (unsigned)(value >> dropped);
}

uint64_t histogram_bucket_end(unsigned bucket) {
  if (bucket < 2 * PARTS)
    return bucket;
  unsigned dropped = bucket / PARTS - 1;
  return ((uint64_t)(bucket - dropped * PARTS + 1) << dropped) - 1;
}

void histogram_record(struct histogram *histogram, uint64_t value) {
  if (value > VALUE_MAX)
    value = VALUE_MAX;
  _Atomic uint64_t *place = &histogram->counts[bucket_of(value)];
  put(place, get(place) + 1);
  if (get(&histogram->count) == 0 || value < get(&histogram->least))
    put(&histogram->least, value);
  if (value > get(&histogram->most))
    put(&histogram->most, value);
  put(&histogram->sum, get(&histogram->sum) + value);
  put(&histogram->count, get(&histogram->count) + 1);
}

void histogram_add(struct histogram *histogram, const struct histogram *from) {
  uint64_t count = get(&from->count);
  if (count == 0)
    return;
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
    put(&histogram->counts[i], get(&histogram->counts[i]) + get(&from->counts[i]));
  if (get(&histogram->count) == 0 || get(&from->least) < get(&histogram->least))
    put(&histogram->least, get(&from->least));
  if (get(&from->most) > get(&histogram->most))
    put(&histogram->most, get(&from->most));
  put(&histogram->sum, get(&histogram->sum) + get(&from->sum));
  put(&histogram->count, get(&histogram->count) + count);
}

void histogram_subtract(struct histogram *histogram, const struct histogram *before) {
  uint64_t count = 0;
  bool found = false;
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
    uint64_t left = get(&histogram->counts[i]) - get(&before->counts[i]);
    put(&histogram->counts[i], left);
    count += left;
    if (left == 0)
      continue;
    if (!found)
      put(&histogram->least, histogram_bucket_end(i));
    put(&histogram->most, histogram_bucket_end(i));
    found = true;
  }
  put(&histogram->sum, get(&histogram->sum) - get(&before->sum));
  put(&histogram->count, count);
}

void histogram_clear(struct histogram *histogram) {
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
    put(&histogram->counts[i], 0);
  put(&histogram->count, 0);
  put(&histogram->sum, 0);
  put(&histogram->least, 0);
  put(&histogram->most, 0);
}

uint64_t histogram_count(const struct histogram *histogram) {
  return get(&histogram->count);
}

uint64_t histogram_least(const struct histogram *histogram) {
  return get(&histogram->count) == 0 ? 0 : get(&histogram->least);
}

uint64_t histogram_most(const struct histogram *histogram) {
  return get(&histogram->most);
}

double histogram_mean(const struct histogram *histogram) {
  uint64_t count = get(&histogram->count);
  return count == 0 ? 0 : (double)get(&histogram->sum) / (double)count;
}

uint64_t histogram_percentile(const struct histogram *histogram, double part) {
  uint64_t count = get(&histogram->count), seen = 0;
  if (count == 0)
    return 0;
  double exact = part * (double)count;
  uint64_t wanted = (uint64_t)exact;
  if ((double)wanted < exact || wanted == 0)
    wanted++;
  if (wanted >= count)
    return get(&histogram->most);
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
    seen += get(&histogram->counts[i]);
    if (seen < wanted)
      continue;
    uint64_t end = histogram_bucket_end(i);
    return end < get(&histogram->most) ? end : get(&histogram->most);
  }
  return get(&histogram->most);
}
