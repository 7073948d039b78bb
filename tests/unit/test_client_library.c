/* The pure parts of libringback: which calls may be repeated, how long to wait, what errors say. */
#include "client/lib/error.h"
#include "client/lib/methods.h"
#include "client/lib/retry.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "ringback/v1/callback.pb-c.h"
#include "ringback/v1/job.pb-c.h"
#include "ringback/v1/queue.pb-c.h"
#include "ringback/v1/worker.pb-c.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void every_method_of_the_contract_is_known(void **state) {
  (void)state;
  static const ProtobufCServiceDescriptor *const services[] = {
      &ringback__v1__queue_service__descriptor, &ringback__v1__job_service__descriptor,
      &ringback__v1__worker_service__descriptor, &ringback__v1__callback_service__descriptor};
  for (size_t i = 0; i < sizeof services / sizeof *services; i++)
    for (unsigned j = 0; j < services[i]->n_methods; j++) {
      char path[METHOD_PATH_BYTES];
      struct method method;
      snprintf(path, sizeof path, "/%s/%s", services[i]->name, services[i]->methods[j].name);
      assert_true(method_find(path, &method));
      assert_ptr_equal(method.input, services[i]->methods[j].input);
      const char *name = services[i]->methods[j].name;
      assert_int_equal(method.streaming, strcmp(name, "WatchJobs") == 0 || strcmp(name, "Work") == 0);
    }
}

