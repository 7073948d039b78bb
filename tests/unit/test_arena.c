/* The arena: alignment, zeroing, large pieces, reuse after a reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/base/arena.h"

static int make(void **state) {
  *state = arena_create();
  return 0;
}

static int unmake(void **state) {
  arena_destroy(*state);
  return 0;
}

static void every_piece_is_aligned_and_zeroed(void **state) {
  for (int round = 0; round < 3; round++) {
    for (size_t size = 0; size < 3000; size += 7) {
      unsigned char *piece = arena_alloc(*state, size);
      assert_int_equal((uintptr_t)piece % _Alignof(max_align_t), 0);
      for (size_t i = 0; i < size; i++)
        assert_int_equal(piece[i], 0);
      memset(piece, 0xAA, size);
    }
    arena_reset(*state);
  }
}

static void pieces_do_not_overlap(void **state) {
  static const size_t sizes[] = {1, 8191, 8192, 8193, 100, 40000, 3, 1 << 20, 17, 32768, 9000, 5};
  unsigned char *pieces[sizeof sizes / sizeof sizes[0]];
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    pieces[i] = arena_alloc(*state, sizes[i]);
    memset(pieces[i], (int)i + 1, sizes[i]);
  }
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    for (size_t k = 0; k < sizes[i]; k++)
      assert_int_equal(pieces[i][k], i + 1);
}

static void a_reset_gives_the_first_block_again(void **state) {
  void *first = arena_alloc(*state, 16);
  arena_alloc(*state, 100000);
  arena_reset(*state);
  assert_ptr_equal(arena_alloc(*state, 16), first);
}

static void texts_are_copied_and_terminated(void **state) {
  char longer[1000];
  memset(longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = 0;
  assert_string_equal(arena_strdup(*state, "abc"), "abc");
  assert_string_equal(arena_strndup(*state, "abcdef", 3), "abc");
  assert_string_equal(arena_strndup(*state, NULL, 0), "");
  assert_string_equal(arena_printf(*state, "%s[%d]", "jobs", 3), "jobs[3]");
  assert_string_equal(arena_printf(*state, "%s", longer), longer);
  assert_memory_equal(arena_copy(*state, "a\0b", 3), "a\0b", 3);
}

static void the_protobuf_allocator_takes_from_the_arena(void **state) {
  ProtobufCAllocator *allocator = arena_allocator(*state);
  void *piece = allocator->alloc(allocator->allocator_data, 64);
  assert_non_null(piece);
  allocator->free(allocator->allocator_data, piece);
  memset(piece, 1, 64);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(every_piece_is_aligned_and_zeroed, make, unmake),
      cmocka_unit_test_setup_teardown(pieces_do_not_overlap, make, unmake),
      cmocka_unit_test_setup_teardown(a_reset_gives_the_first_block_again, make, unmake),
      cmocka_unit_test_setup_teardown(texts_are_copied_and_terminated, make, unmake),
      cmocka_unit_test_setup_teardown(the_protobuf_allocator_takes_from_the_arena, make, unmake),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
