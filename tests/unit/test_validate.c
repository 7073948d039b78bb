/* Checks of fields: at their limits, below and beyond, with the field's path in what they find. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/services/settings.h"
#include "server/services/validate.h"

static struct arena *arena;

static int open_arena(void **state) {
  (void)state;
  arena = arena_create();
  return 0;
}

static int close_arena(void **state) {
  (void)state;
  arena_destroy(arena);
  return 0;
}

/* One finding, of this field, whose description has this part. */
static void assert_finding(const struct check *check, const char *field, const char *part) {
  assert_int_equal(check->count, 1);
  assert_string_equal(check->findings[0].field, field);
  if (!strstr(check->findings[0].description, part))
    fail_msg("%s is not in: %s", part, check->findings[0].description);
}

static void a_path_names_every_parent(void **state) {
  (void)state;
  const struct field *jobs = FIELD_AT(NULL, "jobs", 3);
  assert_string_equal(field_path(arena, FIELD(FIELD(jobs, "operation"), "xml")), "jobs[3].operation.xml");
  assert_string_equal(field_path(arena, FIELD(NULL, "bucket")), "bucket");
}

static void a_number_within_its_range_is_taken(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  assert_int_equal(check_range(&check, FIELD(NULL, "p"), 0, 0, 255), 0);
  assert_int_equal(check_range(&check, FIELD(NULL, "p"), 255, 0, 255), 255);
  assert_int_equal(check_range_or(&check, FIELD(NULL, "p"), 0, 1, 100, 10), 10);
  assert_int_equal(check_range_or(&check, FIELD(NULL, "p"), 100, 1, 100, 10), 100);
  assert_int_equal(check.count, 0);
}

static void a_number_beyond_its_range_is_found_with_value_and_range(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  check_range(&check, FIELD(NULL, "priority"), 256, 0, 255);
  assert_finding(&check, "priority", "is 256; it must be 0 to 255");
  check.count = 0;
  check_range(&check, FIELD(NULL, "priority"), -1, 0, 255);
  assert_finding(&check, "priority", "-1");
  check.count = 0;
  check_range_or(&check, FIELD(NULL, "page_size"), 101, 1, 100, 10);
  assert_finding(&check, "page_size", "0 for the default");
}

static int64_t duration(struct check *check, int64_t seconds, int32_t nanos, int64_t min_ms, int64_t max_ms) {
  Google__Protobuf__Duration value = GOOGLE__PROTOBUF__DURATION__INIT;
  value.seconds = seconds;
  value.nanos = nanos;
  return check_duration(check, FIELD(NULL, "lease"), &value, min_ms, max_ms, 7);
}

static void a_duration_is_rounded_up_to_milliseconds(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  assert_int_equal(duration(&check, 1, 0, 1000, 2000), 1000);
  assert_int_equal(duration(&check, 1, 1, 1000, 2000), 1001);
  assert_int_equal(duration(&check, 2, 0, 1000, 2000), 2000);
  assert_int_equal(duration(&check, 0, 0, 0, 2000), 0);
  assert_int_equal(check_duration(&check, FIELD(NULL, "lease"), NULL, 1000, 2000, 7), 7);
  assert_int_equal(check.count, 0);
}

static void a_duration_beyond_its_limits_or_malformed_is_found(void **state) {
  (void)state;
  static const struct {
    int64_t seconds;
    int32_t nanos;
  } wrong[] = {{0, 999999999},  {2, 1},         {-1, 0},        {0, -1},          {1, -1},
               {1, 1000000000}, {INT64_MAX, 0}, {INT64_MIN, 0}, {315576000001, 0}};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    struct check check = {.arena = arena};
    duration(&check, wrong[i].seconds, wrong[i].nanos, 1000, 2000);
    assert_finding(&check, "lease", "is ");
  }
  struct check check = {.arena = arena};
  duration(&check, 0, -1, 0, 2000);
  assert_finding(&check, "lease", "-0.000000001 s; it must be 0 to 2 s");
  static const struct {
    int64_t seconds;
    int32_t nanos;
    const char *text;
  } shown[] = {{0, 1000000, "is 1 ms; it must be 1 s to 2 s"},
               {86400, 0, "is 1 day; it must be 1 s to 2 s"},
               {90, 0, "is 90 s; it must be 1 s to 2 s"},
               {-60, 0, "is -1 min; it must be 1 s to 2 s"}};
  for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
    struct check each = {.arena = arena};
    duration(&each, shown[i].seconds, shown[i].nanos, 1000, 2000);
    assert_finding(&each, "lease", shown[i].text);
  }
}

