/* From a claimed delivery to its body: golden bytes for every state of an end in every shape, what a job's own callback
 * and a test get, and what has no body.
 */
#include "server/callback/claim_body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ringback/v1/common.pb-c.h"

static int set_up(void **state) {
  *state = arena_create();
  setenv("TZ", "<+08>-8", 1);
  tzset();
  return 0;
}

static int tear_down(void **state) {
  arena_destroy(*state);
  return 0;
}

#define CREATED "2022-06-30T19:30:20+0800"
#define STARTED "2022-06-30T19:30:21+0800"
#define ENDED "2022-06-30T19:31:20+0800"
#define JOB "j400000000001" CREATED_HEX "00000007"
#define CREATED_HEX "0181b46054c7"
#define QUEUE "p0123456789abcdef0123456789abcdef"

/* A claim whose job was created at CREATED, in the format; the packed parts live in the arena. */
static struct store_claim claim_of(struct arena *arena, const Ringback__V1__JobSpec *spec,
                                   const Ringback__V1__Payload *result, Ringback__V1__JobState state,
                                   Ringback__V1__CallbackFormat format) {
  struct store_claim claim = {.bucket = "demo", .url = "http://rule/", .format = (int)format};
  claim.job = (struct store_job){
      .queue = "queue-1", .state = (int)state, .priority = spec->priority, .code = "", .message = "", .worker = ""};
  assert_true(id_parse_job(JOB, &claim.job.id));
  for (int i = 0; i < 16; i++)
    claim.job.queue_id[i] = (uint8_t)(0x01234567 >> (24 - 8 * (i % 4)));
  for (int i = 0; i < 4; i++)
    claim.job.queue_id[4 + i] = claim.job.queue_id[12 + i] = (uint8_t)(0x89abcdef >> (24 - 8 * i));
  uint8_t *packed = arena_alloc(arena, ringback__v1__job_spec__get_packed_size(spec));
  claim.job.spec = (struct bytes){packed, ringback__v1__job_spec__pack(spec, packed)};
  if (result) {
    packed = arena_alloc(arena, ringback__v1__payload__get_packed_size(result));
    claim.job.result = (struct bytes){packed, ringback__v1__payload__pack(result, packed)};
  }
  return claim;
}

static void expect_body(struct arena *arena, const struct store_claim *claim, const char *type, const char *expected) {
  struct store_body body;
  const char *error = claim_body_render(arena, claim, 1656588680000, &body);
  if (error)
    fail_msg("%s", error);
  assert_string_equal((const char *)body.bytes.data, expected);
  assert_int_equal(body.bytes.length, strlen(expected));
  assert_string_equal(body.content_type, type);
}

/* The three shapes of one job: the bytes of its JobsDetail in XML and in JSON. */
static void expect_shapes(struct arena *arena, struct store_claim *claim, const char *xml, const char *json) {
  claim->format = RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_SEED;
  expect_body(arena, claim, "application/xml",
              arena_printf(arena, "<Response>%s<NonExistJobIds></NonExistJobIds></Response>", xml));
  claim->format = RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_CURRENT;
  expect_body(arena, claim, "application/xml",
              arena_printf(arena, "<Response><EventName>TaskFinish</EventName>%s</Response>", xml));
  claim->format = RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_JSON;
  expect_body(arena, claim, "application/json",
              arena_printf(arena, "{\"EventName\":\"TaskFinish\",\"JobsDetail\":[%s]}", json));
}

