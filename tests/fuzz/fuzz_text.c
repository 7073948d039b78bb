/* Bytes as text: the strict reader agrees with itself, and a cut never splits a character. */
// libraries: ringback_base
#include "server/base/text.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t at = 0, characters = 0;
  bool all_xml = true, all_printable = true;
  while (at < size) {
    uint32_t code_point = 0;
    size_t length = text_decode(data + at, size - at, &code_point);
    if (length == 0)
      break;
    assert(length <= 4 && length <= size - at && code_point <= 0x10FFFF &&
           !(code_point >= 0xD800 && code_point <= 0xDFFF));
    all_xml = all_xml && text_is_xml_char(code_point);
    all_printable = all_printable && code_point >= 0x20 && code_point <= 0x7E;
    at += length;
    characters++;
  }
  bool whole = at == size;
  assert(text_is_utf8(data, size) == whole);
  assert(text_is_xml(data, size) == (whole && all_xml));
  assert(text_is_printable_ascii(data, size) == (whole && all_printable));
  if (!whole)
    return 0;
  assert(text_utf8_characters(data, size) == characters);
  for (size_t most = 0; most <= size && most < 64; most++) {
    size_t cut = text_utf8_cut(data, size, most);
    assert(cut <= most && most - cut < 4 && text_is_utf8(data, cut));
  }
  return 0;
}