static void a_time_is_rounded_up_and_a_malformed_one_is_found(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
  time.seconds = 1795391208;
  time.nanos = 1;
  assert_int_equal(check_time(&check, FIELD(NULL, "t"), &time, 0), 1795391208001);
  assert_int_equal(check_time(&check, FIELD(NULL, "t"), NULL, 5), 5);
  assert_int_equal(check.count, 0);
  time.nanos = -1;
  check_time(&check, FIELD(NULL, "t"), &time, 0);
  assert_finding(&check, "t", "Timestamp");
  check.count = 0;
  time.nanos = 0;
  time.seconds = INT64_MAX;
  check_time(&check, FIELD(NULL, "t"), &time, 0);
  assert_finding(&check, "t", "Timestamp");
}

static void ascii_is_counted_and_looked_through(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  check_ascii(&check, FIELD(NULL, "user_data"), " ~Az09", 6);
  check_ascii(&check, FIELD(NULL, "user_data"), "", 6);
  assert_int_equal(check.count, 0);
  check_ascii(&check, FIELD(NULL, "user_data"), "1234567", 6);
  assert_finding(&check, "user_data", "7 characters; at most 6");
  check.count = 0;
  check_ascii(&check, FIELD(NULL, "user_data"), "a\tb", 6);
  assert_finding(&check, "user_data", "0x09 at 1");
}

static void text_that_xml_cannot_carry_is_found(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  check_text(&check, FIELD(NULL, "object"), "\xc3\xa4\xf0\x9f\x98\x80\t", 1, 1024);
  assert_int_equal(check.count, 0);
  static const char *const wrong[] = {"a\x01", "\xef\xbf\xbe", "\xff", "\xed\xa0\x80", "a\x1f"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    check.count = 0;
    check_text(&check, FIELD(NULL, "object"), wrong[i], 1, 1024);
    assert_finding(&check, "object", "XML");
  }
  check.count = 0;
  check_text(&check, FIELD(NULL, "object"), "", 1, 1024);
  assert_finding(&check, "object", "0 bytes");
}

