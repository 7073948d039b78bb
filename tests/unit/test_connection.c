/* The connection against a real redis-server: order, loss, reconnection, passwords, a subscription, a hung server, the
 * library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "redis/ask.h"
#include "redis/connection.h"
#include "redis/library.h"
#include "redis/policy.h"
#include "tests/unit/redis_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

struct fixture {
  struct redis_server server;
  struct redis_target target;
  struct redis_connection *connection;
};

static struct fixture *fixture_start(const char *const *extra) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  redis_server_start(&fixture->server, extra);
  fixture->target.unix_path = strdup(fixture->server.socket);
  fixture->connection = redis_connection_create(&fixture->target);
  return fixture;
}

static int start(void **state) {
  *state = fixture_start(NULL);
  return 0;
}

static int start_with_password(void **state) {
  *state = fixture_start((const char *[]){"--requirepass", "open sesame", NULL});
  return 0;
}

/* Below those that connections take for their own end. */
static int free_port(void) {
  for (int port = 22000 + getpid() % 8000;; port++) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool bound = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    if (bound)
      return port;
    assert_true(port < 32000);
  }
}

static int start_on_tcp(void **state) {
  int number = free_port();
  char port[16];
  snprintf(port, sizeof port, "%d", number);
  struct fixture *fixture = fixture_start((const char *[]){"--port", port, NULL});
  *state = fixture;
  free(fixture->target.unix_path);
  fixture->target.unix_path = NULL;
  fixture->target.host = strdup("localhost");
  fixture->target.port = number;
  return 0;
}

static int end(void **state) {
  struct fixture *fixture = *state;
  redis_connection_destroy(fixture->connection);
  redis_server_remove(&fixture->server);
  redis_target_clear(&fixture->target);
  free(fixture);
  return 0;
}

/* One turn of an event loop. */
static void turn(struct redis_connection *connection) {
  redis_connection_start(connection);
  redis_progress(connection);
  struct pollfd fd = {.fd = redis_fd(connection), .events = POLLIN};
  if (redis_wants_write(connection))
    fd.events |= POLLOUT;
  poll(&fd, 1, 10);
  redis_progress(connection);
}

static bool comes_up(struct redis_connection *connection) {
  for (int i = 0; i < 6000 && !redis_connection_is_up(connection); i++)
    turn(connection);
  return redis_connection_is_up(connection);
}

/* Whether an error with this text is told, sooner or later. */
static bool tells(struct redis_connection *connection, const char *text) {
  for (int i = 0; i < 6000 && !strstr(redis_connection_error(connection), text); i++)
    turn(connection);
  return strstr(redis_connection_error(connection), text) != NULL;
}

static void settle(struct redis_connection *connection) {
  for (int i = 0; i < 6000 && redis_pending(connection); i++)
    turn(connection);
  assert_int_equal(redis_pending(connection), 0);
}

struct seen {
  int count, lost;
  int64_t last;
  bool in_order;
  char text[256];
  enum redis_kind kind;
};

static void see(void *context, const struct redis_value *reply) {
  struct seen *seen = context;
  seen->count++;
  if (!reply) {
    seen->lost++;
    return;
  }
  int64_t number = redis_integer(reply);
  seen->in_order = seen->in_order && number == seen->last + 1;
  seen->last = number;
  seen->kind = redis_kind(reply);
  snprintf(seen->text, sizeof seen->text, "%s", redis_text(reply, NULL));
}

static struct seen ask(struct redis_connection *connection, size_t count, const char *const *words) {
  struct seen seen = {.in_order = true};
  redis_command(connection, count, words, NULL, see, &seen);
  settle(connection);
  assert_int_equal(seen.count, 1);
  return seen;
}

static void a_connection_is_down_until_it_is_started(void **state) {
  struct fixture *fixture = *state;
  struct seen seen = {0};
  assert_true(redis_connection_is_down(fixture->connection));
  assert_int_equal(redis_fd(fixture->connection), -1);
  assert_int_equal(redis_waiting_ms(fixture->connection), 0);
  redis_command(fixture->connection, 1, (const char *[]){"PING"}, NULL, see, &seen);
  assert_int_equal(seen.lost, 1);
  assert_true(comes_up(fixture->connection));
  assert_string_equal(redis_connection_error(fixture->connection), "");
}

