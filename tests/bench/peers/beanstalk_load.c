/* Loads a beanstalkd on loopback as hard as its protocol allows: put, or put + reserve + delete, pipelined.
 *
 *   beanstalk_load PORT put|lifecycle|latency CONNECTIONS PIPELINE BYTES WARM-UP-MS MS
 *
 * put, lifecycle: that many connections put, and (lifecycle) as many others reserve and delete; each keeps PIPELINE
 * commands under way. At most BACKLOG jobs wait in a life cycle. Prints the jobs a second of the MS that follow the
 * warm-up. latency: one connection puts and one has a reserve pending, one job at a time; prints the percentiles 50 and
 * 99 from before the put to the job's arrival, in µs.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/clock.h"

#define ARGUMENTS 8
#define CONNECTIONS_MAX 512
#define PIPELINE_MAX 256
#define BYTES_MAX 8192
#define BUFFER_BYTES (1 << 20)
#define BACKLOG 10000
#define LATENCIES_MAX 100000
#define WARM_UP_PART 10 /* of latencies, the first of so many are not counted */

struct connection {
  int fd;
  bool puts;
  unsigned under_way; /* commands of a putter; jobs asked for of a worker */
  char *in, *out;
  size_t in_bytes, out_bytes;
};

static struct connection connections[CONNECTIONS_MAX];
static size_t connection_count;
static unsigned long sent, put, done;
static unsigned pipeline;
static char command[BYTES_MAX + 64];
static size_t command_bytes;

static void fail(const char *what) {
  fprintf(stderr, "beanstalk_load: ");
  perror(what);
  exit(1);
}

static void *need(void *memory) {
  if (!memory)
    fail("memory");
  return memory;
}

static struct connection *open_connection(unsigned port, bool puts) {
  struct connection *c = &connections[connection_count++];
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) ||
      setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
    fail("connect");
  c->puts = puts;
  c->in = need(malloc(BUFFER_BYTES));
  c->out = need(malloc(BUFFER_BYTES));
  return c;
}

static void add(struct connection *c, const char *bytes, size_t count) {
  if (c->out_bytes + count > BUFFER_BYTES) {
    fputs("beanstalk_load: the server does not read\n", stderr);
    exit(1);
  }
  memcpy(c->out + c->out_bytes, bytes, count);
  c->out_bytes += count;
}

