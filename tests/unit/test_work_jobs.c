/* What the client library has in hand of a stream: when there is something to say, and what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/lib/work.h"

static struct work_saying saying;

static struct work_job *add(struct work_jobs *jobs, int number, int64_t lease_ms, int64_t now_ms) {
  char id[16];
  snprintf(id, sizeof id, "j%d", number);
  Ringback__V1__Job job = RINGBACK__V1__JOB__INIT;
  Ringback__V1__LeasedJob leased = RINGBACK__V1__LEASED_JOB__INIT;
  job.id = id;
  leased.job = &job;
  leased.fencing_token = number;
  return work_jobs_add(jobs, &leased, lease_ms, now_ms);
}

static Ringback__V1__WorkRequest say(struct work_jobs *jobs, int64_t now_ms) {
  Ringback__V1__WorkRequest request = RINGBACK__V1__WORK_REQUEST__INIT;
  work_jobs_say(jobs, now_ms, &saying, &request);
  return request;
}

static void a_lease_is_renewed_at_a_third_and_once_at_a_time(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  struct work_job *job = add(&jobs, 1, 9000, 100);
  assert_int_equal(work_jobs_next_ms(&jobs), 3100);
  assert_int_equal(say(&jobs, 3099).n_renewals, 0);
  Ringback__V1__WorkRequest request = say(&jobs, 3100);
  assert_int_equal(request.n_renewals, 1);
  assert_string_equal(request.renewals[0]->lease->job_id, "j1");
  assert_int_equal(say(&jobs, 4000).n_renewals, 0);
  assert_int_equal(work_jobs_next_ms(&jobs), 100 + 9000 - 900); /* the lease's end, less what is kept in hand */
  work_job_renewed(&jobs, job);
  assert_int_equal(work_jobs_next_ms(&jobs), 6100);
  work_jobs_close(&jobs);
}

static void progress_is_told_a_second_after_the_last_news(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  struct work_job *job = add(&jobs, 1, 60000, 0);
  work_job_progress(&jobs, job, 40);
  assert_int_equal(work_jobs_next_ms(&jobs), 1000);
  assert_int_equal(say(&jobs, 999).n_renewals, 0);
  Ringback__V1__WorkRequest request = say(&jobs, 1000);
  assert_int_equal(request.n_renewals, 1);
  assert_int_equal(request.renewals[0]->progress, 40);
  work_jobs_close(&jobs);
}

static void on_a_new_stream_everything_is_said_again(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  add(&jobs, 1, 60000, 0);
  work_job_end(&jobs, add(&jobs, 2, 60000, 0), WORK_RELEASING, NULL);
  assert_int_equal(say(&jobs, 10).n_released, 1);
  assert_int_equal(say(&jobs, 10).n_released, 0);
  work_jobs_forget_said(&jobs);
  Ringback__V1__WorkRequest request = say(&jobs, 10);
  assert_int_equal(request.n_released, 1);
  assert_string_equal(request.released[0]->job_id, "j2");
  assert_int_equal(request.n_renewals, 1);
  assert_string_equal(request.renewals[0]->lease->job_id, "j1");
  assert_int_equal(jobs.running, 1);
  work_jobs_close(&jobs);
}

static void a_message_takes_no_more_than_the_contract_allows(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  for (int i = 1; i <= WORK_ITEMS_MAX + 20; i++)
    add(&jobs, i, 3000, 0);
  assert_int_equal(say(&jobs, 1000).n_renewals, WORK_ITEMS_MAX);
  assert_int_equal(say(&jobs, 1000).n_renewals, 20);
  assert_int_equal(say(&jobs, 1000).n_renewals, 0);
  struct work_job *job = work_jobs_find(&jobs, "j7", 0);
  assert_non_null(job);
  assert_null(work_jobs_find(&jobs, "j7", 8));
  work_jobs_remove(&jobs, job);
  assert_null(work_jobs_find(&jobs, "j7", 7));
  assert_int_equal(jobs.count, WORK_ITEMS_MAX + 19);
  work_jobs_close(&jobs);
}

static void of_two_leases_of_a_job_the_newer_is_found_unless_the_token_says_which(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  struct work_job *older = add(&jobs, 1, 9000, 0), *newer = add(&jobs, 1, 9000, 10);
  newer->fencing_token = 2;
  assert_ptr_equal(work_jobs_find(&jobs, "j1", 0), newer);
  assert_ptr_equal(work_jobs_find(&jobs, "j1", 1), older);
  work_jobs_remove(&jobs, newer);
  assert_ptr_equal(work_jobs_find(&jobs, "j1", 0), older);
  assert_null(work_jobs_find(&jobs, "j1", 2));
  work_jobs_close(&jobs);
}

static void a_lease_that_ran_out_is_found_behind_what_is_due_before_it(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  struct work_job *lost = add(&jobs, 1, 1000, 0);
  for (int i = 2; i <= 50; i++)
    work_job_end(&jobs, add(&jobs, i, 60000, 0), WORK_RELEASING, NULL);
  assert_null(work_jobs_expired(&jobs, 899));
  assert_ptr_equal(work_jobs_expired(&jobs, 900), lost);
  work_job_end(&jobs, lost, WORK_RELEASING, NULL); /* whoever ended it may be in time yet */
  assert_null(work_jobs_expired(&jobs, 900));
  work_jobs_close(&jobs);
}

