/* XML in and out: the gate, fragments, and the callback's body as golden bytes for every state. */
#include "server/callback/xml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BYTES_MAX 65536

static int set_up(void **state) {
  *state = arena_create();
  return 0;
}

static int tear_down(void **state) {
  arena_destroy(*state);
  return 0;
}

/* --- the gate --- */

static void the_gate_takes_what_xml_can_carry(void **state) {
  (void)state;
  static const char *const good[] = {"",
                                     "plain",
                                     "\t\n\r",
                                     "\xc2\x80",
                                     "\xdf\xbf",
                                     "\xe0\xa0\x80",
                                     "\xed\x9f\xbf",
                                     "\xee\x80\x80",
                                     "\xef\xbf\xbd",
                                     "\xf0\x90\x80\x80",
                                     "\xf4\x8f\xbf\xbf",
                                     "\xf0\x9f\xbf\xbe",
                                     "\x7f"};
  for (size_t i = 0; i < COUNT(good); i++)
    assert_true(xml_text_is_valid(good[i], strlen(good[i])));
}

static void the_gate_refuses_what_xml_cannot_carry(void **state) {
  (void)state;
  static const char *const bad[] = {"\x01",
                                    "\x08",
                                    "\x0b",
                                    "\x0c",
                                    "\x0e",
                                    "\x1f",
                                    "\x80",
                                    "\xbf",
                                    "\xc0\x80",
                                    "\xc1\xbf",
                                    "\xc2",
                                    "\xc2\x41",
                                    "\xe0\x80\x80",
                                    "\xe0\x9f\xbf",
                                    "\xed\xa0\x80",
                                    "\xed\xbf\xbf",
                                    "\xef\xbf\xbe",
                                    "\xef\xbf\xbf",
                                    "\xf0\x80\x80\x80",
                                    "\xf4\x90\x80\x80",
                                    "\xf5\x80\x80\x80",
                                    "\xf8\x88\x80\x80\x80",
                                    "\xff",
                                    "\xfe",
                                    "\xe2\x82"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    assert_false(xml_text_is_valid(bad[i], strlen(bad[i])));
    char text[16];
    snprintf(text, sizeof(text), "a%sb", bad[i]);
    assert_false(xml_text_is_valid(text, strlen(text)));
  }
  assert_false(xml_text_is_valid("a\0b", 3));
}

/* Text is looked at eight bytes at a time. */
static void a_byte_counts_wherever_it_stands(void **state) {
  (void)state;
  for (unsigned byte = 0; byte < 256; byte++) {
    bool good = byte == '\t' || byte == '\n' || byte == '\r' || (byte >= 0x20 && byte < 0x80);
    for (size_t at = 0; at < 24; at++) {
      char text[24];
      memset(text, at % 2 ? 0x20 : 0x7f, sizeof(text));
      text[at] = (char)byte;
      for (size_t length = at + 1; length <= sizeof(text); length++)
        assert_int_equal(xml_text_is_valid(text, length), good);
      assert_true(xml_text_is_valid(text, at));
    }
  }
}

