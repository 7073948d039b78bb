/* CallbackService: the table of its methods, and those about deliveries; what each RPC does is said in
 * proto/ringback/v1/callback.proto. */
#include <string.h>

#include "server/callback/schedule.h"
#include "server/services/callback_handlers.h"
#include "server/services/convert.h"
#include "server/services/page_token.h"
#include "server/services/status.h"

/* What a test may take besides the rule's own timeout: waiting for its turn, the name's look-up. */
#define TEST_SLACK_MS (10 * SECOND_MS)
#define DELIVERY_ID_MAX 128

struct callback_call *callback_begin(struct check *check, struct rpc_call *call, const struct field *field,
                                     const char *queue_name) {
  struct callback_call *context = ARENA_NEW(check->arena, struct callback_call);
  context->call = call;
  context->name = check_queue(check, field, queue_name);
  context->queue_name = queue_name;
  context->what = arena_printf(check->arena, "queue %.256s", queue_name);
  return context;
}

/* --- SendTestCallback: puts a delivery into the outbox and waits until the dispatcher has settled it --- */

static bool is_settled(const struct store_delivery *delivery) {
  return delivery->state != RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_PENDING &&
         delivery->state != RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_SENDING;
}

static void test_done(void *data, const struct store_error *error, const struct store_deliveries *result) {
  struct callback_call *context = data;
  struct rpc_call *call = context->call;
  if (rpc_is_over(call) || status_failed(call, error, context->what, NULL))
    return;
  const struct store_delivery *delivery = &result->deliveries[0];
  if (!context->delivery_id) {
    context->delivery_id = arena_strdup(rpc_arena(call), delivery->id);
    context->wait_key = result->wait_key;
  }
  int64_t now_ms = rpc_now_ms(call);
  if (!is_settled(delivery) && now_ms < context->until_ms) {
    int64_t look_ms = now_ms + CALLBACK_LOOK_MS < context->until_ms ? now_ms + CALLBACK_LOOK_MS : context->until_ms;
    if (!rpc_park(call, &context->wait_key, 1, true, look_ms))
      rpc_fail_status(call, status_too_many_parked(rpc_arena(call)));
    return;
  }
  Ringback__V1__SendTestCallbackResponse response = RINGBACK__V1__SEND_TEST_CALLBACK_RESPONSE__INIT;
  response.delivery = convert_delivery(rpc_arena(call), context->name.bucket, delivery);
  rpc_reply(call, &response.base);
}

/* How long a test may take depends on the rule. */
static void test_rule_done(void *data, const struct store_error *error, const struct store_rule *rule) {
  struct callback_call *context = data;
  struct rpc_call *call = context->call;
  if (status_failed(call, error, context->what, NULL))
    return;
  int64_t deadline_ms = rpc_deadline_ms(call);
  context->until_ms = rpc_now_ms(call) + rule->timeout_ms + TEST_SLACK_MS;
  if (deadline_ms != INT64_MAX && deadline_ms - ANSWER_MARGIN_MS < context->until_ms)
    context->until_ms = deadline_ms - ANSWER_MARGIN_MS;
  store_test_callback(services_store(call), context->name.bucket, context->name.queue, test_done, context);
}