static void an_outcome_that_will_never_be_taken_leaves_a_running_job(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  struct work_job *job = add(&jobs, 1, 60000, 0);
  Ringback__V1__FinishedJob *outcome = calloc(1, sizeof *outcome);
  ringback__v1__finished_job__init(outcome);
  work_job_end(&jobs, job, WORK_FINISHING, outcome);
  assert_int_equal(jobs.running, 0);
  Ringback__V1__WorkRequest request = say(&jobs, 10);
  assert_int_equal(request.n_finished, 1);
  assert_ptr_equal(request.finished[0], outcome);
  work_job_again(&jobs, job, 600);
  assert_int_equal(work_jobs_next_ms(&jobs), 600);
  assert_int_equal(say(&jobs, 600).n_finished, 1);
  work_job_go_on(&jobs, job);
  assert_int_equal(jobs.running, 1);
  assert_int_equal(say(&jobs, 601).n_renewals, 1);
  work_jobs_close(&jobs);
}

/* --- whatever becomes of many, they are found by id and in time --- */

enum { MANY = 1500, CHANGES = 100000 };

static int64_t due_of(const struct work_job *job) {
  int64_t at_ms = job->said ? INT64_MAX : job->say_at_ms;
  if (job->state != WORK_RUNNING)
    return at_ms;
  if (!job->said && job->progress != job->told_progress && job->renewed_ms + 1000 < at_ms)
    at_ms = job->renewed_ms + 1000;
  return job->lease_end_ms < at_ms ? job->lease_end_ms : at_ms;
}

static void check_all(const struct work_jobs *jobs, int64_t now_ms) {
  int64_t next_ms = INT64_MAX;
  size_t running = 0;
  bool expired = false;
  for (size_t i = 0; i < jobs->count; i++) {
    struct work_job *job = jobs->heap[i];
    int64_t due_ms = due_of(job);
    next_ms = due_ms < next_ms ? due_ms : next_ms;
    running += job->state == WORK_RUNNING;
    expired |= job->state == WORK_RUNNING && job->lease_end_ms <= now_ms;
    assert_ptr_equal(work_jobs_find(jobs, job->job_id, job->fencing_token), job);
  }
  assert_int_equal(work_jobs_next_ms(jobs), next_ms);
  assert_int_equal(jobs->running, running);
  struct work_job *found = work_jobs_expired(jobs, now_ms);
  assert_true((found != NULL) == expired);
  assert_true(found == NULL || (found->state == WORK_RUNNING && found->lease_end_ms <= now_ms));
}

static void change_one(struct work_jobs *jobs, unsigned chance, int64_t now_ms) {
  struct work_job *job = jobs->heap[chance / 8 % jobs->count];
  switch (chance % 8) {
  case 0:
    work_jobs_remove(jobs, job);
    break;
  case 1:
    if (job->state == WORK_RUNNING)
      work_job_end(jobs, job, WORK_RELEASING, NULL);
    break;
  case 2:
  case 3:
    if (job->state == WORK_RUNNING && job->said)
      work_job_renewed(jobs, job);
    break;
  case 4:
    work_job_again(jobs, job, now_ms + 500);
    break;
  default:
    if (job->state == WORK_RUNNING)
      work_job_progress(jobs, job, (int)(chance / 8 % 101));
  }
}

static void many_jobs_are_found_by_id_and_in_time(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  unsigned seed = 1;
  int number = 0;
  int64_t now_ms = 0;
  for (int change = 0; change < CHANGES; change++, now_ms += change % 4 == 0) {
    unsigned chance = (unsigned)rand_r(&seed);
    if (jobs.count < MANY && chance % 4 == 0)
      add(&jobs, ++number, 1000 + chance % 30000, now_ms);
    else if (jobs.count > 0)
      change_one(&jobs, (unsigned)rand_r(&seed), now_ms);
    if (change % 50 == 0) {
      Ringback__V1__WorkRequest request = say(&jobs, now_ms);
      for (size_t i = 0; i < request.n_renewals; i++)
        assert_true(work_jobs_find(&jobs, request.renewals[i]->lease->job_id, 0)->said);
      if (request.n_renewals < WORK_ITEMS_MAX && request.n_released < WORK_ITEMS_MAX)
        assert_int_equal(say(&jobs, now_ms).n_renewals, 0);
    }
    if (change % 10000 == 0)
      work_jobs_forget_said(&jobs);
    if (change % 100 == 0)
      check_all(&jobs, now_ms);
  }
  assert_true(jobs.count > 100);
  work_jobs_close(&jobs);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_lease_is_renewed_at_a_third_and_once_at_a_time),
      cmocka_unit_test(progress_is_told_a_second_after_the_last_news),
      cmocka_unit_test(on_a_new_stream_everything_is_said_again),
      cmocka_unit_test(a_message_takes_no_more_than_the_contract_allows),
      cmocka_unit_test(of_two_leases_of_a_job_the_newer_is_found_unless_the_token_says_which),
      cmocka_unit_test(a_lease_that_ran_out_is_found_behind_what_is_due_before_it),
      cmocka_unit_test(an_outcome_that_will_never_be_taken_leaves_a_running_job),
      cmocka_unit_test(many_jobs_are_found_by_id_and_in_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
