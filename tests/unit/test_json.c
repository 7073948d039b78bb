/* Callbacks' bodies as JSON: golden bytes, and how a fragment of XML is mapped. */
#include "server/callback/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state) {
  *state = arena_create();
  return 0;
}

static int tear_down(void **state) {
  arena_destroy(*state);
  return 0;
}

static int zone_of_china(int64_t unix_s) {
  (void)unix_s;
  return 8 * 3600;
}

struct sample {
  Ringback__V1__Job job;
  Ringback__V1__JobSpec spec;
  Ringback__V1__Payload operation, result;
  Google__Protobuf__Timestamp created;
  struct body_source source;
};

static void sample_init(struct sample *s, const char *operation, const char *result) {
  *s = (struct sample){.job = RINGBACK__V1__JOB__INIT,
                       .spec = RINGBACK__V1__JOB_SPEC__INIT,
                       .operation = RINGBACK__V1__PAYLOAD__INIT,
                       .result = RINGBACK__V1__PAYLOAD__INIT,
                       .created = GOOGLE__PROTOBUF__TIMESTAMP__INIT};
  s->created.seconds = 1656588620; /* 2022-06-30T19:30:20+0800 */
  s->operation.form_case = s->result.form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  s->operation.xml = (char *)operation;
  s->result.xml = (char *)result;
  s->spec.tag = (char *)"Transcode";
  s->spec.operation = operation ? &s->operation : 0;
  s->spec.user_data = (char *)"<\"mine\">";
  s->spec.priority = 7;
  s->job.id = (char *)"j0123456789abcdef0123456789abcdef";
  s->job.queue_id = (char *)"p0123456789abcdef0123456789abcdef";
  s->job.spec = &s->spec;
  s->job.result = result ? &s->result : 0;
  s->job.create_time = &s->created;
  s->job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS;
  s->job.progress = 100;
  s->source = (struct body_source){.job = &s->job, .bucket = "demo", .zone = zone_of_china};
}

#define HEAD(code, message, state, progress)                                                                           \
  "{\"EventName\":\"TaskFinish\",\"JobsDetail\":[{\"Code\":\"" code "\",\"Message\":\"" message                        \
  "\",\"JobId\":\"j0123456789abcdef0123456789abcdef\",\"Tag\":\"Transcode\",\"State\":\"" state                        \
  "\",\"Progress\":" progress ",\"CreationTime\":\"2022-06-30T19:30:20+0800\",\"StartTime\":\"-\",\"EndTime\":\"-\""   \
  ",\"QueueId\":\"p0123456789abcdef0123456789abcdef\",\"Input\":{\"BucketId\":\"demo\",\"Object\":\"\""                \
  ",\"Region\":\"\"},\"Operation\":{"
#define TAIL "\"UserData\":\"<\\\"mine\\\">\",\"JobLevel\":7}}]}"
#define GOOD HEAD("Success", "", "Success", "100")

static void expect_body(void **state, const struct sample *s, const char *expected) {
  size_t size;
  const char *body = json_callback_render(*state, &s->source, &size);
  assert_non_null(body);
  assert_string_equal(body, expected);
  assert_int_equal(strlen(expected), size);
}

static void success_has_its_golden_bytes(void **state) {
  struct sample s;
  sample_init(&s, "<TemplateId>t1</TemplateId><Output><Bucket>out</Bucket><Object>a&amp;b.mp4</Object></Output>",
              "<MediaResult><Size>42</Size></MediaResult>");
  expect_body(state, &s,
              GOOD "\"TemplateId\":\"t1\",\"Output\":{\"Bucket\":\"out\",\"Object\":\"a&b.mp4\"},"
                   "\"MediaResult\":{\"Size\":\"42\"}," TAIL);
}

static void failure_has_its_golden_bytes(void **state) {
  struct sample s;
  sample_init(&s, 0, 0);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED;
  s.job.progress = 40;
  s.job.code = (char *)"InvalidInput";
  s.job.message = (char *)"not \"good\": \x1b \xff";
  expect_body(state, &s, HEAD("InvalidInput", "not \\\"good\\\": \xef\xbf\xbd \xef\xbf\xbd", "Failed", "40") TAIL);
}

static void repeated_elements_become_an_array_also_across_operation_and_result(void **state) {
  struct sample s;
  sample_init(&s, "<a>1</a><b/><a>2</a>", "<a><c>3</c></a>");
  expect_body(state, &s, GOOD "\"a\":[\"1\",\"2\",{\"c\":\"3\"}],\"b\":\"\"," TAIL);
}

static void attributes_and_mixed_text_keep_their_place(void **state) {
  struct sample s;
  sample_init(&s, "<a xmlns=\"u:?1&amp;2\"/>", 0);
  expect_body(state, &s, GOOD "\"a\":{\"@xmlns\":\"u:?1&2\"}," TAIL);
  sample_init(&s, "<a x=\"1\">t<b/>u</a>\n <c y=\"2\"/><d> <e/> </d>", 0);
  expect_body(state, &s,
              GOOD "\"a\":{\"@x\":\"1\",\"b\":\"\",\"#text\":\"tu\"},\"c\":{\"@y\":\"2\"},\"d\":{\"e\":\"\"}," TAIL);
}

static void a_payload_that_does_not_parse_is_carried_as_bytes(void **state) {
  struct sample s;
  sample_init(&s, 0, "<ok>1</ok><a>1</b>");
  expect_body(state, &s,
              GOOD
              "\"OpaqueResult\":{\"@ContentType\":\"application/xml\",\"#text\":\"PG9rPjE8L29rPjxhPjE8L2I+\"}," TAIL);
}

int main(void) {
#define IN_ARENA(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      IN_ARENA(success_has_its_golden_bytes),
      IN_ARENA(failure_has_its_golden_bytes),
      IN_ARENA(repeated_elements_become_an_array_also_across_operation_and_result),
      IN_ARENA(attributes_and_mixed_text_keep_their_place),
      IN_ARENA(a_payload_that_does_not_parse_is_carried_as_bytes),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
