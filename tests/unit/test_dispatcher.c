/* The dispatcher between a real Redis and real receivers (receiver.py): jobs are submitted, leased and finished through
 * the store, and what became of their callbacks is read back from it.
 */
#include "server/callback/dispatcher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "redis/connection.h"
#include "redis/store_callbacks.h"
#include "ringback/v1/callback.pb-c.h"
#include "ringback/v1/common.pb-c.h"
#include "server/base/clock.h"
#include "tests/unit/receiver.h"
#include "tests/unit/redis_server.h"

#define BUCKET "demo"
#define DELIVERED RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_DELIVERED
#define DEAD RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_DEAD
#define PENDING RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_PENDING

static struct {
  struct redis_server redis;
  struct redis_target target;
  struct store *store;
  struct dispatcher *dispatcher;
  int queues; /* made so far */
  char queue[32];
} fixture;

/* --- the store, one call at a time --- */

struct answer {
  int count;
  enum store_code code;
};

static void keep_code(struct answer *answer, const struct store_error *error) {
  answer->count++;
  answer->code = error->code;
}

static void run_store(struct answer *answer) {
  for (int i = 0; i < 100 && !answer->count; i++) {
    store_flush(fixture.store, 1000);
    if (!answer->count)
      pause_ms(20);
  }
  assert_int_equal(answer->count, 1);
  assert_int_equal(answer->code, STORE_OK);
}

static void on_queues(void *context, const struct store_error *error, const struct store_queue *queues, size_t count) {
  (void)queues;
  (void)count;
  keep_code(context, error);
}

static void on_rule(void *context, const struct store_error *error, const struct store_rule *rule) {
  (void)rule;
  keep_code(context, error);
}

static void on_submit(void *context, const struct store_error *error, const struct store_submitted *result) {
  (void)result;
  keep_code(context, error);
}

static void on_items(void *context, const struct store_error *error, const struct store_items *result) {
  keep_code(context, error);
  for (size_t i = 0; result && i < result->count; i++)
    assert_int_equal(result->items[i].error.code, STORE_OK);
}

static const struct store_settings settings = {.max_size = 100000,
                                               .max_concurrent = 10000,
                                               .default_lease_ms = 60000,
                                               .max_attempts = 1,
                                               .min_backoff_ms = 5000,
                                               .max_backoff_ms = 5000,
                                               .retention_age_ms = 3600000,
                                               .retention_count = 10000,
                                               .idempotency_ms = 600000};

static const char secret[] = "whsec_c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/* A queue of its own for each test, with a rule that calls the path. */
static void make_queue(const char *path, bool with_secret) {
  struct answer made = {0}, ruled = {0};
  snprintf(fixture.queue, sizeof(fixture.queue), "queue-%d", ++fixture.queues);
  store_create_queue(fixture.store, BUCKET, fixture.queue, RINGBACK__V1__FEATURE__FEATURE_MEDIA, &settings, on_queues,
                     &made);
  run_store(&made);
  char url[128];
  snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", receiver.http, path);
  const char *secrets[] = {secret};
  static const int64_t schedule_ms[] = {8000};
  struct store_rule rule = {.on = true,
                            .url = url,
                            .secrets = secrets,
                            .secret_count = with_secret ? 1 : 0,
                            .timeout_ms = 30000,
                            .schedule_ms = schedule_ms,
                            .schedule_count = 1};
  store_update_rule(fixture.store, BUCKET, fixture.queue, "",
                    RULE_STATE | RULE_URL | RULE_SECRETS | RULE_TIMEOUT | RULE_SCHEDULE, &rule, on_rule, &ruled);
  run_store(&ruled);
}

struct leased {
  struct answer answer;
  size_t count;
  struct store_finish finish[250];
};

static void on_lease(void *context, const struct store_error *error, const struct store_leased *result) {
  struct leased *leased = context;
  keep_code(&leased->answer, error);
  for (size_t i = 0; result && i < result->count; i++)
    leased->finish[leased->count++] = (struct store_finish){.id = result->jobs[i].id,
                                                            .fencing_token = result->jobs[i].fencing_token,
                                                            .success = true,
                                                            .code = "",
                                                            .message = ""};
}