/* Sends what it can without waiting. */
static void flush(struct connection *c) {
  if (!c->out_bytes)
    return;
  ssize_t written = send(c->fd, c->out, c->out_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (written <= 0)
    return; /* poll tells when there is room, and recv when the other side has gone */
  c->out_bytes -= (size_t)written;
  memmove(c->out, c->out + written, c->out_bytes);
}

static void ask(struct connection *c, bool backlogged) {
  while (c->under_way < pipeline && !(c->puts && backlogged)) {
    c->under_way++;
    if (c->puts) {
      add(c, command, command_bytes);
      sent++;
    } else
      add(c, "reserve\r\n", strlen("reserve\r\n"));
  }
}

/* Takes one whole answer from what has been read; how many bytes it was, 0: not whole yet. */
static size_t take(struct connection *c, const char *from, size_t count) {
  const char *end = memchr(from, '\n', count);
  if (!end)
    return 0;
  size_t line = (size_t)(end - from) + 1;
  char text[64] = {0};
  memcpy(text, from, line < sizeof text ? line : sizeof text - 1);
  if (strncmp(text, "INSERTED ", 9) == 0) {
    c->under_way--;
    put++;
    return line;
  }
  if (strncmp(text, "DELETED", 7) == 0) {
    done++;
    return line;
  }
  char *after = NULL;
  unsigned long id = strncmp(text, "RESERVED ", 9) == 0 ? strtoul(text + 9, &after, 10) : 0;
  if (!id) {
    fprintf(stderr, "beanstalk_load: unexpected answer: %s\n", text);
    exit(1);
  }
  size_t whole = line + strtoul(after, NULL, 10) + 2;
  if (count < whole)
    return 0;
  int length = snprintf(text, sizeof text, "delete %lu\r\n", id);
  add(c, text, (size_t)length);
  c->under_way--;
  return whole;
}

static void read_answers(struct connection *c) {
  ssize_t got = recv(c->fd, c->in + c->in_bytes, BUFFER_BYTES - c->in_bytes, MSG_DONTWAIT);
  if (got == 0)
    fail("the server has closed the connection");
  if (got < 0)
    return;
  c->in_bytes += (size_t)got;
  size_t at = 0;
  for (size_t taken; (taken = take(c, c->in + at, c->in_bytes - at)) > 0;)
    at += taken;
  c->in_bytes -= at;
  memmove(c->in, c->in + at, c->in_bytes);
}

/* One turn of the loop: everybody asks, one poll, whoever can reads. */
static void turn(bool bounded) {
  struct pollfd polls[CONNECTIONS_MAX];
  for (size_t i = 0; i < connection_count; i++) {
    ask(&connections[i], bounded && sent - done >= BACKLOG);
    flush(&connections[i]);
    polls[i] = (struct pollfd){connections[i].fd, (short)(POLLIN | (connections[i].out_bytes ? POLLOUT : 0)), 0};
  }
  if (poll(polls, (nfds_t)connection_count, 100) < 0)
    fail("poll");
  for (size_t i = 0; i < connection_count; i++)
    if (polls[i].revents & (POLLIN | POLLHUP | POLLERR))
      read_answers(&connections[i]);
}

static void measure_rate(bool lifecycle, int64_t warm_up_us, int64_t duration_us) {
  const unsigned long *count = lifecycle ? &done : &put;
  int64_t start = clock_monotonic_us() + warm_up_us, now;
  while (clock_monotonic_us() < start)
    turn(lifecycle);
  unsigned long before = *count;
  start = clock_monotonic_us();
  while ((now = clock_monotonic_us()) < start + duration_us)
    turn(lifecycle);
  printf("%.1f\n", (double)(*count - before) * 1e6 / (double)(now - start));
}

static int compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void measure_latency(int64_t duration_us) {
  static int64_t spans[LATENCIES_MAX];
  struct connection *putter = &connections[0], *worker = &connections[1];
  size_t count = 0;
  pipeline = 1;
  ask(worker, false);
  flush(worker);
  for (int64_t end = clock_monotonic_us() + duration_us; clock_monotonic_us() < end && count < LATENCIES_MAX;) {
    unsigned long put_before = put, done_before = done;
    int64_t begun = clock_monotonic_us();
    ask(putter, false);
    flush(putter);
    while (worker->under_way) {
      struct pollfd one = {worker->fd, POLLIN, 0};
      if (poll(&one, 1, 1000) <= 0)
        fail("no job arrived");
      read_answers(worker);
    }
    spans[count++] = clock_monotonic_us() - begun;
    flush(worker);
    while (put == put_before)
      read_answers(putter);
    while (done == done_before)
      read_answers(worker);
    ask(worker, false);
    flush(worker);
  }
  size_t skipped = count / WARM_UP_PART, kept = count - skipped;
  if (!kept)
    fail("too short");
  qsort(spans + skipped, kept, sizeof *spans, compare);
  printf("%lld %lld\n", (long long)spans[skipped + kept / 2], (long long)spans[skipped + kept * 99 / 100]);
}

int main(int count, char **arguments) {
  if (count != ARGUMENTS) {
    fputs("usage: beanstalk_load PORT put|lifecycle|latency CONNECTIONS PIPELINE BYTES WARM-UP-MS MS\n", stderr);
    return 2;
  }
  const char *what = arguments[2];
  unsigned port = (unsigned)strtoul(arguments[1], NULL, 10), each = (unsigned)strtoul(arguments[3], NULL, 10);
  size_t bytes = strtoul(arguments[5], NULL, 10);
  pipeline = (unsigned)strtoul(arguments[4], NULL, 10);
  if (!each || each > CONNECTIONS_MAX / 2 || !pipeline || pipeline > PIPELINE_MAX || bytes > BYTES_MAX) {
    fputs("beanstalk_load: out of range\n", stderr);
    return 2;
  }
  bool latency = strcmp(what, "latency") == 0, lifecycle = strcmp(what, "lifecycle") == 0;
  command_bytes = (size_t)sprintf(command, "put 1024 0 60 %zu\r\n", bytes);
  memset(command + command_bytes, 'x', bytes);
  memcpy(command + command_bytes + bytes, "\r\n", 2);
  command_bytes += bytes + 2;
  for (unsigned i = 0; i < (latency ? 1 : each); i++)
    open_connection(port, true);
  for (unsigned i = 0; i < (latency ? 1 : lifecycle ? each : 0); i++)
    open_connection(port, false);
  int64_t warm_up_us = strtoll(arguments[6], NULL, 10) * 1000, duration_us = strtoll(arguments[7], NULL, 10) * 1000;
  if (latency)
    measure_latency(duration_us);
  else
    measure_rate(lifecycle, warm_up_us, duration_us);
  return 0;
}
