/* See delivery.h. */
#include "server/callback/delivery.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringback/v1/callback.pb-c.h"
#include "server/base/arena.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/callback/claim_body.h"
#include "server/callback/signature.h"
#include "server/callback/xml.h"

#define STORE_RETRY_MS 250
#define OWN_HEADERS_MAX 7

enum phase { PHASE_FREEZING, PHASE_SENDING, PHASE_SETTLING };

/* What the deliveries of a rule that came with one claim have in common, in an arena of its own. */
struct endpoint {
  size_t users;
  struct arena *arena;
  const struct sender_header *headers;
  size_t header_count;
  const int64_t *schedule_ms;
  size_t schedule_count;
  int64_t max_age_ms, timeout_ms;
  const char **secrets;
  size_t secret_count;
  const struct address_set *allowed; /* of the rule; NULL: the operator's */
  const struct sender_trust *trust;  /* of the rule; NULL: none of its own */
  bool store_response;
};

struct delivery {
  struct delivery *next, **link;
  struct delivery_set *set;
  struct arena *arena; /* of all the texts below */
  struct endpoint *endpoint;
  enum phase phase;
  int64_t retry_at_us; /* when to ask the store again; 0: an answer is awaited */

  unsigned partition;
  const char *id, *url;
  struct store_body body;
  int64_t claim_token;
  bool test;
  int attempts;
  int64_t own_sequence;
  int64_t create_ms;
  int64_t deadline_us; /* monotonic: when the claim may have run out */

  int64_t start_us;
  bool claim_lost;
  struct store_settlement settlement;
};

static int64_t redis_ms(const struct delivery_set *set, int64_t monotonic_us) {
  return (monotonic_us + set->clock_offset_us) / 1000;
}

