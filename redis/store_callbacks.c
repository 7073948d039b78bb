/* The store's calls about deliveries as operators see them (50_callbacks.lua). */
#include <string.h>

#include "redis/callback_values.h"
#include "redis/delivery_record.h"

/* --- deliveries --- */

/* False: it cannot be read. */
static bool decode_delivery(struct arena *arena, const struct redis_value *values, struct store_delivery *delivery) {
  delivery->id = delivery_id_format(arena, value_bytes(values, 0), &delivery->job, &delivery->event);
  delivery->queue = value_text(values, 1);
  delivery->state = (int)value_number(values, 2);
  delivery->url = value_text(values, 3);
  delivery->attempts = (int)value_number(values, 4);
  delivery->http_status = (int)value_number(values, 5);
  delivery->error_class = value_text(values, 6);
  delivery->error_message = value_text(values, 7);
  delivery->create_ms = value_number(values, 8);
  delivery->last_attempt_ms = value_number(values, 9);
  delivery->last_duration_ms = value_number(values, 10);
  delivery->next_attempt_ms = value_number(values, 11);
  delivery->own_url = value_number(values, 12) == 1;
  delivery->breaker_until_ms = value_number(values, 13);
  if (redis_count(values) <= 14)
    return true;
  delivery->response = value_bytes(values, 14);
  delivery->log_count = (size_t)value_number(values, 15);
  delivery->log = attempts_unpack(arena, value_bytes(values, 16), delivery->log_count, delivery->attempts);
  return delivery->log != NULL;
}

static void answer_deliveries(struct store_call *call, const struct store_error *error,
                              const struct redis_value *reply) {
  store_deliveries_done *done = (store_deliveries_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_deliveries result = {.next_position = value_text(reply, 1)};
  const struct redis_value *values = redis_at(reply, 2);
  result.count = redis_count(values);
  struct store_delivery *deliveries = ARENA_ARRAY(call->arena, struct store_delivery, result.count + 1);
  for (size_t i = 0; i < result.count; i++) {
    if (decode_delivery(call->arena, redis_at(values, i), &deliveries[i]))
      continue;
    struct store_error unreadable = {.code = STORE_INTERNAL, .reason = "a delivery's attempts cannot be read"};
    done(call->context, &unreadable, NULL);
    return;
  }
  result.deliveries = deliveries;
  result.wait_key = result.count == 1 ? store_key_delivery(deliveries[0].id) : 0;
  done(call->context, error, &result);
}

static void call_add_delivery(struct store_call *call, const char *id) {
  call_add(call, delivery_id_parse(call->arena, id));
}

void store_test_callback(struct store *store, const char *bucket, const char *queue, store_deliveries_done *done,
                         void *context) {
  call_send(store, call_create_for_queue(store, "test_callback", bucket, queue, answer_deliveries, (void (*)(void))done,
                                         context));
}

void store_get_delivery(struct store *store, const char *bucket, const char *id, store_deliveries_done *done,
                        void *context) {
  struct store_call *call =
      call_create(store, "delivery_get", id_partition(bucket), answer_deliveries, (void (*)(void))done, context);
  call_add_text(call, bucket);
  call_add_delivery(call, id);
  call_send(store, call);
}

static void add_classes_and_times(struct store_call *call, const struct store_delivery_filter *filter) {
  const char *classes = "";
  for (size_t i = 0; i < filter->error_class_count; i++)
    classes = arena_printf(call->arena, "%s%s ", i ? classes : " ", filter->error_classes[i]);
  call_add_text(call, classes);
  call_add_number(call, filter->start_ms);
  call_add_number(call, filter->end_ms);
}

void store_list_deliveries(struct store *store, const char *bucket, const struct store_delivery_filter *filter,
                           size_t count, const char *position, store_deliveries_done *done, void *context) {
  struct store_call *call = call_create_for_queue(store, "delivery_list", bucket, filter->queue, answer_deliveries,
                                                  (void (*)(void))done, context);
  call_add_number(call, filter->states);
  if (filter->job)
    call_add_id(call, filter->job);
  else
    call_add_text(call, "");
  add_classes_and_times(call, filter);
  call_add_number(call, (int64_t)count);
  call_add_text(call, position);
  call->items = 100;
  call_send(store, call);
}

void store_redeliver(struct store *store, const char *bucket, const char *const *ids, size_t count,
                     store_items_done *done, void *context) {
  struct store_call *call =
      call_create(store, "redeliver", id_partition(bucket), answer_items, (void (*)(void))done, context);
  call_add_text(call, bucket);
  for (size_t i = 0; i < count; i++)
    call_add_delivery(call, ids[i]);
  call->items = count;
  call_send(store, call);
}

void store_redeliver_dead(struct store *store, const char *bucket, const struct store_delivery_filter *filter,
                          const char *position, store_items_done *done, void *context) {
  struct store_call *call = call_create_for_queue(store, "redeliver_dead", bucket, filter->queue, answer_items,
                                                  (void (*)(void))done, context);
  add_classes_and_times(call, filter);
  call_add_text(call, position);
  call->items = 250;
  call_send(store, call);
}
