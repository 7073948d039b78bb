/* The store's calls about upkeep (60_upkeep.lua), and what is published to the servers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis/call.h"
#include "redis/store.h"

/* --- the sweep --- */

static void answer_sweep(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_sweep_done *done = (store_sweep_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_sweep_result result = {.changed = value_number(reply, 1), .next_due_ms = value_number(reply, 2)};
  done(call->context, error, &result);
}

void store_sweep(struct store *store, unsigned partition, store_sweep_done *done, void *context) {
  struct store_call *call = call_create(store, "sweep", partition, answer_sweep, (void (*)(void))done, context);
  call_add_text(call, "");
  call->items = 250; /* a slice is bounded by itself: never two in one command */
  call_send(store, call);
}

/* --- the repair --- */

static void answer_repair(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_repair_done *done = (store_repair_done *)call->done;
  struct store_repair next = {0};
  if (!error->code) {
    next.queue_number = (uint64_t)value_number(reply, 1);
    snprintf(next.position, sizeof next.position, "%s", value_text(reply, 2));
    next.repaired = value_number(reply, 3);
  }
  done(call->context, error, &next);
}

void store_repair(struct store *store, unsigned partition, const struct store_repair *from, store_repair_done *done,
                  void *context) {
  struct store_call *call = call_create(store, "repair", partition, answer_repair, (void (*)(void))done, context);
  call_add_number(call, (int64_t)from->queue_number);
  call_add_text(call, from->position);
  call->items = 250; /* as above */
  call_send(store, call);
}

/* --- timers --- */

/* One round of looking at every partition's timers: 2 * PARTITIONS + 1 plain commands. */
struct timers {
  store_timers_done *done;
  void *context;
  int64_t due_ms[PARTITIONS], now_ms;
  unsigned partition; /* of the reply that comes next */
  bool failed;
};

static void on_timer(void *context, const struct redis_value *reply) {
  struct timers *timers = context;
  timers->failed |= !reply || redis_kind(reply) != REDIS_ARRAY;
  int64_t *due_ms = &timers->due_ms[timers->partition];
  *due_ms = reply && redis_count(reply) == 2 ? (int64_t)strtod(value_text(reply, 1), NULL) : INT64_MAX;
}

static void on_trash(void *context, const struct redis_value *reply) {
  struct timers *timers = context;
  timers->failed |= !reply;
  if (reply && redis_integer(reply) > 0)
    timers->due_ms[timers->partition] = 0;
  timers->partition++;
}

static void on_time(void *context, const struct redis_value *reply) {
  struct timers *timers = context;
  timers->failed |= !reply || redis_count(reply) != 2;
  struct store_error error = {.code = timers->failed ? STORE_UNAVAILABLE : STORE_OK,
                              .reason = timers->failed ? "Redis cannot be reached" : ""};
  if (!timers->failed)
    timers->now_ms = value_number(reply, 0) * 1000 + value_number(reply, 1) / 1000;
  timers->done(timers->context, &error, timers->due_ms, timers->now_ms);
  free(timers);
}

void store_timers(struct store *store, store_timers_done *done, void *context) {
  struct timers *timers = calloc(1, sizeof *timers);
  if (!timers)
    abort();
  timers->done = done;
  timers->context = context;
  for (unsigned partition = 0; partition < PARTITIONS; partition++) {
    char key[24], trash[24];
    snprintf(key, sizeof key, "{p%02u}timers", partition);
    snprintf(trash, sizeof trash, "{p%02u}trash", partition);
    store_command(store, 5, (const char *const[]){"ZRANGE", key, "0", "0", "WITHSCORES"}, on_timer, timers);
    store_command(store, 2, (const char *const[]){"EXISTS", trash}, on_trash, timers);
  }
  store_command(store, 1, (const char *const[]){"TIME"}, on_time, timers);
}

/* --- notifications: "q PARTITION NUMBER", "w BUCKET", "t DELIVERY", "r PARTITION NUMBER" (a rule is drained),
 * "d PARTITION" --- */

static uint64_t hash_text(uint64_t seed, const char *text, size_t length) {
  uint64_t hash = 14695981039346656037u ^ seed;
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ (uint8_t)text[i]) * 1099511628211u;
  return hash ? hash : 1;
}

static uint64_t hash_numbers(uint64_t seed, unsigned partition, uint64_t queue_number) {
  char text[40];
  int length = snprintf(text, sizeof text, "%u %" PRIu64, partition, queue_number);
  return hash_text(seed, text, (size_t)length);
}

uint64_t store_key_queue(unsigned partition, uint64_t queue_number) {
  return hash_numbers('q', partition, queue_number);
}

uint64_t store_key_rule(unsigned partition, uint64_t queue_number) {
  return hash_numbers('r', partition, queue_number);
}

uint64_t store_key_watch(const char *bucket) {
  return hash_text('w', bucket, strlen(bucket));
}

uint64_t store_key_delivery(const char *id) {
  return hash_text('t', id, strlen(id));
}

enum store_notification store_parse_notification(const char *message, size_t length, uint64_t *key) {
  if (length < 3 || message[1] != ' ')
    return STORE_NOTIFY_NONE;
  switch (message[0]) {
  case 'q':
  case 'w':
  case 't':
  case 'r':
    *key = hash_text((uint8_t)message[0], message + 2, length - 2);
    return STORE_NOTIFY_KEY;
  case 'd':
    *key = strtoull(message + 2, NULL, 10);
    return *key < PARTITIONS ? STORE_NOTIFY_DUE : STORE_NOTIFY_NONE;
  default:
    return STORE_NOTIFY_NONE;
  }
}
