/* CallbackService: what each RPC does is said in proto/ringback/v1/callback.proto. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "ringback/v1/callback.pb-c.h"
#include "server/callback/schedule.h"
#include "server/callback/signature.h"
#include "server/callback/url.h"
#include "server/services/convert.h"
#include "server/services/page_token.h"
#include "server/services/services.h"
#include "server/services/status.h"

#define TIMEOUT_MIN_MS (1 * SECOND_MS)
#define TIMEOUT_MAX_MS (60 * SECOND_MS)
#define TIMEOUT_DEFAULT_MS (15 * SECOND_MS)
/* What a test may take besides the rule's own timeout: waiting for its turn, the name's look-up. */
#define TEST_SLACK_MS (10 * SECOND_MS)
/* How often a waiting test looks at its delivery unasked, should a notification be lost. */
#define TEST_LOOK_MS (2 * SECOND_MS)
#define ANSWER_MARGIN_MS 250
#define DELIVERY_ID_MAX 128
#define HEADERS_MAX 20
#define WAITS_MAX 20
#define CONCURRENCY_MAX 256
#define CONCURRENCY_DEFAULT 32
#define OVERLAP_MAX_MS (30 * DAY_MS)
#define OVERLAP_DEFAULT_MS (24 * HOUR_MS)

struct callback_call {
  struct rpc_call *call;
  struct queue_name name;
  const char *queue_name; /* in full */
  const char *what;
  const ProtobufCMessageDescriptor *response; /* of the RPCs that answer with a rule in their first field */
  /* ListDeliveries */
  uint64_t token_hash;
  /* RotateSigningSecret */
  char secret[SIGNATURE_SECRET_SIZE];
  /* RedeliverCallbacks by id */
  char *const *ids;
  /* SendTestCallback */
  const char *delivery_id;
  uint64_t wait_key;
  int64_t until_ms;
};

static struct callback_call *begin(struct check *check, struct rpc_call *call, const struct field *field,
                                   const char *queue_name) {
  struct callback_call *context = ARENA_NEW(check->arena, struct callback_call);
  context->call = call;
  context->name = check_queue(check, field, queue_name);
  context->queue_name = queue_name;
  context->what = arena_printf(check->arena, "queue %.256s", queue_name);
  return context;
}

/* --- the rule --- */

_Static_assert(sizeof(Ringback__V1__UpdateCallbackRuleResponse) == sizeof(Ringback__V1__GetCallbackRuleResponse),
               "one shape");

static void rule_done(void *data, const struct store_error *error, const struct store_rule *rule) {
  struct callback_call *context = data;
  if (status_failed(context->call, error, context->what, "rule"))
    return;
  Ringback__V1__GetCallbackRuleResponse response;
  protobuf_c_message_init(context->response, &response);
  response.rule = convert_rule(rpc_arena(context->call), context->queue_name, rule);
  rpc_reply(context->call, &response.base);
}

