/* What a Work stream holds: the table, against a plain list under random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/services/work_held.h"

enum { JOBS = 300, STEPS = 20000 };

static struct job_id id_of(unsigned number) {
  struct job_id id = {{1, 0, 0, 0, 0, 1}};
  id.bytes[14] = (uint8_t)(number >> 8);
  id.bytes[15] = (uint8_t)number;
  return id;
}

static void the_table_holds_what_a_list_would(void **state) {
  (void)state;
  struct held_jobs held = {0};
  int64_t tokens[JOBS] = {0};
  size_t count = 0;
  uint32_t random = 7;
  for (int step = 0; step < STEPS; step++) {
    random = random * 1664525 + 1013904223;
    unsigned job = (random >> 8) % JOBS;
    struct job_id id = id_of(job);
    /* Long stretches of mostly adding, then of mostly removing. */
    if ((random >> 24) % 4 == 0 ? step / 1000 % 2 : step / 1000 % 2 == 0) {
      count += tokens[job] == 0;
      tokens[job] = step + 1;
      held_add(&held, &id, tokens[job], step);
    } else {
      held_remove(&held, &id, tokens[job]);
      count -= tokens[job] != 0;
      tokens[job] = 0;
    }
    assert_int_equal(held.count, count);
    unsigned other = (random >> 4) % JOBS;
    struct job_id other_id = id_of(other);
    assert_int_equal(held_find(&held, &other_id, tokens[other]) != NULL, tokens[other] != 0);
  }
  for (unsigned job = 0; job < JOBS; job++) {
    struct job_id id = id_of(job);
    assert_int_equal(held_find(&held, &id, tokens[job]) != NULL, tokens[job] != 0);
    held_remove(&held, &id, tokens[job]);
  }
  assert_int_equal(held.count, 0);
  assert_null(held.places);
}

static void another_lease_of_a_held_job_is_not_held(void **state) {
  (void)state;
  struct held_jobs held = {0};
  struct job_id id = id_of(1);
  held_add(&held, &id, 10, 1);
  assert_null(held_find(&held, &id, 11));
  held_remove(&held, &id, 11);
  assert_int_equal(held.count, 1);
  held_add(&held, &id, 12, 2);
  assert_int_equal(held.count, 1);
  assert_null(held_find(&held, &id, 10));
  assert_int_equal(held_find(&held, &id, 12)->sequence, 2);
  held_close(&held);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_table_holds_what_a_list_would),
      cmocka_unit_test(another_lease_of_a_held_job_is_not_held),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
