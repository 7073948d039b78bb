/* The walk over wire bytes: limits, and agreement with protobuf-c about what is malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "server/rpc/wire_check.h"

extern const unsigned char ringback_descriptor_set[];
extern const size_t ringback_descriptor_set_size;

#define SET (&google__protobuf__file_descriptor_set__descriptor)
#define BAD_REQUEST (&google__rpc__bad_request__descriptor)
#define STATUS (&google__rpc__status__descriptor)

static struct wire_problem problem;

static int make(void **state) {
  *state = arena_create();
  return 0;
}

static int unmake(void **state) {
  arena_destroy(*state);
  return 0;
}

static void a_real_message_passes(void **state) {
  assert_true(wire_check(SET, ringback_descriptor_set, ringback_descriptor_set_size, *state, &problem));
  assert_true(wire_check(SET, NULL, 0, *state, &problem));
}

static void the_path_counts_elements_of_its_own_field_only(void **state) {
  /* field_violations: {}, an unknown field 9, field_violations: {field: "ok", description: "\xFF"} */
  static const uint8_t bytes[] = {0x0A, 0, 0x4A, 1, 'x', 0x0A, 7, 0x0A, 2, 'o', 'k', 0x12, 1, 0xFF};
  assert_false(wire_check(BAD_REQUEST, bytes, sizeof bytes, *state, &problem));
  assert_string_equal(problem.path, "field_violations[1].description");
}

static void bytes_fields_and_unknown_fields_may_hold_anything(void **state) {
  /* details: {value: "\xFF\x00"}, unknown 15: "\xFF" */
  static const uint8_t bytes[] = {0x1A, 4, 0x12, 2, 0xFF, 0, 0x7A, 1, 0xFF};
  assert_true(wire_check(STATUS, bytes, sizeof bytes, *state, &problem));
}

static void too_many_fields_are_refused(void **state) {
  size_t size = 2 * (WIRE_FIELDS_MAX + 1);
  uint8_t *bytes = calloc(1, size);
  for (size_t i = 0; i < size; i += 2)
    bytes[i] = 0x0A;
  assert_true(wire_check(BAD_REQUEST, bytes, size - 2, *state, &problem));
  assert_false(wire_check(BAD_REQUEST, bytes, size, *state, &problem));
  assert_string_equal(problem.description, "has too many fields");
  free(bytes);
}

static void every_cut_of_a_message_is_safe(void **state) {
  for (size_t size = 0; size < 3000; size++) {
    uint8_t *exact = malloc(size + 1); /* so that a sanitizer sees a read beyond the end */
    memcpy(exact, ringback_descriptor_set, size);
    wire_check(SET, exact, size, *state, &problem);
    free(exact);
  }
}

static void what_passes_after_random_damage_can_be_unpacked_or_is_refused(void **state) {
  uint8_t *bytes = malloc(ringback_descriptor_set_size);
  srand(1);
  for (int round = 0; round < 300; round++) {
    memcpy(bytes, ringback_descriptor_set, ringback_descriptor_set_size);
    for (int flips = 0; flips < 3; flips++)
      bytes[(size_t)rand() % ringback_descriptor_set_size] = (uint8_t)rand();
    if (wire_check(SET, bytes, ringback_descriptor_set_size, *state, &problem))
      protobuf_c_message_unpack(SET, arena_allocator(*state), ringback_descriptor_set_size, bytes);
    arena_reset(*state);
  }
  free(bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_real_message_passes, make, unmake),
      cmocka_unit_test_setup_teardown(the_path_counts_elements_of_its_own_field_only, make, unmake),
      cmocka_unit_test_setup_teardown(bytes_fields_and_unknown_fields_may_hold_anything, make, unmake),
      cmocka_unit_test_setup_teardown(too_many_fields_are_refused, make, unmake),
      cmocka_unit_test_setup_teardown(every_cut_of_a_message_is_safe, make, unmake),
      cmocka_unit_test_setup_teardown(what_passes_after_random_damage_can_be_unpacked_or_is_refused, make, unmake),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
