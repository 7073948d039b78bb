/* One look-up, shared by its owner and its thread: the last of the two to leave frees it. The thread writes the result
 * before it sets `ready`; the owner reads it only after. */
#include "redis/resolve.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct resolution {
  atomic_int holders;
  atomic_bool ready;
  int event_fd;
  int error;
  struct addrinfo *addresses;
  char port[8];
  char host[];
};

static void look_up(struct resolution *resolution, int flags) {
  struct addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
  resolution->error = getaddrinfo(resolution->host, resolution->port, &hints, &resolution->addresses);
  if (resolution->error)
    resolution->addresses = NULL;
}

static void announce(struct resolution *resolution) {
  atomic_store(&resolution->ready, true);
  eventfd_write(resolution->event_fd, 1);
}

static void *run(void *argument) {
  look_up(argument, 0);
  announce(argument);
  resolution_release(argument);
  return NULL;
}

/* Signals stay with the threads that wait for them. */
static int start_thread(struct resolution *resolution) {
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&thread, &attributes, run, resolution);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

struct resolution *resolution_start(const char *host, int port) {
  size_t length = strlen(host) + 1;
  struct resolution *resolution = calloc(1, sizeof *resolution + length);
  if (!resolution)
    abort();
  memcpy(resolution->host, host, length);
  snprintf(resolution->port, sizeof resolution->port, "%d", port & 0xffff);
  resolution->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  atomic_store(&resolution->holders, 1);
  if (resolution->event_fd < 0)
    goto failed;

  look_up(resolution, AI_NUMERICHOST);
  if (!resolution->error) {
    announce(resolution);
    return resolution;
  }
  atomic_store(&resolution->holders, 2);
  if (start_thread(resolution) == 0)
    return resolution;
  atomic_store(&resolution->holders, 1);
failed:
  resolution_release(resolution);
  return NULL;
}

int resolution_fd(const struct resolution *resolution) {
  return resolution->event_fd;
}

bool resolution_result(struct resolution *resolution, const struct addrinfo **addresses, int *error) {
  if (!atomic_load(&resolution->ready))
    return false;
  *addresses = resolution->addresses;
  *error = resolution->error;
  return true;
}

void resolution_release(struct resolution *resolution) {
  if (!resolution || atomic_fetch_sub(&resolution->holders, 1) > 1)
    return;
  if (resolution->addresses)
    freeaddrinfo(resolution->addresses);
  if (resolution->event_fd >= 0)
    close(resolution->event_fd);
  free(resolution);
}
