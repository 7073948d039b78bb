/* See sender_loop.h. curl gives a socket up at the end of each transfer and takes it back for the next one. Told to the
 * kernel both times, that would be two system calls a request; so a socket that is given up stays registered for
 * reading, and is taken out only when something arrives on it while nobody wants it: its peer has closed it.
 */
#include "server/callback/sender_loop.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/base/log.h"

#define EVENTS_MAX 16 /* sockets that one turn serves: short turns keep Redis and this thread both at work */
#define SOCKETS_FIRST 1024

struct watch {
  uint32_t wanted, registered; /* events; 0: none */
};

struct sender_loop {
  CURLM *multi;
  int epoll;
  int64_t timer_us; /* when curl wants to run; 0: no timer */
  size_t watch_count;
  struct watch *watches; /* by descriptor */
};

static struct watch *watch_of(struct sender_loop *loop, int fd) {
  size_t index = (size_t)fd;
  if (index >= loop->watch_count) {
    size_t count = loop->watch_count ? loop->watch_count : SOCKETS_FIRST;
    while (count <= index)
      count *= 2;
    loop->watches = realloc(loop->watches, count * sizeof(*loop->watches));
    if (!loop->watches)
      abort();
    memset(loop->watches + loop->watch_count, 0, (count - loop->watch_count) * sizeof(*loop->watches));
    loop->watch_count = count;
  }
  return &loop->watches[index];
}

void sender_loop_opened(struct sender_loop *loop, int fd) {
  /* The kernel forgot the one that had this number before when it was closed. */
  *watch_of(loop, fd) = (struct watch){0};
}

static void watch_register(struct sender_loop *loop, int fd, struct watch *watch, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  int operation = !events ? EPOLL_CTL_DEL : watch->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(loop->epoll, operation, fd, &event) != 0)
    log_event(LOG_ERROR, "a callback's socket cannot be watched", log_number("descriptor", fd));
  watch->registered = events;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *unused) {
  (void)easy;
  (void)unused;
  struct sender_loop *loop = context;
  struct watch *watch = watch_of(loop, fd);
  watch->wanted = what == CURL_POLL_IN      ? EPOLLIN
                  : what == CURL_POLL_OUT   ? EPOLLOUT
                  : what == CURL_POLL_INOUT ? EPOLLIN | EPOLLOUT
                                            : 0;
  if (watch->wanted && watch->wanted != watch->registered)
    watch_register(loop, fd, watch, watch->wanted);
  return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *context) {
  (void)multi;
  struct sender_loop *loop = context;
  loop->timer_us = timeout_ms < 0 ? 0 : clock_monotonic_us() + timeout_ms * 1000;
  return 0;
}

struct sender_loop *sender_loop_create(CURLM *multi) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0)
    return 0;
  struct sender_loop *loop = calloc(1, sizeof(*loop));
  if (!loop)
    abort();
  loop->multi = multi;
  loop->epoll = epoll;
  curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, loop);
  curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(multi, CURLMOPT_TIMERDATA, loop);
  return loop;
}

void sender_loop_destroy(struct sender_loop *loop) {
  if (!loop)
    return;
  close(loop->epoll);
  free(loop->watches);
  free(loop);
}

int sender_loop_fd(const struct sender_loop *loop) {
  return loop->epoll;
}

int sender_loop_timeout_ms(const struct sender_loop *loop, int64_t now_us, int limit_ms) {
  if (!loop->timer_us)
    return limit_ms;
  int64_t left_ms = loop->timer_us > now_us ? (loop->timer_us - now_us + 999) / 1000 : 0;
  return left_ms < limit_ms ? (int)left_ms : limit_ms;
}

static void act(struct sender_loop *loop, curl_socket_t fd, int mask) {
  int running;
  CURLMcode code = curl_multi_socket_action(loop->multi, fd, mask, &running);
  if (code != CURLM_OK)
    log_event(LOG_ERROR, "curl failed", log_text("reason", curl_multi_strerror(code)));
}

void sender_loop_run_timers(struct sender_loop *loop, int64_t now_us) {
  if (loop->timer_us && loop->timer_us <= now_us) {
    loop->timer_us = 0;
    act(loop, CURL_SOCKET_TIMEOUT, 0);
  }
}

void sender_loop_run_sockets(struct sender_loop *loop) {
  struct epoll_event events[EVENTS_MAX];
  int count = epoll_wait(loop->epoll, events, EVENTS_MAX, 0);
  for (int i = 0; i < count; i++) {
    int fd = events[i].data.fd;
    struct watch *watch = watch_of(loop, fd);
    uint32_t ready = events[i].events;
    /* Closed, or given up, by a transfer served before it in this turn. */
    if (!watch->registered)
      continue;
    if (!watch->wanted) {
      watch_register(loop, fd, watch, 0);
      continue;
    }
    int mask = (ready & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) | (ready & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (ready & EPOLLERR ? CURL_CSELECT_ERR : 0);
    act(loop, fd, mask);
  }
}
