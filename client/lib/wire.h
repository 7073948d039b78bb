/* Reading and writing protobuf's wire format field by field, for whoever must not pay for whole messages: the load
 * generator. Nothing is allocated; texts and messages are looked at where they lie. */
#ifndef RINGBACK_CLIENT_LIB_WIRE_H
#define RINGBACK_CLIENT_LIB_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_VARINT_BYTES_MAX 10

/* What is left to be read of a message. */
struct wire {
  const uint8_t *at, *end;
};

/* One field. `bytes` is valid for texts, bytes and messages, otherwise `number`. */
struct wire_field {
  uint32_t number_of; /* the field's number */
  uint64_t number;
  struct wire bytes;
};

static inline bool wire_varint(struct wire *wire, uint64_t *number) {
  *number = 0;
  for (unsigned shift = 0; wire->at < wire->end && shift < 70; shift += 7) {
    uint8_t byte = *wire->at++;
    *number |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
    if (byte < 0x80)
      return true;
  }
  return false;
}

/* The next field; false at the end, and where the bytes are no message: then `at` is not `end`. */
static inline bool wire_next(struct wire *wire, struct wire_field *field) {
  struct wire rest = *wire;
  uint64_t key;
  if (rest.at == rest.end || !wire_varint(&rest, &key))
    return false;
  field->number_of = (uint32_t)(key >> 3);
  field->number = 0;
  field->bytes = (struct wire){NULL, NULL};
  size_t fixed = 0;
  switch (key & 7) {
  case 0:
    if (!wire_varint(&rest, &field->number))
      return false;
    break;
  case 2:
    if (!wire_varint(&rest, &field->number) || field->number > (uint64_t)(rest.end - rest.at))
      return false;
    field->bytes = (struct wire){rest.at, rest.at + field->number};
    rest.at += field->number;
    break;
  case 1:
  case 5:
    fixed = (key & 7) == 1 ? 8 : 4;
    if ((size_t)(rest.end - rest.at) < fixed)
      return false;
    rest.at += fixed;
    break;
  default:
    return false;
  }
  *wire = rest;
  return true;
}

/* The last field of that number within a message; false when there is none. */
static inline bool wire_find(struct wire wire, uint32_t number_of, struct wire_field *found) {
  struct wire_field field;
  bool is_there = false;
  while (wire_next(&wire, &field))
    if (field.number_of == number_of) {
      *found = field;
      is_there = true;
    }
  return is_there;
}

static inline size_t wire_varint_bytes(uint64_t number) {
  size_t bytes = 1;
  for (; number >= 0x80; number >>= 7)
    bytes++;
  return bytes;
}

static inline uint8_t *wire_put_varint(uint8_t *at, uint64_t number) {
  for (; number >= 0x80; number >>= 7)
    *at++ = (uint8_t)(number | 0x80);
  *at++ = (uint8_t)number;
  return at;
}

/* Fields up to number 15, whose keys are one byte. */
static inline uint8_t *wire_put_number(uint8_t *at, unsigned number_of, uint64_t number) {
  *at++ = (uint8_t)(number_of << 3);
  return wire_put_varint(at, number);
}

static inline uint8_t *wire_put_bytes(uint8_t *at, unsigned number_of, const void *bytes, size_t count) {
  *at++ = (uint8_t)(number_of << 3 | 2);
  at = wire_put_varint(at, count);
  memcpy(at, bytes, count);
  return at + count;
}

#endif