static void replies_come_in_the_order_of_the_commands(void **state) {
  struct fixture *fixture = *state;
  struct seen seen = {.in_order = true};
  redis_connection_start(fixture->connection);
  for (int i = 0; i < 20000; i++)
    redis_command(fixture->connection, 2, (const char *[]){"INCR", "n"}, NULL, see, &seen);
  settle(fixture->connection);
  assert_int_equal(seen.count, 20000);
  assert_int_equal(seen.lost, 0);
  assert_true(seen.in_order);
}

static void large_binary_values_pass_whole(void **state) {
  struct fixture *fixture = *state;
  enum { SIZE = 3 << 20 };
  char *value = malloc(SIZE);
  for (size_t i = 0; i < SIZE; i++)
    value[i] = (char)(i * 31 % 256);
  assert_true(comes_up(fixture->connection));
  struct seen seen = {0};
  redis_command(fixture->connection, 3, (const char *[]){"SET", "big", value}, (size_t[]){3, 3, SIZE}, see, &seen);
  settle(fixture->connection);
  assert_string_equal(seen.text, "OK");
  assert_int_equal(ask(fixture->connection, 2, (const char *[]){"STRLEN", "big"}).last, SIZE);
  redis_command(fixture->connection, 2, (const char *[]){"GET", "big"}, NULL, see, &seen);
  settle(fixture->connection);
  assert_memory_equal(seen.text, value, 1);
  free(value);
}

static void take_nested(void *context, const struct redis_value *reply) {
  assert_int_equal(redis_kind(reply), REDIS_ARRAY);
  assert_int_equal(redis_count(reply), 3);
  assert_int_equal(redis_integer(redis_at(reply, 0)), 7);
  assert_int_equal(redis_integer(redis_at(redis_at(reply, 1), 0)), 12);
  assert_int_equal(redis_kind(redis_at(redis_at(reply, 1), 1)), REDIS_TEXT);
  assert_int_equal(redis_kind(redis_at(reply, 2)), REDIS_NIL);
  assert_int_equal(redis_kind(redis_at(reply, 3)), REDIS_NIL);
  assert_int_equal(redis_count(redis_at(reply, 0)), 0);
  assert_string_equal(redis_text(redis_at(reply, 0), NULL), "");
  *(bool *)context = true;
}

static void nested_replies_are_read_by_their_parts(void **state) {
  struct fixture *fixture = *state;
  bool taken = false;
  assert_true(comes_up(fixture->connection));
  redis_command(fixture->connection, 3, (const char *[]){"EVAL", "return {7, {'12', 'x'}, false}", "0"}, NULL,
                take_nested, &taken);
  settle(fixture->connection);
  assert_true(taken);
}

static void an_error_reply_keeps_the_connection(void **state) {
  struct fixture *fixture = *state;
  assert_true(comes_up(fixture->connection));
  struct seen seen = ask(fixture->connection, 1, (const char *[]){"NONSENSE"});
  assert_int_equal(seen.kind, REDIS_ERROR);
  assert_true(redis_connection_is_up(fixture->connection));
}

static void a_killed_server_answers_null_and_is_found_again(void **state) {
  struct fixture *fixture = *state;
  struct redis_connection *connection = fixture->connection;
  struct seen seen = {0};
  assert_true(comes_up(connection));
  ask(connection, 3, (const char *[]){"SET", "k", "kept"});
  kill(fixture->server.pid, SIGSTOP);
  for (int i = 0; i < 10; i++)
    redis_command(connection, 2, (const char *[]){"GET", "k"}, NULL, see, &seen);
  turn(connection);
  redis_server_kill(&fixture->server);
  for (int i = 0; i < 100 && redis_pending(connection); i++)
    turn(connection);
  assert_int_equal(seen.lost, 10);
  assert_true(redis_connection_is_down(connection) || redis_fd(connection) >= 0);

  for (int i = 0; i < 30; i++)
    turn(connection);
  assert_true(redis_connection_is_down(connection));
  assert_non_null(strstr(redis_connection_error(connection), "Connection refused"));
  redis_server_run(&fixture->server, NULL);
  assert_true(comes_up(connection));
  assert_int_equal(redis_connection_reconnects(connection), 1);
  assert_string_equal(ask(connection, 2, (const char *[]){"GET", "k"}).text, "kept");
}

