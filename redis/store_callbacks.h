/* The store's calls about callback rules, deliveries and the outbox: what redis/store.h says of the store's calls holds
 * for them too.
 */
#ifndef RINGBACK_REDIS_STORE_CALLBACKS_H
#define RINGBACK_REDIS_STORE_CALLBACKS_H

#include "redis/store.h"

/* --- callback rules and deliveries --- */

struct store_header {
  const char *name, *value;
};

/* PEM; "" where there is none. */
struct store_trust {
  const char *ca_certificates, *client_certificate, *client_key;
};

struct store_rule {
  bool on;
  const char *url;            /* "": not set */
  unsigned events;            /* bit 1 << Ringback__V1__CallbackEvent; 0: all */
  const char *const *secrets; /* newest first; update only */
  size_t secret_count;
  int64_t old_secrets_until_ms; /* when the last that was rotated out ceases to sign; 0: none does. Read only */
  int64_t timeout_ms;
  const char *etag;
  int64_t update_ms;      /* 0: never set */
  int format;             /* Ringback__V1__CallbackFormat */
  const char *off_reason; /* "": nobody but the operator has switched it off; not for updates */
  int concurrency;
  const struct store_header *headers;
  size_t header_count;
  const int64_t *schedule_ms; /* waits after the first failed attempt, the second...; the last repeats */
  size_t schedule_count;      /* 0: the default schedule */
  int64_t max_age_ms;         /* 0: the default */
  const char *allowed;        /* CIDR ranges with commas; "": the operator's */
  bool store_response;        /* the beginning of answers is kept */
  struct store_trust trust;   /* its key for updates only */
  int64_t epoch; /* raised when it is switched, deleted or has another URL; not for updates, like those below */
  int in_flight; /* its deliveries that are claimed; off and 0 is drained */
  int64_t breaker_until_ms; /* until when its breaker is open; 0: it is closed */
  uint64_t wait_key;        /* what rpc_park waits for: woken when a rule that is off is drained */
};

enum {
  RULE_STATE = 1,
  RULE_URL = 2,
  RULE_EVENTS = 4,
  RULE_SECRETS = 8,
  RULE_TIMEOUT = 16,
  RULE_FORMAT = 32,
  RULE_CONCURRENCY = 64,
  RULE_HEADERS = 128,
  RULE_SCHEDULE = 256,
  RULE_MAX_AGE = 512,
  RULE_ALLOWED = 1024,
  RULE_STORE_RESPONSE = 2048,
  RULE_CA_CERTIFICATES = 4096,
  RULE_CLIENT_CERTIFICATE = 8192,
  RULE_CLIENT_KEY = 16384
};

typedef void store_rule_done(void *context, const struct store_error *error, const struct store_rule *rule);
void store_get_rule(struct store *store, const char *bucket, const char *queue, store_rule_done *done, void *context);
/* etag "": whatever it is. STORE_PRECONDITION: on without an URL. */
void store_update_rule(struct store *store, const char *bucket, const char *queue, const char *etag, unsigned mask,
                       const struct store_rule *rule, store_rule_done *done, void *context);
/* Makes `secret` the newest; the others sign for overlap_ms more. STORE_PRECONDITION: there would be too many. */
void store_rotate_secret(struct store *store, const char *bucket, const char *queue, const char *secret,
                         int64_t overlap_ms, store_rule_done *done, void *context);
void store_delete_rule(struct store *store, const char *bucket, const char *queue, store_rule_done *done,
                       void *context);

/* One attempt at a delivery; phases that did not take place took 0. */
struct store_attempt {
  int number; /* the first is 1 */
  int64_t start_ms;
  const char *address; /* "": none was dialled */
  int http_status;
  const char *error_class, *error_message;
  int64_t dns_us, connect_us, tls_us, first_byte_us, total_us;
  int64_t next_ms; /* 0: none */
  int next_reason; /* Ringback__V1__NextAttemptReason */
};

struct store_delivery {
  const char *id;    /* cb_<job>_<event>_<run> */
  const char *queue; /* its name */
  struct job_id job;
  int event; /* Ringback__V1__CallbackEvent */
  int state; /* Ringback__V1__DeliveryState */
  const char *url;
  int attempts;
  int http_status;
  const char *error_class, *error_message;
  int64_t create_ms, last_attempt_ms, last_duration_ms;
  int64_t next_attempt_ms;         /* 0: none */
  bool own_url;                    /* it goes to its job's own URL, whatever the rule says */
  int64_t breaker_until_ms;        /* of its endpoint while it is pending, as in store_rule */
  const struct store_attempt *log; /* store_get_delivery: the latest attempts, oldest first */
  size_t log_count;
  struct bytes response; /* store_get_delivery: the beginning of the last answer, where the rule wants it kept */
};

struct store_deliveries {
  const struct store_delivery *deliveries;
  size_t count;
  const char *next_position; /* "" at the end */
  uint64_t wait_key;         /* test: what rpc_park waits for (store_key_delivery) */
};

typedef void store_deliveries_done(void *context, const struct store_error *error,
                                   const struct store_deliveries *result);

