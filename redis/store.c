/* The store's engine: calls wait until a flush, calls of one function and partition become one FCALL, answers come back
 * in order.
 *
 * It knows nothing of what the functions mean (store_queues.c, store_jobs.c, store_workers.c, store_callbacks.c) nor of
 * hiredis (protocol.c). It belongs to one thread; only the metrics are read by others.
 */
#include "redis/store.h"

#include <assert.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis/call.h"
#include "redis/library.h"
#include "server/base/log.h"

/* While so many commands are under way, what is queued waits and merges: one runs, and the next is there when it ends.
 */
enum { STEP_COMMANDS_MAX = 2 };

enum { MERGED_ITEMS_MAX = 250, MERGED_BYTES_MAX = 1 << 20, FREE_CALLS_MAX = 256, OPEN_COMMANDS_MAX = 64 };

/* One FCALL on its way, with the calls merged into it. */
struct command {
  struct store *store;
  const char *function;
  unsigned partition;
  size_t items, size, calls, arguments;
  uint64_t through; /* with its answer so many of the store's calls are answered; 0: others of its round follow */
  struct store_call *first, *last;
};

struct store {
  struct redis_connection *connection;
  struct store_owners owners;
  struct store_call *queued_first, *queued_last;
  uint64_t asked, answered;
  struct store_call *free_calls;
  size_t free_count;
  const char **vector; /* arguments of the command being sent */
  size_t *lengths;
  size_t vector_capacity;
  uint64_t in_flight;
  _Atomic uint64_t calls, commands, batch_max, failures, reconnects, batch_sizes[8];
};

const char store_channel[] = "ringback:wake";

struct store *store_create(const struct redis_target *target) {
  struct store *store = calloc(1, sizeof *store);
  assert(store);
  store->connection = redis_connection_create(target);
  return store;
}

void store_set_owners(struct store *store, const struct store_owners *owners) {
  store->owners = *owners;
}

static void free_call(struct store_call *call) {
  struct arena *arena = call->arena;
  arena_destroy(arena);
}

void store_destroy(struct store *store) {
  redis_connection_destroy(store->connection);
  while (store->queued_first) {
    struct store_call *call = store->queued_first;
    store->queued_first = call->next;
    free_call(call);
  }
  while (store->free_calls) {
    struct store_call *call = store->free_calls;
    store->free_calls = call->next;
    free_call(call);
  }
  free(store->vector);
  free(store->lengths);
  free(store);
}

/* A call lives in its own arena. Ended calls are kept for the next ones, so that the hot path allocates nothing. */
struct store_call *call_create(struct store *store, const char *function, unsigned partition, call_answer *answer,
                               void (*done)(void), void *context) {
  struct arena *arena;
  if (store->free_calls) {
    struct store_call *old = store->free_calls;
    store->free_calls = old->next;
    store->free_count--;
    arena = old->arena;
    arena_reset(arena);
  } else {
    arena = arena_create();
  }
  struct store_call *call = ARENA_NEW(arena, struct store_call);
  call->arena = arena;
  call->function = function;
  call->partition = partition;
  call->answer = answer;
  call->done = done;
  call->context = context;
  call->items = 1;
  call->capacity = 16;
  call->arguments = ARENA_ARRAY(arena, struct bytes, call->capacity);
  return call;
}

void call_add_kept(struct store_call *call, struct bytes argument) {
  if (call->count == call->capacity) {
    struct bytes *more = ARENA_ARRAY(call->arena, struct bytes, call->capacity * 2);
    memcpy(more, call->arguments, call->count * sizeof *more);
    call->arguments = more;
    call->capacity *= 2;
  }
  call->arguments[call->count++] = argument;
  call->size += argument.length;
}

void call_add(struct store_call *call, struct bytes argument) {
  const uint8_t *copy = argument.length ? arena_copy(call->arena, argument.data, argument.length) : (const uint8_t *)"";
  call_add_kept(call, (struct bytes){copy, argument.length});
}

