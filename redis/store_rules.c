/* The store's calls about callback rules (45_rules.lua). */
#include <string.h>

#include "redis/callback_values.h"

static void answer_rule(struct store_call *call, const struct store_error *error, const struct redis_value *reply) {
  store_rule_done *done = (store_rule_done *)call->done;
  if (error->code) {
    done(call->context, error, NULL);
    return;
  }
  struct store_rule rule = {.on = value_number(reply, 1) == 1,
                            .url = value_text(reply, 2),
                            .events = (unsigned)value_number(reply, 3),
                            .timeout_ms = value_number(reply, 4),
                            .etag = value_text(reply, 5),
                            .update_ms = value_number(reply, 6),
                            .format = (int)value_number(reply, 8)};
  rule.secrets = split_lines(call->arena, value_text(reply, 7), &rule.secret_count);
  rule.off_reason = value_text(reply, 9);
  rule.concurrency = (int)value_number(reply, 10);
  rule.headers = split_headers(call->arena, value_text(reply, 11), &rule.header_count);
  rule.schedule_ms = split_numbers(call->arena, value_text(reply, 12), &rule.schedule_count);
  rule.max_age_ms = value_number(reply, 13);
  rule.epoch = value_number(reply, 14);
  rule.in_flight = (int)value_number(reply, 15);
  rule.wait_key = store_key_rule((unsigned)value_number(reply, 16), (uint64_t)value_number(reply, 17));
  rule.breaker_until_ms = value_number(reply, 18);
  rule.allowed = value_text(reply, 19);
  rule.store_response = value_number(reply, 20) == 1;
  rule.trust = (struct store_trust){
      .ca_certificates = value_text(reply, 21), .client_certificate = value_text(reply, 22), .client_key = ""};
  rule.old_secrets_until_ms = value_number(reply, 23);
  done(call->context, error, &rule);
}

void store_get_rule(struct store *store, const char *bucket, const char *queue, store_rule_done *done, void *context) {
  call_send(store, call_create_for_queue(store, "rule_get", bucket, queue, answer_rule, (void (*)(void))done, context));
}

void store_update_rule(struct store *store, const char *bucket, const char *queue, const char *etag, unsigned mask,
                       const struct store_rule *rule, store_rule_done *done, void *context) {
  struct store_call *call =
      call_create_for_queue(store, "rule_update", bucket, queue, answer_rule, (void (*)(void))done, context);
  call_add_text(call, etag);
  if (mask & RULE_STATE) {
    call_add_text(call, "on");
    call_add_number(call, rule->on);
  }
  if (mask & RULE_URL) {
    call_add_text(call, "url");
    call_add_text(call, rule->url);
  }
  if (mask & RULE_EVENTS) {
    call_add_text(call, "ev");
    call_add_number(call, rule->events);
  }
  if (mask & RULE_TIMEOUT) {
    call_add_text(call, "to");
    call_add_number(call, rule->timeout_ms);
  }
  if (mask & RULE_FORMAT) {
    call_add_text(call, "fm");
    call_add_number(call, rule->format);
  }
  if (mask & RULE_CONCURRENCY) {
    call_add_text(call, "cc");
    call_add_number(call, rule->concurrency);
  }
  if (mask & RULE_HEADERS) {
    const char *joined = "";
    for (size_t i = 0; i < rule->header_count; i++)
      joined =
          arena_printf(call->arena, "%s%s%s:%s", joined, i ? "\n" : "", rule->headers[i].name, rule->headers[i].value);
    call_add_text(call, "hd");
    call_add_text(call, joined);
  }
  if (mask & RULE_SCHEDULE) {
    const char *joined = "";
    for (size_t i = 0; i < rule->schedule_count; i++)
      joined = arena_printf(call->arena, "%s%s%lld", joined, i ? "," : "", (long long)rule->schedule_ms[i]);
    call_add_text(call, "sc");
    call_add_text(call, joined);
  }
  if (mask & RULE_ALLOWED) {
    call_add_text(call, "al");
    call_add_text(call, rule->allowed);
  }
  if (mask & RULE_STORE_RESPONSE) {
    call_add_text(call, "sr");
    call_add_number(call, rule->store_response);
  }
  if (mask & RULE_CA_CERTIFICATES) {
    call_add_text(call, "ca");
    call_add_text(call, rule->trust.ca_certificates);
  }
  if (mask & RULE_CLIENT_CERTIFICATE) {
    call_add_text(call, "crt");
    call_add_text(call, rule->trust.client_certificate);
  }
  if (mask & RULE_CLIENT_KEY) {
    call_add_text(call, "key");
    call_add_text(call, rule->trust.client_key);
  }
  if (mask & RULE_MAX_AGE) {
    call_add_text(call, "ma");
    call_add_number(call, rule->max_age_ms);
  }
  if (mask & RULE_SECRETS) {
    const char *joined = "";
    for (size_t i = 0; i < rule->secret_count; i++)
      joined = arena_printf(call->arena, "%s%s%s", joined, i ? "\n" : "", rule->secrets[i]);
    call_add_text(call, "se");
    call_add_text(call, joined);
  }
  call_send(store, call);
}

void store_rotate_secret(struct store *store, const char *bucket, const char *queue, const char *secret,
                         int64_t overlap_ms, store_rule_done *done, void *context) {
  struct store_call *call =
      call_create_for_queue(store, "rule_rotate", bucket, queue, answer_rule, (void (*)(void))done, context);
  call_add_text(call, secret);
  call_add_number(call, overlap_ms);
  call_send(store, call);
}

void store_delete_rule(struct store *store, const char *bucket, const char *queue, store_rule_done *done,
                       void *context) {
  call_send(store,
            call_create_for_queue(store, "rule_delete", bucket, queue, answer_rule, (void (*)(void))done, context));
}