/* Puts a test delivery into the outbox; the result has it. Ask store_get_delivery again when its wait_key is woken. */
void store_test_callback(struct store *store, const char *bucket, const char *queue, store_deliveries_done *done,
                         void *context);
void store_get_delivery(struct store *store, const char *bucket, const char *id, store_deliveries_done *done,
                        void *context);

struct store_delivery_filter {
  const char *queue;
  unsigned states;          /* bit 1 << Ringback__V1__DeliveryState; 0: any */
  const struct job_id *job; /* NULL: any */
  const char *const *error_classes;
  size_t error_class_count; /* 0: any */
  int64_t start_ms;         /* created from then on; 0: any */
  int64_t end_ms;           /* created before; 0: any */
};

void store_list_deliveries(struct store *store, const char *bucket, const struct store_delivery_filter *filter,
                           size_t count, const char *position, store_deliveries_done *done, void *context);

/* Puts deliveries back to be sent at once: those of the ids, one item each, or the dead ones of a queue (filter: queue,
 * classes and times), in steps from position to next_position. */
void store_redeliver(struct store *store, const char *bucket, const char *const *ids, size_t count,
                     store_items_done *done, void *context);
void store_redeliver_dead(struct store *store, const char *bucket, const struct store_delivery_filter *filter,
                          const char *position, store_items_done *done, void *context);

/* --- the dispatcher's side of the outbox --- */

/* What all claims of a group have in common: they go to the same endpoint. */
struct store_endpoint {
  const char *group;          /* whose concurrency it counts against: the rule, or the job's own endpoint */
  const char *const *secrets; /* newest first */
  size_t secret_count;
  int64_t timeout_ms;
  const struct store_header *headers; /* of the rule */
  size_t header_count;
  const int64_t *schedule_ms; /* of the rule; schedule_count 0: the default */
  size_t schedule_count;
  int64_t max_age_ms;  /* 0: the default */
  const char *allowed; /* of the rule, as in store_rule */
  bool store_response;
  const struct store_trust *trust; /* of the rule; NULL: none of its own */
};

/* What is posted, and where it was rendered for. */
struct store_body {
  struct bytes bytes;
  const char *content_type;
  const char *traceparent; /* "": none */
  const char *url;
};

/* A delivery claimed for one attempt. Settle it before claim_expire_ms. */
struct store_claim {
  unsigned partition;
  const char *id;
  const struct store_endpoint *endpoint; /* shared by the claims of an answer */
  int64_t claim_token;
  int64_t claim_expire_ms;
  int event;
  bool test;            /* made by store_test_callback: tried once, job is empty */
  int attempts;         /* made before this one, since it was last put back */
  int64_t create_ms;    /* or when it was last put back */
  int64_t own_sequence; /* among those that the rule sends; 0: the job's own URL, or a test */
  int format;           /* Ringback__V1__CallbackFormat of the rule */
  const char *bucket;
  const char *url; /* the rule's, or the job's own; "": its own, which the job's spec has */
  bool own_url;    /* the job's own: no secrets */
  bool rendered;
  struct store_body body; /* once it is rendered */
  struct store_job job;   /* only while it is not; for a test: only queue and queue_id */
};

struct store_claims {
  const struct store_claim *claims;
  size_t count;
  int64_t next_due_ms; /* the earliest delivery of the partition not yet due; 0: none known */
  size_t too_old;      /* deliveries ended on the way, past their age behind a breaker that is not closed */
};

typedef void store_claim_done(void *context, const struct store_error *error, const struct store_claims *result);
/* Claims up to count due deliveries of one partition, its groups in turn. grace_ms is added to each rule's timeout for
 * the claim's expiry (DNS and connect time plus slack). When fewer came, the next delivery that becomes due is
 * published ("due"). */
void store_claim(struct store *store, unsigned partition, size_t count, int64_t grace_ms, store_claim_done *done,
                 void *context);

typedef void store_done(void *context, const struct store_error *error);

/* Stores the body before its first byte leaves. STORE_PRECONDITION: the claim is no longer ours; do not send. */
void store_freeze(struct store *store, unsigned partition, const char *id, int64_t claim_token,
                  const struct store_body *body, store_done *done, void *context);

struct store_settlement {
  const char *id;
  int64_t claim_token;
  int state; /* Ringback__V1__DeliveryState: DELIVERED, DEAD, or PENDING to try again at next_ms */
  int http_status;
  const char *error_class, *error_message;
  int64_t start_ms;
  int64_t next_ms;
  int next_reason; /* Ringback__V1__NextAttemptReason; AGE_LIMIT and DEAD: ended for its age */
  const char *url, *address;
  int64_t dns_us, connect_us, tls_us, first_byte_us, total_us;
  struct bytes response; /* to be kept */
};

/* What a settlement has made of the endpoint's breaker. */
enum store_breaker { STORE_BREAKER_SAME, STORE_BREAKER_OPENED, STORE_BREAKER_CLOSED };

typedef void store_settle_done(void *context, const struct store_error *error, enum store_breaker breaker);
/* Success counts even with a stale token; anything else is STORE_PRECONDITION then. */
void store_settle(struct store *store, unsigned partition, const struct store_settlement *settlement,
                  store_settle_done *done, void *context);

#endif
