/* See random_xml.h. A fragment is written by walking down a random tree; it is spoilt afterwards, byte by byte. */
#include "tests/callbacks/random_xml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* splitmix64: every number of a seed has a stream of its own, so that one job can be made again. */
static uint64_t random_next(struct random *random) {
  uint64_t z = random->state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void random_seed(struct random *random, uint64_t seed, uint64_t number) {
  random->state = seed * 0xd1342543de82ef95u + number;
  random->state = random_next(random);
}

unsigned random_below(struct random *random, unsigned limit) {
  return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

void text_clear(struct text *text) {
  text->length = 0;
  text_add(text, "", 0);
}

void text_add(struct text *text, const void *bytes, size_t length) {
  if (text->length + length + 1 > text->capacity) {
    text->capacity = (text->length + length + 1) * 2;
    text->bytes = realloc(text->bytes, text->capacity);
    if (!text->bytes)
      abort();
  }
  if (length)
    memcpy(text->bytes + text->length, bytes, length);
  text->length += length;
  text->bytes[text->length] = 0;
}

static void add(struct text *text, const char *words) {
  text_add(text, words, strlen(words));
}

/* As UTF-8 would write it, surrogates and all. */
static void add_character(struct text *text, uint32_t c) {
  char bytes[4];
  size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = size; i-- > 1; c >>= 6)
    bytes[i] = (char)(0x80 | (c & 0x3f));
  bytes[0] = (char)(first[size] | c);
  text_add(text, bytes, size);
}

/* --- texts --- */

static const char *const pieces[] = {"Transcode",
                                     "input/demo.mp4",
                                     " ",
                                     "  ",
                                     "a",
                                     "0",
                                     "-",
                                     "ap-chongqing",
                                     "\t",
                                     "\n",
                                     "\r",
                                     "\r\n",
                                     "\n\n",
                                     "<",
                                     ">",
                                     "&",
                                     "\"",
                                     "'",
                                     "]]>",
                                     "]]",
                                     "]]&gt;",
                                     "<![CDATA[",
                                     "<!--",
                                     "-->",
                                     "--",
                                     "<?xml version=\"1.0\"?>",
                                     "<!DOCTYPE a>",
                                     "&amp;",
                                     "&#0;",
                                     "&#x1F;",
                                     "&nbsp;",
                                     "&lt;script&gt;",
                                     "</Response>",
                                     "<JobId>evil</JobId>",
                                     "\x01",
                                     "\x08",
                                     "\x0b",
                                     "\x0c",
                                     "\x0e",
                                     "\x1b[31m",
                                     "\x1f",
                                     "\x7f",
                                     "\xc2\x80",
                                     "\xc2\x85",
                                     "\xc2\x9f",
                                     "\xc2\xa0",
                                     "\xe2\x80\xa8",
                                     "\xe2\x80\xa9",
                                     "\xef\xbb\xbf",
                                     "\xef\xbf\xbe",
                                     "\xef\xbf\xbf",
                                     "\xef\xbf\xbd",
                                     "\xed\xa0\x80",
                                     "\xed\xbf\xbf",
                                     "\xed\x9f\xbf",
                                     "\xee\x80\x80",
                                     "\xf0\x90\x80\x80",
                                     "\xf4\x8f\xbf\xbf",
                                     "\xf4\x90\x80\x80",
                                     "\xf0\x9f\xbf\xbe",
                                     "\xc0\x80",
                                     "\xc1\xbf",
                                     "\xe0\x9f\xbf",
                                     "\xf0\x8f\xbf\xbf",
                                     "\xf8\x88\x80\x80\x80",
                                     "\xff",
                                     "\xfe",
                                     "\x80",
                                     "\xbf",
                                     "\xc2",
                                     "\xe2\x82",
                                     "\xf0\x9f\x8e",
                                     "\xe5\xad\x97",
                                     "\xf0\x9f\x8e\xac",
                                     "\xd7\xa9\xd7\x9c",
                                     "e\xcc\x81",
                                     "{",
                                     "}",
                                     "\\",
                                     "\\u0000",
                                     "\\\"",
                                     "/",
                                     "%00",
                                     "${x}",
                                     "%s%n"};

static uint32_t random_character(struct random *random) {
  static const uint32_t limits[] = {0x20, 0x80, 0x800, 0x10000, 0x110000, 0x200000};
  return 1 + random_below(random, limits[random_below(random, COUNT(limits))] - 1);
}

void random_text(struct random *random, struct text *text) {
  text_clear(text);
  unsigned kind = random_below(random, 16);
  if (kind == 0)
    return;
  unsigned count = 1 + random_below(random, 6);
  if (random_below(random, 2000) == 0)
    count = 1 + random_below(random, 4000);
  for (unsigned i = 0; i < count; i++) {
    if (kind < 6) {
      add(text, pieces[random_below(random, 8)]);
    } else if (kind < 13) {
      add(text, pieces[random_below(random, COUNT(pieces))]);
    } else if (kind < 15) {
      add_character(text, random_character(random));
    } else {
      unsigned char byte = (unsigned char)(1 + random_below(random, 255));
      text_add(text, &byte, 1);
    }
  }
}

void random_bytes(struct random *random, struct text *text) {
  text_clear(text);
  unsigned count = random_below(random, random_below(random, 2000) ? 40 : 20000);
  for (unsigned i = 0; i < count; i++) {
    unsigned char byte = (unsigned char)random_below(random, 256);
    text_add(text, &byte, 1);
  }
}

/* --- fragments --- */

static const char *const names[] = {
    "TemplateId",        "Output",   "Object",   "a",    "b",        "a", "_", "x.y-z", "Size", "\xe5\xad\x97",
    "\xc3\xa9t\xc3\xa9", "UserData", "JobLevel", "Code", "Operation"};

static void add_valid_character(struct random *random, struct text *text) {
  uint32_t c;
  do
    c = random_character(random);
  while (c < 0x20 || (c >= 0xd800 && c <= 0xdfff) || c == 0xfffe || c == 0xffff || c > 0x10ffff ||
         strchr("<>&\"'", (int)(c < 0x80 ? c : 'a')));
  add_character(text, c);
}

static void add_reference(struct random *random, struct text *text) {
  static const char *const references[] = {"&lt;", "&gt;",  "&amp;",    "&quot;",    "&apos;",
                                           "&#9;", "&#13;", "&#xfffd;", "&#x10FFFF;"};
  add(text, references[random_below(random, COUNT(references))]);
}

static void add_text_node(struct random *random, struct text *text) {
  unsigned count = random_below(random, 5);
  for (unsigned i = 0; i < count; i++) {
    switch (random_below(random, 8)) {
    case 0:
      add_reference(random, text);
      break;
    case 1:
      add(text, random_below(random, 2) ? "\r\n" : "\t");
      break;
    case 2:
      add(text, "\"'");
      break;
    case 3:
      add_valid_character(random, text);
      break;
    default:
      add(text, pieces[random_below(random, 8)]);
    }
  }
}

static void add_attributes(struct random *random, struct text *text) {
  static const char *const attributes[] = {" x", " y", " \xe5\xad\x97", " xml:lang", " long-name"};
  unsigned first = random_below(random, COUNT(attributes)), count = random_below(random, 3);
  for (unsigned i = 0; i < count && first + i < COUNT(attributes); i++) {
    add(text, attributes[first + i]);
    const char *quote = random_below(random, 2) ? "\"" : "'";
    add(text, random_below(random, 2) ? "=" : " =\n");
    add(text, quote);
    for (unsigned k = random_below(random, 4); k > 0; k--) {
      if (random_below(random, 3) == 0)
        add_reference(random, text);
      else if (random_below(random, 3) == 0)
        add_valid_character(random, text);
      else
        add(text, random_below(random, 4) ? "v" : "\t\n");
    }
    add(text, quote);
  }
}

static void add_nodes(struct random *random, struct text *text, unsigned depth, unsigned deepest);

static void add_element(struct random *random, struct text *text, unsigned depth, unsigned deepest) {
  char name[32];
  bool prefixed = random_below(random, 16) == 0;
  snprintf(name, sizeof(name), "%s%s", prefixed ? "p:" : "", names[random_below(random, COUNT(names))]);
  add(text, "<");
  add(text, name);
  if (prefixed)
    add(text, random_below(random, 2) ? " xmlns:p=\"urn:p\"" : " xmlns:p='urn:p' p:z='1'");
  else if (random_below(random, 24) == 0)
    add(text, random_below(random, 2) ? " xmlns=\"urn:d\"" : " xmlns=''");
  if (random_below(random, 3) == 0)
    add_attributes(random, text);
  if (random_below(random, 6) == 0) {
    add(text, random_below(random, 2) ? "/>" : " />");
    return;
  }
  add(text, ">");
  add_nodes(random, text, depth + 1, deepest);
  add(text, "</");
  add(text, name);
  add(text, random_below(random, 8) ? ">" : " >");
}

static void add_nodes(struct random *random, struct text *text, unsigned depth, unsigned deepest) {
  bool narrow = deepest > 6;
  unsigned count = narrow ? 1 : random_below(random, depth ? 3 : 4);
  for (unsigned i = 0; i < count; i++) {
    unsigned kind = random_below(random, 12);
    if (depth < deepest && (narrow || kind < 6)) {
      add_element(random, text, depth, deepest);
    } else if (kind < 10) {
      add_text_node(random, text);
    } else if (kind == 10) {
      add(text, "<![CDATA[<b>&]] >");
      add_text_node(random, text);
      add(text, "]]>");
    } else {
      add(text, "<!-- - <gone> & -->");
    }
  }
}

static void spoil(struct random *random, struct text *text) {
  for (unsigned times = 1 + random_below(random, 3); times > 0 && text->length; times--) {
    size_t at = random_below(random, (unsigned)text->length);
    switch (random_below(random, 4)) {
    case 0:
      text->length = at;
      text->bytes[at] = 0;
      break;
    case 1:
      memmove(text->bytes + at, text->bytes + at + 1, text->length - at);
      text->length--;
      break;
    case 2:
      text->bytes[at] = (char)(1 + random_below(random, 255));
      break;
    default: {
      struct text tail = {0};
      text_add(&tail, text->bytes + at, text->length - at);
      text->length = at;
      if (random_below(random, 4) == 0)
        add_character(text, random_character(random));
      else
        add(text, pieces[random_below(random, COUNT(pieces))]);
      text_add(text, tail.bytes, tail.length);
      free(tail.bytes);
    }
    }
  }
}

bool random_fragment(struct random *random, struct text *text) {
  text_clear(text);
  unsigned kind = random_below(random, 64);
  if (kind < 2) {
    random_text(random, text);
    return false;
  }
  bool too_deep = kind == 2;
  unsigned deepest = too_deep ? 33 + random_below(random, 300) : kind < 6 ? 7 + random_below(random, 26) : 4;
  add_nodes(random, text, 0, deepest);
  if (kind >= 6 && kind < 16) {
    spoil(random, text);
    return false;
  }
  return !too_deep;
}