static void success_has_its_golden_bytes_in_every_shape(void **state) {
  Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
  Ringback__V1__JobInput input = RINGBACK__V1__JOB_INPUT__INIT;
  Ringback__V1__ObjectInput object = RINGBACK__V1__OBJECT_INPUT__INIT;
  Ringback__V1__Payload operation = RINGBACK__V1__PAYLOAD__INIT, result = RINGBACK__V1__PAYLOAD__INIT;
  object.bucket = (char *)"in-1";
  object.object = (char *)"a/b & c.mp4";
  object.region = (char *)"ap-chongqing";
  input.source_case = RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT;
  input.object = &object;
  operation.form_case = result.form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  operation.xml = (char *)"<TemplateId>t1</TemplateId><Output a=\"1\"><Object>o&lt;1&gt;.mp4</Object></Output>";
  result.xml = (char *)"<MediaInfo><Format>mp4</Format></MediaInfo>";
  spec.tag = (char *)"Transcode";
  spec.input = &input;
  spec.operation = &operation;
  spec.user_data = (char *)"x<y>&\"'";
  spec.priority = 3;
  struct store_claim claim = claim_of(*state, &spec, &result, RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS, 1);
  claim.job.progress = 100;
  claim.job.code = "Success";
  claim.job.message = "said by the worker, not shown";
  claim.job.start_ms = 1656588621000;
  claim.job.end_ms = 1656588680999;
  expect_shapes(*state, &claim,
                "<JobsDetail><Code>Success</Code><Message></Message><JobId>" JOB "</JobId><Tag>Transcode</Tag>"
                "<State>Success</State><Progress>100</Progress><CreationTime>" CREATED "</CreationTime>"
                "<StartTime>" STARTED "</StartTime><EndTime>" ENDED "</EndTime><QueueId>" QUEUE "</QueueId>"
                "<Input><BucketId>in-1</BucketId><Object>a/b &amp; c.mp4</Object><Region>ap-chongqing</Region></Input>"
                "<Operation><TemplateId>t1</TemplateId><Output a=\"1\"><Object>o&lt;1&gt;.mp4</Object></Output>"
                "<MediaInfo><Format>mp4</Format></MediaInfo><UserData>x&lt;y&gt;&amp;&quot;'</UserData>"
                "<JobLevel>3</JobLevel></Operation></JobsDetail>",
                "{\"Code\":\"Success\",\"Message\":\"\",\"JobId\":\"" JOB "\",\"Tag\":\"Transcode\","
                "\"State\":\"Success\",\"Progress\":100,\"CreationTime\":\"" CREATED "\","
                "\"StartTime\":\"" STARTED "\",\"EndTime\":\"" ENDED "\",\"QueueId\":\"" QUEUE "\","
                "\"Input\":{\"BucketId\":\"in-1\",\"Object\":\"a/b & c.mp4\",\"Region\":\"ap-chongqing\"},"
                "\"Operation\":{\"TemplateId\":\"t1\",\"Output\":{\"@a\":\"1\",\"Object\":\"o<1>.mp4\"},"
                "\"MediaInfo\":{\"Format\":\"mp4\"},\"UserData\":\"x<y>&\\\"'\",\"JobLevel\":3}}");
}

static void failure_has_its_golden_bytes_in_every_shape(void **state) {
  Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
  Ringback__V1__JobInput input = RINGBACK__V1__JOB_INPUT__INIT;
  Ringback__V1__Payload operation = RINGBACK__V1__PAYLOAD__INIT, result = RINGBACK__V1__PAYLOAD__INIT;
  Ringback__V1__OpaquePayload bytes = RINGBACK__V1__OPAQUE_PAYLOAD__INIT, log = RINGBACK__V1__OPAQUE_PAYLOAD__INIT;
  uint8_t data[] = {0, 1, 0xff}, text[] = "log";
  input.source_case = RINGBACK__V1__JOB_INPUT__SOURCE_URL;
  input.url = (char *)"https://example.com/?a=1&b=2";
  bytes.data = (ProtobufCBinaryData){sizeof(data), data};
  log.data = (ProtobufCBinaryData){3, text};
  log.content_type = (char *)"text/plain";
  operation.form_case = result.form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
  operation.opaque = &bytes;
  result.opaque = &log;
  spec.tag = (char *)"SpeechRecognition";
  spec.input = &input;
  spec.operation = &operation;
  spec.user_data = (char *)"mine";
  spec.priority = 255;
  struct store_claim claim = claim_of(*state, &spec, &result, RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED, 1);
  claim.job.progress = 40;
  claim.job.code = "InvalidInput";
  claim.job.message = "no <video>: \x1b[0m \xff";
  claim.job.start_ms = 1656588621000;
  claim.job.end_ms = 1656588680000;
  expect_shapes(*state, &claim,
                "<JobsDetail><Code>InvalidInput</Code><Message>no &lt;video&gt;: \xef\xbf\xbd[0m \xef\xbf\xbd</Message>"
                "<JobId>" JOB "</JobId><Tag>SpeechRecognition</Tag><State>Failed</State><Progress>40</Progress>"
                "<CreationTime>" CREATED "</CreationTime><StartTime>" STARTED "</StartTime><EndTime>" ENDED "</EndTime>"
                "<QueueId>" QUEUE "</QueueId><Input><Url>https://example.com/?a=1&amp;b=2</Url></Input>"
                "<Operation><Opaque ContentType=\"application/octet-stream\">AAH/</Opaque>"
                "<OpaqueResult ContentType=\"text/plain\">bG9n</OpaqueResult><UserData>mine</UserData>"
                "<JobLevel>255</JobLevel></Operation></JobsDetail>",
                "{\"Code\":\"InvalidInput\",\"Message\":\"no <video>: \xef\xbf\xbd[0m \xef\xbf\xbd\","
                "\"JobId\":\"" JOB "\",\"Tag\":\"SpeechRecognition\",\"State\":\"Failed\",\"Progress\":40,"
                "\"CreationTime\":\"" CREATED "\",\"StartTime\":\"" STARTED "\",\"EndTime\":\"" ENDED "\","
                "\"QueueId\":\"" QUEUE "\",\"Input\":{\"Url\":\"https://example.com/?a=1&b=2\"},"
                "\"Operation\":{\"Opaque\":{\"@ContentType\":\"application/octet-stream\",\"#text\":\"AAH/\"},"
                "\"OpaqueResult\":{\"@ContentType\":\"text/plain\",\"#text\":\"bG9n\"},\"UserData\":\"mine\","
                "\"JobLevel\":255}}");
  claim.job.code = "";
  claim.job.message = "";
  claim.format = RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_SEED;
  struct store_body body;
  assert_null(claim_body_render(*state, &claim, 0, &body));
  assert_non_null(strstr((const char *)body.bytes.data, "<Code>Failed</Code><Message></Message>"));
}

