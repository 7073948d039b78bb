/* The listener: see listener.h. */
#include "server/listener.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "redis/store.h"
#include "server/base/clock.h"

enum {
  WAKE_ALL_MS = 10000,
  WAKE_ALL_JITTER_MS = 2000, /* so that several servers do not try at the same time */
  RETRY_MS = 100,            /* between looks at a connection that is down */
};

struct listener {
  struct redis_connection *connection;
  struct listener_hooks hooks;
  pthread_t thread;
  int stop_fd;
  unsigned seed;
  int64_t wake_all_ms; /* monotonic */
  atomic_uint_least64_t notifications;
};

static void wake_all(struct listener *listener) {
  listener->hooks.wake(listener->hooks.context, 0);
  listener->hooks.due(listener->hooks.context, PARTITIONS);
  int jitter_ms = rand_r(&listener->seed) % (2 * WAKE_ALL_JITTER_MS) - WAKE_ALL_JITTER_MS;
  listener->wake_all_ms = clock_monotonic_us() / 1000 + WAKE_ALL_MS + jitter_ms;
}

static void subscribed(void *context) {
  wake_all(context);
}

static void message(void *context, const char *payload, size_t length) {
  struct listener *listener = context;
  uint64_t key;
  atomic_fetch_add(&listener->notifications, 1);
  switch (store_parse_notification(payload, length, &key)) {
  case STORE_NOTIFY_KEY:
    listener->hooks.wake(listener->hooks.context, key);
    break;
  case STORE_NOTIFY_DUE:
    if (key < PARTITIONS)
      listener->hooks.due(listener->hooks.context, (unsigned)key);
    break;
  case STORE_NOTIFY_NONE:
    break;
  }
}

/* False when it is time to stop. */
static bool wait_for_something(struct listener *listener) {
  struct pollfd files[2] = {{.fd = listener->stop_fd, .events = POLLIN}, {.fd = redis_fd(listener->connection)}};
  files[1].events = (short)(POLLIN | (redis_wants_write(listener->connection) ? POLLOUT : 0));
  int64_t left_ms = listener->wake_all_ms - clock_monotonic_us() / 1000;
  if (!redis_connection_is_up(listener->connection) && left_ms > RETRY_MS)
    left_ms = RETRY_MS;
  poll(files, files[1].fd < 0 ? 1 : 2, left_ms < 0 ? 0 : (int)left_ms);
  return !(files[0].revents & POLLIN);
}

static void *run(void *data) {
  struct listener *listener = data;
  redis_subscribe(listener->connection, store_channel, message, subscribed, listener);
  do {
    redis_connection_start(listener->connection);
    redis_progress(listener->connection);
    if (clock_monotonic_us() / 1000 >= listener->wake_all_ms)
      wake_all(listener);
  } while (wait_for_something(listener));
  return NULL;
}

struct listener *listener_create(const struct redis_target *target, const struct listener_hooks *hooks) {
  struct listener *listener = calloc(1, sizeof *listener);
  if (!listener)
    abort();
  listener->connection = redis_connection_create(target);
  listener->hooks = *hooks;
  listener->stop_fd = eventfd(0, EFD_CLOEXEC);
  listener->seed = (unsigned)getpid();
  listener->wake_all_ms = clock_monotonic_us() / 1000 + WAKE_ALL_MS;
  if (listener->stop_fd < 0 || pthread_create(&listener->thread, NULL, run, listener) != 0)
    abort();
  return listener;
}

void listener_destroy(struct listener *listener) {
  if (eventfd_write(listener->stop_fd, 1) != 0)
    abort();
  pthread_join(listener->thread, NULL);
  close(listener->stop_fd);
  redis_connection_destroy(listener->connection);
  free(listener);
}

uint64_t listener_notifications(const struct listener *listener) {
  return atomic_load(&listener->notifications);
}