void call_add_text(struct store_call *call, const char *text) {
  call_add(call, (struct bytes){(const uint8_t *)text, strlen(text)});
}

void call_add_number(struct store_call *call, int64_t number) {
  char text[24];
  int length = snprintf(text, sizeof text, "%" PRId64, number);
  call_add(call, (struct bytes){(const uint8_t *)text, (size_t)length});
}

void call_add_id(struct store_call *call, const struct job_id *id) {
  call_add(call, (struct bytes){id->bytes, sizeof id->bytes});
}

void call_send(struct store *store, struct store_call *call) {
  call->next = NULL;
  if (store->queued_last)
    store->queued_last->next = call;
  else
    store->queued_first = call;
  store->queued_last = call;
  store->asked++;
  if (store->owners.hold)
    call->owner = store->owners.hold();
  atomic_fetch_add_explicit(&store->calls, 1, memory_order_relaxed);
}

static void end_call(struct store *store, struct store_call *call, const struct store_error *error,
                     const struct redis_value *reply) {
  if (error->code == STORE_UNAVAILABLE)
    atomic_fetch_add_explicit(&store->failures, 1, memory_order_relaxed);
  if (store->owners.begin)
    store->owners.begin(call->owner);
  call->answer(call, error, reply);
  if (store->owners.let_go)
    store->owners.let_go(call->owner);
  if (store->free_count < FREE_CALLS_MAX) {
    call->next = store->free_calls;
    store->free_calls = call;
    store->free_count++;
  } else {
    free_call(call);
  }
}

/* What Redis says instead of running a function. */
static struct store_error command_error(const struct command *command, const struct redis_value *reply) {
  if (!reply)
    return (struct store_error){.code = STORE_UNAVAILABLE, .reason = "Redis cannot be reached"};
  const char *text = redis_text(reply, NULL);
  if (strncmp(text, "OOM", 3) == 0 || strstr(text, "-OOM") || strstr(text, "OOM command not allowed"))
    return (struct store_error){.code = STORE_OUT_OF_MEMORY, .reason = "Redis is over its memory limit"};
  log_event(LOG_ERROR, "redis refused a function", log_text("function", command->function), log_text("error", text));
  static const char *const passing[] = {"BUSY",   "LOADING", "READONLY",    "MASTERDOWN",
                                        "NOAUTH", "MISCONF", "CLUSTERDOWN", "ERR Function not found"};
  for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
    if (strncmp(text, passing[i], strlen(passing[i])) == 0)
      return (struct store_error){.code = STORE_UNAVAILABLE, .reason = "Redis does not take functions at the moment"};
  return (struct store_error){.code = STORE_INTERNAL, .reason = "the store answered with an error"};
}

static struct store_error call_error(const struct redis_value *reply) {
  int64_t code = value_number(reply, 0);
  if (redis_count(reply) == 0 || code < 0 || code > STORE_INTERNAL)
    return (struct store_error){.code = STORE_INTERNAL, .reason = "the store answered with nonsense"};
  return (struct store_error){.code = (enum store_code)code,
                              .reason = code ? value_text(reply, 1) : "",
                              .limit = code ? value_number(reply, 2) : 0,
                              .current = code ? value_number(reply, 3) : 0};
}

static void on_reply(void *context, const struct redis_value *reply) {
  struct command *command = context;
  struct store *store = command->store;
  store->in_flight--;
  bool usable = reply && redis_kind(reply) == REDIS_ARRAY && redis_count(reply) == command->calls;
  struct store_error whole = usable ? (struct store_error){0} : command_error(command, reply);
  struct store_call *call = command->first;
  for (size_t i = 0; call; i++) {
    struct store_call *next = call->next;
    const struct redis_value *own = usable ? redis_at(reply, i) : NULL;
    struct store_error error = usable ? call_error(own) : whole;
    end_call(store, call, &error, own);
    call = next;
  }
  if (command->through)
    store->answered = command->through;
  free(command);
}

