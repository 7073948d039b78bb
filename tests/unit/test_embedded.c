/* The embedded Redis: its life, its owner's lock, and what happens when one of the two is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "redis/ask.h"
#include "redis/embedded.h"
#include "server/base/clock.h"
#include "tests/unit/redis_server.h"

struct fixture {
  char parent[64];
  char dir[96];
};

static int begin(void **state) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  snprintf(fixture->parent, sizeof fixture->parent, "/tmp/ringback-test-XXXXXX");
  if (!mkdtemp(fixture->parent))
    return 1;
  snprintf(fixture->dir, sizeof fixture->dir, "%s/data", fixture->parent);
  *state = fixture;
  return 0;
}

static int end(void **state) {
  struct fixture *fixture = *state;
  remove_tree(fixture->parent);
  free(fixture);
  return 0;
}

static struct embedded *must_start(const char *dir) {
  char error[512];
  const struct embedded_options options = {.data_dir = dir};
  struct embedded *embedded = embedded_start(&options, error, sizeof error);
  if (!embedded)
    fail_msg("%s", error);
  return embedded;
}

/* The text, or the value of CONFIG GET. */
static void keep_text(void *context, const struct redis_value *reply) {
  snprintf(context, 64, "%s", redis_text(redis_count(reply) ? redis_at(reply, 1) : reply, NULL));
}

static void ask(const struct redis_target *target, size_t count, const char *const *words, char answer[64]) {
  struct redis_connection *connection = redis_connection_create_plain(target);
  const char *reason;
  for (int i = 0; i < 500; i++) {
    answer[0] = 0;
    if (!redis_ask(connection, 5000, words, count, keep_text, answer, &reason))
      fail_msg("%s", reason);
    if (strncmp(answer, "LOADING", 7) != 0)
      break;
    pause_ms(10); /* it has just been started and still reads its data */
  }
  redis_connection_destroy(connection);
}

static bool alive(pid_t pid) {
  char path[64], text[512] = "";
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "r");
  if (!file)
    return false;
  bool read = fgets(text, sizeof text, file);
  fclose(file);
  return read && !strstr(text, ") Z");
}

static void it_starts_durable_and_ends_with_its_owner(void **state) {
  struct fixture *fixture = *state;
  struct embedded *embedded = must_start(fixture->dir);
  pid_t pid = embedded_pid(embedded);
  char answer[64];
  struct stat status;
  assert_true(alive(pid));
  assert_int_equal(getpgid(pid), pid);
  assert_false(embedded_was_adopted(embedded));
  ask(embedded_target(embedded), 3, (const char *[]){"SET", "k", "v"}, answer);
  assert_string_equal(answer, "OK");
  static const char *const settings[][2] = {
      {"appendonly", "yes"}, {"appendfsync", "always"}, {"maxmemory-policy", "noeviction"}, {"port", "0"}};
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    ask(embedded_target(embedded), 3, (const char *[]){"CONFIG", "GET", settings[i][0]}, answer);
    assert_string_equal(answer, settings[i][1]);
  }
  assert_int_equal(stat(fixture->dir, &status), 0);
  assert_int_equal(status.st_mode & 0777, 0700);
  embedded_stop(embedded);
  assert_false(alive(pid));

  embedded = must_start(fixture->dir);
  ask(embedded_target(embedded), 2, (const char *[]){"GET", "k"}, answer);
  assert_string_equal(answer, "v");
  embedded_stop(embedded);
}