static void an_unknown_method_is_not_found(void **state) {
  (void)state;
  struct method method;
  static const char *const paths[] = {"",
                                      "/",
                                      "//",
                                      "SubmitJob",
                                      "/ringback.v1.JobService",
                                      "/ringback.v1.JobService/",
                                      "/ringback.v1.JobService/Submit",
                                      "/ringback.v2.JobService/SubmitJob"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    assert_false(method_find(paths[i], &method));
}

static void leasing_and_creating_are_never_repeated(void **state) {
  (void)state;
  static const char *const paths[] = {"/ringback.v1.WorkerService/LeaseJobs", "/ringback.v1.QueueService/CreateQueue",
                                      "/ringback.v1.QueueService/DeleteQueue",
                                      "/ringback.v1.CallbackService/SendTestCallback"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    struct method method;
    assert_true(method_find(paths[i], &method));
    assert_int_equal(method.repeat, METHOD_REPEAT_NEVER);
  }
}

static void an_update_is_repeated_only_without_an_etag(void **state) {
  (void)state;
  struct method method;
  assert_true(method_find("/ringback.v1.QueueService/UpdateQueue", &method));
  Ringback__V1__Queue queue = RINGBACK__V1__QUEUE__INIT;
  Ringback__V1__UpdateQueueRequest request = RINGBACK__V1__UPDATE_QUEUE_REQUEST__INIT;
  assert_true(method_may_repeat(&method, &request.base));
  request.queue = &queue;
  assert_true(method_may_repeat(&method, &request.base));
  queue.etag = (char *)"e";
  assert_false(method_may_repeat(&method, &request.base));
}

static void the_wait_doubles_up_to_its_limit(void **state) {
  (void)state;
  int64_t longest = RETRY_FIRST_MS;
  for (int attempt = 1; attempt < 40; attempt++) {
    assert_int_equal(retry_wait_ms(attempt, -1, 0), longest);
    for (uint64_t random = 0; random < 5000; random += 7) {
      int64_t wait = retry_wait_ms(attempt, -1, random);
      assert_true(wait >= longest / 2 && wait <= longest);
    }
    longest = longest * 2 > RETRY_LONGEST_MS ? RETRY_LONGEST_MS : longest * 2;
  }
}

static void the_server_s_delay_is_the_least(void **state) {
  (void)state;
  for (uint64_t random = 0; random < 5000; random += 7) {
    int64_t wait = retry_wait_ms(1, 2000, random);
    assert_true(wait >= 2000 && wait <= 2500);
  }
  assert_int_equal(retry_wait_ms(1, 0, 0), RETRY_FIRST_MS);
}

static void request_ids_are_uuids_and_differ(void **state) {
  (void)state;
  char a[REQUEST_ID_BYTES], b[REQUEST_ID_BYTES];
  retry_request_id(a);
  retry_request_id(b);
  assert_int_equal(strlen(a), 36);
  assert_int_equal(a[14], '4');
  assert_non_null(strchr("89ab", a[19]));
  assert_string_not_equal(a, b);
}

static void an_error_carries_the_details_of_its_status(void **state) {
  (void)state;
  Google__Rpc__BadRequest__FieldViolation violation = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
  violation.field = (char *)"job.tag";
  violation.description = (char *)"is required";
  Google__Rpc__BadRequest__FieldViolation *violations[RINGBACK_VIOLATIONS_MAX + 4];
  for (size_t i = 0; i < RINGBACK_VIOLATIONS_MAX + 4; i++)
    violations[i] = &violation;
  Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
  bad.n_field_violations = RINGBACK_VIOLATIONS_MAX + 4;
  bad.field_violations = violations;
  uint8_t bad_bytes[1024];
  Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
  delay.seconds = 1;
  delay.nanos = 500000000;
  Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
  retry.retry_delay = &delay;
  uint8_t retry_bytes[64];
  Google__Protobuf__Any details[3] = {GOOGLE__PROTOBUF__ANY__INIT, GOOGLE__PROTOBUF__ANY__INIT,
                                      GOOGLE__PROTOBUF__ANY__INIT};
  details[0].type_url = (char *)"type.googleapis.com/google.rpc.BadRequest";
  details[0].value = (ProtobufCBinaryData){google__rpc__bad_request__pack(&bad, bad_bytes), bad_bytes};
  details[1].type_url = (char *)"type.googleapis.com/google.rpc.RetryInfo";
  details[1].value = (ProtobufCBinaryData){google__rpc__retry_info__pack(&retry, retry_bytes), retry_bytes};
  details[2].type_url = (char *)"type.googleapis.com/of.a.later.Time";
  Google__Protobuf__Any *list[] = {&details[0], &details[1], &details[2]};
  Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
  status.code = RINGBACK_INVALID_ARGUMENT;
  status.message = (char *)"not valid";
  status.n_details = 3;
  status.details = list;

  struct ringback_error error;
  ringback_error_from_status(&error, &status.base);
  assert_int_equal(error.code, RINGBACK_INVALID_ARGUMENT);
  assert_string_equal(error.message, "not valid");
  assert_int_equal(error.violation_count, RINGBACK_VIOLATIONS_MAX);
  assert_string_equal(error.violations[0].field, "job.tag");
  assert_string_equal(error.violations[0].description, "is required");
  assert_int_equal(error.retry_delay_ms, 1500);
}

static void bytes_that_are_no_status_add_nothing(void **state) {
  (void)state;
  struct ringback_error error;
  error_set(&error, RINGBACK_INTERNAL, "as it was");
  error_add_details(&error, (const uint8_t *)"\xff\xff\xff", 3);
  assert_string_equal(error.message, "as it was");
  assert_int_equal(error.violation_count, 0);
  assert_int_equal(error.retry_delay_ms, -1);
}

static void codes_have_their_names(void **state) {
  (void)state;
  assert_string_equal(ringback_code_name(RINGBACK_OK), "OK");
  assert_string_equal(ringback_code_name(RINGBACK_UNAUTHENTICATED), "UNAUTHENTICATED");
  assert_string_equal(ringback_code_name(17), "UNKNOWN");
  assert_string_equal(ringback_code_name(-1), "UNKNOWN");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_method_of_the_contract_is_known),
      cmocka_unit_test(an_unknown_method_is_not_found),
      cmocka_unit_test(leasing_and_creating_are_never_repeated),
      cmocka_unit_test(an_update_is_repeated_only_without_an_etag),
      cmocka_unit_test(the_wait_doubles_up_to_its_limit),
      cmocka_unit_test(the_server_s_delay_is_the_least),
      cmocka_unit_test(request_ids_are_uuids_and_differ),
      cmocka_unit_test(an_error_carries_the_details_of_its_status),
      cmocka_unit_test(bytes_that_are_no_status_add_nothing),
      cmocka_unit_test(codes_have_their_names),
  };
  return cmocka_run_group_tests_name("client_library", tests, NULL, NULL);
}
