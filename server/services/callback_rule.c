/* CallbackService's methods about a queue's rule: reading, changing and deleting it, and its secrets. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "server/callback/certificate.h"
#include "server/callback/schedule.h"
#include "server/services/callback_handlers.h"
#include "server/services/convert.h"
#include "server/services/status.h"

#define TIMEOUT_MIN_MS (1 * SECOND_MS)
#define TIMEOUT_MAX_MS (60 * SECOND_MS)
#define TIMEOUT_DEFAULT_MS (15 * SECOND_MS)
#define HEADERS_MAX 20
#define WAITS_MAX 20
#define RANGES_MAX 16
#define CONCURRENCY_MAX 256
#define CONCURRENCY_DEFAULT 32
#define OVERLAP_MAX_MS (30 * DAY_MS)
#define OVERLAP_DEFAULT_MS (24 * HOUR_MS)
/* The longest that a claim lasts, and more. */
#define DRAIN_MAX_MS (2 * MINUTE_MS)

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

void get_callback_rule(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__GetCallbackRuleRequest *request = (const Ringback__V1__GetCallbackRuleRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = callback_begin(&check, call, FIELD(NULL, "queue"), request->queue);
  if (status_refuse(call, &check))
    return;
  context->response = &ringback__v1__get_callback_rule_response__descriptor;
  store_get_rule(services_store(call), context->name.bucket, context->name.queue, rule_done, context);
}

static const struct {
  const char *path;
  unsigned bit;
} mask_paths[] = {{"state", RULE_STATE},
                  {"url", RULE_URL},
                  {"events", RULE_EVENTS},
                  {"secrets", RULE_SECRETS},
                  {"timeout", RULE_TIMEOUT},
                  {"format", RULE_FORMAT},
                  {"concurrency", RULE_CONCURRENCY},
                  {"headers", RULE_HEADERS},
                  {"schedule", RULE_SCHEDULE},
                  {"max_age", RULE_MAX_AGE},
                  {"allowed_cidrs", RULE_ALLOWED},
                  {"store_response", RULE_STORE_RESPONSE},
                  {"ca_certificates", RULE_CA_CERTIFICATES},
                  {"client_certificate", RULE_CLIENT_CERTIFICATE},
                  {"client_key", RULE_CLIENT_KEY}};

#define MASK_NAMES                                                                                                     \
  "state, url, events, secrets, timeout, format, concurrency, headers, schedule, max_age, allowed_cidrs, "             \
  "store_response, ca_certificates, client_certificate and client_key"

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

/* Ranges within the operator's; *set gets them. */
static void read_allowed(struct check *check, const struct field *field, const Ringback__V1__CallbackRule *rule,
                         const struct address_set *allow, struct address_set *set, struct store_rule *read) {
  check_count(check, field, rule->n_allowed_cidrs, 0, RANGES_MAX);
  set->count = 0;
  read->allowed = "";
  for (size_t i = 0; i < rule->n_allowed_cidrs && i < RANGES_MAX; i++) {
    const char *text = rule->allowed_cidrs[i];
    const struct field *at = FIELD_AT(field->parent, field->name, i);
    struct address_set one;
    if (strchr(text, ',') || address_set_parse(text, &one) || one.count != 1) {
      check_fail(check, at,
                 "is \"%.64s\"; it must be one range such as 10.1.0.0/16 or fd00::/8, without bits beyond its length",
                 text);
      continue;
    }
    if (!address_set_contains(allow, &one, NULL))
      check_fail(check, at, "is \"%.64s\"; it must lie within what the server allows (--callback-allow)", text);
    set->ranges[set->count++] = one.ranges[0];
    read->allowed = arena_printf(check->arena, "%s%s%s", read->allowed, i ? "," : "", text);
  }
}

/* Whether it is short enough to be looked at. What is wrong with it is told without its text: it may be a key. */
static bool check_pem_size(struct check *check, const struct field *field, const char *pem, size_t max) {
  size_t length = strlen(pem);
  if (length > max)
    check_fail(check, field, "has %zu bytes; it must have at most %zu", length, max);
  return length <= max;
}

static void read_ca_certificates(struct check *check, const struct field *field, const char *pem) {
  size_t count;
  if (!pem[0] || !check_pem_size(check, field, pem, CERTIFICATE_BUNDLE_BYTES_MAX))
    return;
  const char *wrong = certificate_check(pem, &count);
  if (wrong)
    check_fail(check, field, "%s", wrong);
}

static void read_client_certificate(struct check *check, const struct field *field, const char *pem, const char *key) {
  const struct field *certificate_field = FIELD(field, "client_certificate"), *key_field = FIELD(field, "client_key");
  size_t count;
  bool short_enough = check_pem_size(check, certificate_field, pem, CERTIFICATE_CHAIN_BYTES_MAX);
  short_enough &= check_pem_size(check, key_field, key, CERTIFICATE_CHAIN_BYTES_MAX);
  if (!pem[0] != !key[0]) {
    check_fail(check, pem[0] ? key_field : certificate_field, "is empty; %s goes with it",
               pem[0] ? "client_certificate" : "client_key");
    return;
  }
  if (!pem[0] || !short_enough)
    return;
  const char *wrong = certificate_check(pem, &count);
  if (wrong) {
    check_fail(check, certificate_field, "%s", wrong);
    return;
  }
  wrong = certificate_check_key(pem, key);
  if (wrong)
    check_fail(check, key_field, "%s", wrong);
}

static void read_trust(struct check *check, const struct field *field, const Ringback__V1__CallbackRule *rule,
                       unsigned mask, struct store_rule *read) {
  const unsigned client = RULE_CLIENT_CERTIFICATE | RULE_CLIENT_KEY;
  read->trust = (struct store_trust){.ca_certificates = rule->ca_certificates,
                                     .client_certificate = rule->client_certificate,
                                     .client_key = rule->client_key};
  if (mask & RULE_CA_CERTIFICATES)
    read_ca_certificates(check, FIELD(field, "ca_certificates"), rule->ca_certificates);
  if ((mask & client) == client)
    read_client_certificate(check, field, rule->client_certificate, rule->client_key);
  else if (mask & client)
    check_fail(check, FIELD(NULL, "update_mask"),
               "names one of client_certificate and client_key; both change together");
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
  struct address_set narrowed;
  if (mask & RULE_ALLOWED)
    read_allowed(check, FIELD(field, "allowed_cidrs"), rule, allow, &narrowed, read);
  read->store_response = rule->store_response;
  if (mask & RULE_URL)
    check_callback_url(check, FIELD(field, "url"), rule->url, allow,
                       mask & RULE_ALLOWED && narrowed.count ? &narrowed : NULL);
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
  read_trust(check, field, rule, mask, read);
  if (mask & RULE_FORMAT)
    read->format = check_callback_format(check, FIELD(field, "format"), rule->format);
  read->timeout_ms = TIMEOUT_DEFAULT_MS;
  if (mask & RULE_TIMEOUT)
    read->timeout_ms = check_duration(check, FIELD(field, "timeout"), rule->timeout, TIMEOUT_MIN_MS, TIMEOUT_MAX_MS,
                                      TIMEOUT_DEFAULT_MS);
}

/* The rule was changed, or a call that waits for it to be drained has looked again. */
static void update_done(void *data, const struct store_error *error, const struct store_rule *rule) {
  struct callback_call *context = data;
  struct rpc_call *call = context->call;
  int64_t now_ms = rpc_now_ms(call);
  if (rpc_is_over(call))
    return;
  if (!error->code && !context->epoch)
    context->epoch = rule->epoch;
  bool waits = !error->code && rule->in_flight && rule->epoch == context->epoch && now_ms < context->until_ms;
  if (!waits) {
    rule_done(context, error, rule);
    return;
  }
  int64_t look_ms = now_ms + CALLBACK_LOOK_MS < context->until_ms ? now_ms + CALLBACK_LOOK_MS : context->until_ms;
  if (!rpc_park(call, &rule->wait_key, 1, true, look_ms))
    rpc_fail_status(call, status_too_many_parked(rpc_arena(call)));
}

void update_callback_rule(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__UpdateCallbackRuleRequest *request = (const Ringback__V1__UpdateCallbackRuleRequest *)message;
  static const Ringback__V1__CallbackRule nothing = RINGBACK__V1__CALLBACK_RULE__INIT;
  const Ringback__V1__CallbackRule *rule = request->rule ? request->rule : &nothing;
  struct check check = {.arena = rpc_arena(call)};
  const struct field *field = FIELD(NULL, "rule");
  struct callback_call *context = callback_begin(&check, call, FIELD(field, "queue"), rule->queue);
  unsigned mask = read_mask(&check, FIELD(NULL, "update_mask"), request->update_mask);
  struct store_rule read;
  read_rule(&check, field, rule, mask, &services_config(call)->callback_allow, &read);
  int64_t wait_ms = check_duration(&check, FIELD(NULL, "wait_drained"), request->wait_drained, 0, DRAIN_MAX_MS, 0);
  if (wait_ms && (!(mask & RULE_STATE) || read.on))
    check_fail(&check, FIELD(NULL, "wait_drained"), "is given, but the rule is not switched off by this call");
  if (status_refuse(call, &check))
    return;
  rpc_set_data(call, context);
  context->until_ms = rpc_now_ms(call) + wait_ms;
  int64_t deadline_ms = rpc_deadline_ms(call);
  if (deadline_ms != INT64_MAX && deadline_ms - ANSWER_MARGIN_MS < context->until_ms)
    context->until_ms = deadline_ms - ANSWER_MARGIN_MS;
  context->response = &ringback__v1__update_callback_rule_response__descriptor;
  store_update_rule(services_store(call), context->name.bucket, context->name.queue, rule->etag, mask, &read,
                    update_done, context);
}

void update_callback_rule_wake(struct rpc_call *call, enum rpc_wake why) {
  struct callback_call *context = rpc_data(call);
  /* A server that goes away answers with what is known now. */
  if (why == RPC_WAKE_DRAIN)
    context->until_ms = 0;
  store_get_rule(services_store(call), context->name.bucket, context->name.queue, update_done, context);
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

void rotate_signing_secret(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__RotateSigningSecretRequest *request = (const Ringback__V1__RotateSigningSecretRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = callback_begin(&check, call, FIELD(NULL, "queue"), request->queue);
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

void delete_callback_rule(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__DeleteCallbackRuleRequest *request = (const Ringback__V1__DeleteCallbackRuleRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct callback_call *context = callback_begin(&check, call, FIELD(NULL, "queue"), request->queue);
  if (status_refuse(call, &check))
    return;
  store_delete_rule(services_store(call), context->name.bucket, context->name.queue, delete_done, context);
}