static void submit(size_t count, const char *own_url, const char *traceparent) {
  Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
  Ringback__V1__CallbackOverride own = RINGBACK__V1__CALLBACK_OVERRIDE__INIT;
  spec.tag = (char *)(size_t) "Transcode";
  spec.traceparent = (char *)(size_t)traceparent;
  if (own_url) {
    own.target_case = RINGBACK__V1__CALLBACK_OVERRIDE__TARGET_URL;
    own.url = (char *)(size_t)own_url;
    spec.callback = &own;
  }
  uint8_t packed[512];
  size_t size = ringback__v1__job_spec__pack(&spec, packed);
  struct store_new_job jobs[250];
  for (size_t i = 0; i < count; i++)
    jobs[i] = (struct store_new_job){.callback_url = own_url, .spec = {packed, size}};
  struct store_submit request = {
      .bucket = BUCKET, .queue = fixture.queue, .request_id = "", .jobs = jobs, .count = count};
  struct answer answer = {0};
  store_submit(fixture.store, &request, on_submit, &answer);
  run_store(&answer);
}

static void finish_all(size_t count) {
  const char *queues[] = {fixture.queue};
  struct store_lease request = {.bucket = BUCKET, .queues = queues, .queue_count = 1, .max_jobs = count, .worker = "w"};
  struct leased leased = {0};
  store_lease(fixture.store, &request, on_lease, &leased);
  run_store(&leased.answer);
  assert_int_equal(leased.count, count);
  struct answer answer = {0};
  store_finish(fixture.store, BUCKET, leased.finish, count, on_items, &answer);
  run_store(&answer);
  dispatcher_notify(fixture.dispatcher, id_partition(BUCKET));
}

static void end_a_job(void) {
  submit(1, 0, "");
  finish_all(1);
}

/* --- deliveries --- */

struct found {
  struct answer answer;
  size_t count;
  int state, attempts, http_status;
  int64_t next_in_ms;
  char error[32], message[256], id[128];
};

static void on_deliveries(void *context, const struct store_error *error, const struct store_deliveries *result) {
  struct found *found = context;
  keep_code(&found->answer, error);
  if (!result || !result->count)
    return;
  const struct store_delivery *delivery = &result->deliveries[0];
  found->count = result->count;
  found->state = delivery->state;
  found->attempts = delivery->attempts;
  found->http_status = delivery->http_status;
  found->next_in_ms = delivery->next_attempt_ms ? delivery->next_attempt_ms - clock_wall_ms() : 0;
  snprintf(found->error, sizeof(found->error), "%s", delivery->error_class);
  snprintf(found->message, sizeof(found->message), "%s", delivery->error_message);
  snprintf(found->id, sizeof(found->id), "%s", delivery->id);
}

static struct found list_deliveries(unsigned states) {
  struct found found = {0};
  struct store_delivery_filter filter = {.queue = fixture.queue, .states = states};
  store_list_deliveries(fixture.store, BUCKET, &filter, 100, "", on_deliveries, &found);
  run_store(&found.answer);
  return found;
}

/* Waits until the queue's latest delivery has had so many attempts and is not under way. */
static struct found wait_for(int attempts, int seconds) {
  struct found found = {0};
  for (int64_t until_us = clock_monotonic_us() + 6 * seconds * 1000000LL; clock_monotonic_us() < until_us;
       pause_ms(20)) {
    found = list_deliveries(0);
    if (found.count && found.attempts >= attempts &&
        found.state != RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_SENDING)
      return found;
  }
  fail_msg("no attempt %d within 6 times %d s: %zu deliveries, state %d, attempts %d, %s %s", attempts, seconds,
           found.count, found.state, found.attempts, found.error, found.message);
  return found;
}

static void expect(const struct found *found, int state, int http_status, const char *error) {
  if (found->state != state || found->http_status != http_status || strcmp(found->error, error) != 0)
    fail_msg("state %d, status %d, error \"%s\" (%s)", found->state, found->http_status, found->error, found->message);
}

static void start_dispatcher(const char *allowed) {
  struct dispatcher_options options = {.redis = &fixture.target};
  assert_null(address_set_parse(allowed, &options.allowed));
  fixture.dispatcher = dispatcher_create(&options);
  assert_non_null(fixture.dispatcher);
}