static void tries_to_connect_are_spaced(void **state) {
  struct fixture *fixture = *state;
  int64_t tries = 0;
  redis_server_kill(&fixture->server);
  unlink(fixture->server.socket);
  for (int i = 0; i < 80; i++) {
    redis_connection_start(fixture->connection);
    tries += redis_fd(fixture->connection) >= 0;
    pause_ms(10);
  }
  assert_int_equal(tries, 0);
  assert_true(redis_connection_is_down(fixture->connection));
  assert_non_null(strstr(redis_connection_error(fixture->connection), "No such file"));
}

static void a_hung_server_shows_in_the_waiting_time(void **state) {
  struct fixture *fixture = *state;
  struct redis_connection *connection = fixture->connection;
  struct seen seen = {0};
  assert_true(comes_up(connection));
  assert_int_equal(redis_waiting_ms(connection), 0);
  kill(fixture->server.pid, SIGSTOP);
  redis_command(connection, 1, (const char *[]){"PING"}, NULL, see, &seen);
  for (int i = 0; i < 30; i++)
    turn(connection);
  assert_in_range(redis_waiting_ms(connection), 200, 60000);
  redis_connection_close(connection, "no answer in time");
  assert_int_equal(seen.lost, 1);
  assert_string_equal(redis_connection_error(connection), "no answer in time");

  /* The kernel still accepts for it: the setup waits, and that shows too. */
  pause_ms(150);
  for (int i = 0; i < 10; i++)
    turn(connection);
  assert_false(redis_connection_is_up(connection));
  assert_true(redis_waiting_ms(connection) > 0);
  kill(fixture->server.pid, SIGCONT);
  assert_true(comes_up(connection));
}

struct restarting {
  struct redis_connection *connection;
  struct seen *seen;
};

static void ask_again(void *context, const struct redis_value *reply) {
  struct restarting *restarting = context;
  assert_null(reply);
  redis_connection_start(restarting->connection);
  redis_command(restarting->connection, 2, (const char *[]){"INCR", "again"}, NULL, see, restarting->seen);
}

static void a_lost_callback_may_start_and_queue_again(void **state) {
  struct fixture *fixture = *state;
  struct seen seen = {.in_order = true};
  struct restarting restarting = {fixture->connection, &seen};
  assert_true(comes_up(fixture->connection));
  pause_ms(120);
  for (int i = 0; i < 3; i++)
    redis_command(fixture->connection, 1, (const char *[]){"PING"}, NULL, ask_again, &restarting);
  redis_connection_close(fixture->connection, "a test");
  settle(fixture->connection);
  assert_int_equal(seen.count, 3);
  assert_int_equal(seen.lost, 0);
  assert_true(seen.in_order);
}

static void a_wrong_password_is_told_but_not_repeated(void **state) {
  struct fixture *fixture = *state;
  struct redis_connection *connection = fixture->connection;
  assert_true(tells(connection, "asks for a password"));
  assert_true(redis_connection_is_down(connection));

  fixture->target.password = strdup("hush hush");
  assert_true(tells(connection, "refuses the user or password"));
  assert_true(redis_connection_is_down(connection));
  assert_null(strstr(redis_connection_error(connection), "hush"));

  free(fixture->target.password);
  fixture->target.password = strdup("open sesame");
  assert_true(comes_up(connection));
}

static void user_and_database_are_taken_from_the_target(void **state) {
  struct fixture *fixture = *state;
  fixture->target.user = strdup("default");
  fixture->target.password = strdup("open sesame");
  fixture->target.database = 3;
  assert_true(comes_up(fixture->connection));
  ask(fixture->connection, 3, (const char *[]){"SET", "three", "3"});
  assert_non_null(strstr(ask(fixture->connection, 2, (const char *[]){"INFO", "keyspace"}).text, "db3:"));
}

static void a_database_that_is_not_there_is_refused(void **state) {
  struct fixture *fixture = *state;
  fixture->target.database = 9999;
  assert_true(tells(fixture->connection, "refuses the database"));
}

static void host_names_are_looked_up(void **state) {
  struct fixture *fixture = *state;
  assert_true(comes_up(fixture->connection));
  assert_string_equal(ask(fixture->connection, 1, (const char *[]){"PING"}).text, "PONG");
}