static void reserve_vector(struct store *store, size_t count) {
  if (count <= store->vector_capacity)
    return;
  store->vector_capacity = count * 2;
  store->vector = realloc(store->vector, store->vector_capacity * sizeof *store->vector);
  store->lengths = realloc(store->lengths, store->vector_capacity * sizeof *store->lengths);
  assert(store->vector && store->lengths);
}

static void put_argument(struct store *store, size_t *at, const char *data, size_t length) {
  store->vector[*at] = data;
  store->lengths[*at] = length;
  (*at)++;
}

static void send_command(struct store *store, struct command *command) {
  char function[64], tag[8], numbers[MERGED_ITEMS_MAX + 1][12];
  redis_library_function(command->function, function, sizeof function);
  snprintf(tag, sizeof tag, "{p%02u}", command->partition);
  reserve_vector(store, 4 + command->arguments + command->calls);
  size_t at = 0, index = 0;
  put_argument(store, &at, "FCALL", 5);
  put_argument(store, &at, function, strlen(function));
  put_argument(store, &at, "1", 1);
  put_argument(store, &at, tag, strlen(tag));
  for (struct store_call *call = command->first; call; call = call->next, index++) {
    int length = snprintf(numbers[index], sizeof numbers[index], "%zu", call->count);
    put_argument(store, &at, numbers[index], (size_t)length);
    for (size_t i = 0; i < call->count; i++)
      put_argument(store, &at, (const char *)call->arguments[i].data, call->arguments[i].length);
  }
  store->in_flight++;
  atomic_fetch_add_explicit(&store->commands, 1, memory_order_relaxed);
  unsigned bucket = 0;
  while (bucket < 7 && (1u << bucket) < command->calls)
    bucket++;
  atomic_fetch_add_explicit(&store->batch_sizes[bucket], 1, memory_order_relaxed);
  if (command->calls > atomic_load_explicit(&store->batch_max, memory_order_relaxed))
    atomic_store_explicit(&store->batch_max, command->calls, memory_order_relaxed);
  redis_command(store->connection, at, store->vector, store->lengths, on_reply, command);
}

static bool fits(const struct command *command, const struct store_call *call) {
  return command->partition == call->partition && command->items + call->items <= MERGED_ITEMS_MAX &&
         command->calls < MERGED_ITEMS_MAX && command->size + call->size <= MERGED_BYTES_MAX &&
         strcmp(command->function, call->function) == 0;
}

static void append(struct command *command, struct store_call *call) {
  call->next = NULL;
  if (command->last)
    command->last->next = call;
  else
    command->first = call;
  command->last = call;
  command->items += call->items;
  command->size += call->size;
  command->arguments += call->count;
  command->calls++;
}

/* Turns everything queued into commands. Calls of one round come from different callers, so their order among different
 * functions is free; among the same function it is kept. */
static void send_queued(struct store *store) {
  struct command *open[OPEN_COMMANDS_MAX];
  size_t count = 0;
  while (store->queued_first) {
    struct store_call *call = store->queued_first;
    store->queued_first = call->next;
    if (!store->queued_first)
      store->queued_last = NULL;
    struct command *command = NULL;
    for (size_t i = count; i > 0 && !command; i--)
      if (fits(open[i - 1], call))
        command = open[i - 1];
    if (!command) {
      if (count == OPEN_COMMANDS_MAX) {
        send_command(store, open[0]);
        memmove(open, open + 1, --count * sizeof *open);
      }
      command = calloc(1, sizeof *command);
      assert(command);
      *command = (struct command){.store = store, .function = call->function, .partition = call->partition};
      open[count++] = command;
    }
    append(command, call);
  }
  open[count - 1]->through = store->asked; /* Redis answers in order */
  for (size_t i = 0; i < count; i++)
    send_command(store, open[i]);
}

