/* What bytes from outside are: UTF-8, XML characters, printable ASCII. Pure; a text of length 0 is all of them.
 *
 * UTF-8 is strict (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#ifndef RINGBACK_SERVER_BASE_TEXT_H
#define RINGBACK_SERVER_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of the character that the data begins with, 1 to 4, and its code point; 0 when it is no UTF-8 or length is
 * 0. */
size_t text_decode(const void *data, size_t length, uint32_t *code_point);

bool text_is_utf8(const void *data, size_t length);

/* UTF-8 of characters that XML 1.0 can carry (https://www.w3.org/TR/xml/#charsets): tab, line feed, carriage return,
 * and everything from U+0020 on but U+FFFE and U+FFFF. */
bool text_is_xml(const void *data, size_t length);
bool text_is_xml_char(uint32_t code_point);

/* Only 0x20 to 0x7E. */
bool text_is_printable_ascii(const void *data, size_t length);

/* How many characters (code points) there are in valid UTF-8. */
size_t text_utf8_characters(const void *data, size_t length);

/* The largest length up to bytes_max at which the text can be cut without splitting a character. */
size_t text_utf8_cut(const void *data, size_t length, size_t bytes_max);

#endif