static void send_test_callback(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__SendTestCallbackRequest *request = (const Ringback__V1__SendTestCallbackRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = callback_begin(&check, call, FIELD(NULL, "queue"), request->queue);
  if (status_refuse(call, &check))
    return;
  rpc_set_data(call, context);
  store_get_rule(services_store(call), context->name.bucket, context->name.queue, test_rule_done, context);
}

static void send_test_wake(struct rpc_call *call, enum rpc_wake why) {
  struct callback_call *context = rpc_data(call);
  /* A draining server answers with the delivery as it is: it goes on without this call. */
  if (why == RPC_WAKE_DRAIN)
    context->until_ms = 0;
  store_get_delivery(services_store(call), context->name.bucket, context->delivery_id, test_done, context);
}

/* --- GetDelivery and ListDeliveries --- */

static void get_done(void *data, const struct store_error *error, const struct store_deliveries *result) {
  struct callback_call *context = data;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__GetDeliveryResponse response = RINGBACK__V1__GET_DELIVERY_RESPONSE__INIT;
  response.delivery = convert_delivery(rpc_arena(context->call), context->name.bucket, &result->deliveries[0]);
  rpc_reply(context->call, &response.base);
}

static void check_delivery_id(struct check *check, const struct field *field, const char *id) {
  if (strncmp(id, "cb_", 3) != 0)
    check_fail(check, field, "is \"%.64s\"; it must be a delivery's id, which begins with cb_", id);
  check_ascii(check, field, id, DELIVERY_ID_MAX);
}

static void get_delivery(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__GetDeliveryRequest *request = (const Ringback__V1__GetDeliveryRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = ARENA_NEW(check.arena, struct callback_call);
  context->call = call;
  context->name.bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  check_delivery_id(&check, FIELD(NULL, "id"), request->id);
  if (status_refuse(call, &check))
    return;
  context->what = arena_printf(check.arena, "delivery %s", request->id);
  store_get_delivery(services_store(call), context->name.bucket, request->id, get_done, context);
}

/* Classes by name; the store takes them as they are. */
static void check_error_classes(struct check *check, const struct field *parent, char *const *classes, size_t count) {
  check_count(check, FIELD(parent, "error_classes"), count, 0, CALLBACK_ERROR_COUNT);
  for (size_t i = 0; i < count && i < CALLBACK_ERROR_COUNT; i++) {
    int known = 1;
    while (known < CALLBACK_ERROR_COUNT && strcmp(callback_error_name((enum callback_error)known), classes[i]) != 0)
      known++;
    if (known == CALLBACK_ERROR_COUNT)
      check_fail(check, FIELD_AT(parent, "error_classes", i), "is \"%.64s\"; it must be a class such as timeout or dns",
                 classes[i]);
  }
}

static void list_done(void *data, const struct store_error *error, const struct store_deliveries *result) {
  struct callback_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ListDeliveriesResponse response = RINGBACK__V1__LIST_DELIVERIES_RESPONSE__INIT;
  response.deliveries = ARENA_ARRAY(arena, Ringback__V1__Delivery *, result->count + 1);
  for (size_t i = 0; i < result->count; i++)
    response.deliveries[response.n_deliveries++] =
        convert_delivery(arena, context->name.bucket, &result->deliveries[i]);
  response.next_page_token = page_token_write(arena, context->token_hash, result->next_position);
  rpc_reply(context->call, &response.base);
}

static void list_deliveries(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ListDeliveriesRequest *request = (const Ringback__V1__ListDeliveriesRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = callback_begin(&check, call, FIELD(NULL, "queue"), request->queue);
  struct store_delivery_filter filter = {.queue = context->name.queue};
  struct job_id job;
  for (size_t i = 0; i < request->n_states; i++) {
    int state = (int)request->states[i];
    if (state < RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_PENDING ||
        state > RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_SUPPRESSED)
      check_fail(&check, FIELD_AT(NULL, "states", i), "is %d; it must be a DeliveryState from 1 to 5", state);
    else
      filter.states |= 1u << state;
  }
  if (*request->job_id) {
    check_job_id(&check, FIELD(NULL, "job_id"), request->job_id, &job);
    filter.job = &job;
  }
  check_error_classes(&check, NULL, request->error_classes, request->n_error_classes);
  filter.error_classes = (const char *const *)request->error_classes;
  filter.error_class_count = request->n_error_classes;
  filter.start_ms = check_time(&check, FIELD(NULL, "start_create_time"), request->start_create_time, 0);
  filter.end_ms = check_time(&check, FIELD(NULL, "end_create_time"), request->end_create_time, 0);
  int64_t page_size =
      check_range_or(&check, FIELD(NULL, "page_size"), request->page_size, 1, PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT);
  context->token_hash = hash_text(hash_text(HASH_START, "ListDeliveries"), request->queue);
  context->token_hash = hash_text(hash_number(context->token_hash, filter.states), request->job_id);
  for (size_t i = 0; i < request->n_error_classes; i++)
    context->token_hash = hash_text(context->token_hash, request->error_classes[i]);
  context->token_hash = hash_number(hash_number(context->token_hash, filter.start_ms), filter.end_ms);
  const char *position = page_token_read(check.arena, context->token_hash, request->page_token);
  if (!position)
    check_fail(&check, FIELD(NULL, "page_token"), "is no next_page_token of this filter; leave it empty to begin anew");
  if (status_refuse(call, &check))
    return;
  store_list_deliveries(services_store(call), context->name.bucket, &filter, (size_t)page_size, position, list_done,
                        context);
}

/* --- RedeliverCallbacks --- */

static void redeliver_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct callback_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__RedeliverCallbacksResponse response = RINGBACK__V1__REDELIVER_CALLBACKS_RESPONSE__INIT;
  response.redelivered_count = (int32_t)result->changed;
  response.results = ARENA_ARRAY(arena, Google__Rpc__Status *, result->count + 1);
  for (size_t i = 0; context->ids && i < result->count; i++)
    response.results[response.n_results++] = status_store(
        arena, &result->items[i].error, arena_printf(arena, "delivery %s", context->ids[i]), context->ids[i]);
  response.next_page_token = page_token_write(arena, context->token_hash, result->next_position);
  rpc_reply(context->call, &response.base);
}

static void redeliver_by_filter(struct callback_call *context, struct check *check,
                                const Ringback__V1__RedeliverCallbacksRequest *request) {
  const Ringback__V1__RedeliveryFilter *read = request->filter;
  const struct field *field = FIELD(NULL, "filter");
  context->name = check_queue(check, FIELD(field, "queue"), read->queue);
  if (!check->count && strcmp(context->name.bucket, request->bucket + strlen("buckets/")) != 0)
    check_fail(check, FIELD(field, "queue"), "is \"%.256s\"; it must be a queue of %.128s", read->queue,
               request->bucket);
  check_error_classes(check, field, read->error_classes, read->n_error_classes);
  struct store_delivery_filter filter = {
      .queue = context->name.queue,
      .error_classes = (const char *const *)read->error_classes,
      .error_class_count = read->n_error_classes,
      .start_ms = check_time(check, FIELD(field, "start_create_time"), read->start_create_time, 0),
      .end_ms = check_time(check, FIELD(field, "end_create_time"), read->end_create_time, 0)};
  uint64_t hash = hash_text(hash_text(HASH_START, "RedeliverCallbacks"), read->queue);
  for (size_t i = 0; i < read->n_error_classes; i++)
    hash = hash_text(hash, read->error_classes[i]);
  context->token_hash = hash_number(hash_number(hash, filter.start_ms), filter.end_ms);
  const char *position = page_token_read(check->arena, context->token_hash, request->page_token);
  if (!position)
    check_fail(check, FIELD(NULL, "page_token"), "is no next_page_token of this filter; leave it empty to begin anew");
  if (status_refuse(context->call, check))
    return;
  context->what = arena_printf(check->arena, "queue %s", read->queue);
  store_redeliver_dead(services_store(context->call), context->name.bucket, &filter, position, redeliver_done, context);
}

static void redeliver_callbacks(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__RedeliverCallbacksRequest *request = (const Ringback__V1__RedeliverCallbacksRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = ARENA_NEW(check.arena, struct callback_call);
  context->call = call;
  context->name.bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  if (request->filter && request->n_ids)
    check_fail(&check, FIELD(NULL, "filter"), "is given together with ids; give one of them");
  if (request->filter) {
    redeliver_by_filter(context, &check, request);
    return;
  }
  check_count(&check, FIELD(NULL, "ids"), request->n_ids, 1, BATCH_MAX);
  for (size_t i = 0; i < request->n_ids && i < BATCH_MAX; i++)
    check_delivery_id(&check, FIELD_AT(NULL, "ids", i), request->ids[i]);
  if (*request->page_token)
    check_fail(&check, FIELD(NULL, "page_token"), "is given with ids; it goes with a filter only");
  if (status_refuse(call, &check))
    return;
  context->what = arena_printf(check.arena, "bucket %s", request->bucket);
  context->ids = request->ids;
  store_redeliver(services_store(call), context->name.bucket, (const char *const *)request->ids, request->n_ids,
                  redeliver_done, context);
}

static const struct rpc_method methods[] = {
    {.name = "GetCallbackRule", .start = get_callback_rule},
    {.name = "UpdateCallbackRule", .start = update_callback_rule, .wake = update_callback_rule_wake},
    {.name = "DeleteCallbackRule", .start = delete_callback_rule},
    {.name = "SendTestCallback", .start = send_test_callback, .wake = send_test_wake},
    {.name = "ListDeliveries", .start = list_deliveries},
    {.name = "GetDelivery", .start = get_delivery},
    {.name = "RedeliverCallbacks", .start = redeliver_callbacks},
    {.name = "RotateSigningSecret", .start = rotate_signing_secret},
    {.name = NULL},
};

const struct rpc_service callback_service = {&ringback__v1__callback_service__descriptor, methods};
