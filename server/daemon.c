/* The daemon's parts: see daemon.h. */
#include "server/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "redis/embedded.h"
#include "redis/policy.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/callback/dispatcher.h"
#include "server/http.h"
#include "server/listener.h"
#include "server/metrics.h"
#include "server/rpc/rpc.h"
#include "server/sweeper.h"

enum {
  THREADS_MAX = 64,
  REDIS_START_MS_MAX = 30000, /* how long an external Redis may be away at start */
  POLICY_MS_MAX = 2000,
  PATH_SIZE = 4096,
  CALLS_LEFT_MIN = 1000,
  CALLS_LEFT_TICKS = 10,
  STEP_US = 250, /* at most so long an RPC thread looks at nothing but the store's answers, */
  STEP_SLOW_MS = 20,
  STEP_SLOW_US = 1000, /* and so long when they have not come for that long */
};

struct daemon {
  const struct daemon_config *config;
  struct embedded *embedded; /* NULL: an external Redis */
  const struct redis_target *target;
  struct services_thread threads[THREADS_MAX];
  atomic_uint thread_count;
  struct rpc_server *server;
  struct sweeper *sweeper;
  struct listener *listener;
  struct dispatcher *dispatcher;
  struct http *http;
  uint64_t calls_peak; /* in hand, since memory was given back */
  unsigned calls_left_ticks;
};

/* --- the RPC threads' hooks --- */

static void *hold_call(void) {
  return rpc_hold();
}

static void begin_call(void *call) {
  rpc_begin(call);
}

static void let_go_call(void *call) {
  rpc_let_go(call);
}

static void *open_thread(void *context, unsigned index) {
  struct daemon *daemon = context;
  if (index >= THREADS_MAX)
    return NULL;
  struct services_thread *thread = &daemon->threads[index];
  thread->store = store_create(daemon->target);
  store_set_owners(thread->store, &(struct store_owners){hold_call, begin_call, let_go_call});
  thread->config = &daemon->config->services;
  atomic_fetch_add(&daemon->thread_count, 1);
  return thread;
}

static void step_thread(void *data) {
  struct services_thread *thread = data;
  bool soon = store_waiting_ms(thread->store) < STEP_SLOW_MS;
  store_step(thread->store, soon ? STEP_US : STEP_SLOW_US, (int)thread->config->redis_wait_ms);
}

static uint64_t asked_of_thread(const void *data) {
  const struct services_thread *thread = data;
  return store_asked(thread->store);
}

static uint64_t answered_to_thread(const void *data) {
  const struct services_thread *thread = data;
  return store_answered(thread->store);
}

static void close_thread(void *data) {
  struct services_thread *thread = data;
  store_destroy(thread->store);
  thread->store = NULL;
}

/* --- what the threads tell each other --- */

static void redis_changed(void *context, bool answers) {
  struct daemon *daemon = context;
  rpc_server_set_serving(daemon->server, answers);
}

static void wake(void *context, uint64_t key) {
  struct daemon *daemon = context;
  rpc_server_wake(daemon->server, key);
}

static void delivery_due(void *context, unsigned partition) {
  struct daemon *daemon = context;
  dispatcher_notify(daemon->dispatcher, partition);
}

static void write_metrics(void *context, FILE *file) {
  struct daemon *daemon = context;
  struct metrics metrics = {.notifications = listener_notifications(daemon->listener),
                            .sweep_slices = sweeper_slices(daemon->sweeper),
                            .sweep_changes = sweeper_changes(daemon->sweeper),
                            .repairs = sweeper_repairs(daemon->sweeper),
                            .redis_up = sweeper_redis_answers(daemon->sweeper)};
  rpc_server_metrics(daemon->server, &metrics.rpc);
  dispatcher_metrics(daemon->dispatcher, &metrics.dispatcher);
  for (unsigned i = 0; i < atomic_load(&daemon->thread_count); i++) {
    struct store_metrics part;
    store_metrics(daemon->threads[i].store, &part);
    metrics_add_store(&metrics.store, &part);
  }
  if (daemon->embedded)
    metrics.redis_restarts = embedded_restarts(daemon->embedded);
  metrics_write(&metrics, file);
}

