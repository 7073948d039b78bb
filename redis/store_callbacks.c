/* The store's calls about deliveries and the outbox (50_callbacks.lua). */
#include <string.h>

#include "redis/callback_values.h"

/* --- deliveries --- */

static void decode_attempt(const struct redis_value *values, struct store_attempt *attempt) {
  attempt->number = (int)value_number(values, 0);
  attempt->start_ms = value_number(values, 1);
  attempt->address = value_text(values, 2);
  attempt->http_status = (int)value_number(values, 3);
  attempt->error_class = value_text(values, 4);
  attempt->error_message = value_text(values, 5);
  attempt->dns_us = value_number(values, 6);
  attempt->connect_us = value_number(values, 7);
  attempt->tls_us = value_number(values, 8);
  attempt->first_byte_us = value_number(values, 9);
  attempt->total_us = value_number(values, 10);
  attempt->next_ms = value_number(values, 11);
  attempt->next_reason = (int)value_number(values, 12);
}

static void decode_delivery(struct arena *arena, const struct redis_value *values, struct store_delivery *delivery) {
  delivery->id = value_text(values, 0);
  delivery->queue = value_text(values, 1);
  struct bytes job = value_bytes(values, 2);
  if (job.length == sizeof delivery->job.bytes)
    memcpy(delivery->job.bytes, job.data, job.length);
  delivery->event = (int)value_number(values, 3);
  delivery->state = (int)value_number(values, 4);
  delivery->url = value_text(values, 5);
  delivery->attempts = (int)value_number(values, 6);
  delivery->http_status = (int)value_number(values, 7);
  delivery->error_class = value_text(values, 8);
  delivery->error_message = value_text(values, 9);
  delivery->create_ms = value_number(values, 10);
  delivery->last_attempt_ms = value_number(values, 11);
  delivery->last_duration_ms = value_number(values, 12);
  delivery->next_attempt_ms = value_number(values, 13);
  if (redis_count(values) <= 15)
    return;
  delivery->breaker_until_ms = value_number(values, 15);
  delivery->response = value_bytes(values, 16);
  const struct redis_value *log = redis_at(values, 14);
  delivery->log_count = redis_count(log);
  struct store_attempt *attempts = ARENA_ARRAY(arena, struct store_attempt, delivery->log_count + 1);
  for (size_t i = 0; i < delivery->log_count; i++)
    decode_attempt(redis_at(log, i), &attempts[i]);
  delivery->log = attempts;
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
  for (size_t i = 0; i < result.count; i++)
    decode_delivery(call->arena, redis_at(values, i), &deliveries[i]);
  result.deliveries = deliveries;
  result.wait_key = result.count == 1 ? store_key_delivery(deliveries[0].id) : 0;
  done(call->context, error, &result);
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
  call_add_text(call, id);
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
    call_add_text(call, ids[i]);
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

/* --- the outbox --- */

/* Those of a reply, each once: id, CA certificates, client certificate, key. NULL when it is not there. */
static const struct store_trust *find_trust(struct arena *arena, const struct redis_value *trusts, const char *id) {
  for (size_t i = 0; i < redis_count(trusts); i++) {
    const struct redis_value *values = redis_at(trusts, i);
    if (strcmp(value_text(values, 0), id) != 0)
      continue;
    struct store_trust *trust = ARENA_NEW(arena, struct store_trust);
    *trust = (struct store_trust){.ca_certificates = value_text(values, 1),
                                  .client_certificate = value_text(values, 2),
                                  .client_key = value_text(values, 3)};
    return trust;
  }
  return NULL;
}

static bool decode_claim(struct store_call *call, const struct redis_value *values, const struct redis_value *trusts,
                         struct store_claim *claim) {
  claim->partition = call->partition;
  claim->id = value_text(values, 0);
  claim->group = value_text(values, 1);
  claim->claim_token = value_number(values, 2);
  claim->claim_expire_ms = value_number(values, 3);
  claim->event = (int)value_number(values, 4);
  claim->test = value_number(values, 5) == 1;
  claim->attempts = (int)value_number(values, 6);
  claim->create_ms = value_number(values, 7);
  claim->sequence = value_number(values, 8);
  claim->bucket = value_text(values, 9);
  claim->url = value_text(values, 10);
  claim->own_url = value_number(values, 11) == 1;
  claim->secrets = split_lines(call->arena, value_text(values, 12), &claim->secret_count);
  claim->timeout_ms = value_number(values, 13);
  claim->content_type = value_text(values, 14);
  claim->body = value_bytes(values, 15);
  claim->traceparent = value_text(values, 16);
  claim->format = (int)value_number(values, 18);
  claim->own_sequence = value_number(values, 19);
  claim->headers = split_headers(call->arena, value_text(values, 20), &claim->header_count);
  claim->schedule_ms = split_numbers(call->arena, value_text(values, 21), &claim->schedule_count);
  claim->max_age_ms = value_number(values, 22);
  claim->allowed = value_text(values, 23);
  claim->store_response = value_number(values, 24) == 1;
  const char *trust_id = value_text(values, 25);
  claim->trust = trust_id[0] ? find_trust(call->arena, trusts, trust_id) : NULL;
  if (trust_id[0] && !claim->trust)
    return false;
  claim->job.worker = claim->job.code = claim->job.message = claim->job.queue = "";
  const struct redis_value *job = redis_at(values, 17);
  if (claim->test) {
    struct bytes queue_id = value_bytes(job, 1);
    claim->job.queue = value_text(job, 0);
    if (queue_id.length == sizeof claim->job.queue_id)
      memcpy(claim->job.queue_id, queue_id.data, queue_id.length);
    return true;
  }
  return redis_count(job) == 0 || value_job(call, job, 0, &claim->job);
}

static void answer_claim(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_claim_done *done = (store_claim_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_claims result = {.next_due_ms = value_number(reply, 1)};
  const struct redis_value *values = redis_at(reply, 2);
  struct store_claim *claims = ARENA_ARRAY(call->arena, struct store_claim, redis_count(values) + 1);
  for (size_t i = 0; i < redis_count(values); i++)
    if (decode_claim(call, redis_at(values, i), redis_at(reply, 3), &claims[result.count]))
      result.count++;
  result.claims = claims;
  done(call->context, error, &result);
}

void store_claim(struct store *store, unsigned partition, size_t count, int64_t grace_ms, store_claim_done *done,
                 void *context) {
  struct store_call *call = call_create(store, "claim", partition, answer_claim, (void (*)(void))done, context);
  call_add_number(call, (int64_t)count);
  call_add_number(call, grace_ms);
  call->items = count;
  call_send(store, call);
}

static void answer_done(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  (void)reply;
  ((store_done *)call->done)(call->context, error);
}

void store_freeze(struct store *store, unsigned partition, const char *id, int64_t claim_token, const char *url,
                  const char *content_type, const char *traceparent, struct bytes body, store_done *done,
                  void *context) {
  struct store_call *call = call_create(store, "freeze", partition, answer_done, (void (*)(void))done, context);
  call_add_text(call, id);
  call_add_number(call, claim_token);
  call_add_text(call, url);
  call_add_text(call, content_type);
  call_add_text(call, traceparent);
  call_add(call, body);
  call_send(store, call);
}

static void answer_settle(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  enum store_breaker breaker = error->code ? STORE_BREAKER_SAME : (enum store_breaker)value_number(reply, 1);
  ((store_settle_done *)call->done)(call->context, error, breaker);
}

void store_settle(struct store *store, unsigned partition, const struct store_settlement *settlement,
                  store_settle_done *done, void *context) {
  struct store_call *call = call_create(store, "settle", partition, answer_settle, (void (*)(void))done, context);
  call_add_text(call, settlement->id);
  call_add_number(call, settlement->claim_token);
  call_add_number(call, settlement->state);
  call_add_number(call, settlement->http_status);
  call_add_text(call, settlement->error_class);
  call_add_text(call, settlement->error_message);
  call_add_number(call, settlement->start_ms);
  call_add_number(call, settlement->duration_ms);
  call_add_number(call, settlement->next_ms);
  call_add_text(call, settlement->address);
  call_add_number(call, settlement->dns_us);
  call_add_number(call, settlement->connect_us);
  call_add_number(call, settlement->tls_us);
  call_add_number(call, settlement->first_byte_us);
  call_add_number(call, settlement->total_us);
  call_add_number(call, settlement->next_reason);
  call_add(call, settlement->response);
  call_send(store, call);
}