static int set_up(void **state) {
  (void)state;
  start_dispatcher("127.0.0.0/8");
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  dispatcher_destroy(fixture.dispatcher);
  fixture.dispatcher = 0;
  return 0;
}

static int set_up_group(void **state) {
  if (start_receiver(state))
    return -1;
  redis_server_start(&fixture.redis, 0);
  fixture.target.unix_path = fixture.redis.socket;
  fixture.store = store_create(&fixture.target);
  return 0;
}

static int tear_down_group(void **state) {
  store_destroy(fixture.store);
  redis_server_remove(&fixture.redis);
  return stop_receiver(state);
}

/* --- tests --- */

static void a_finished_job_is_delivered_once(void **state) {
  (void)state;
  make_queue("/once", false);
  end_a_job();
  struct found found = wait_for(1, 5);
  expect(&found, DELIVERED, 200, "");
  struct dispatcher_metrics metrics = {0};
  for (int i = 0; i < 3000 && !metrics.delivered; i++) { /* Redis knows it before the dispatcher has its answer */
    dispatcher_metrics(fixture.dispatcher, &metrics);
    pause_ms(10);
  }
  assert_int_equal(metrics.attempts, 1);
  assert_int_equal(metrics.delivered, 1);
}

static void a_failed_attempt_is_repeated_with_the_same_bytes(void **state) {
  (void)state;
  make_queue("/flaky", false);
  end_a_job();
  struct found found = wait_for(1, 5);
  expect(&found, PENDING, 500, "status_5xx");
  assert_in_range(found.next_in_ms, 1, 9700);
  found = wait_for(2, 10);
  expect(&found, DELIVERED, 200, "");
}

static void a_rule_with_a_secret_signs(void **state) {
  (void)state;
  make_queue("/signed", true);
  end_a_job();
  struct found found = wait_for(1, 5);
  expect(&found, DELIVERED, 200, "");
}