static bool is_healthy(void *context) {
  struct daemon *daemon = context;
  return sweeper_redis_answers(daemon->sweeper);
}

/* --- start --- */

/* Whether a signal that ends the process waits to be taken by main. */
static bool is_ending(void) {
  sigset_t pending;
  return sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

static bool start_embedded(struct daemon *daemon, const struct options *options) {
  char error[512];
  struct embedded_options embedded = {.data_dir = options->data,
                                      .appendfsync = options_appendfsync_name(options->appendfsync)};
  daemon->embedded = embedded_start(&embedded, error, sizeof error);
  if (!daemon->embedded) {
    log_event(LOG_ERROR, "redis cannot be started", log_text("data", options->data), log_text("why", error));
    return false;
  }
  daemon->target = embedded_target(daemon->embedded);
  return true;
}

/* An external Redis may come up later than we do; what it promises is checked once it is there. */
static bool check_external(struct daemon *daemon) {
  char where[256], why[512];
  daemon->target = &daemon->config->redis;
  redis_target_describe(daemon->target, where, sizeof where);
  int64_t end_us = clock_monotonic_us() + (int64_t)REDIS_START_MS_MAX * 1000;
  for (bool told = false;; told = true) {
    enum policy_result result = redis_policy_check(daemon->target, POLICY_MS_MAX, why, sizeof why);
    if (result == POLICY_OK)
      return true;
    if (result == POLICY_REFUSED || clock_monotonic_us() > end_us) {
      log_event(LOG_ERROR, "redis cannot be used", log_text("redis", where), log_text("why", why));
      return false;
    }
    if (is_ending())
      return false;
    if (!told)
      log_event(LOG_WARN, "waiting for redis", log_text("redis", where), log_text("why", why));
    usleep(200 * 1000);
  }
}

static bool start_server(struct daemon *daemon, const struct options *options) {
  static const struct rpc_service *const services[] = {&queue_service, &job_service, &worker_service, &callback_service,
                                                       NULL};
  struct rpc_options rpc = {
      .listen = options->listen,
      .threads = (unsigned)options->rpc_threads,
      .calls_max = (unsigned)options->calls_max,
      .parked_max = (unsigned)options->parked_max,
      .request_bytes_max = (unsigned)options->request_bytes_max,
      .header_bytes_max = (unsigned)options->header_bytes_max,
      .streams_per_connection_max = (unsigned)options->streams_per_connection_max,
      .services = services,
      .hooks = {daemon, open_thread, step_thread, asked_of_thread, answered_to_thread, close_thread},
  };
  daemon->server = rpc_server_create(&rpc);
  return daemon->server != NULL;
}

static bool start_dispatcher(struct daemon *daemon, const struct options *options) {
  struct dispatcher_options dispatcher = {.redis = daemon->target,
                                          .allowed = daemon->config->services.callback_allow,
                                          .in_flight_max = (size_t)options->callback_concurrency};
  daemon->dispatcher = dispatcher_create(&dispatcher);
  if (!daemon->dispatcher)
    log_event(LOG_ERROR, "callbacks cannot be sent", log_text("why", "curl, c-ares or a thread cannot be set up"));
  return daemon->dispatcher != NULL;
}

static bool wait_until_answered(struct daemon *daemon) {
  int64_t end_us = clock_monotonic_us() + (int64_t)REDIS_START_MS_MAX * 1000;
  while (!sweeper_redis_answers(daemon->sweeper)) {
    if (is_ending())
      return false;
    if (clock_monotonic_us() > end_us) {
      log_event(LOG_ERROR, "redis does not answer", log_number("waited_ms", REDIS_START_MS_MAX));
      return false;
    }
    usleep(5000);
  }
  return true;
}

static bool start_http(struct daemon *daemon, const struct options *options) {
  if (strcmp(options->http, "off") == 0)
    return true;
  struct http_sources sources = {daemon, write_metrics, is_healthy};
  daemon->http = http_create(options->http, &sources);
  return daemon->http != NULL;
}

/* All at once, so that whoever waits for the file never reads half of it. */
static bool write_ports(struct daemon *daemon, const char *path) {
  if (*path == 0)
    return true;
  char temporary[PATH_SIZE];
  snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid());
  FILE *file = fopen(temporary, "we");
  bool written = file != NULL;
  if (file) {
    fprintf(file, "grpc=%d\n", rpc_server_port(daemon->server));
    if (daemon->http)
      fprintf(file, "http=%d\n", http_port(daemon->http));
    written = fclose(file) == 0;
  }
  if (written && rename(temporary, path) == 0)
    return true;
  log_event(LOG_ERROR, "the ports file cannot be written", log_text("file", path), log_text("why", strerror(errno)));
  unlink(temporary);
  return false;
}

