/* The store's calls of the dispatcher: claim, freeze, settle (55_dispatch.lua). */
#include <string.h>

#include "redis/callback_values.h"
#include "redis/delivery_record.h"

/* Whose endpoint a group's deliveries go to: the TO_* of 15_deliveries.lua. */
enum { TO_RULE, TO_TEST, TO_OWN };

/* Where the values of a claim's groups lie; a job's own endpoint has none from RULE_URL on. */
enum {
  GROUP_CLAIMS,
  GROUP_PURGE,
  GROUP_NAME,
  GROUP_KIND,
  GROUP_BUCKET,
  GROUP_QUEUE,
  GROUP_QUEUE_ID,
  GROUP_EXPIRY,
  GROUP_TIMEOUT,
  GROUP_RULE_URL,
  GROUP_SECRETS,
  GROUP_FORMAT,
  GROUP_HEADERS,
  GROUP_SCHEDULE,
  GROUP_MAX_AGE,
  GROUP_ALLOWED,
  GROUP_STORE_RESPONSE,
  GROUP_TRUST,
  GROUP_CA,
  GROUP_CERTIFICATE,
  GROUP_KEY,
  CLAIM_VALUES = 9,
};

static const struct store_endpoint *decode_endpoint(struct arena *arena, const struct redis_value *group) {
  struct store_endpoint *endpoint = ARENA_NEW(arena, struct store_endpoint);
  endpoint->group = value_text(group, GROUP_NAME);
  endpoint->timeout_ms = value_number(group, GROUP_TIMEOUT);
  endpoint->allowed = "";
  if (value_number(group, GROUP_KIND) == TO_OWN)
    return endpoint;
  endpoint->secrets = split_lines(arena, value_text(group, GROUP_SECRETS), &endpoint->secret_count);
  endpoint->headers = split_headers(arena, value_text(group, GROUP_HEADERS), &endpoint->header_count);
  endpoint->schedule_ms = split_numbers(arena, value_text(group, GROUP_SCHEDULE), &endpoint->schedule_count);
  endpoint->max_age_ms = value_number(group, GROUP_MAX_AGE);
  endpoint->allowed = value_text(group, GROUP_ALLOWED);
  endpoint->store_response = value_number(group, GROUP_STORE_RESPONSE) == 1;
  if (value_text(group, GROUP_TRUST)[0]) {
    struct store_trust *trust = ARENA_NEW(arena, struct store_trust);
    *trust = (struct store_trust){.ca_certificates = value_text(group, GROUP_CA),
                                  .client_certificate = value_text(group, GROUP_CERTIFICATE),
                                  .client_key = value_text(group, GROUP_KEY)};
    endpoint->trust = trust;
  }
  return endpoint;
}

/* False: it cannot be read. */
static bool decode_claim(struct store_call *call, const struct redis_value *group, const struct redis_value *claims,
                         size_t at, struct store_claim *claim) {
  struct job_id job;
  claim->id = delivery_id_format(call->arena, value_bytes(claims, at), &job, &claim->event);
  claim->claim_token = value_number(claims, at + 1);
  claim->attempts = (int)value_number(claims, at + 2);
  claim->create_ms = value_number(claims, at + 3);
  claim->own_sequence = value_number(claims, at + 4);
  struct bytes body = value_bytes(claims, at + 5);
  struct bytes record = value_bytes(claims, at + 7);
  claim->job.worker = claim->job.code = claim->job.message = claim->job.queue = "";
  if (body.length) {
    claim->rendered = true;
    if (!body_unpack(call->arena, body, &claim->body))
      return false;
    if (claim->own_url)
      claim->url = claim->body.url;
  } else if (claim->test) {
    claim->job.queue = value_text(group, GROUP_QUEUE);
    struct bytes queue_id = value_bytes(group, GROUP_QUEUE_ID);
    if (queue_id.length == sizeof claim->job.queue_id)
      memcpy(claim->job.queue_id, queue_id.data, queue_id.length);
  } else if (record.length) {
    claim->job.id = job;
    return job_read(call,
                    &(struct job_values){.record = record,
                                         .state = value_bytes(claims, at + 8),
                                         .queue_id = value_bytes(group, GROUP_QUEUE_ID),
                                         .queue = value_text(group, GROUP_QUEUE),
                                         .seen = (int)value_number(claims, at + 6),
                                         .purge_ms = value_number(group, GROUP_PURGE)},
                    &claim->job);
  }
  return true;
}

static size_t decode_group(struct store_call *call, const struct redis_value *group, struct store_claim *claims) {
  const struct redis_value *values = redis_at(group, GROUP_CLAIMS);
  const struct store_endpoint *endpoint = decode_endpoint(call->arena, group);
  int64_t kind = value_number(group, GROUP_KIND);
  struct store_claim shared = {.partition = call->partition,
                               .endpoint = endpoint,
                               .claim_expire_ms = value_number(group, GROUP_EXPIRY),
                               .test = kind == TO_TEST,
                               .own_url = kind == TO_OWN,
                               .bucket = value_text(group, GROUP_BUCKET),
                               .url = kind == TO_OWN ? "" : value_text(group, GROUP_RULE_URL),
                               .format = kind == TO_OWN ? 0 : (int)value_number(group, GROUP_FORMAT)};
  size_t count = 0;
  for (size_t at = 0; at + CLAIM_VALUES <= redis_count(values); at += CLAIM_VALUES) {
    claims[count] = shared;
    if (decode_claim(call, group, values, at, &claims[count]))
      count++;
  }
  return count;
}

static void answer_claim(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_claim_done *done = (store_claim_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_claims result = {.next_due_ms = value_number(reply, 1), .too_old = (size_t)value_number(reply, 3)};
  const struct redis_value *groups = redis_at(reply, 2);
  size_t most = 0;
  for (size_t i = 0; i < redis_count(groups); i++)
    most += redis_count(redis_at(redis_at(groups, i), GROUP_CLAIMS)) / CLAIM_VALUES;
  struct store_claim *claims = ARENA_ARRAY(call->arena, struct store_claim, most + 1);
  for (size_t i = 0; i < redis_count(groups); i++)
    result.count += decode_group(call, redis_at(groups, i), claims + result.count);
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

void store_freeze(struct store *store, unsigned partition, const char *id, int64_t claim_token,
                  const struct store_body *body, store_done *done, void *context) {
  struct store_call *call = call_create(store, "freeze", partition, answer_done, (void (*)(void))done, context);
  call_add_kept(call, delivery_id_parse(call->arena, id));
  call_add_number(call, claim_token);
  call_add_kept(call, body_pack(call->arena, body));
  call_send(store, call);
}

static void answer_settle(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  enum store_breaker breaker = error->code ? STORE_BREAKER_SAME : (enum store_breaker)value_number(reply, 1);
  ((store_settle_done *)call->done)(call->context, error, breaker);
}

void store_settle(struct store *store, unsigned partition, const struct store_settlement *settlement,
                  store_settle_done *done, void *context) {
  struct store_call *call = call_create(store, "settle", partition, answer_settle, (void (*)(void))done, context);
  call_add(call, delivery_id_parse(call->arena, settlement->id));
  call_add_kept(call, attempt_pack(call->arena, settlement));
  if (settlement->response.length)
    call_add(call, settlement->response);
  call_send(store, call);
}