static void repair_puts_the_replacement_character(void **state) {
  static const struct {
    const char *text;
    size_t length;
    const char *repaired;
  } rows[] = {{"ok", 2, "ok"},
              {"a\x01"
               "b",
               3,
               "a\xef\xbf\xbd"
               "b"},
              {"\0", 1, "\xef\xbf\xbd"},
              {"\x1b[31m", 5, "\xef\xbf\xbd[31m"},
              {"\xef\xbf\xbe", 3, "\xef\xbf\xbd"},
              {"\xff\xff", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
              {"z\xc3", 2, "z\xef\xbf\xbd"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    size_t length = rows[i].length;
    const char *repaired = xml_text_repair(*state, rows[i].text, &length);
    assert_int_equal(length, strlen(rows[i].repaired));
    assert_memory_equal(repaired, rows[i].repaired, length);
    assert_true(xml_text_is_valid(repaired, length));
  }
}

/* --- fragments --- */

static const char *rewrite(struct arena *arena, const char *text, const char **error) {
  size_t size;
  const char *result = xml_operation_rewrite(arena, text, strlen(text), BYTES_MAX, &size, error);
  assert_true(!result == !!*error);
  if (result)
    assert_int_equal(strlen(result), size);
  return result;
}

static void a_fragment_is_written_again(void **state) {
  static const struct {
    const char *text, *written;
  } rows[] = {
      {"", ""},
      {"text", "text"},
      {"<a/>", "<a/>"},
      {"<a></a><b>1</b>", "<a/><b>1</b>"},
      {"<a x='1' y=\"two\"/>", "<a x=\"1\" y=\"two\"/>"},
      {"<a x='&lt;&amp;&quot;&#10;&#9;\"'/>", "<a x=\"&lt;&amp;&quot;&#10;&#9;&quot;\"/>"},
      {"<a>&lt;&gt;&amp;&apos;&#65;&#x42;</a>", "<a>&lt;&gt;&amp;'AB</a>"},
      {"<a><!-- gone -->x<!-- too --></a>", "<a>x</a>"},
      {"<!-- gone --><a/>", "<a/>"},
      {"<a><![CDATA[<b>&]]></a>", "<a>&lt;b&gt;&amp;</a>"},
      {" <a> <b/>\n</a> ", " <a> <b/>\n</a> "},
      {"<a>line\r\nline\r</a>", "<a>line\nline\n</a>"},
      {"<a>&#13;</a>", "<a>&#13;</a>"},
      {"<a><![CDATA[1\r\n2\r3\r\r\n]]>\r</a>\r", "<a>1\n2\n3\n\n\n</a>\n"},
      {"<p:a xmlns:p='urn:x' p:y='1'/>", "<p:a xmlns:p=\"urn:x\" p:y=\"1\"/>"},
      {"<p:a xmlns:p='urn:x?a&#38;b' y='&amp;#38;'/>", "<p:a xmlns:p=\"urn:x?a&amp;b\" y=\"&amp;#38;\"/>"},
      {"<a xmlns='http://x/?a=1&amp;b=2'/>", "<a xmlns=\"http://x/?a=1&amp;b=2\"/>"},
      {"<a xmlns='urn:x'><b/></a>", "<a xmlns=\"urn:x\"><b/></a>"},
      {"<\xe5\xad\x97>\xf0\x9f\x8e\xac</\xe5\xad\x97>", "<\xe5\xad\x97>\xf0\x9f\x8e\xac</\xe5\xad\x97>"},
      {"<a xml:lang='en'/>", "<a xml:lang=\"en\"/>"},
      {"<Operation><Operation/></Operation>", "<Operation><Operation/></Operation>"},
      {"<a>]]&gt;</a>", "<a>]]&gt;</a>"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const char *error, *written = rewrite(*state, rows[i].text, &error);
    if (!written)
      fail_msg("%s: %s", rows[i].text, error);
    assert_string_equal(written, rows[i].written);
    assert_string_equal(rewrite(*state, written, &error), written);
  }
}

static void what_is_no_fragment_is_refused_by_name(void **state) {
  static const struct {
    const char *text, *error;
  } rows[] = {
      {"<a>", "not well-formed: line 1"},
      {"</a>", "not well-formed"},
      {"<a></b>", "not well-formed"},
      {"\n\n<a></b>", "line 3"},
      {"<a x='1' x='2'/>", "not well-formed"},
      {"<a x=1/>", "not well-formed"},
      {"a & b", "not well-formed"},
      {"<a>&nbsp;</a>", "not well-formed"},
      {"<a>&#0;</a>", "not well-formed"},
      {"<a>&#xFFFE;</a>", "not well-formed"},
      {"<a>\x01</a>", "does not allow"},
      {"<a>\xff</a>", "not UTF-8"},
      {"<p:a/>", "not well-formed"},
      {"<a p:x='1'/>", "not well-formed"},
      {"<?php echo ?>", "processing instructions"},
      {"<a><?x?></a>", "processing instructions"},
      {"<?xml version='1.0'?><a/>", ""},
      {"<!DOCTYPE a><a/>", "DOCTYPE"},
      {"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "DOCTYPE"},
      {"<!doctype a><a/>", "not well-formed"},
      {"</Operation>", "not well-formed"},
      {"</Operation><Operation>", "not well-formed"},
      {"</Operation><!-- -->", "not well-formed"},
      {"</Operation><?x?><Operation>", ""},
      {"<a>]]></a>", "not well-formed"},
      {"<!-- -- -->", "not well-formed"},
      {"<![CDATA[", "not well-formed"},
      {"<a/><", "not well-formed"},
      /* Names of the fifth edition only. */
      {"<a\xd3\x85/>", "not well-formed"},
      {"<a \xf0\x90\x80\x80='1'/>", "not well-formed"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const char *error;
    if (rewrite(*state, rows[i].text, &error))
      fail_msg("accepted: %s", rows[i].text);
    if (!strstr(error, rows[i].error))
      fail_msg("%s: %s", rows[i].text, error);
  }
}

/* A thread keeps its reader and its writer for the next document. */
static void nothing_is_left_of_the_fragment_before(void **state) {
  static const char *const before[] = {
      "<a", "<a><b>x", "</a>", "<a>&e;</a>", "<a b='1' b='2'/>", "<p:a/>", "<a xmlns:p='u'><p:b>text</p:b></a>",
      "",   "text"};
  const char *error;
  char *large = arena_alloc(*state, 100001);
  memset(large, 'x', 100000);
  for (int i = 0; i < 300; i++) {
    rewrite(*state, before[(size_t)i % COUNT(before)], &error);
    if (i % 50 == 0)
      rewrite(*state, large, &error);
    assert_string_equal(rewrite(*state, "<a b='&lt;'>1</a>\n2<c/>", &error), "<a b=\"&lt;\">1</a>\n2<c/>");
    assert_null(rewrite(*state, "<p:a/>", &error));
    assert_non_null(strstr(error, "line 1: "));
  }
}

static void depth_has_a_limit(void **state) {
  char text[XML_DEPTH_MAX * 8 + 64];
  for (int depth = XML_DEPTH_MAX - 1; depth <= XML_DEPTH_MAX + 1; depth++) {
    text[0] = 0;
    for (int i = 0; i < depth; i++)
      strcat(text, "<a>");
    strcat(text, "x");
    for (int i = 0; i < depth; i++)
      strcat(text, "</a>");
    const char *error, *written = rewrite(*state, text, &error);
    assert_true(!!written == (depth <= XML_DEPTH_MAX));
    if (!written)
      assert_non_null(strstr(error, "32 elements deep"));
  }
}

static void size_has_a_limit_before_and_after(void **state) {
  char text[] = "<a>\"\"\"\"</a>";
  size_t size;
  const char *error;
  assert_non_null(xml_operation_rewrite(*state, text, strlen(text), 100, &size, &error));
  assert_null(xml_operation_rewrite(*state, text, strlen(text), strlen(text) - 1, &size, &error));
  assert_non_null(strstr(error, "longer than"));
  assert_null(xml_operation_rewrite(*state, text, strlen(text), strlen(text), &size, &error));
  assert_non_null(strstr(error, "escaped"));
}

/* --- callbacks --- */

static int zone_of_china(int64_t unix_s) {
  (void)unix_s;
  return 8 * 3600;
}

static int zone_of_newfoundland(int64_t unix_s) {
  (void)unix_s;
  return -(3 * 3600 + 30 * 60);
}

static void tell_start(void *told, const char *name) {
  strcat(told, "(");
  strcat(told, name);
}

static void tell_attribute(void *told, const char *name, const char *value) {
  sprintf((char *)told + strlen(told), "[%s=%s]", name, value);
}

static void tell_text(void *told, const char *text) {
  strcat(told, text);
}

static void tell_end(void *told) {
  strcat(told, ")");
}

struct sample {
  Ringback__V1__Job job;
  Ringback__V1__JobSpec spec;
  Ringback__V1__JobInput input;
  Ringback__V1__ObjectInput object;
  Ringback__V1__Payload operation, result;
  Ringback__V1__OpaquePayload opaque, opaque_result;
  Google__Protobuf__Timestamp created, started, ended;
  struct body_source source;
};

static void sample_init(struct sample *s) {
  *s = (struct sample){.job = RINGBACK__V1__JOB__INIT,
                       .spec = RINGBACK__V1__JOB_SPEC__INIT,
                       .input = RINGBACK__V1__JOB_INPUT__INIT,
                       .object = RINGBACK__V1__OBJECT_INPUT__INIT,
                       .operation = RINGBACK__V1__PAYLOAD__INIT,
                       .result = RINGBACK__V1__PAYLOAD__INIT,
                       .opaque = RINGBACK__V1__OPAQUE_PAYLOAD__INIT,
                       .opaque_result = RINGBACK__V1__OPAQUE_PAYLOAD__INIT,
                       .created = GOOGLE__PROTOBUF__TIMESTAMP__INIT,
                       .started = GOOGLE__PROTOBUF__TIMESTAMP__INIT,
                       .ended = GOOGLE__PROTOBUF__TIMESTAMP__INIT};
  s->created.seconds = 1656588620; /* 2022-06-30T19:30:20+0800 */
  s->created.nanos = 999000000;
  s->started.seconds = 1656588621;
  s->ended.seconds = 1656588680;
  s->object.object = (char *)"input/demo.mp4";
  s->object.region = (char *)"ap-chongqing";
  s->input.source_case = RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT;
  s->input.object = &s->object;
  s->operation.form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  s->operation.xml =
      (char *)"<TemplateId>t1</TemplateId><Output><Bucket>out</Bucket><Object>a&amp;b.mp4</Object></Output>";
  s->result.form_case = RINGBACK__V1__PAYLOAD__FORM_XML;
  s->result.xml = (char *)"<MediaResult><Size>42</Size></MediaResult>";
  s->spec.tag = (char *)"Transcode";
  s->spec.input = &s->input;
  s->spec.operation = &s->operation;
  s->spec.user_data = (char *)"<mine>";
  s->spec.priority = 7;
  s->job.id = (char *)"j0123456789abcdef0123456789abcdef";
  s->job.queue_id = (char *)"p0123456789abcdef0123456789abcdef";
  s->job.queue = (char *)"buckets/demo/queues/queue-1";
  s->job.spec = &s->spec;
  s->job.create_time = &s->created;
  s->source = (struct body_source){.job = &s->job, .bucket = "demo", .zone = zone_of_china};
}

static void expect_body(void **state, const struct sample *s, const char *expected) {
  size_t size;
  const char *body = xml_callback_render(*state, &s->source, &size);
  assert_non_null(body);
  assert_string_equal(body, expected);
  assert_int_equal(strlen(expected), size);
}

#define DETAIL(code, message, state, progress, start, end)                                                             \
  "<JobsDetail><Code>" code "</Code><Message>" message "</Message><JobId>j0123456789abcdef0123456789abcdef</JobId>"    \
  "<Tag>Transcode</Tag><State>" state "</State><Progress>" progress                                                    \
  "</Progress><CreationTime>2022-06-30T19:30:20+0800"                                                                  \
  "</CreationTime><StartTime>" start "</StartTime><EndTime>" end                                                       \
  "</EndTime><QueueId>p0123456789abcdef0123456789abcdef</QueueId>"
#define HEAD(code, message, state, progress, start, end) "<Response>" DETAIL(code, message, state, progress, start, end)
#define INPUT "<Input><BucketId>demo</BucketId><Object>input/demo.mp4</Object><Region>ap-chongqing</Region></Input>"
#define BLOCKS "<TemplateId>t1</TemplateId><Output><Bucket>out</Bucket><Object>a&amp;b.mp4</Object></Output>"
#define TAIL                                                                                                           \
  "<UserData>&lt;mine&gt;</UserData><JobLevel>7</JobLevel></Operation></JobsDetail><NonExistJobIds></"                 \
  "NonExistJobIds></Response>"
#define STARTED "2022-06-30T19:30:21+0800"
#define ENDED "2022-06-30T19:31:20+0800"

static void success_has_its_golden_bytes(void **state) {
  struct sample s;
  sample_init(&s);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS;
  s.job.progress = 100;
  s.job.code = (char *)"Success";
  s.job.message = (char *)"said by the worker, not shown";
  s.job.start_time = &s.started;
  s.job.end_time = &s.ended;
  s.job.result = &s.result;
  expect_body(state, &s,
              HEAD("Success", "", "Success", "100", STARTED, ENDED) INPUT
              "<Operation>" BLOCKS "<MediaResult><Size>42</Size></MediaResult>" TAIL);
}

static void failure_has_its_golden_bytes(void **state) {
  struct sample s;
  sample_init(&s);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED;
  s.job.progress = 40;
  s.job.code = (char *)"InvalidInput";
  s.job.message = (char *)"no such object: a<b>\x1b[0m";
  s.job.start_time = &s.started;
  s.job.end_time = &s.ended;
  expect_body(state, &s,
              HEAD("InvalidInput", "no such object: a&lt;b&gt;\xef\xbf\xbd[0m", "Failed", "40", STARTED, ENDED) INPUT
              "<Operation>" BLOCKS TAIL);
}

static void the_current_shape_has_its_golden_bytes(void **state) {
  struct sample s;
  sample_init(&s);
  s.source.format = RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_CURRENT;
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED;
  s.job.progress = 40;
  s.job.code = (char *)"InvalidInput";
  s.job.message = (char *)"no such object";
  s.job.start_time = &s.started;
  s.job.end_time = &s.ended;
  expect_body(state, &s,
              "<Response><EventName>TaskFinish</EventName>" DETAIL("InvalidInput", "no such object", "Failed", "40",
                                                                   STARTED, ENDED) INPUT
              "<Operation>" BLOCKS "<UserData>&lt;mine&gt;</UserData><JobLevel>7</JobLevel></Operation></JobsDetail>"
              "</Response>");
}

static void a_walk_tells_a_fragment_in_its_order(void **state) {
  char told[256] = "";
  struct xml_walk walk = {told, tell_start, tell_attribute, tell_text, tell_end};
  const char *xml = "<a b=\"1\" c=\"&lt;\">x<![CDATA[y]]><!-- no --><d/></a> z";
  assert_null(xml_fragment_walk(*state, xml, strlen(xml), &walk));
  assert_string_equal(told, "(a[b=1][c=<]xy(d)) z");
  assert_non_null(xml_fragment_walk(*state, "<a></b>", 7, &walk));
  assert_non_null(xml_fragment_walk(*state, "<?p i?>", 7, &walk));
  assert_non_null(xml_fragment_walk(*state, "a\x01", 2, &walk));
}

static void waiting_states_have_their_golden_bytes(void **state) {
  struct sample s;
  sample_init(&s);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED;
  expect_body(state, &s, HEAD("Success", "", "Submitted", "0", "-", "-") INPUT "<Operation>" BLOCKS TAIL);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_PAUSE;
  expect_body(state, &s, HEAD("Success", "", "Pause", "0", "-", "-") INPUT "<Operation>" BLOCKS TAIL);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL;
  s.job.end_time = &s.ended;
  expect_body(state, &s, HEAD("Success", "", "Cancel", "0", "-", ENDED) INPUT "<Operation>" BLOCKS TAIL);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING;
  s.job.start_time = &s.started;
  s.job.end_time = 0;
  s.job.progress = 3;
  expect_body(state, &s, HEAD("Success", "", "Running", "3", STARTED, "-") INPUT "<Operation>" BLOCKS TAIL);
}

static void opaque_payloads_are_base64(void **state) {
  struct sample s;
  sample_init(&s);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED;
  uint8_t data[] = {0, 1, 2, 0xff};
  s.opaque.data = (ProtobufCBinaryData){sizeof(data), data};
  s.opaque.content_type = (char *)"application/x-bytes; a=\"b\"";
  s.operation.form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
  s.operation.opaque = &s.opaque;
  s.result.form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
  s.result.opaque = &s.opaque_result;
  s.job.result = &s.result;
  expect_body(state, &s,
              HEAD("Success", "", "Submitted", "0", "-", "-") INPUT
              "<Operation><Opaque ContentType=\"application/x-bytes; a=&quot;b&quot;\">AAEC/w==</Opaque>"
              "<OpaqueResult ContentType=\"application/octet-stream\"></OpaqueResult>" TAIL);
}

static void a_result_that_does_not_parse_is_carried_as_bytes(void **state) {
  struct sample s;
  sample_init(&s);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED;
  s.job.result = &s.result;
  s.result.xml = (char *)"<a>1</b>";
  expect_body(state, &s,
              HEAD("Success", "", "Submitted", "0", "-", "-") INPUT
              "<Operation>" BLOCKS "<OpaqueResult ContentType=\"application/xml\">PGE+MTwvYj4=</OpaqueResult>" TAIL);
}

static void inputs_have_two_forms(void **state) {
  struct sample s;
  sample_init(&s);
  s.job.state = RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED;
  s.input.source_case = RINGBACK__V1__JOB_INPUT__SOURCE_URL;
  s.input.url = (char *)"https://example.com/?a=1&b=2";
  expect_body(
      state, &s,
      HEAD("Success", "", "Submitted", "0", "-", "-") "<Input><Url>https://example.com/?a=1&amp;b=2</Url></Input>"
                                                      "<Operation>" BLOCKS TAIL);
  s.spec.input = 0;
  s.spec.operation = 0;
  expect_body(state, &s,
              HEAD("Success", "", "Submitted", "0", "-",
                   "-") "<Input><BucketId>demo</BucketId><Object></Object><Region></Region>"
                        "</Input><Operation>" TAIL);
}

static void times_carry_their_zone(void **state) {
  Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
  assert_string_equal(body_time(*state, &time, zone_of_newfoundland), "1969-12-31T20:30:00-0330");
  time.seconds = 1583020799;
  assert_string_equal(body_time(*state, &time, zone_of_china), "2020-03-01T07:59:59+0800");
  time.seconds = INT64_C(253402300799); /* the last that a Timestamp can tell */
  assert_string_equal(body_time(*state, &time, zone_of_newfoundland), "9999-12-31T20:29:59-0330");
  time.seconds = INT64_C(253402400000);
  assert_string_equal(body_time(*state, &time, zone_of_newfoundland), "-");
  assert_string_equal(body_time(*state, 0, zone_of_china), "-");
}

int main(void) {
#define IN_ARENA(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_gate_takes_what_xml_can_carry),
      cmocka_unit_test(the_gate_refuses_what_xml_cannot_carry),
      cmocka_unit_test(a_byte_counts_wherever_it_stands),
      IN_ARENA(nothing_is_left_of_the_fragment_before),
      IN_ARENA(repair_puts_the_replacement_character),
      IN_ARENA(a_fragment_is_written_again),
      IN_ARENA(what_is_no_fragment_is_refused_by_name),
      IN_ARENA(depth_has_a_limit),
      IN_ARENA(size_has_a_limit_before_and_after),
      IN_ARENA(success_has_its_golden_bytes),
      IN_ARENA(failure_has_its_golden_bytes),
      IN_ARENA(the_current_shape_has_its_golden_bytes),
      IN_ARENA(a_walk_tells_a_fragment_in_its_order),
      IN_ARENA(waiting_states_have_their_golden_bytes),
      IN_ARENA(opaque_payloads_are_base64),
      IN_ARENA(a_result_that_does_not_parse_is_carried_as_bytes),
      IN_ARENA(inputs_have_two_forms),
      IN_ARENA(times_carry_their_zone),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