static void count(_Atomic uint64_t *counter, uint64_t by) {
  atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static struct delivery *delivery_create(struct delivery_set *set) {
  struct delivery *delivery = set->idle;
  struct arena *arena;
  if (delivery) {
    set->idle = delivery->next;
    arena = delivery->arena;
    arena_reset(arena);
  } else {
    delivery = malloc(sizeof(*delivery));
    if (!delivery)
      abort();
    arena = arena_create();
  }
  *delivery = (struct delivery){.set = set, .arena = arena, .next = set->first, .link = &set->first};
  if (set->first)
    set->first->link = &delivery->next;
  set->first = delivery;
  set->count++;
  atomic_store_explicit(&set->in_flight, set->count, memory_order_relaxed);
  return delivery;
}

static void release_endpoint(struct endpoint *endpoint) {
  if (--endpoint->users == 0)
    arena_destroy(endpoint->arena);
}

static void delivery_end(struct delivery *delivery) {
  struct delivery_set *set = delivery->set;
  release_endpoint(delivery->endpoint);
  *delivery->link = delivery->next;
  if (delivery->next)
    delivery->next->link = delivery->link;
  delivery->next = set->idle;
  set->idle = delivery;
  set->count--;
  atomic_store_explicit(&set->in_flight, set->count, memory_order_relaxed);
}

/* Nothing was sent, or nobody will know: the store gives the delivery out again when the claim runs out. */
static void delivery_drop(struct delivery *delivery, const char *why) {
  log_event(LOG_INFO, "callback claim dropped", log_text("delivery", delivery->id), log_text("reason", why));
  count(&delivery->set->dropped, 1);
  delivery_end(delivery);
}

/* The store did not answer. */
static void retry_later(struct delivery *delivery) {
  delivery->retry_at_us = clock_monotonic_us() + STORE_RETRY_MS * 1000;
  delivery->set->retries++;
}

/* --- settling --- */

void delivery_set_due(struct delivery_set *set, unsigned partition, int64_t due_ms) {
  int64_t *known_ms = &set->due_ms[partition];
  if (due_ms && (!*known_ms || due_ms < *known_ms))
    *known_ms = due_ms;
}

static void tell_breaker(struct delivery *delivery, enum store_breaker breaker) {
  if (breaker == STORE_BREAKER_SAME)
    return;
  bool opened = breaker == STORE_BREAKER_OPENED;
  count(opened ? &delivery->set->breakers_opened : &delivery->set->breakers_closed, 1);
  log_event(opened ? LOG_WARN : LOG_INFO, opened ? "callback breaker opened" : "callback breaker closed",
            log_text("url", delivery->url), log_text("delivery", delivery->id));
}

static void on_settled(void *context, const struct store_error *error, enum store_breaker breaker) {
  struct delivery *delivery = context;
  if (error->code == STORE_UNAVAILABLE) {
    retry_later(delivery);
    return;
  }
  if (error->code)
    log_event(LOG_INFO, "callback not settled", log_text("delivery", delivery->id), log_text("reason", error->reason));
  else
    delivery_set_due(delivery->set, delivery->partition, delivery->settlement.next_ms);
  tell_breaker(delivery, breaker);
  delivery_end(delivery);
}

static void settle_send(struct delivery *delivery) {
  delivery->phase = PHASE_SETTLING;
  delivery->set->store_calls++;
  store_settle(delivery->set->store, delivery->partition, &delivery->settlement, on_settled, delivery);
}

_Static_assert((int)SCHEDULE_WAIT == RINGBACK__V1__NEXT_ATTEMPT_REASON__NEXT_ATTEMPT_REASON_SCHEDULE &&
                   (int)SCHEDULE_RETRY_AFTER == RINGBACK__V1__NEXT_ATTEMPT_REASON__NEXT_ATTEMPT_REASON_RETRY_AFTER &&
                   (int)SCHEDULE_AGE_LIMIT == RINGBACK__V1__NEXT_ATTEMPT_REASON__NEXT_ATTEMPT_REASON_AGE_LIMIT,
               "the same values");

static void settle_success(struct delivery *delivery) {
  delivery->settlement.state = RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_DELIVERED;
  delivery->settlement.error_class = delivery->settlement.error_message = "";
  count(&delivery->set->delivered, 1);
}

static uint32_t next_random(struct delivery_set *set) {
  set->random ^= set->random << 13;
  set->random ^= set->random >> 7;
  set->random ^= set->random << 17;
  return (uint32_t)(set->random >> 16);
}

static void settle_failure(struct delivery *delivery, enum callback_error error, const char *message,
                           int64_t retry_after_ms, bool permanent) {
  struct delivery_set *set = delivery->set;
  struct schedule_failure failure = {.error = error,
                                     .attempts = delivery->attempts + 1,
                                     .created_ms = delivery->create_ms,
                                     .now_ms = redis_ms(set, clock_monotonic_us()),
                                     .random = next_random(set),
                                     .retry_after_ms = retry_after_ms,
                                     .waits_ms = delivery->endpoint->schedule_ms,
                                     .wait_count = delivery->endpoint->schedule_count,
                                     .age_max_ms = delivery->endpoint->max_age_ms};
  struct schedule_verdict verdict = schedule_after_failure(&failure);
  /* A receiver's certificate may have put any bytes into curl's message. */
  size_t length = strlen(message);
  message = xml_text_repair(delivery->arena, message, &length);
  if (permanent)
    verdict = (struct schedule_verdict){.dead = true, .error = error};
  bool too_old = verdict.dead && verdict.error != error;
  struct store_settlement *settlement = &delivery->settlement;
  settlement->state = verdict.dead ? RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_DEAD
                                   : RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_PENDING;
  settlement->error_class = callback_error_name(error);
  settlement->error_message = message;
  settlement->next_ms = verdict.dead ? 0 : verdict.next_ms;
  settlement->next_reason = too_old ? SCHEDULE_AGE_LIMIT : verdict.dead ? SCHEDULE_NONE : (int)verdict.reason;
  count(&set->errors[error], 1);
  if (too_old)
    count(&set->errors[CALLBACK_ERROR_TOO_OLD], 1);
  count(verdict.dead ? &set->dead : &set->retried, 1);
  log_event(verdict.dead ? LOG_WARN : LOG_INFO, verdict.dead ? "callback dead" : "callback failed",
            log_text("delivery", delivery->id), log_text("url", delivery->url),
            log_text("error", callback_error_name(verdict.error)), log_text("message", message),
            log_number("attempts", failure.attempts));
}

/* --- sending --- */

static void on_sent(void *context, const struct sender_result *result) {
  struct delivery *delivery = context;
  if (delivery->claim_lost) {
    delivery_drop(delivery, "the claim was about to run out");
    return;
  }
  struct store_settlement *settlement = &delivery->settlement;
  settlement->http_status = result->http_status;
  settlement->address = arena_strdup(delivery->arena, result->address);
  settlement->dns_us = result->dns_us;
  settlement->connect_us = result->connect_us;
  settlement->tls_us = result->tls_us;
  settlement->first_byte_us = result->first_byte_us;
  settlement->total_us = result->total_us;
  if (result->response_bytes)
    settlement->response =
        (struct bytes){arena_copy(delivery->arena, result->response, result->response_bytes), result->response_bytes};
  count(&delivery->set->attempts, 1);
  count(&delivery->set->attempt_ms, (uint64_t)(result->total_us / 1000));
  if (!result->error)
    settle_success(delivery);
  else
    settle_failure(delivery, result->error, result->message, result->retry_after_ms, delivery->test);
  settle_send(delivery);
}

/* Whoever sends must be done before the claim can belong to somebody else. */
static bool may_send(void *context) {
  struct delivery *delivery = context;
  delivery->claim_lost = clock_monotonic_us() > delivery->deadline_us ||
                         delivery->start_us + delivery->endpoint->timeout_ms * 1000 > delivery->deadline_us;
  return !delivery->claim_lost;
}

/* The rule's headers and our own, in *all; returns how many there are, 0 where the secrets cannot sign. */
static size_t write_headers(struct delivery *delivery, const struct sender_header **all) {
  const struct endpoint *endpoint = delivery->endpoint;
  struct sender_header *headers =
      ARENA_ARRAY(delivery->arena, struct sender_header, endpoint->header_count + OWN_HEADERS_MAX);
  size_t used = endpoint->header_count;
  if (used)
    memcpy(headers, endpoint->headers, used * sizeof(*headers));
  headers[used++] = (struct sender_header){"Content-Type", delivery->body.content_type};
  headers[used++] = (struct sender_header){"User-Agent", "Ringback/" RINGBACK_VERSION};
  headers[used++] = (struct sender_header){"webhook-id", delivery->id};
  if (endpoint->secret_count) {
    int64_t now_s = clock_wall_ms() / 1000;
    char *signature = arena_alloc(delivery->arena, SIGNATURE_HEADER_SIZE);
    if (!signature_write(endpoint->secrets, endpoint->secret_count, delivery->id, now_s, delivery->body.bytes.data,
                         delivery->body.bytes.length, signature))
      return 0;
    headers[used++] =
        (struct sender_header){"webhook-timestamp", arena_printf(delivery->arena, "%lld", (long long)now_s)};
    headers[used++] = (struct sender_header){"webhook-signature", signature};
  }
  if (delivery->own_sequence)
    headers[used++] = (struct sender_header){"Ringback-Sequence",
                                             arena_printf(delivery->arena, "%lld", (long long)delivery->own_sequence)};
  if (delivery->body.traceparent[0])
    headers[used++] = (struct sender_header){"traceparent", delivery->body.traceparent};
  *all = headers;
  return used;
}

static void delivery_post(struct delivery *delivery) {
  struct delivery_set *set = delivery->set;
  delivery->phase = PHASE_SENDING;
  delivery->start_us = clock_monotonic_us();
  delivery->settlement.start_ms = redis_ms(set, delivery->start_us);
  if (!may_send(delivery)) {
    delivery_drop(delivery, "the claim was about to run out");
    return;
  }
  const struct sender_header *headers;
  size_t header_count = write_headers(delivery, &headers);
  if (!header_count) {
    settle_failure(delivery, CALLBACK_ERROR_CANCELLED, "the rule's secrets cannot sign", -1, delivery->test);
    settle_send(delivery);
    return;
  }
  struct sender_request request = {.url = delivery->url,
                                   .headers = headers,
                                   .header_count = header_count,
                                   .body = delivery->body.bytes.data,
                                   .body_bytes = delivery->body.bytes.length,
                                   .allowed = delivery->endpoint->allowed,
                                   .trust = delivery->endpoint->trust,
                                   .keep_response = delivery->endpoint->store_response,
                                   .timeout_ms = (int)delivery->endpoint->timeout_ms,
                                   .may_send = may_send};
  bool posted = sender_post(set->sender, &request, on_sent, delivery);
  assert(posted);
}

/* --- freezing --- */

static void on_frozen(void *context, const struct store_error *error) {
  struct delivery *delivery = context;
  if (!error->code)
    delivery_post(delivery);
  else if (error->code == STORE_UNAVAILABLE && clock_monotonic_us() < delivery->deadline_us)
    retry_later(delivery);
  else
    delivery_drop(delivery, error->reason);
}

static void freeze_send(struct delivery *delivery) {
  delivery->phase = PHASE_FREEZING;
  delivery->set->store_calls++;
  store_freeze(delivery->set->store, delivery->partition, delivery->id, delivery->claim_token, &delivery->body,
               on_frozen, delivery);
}

/* --- a delivery's beginning and the set --- */

static struct endpoint *copy_endpoint(const struct store_endpoint *from) {
  struct arena *arena = arena_create();
  struct endpoint *endpoint = ARENA_NEW(arena, struct endpoint);
  *endpoint = (struct endpoint){.arena = arena,
                                .header_count = from->header_count,
                                .schedule_count = from->schedule_count,
                                .max_age_ms = from->max_age_ms,
                                .timeout_ms = from->timeout_ms > 0 ? from->timeout_ms : SENDER_TIMEOUT_MS,
                                .secret_count = from->secret_count,
                                .store_response = from->store_response};
  struct sender_header *headers = ARENA_ARRAY(arena, struct sender_header, from->header_count + 1);
  for (size_t i = 0; i < from->header_count; i++)
    headers[i] =
        (struct sender_header){arena_strdup(arena, from->headers[i].name), arena_strdup(arena, from->headers[i].value)};
  endpoint->headers = headers;
  if (from->schedule_count)
    endpoint->schedule_ms = arena_copy(arena, from->schedule_ms, from->schedule_count * sizeof(int64_t));
  if (from->allowed[0]) {
    struct address_set *allowed = ARENA_NEW(arena, struct address_set);
    /* It was checked when it was set; what is not understood allows nothing. */
    if (address_set_parse(from->allowed, allowed))
      allowed->count = 0;
    endpoint->allowed = allowed;
  }
  if (from->trust) {
    struct sender_trust *trust = ARENA_NEW(arena, struct sender_trust);
    *trust = (struct sender_trust){.ca_certificates = arena_strdup(arena, from->trust->ca_certificates),
                                   .client_certificate = arena_strdup(arena, from->trust->client_certificate),
                                   .client_key = arena_strdup(arena, from->trust->client_key)};
    endpoint->trust = trust;
  }
  endpoint->secrets = ARENA_ARRAY(arena, const char *, from->secret_count + 1);
  for (size_t i = 0; i < from->secret_count; i++)
    endpoint->secrets[i] = arena_strdup(arena, from->secrets[i]);
  return endpoint;
}

static void copy_claim(struct delivery *delivery, const struct store_claim *claim, int64_t asked_us) {
  struct arena *arena = delivery->arena;
  delivery->partition = claim->partition;
  delivery->id = arena_strdup(arena, claim->id);
  delivery->url = arena_strdup(arena, claim->url);
  delivery->claim_token = claim->claim_token;
  delivery->test = claim->test;
  delivery->attempts = claim->attempts;
  delivery->own_sequence = claim->own_sequence;
  delivery->create_ms = claim->create_ms;
  /* The claim began after it was asked for, so this errs on the safe side. */
  delivery->deadline_us = asked_us + (delivery->endpoint->timeout_ms + DISPATCHER_CLAIM_GRACE_MS) * 1000;
  delivery->settlement = (struct store_settlement){
      .id = delivery->id, .claim_token = claim->claim_token, .url = delivery->url, .address = ""};
}

static void copy_body(struct delivery *delivery, const struct store_body *body) {
  struct arena *arena = delivery->arena;
  delivery->body = (struct store_body){.content_type = arena_strdup(arena, body->content_type),
                                       .traceparent = arena_strdup(arena, body->traceparent),
                                       .url = delivery->url};
  delivery->body.bytes = (struct bytes){arena_copy(arena, body->bytes.data, body->bytes.length), body->bytes.length};
}

static void begin(struct delivery *delivery, const struct store_claim *claim) {
  struct delivery_set *set = delivery->set;
  if (claim->rendered) {
    copy_body(delivery, &claim->body);
    delivery_post(delivery);
    return;
  }
  /* Rendering takes several times what stays: the delivery, which may be in hand for long, keeps only that. */
  struct store_body body;
  arena_reset(set->scratch);
  const char *error = claim_body_render(set->scratch, claim, redis_ms(set, clock_monotonic_us()), &body);
  if (error) {
    delivery->settlement.start_ms = redis_ms(set, clock_monotonic_us());
    settle_failure(delivery, CALLBACK_ERROR_CANCELLED, error, -1, true);
    settle_send(delivery);
    return;
  }
  if (body.url != claim->url)
    delivery->settlement.url = delivery->url = arena_strdup(delivery->arena, body.url);
  copy_body(delivery, &body);
  freeze_send(delivery);
}

void delivery_begin(struct delivery_set *set, const struct store_claim *claims, size_t count, int64_t asked_us) {
  struct endpoint *endpoint = 0;
  atomic_fetch_add_explicit(&set->claimed, count, memory_order_relaxed);
  for (size_t i = 0; i < count; i++) {
    if (!i || claims[i].endpoint != claims[i - 1].endpoint) {
      if (endpoint)
        release_endpoint(endpoint);
      endpoint = copy_endpoint(claims[i].endpoint);
      endpoint->users = 1; /* this loop */
    }
    struct delivery *delivery = delivery_create(set);
    delivery->endpoint = endpoint;
    endpoint->users++;
    copy_claim(delivery, &claims[i], asked_us);
    begin(delivery, &claims[i]);
  }
  if (endpoint)
    release_endpoint(endpoint);
}

void delivery_count_too_old(struct delivery_set *set, size_t deliveries) {
  count(&set->errors[CALLBACK_ERROR_TOO_OLD], deliveries);
  count(&set->dead, deliveries);
  log_event(LOG_WARN, "callbacks dead of age behind an open breaker", log_number("count", (int64_t)deliveries));
}

void delivery_retry_store(struct delivery_set *set, int64_t now_us) {
  for (struct delivery *delivery = set->first, *next; delivery && set->retries; delivery = next) {
    next = delivery->next;
    if (!delivery->retry_at_us || delivery->retry_at_us > now_us)
      continue;
    delivery->retry_at_us = 0;
    set->retries--;
    if (delivery->phase == PHASE_FREEZING)
      freeze_send(delivery);
    else
      settle_send(delivery);
  }
}

void delivery_drop_all(struct delivery_set *set) {
  while (set->first)
    delivery_drop(set->first, "the dispatcher ends");
  while (set->idle) {
    struct delivery *delivery = set->idle;
    set->idle = delivery->next;
    arena_destroy(delivery->arena);
    free(delivery);
  }
  arena_destroy(set->scratch);
  set->scratch = 0;
}
