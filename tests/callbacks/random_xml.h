/* Random texts of every kind and random fragments of XML, from a seed. */
#ifndef RINGBACK_TESTS_RANDOM_XML_H
#define RINGBACK_TESTS_RANDOM_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
  char *bytes; /* NUL-terminated; NULL before the first byte */
  size_t length, capacity;
};

struct random {
  uint64_t state;
};

void random_seed(struct random *random, uint64_t seed, uint64_t number);
/* 0 to limit - 1. */
unsigned random_below(struct random *random, unsigned limit);

void text_clear(struct text *text);
void text_add(struct text *text, const void *bytes, size_t length);

/* Anything without NUL: words, markup, controls, bytes that are no UTF-8, surrogates, noncharacters; now and then
 * long. */
void random_text(struct random *random, struct text *text);
/* Any bytes. */
void random_bytes(struct random *random, struct text *text);
/* True: a well-formed fragment at most 32 elements deep. False: a spoilt one, or no XML at all. */
bool random_fragment(struct random *random, struct text *text);

#endif
