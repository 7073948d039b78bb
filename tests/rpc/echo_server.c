/* echo-server LISTEN [threads [calls_max [parked_max [grace_ms]]]]: the echo service on the RPC layer. Prints the port;
 * SIGTERM drains.
 *
 * Parking works as with the real store: a handler queues its question, a step decides all that are queued, and answers
 * them, unless Block has silenced it; then they stay decided and unanswered until that is over.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "echo.pb-c.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/rpc/errors.h"
#include "server/rpc/rpc.h"

#define REQUEST_BYTES_MAX 65536
#define HEADER_BYTES_MAX 8192
#define KEYS 64

extern const unsigned char echo_descriptor_set[];
extern const size_t echo_descriptor_set_size;

static struct rpc_server *_Atomic server; /* handlers may run before rpc_server_create has returned */
static atomic_int tokens[KEYS];
static atomic_int turns;
static atomic_uint_least64_t tries, closed_calls, undelivered_calls, half_closed_calls;

/* --- a thread's context: the questions under way --- */

struct question {
  struct question *next;
  struct rpc_call *call, *owner;
  bool decided;
  int64_t token_key; /* -1: none */
};

struct context {
  struct question *first, **last;
  uint64_t asked, answered;
  int64_t silent_until_us;
};

struct parker {
  uint64_t *keys;
  size_t key_count;
  bool shared, asking;
  int64_t until_ms;
};

static void *context_open(void *unused, unsigned index) {
  (void)unused, (void)index;
  struct context *context = calloc(1, sizeof *context);
  assert(context);
  context->last = &context->first;
  return context;
}

static void park_reply(struct rpc_call *call, const char *why, int turn) {
  Ringback__Test__V1__ParkResponse response = RINGBACK__TEST__V1__PARK_RESPONSE__INIT;
  response.why = arena_strdup(rpc_arena(call), why);
  response.turn = turn;
  rpc_reply(call, &response.base);
}

static bool take_token(uint64_t key) {
  int have = atomic_load(&tokens[key % KEYS]);
  while (have > 0)
    if (atomic_compare_exchange_weak(&tokens[key % KEYS], &have, have - 1))
      return true;
  return false;
}

static void park_decide(struct question *question) {
  struct parker *parker = rpc_data(question->call);
  atomic_fetch_add(&tries, 1);
  question->decided = true;
  question->token_key = -1;
  for (size_t i = 0; i < parker->key_count && question->token_key < 0; i++)
    if (take_token(parker->keys[i]))
      question->token_key = (int64_t)(parker->keys[i] % KEYS);
}

static void park_answer(struct question *question) {
  struct rpc_call *call = question->call;
  struct parker *parker = rpc_data(call);
  parker->asking = false;
  if (question->token_key >= 0 && rpc_is_over(call)) {
    atomic_fetch_add(&tokens[question->token_key], 1);
    rpc_server_wake(server, (uint64_t)question->token_key);
    return;
  }
  if (question->token_key >= 0) {
    park_reply(call, "token", atomic_fetch_add(&turns, 1));
    return;
  }
  if (!rpc_park(call, parker->keys, parker->key_count, parker->shared, parker->until_ms))
    rpc_fail(call, RPC_RESOURCE_EXHAUSTED, "too many are parked");
}

static void context_step(void *thread) {
  struct context *context = thread;
  for (struct question *question = context->first; question; question = question->next)
    if (!question->decided)
      park_decide(question);
  if (clock_monotonic_us() < context->silent_until_us) {
    usleep(1000);
    return;
  }
  while (context->first && context->first->decided) {
    struct question *question = context->first;
    context->first = question->next;
    if (!context->first)
      context->last = &context->first;
    context->answered++;
    rpc_begin(question->owner);
    park_answer(question);
    rpc_let_go(question->owner);
  }
}

static uint64_t context_asked(const void *thread) {
  return ((const struct context *)thread)->asked;
}

static uint64_t context_answered(const void *thread) {
  return ((const struct context *)thread)->answered;
}

static void park_ask(struct rpc_call *call) {
  struct context *context = rpc_thread(call);
  struct question *question = ARENA_NEW(rpc_arena(call), struct question);
  *question = (struct question){.call = call, .owner = rpc_hold()};
  assert(question->owner == call);
  ((struct parker *)rpc_data(call))->asking = true;
  *context->last = question;
  context->last = &question->next;
  context->asked++;
}

/* --- methods --- */

