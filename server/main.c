/* ringbackd: reads its options, starts the daemon, waits for signals, and ends.
 *
 * SIGTERM and SIGINT drain (calls in hand finish, parked ones are answered) and exit with 0; a second one exits at once
 * with 1. Exit status 2: the options are wrong.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/daemon.h"
#include "server/options.h"

enum { EXIT_WRONG_OPTIONS = 2, TICK_MS = 1000, DRAIN_LOOK_MS = 50 };

#define OTHER_DESCRIPTORS_MIN 256 /* of calls, Redis, files; a client connection takes one */

static int wrong(const char *message) {
  fprintf(stderr, "ringbackd: %s\n", message);
  return EXIT_WRONG_OPTIONS;
}

/* Every connection and every callback under way is a descriptor. Returns how many there may be. */
static unsigned long long raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      log_event(LOG_WARN, "the limit of open files cannot be raised", log_number("errno", errno));
      return before;
    }
  }
  return limit.rlim_cur;
}

/* False, with the reason in `message`, when the callbacks alone would use all of them up. */
static bool raise_limits(const struct options *options, char *message, size_t size) {
  unsigned long long most = raise_descriptor_limit();
  unsigned long long needed = (unsigned long long)options->callback_concurrency + OTHER_DESCRIPTORS_MIN;
  if (most >= needed)
    return true;
  snprintf(message, size,
           "--callback-concurrency %lld needs %llu open files, and at most %llu are allowed (ulimit -Hn)",
           (long long)options->callback_concurrency, needed, most);
  return false;
}

/* The set that main waits for, blocked in every thread that starts later. */
static sigset_t block_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGCHLD);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  return set;
}

/* The signal, or 0 when the time is over. */
static int wait_for_signal(const sigset_t *set, int ms) {
  struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
  int number = sigtimedwait(set, NULL, &time);
  return number > 0 ? number : 0;
}

static bool is_end(int number) {
  return number == SIGTERM || number == SIGINT;
}

struct drain {
  struct daemon *daemon;
  atomic_bool done;
};

static void *drain(void *data) {
  struct drain *drain_state = data;
  daemon_drain(drain_state->daemon);
  atomic_store(&drain_state->done, true);
  return NULL;
}

/* Drains on another thread, so that this one goes on to hear signals. */
static void drain_daemon(struct daemon *daemon, const sigset_t *set) {
  struct drain state = {.daemon = daemon};
  pthread_t thread;
  if (pthread_create(&thread, NULL, drain, &state) != 0)
    abort();
  while (!atomic_load(&state.done)) {
    if (is_end(wait_for_signal(set, DRAIN_LOOK_MS))) {
      log_event(LOG_WARN, "ended at once by a second signal", log_number("status", 1));
      _exit(1);
    }
    daemon_tick(daemon);
  }
  pthread_join(thread, NULL);
}

static int run(const struct daemon_config *config) {
  sigset_t set = block_signals();
  struct daemon *daemon = daemon_start(config);
  if (!daemon)
    return is_end(wait_for_signal(&set, 0)) ? 0 : 1;
  int number;
  while (!is_end(number = wait_for_signal(&set, TICK_MS))) {
    daemon_tick(daemon);
    daemon_give_memory_back(daemon);
  }
  log_event(LOG_INFO, "draining", log_text("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"),
            log_number("grace_ms", config->options->grace_ms));
  drain_daemon(daemon, &set);
  daemon_end(daemon);
  log_event(LOG_INFO, "ended", log_number("status", 0));
  return 0;
}

/* What the table of options cannot check: the server's own formats. */
static const char *read_config(const struct options *options, struct daemon_config *config, char *message,
                               size_t size) {
  const char *reason = address_set_parse(options->callback_allow, &config->services.callback_allow);
  if (reason) {
    snprintf(message, size, "--callback-allow is \"%.100s\"; %s", options->callback_allow, reason);
    return message;
  }
  if (*options->redis && !redis_target_parse(options->redis, &config->redis, &reason)) {
    /* Without the form of a URL nobody knows where a password would be. */
    bool show = !strchr(options->redis, '@');
    snprintf(message, size, "--redis%s%.100s%s cannot be used: %s", show ? " \"" : "", show ? options->redis : "",
             show ? "\"" : "", reason);
    return message;
  }
  config->options = options;
  config->services.payload_bytes_max = options->payload_bytes_max;
  config->services.redis_wait_ms = options->redis_wait_ms;
  return NULL;
}

int main(int argc, char **argv) {
  char message[OPTIONS_MESSAGE_SIZE];
  struct options options;
  switch (options_parse(&options, argc, argv, getenv, message)) {
  case OPTIONS_HELP:
    options_print_help(stdout);
    return 0;
  case OPTIONS_VERSION:
    puts("ringbackd " RINGBACK_VERSION);
    return 0;
  case OPTIONS_MAN:
    options_print_man(stdout);
    return fflush(stdout) == 0 ? 0 : 1;
  case OPTIONS_ENVIRONMENT:
    options_print_environment(stdout);
    return fflush(stdout) == 0 ? 0 : 1;
  case OPTIONS_WRONG:
    return wrong(message);
  case OPTIONS_RUN:
    break;
  }
  log_configure((enum log_level)options.log_level, options.log_json != 0);
  struct daemon_config config = {.options = NULL};
  if (!raise_limits(&options, message, sizeof message) || read_config(&options, &config, message, sizeof message))
    return wrong(message);
  int status = run(&config);
  redis_target_clear(&config.redis);
  return status;
}