void store_command(struct store *store, size_t count, const char *const *arguments, redis_reply_done *done,
                   void *context) {
  size_t lengths[8];
  assert(count <= 8);
  for (size_t i = 0; i < count; i++)
    lengths[i] = strlen(arguments[i]);
  redis_connection_start(store->connection); /* down, it would not take the command */
  redis_command(store->connection, count, arguments, lengths, done, context);
}

void store_send(struct store *store) {
  redis_connection_start(store->connection);
  if (store->queued_first)
    send_queued(store);
  redis_progress(store->connection);
  atomic_store_explicit(&store->reconnects, redis_connection_reconnects(store->connection), memory_order_relaxed);
}

void store_expire(struct store *store, int wait_ms) {
  if (redis_waiting_ms(store->connection) > wait_ms)
    redis_connection_close(store->connection, "no answer in time");
}

/* Waits for the connection to be readable, or writable where it has something to write. */
static void await_connection(struct store *store, int64_t wait_us) {
  struct pollfd waiter = {.fd = redis_fd(store->connection),
                          .events = (short)(POLLIN | (redis_wants_write(store->connection) ? POLLOUT : 0))};
  struct timespec time = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000};
  ppoll(&waiter, 1, &time, NULL);
}

void store_flush(struct store *store, int wait_ms) {
  while (store->queued_first || redis_pending(store->connection) > 0) {
    store_send(store);
    if (store->queued_first || redis_pending(store->connection) == 0)
      continue;
    int64_t left = wait_ms - redis_waiting_ms(store->connection);
    if (left > 0)
      await_connection(store, (left < 1000 ? left : 1000) * 1000);
    redis_progress(store->connection);
    store_expire(store, wait_ms);
  }
}

void store_step(struct store *store, int wait_us, int wait_ms) {
  if (redis_pending(store->connection) < STEP_COMMANDS_MAX)
    store_send(store);
  if (redis_pending(store->connection) == 0)
    return;
  await_connection(store, wait_us);
  redis_progress(store->connection);
  store_expire(store, wait_ms);
  if (store->queued_first && redis_pending(store->connection) < STEP_COMMANDS_MAX)
    store_send(store);
}

uint64_t store_asked(const struct store *store) {
  return store->asked;
}

uint64_t store_answered(const struct store *store) {
  return store->answered;
}

int64_t store_waiting_ms(const struct store *store) {
  return redis_waiting_ms(store->connection);
}

int store_fd(const struct store *store) {
  return redis_fd(store->connection);
}

bool store_wants_write(const struct store *store) {
  return redis_wants_write(store->connection);
}

void store_ready(struct store *store) {
  redis_progress(store->connection);
}

bool store_is_connected(const struct store *store) {
  return redis_connection_is_up(store->connection);
}

void store_metrics(const struct store *store, struct store_metrics *metrics) {
  metrics->calls = atomic_load_explicit(&store->calls, memory_order_relaxed);
  metrics->commands = atomic_load_explicit(&store->commands, memory_order_relaxed);
  metrics->batch_max = atomic_load_explicit(&store->batch_max, memory_order_relaxed);
  metrics->failures = atomic_load_explicit(&store->failures, memory_order_relaxed);
  metrics->reconnects = atomic_load_explicit(&store->reconnects, memory_order_relaxed);
  for (size_t i = 0; i < 8; i++)
    metrics->batch_sizes[i] = atomic_load_explicit(&store->batch_sizes[i], memory_order_relaxed);
}

/* --- values --- */

const char *value_text(const struct redis_value *array, size_t index) {
  return redis_text(redis_at(array, index), NULL);
}

struct bytes value_bytes(const struct redis_value *array, size_t index) {
  size_t length = 0;
  const char *text = redis_text(redis_at(array, index), &length);
  return (struct bytes){(const uint8_t *)text, length};
}

int64_t value_number(const struct redis_value *array, size_t index) {
  return redis_integer(redis_at(array, index));
}
