/* See sender.h. A request is first a look-up, then a transfer on a pooled curl handle inside one multi handle; one that
 * has ended before or without dialling waits on a list of its own, so that a done never runs inside sender_post. A
 * pooled handle keeps what never changes; what a request brings is set each time (sender_transfer.c).
 */
#include "server/callback/sender.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/callback/resolver.h"
#include "server/callback/sender_loop.h"
#include "server/callback/sender_transfer.h"

#define IN_FLIGHT_DEFAULT 256

struct sender {
  struct sender_options options;
  char *ca_file;
  CURLM *multi;
  struct sender_loop *loop;
  int wakeup; /* an eventfd */
  struct resolver *resolver;
  size_t in_flight, finished;
  struct transfer *transfers; /* in flight, wherever they are */
  struct transfer *ended;     /* of those without a handle in the multi: done is due */
  struct sender_urls urls;
  size_t idle_count;
  CURL **idle;
};

static void set_up_curl(void) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* The CA bundle that curl was built with, or the one asked for. */
static char *choose_ca_file(const char *wanted) {
  if (wanted)
    return strdup(wanted);
  CURL *easy = curl_easy_init();
  char *bundle = 0;
  if (easy)
    curl_easy_getinfo(easy, CURLINFO_CAINFO, &bundle);
  char *copy = strdup(bundle ? bundle : "/etc/ssl/certs/ca-certificates.crt");
  curl_easy_cleanup(easy);
  return copy;
}

struct sender *sender_create(const struct sender_options *options) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, set_up_curl);
  struct sender *sender = calloc(1, sizeof(*sender));
  if (!sender)
    abort();
  sender->options = *options;
  if (!sender->options.in_flight_max)
    sender->options.in_flight_max = IN_FLIGHT_DEFAULT;
  sender->ca_file = choose_ca_file(options->ca_file);
  sender->idle = calloc(sender->options.in_flight_max, sizeof(CURL *));
  if (!sender->idle || !sender->ca_file)
    abort();
  sender->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  sender->multi = curl_multi_init();
  sender->loop = sender->multi ? sender_loop_create(sender->multi) : 0;
  sender->resolver = resolver_create(options->dns_servers, SENDER_DNS_TIMEOUT_MS);
  if (!sender->loop || !sender->resolver || sender->wakeup < 0) {
    sender_destroy(sender);
    return 0;
  }
  /* The default follows the number of handles and evicts warm connections. */
  curl_multi_setopt(sender->multi, CURLMOPT_MAXCONNECTS, (long)sender->options.in_flight_max);
  curl_multi_setopt(sender->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
  return sender;
}

static void release_handle(struct sender *sender, struct transfer *transfer) {
  if (!transfer->easy)
    return;
  curl_multi_remove_handle(sender->multi, transfer->easy);
  /* curl counts how often it sent again over the life of a handle, up to five, and only a reset forgets it. */
  if (transfer->repeated) {
    curl_easy_reset(transfer->easy);
    if (!transfer_prepare(transfer->easy, sender->ca_file))
      abort();
  }
  assert(sender->idle_count < sender->options.in_flight_max);
  sender->idle[sender->idle_count++] = transfer->easy;
  transfer->easy = 0;
}

static void list_add(struct transfer **head, struct transfer *transfer) {
  transfer->next = *head;
  if (*head)
    (*head)->link = &transfer->next;
  *head = transfer;
  transfer->link = head;
}

static void list_remove(struct transfer *transfer) {
  *transfer->link = transfer->next;
  if (transfer->next)
    transfer->next->link = transfer->link;
}

void sender_destroy(struct sender *sender) {
  if (!sender)
    return;
  resolver_destroy(sender->resolver);
  while (sender->transfers || sender->ended) {
    struct transfer *transfer = sender->transfers ? sender->transfers : sender->ended;
    list_remove(transfer);
    release_handle(sender, transfer);
    transfer_destroy(transfer);
  }
  for (size_t i = 0; i < sender->idle_count; i++)
    curl_easy_cleanup(sender->idle[i]);
  if (sender->multi)
    curl_multi_cleanup(sender->multi);
  sender_loop_destroy(sender->loop);
  sender_urls_close(&sender->urls);
  if (sender->wakeup >= 0)
    close(sender->wakeup);
  free(sender->idle);
  free(sender->ca_file);
  free(sender);
}

/* The done is due in the next sender_poll. */
static void end_early(struct transfer *transfer) {
  assert(transfer->stopped);
  list_remove(transfer);
  list_add(&transfer->sender->ended, transfer);
}

static CURL *take_handle(struct sender *sender) {
  if (sender->idle_count)
    return sender->idle[--sender->idle_count];
  CURL *easy = curl_easy_init();
  if (!easy || !transfer_prepare(easy, sender->ca_file))
    abort();
  return easy;
}