static void a_killed_redis_is_started_again_with_its_data(void **state) {
  struct fixture *fixture = *state;
  struct embedded *embedded = must_start(fixture->dir);
  char answer[64];
  ask(embedded_target(embedded), 3, (const char *[]){"SET", "k", "v"}, answer);
  pid_t first = embedded_pid(embedded);
  kill(first, SIGKILL);
  for (int i = 0; i < 6000 && (embedded_pid(embedded) == first || !embedded_pid(embedded)); i++) {
    embedded_check(embedded);
    pause_ms(10);
  }
  assert_int_not_equal(embedded_pid(embedded), first);
  assert_int_equal(embedded_restarts(embedded), 1);
  ask(embedded_target(embedded), 2, (const char *[]){"GET", "k"}, answer);
  assert_string_equal(answer, "v");

  /* The second death in a row waits a second. */
  int64_t killed_us = clock_monotonic_us();
  kill(embedded_pid(embedded), SIGKILL);
  for (int i = 0; i < 6000 && embedded_restarts(embedded) < 2; i++) {
    embedded_check(embedded);
    pause_ms(10);
  }
  assert_int_equal(embedded_restarts(embedded), 2);
  assert_true(clock_monotonic_us() - killed_us >= 900000);
  embedded_stop(embedded);
}

/* An owner in a process of its own that is killed: returns the pid of the redis it leaves. */
static pid_t leave_a_survivor(const char *dir) {
  int ends[2];
  pid_t redis = 0;
  assert_int_equal(pipe(ends), 0);
  pid_t owner = fork();
  if (owner == 0) {
    char answer[64], error[512];
    const struct embedded_options options = {.data_dir = dir};
    struct embedded *embedded = embedded_start(&options, error, sizeof error);
    redis = embedded ? embedded_pid(embedded) : 0;
    if (embedded)
      ask(embedded_target(embedded), 3, (const char *[]){"SET", "k", "v"}, answer);
    _exit(write(ends[1], &redis, sizeof redis) != sizeof redis || pause());
  }
  assert_int_equal(read(ends[0], &redis, sizeof redis), sizeof redis);
  close(ends[0]);
  close(ends[1]);
  kill(owner, SIGKILL);
  waitpid(owner, NULL, 0);
  assert_int_not_equal(redis, 0);
  assert_true(alive(redis));
  return redis;
}

static void a_survivor_is_adopted_and_watched(void **state) {
  struct fixture *fixture = *state;
  pid_t survivor = leave_a_survivor(fixture->dir);
  struct embedded *embedded = must_start(fixture->dir);
  char answer[64];
  assert_int_equal(embedded_pid(embedded), survivor);
  assert_true(embedded_was_adopted(embedded));
  ask(embedded_target(embedded), 2, (const char *[]){"GET", "k"}, answer);
  assert_string_equal(answer, "v");

  kill(survivor, SIGKILL);
  for (int i = 0; i < 6000 && (embedded_pid(embedded) == survivor || !embedded_pid(embedded)); i++) {
    embedded_check(embedded);
    pause_ms(10);
  }
  assert_int_equal(embedded_restarts(embedded), 1);
  ask(embedded_target(embedded), 2, (const char *[]){"GET", "k"}, answer);
  assert_string_equal(answer, "v");
  embedded_stop(embedded);
}

static void an_adopted_redis_ends_with_its_new_owner(void **state) {
  struct fixture *fixture = *state;
  pid_t survivor = leave_a_survivor(fixture->dir);
  embedded_stop(must_start(fixture->dir));
  assert_false(alive(survivor));
}

static void a_directory_has_one_owner(void **state) {
  struct fixture *fixture = *state;
  char error[512] = "", pid[32];
  struct embedded *embedded = must_start(fixture->dir);
  const struct embedded_options options = {.data_dir = fixture->dir};
  assert_null(embedded_start(&options, error, sizeof error));
  assert_non_null(strstr(error, "in use by another server"));
  snprintf(pid, sizeof pid, "process %d", (int)getpid());
  assert_non_null(strstr(error, pid));
  assert_true(alive(embedded_pid(embedded)));
  embedded_stop(embedded);
}

