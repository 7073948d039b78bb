/* The store's calls about queues (10_queues.lua). */
#include <string.h>

#include "redis/call.h"
#include "redis/store.h"
#include "ringback/v1/common.pb-c.h"

enum { SETTINGS_COUNT = 10 };

/* struct store_settings and the Lua SETTINGS have the same order. */
static const int64_t *settings_field(const struct store_settings *settings, size_t index) {
  const int64_t *const fields[SETTINGS_COUNT] = {
      &settings->head_start_ms,   &settings->max_size,       &settings->max_concurrent, &settings->default_lease_ms,
      &settings->max_attempts,    &settings->min_backoff_ms, &settings->max_backoff_ms, &settings->retention_age_ms,
      &settings->retention_count, &settings->idempotency_ms};
  return fields[index];
}

static void add_settings(struct store_call *call, const struct store_settings *settings) {
  uint8_t packed[SETTINGS_COUNT * 8];
  for (size_t i = 0; i < SETTINGS_COUNT; i++) {
    double value = (double)*settings_field(settings, i);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    for (size_t k = 0; k < 8; k++)
      packed[i * 8 + k] = (uint8_t)(bits >> (56 - 8 * k));
  }
  call_add(call, (struct bytes){packed, sizeof packed});
}

static void read_settings(struct bytes packed, struct store_settings *settings) {
  for (size_t i = 0; i < SETTINGS_COUNT && packed.length >= (i + 1) * 8; i++) {
    uint64_t bits = 0;
    for (size_t k = 0; k < 8; k++)
      bits = bits << 8 | packed.data[i * 8 + k];
    double value;
    memcpy(&value, &bits, sizeof value);
    *(int64_t *)(uintptr_t)settings_field(settings, i) = (int64_t)value;
  }
}

static void decode_queue(const struct redis_value *values, struct store_queue *queue) {
  queue->name = value_text(values, 0);
  queue->number = (uint64_t)value_number(values, 1);
  struct bytes id = value_bytes(values, 2);
  if (id.length == sizeof queue->id)
    memcpy(queue->id, id.data, sizeof queue->id);
  queue->feature = (int)value_number(values, 3);
  queue->paused = value_number(values, 4) == 1;
  queue->feature_default = value_number(values, 5) == 1;
  read_settings(value_bytes(values, 6), &queue->settings);
  queue->create_ms = value_number(values, 7);
  queue->update_ms = value_number(values, 8);
  queue->etag = value_text(values, 9);
  queue->waiting = value_number(values, 10);
  queue->delayed = value_number(values, 11);
  queue->running = value_number(values, 12);
  queue->success = value_number(values, 13);
  queue->failed = value_number(values, 14);
  queue->cancel = value_number(values, 15);
  queue->oldest_waiting_ms = value_number(values, 16);
}

static void answer_queues(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_queues_done *done = (store_queues_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL, 0);
    return;
  }
  size_t count = redis_count(reply) - 1;
  struct store_queue *queues = ARENA_ARRAY(call->arena, struct store_queue, count + 1);
  for (size_t i = 0; i < count; i++)
    decode_queue(redis_at(reply, i + 1), &queues[i]);
  done(call->context, error, queues, count);
}

static struct store_call *queues_call(struct store *store, const char *function, const char *bucket,
                                      store_queues_done *done, void *context) {
  struct store_call *call =
      call_create(store, function, id_partition(bucket), answer_queues, (void (*)(void))done, context);
  call_add_text(call, bucket);
  return call;
}

void store_activate(struct store *store, const char *bucket, const int *features, size_t count,
                    const struct store_settings *defaults, store_queues_done *done, void *context) {
  static const char *const names[] = {"", "queue-1", "queue-speech-1", "queue-doc-process-1"};
  struct store_call *call = queues_call(store, "activate", bucket, done, context);
  add_settings(call, defaults);
  for (size_t i = 0; i < count; i++) {
    call_add_number(call, features[i]);
    call_add_text(call, names[features[i]]);
  }
  call_send(store, call);
}

void store_create_queue(struct store *store, const char *bucket, const char *queue, int feature,
                        const struct store_settings *settings, store_queues_done *done, void *context) {
  struct store_call *call = queues_call(store, "queue_create", bucket, done, context);
  call_add_text(call, queue);
  call_add_number(call, feature);
  add_settings(call, settings);
  call_send(store, call);
}

void store_get_queue(struct store *store, const char *bucket, const char *queue, store_queues_done *done,
                     void *context) {
  struct store_call *call = queues_call(store, "queue_get", bucket, done, context);
  call_add_text(call, queue);
  call_send(store, call);
}

void store_list_queues(struct store *store, const char *bucket, const char *after, size_t count,
                       store_queues_done *done, void *context) {
  struct store_call *call = queues_call(store, "queue_list", bucket, done, context);
  call_add_text(call, after);
  call_add_number(call, (int64_t)count);
  call_send(store, call);
}

void store_update_queue(struct store *store, const char *bucket, const char *queue, const char *etag, unsigned mask,
                        const struct store_settings *settings, store_queues_done *done, void *context) {
  struct store_call *call = queues_call(store, "queue_update", bucket, done, context);
  call_add_text(call, queue);
  call_add_text(call, etag);
  for (size_t i = 0; i < SETTINGS_COUNT; i++) {
    if (!(mask & 1u << i))
      continue;
    call_add_number(call, (int64_t)i + 1);
    call_add_number(call, *settings_field(settings, i));
  }
  call_send(store, call);
}

void store_pause_queue(struct store *store, const char *bucket, const char *queue, bool paused, store_queues_done *done,
                       void *context) {
  struct store_call *call = queues_call(store, "queue_pause", bucket, done, context);
  call_add_text(call, queue);
  call_add_number(call, paused);
  call_send(store, call);
}

static void answer_count(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  ((store_count_done *)call->done)(call->context, error, error->code ? 0 : value_number(reply, 1));
}

static struct store_call *count_call(struct store *store, const char *function, const char *bucket, const char *queue,
                                     store_count_done *done, void *context) {
  struct store_call *call =
      call_create(store, function, id_partition(bucket), answer_count, (void (*)(void))done, context);
  call_add_text(call, bucket);
  call_add_text(call, queue);
  return call;
}

void store_purge_queue(struct store *store, const char *bucket, const char *queue, store_count_done *done,
                       void *context) {
  call_send(store, count_call(store, "queue_purge", bucket, queue, done, context));
}

void store_delete_queue(struct store *store, const char *bucket, const char *queue, bool force, store_count_done *done,
                        void *context) {
  struct store_call *call = count_call(store, "queue_delete", bucket, queue, done, context);
  call_add_number(call, force);
  call_send(store, call);
}