static void an_unknown_host_is_told(void **state) {
  struct fixture *fixture = *state;
  struct redis_target target = {.host = (char[]){"no-such-host.invalid"}, .port = 1};
  struct redis_connection *connection = redis_connection_create(&target);
  redis_connection_start(connection);
  for (int i = 0; i < 24000 && !redis_connection_is_down(connection); i++) {
    redis_progress(connection);
    pause_ms(5);
  }
  assert_non_null(strstr(redis_connection_error(connection), "cannot find the host no-such-host.invalid"));
  redis_connection_destroy(connection);

  /* Nobody waits for the look-up of one that is destroyed. */
  connection = redis_connection_create(&target);
  redis_connection_start(connection);
  redis_connection_destroy(connection);
  (void)fixture;
}

struct listener {
  int subscribed, messages;
  char last[64];
};

static void on_subscribed(void *context) {
  ((struct listener *)context)->subscribed++;
}

static void on_message(void *context, const char *payload, size_t length) {
  struct listener *listener = context;
  listener->messages++;
  snprintf(listener->last, sizeof listener->last, "%.*s", (int)length, payload);
}

static void a_subscription_lasts_over_a_reconnection(void **state) {
  struct fixture *fixture = *state;
  struct listener listener = {0};
  struct redis_connection *hears = redis_connection_create(&fixture->target);
  redis_subscribe(hears, "news", on_message, on_subscribed, &listener);
  assert_true(comes_up(fixture->connection));
  for (int round = 1; round <= 2; round++) {
    for (int i = 0; i < 6000 && listener.subscribed < round; i++)
      turn(hears);
    assert_int_equal(listener.subscribed, round);
    turn(fixture->connection);
    assert_true(comes_up(fixture->connection));
    ask(fixture->connection, 3, (const char *[]){"PUBLISH", "news", round == 1 ? "one" : "two"});
    for (int i = 0; i < 6000 && listener.messages < round; i++)
      turn(hears);
    assert_string_equal(listener.last, round == 1 ? "one" : "two");
    struct seen seen = {0};
    redis_command(hears, 1, (const char *[]){"PING"}, NULL, see, &seen);
    settle(hears);
    assert_int_equal(seen.kind, REDIS_ARRAY);
    assert_int_equal(seen.lost, 0);
    redis_server_kill(&fixture->server);
    redis_server_run(&fixture->server, NULL);
  }
  redis_connection_destroy(hears);
}

static struct seen call_function(struct redis_connection *connection) {
  char name[64];
  redis_library_function("queue_list", name, sizeof name);
  return ask(connection, 7, (const char *[]){"FCALL", name, "1", "{p00}", "3", "nowhere", ""});
}

static void the_library_is_there_when_it_is_up(void **state) {
  struct fixture *fixture = *state;
  assert_true(comes_up(fixture->connection));
  struct seen seen = call_function(fixture->connection);
  assert_int_equal(seen.lost, 0);
  assert_null(strstr(seen.text, "Function not found"));
}

static void a_lost_library_is_loaded_again(void **state) {
  struct fixture *fixture = *state;
  struct redis_connection *connection = fixture->connection;
  for (int round = 0; round < 3; round++) {
    assert_true(comes_up(connection));
    /* Not FUNCTION FLUSH: Redis 8.0.2 crashes in it when a function has run. */
    ask(connection, 3, (const char *[]){"FUNCTION", "DELETE", redis_library_name()});
    assert_int_equal(call_function(connection).lost, 1);
    assert_true(comes_up(connection));
    struct seen seen = call_function(connection);
    assert_int_equal(seen.lost, 0);
    assert_null(strstr(seen.text, "Function not found"));
  }
}

static void a_function_that_never_was_is_answered_as_an_error(void **state) {
  struct fixture *fixture = *state;
  static const char *const words[] = {"FCALL", "nobody", "0"};
  assert_true(comes_up(fixture->connection));
  assert_int_equal(ask(fixture->connection, 3, words).lost, 1);
  assert_true(comes_up(fixture->connection));
  struct seen seen = ask(fixture->connection, 3, words);
  assert_int_equal(seen.lost, 0);
  assert_non_null(strstr(seen.text, "Function not found"));
}

