/* A recursive walk, as deep as messages nest. Its frames link back to their parents, so that only a refusal pays for
 * the path: the index of an element of a repeated field is found by counting its field again up to where the element
 * stands.
 */
#include "server/rpc/wire_check.h"

#include <stdint.h>
#include <string.h>

#include "server/base/text.h"

#define WIRE_VARINT 0
#define WIRE_FIXED64 1
#define WIRE_LENGTH 2
#define WIRE_FIXED32 5

struct frame {
  const struct frame *parent;
  const uint8_t *start;                  /* of this message */
  const ProtobufCFieldDescriptor *field; /* being looked at; NULL: none, or unknown */
  const uint8_t *element;                /* where its tag stands */
};

struct walk {
  struct arena *arena;
  size_t fields;
  struct wire_problem *problem;
};

struct wire_field {
  const uint8_t *tag;
  uint32_t number;
  unsigned type;
  const uint8_t *data; /* of WIRE_LENGTH */
  size_t size;
};

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  uint64_t result = 0;
  for (unsigned shift = 0; shift < 70 && *at < end; shift += 7) {
    uint8_t byte = *(*at)++;
    if (shift < 64)
      result |= (uint64_t)(byte & 0x7F) << shift;
    if (!(byte & 0x80)) {
      *value = result;
      return true;
    }
  }
  return false;
}

/* Takes one field off; false when the bytes are malformed. Groups, which proto3 does not have, count as malformed. */
static bool read_field(const uint8_t **at, const uint8_t *end, struct wire_field *field) {
  uint64_t value;
  field->tag = *at;
  if (!read_varint(at, end, &value) || value > UINT32_MAX || value >> 3 == 0)
    return false;
  field->number = (uint32_t)(value >> 3);
  field->type = (unsigned)(value & 7);
  switch (field->type) {
  case WIRE_VARINT:
    return read_varint(at, end, &value);
  case WIRE_FIXED64:
  case WIRE_FIXED32:
    field->size = field->type == WIRE_FIXED64 ? 8 : 4;
    if ((size_t)(end - *at) < field->size)
      return false;
    *at += field->size;
    return true;
  case WIRE_LENGTH:
    if (!read_varint(at, end, &value) || value > (size_t)(end - *at))
      return false;
    field->data = *at;
    field->size = (size_t)value;
    *at += field->size;
    return true;
  default:
    return false;
  }
}

static size_t element_index(const struct frame *frame) {
  size_t index = 0;
  struct wire_field field;
  const uint8_t *at = frame->start;
  while (at < frame->element && read_field(&at, frame->element, &field))
    index += field.number == frame->field->id;
  return index;
}

static const char *frame_path(struct arena *arena, const struct frame *frame) {
  if (!frame)
    return "";
  const char *before = frame_path(arena, frame->parent);
  if (!frame->field)
    return before;
  const char *dot = *before ? "." : "";
  if (frame->field->label == PROTOBUF_C_LABEL_REPEATED)
    return arena_printf(arena, "%s%s%s[%zu]", before, dot, frame->field->name, element_index(frame));
  return arena_printf(arena, "%s%s%s", before, dot, frame->field->name);
}

static bool refuse(struct walk *walk, const struct frame *frame, const char *description) {
  walk->problem->path = frame_path(walk->arena, frame);
  walk->problem->description = description;
  return false;
}

static bool check_message(struct walk *walk, const struct frame *parent, const ProtobufCMessageDescriptor *descriptor,
                          const uint8_t *data, size_t size, unsigned depth);

static bool check_length(struct walk *walk, const struct frame *frame, const struct wire_field *field, unsigned depth) {
  switch (frame->field->type) {
  case PROTOBUF_C_TYPE_STRING:
    if (memchr(field->data, 0, field->size))
      return refuse(walk, frame, "contains a NUL");
    if (!text_is_utf8(field->data, field->size))
      return refuse(walk, frame, "is not valid UTF-8");
    return true;
  case PROTOBUF_C_TYPE_MESSAGE:
    if (depth == WIRE_DEPTH_MAX)
      return refuse(walk, frame, "is nested too deeply");
    return check_message(walk, frame, frame->field->descriptor, field->data, field->size, depth + 1);
  default: /* bytes, or packed numbers, which protobuf-c checks itself */
    return true;
  }
}

static bool check_message(struct walk *walk, const struct frame *parent, const ProtobufCMessageDescriptor *descriptor,
                          const uint8_t *data, size_t size, unsigned depth) {
  struct frame frame = {parent, data, NULL, NULL};
  struct wire_field field;
  const uint8_t *at = data, *end = data + size;
  while (at < end) {
    frame.field = NULL;
    if (!read_field(&at, end, &field))
      return refuse(walk, &frame, "is not a valid protobuf message");
    if (++walk->fields > WIRE_FIELDS_MAX)
      return refuse(walk, &frame, "has too many fields");
    if (field.type != WIRE_LENGTH)
      continue;
    frame.field = protobuf_c_message_descriptor_get_field(descriptor, field.number);
    frame.element = field.tag;
    if (frame.field && !check_length(walk, &frame, &field, depth))
      return false;
  }
  return true;
}

bool wire_check(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t size, struct arena *arena,
                struct wire_problem *problem) {
  struct walk walk = {arena, 0, problem};
  return size == 0 || check_message(&walk, NULL, descriptor, data, size, 1);
}
