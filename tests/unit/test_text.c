/* Strict UTF-8, XML characters, printable ASCII: every boundary of the definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/base/text.h"

/* The plain encoder that the decoder is compared with. */
static size_t encode(uint32_t point, unsigned char *bytes) {
  if (point < 0x80) {
    bytes[0] = (unsigned char)point;
    return 1;
  }
  size_t size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  for (size_t i = size - 1; i > 0; i--, point >>= 6)
    bytes[i] = (unsigned char)(0x80 | (point & 0x3F));
  static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
  bytes[0] = (unsigned char)(first[size] | point);
  return size;
}

static void every_code_point_but_surrogates_is_utf8(void **state) {
  (void)state;
  for (uint32_t point = 0; point < 0x120000; point++) {
    unsigned char bytes[4];
    uint32_t decoded = UINT32_MAX;
    size_t size = encode(point, bytes);
    int valid = point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
    assert_int_equal(text_decode(bytes, size, &decoded), valid ? size : 0);
    if (valid)
      assert_int_equal(decoded, point);
    assert_int_equal(text_is_utf8(bytes, size), valid);
    if (size > 1)
      assert_false(text_is_utf8(bytes, size - 1));
  }
}

static void malformed_sequences_are_no_utf8(void **state) {
  (void)state;
  static const char *const bad[] = {
      "\x80",         "\xBF",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x80\x80",
      "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
      "\xFF",         "\xC3(",        "\xE2\x82",         "\xE2(\xA1",        "\xF0\x9F\x98"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_false(text_is_utf8(bad[i], strlen(bad[i])));
    for (size_t before = 0; before < 20; before++) { /* wherever it stands after a run of ASCII */
      char text[64];
      memset(text, 'a', sizeof text);
      memcpy(text + before, bad[i], strlen(bad[i]));
      assert_false(text_is_utf8(text, sizeof text));
      assert_false(text_is_xml(text, sizeof text));
    }
  }
}

static void nothing_at_all_is_every_kind_of_text(void **state) {
  (void)state;
  assert_true(text_is_utf8(NULL, 0) && text_is_xml(NULL, 0) && text_is_printable_ascii(NULL, 0));
}

static void xml_excludes_controls_and_noncharacters(void **state) {
  (void)state;
  assert_true(text_is_xml("a\t\r\n\xC2\x85\xEF\xBF\xBD\xF4\x8F\xBF\xBF", 13));
  assert_false(text_is_xml("\x01", 1));
  assert_false(text_is_xml("a\0b", 3));
  assert_false(text_is_xml("\xEF\xBF\xBE", 3));
  assert_false(text_is_xml("\xEF\xBF\xBF", 3));
  assert_true(text_is_xml_char(0x20) && text_is_xml_char(0xD7FF) && text_is_xml_char(0xE000) &&
              text_is_xml_char(0x10000));
  assert_false(text_is_xml_char(0x1F) || text_is_xml_char(0xD800) || text_is_xml_char(0x110000));
}

static void printable_ascii_is_space_to_tilde(void **state) {
  (void)state;
  for (int byte = 0; byte < 256; byte++) {
    unsigned char text = (unsigned char)byte;
    assert_int_equal(text_is_printable_ascii(&text, 1), byte >= 0x20 && byte <= 0x7E);
  }
}

static void characters_are_counted_and_never_split(void **state) {
  (void)state;
  const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  assert_int_equal(text_utf8_characters(text, 10), 4);
  static const size_t cuts[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
  for (size_t most = 0; most < sizeof cuts / sizeof cuts[0]; most++)
    assert_int_equal(text_utf8_cut(text, 10, most), cuts[most]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_code_point_but_surrogates_is_utf8),
      cmocka_unit_test(malformed_sequences_are_no_utf8),
      cmocka_unit_test(nothing_at_all_is_every_kind_of_text),
      cmocka_unit_test(xml_excludes_controls_and_noncharacters),
      cmocka_unit_test(printable_ascii_is_space_to_tilde),
      cmocka_unit_test(characters_are_counted_and_never_split),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