static void two_connections_load_the_library_at_once(void **state) {
  struct fixture *fixture = *state;
  struct redis_connection *other = redis_connection_create(&fixture->target);
  for (int i = 0; i < 6000 && !(redis_connection_is_up(fixture->connection) && redis_connection_is_up(other)); i++) {
    redis_connection_start(fixture->connection);
    redis_connection_start(other);
    redis_progress(fixture->connection);
    redis_progress(other);
    pause_ms(1);
  }
  assert_true(redis_connection_is_up(fixture->connection));
  assert_true(redis_connection_is_up(other));
  redis_connection_destroy(other);
}

static void a_replica_is_refused(void **state) {
  struct fixture *fixture = *state;
  struct redis_server replica;
  redis_server_start(&replica, (const char *[]){"--replicaof", "127.0.0.1", "1", NULL});
  free(fixture->target.unix_path);
  fixture->target.unix_path = strdup(replica.socket);
  assert_true(tells(fixture->connection, "read-only replica"));
  assert_true(redis_connection_is_down(fixture->connection));
  redis_server_remove(&replica);
}

static void a_redis_that_evicts_is_refused_at_start(void **state) {
  struct fixture *fixture = *state;
  char text[256];
  assert_true(comes_up(fixture->connection));
  assert_int_equal(redis_policy_check(&fixture->target, 60000, text, sizeof text), POLICY_OK);
  assert_string_equal(text, "");
  ask(fixture->connection, 4, (const char *[]){"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"});
  assert_int_equal(redis_policy_check(&fixture->target, 60000, text, sizeof text), POLICY_REFUSED);
  assert_non_null(strstr(text, "allkeys-lru"));
}

static void an_unreachable_redis_is_told_at_start(void **state) {
  struct fixture *fixture = *state;
  char text[256];
  assert_true(comes_up(fixture->connection)); /* it listens: stopped before, it would refuse and not be silent */
  kill(fixture->server.pid, SIGSTOP);
  assert_int_equal(redis_policy_check(&fixture->target, 300, text, sizeof text), POLICY_UNREACHABLE);
  assert_string_equal(text, "Redis does not answer");
  redis_server_kill(&fixture->server);
  assert_int_equal(redis_policy_check(&fixture->target, 300, text, sizeof text), POLICY_UNREACHABLE);
  assert_non_null(strstr(text, "Connection refused"));
}

static void a_forbidden_config_is_no_hindrance(void **state) {
  struct fixture *fixture = *state;
  char text[256];
  assert_true(comes_up(fixture->connection));
  ask(fixture->connection, 9,
      (const char *[]){"ACL", "SETUSER", "limited", "on", ">pw", "allkeys", "allchannels", "+@all", "-config"});
  fixture->target.user = strdup("limited");
  fixture->target.password = strdup("pw");
  assert_int_equal(redis_policy_check(&fixture->target, 60000, text, sizeof text), POLICY_OK);
}

#define WITH(setup, test) cmocka_unit_test_setup_teardown(test, setup, end)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH(start, a_connection_is_down_until_it_is_started),
      WITH(start, replies_come_in_the_order_of_the_commands),
      WITH(start, large_binary_values_pass_whole),
      WITH(start, nested_replies_are_read_by_their_parts),
      WITH(start, an_error_reply_keeps_the_connection),
      WITH(start, a_killed_server_answers_null_and_is_found_again),
      WITH(start, tries_to_connect_are_spaced),
      WITH(start, a_hung_server_shows_in_the_waiting_time),
      WITH(start, a_lost_callback_may_start_and_queue_again),
      WITH(start_with_password, a_wrong_password_is_told_but_not_repeated),
      WITH(start_with_password, user_and_database_are_taken_from_the_target),
      WITH(start, a_database_that_is_not_there_is_refused),
      WITH(start_on_tcp, host_names_are_looked_up),
      WITH(start, an_unknown_host_is_told),
      WITH(start, a_subscription_lasts_over_a_reconnection),
      WITH(start, the_library_is_there_when_it_is_up),
      WITH(start, a_lost_library_is_loaded_again),
      WITH(start, a_function_that_never_was_is_answered_as_an_error),
      WITH(start, two_connections_load_the_library_at_once),
      WITH(start, a_replica_is_refused),
      WITH(start, a_redis_that_evicts_is_refused_at_start),
      WITH(start, an_unreachable_redis_is_told_at_start),
      WITH(start, a_forbidden_config_is_no_hindrance),
  };
  return cmocka_run_group_tests_name("connection", tests, NULL, NULL);
}