static void a_cancelled_job_that_never_started_has_its_golden_bytes_in_every_shape(void **state) {
  Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
  spec.tag = (char *)"DocProcess";
  struct store_claim claim = claim_of(*state, &spec, 0, RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL, 1);
  claim.job.end_ms = 1656588680000;
  claim.job.code = "Cancelled";
  claim.job.message = "by its owner, not shown";
  expect_shapes(*state, &claim,
                "<JobsDetail><Code>Success</Code><Message></Message><JobId>" JOB "</JobId><Tag>DocProcess</Tag>"
                "<State>Cancel</State><Progress>0</Progress><CreationTime>" CREATED "</CreationTime>"
                "<StartTime>-</StartTime><EndTime>" ENDED "</EndTime><QueueId>" QUEUE "</QueueId>"
                "<Input><BucketId>demo</BucketId><Object></Object><Region></Region></Input>"
                "<Operation><UserData></UserData><JobLevel>0</JobLevel></Operation></JobsDetail>",
                "{\"Code\":\"Success\",\"Message\":\"\",\"JobId\":\"" JOB "\",\"Tag\":\"DocProcess\","
                "\"State\":\"Cancel\",\"Progress\":0,\"CreationTime\":\"" CREATED "\",\"StartTime\":\"-\","
                "\"EndTime\":\"" ENDED "\",\"QueueId\":\"" QUEUE "\","
                "\"Input\":{\"BucketId\":\"demo\",\"Object\":\"\",\"Region\":\"\"},"
                "\"Operation\":{\"UserData\":\"\",\"JobLevel\":0}}");
}

static void a_job_s_own_callback_has_its_own_url_and_format(void **state) {
  Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
  Ringback__V1__CallbackOverride own = RINGBACK__V1__CALLBACK_OVERRIDE__INIT;
  own.target_case = RINGBACK__V1__CALLBACK_OVERRIDE__TARGET_URL;
  own.url = (char *)"http://own/";
  own.format = RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_JSON;
  spec.tag = (char *)"T";
  spec.callback = &own;
  spec.traceparent = (char *)"00-trace";
  struct store_claim claim = claim_of(*state, &spec, 0, RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS,
                                      RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_CURRENT);
  struct store_body body;
  assert_null(claim_body_render(*state, &claim, 0, &body));
  assert_string_equal(body.url, "http://rule/");
  assert_string_equal(body.content_type, "application/xml");
  assert_string_equal(body.traceparent, "00-trace");
  claim.own_url = true;
  assert_null(claim_body_render(*state, &claim, 0, &body));
  assert_string_equal(body.url, "http://own/");
  assert_string_equal(body.content_type, "application/json");
}

static void a_test_says_of_itself_that_it_is_one(void **state) {
  struct store_claim claim = {.test = true, .bucket = "demo", .url = "http://rule/", .format = 2};
  expect_body(*state, &claim, "application/xml",
              "<Response><EventName>TaskFinish</EventName><JobsDetail><Code>Success</Code><Message></Message>"
              "<JobId>j00000000000000000000000000000000</JobId><Tag>Test</Tag><State>Success</State>"
              "<Progress>100</Progress><CreationTime>" ENDED "</CreationTime><StartTime>" ENDED "</StartTime>"
              "<EndTime>" ENDED "</EndTime><QueueId>p00000000000000000000000000000000</QueueId>"
              "<Input><BucketId>demo</BucketId><Object></Object><Region></Region></Input>"
              "<Operation><UserData>a test of this callback rule</UserData><JobLevel>0</JobLevel></Operation>"
              "</JobsDetail></Response>");
}

static void what_cannot_be_read_has_no_body(void **state) {
  struct store_claim claim = {.bucket = "demo", .url = ""};
  struct store_body body;
  assert_string_equal(claim_body_render(*state, &claim, 0, &body), "the job is gone");
  claim.job.spec = (struct bytes){(const uint8_t *)"\xff\xff", 2};
  claim.job.code = claim.job.message = "";
  assert_string_equal(claim_body_render(*state, &claim, 0, &body), "the job's record cannot be read");
}

int main(void) {
#define IN_ARENA(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      IN_ARENA(success_has_its_golden_bytes_in_every_shape),
      IN_ARENA(failure_has_its_golden_bytes_in_every_shape),
      IN_ARENA(a_cancelled_job_that_never_started_has_its_golden_bytes_in_every_shape),
      IN_ARENA(a_job_s_own_callback_has_its_own_url_and_format),
      IN_ARENA(a_test_says_of_itself_that_it_is_one),
      IN_ARENA(what_cannot_be_read_has_no_body),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
