/* A queue's settings: see settings.h. */
#include "server/services/settings.h"

#include <string.h>

const struct store_settings settings_default = {
    .head_start_ms = 0,
    .max_size = 1000000,
    .max_concurrent = 10000,
    .default_lease_ms = MINUTE_MS,
    .max_attempts = 5,
    .min_backoff_ms = 5 * SECOND_MS,
    .max_backoff_ms = 10 * MINUTE_MS,
    .retention_age_ms = 3 * DAY_MS,
    .retention_count = 100000,
    .idempotency_ms = 10 * MINUTE_MS,
};

/* What a field mask may name. */
static const struct {
  const char *path;
  unsigned bits;
} mask_paths[] = {
    {"max_size", SETTING_MAX_SIZE},
    {"max_concurrent", SETTING_MAX_CONCURRENT},
    {"default_lease", SETTING_DEFAULT_LEASE},
    {"retry_policy", SETTING_MAX_ATTEMPTS | SETTING_MIN_BACKOFF | SETTING_MAX_BACKOFF},
    {"retry_policy.max_attempts", SETTING_MAX_ATTEMPTS},
    {"retry_policy.min_backoff", SETTING_MIN_BACKOFF},
    {"retry_policy.max_backoff", SETTING_MAX_BACKOFF},
    {"retention", SETTING_RETENTION_AGE | SETTING_RETENTION_COUNT},
    {"retention.max_age", SETTING_RETENTION_AGE},
    {"retention.max_count", SETTING_RETENTION_COUNT},
    {"idempotency_window", SETTING_IDEMPOTENCY},
};

enum { MASK_PATHS = sizeof mask_paths / sizeof mask_paths[0] };

unsigned settings_mask(struct check *check, const struct field *field, const Google__Protobuf__FieldMask *mask) {
  unsigned bits = 0;
  if (!mask || mask->n_paths == 0)
    check_fail(check, field, "is empty; it must name at least one setting, such as max_size");
  for (size_t i = 0; mask && i < mask->n_paths; i++) {
    size_t row = 0;
    while (row < MASK_PATHS && strcmp(mask_paths[row].path, mask->paths[i]) != 0)
      row++;
    if (row < MASK_PATHS)
      bits |= mask_paths[row].bits;
    else
      check_fail(check, FIELD_AT(field, "paths", i),
                 "is \"%.64s\"; it must be one of max_size, max_concurrent, default_lease, retry_policy, retention, "
                 "idempotency_window, or a part such as retry_policy.max_attempts",
                 mask->paths[i]);
  }
  return bits;
}

static void read_ordering(struct check *check, const struct field *field, const Ringback__V1__Queue *queue,
                          struct store_settings *settings) {
  if (queue->ordering && queue->ordering->head_start)
    settings->head_start_ms = check_duration(check, FIELD(FIELD(field, "ordering"), "head_start"),
                                             queue->ordering->head_start, 1, 30 * DAY_MS, 0);
}

static void read_retry(struct check *check, const struct field *field, const Ringback__V1__RetryPolicy *retry,
                       unsigned mask, struct store_settings *settings) {
  if (mask & SETTING_MAX_ATTEMPTS)
    settings->max_attempts =
        check_range_or(check, FIELD(field, "max_attempts"), retry->max_attempts, 1, 100, settings_default.max_attempts);
  if (mask & SETTING_MIN_BACKOFF)
    settings->min_backoff_ms = check_duration(check, FIELD(field, "min_backoff"), retry->min_backoff, 0, DAY_MS,
                                              settings_default.min_backoff_ms);
  if (mask & SETTING_MAX_BACKOFF) {
    int64_t absent_ms = settings_default.max_backoff_ms;
    int64_t least_ms = 0;
    if (mask & SETTING_MIN_BACKOFF) {
      least_ms = settings->min_backoff_ms;
      absent_ms = least_ms > absent_ms ? least_ms : absent_ms;
    }
    settings->max_backoff_ms =
        check_duration(check, FIELD(field, "max_backoff"), retry->max_backoff, least_ms, DAY_MS, absent_ms);
  }
}

static void read_retention(struct check *check, const struct field *field, const Ringback__V1__Retention *retention,
                           unsigned mask, struct store_settings *settings) {
  if (mask & SETTING_RETENTION_AGE)
    settings->retention_age_ms = check_duration(check, FIELD(field, "max_age"), retention->max_age, SECOND_MS,
                                                366 * DAY_MS, settings_default.retention_age_ms);
  if (mask & SETTING_RETENTION_COUNT)
    settings->retention_count = check_range_or(check, FIELD(field, "max_count"), retention->max_count, 1, 100000000,
                                               settings_default.retention_count);
}

struct store_settings settings_read(struct check *check, const struct field *field, const Ringback__V1__Queue *queue,
                                    unsigned mask) {
  static const Ringback__V1__RetryPolicy no_retry = RINGBACK__V1__RETRY_POLICY__INIT;
  static const Ringback__V1__Retention no_retention = RINGBACK__V1__RETENTION__INIT;
  struct store_settings settings = settings_default;
  if (mask == ~0u)
    read_ordering(check, field, queue, &settings);
  if (mask & SETTING_MAX_SIZE)
    settings.max_size =
        check_range_or(check, FIELD(field, "max_size"), queue->max_size, 1, 100000000, settings_default.max_size);
  if (mask & SETTING_MAX_CONCURRENT)
    settings.max_concurrent = check_range_or(check, FIELD(field, "max_concurrent"), queue->max_concurrent, 1, 1000000,
                                             settings_default.max_concurrent);
  if (mask & SETTING_DEFAULT_LEASE)
    settings.default_lease_ms = check_duration(check, FIELD(field, "default_lease"), queue->default_lease, SECOND_MS,
                                               12 * HOUR_MS, settings_default.default_lease_ms);
  read_retry(check, FIELD(field, "retry_policy"), queue->retry_policy ? queue->retry_policy : &no_retry, mask,
             &settings);
  read_retention(check, FIELD(field, "retention"), queue->retention ? queue->retention : &no_retention, mask,
                 &settings);
  if (mask & SETTING_IDEMPOTENCY)
    settings.idempotency_ms = check_duration(check, FIELD(field, "idempotency_window"), queue->idempotency_window,
                                             MINUTE_MS, DAY_MS, settings_default.idempotency_ms);
  return settings;
}