static void a_traceparent_has_its_form(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  check_traceparent(&check, FIELD(NULL, "traceparent"), "");
  check_traceparent(&check, FIELD(NULL, "traceparent"), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  assert_int_equal(check.count, 0);
  static const char *const wrong[] = {"00",
                                      "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    check.count = 0;
    check_traceparent(&check, FIELD(NULL, "traceparent"), wrong[i]);
    assert_finding(&check, "traceparent", "55 characters");
  }
}

static void a_wrong_id_in_a_list_is_found_with_its_place(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  char *ids[] = {(char *)"j53000000000101a205a7ba5c00000000", (char *)"J53000000000101a205a7ba5c00000000"};
  assert_non_null(check_job_ids(&check, FIELD(NULL, "job_ids"), ids, 1, 250));
  assert_int_equal(check.count, 0);
  check_job_ids(&check, FIELD(NULL, "job_ids"), ids, 2, 250);
  assert_finding(&check, "job_ids[1]", "one letter");
  check.count = 0;
  check_job_ids(&check, FIELD(NULL, "job_ids"), ids, 0, 250);
  assert_finding(&check, "job_ids", "0 elements");
}

static void an_id_that_no_job_can_have_is_not_wrong(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  static const struct job_id zeros;
  struct job_id id;
  check_job_id(&check, FIELD(NULL, "job_id"), "j00000000000000000000000000000000", &id);
  assert_int_equal(check.count, 0);
  assert_memory_equal(&id, &zeros, sizeof id);
  check_job_id(&check, FIELD(NULL, "job_id"), "d53000000000101a205a7ba5c00000000", &id);
  assert_int_equal(check.count, 0);
  assert_memory_equal(&id, &zeros, sizeof id);
}

static void findings_have_a_limit(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  for (int i = 0; i < FINDINGS_MAX * 2; i++)
    check_fail(&check, FIELD_AT(NULL, "x", i), "is wrong");
  assert_int_equal(check.count, FINDINGS_MAX);
}

static void a_queue_without_settings_gets_the_defaults(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  Ringback__V1__Queue queue = RINGBACK__V1__QUEUE__INIT;
  struct store_settings settings = settings_read(&check, FIELD(NULL, "queue"), &queue, ~0u);
  assert_int_equal(check.count, 0);
  assert_memory_equal(&settings, &settings_default, sizeof settings);
}

static void a_long_first_wait_lengthens_the_longest(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  Ringback__V1__Queue queue = RINGBACK__V1__QUEUE__INIT;
  Ringback__V1__RetryPolicy retry = RINGBACK__V1__RETRY_POLICY__INIT;
  Google__Protobuf__Duration hour = GOOGLE__PROTOBUF__DURATION__INIT, minute = GOOGLE__PROTOBUF__DURATION__INIT;
  hour.seconds = 3600;
  minute.seconds = 60;
  queue.retry_policy = &retry;
  retry.min_backoff = &hour;
  struct store_settings settings = settings_read(&check, FIELD(NULL, "queue"), &queue, ~0u);
  assert_int_equal(check.count, 0);
  assert_int_equal(settings.max_backoff_ms, 3600000);
  retry.max_backoff = &minute;
  settings_read(&check, FIELD(NULL, "queue"), &queue, ~0u);
  assert_finding(&check, "queue.retry_policy.max_backoff", "1 h to 1 day");
}

static void a_field_mask_names_settings_and_their_parts(void **state) {
  (void)state;
  struct check check = {.arena = arena};
  char *paths[] = {(char *)"max_size", (char *)"retry_policy.min_backoff", (char *)"retention", (char *)"counts"};
  Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
  mask.paths = paths;
  mask.n_paths = 3;
  assert_int_equal(settings_mask(&check, FIELD(NULL, "update_mask"), &mask),
                   SETTING_MAX_SIZE | SETTING_MIN_BACKOFF | SETTING_RETENTION_AGE | SETTING_RETENTION_COUNT);
  assert_int_equal(check.count, 0);
  mask.n_paths = 4;
  settings_mask(&check, FIELD(NULL, "update_mask"), &mask);
  assert_finding(&check, "update_mask.paths[3]", "counts");
  check.count = 0;
  settings_mask(&check, FIELD(NULL, "update_mask"), NULL);
  assert_finding(&check, "update_mask", "empty");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)
  const struct CMUnitTest tests[] = {
      TEST(a_path_names_every_parent),
      TEST(a_number_within_its_range_is_taken),
      TEST(a_number_beyond_its_range_is_found_with_value_and_range),
      TEST(a_duration_is_rounded_up_to_milliseconds),
      TEST(a_duration_beyond_its_limits_or_malformed_is_found),
      TEST(a_time_is_rounded_up_and_a_malformed_one_is_found),
      TEST(ascii_is_counted_and_looked_through),
      TEST(text_that_xml_cannot_carry_is_found),
      TEST(a_traceparent_has_its_form),
      TEST(a_wrong_id_in_a_list_is_found_with_its_place),
      TEST(an_id_that_no_job_can_have_is_not_wrong),
      TEST(findings_have_a_limit),
      TEST(a_queue_without_settings_gets_the_defaults),
      TEST(a_long_first_wait_lengthens_the_longest),
      TEST(a_field_mask_names_settings_and_their_parts),
  };
  return cmocka_run_group_tests_name("validate", tests, NULL, NULL);
}
