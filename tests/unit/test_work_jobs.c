/* What the client library has in hand of a stream: when there is something to say, and what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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
  job->said = false;
  work_job_renewed(job, job->renewed_ms);
  assert_int_equal(work_jobs_next_ms(&jobs), 6100);
  work_jobs_close(&jobs);
}

static void progress_is_told_a_second_after_the_last_news(void **state) {
  (void)state;
  struct work_jobs jobs = {0};
  struct work_job *job = add(&jobs, 1, 60000, 0);
  job->progress = 40;
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
  struct work_job *released = add(&jobs, 2, 60000, 0);
  released->state = WORK_RELEASING;
  released->say_at_ms = 0;
  assert_int_equal(say(&jobs, 10).n_released, 1);
  assert_int_equal(say(&jobs, 10).n_released, 0);
  work_jobs_forget_said(&jobs);
  Ringback__V1__WorkRequest request = say(&jobs, 10);
  assert_int_equal(request.n_released, 1);
  assert_string_equal(request.released[0]->job_id, "j2");
  assert_int_equal(request.n_renewals, 1);
  assert_string_equal(request.renewals[0]->lease->job_id, "j1");
  assert_int_equal(work_jobs_running(&jobs), 1);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_lease_is_renewed_at_a_third_and_once_at_a_time),
      cmocka_unit_test(progress_is_told_a_second_after_the_last_news),
      cmocka_unit_test(on_a_new_stream_everything_is_said_again),
      cmocka_unit_test(a_message_takes_no_more_than_the_contract_allows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