static void another_process_is_not_taken_for_a_survivor(void **state) {
  struct fixture *fixture = *state;
  char path[160];
  embedded_stop(must_start(fixture->dir));
  snprintf(path, sizeof path, "%s/redis.pid", fixture->dir);
  FILE *file = fopen(path, "w");
  fprintf(file, "%d\n", (int)getpid());
  fclose(file);
  struct embedded *embedded = must_start(fixture->dir);
  assert_false(embedded_was_adopted(embedded));
  assert_int_not_equal(embedded_pid(embedded), getpid());
  embedded_stop(embedded);
}

static void a_long_path_works(void **state) {
  struct fixture *fixture = *state;
  char dir[512];
  snprintf(dir, sizeof dir, "%s/%0120d", fixture->parent, 0);
  struct embedded *embedded = must_start(dir);
  char answer[64];
  ask(embedded_target(embedded), 1, (const char *[]){"PING"}, answer);
  assert_string_equal(answer, "PONG");
  embedded_stop(embedded);
}

static void what_cannot_start_is_told(void **state) {
  struct fixture *fixture = *state;
  char error[512], dir[160];
  struct embedded_options options = {.data_dir = fixture->dir, .program = "no-such-redis"};
  assert_null(embedded_start(&options, error, sizeof error));
  assert_non_null(strstr(error, "no-such-redis is not installed"));
  options.program = "/bin/false";
  assert_null(embedded_start(&options, error, sizeof error));
  assert_non_null(strstr(error, "ended right after its start"));
  options.program = NULL;
  snprintf(dir, sizeof dir, "%s/not/there", fixture->parent);
  options.data_dir = dir;
  assert_null(embedded_start(&options, error, sizeof error));
  assert_non_null(strstr(error, "cannot create the data directory"));
}

/* What cutting would lose was acknowledged: somebody has to look at it. */
static void a_file_that_is_damaged_and_not_cut_off_is_left_alone(void **state) {
  struct fixture *fixture = *state;
  struct embedded *embedded = must_start(fixture->dir);
  char answer[64], error[512], path[160];
  for (int i = 0; i < 3; i++)
    ask(embedded_target(embedded), 3, (const char *[]){"SET", "k", "v"}, answer);
  embedded_stop(embedded);
  snprintf(path, sizeof path, "%s/appendonlydir/appendonly.aof.1.incr.aof", fixture->dir);
  struct stat before, after;
  assert_int_equal(stat(path, &before), 0);
  FILE *file = fopen(path, "r+");
  fputc('X', file);
  fclose(file);
  const struct embedded_options options = {.data_dir = fixture->dir};
  assert_null(embedded_start(&options, error, sizeof error));
  assert_non_null(strstr(error, "ended right after its start"));
  assert_int_equal(stat(path, &after), 0);
  assert_int_equal(after.st_size, before.st_size);

  /* Cut off it is repaired: the last command goes. */
  file = fopen(path, "r+");
  fputc('*', file);
  fclose(file);
  assert_int_equal(truncate(path, before.st_size - 1), 0);
  embedded = must_start(fixture->dir);
  ask(embedded_target(embedded), 2, (const char *[]){"GET", "k"}, answer);
  assert_string_equal(answer, "v");
  embedded_stop(embedded);
  assert_int_equal(stat(path, &after), 0);
  assert_in_range(after.st_size, 1, before.st_size - 2);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_DIR(it_starts_durable_and_ends_with_its_owner),
      WITH_DIR(a_killed_redis_is_started_again_with_its_data),
      WITH_DIR(a_survivor_is_adopted_and_watched),
      WITH_DIR(an_adopted_redis_ends_with_its_new_owner),
      WITH_DIR(a_directory_has_one_owner),
      WITH_DIR(another_process_is_not_taken_for_a_survivor),
      WITH_DIR(a_long_path_works),
      WITH_DIR(what_cannot_start_is_told),
      WITH_DIR(a_file_that_is_damaged_and_not_cut_off_is_left_alone),
  };
  return cmocka_run_group_tests_name("embedded", tests, NULL, NULL);
}