static const Ringback__Test__V1__EchoRequest *echo_request(const ProtobufCMessage *message) {
  return (const Ringback__Test__V1__EchoRequest *)message;
}

static void unary(struct rpc_call *call, const ProtobufCMessage *message) {
  Ringback__Test__V1__EchoResponse response = RINGBACK__TEST__V1__ECHO_RESPONSE__INIT;
  response.text = echo_request(message)->text;
  response.payload = echo_request(message)->payload;
  rpc_reply(call, &response.base);
}

struct collected {
  char text[4096];
  int count;
};

static void collect_start(struct rpc_call *call, const ProtobufCMessage *message) {
  assert(!message);
  rpc_set_data(call, ARENA_NEW(rpc_arena(call), struct collected));
}

static void collect_message(struct rpc_call *call, const ProtobufCMessage *message) {
  struct collected *collected = rpc_data(call);
  collected->count++;
  if (strcmp(echo_request(message)->text, "stop") == 0) {
    rpc_fail(call, RPC_ABORTED, "stopped");
    return;
  }
  strncat(collected->text, echo_request(message)->text, sizeof collected->text - strlen(collected->text) - 1);
}

static void collect_half_closed(struct rpc_call *call) {
  struct collected *collected = rpc_data(call);
  atomic_fetch_add(&half_closed_calls, 1);
  Ringback__Test__V1__EchoResponse response = RINGBACK__TEST__V1__ECHO_RESPONSE__INIT;
  response.text = collected->text;
  response.index = collected->count;
  rpc_reply(call, &response.base);
}

struct expansion {
  const Ringback__Test__V1__EchoRequest *request;
  int sent;
};

static void expand_next(struct rpc_call *call) {
  struct expansion *expansion = rpc_data(call);
  if (expansion->sent == expansion->request->count) {
    rpc_end(call);
    return;
  }
  Ringback__Test__V1__EchoResponse response = RINGBACK__TEST__V1__ECHO_RESPONSE__INIT;
  response.text = expansion->request->text;
  response.payload = expansion->request->payload;
  response.index = expansion->sent++;
  rpc_send(call, &response.base);
  if (expansion->request->count == 1) /* ends while its message is under way */
    rpc_end(call);
}

static void expand_start(struct rpc_call *call, const ProtobufCMessage *message) {
  struct expansion *expansion = ARENA_NEW(rpc_arena(call), struct expansion);
  expansion->request = echo_request(message);
  rpc_set_data(call, expansion);
  expand_next(call);
}

static void talk_message(struct rpc_call *call, const ProtobufCMessage *message) {
  Ringback__Test__V1__EchoResponse response = RINGBACK__TEST__V1__ECHO_RESPONSE__INIT;
  response.text = echo_request(message)->text;
  response.payload = echo_request(message)->payload;
  rpc_pause_reading(call);
  rpc_send(call, &response.base);
}

static void count_closed(struct rpc_call *call) {
  assert(rpc_is_over(call));
  atomic_fetch_add(&closed_calls, 1);
}

static void park_closed(struct rpc_call *call) {
  assert(!((struct parker *)rpc_data(call))->asking);
  count_closed(call);
}

static void count_undelivered(struct rpc_call *call) {
  (void)call;
  atomic_fetch_add(&undelivered_calls, 1);
}

static void park_start(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__Test__V1__ParkRequest *request = (const Ringback__Test__V1__ParkRequest *)message;
  struct parker *parker = ARENA_NEW(rpc_arena(call), struct parker);
  parker->keys = request->keys;
  parker->key_count = request->n_keys;
  parker->shared = request->shared;
  parker->until_ms = request->wait_ms ? rpc_now_ms(call) + request->wait_ms : INT64_MAX;
  rpc_set_data(call, parker);
  park_ask(call);
}

static void park_wake(struct rpc_call *call, enum rpc_wake why) {
  struct parker *parker = rpc_data(call);
  if (why == RPC_WAKE_DEADLINE)
    park_reply(call, "deadline", 0);
  else if (why == RPC_WAKE_DRAIN)
    park_reply(call, "drain", 0);
  else if (parker->shared)
    park_reply(call, "woken", 0);
  else
    park_ask(call);
}

static void nothing_reply(struct rpc_call *call) {
  Ringback__Test__V1__Nothing nothing = RINGBACK__TEST__V1__NOTHING__INIT;
  rpc_reply(call, &nothing.base);
}