static void get_callback_rule(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__GetCallbackRuleRequest *request = (const Ringback__V1__GetCallbackRuleRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = begin(&check, call, FIELD(NULL, "queue"), request->queue);
  if (status_refuse(call, &check))
    return;
  context->response = &ringback__v1__get_callback_rule_response__descriptor;
  store_get_rule(services_store(call), context->name.bucket, context->name.queue, rule_done, context);
}

static const struct {
  const char *path;
  unsigned bit;
} mask_paths[] = {
    {"state", RULE_STATE},       {"url", RULE_URL},        {"events", RULE_EVENTS},           {"secrets", RULE_SECRETS},
    {"timeout", RULE_TIMEOUT},   {"format", RULE_FORMAT},  {"concurrency", RULE_CONCURRENCY}, {"headers", RULE_HEADERS},
    {"schedule", RULE_SCHEDULE}, {"max_age", RULE_MAX_AGE}};

#define MASK_NAMES "state, url, events, secrets, timeout, format, concurrency, headers, schedule and max_age"

enum { MASK_PATHS = sizeof mask_paths / sizeof mask_paths[0] };

static unsigned read_mask(struct check *check, const struct field *field, const Google__Protobuf__FieldMask *mask) {
  unsigned bits = 0;
  if (!mask || mask->n_paths == 0)
    check_fail(check, field, "is empty; it must name at least one of " MASK_NAMES);
  for (size_t i = 0; mask && i < mask->n_paths; i++) {
    size_t row = 0;
    while (row < MASK_PATHS && strcmp(mask_paths[row].path, mask->paths[i]) != 0)
      row++;
    if (row < MASK_PATHS)
      bits |= mask_paths[row].bit;
    else
      check_fail(check, FIELD_AT(field, "paths", i), "is \"%.64s\"; it must be one of " MASK_NAMES, mask->paths[i]);
  }
  return bits;
}

static void read_secrets(struct check *check, const struct field *field, const Ringback__V1__CallbackRule *rule,
                         struct store_rule *read) {
  check_count(check, field, rule->n_secrets, 0, SIGNATURE_SECRETS_MAX);
  for (size_t i = 0; i < rule->n_secrets && i < SIGNATURE_SECRETS_MAX; i++) {
    const char *wrong = signature_secret_check(rule->secrets[i]);
    if (wrong)
      check_fail(check, FIELD_AT(field->parent, field->name, i), "%s", wrong);
  }
  read->secrets = (const char *const *)rule->secrets;
  read->secret_count = rule->n_secrets;
}

static void read_headers(struct check *check, const struct field *field, const Ringback__V1__CallbackRule *rule,
                         struct store_rule *read) {
  struct store_header *headers = ARENA_ARRAY(check->arena, struct store_header, HEADERS_MAX + 1);
  check_count(check, field, rule->n_headers, 0, HEADERS_MAX);
  for (size_t i = 0; i < rule->n_headers && i < HEADERS_MAX; i++) {
    const struct field *at = FIELD_AT(field->parent, field->name, i);
    headers[i] = (struct store_header){rule->headers[i]->name, rule->headers[i]->value};
    check_callback_header(check, at, headers[i].name, headers[i].value);
    for (size_t k = 0; k < i; k++)
      if (strcasecmp(headers[k].name, headers[i].name) == 0)
        check_fail(check, FIELD(at, "name"), "is there twice");
  }
  read->headers = headers;
  read->header_count = rule->n_headers;
}

static void read_schedule(struct check *check, const struct field *field, const Ringback__V1__CallbackRule *rule,
                          struct store_rule *read) {
  int64_t *waits_ms = ARENA_ARRAY(check->arena, int64_t, WAITS_MAX + 1);
  check_count(check, field, rule->n_schedule, 0, WAITS_MAX);
  for (size_t i = 0; i < rule->n_schedule && i < WAITS_MAX; i++)
    waits_ms[i] =
        check_duration(check, FIELD_AT(field->parent, field->name, i), rule->schedule[i], SECOND_MS, DAY_MS, 0);
  read->schedule_ms = waits_ms;
  read->schedule_count = rule->n_schedule;
}

static void read_rule(struct check *check, const struct field *field, const Ringback__V1__CallbackRule *rule,
                      unsigned mask, const struct address_set *allow, struct store_rule *read) {
  memset(read, 0, sizeof *read);
  read->etag = rule->etag;
  read->url = rule->url;
  check_ascii(check, FIELD(field, "etag"), rule->etag, 64);
  if (mask & RULE_STATE) {
    read->on = rule->state == RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_ON;
    if (!read->on && rule->state != RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF)
      check_fail(check, FIELD(field, "state"), "is %d; it must be 1 (on) or 2 (off)", (int)rule->state);
  }
  if (mask & RULE_URL)
    check_callback_url(check, FIELD(field, "url"), rule->url, allow);
  for (size_t i = 0; mask & RULE_EVENTS && i < rule->n_events; i++) {
    if (rule->events[i] == RINGBACK__V1__CALLBACK_EVENT__CALLBACK_EVENT_TASK_FINISH)
      read->events |= 1u << rule->events[i];
    else
      check_fail(check, FIELD_AT(field, "events", i), "is %d; it must be 1 (task finish)", (int)rule->events[i]);
  }
  if (mask & RULE_SECRETS)
    read_secrets(check, FIELD(field, "secrets"), rule, read);
  if (mask & RULE_CONCURRENCY)
    read->concurrency = (int)check_range_or(check, FIELD(field, "concurrency"), rule->concurrency, 1, CONCURRENCY_MAX,
                                            CONCURRENCY_DEFAULT);
  if (mask & RULE_HEADERS)
    read_headers(check, FIELD(field, "headers"), rule, read);
  if (mask & RULE_SCHEDULE)
    read_schedule(check, FIELD(field, "schedule"), rule, read);
  if (mask & RULE_MAX_AGE)
    read->max_age_ms = check_duration(check, FIELD(field, "max_age"), rule->max_age, MINUTE_MS, SCHEDULE_AGE_MAX_MS, 0);
  if (mask & RULE_FORMAT)
    read->format = check_callback_format(check, FIELD(field, "format"), rule->format);
  read->timeout_ms = TIMEOUT_DEFAULT_MS;
  if (mask & RULE_TIMEOUT)
    read->timeout_ms = check_duration(check, FIELD(field, "timeout"), rule->timeout, TIMEOUT_MIN_MS, TIMEOUT_MAX_MS,
                                      TIMEOUT_DEFAULT_MS);
}

static void update_callback_rule(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__UpdateCallbackRuleRequest *request = (const Ringback__V1__UpdateCallbackRuleRequest *)message;
  static const Ringback__V1__CallbackRule nothing = RINGBACK__V1__CALLBACK_RULE__INIT;
  const Ringback__V1__CallbackRule *rule = request->rule ? request->rule : &nothing;
  struct check check = {.arena = rpc_arena(call)};
  const struct field *field = FIELD(NULL, "rule");
  struct callback_call *context = begin(&check, call, FIELD(field, "queue"), rule->queue);
  unsigned mask = read_mask(&check, FIELD(NULL, "update_mask"), request->update_mask);
  struct store_rule read;
  read_rule(&check, field, rule, mask, &services_config(call)->callback_allow, &read);
  if (status_refuse(call, &check))
    return;
  context->response = &ringback__v1__update_callback_rule_response__descriptor;
  store_update_rule(services_store(call), context->name.bucket, context->name.queue, rule->etag, mask, &read, rule_done,
                    context);
}

static void rotate_done(void *data, const struct store_error *error, const struct store_rule *rule) {
  struct callback_call *context = data;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__RotateSigningSecretResponse response = RINGBACK__V1__ROTATE_SIGNING_SECRET_RESPONSE__INIT;
  response.secret = context->secret;
  response.rule = convert_rule(rpc_arena(context->call), context->queue_name, rule);
  rpc_reply(context->call, &response.base);
}

static void rotate_signing_secret(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__RotateSigningSecretRequest *request = (const Ringback__V1__RotateSigningSecretRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = begin(&check, call, FIELD(NULL, "queue"), request->queue);
  int64_t overlap_ms =
      check_duration(&check, FIELD(NULL, "overlap"), request->overlap, 0, OVERLAP_MAX_MS, OVERLAP_DEFAULT_MS);
  if (status_refuse(call, &check))
    return;
  uint8_t bytes[SIGNATURE_SECRET_BYTES];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
    abort();
  signature_secret_write(bytes, context->secret);
  store_rotate_secret(services_store(call), context->name.bucket, context->name.queue, context->secret, overlap_ms,
                      rotate_done, context);
}

static void delete_done(void *data, const struct store_error *error, const struct store_rule *rule) {
  struct callback_call *context = data;
  (void)rule;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__DeleteCallbackRuleResponse response = RINGBACK__V1__DELETE_CALLBACK_RULE_RESPONSE__INIT;
  rpc_reply(context->call, &response.base);
}

static void delete_callback_rule(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__DeleteCallbackRuleRequest *request = (const Ringback__V1__DeleteCallbackRuleRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = begin(&check, call, FIELD(NULL, "queue"), request->queue);
  if (status_refuse(call, &check))
    return;
  store_delete_rule(services_store(call), context->name.bucket, context->name.queue, delete_done, context);
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
    int64_t look_ms = now_ms + TEST_LOOK_MS < context->until_ms ? now_ms + TEST_LOOK_MS : context->until_ms;
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
  struct callback_call *context = begin(&check, call, FIELD(NULL, "queue"), request->queue);
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
  struct callback_call *context = begin(&check, call, FIELD(NULL, "queue"), request->queue);
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
    {.name = "UpdateCallbackRule", .start = update_callback_rule},
    {.name = "DeleteCallbackRule", .start = delete_callback_rule},
    {.name = "SendTestCallback", .start = send_test_callback, .wake = send_test_wake},
    {.name = "ListDeliveries", .start = list_deliveries},
    {.name = "GetDelivery", .start = get_delivery},
    {.name = "RedeliverCallbacks", .start = redeliver_callbacks},
    {.name = "RotateSigningSecret", .start = rotate_signing_secret},
    {.name = NULL},
};

const struct rpc_service callback_service = {&ringback__v1__callback_service__descriptor, methods};