static bool start(struct daemon *daemon, const struct options *options) {
  if (!(*options->redis ? check_external(daemon) : start_embedded(daemon, options)))
    return false;
  if (!start_server(daemon, options))
    return false;
  if (!start_dispatcher(daemon, options))
    return false;
  daemon->sweeper = sweeper_create(daemon->target, redis_changed, daemon);
  struct listener_hooks hooks = {daemon, wake, delivery_due};
  daemon->listener = listener_create(daemon->target, &hooks);
  if (!wait_until_answered(daemon) || !start_http(daemon, options) || !write_ports(daemon, options->ports_file))
    return false;
  log_event(LOG_INFO, "ready", log_text("version", RINGBACK_VERSION), log_text("listen", options->listen),
            log_number("grpc_port", rpc_server_port(daemon->server)),
            log_number("http_port", daemon->http ? http_port(daemon->http) : 0),
            log_number("rpc_threads", options->rpc_threads));
  return true;
}

struct daemon *daemon_start(const struct daemon_config *config) {
  struct daemon *daemon = calloc(1, sizeof *daemon);
  if (!daemon)
    abort();
  daemon->config = config;
  if (start(daemon, config->options))
    return daemon;
  daemon_drain(daemon);
  daemon_end(daemon);
  return NULL;
}

/* --- while it runs, and the end --- */

void daemon_tick(struct daemon *daemon) {
  if (daemon->embedded)
    embedded_check(daemon->embedded);
}

void daemon_give_memory_back(struct daemon *daemon) {
  struct rpc_metrics metrics;
  rpc_server_metrics(daemon->server, &metrics);
  if (metrics.calls_in_hand > daemon->calls_peak)
    daemon->calls_peak = metrics.calls_in_hand;
  bool left =
      daemon->calls_peak >= metrics.calls_in_hand + CALLS_LEFT_MIN && daemon->calls_peak >= 2 * metrics.calls_in_hand;
  daemon->calls_left_ticks = left ? daemon->calls_left_ticks + 1 : 0;
  if (daemon->calls_left_ticks < CALLS_LEFT_TICKS)
    return;
  malloc_trim(0); /* free keeps it: between what is freed lie pieces that are in use */
  daemon->calls_peak = metrics.calls_in_hand;
  daemon->calls_left_ticks = 0;
}

void daemon_drain(struct daemon *daemon) {
  if (daemon->server) {
    rpc_server_set_serving(daemon->server, false);
    rpc_server_drain(daemon->server, daemon->config->options->grace_ms);
  }
  if (daemon->dispatcher)
    dispatcher_drain(daemon->dispatcher, (int)daemon->config->options->grace_ms);
  if (daemon->http)
    http_destroy(daemon->http);
  if (daemon->listener)
    listener_destroy(daemon->listener);
  if (daemon->dispatcher)
    dispatcher_destroy(daemon->dispatcher);
  if (daemon->sweeper)
    sweeper_destroy(daemon->sweeper);
  if (daemon->server)
    rpc_server_destroy(daemon->server);
}

void daemon_end(struct daemon *daemon) {
  if (daemon->embedded)
    embedded_stop(daemon->embedded);
  free(daemon);
}