static void wake(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__Test__V1__WakeRequest *request = (const Ringback__Test__V1__WakeRequest *)message;
  atomic_fetch_add(&tokens[request->key % KEYS], request->tokens);
  rpc_server_wake(server, request->key);
  nothing_reply(call);
}

static void block(struct rpc_call *call, const ProtobufCMessage *message) {
  struct context *context = rpc_thread(call);
  context->silent_until_us = clock_monotonic_us() + ((const Ringback__Test__V1__BlockRequest *)message)->ms * 1000;
  nothing_reply(call);
}

static void fail(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__Test__V1__FailRequest *request = (const Ringback__Test__V1__FailRequest *)message;
  rpc_fail(call, (enum rpc_code)request->code, "%s", request->message);
}

static void stats(struct rpc_call *call, const ProtobufCMessage *message) {
  (void)message;
  struct rpc_metrics metrics;
  rpc_server_metrics(server, &metrics);
  Ringback__Test__V1__StatsResponse response = RINGBACK__TEST__V1__STATS_RESPONSE__INIT;
  response.started = metrics.calls_started;
  response.refused = metrics.calls_refused;
  response.in_hand = metrics.calls_in_hand;
  response.parked = metrics.calls_parked;
  response.batches = metrics.batches;
  response.batch_events = metrics.batch_events;
  response.tries = atomic_load(&tries);
  response.closed = atomic_load(&closed_calls);
  response.undelivered = atomic_load(&undelivered_calls);
  response.half_closed = atomic_load(&half_closed_calls);
  rpc_reply(call, &response.base);
}

static void context(struct rpc_call *call, const ProtobufCMessage *message) {
  (void)message;
  Ringback__Test__V1__ContextResponse response = RINGBACK__TEST__V1__CONTEXT_RESPONSE__INIT;
  const char *header = rpc_header(call, "x-test");
  response.deadline_ms = rpc_deadline_ms(call);
  response.peer = arena_strdup(rpc_arena(call), rpc_peer(call));
  response.caller = arena_strdup(rpc_arena(call), rpc_caller(call));
  response.method = arena_strdup(rpc_arena(call), rpc_method_name(call));
  response.header = arena_strdup(rpc_arena(call), header ? header : "(none)");
  rpc_reply(call, &response.base);
}

static const struct rpc_method methods[] = {
    {.name = "Unary", .start = unary},
    {.name = "Collect",
     .start = collect_start,
     .message = collect_message,
     .half_closed = collect_half_closed,
     .closed = count_closed},
    {.name = "Expand", .start = expand_start, .writable = expand_next, .closed = count_closed},
    {.name = "Talk",
     .message = talk_message,
     .half_closed = rpc_end,
     .writable = rpc_resume_reading,
     .closed = count_closed},
    {.name = "Park", .start = park_start, .wake = park_wake, .closed = park_closed, .undelivered = count_undelivered},
    {.name = "Wake", .start = wake},
    {.name = "Block", .start = block},
    {.name = "Fail", .start = fail},
    {.name = "Stats", .start = stats},
    {.name = "Context", .start = context},
    {0}};

static unsigned number(int argc, char **argv, int index) {
  return argc > index ? (unsigned)atoi(argv[index]) : 0;
}

int main(int argc, char **argv) {
  sigset_t signals;
  int signal_number;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  const struct rpc_service service = {&ringback__test__v1__echo__descriptor, methods};
  const struct rpc_service *const services[] = {&service, NULL};
  const struct rpc_options options = {
      .listen = argc > 1 ? argv[1] : "127.0.0.1:0",
      .threads = number(argc, argv, 2),
      .calls_max = number(argc, argv, 3),
      .parked_max = number(argc, argv, 4),
      .request_bytes_max = REQUEST_BYTES_MAX,
      .header_bytes_max = HEADER_BYTES_MAX,
      .services = services,
      .descriptor_set = echo_descriptor_set,
      .descriptor_set_size = echo_descriptor_set_size,
      .hooks = {.thread_open = context_open,
                .step = context_step,
                .asked = context_asked,
                .answered = context_answered,
                .thread_close = free},
  };
  server = rpc_server_create(&options);
  if (!server)
    return 1;
  rpc_server_set_serving(server, true);
  printf("%d\n", rpc_server_port(server));
  fflush(stdout);
  sigwait(&signals, &signal_number);
  log_event(LOG_INFO, "draining", log_number("signal", signal_number));
  rpc_server_drain(server, number(argc, argv, 5));
  rpc_server_destroy(server);
  return 0;
}