static void a_job_s_own_url_is_called_unsigned_and_traced(void **state) {
  (void)state;
  make_queue("/status/410", true);
  char url[64];
  snprintf(url, sizeof(url), "http://127.0.0.1:%d/unsigned", receiver.http);
  submit(1, url, "");
  finish_all(1);
  struct found found = wait_for(1, 5);
  expect(&found, DELIVERED, 200, "");
  snprintf(url, sizeof(url), "http://127.0.0.1:%d/traced", receiver.http);
  submit(1, url, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  finish_all(1);
  char first[128];
  snprintf(first, sizeof(first), "%s", found.id);
  do
    found = wait_for(1, 5);
  while (!strcmp(found.id, first));
  expect(&found, DELIVERED, 200, "");
}

static void gone_is_dead_at_once(void **state) {
  (void)state;
  make_queue("/status/410", false);
  end_a_job();
  struct found found = wait_for(1, 5);
  expect(&found, DEAD, 410, "gone");
}

static void retry_after_decides_the_next_attempt(void **state) {
  (void)state;
  make_queue("/retry-after/seconds/429", false);
  end_a_job();
  struct found found = wait_for(1, 5);
  expect(&found, PENDING, 429, "status_429");
  assert_in_range(found.next_in_ms, 60000, 121000);
}

static void a_denied_address_is_dead_at_once(void **state) {
  tear_down(state);
  start_dispatcher("");
  make_queue("/status/200", false);
  end_a_job();
  struct found found = wait_for(1, 5);
  expect(&found, DEAD, 0, "blocked_address");
}

static void on_test(void *context, const struct store_error *error, const struct store_deliveries *result) {
  (void)result;
  keep_code(context, error);
}

static struct found call_test(void) {
  struct answer answer = {0};
  store_test_callback(fixture.store, BUCKET, fixture.queue, on_test, &answer);
  run_store(&answer);
  dispatcher_notify(fixture.dispatcher, id_partition(BUCKET));
  return wait_for(1, 5);
}

static void a_test_is_tried_once(void **state) {
  (void)state;
  make_queue("/signed", true);
  struct found found = call_test();
  expect(&found, DELIVERED, 200, "");
  make_queue("/status/500", false);
  found = call_test();
  expect(&found, DEAD, 500, "status_5xx");
}

static void a_backlog_is_delivered_completely_and_once(void **state) {
  (void)state;
  make_queue("/once", false);
  for (int i = 0; i < 2; i++) {
    submit(250, 0, "");
    finish_all(250);
  }
  struct dispatcher_metrics metrics;
  for (int i = 0; i < 6000; i++) {
    dispatcher_metrics(fixture.dispatcher, &metrics);
    if (metrics.delivered == 500 && !metrics.in_flight)
      break;
    /* In the daemon the listener says so. */
    dispatcher_notify(fixture.dispatcher, UINT64_MAX);
    pause_ms(20);
  }
  assert_int_equal(metrics.delivered, 500);
  assert_int_equal(metrics.attempts, 500);
  assert_int_equal(metrics.claimed, 500);
  assert_int_equal(list_deliveries(1u << DEAD).count, 0);
}

static void two_dispatchers_share_an_outbox(void **state) {
  (void)state;
  struct dispatcher *first = fixture.dispatcher;
  start_dispatcher("127.0.0.0/8");
  make_queue("/once", false);
  submit(250, 0, "");
  finish_all(250);
  struct dispatcher_metrics one, two;
  for (int i = 0; i < 6000; i++) {
    dispatcher_metrics(first, &one);
    dispatcher_metrics(fixture.dispatcher, &two);
    if (one.delivered + two.delivered == 250 && !one.in_flight && !two.in_flight)
      break;
    dispatcher_notify(first, UINT64_MAX);
    dispatcher_notify(fixture.dispatcher, UINT64_MAX);
    pause_ms(20);
  }
  assert_int_equal(one.delivered + two.delivered, 250);
  assert_int_equal(one.attempts + two.attempts, 250);
  dispatcher_destroy(first);
}

static void wait_until_it_is_sent(void) {
  struct dispatcher_metrics metrics = {0};
  for (int i = 0; i < 3000 && !metrics.in_flight && !metrics.attempts; i++) {
    dispatcher_metrics(fixture.dispatcher, &metrics);
    pause_ms(10);
  }
  pause_ms(300); /* now the receiver has it */
}

static void a_success_is_written_down_when_redis_is_back(void **state) {
  (void)state;
  make_queue("/slow-once", false);
  end_a_job();
  wait_until_it_is_sent();
  redis_server_kill(&fixture.redis);
  pause_ms(1500);
  redis_server_run(&fixture.redis, 0);
  int tries = 0;
  do {
    store_send(fixture.store);
    pause_ms(20);
  } while (!store_is_connected(fixture.store) && tries++ < 3000);
  struct found found = wait_for(1, 15);
  expect(&found, DELIVERED, 200, "");
}

static void draining_waits_for_what_is_under_way(void **state) {
  (void)state;
  make_queue("/slow-once", false);
  end_a_job();
  wait_until_it_is_sent();
  dispatcher_drain(fixture.dispatcher, 60000);
  struct found found = list_deliveries(0);
  expect(&found, DELIVERED, 200, "");
}

static void draining_has_an_end(void **state) {
  (void)state;
  make_queue("/hang", false);
  end_a_job();
  wait_until_it_is_sent();
  int64_t start_us = clock_monotonic_us();
  dispatcher_drain(fixture.dispatcher, 500);
  assert_in_range(clock_monotonic_us() - start_us, 400000, 20000000);
}

int main(void) {
#define WITH_DISPATCHER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      WITH_DISPATCHER(a_finished_job_is_delivered_once),
      WITH_DISPATCHER(a_failed_attempt_is_repeated_with_the_same_bytes),
      WITH_DISPATCHER(a_rule_with_a_secret_signs),
      WITH_DISPATCHER(a_job_s_own_url_is_called_unsigned_and_traced),
      WITH_DISPATCHER(gone_is_dead_at_once),
      WITH_DISPATCHER(retry_after_decides_the_next_attempt),
      WITH_DISPATCHER(a_denied_address_is_dead_at_once),
      WITH_DISPATCHER(a_test_is_tried_once),
      WITH_DISPATCHER(a_backlog_is_delivered_completely_and_once),
      WITH_DISPATCHER(two_dispatchers_share_an_outbox),
      WITH_DISPATCHER(a_success_is_written_down_when_redis_is_back),
      WITH_DISPATCHER(draining_waits_for_what_is_under_way),
      WITH_DISPATCHER(draining_has_an_end),
  };
  return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
