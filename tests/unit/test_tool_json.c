/* Messages as JSON and back. */
#include "client/lib/ringback.h"
#include "client/tool/json.h"
#include "ringback/v1/queue.pb-c.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void *from_text(const char *text, const ProtobufCMessageDescriptor *descriptor, char problem[256]) {
  json_t *json = json_loads(text, 0, NULL);
  assert_non_null(json);
  problem[0] = '\0';
  ProtobufCMessage *message = json_to_message(json, descriptor, problem, 256);
  json_decref(json);
  return message;
}

static void a_job_survives_the_way_to_json_and_back(void **state) {
  (void)state;
  static const char text[] =
      "{\"tag\":\"Transcode\",\"input\":{\"object\":{\"bucket\":\"b\",\"object\":\"a.mp4\",\"region\":\"\"}},"
      "\"operation\":{\"opaque\":{\"data\":\"AAEC/w==\",\"contentType\":\"application/x\"}},\"userData\":\"\","
      "\"priority\":7,\"notBefore\":\"2026-11-22T23:15:54.120Z\",\"lease\":\"1.500s\",\"maxAttempts\":0,"
      "\"callback\":{\"none\":true,\"format\":\"CALLBACK_FORMAT_UNSPECIFIED\"},\"traceparent\":\"\"}";
  char problem[256];
  Ringback__V1__JobSpec *spec = from_text(text, &ringback__v1__job_spec__descriptor, problem);
  assert_string_equal(problem, "");
  assert_int_equal(spec->not_before->nanos, 120000000);
  assert_int_equal(spec->operation->opaque->data.len, 4);
  json_t *json = json_of_message(&spec->base);
  json_t *expected = json_loads(text, 0, NULL);
  assert_true(json_equal(json, expected));
  json_decref(expected);
  json_decref(json);
  ringback_free(&spec->base);
}

static void names_of_the_proto_file_are_taken_too(void **state) {
  (void)state;
  char problem[256];
  Ringback__V1__JobSpec *spec = from_text("{\"tag\":\"T\",\"user_data\":\"u\",\"max_attempts\":\"3\",\"lease\":null}",
                                          &ringback__v1__job_spec__descriptor, problem);
  assert_non_null(spec);
  assert_string_equal(spec->user_data, "u");
  assert_int_equal(spec->max_attempts, 3);
  assert_null(spec->lease);
  ringback_free(&spec->base);
}

static void what_is_wrong_is_told_with_its_place(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"{\"tagg\":\"T\"}", "tagg: no such field"},
      {"{\"tag\":5}", "tag: must be a string"},
      {"{\"priority\":\"x\"}", "priority: must be a whole number"},
      {"{\"priority\":99999999999}", "priority: is out of range"},
      {"{\"input\":{\"object\":{\"object\":1}}}", "input.object.object: must be a string"},
      {"{\"input\":{\"url\":\"a\",\"object\":{}}}", "input.object: excludes another member that is given"},
      {"{\"notBefore\":\"tomorrow\"}", "notBefore: must be a time such as \"2026-11-22T23:15:54Z\""},
      {"{\"lease\":5}", "lease: must be a duration such as \"5s\""},
      {"{\"operation\":{\"opaque\":{\"data\":\"*\"}}}", "operation.opaque.data: must be base64"},
      {"{\"userData\":\"a\",\"user_data\":\"b\"}", "user_data: is given twice"},
      {"[]", "the line: must be an object"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char problem[256];
    assert_null(from_text(rows[i][0], &ringback__v1__job_spec__descriptor, problem));
    assert_string_equal(problem, rows[i][1]);
  }
}

static void lists_enums_and_large_numbers_have_their_forms(void **state) {
  (void)state;
  char problem[256];
  Ringback__V1__ListQueuesResponse *response = from_text(
      "{\"queues\":[{\"name\":\"a\",\"feature\":\"FEATURE_SPEECH\",\"maxSize\":\"9007199254740993\"},{\"feature\":3}]}",
      &ringback__v1__list_queues_response__descriptor, problem);
  assert_non_null(response);
  json_t *json = json_of_message(&response->base);
  json_t *first = json_array_get(json_object_get(json, "queues"), 0);
  json_t *second = json_array_get(json_object_get(json, "queues"), 1);
  assert_string_equal(json_string_value(json_object_get(first, "feature")), "FEATURE_SPEECH");
  assert_string_equal(json_string_value(json_object_get(first, "maxSize")), "9007199254740993");
  assert_string_equal(json_string_value(json_object_get(second, "feature")), "FEATURE_DOCUMENT");
  assert_null(json_object_get(second, "counts"));
  assert_string_equal(json_string_value(json_object_get(json, "nextPageToken")), "");
  json_decref(json);
  ringback_free(&response->base);
}

static void a_message_read_halfway_is_freed(void **state) {
  (void)state;
  char problem[256];
  assert_null(from_text("{\"queues\":[{\"name\":\"a\",\"retryPolicy\":{\"minBackoff\":\"1s\"}},{\"name\":1}]}",
                        &ringback__v1__list_queues_response__descriptor, problem));
  assert_string_equal(problem, "queues[1].name: must be a string");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_job_survives_the_way_to_json_and_back),
      cmocka_unit_test(names_of_the_proto_file_are_taken_too),
      cmocka_unit_test(what_is_wrong_is_told_with_its_place),
      cmocka_unit_test(lists_enums_and_large_numbers_have_their_forms),
      cmocka_unit_test(a_message_read_halfway_is_freed),
  };
  return cmocka_run_group_tests_name("tool_json", tests, NULL, NULL);
}