static void dial(struct transfer *transfer, const struct sockaddr_storage *addresses, size_t count) {
  struct sender *sender = transfer->sender;
  struct sockaddr_storage copies[RESOLVER_ADDRESSES_MAX];
  assert(count <= RESOLVER_ADDRESSES_MAX);
  memcpy(copies, addresses, count * sizeof(*addresses));
  if (!transfer_vet(transfer, copies, count)) {
    end_early(transfer);
    return;
  }
  if (!transfer_begin(transfer, take_handle(sender), copies, count, clock_monotonic_us())) {
    end_early(transfer);
    return;
  }
  CURLMcode code = curl_multi_add_handle(sender->multi, transfer->easy);
  if (code != CURLM_OK) {
    transfer_stop(transfer, CALLBACK_ERROR_CANCELLED, "curl: %s", curl_multi_strerror(code));
    end_early(transfer);
  }
}

static void resolved(void *context, const struct sockaddr_storage *addresses, size_t count, const char *error) {
  struct transfer *transfer = context;
  if (error) {
    transfer->result.dns_us = clock_monotonic_us() - transfer->start_us;
    transfer_stop(transfer, CALLBACK_ERROR_DNS, "%s: %s", transfer->url->url.host, error);
    end_early(transfer);
    return;
  }
  dial(transfer, addresses, count);
}

bool sender_post(struct sender *sender, const struct sender_request *request, sender_done *done, void *context) {
  if (sender->in_flight >= sender->options.in_flight_max)
    return false;
  int64_t now_us = clock_monotonic_us();
  struct transfer *transfer = transfer_create(request, &sender->urls, now_us);
  transfer->sender = sender;
  transfer->allowed = &sender->options.allowed;
  transfer->loop = sender->loop;
  transfer->done = done;
  transfer->context = context;
  sender->in_flight++;
  list_add(&sender->transfers, transfer);
  if (transfer->stopped)
    end_early(transfer);
  else if (transfer->url->url.is_address)
    dial(transfer, &transfer->url->url.address, 1);
  else
    resolver_lookup(sender->resolver, transfer->url->url.host, now_us, resolved, transfer);
  return true;
}

static void finish(struct sender *sender, struct transfer *transfer, CURLcode code) {
  transfer_end(transfer, code, clock_monotonic_us(), clock_wall_ms());
  list_remove(transfer);
  release_handle(sender, transfer);
  sender->in_flight--;
  sender->finished++;
  transfer->done(transfer->context, &transfer->result);
  transfer_destroy(transfer);
}

static void finish_ended(struct sender *sender) {
  /* A done may post again and end early again: those wait for the next round. */
  struct transfer *ended = sender->ended;
  sender->ended = 0;
  if (ended)
    ended->link = &ended;
  while (ended)
    finish(sender, ended, CURLE_OK);
}

static void finish_transfers(struct sender *sender) {
  int left;
  for (CURLMsg *message; (message = curl_multi_info_read(sender->multi, &left));) {
    if (message->msg != CURLMSG_DONE)
      continue;
    char *private = 0;
    CURLcode code = message->data.result;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
    finish(sender, (struct transfer *)(void *)private, code);
  }
}

static void finish_all(struct sender *sender) {
  finish_transfers(sender);
  finish_ended(sender);
}

int64_t sender_poll(struct sender *sender, struct pollfd *extra, size_t extra_count, int timeout_ms) {
  enum { OWN = 2, MOST = OWN + SENDER_EXTRA_FDS_MAX + RESOLVER_FDS_MAX };
  struct pollfd fds[MOST];
  assert(extra_count <= SENDER_EXTRA_FDS_MAX);
  /* What was posted since the last turn leaves before anything is waited for. */
  int64_t now_us = clock_monotonic_us();
  sender_loop_run_timers(sender->loop, now_us);
  size_t before = sender->finished;
  finish_all(sender);
  /* Whose request has come to its end may have something to do, which must not wait either. */
  if (sender->ended || sender->finished != before)
    timeout_ms = 0;

  fds[0] = (struct pollfd){.fd = sender_loop_fd(sender->loop), .events = POLLIN};
  fds[1] = (struct pollfd){.fd = sender->wakeup, .events = POLLIN};
  if (extra_count)
    memcpy(fds + OWN, extra, extra_count * sizeof(*extra));
  struct pollfd *names = fds + OWN + extra_count;
  size_t name_count = resolver_poll_fds(sender->resolver, names);
  timeout_ms = resolver_timeout_ms(sender->resolver, now_us, timeout_ms);
  timeout_ms = sender_loop_timeout_ms(sender->loop, now_us, timeout_ms);
  int64_t wait_us = clock_monotonic_us();
  if (poll(fds, OWN + extra_count + name_count, timeout_ms) < 0)
    for (size_t i = 0; i < OWN + extra_count + name_count; i++)
      fds[i].revents = 0;

  if (extra_count)
    memcpy(extra, fds + OWN, extra_count * sizeof(*extra));
  uint64_t count;
  if (fds[1].revents)
    (void)!read(sender->wakeup, &count, sizeof(count));
  now_us = clock_monotonic_us();
  wait_us = now_us - wait_us;
  resolver_process(sender->resolver, names, name_count, now_us);
  if (fds[0].revents)
    sender_loop_run_sockets(sender->loop);
  sender_loop_run_timers(sender->loop, now_us);
  finish_all(sender);
  return wait_us;
}

void sender_wakeup(struct sender *sender) {
  uint64_t one = 1;
  (void)!write(sender->wakeup, &one, sizeof(one));
}

size_t sender_in_flight(const struct sender *sender) {
  return sender->in_flight;
}
