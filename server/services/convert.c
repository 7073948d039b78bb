/* Between the store's structs and the contract's messages: see convert.h. */
#include "server/services/convert.h"

#include <string.h>

#include "server/base/log.h"
#include "server/callback/certificate.h"
#include "server/callback/schedule.h"
#include "server/services/names.h"

Google__Protobuf__Timestamp *convert_time(struct arena *arena, int64_t ms) {
  if (ms <= 0)
    return NULL;
  Google__Protobuf__Timestamp *time = ARENA_NEW(arena, Google__Protobuf__Timestamp);
  google__protobuf__timestamp__init(time);
  time->seconds = ms / 1000;
  time->nanos = (int32_t)(ms % 1000) * 1000000;
  return time;
}

Google__Protobuf__Duration *convert_duration(struct arena *arena, int64_t ms) {
  Google__Protobuf__Duration *duration = ARENA_NEW(arena, Google__Protobuf__Duration);
  google__protobuf__duration__init(duration);
  duration->seconds = ms / 1000;
  duration->nanos = (int32_t)(ms % 1000) * 1000000;
  return duration;
}

char *convert_job_id(struct arena *arena, const struct job_id *id) {
  char *text = arena_alloc(arena, ID_TEXT_SIZE);
  id_format_job(id, text);
  return text;
}

char *convert_queue_id(struct arena *arena, const uint8_t bytes[16]) {
  char *text = arena_alloc(arena, ID_TEXT_SIZE);
  id_format_queue(bytes, text);
  return text;
}

struct bytes convert_pack(struct arena *arena, const ProtobufCMessage *message) {
  size_t length = protobuf_c_message_get_packed_size(message);
  uint8_t *data = arena_alloc(arena, length ? length : 1);
  protobuf_c_message_pack(message, data);
  return (struct bytes){data, length};
}

static Ringback__V1__Ordering *convert_ordering(struct arena *arena, int64_t head_start_ms) {
  if (head_start_ms == 0)
    return NULL;
  Ringback__V1__Ordering *ordering = ARENA_NEW(arena, Ringback__V1__Ordering);
  ringback__v1__ordering__init(ordering);
  ordering->head_start = convert_duration(arena, head_start_ms);
  return ordering;
}

static Ringback__V1__RetryPolicy *convert_retry(struct arena *arena, const struct store_settings *settings) {
  Ringback__V1__RetryPolicy *retry = ARENA_NEW(arena, Ringback__V1__RetryPolicy);
  ringback__v1__retry_policy__init(retry);
  retry->max_attempts = (int32_t)settings->max_attempts;
  retry->min_backoff = convert_duration(arena, settings->min_backoff_ms);
  retry->max_backoff = convert_duration(arena, settings->max_backoff_ms);
  return retry;
}

static Ringback__V1__Retention *convert_retention(struct arena *arena, const struct store_settings *settings) {
  Ringback__V1__Retention *retention = ARENA_NEW(arena, Ringback__V1__Retention);
  ringback__v1__retention__init(retention);
  retention->max_age = convert_duration(arena, settings->retention_age_ms);
  retention->max_count = settings->retention_count;
  return retention;
}

static Ringback__V1__QueueCounts *convert_counts(struct arena *arena, const struct store_queue *queue) {
  Ringback__V1__QueueCounts *counts = ARENA_NEW(arena, Ringback__V1__QueueCounts);
  ringback__v1__queue_counts__init(counts);
  counts->waiting = queue->waiting;
  counts->delayed = queue->delayed;
  counts->running = queue->running;
  counts->success = queue->success;
  counts->failed = queue->failed;
  counts->cancel = queue->cancel;
  if (queue->oldest_waiting_ms >= 0)
    counts->oldest_waiting_age = convert_duration(arena, queue->oldest_waiting_ms);
  return counts;
}

Ringback__V1__Queue *convert_queue(struct arena *arena, const char *bucket, const struct store_queue *queue) {
  Ringback__V1__Queue *message = ARENA_NEW(arena, Ringback__V1__Queue);
  ringback__v1__queue__init(message);
  message->name = names_format_queue(arena, bucket, queue->name);
  message->queue_id = convert_queue_id(arena, queue->id);
  message->feature = (Ringback__V1__Feature)queue->feature;
  message->state =
      queue->paused ? RINGBACK__V1__QUEUE_STATE__QUEUE_STATE_PAUSED : RINGBACK__V1__QUEUE_STATE__QUEUE_STATE_ACTIVE;
  message->ordering = convert_ordering(arena, queue->settings.head_start_ms);
  message->max_size = queue->settings.max_size;
  message->max_concurrent = queue->settings.max_concurrent;
  message->default_lease = convert_duration(arena, queue->settings.default_lease_ms);
  message->retry_policy = convert_retry(arena, &queue->settings);
  message->retention = convert_retention(arena, &queue->settings);
  message->idempotency_window = convert_duration(arena, queue->settings.idempotency_ms);
  message->counts = convert_counts(arena, queue);
  message->create_time = convert_time(arena, queue->create_ms);
  message->update_time = convert_time(arena, queue->update_ms);
  message->etag = arena_strdup(arena, queue->etag);
  message->feature_default = queue->feature_default;
  return message;
}

static bool is_waiting(int state) {
  return state == RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED || state == RINGBACK__V1__JOB_STATE__JOB_STATE_PAUSE;
}

/* The stored spec; an empty one, after logging it, where the stored bytes cannot be read. */
static Ringback__V1__JobSpec *convert_spec(struct arena *arena, const struct store_job *job, bool full) {
  Ringback__V1__JobSpec *spec =
      ringback__v1__job_spec__unpack(arena_allocator(arena), job->spec.length, job->spec.data);
  if (!spec) {
    char id[ID_TEXT_SIZE];
    id_format_job(&job->id, id);
    log_event(LOG_ERROR, "a stored job cannot be read", log_text("job", id));
    spec = ARENA_NEW(arena, Ringback__V1__JobSpec);
    ringback__v1__job_spec__init(spec);
  }
  spec->priority = job->priority;
  if (!full) {
    spec->operation = NULL;
    spec->user_data = arena_strdup(arena, "");
  }
  return spec;
}

Ringback__V1__Job *convert_job(struct arena *arena, const char *bucket, const struct store_job *job, bool full,
                               int64_t now_ms) {
  Ringback__V1__Job *message = ARENA_NEW(arena, Ringback__V1__Job);
  ringback__v1__job__init(message);
  message->id = convert_job_id(arena, &job->id);
  message->queue = names_format_queue(arena, bucket, job->queue);
  message->queue_id = convert_queue_id(arena, job->queue_id);
  message->spec = convert_spec(arena, job, full);
  message->state = (Ringback__V1__JobState)job->state;
  message->progress = job->progress;
  message->code = arena_strdup(arena, job->code);
  message->message = arena_strdup(arena, job->message);
  if (full && job->result.length)
    message->result = ringback__v1__payload__unpack(arena_allocator(arena), job->result.length, job->result.data);
  message->attempts = job->attempts;
  message->create_time = convert_time(arena, id_job_create_ms(&job->id));
  message->start_time = convert_time(arena, job->start_ms);
  message->end_time = convert_time(arena, job->end_ms);
  message->worker = arena_strdup(arena, job->worker);
  if (is_waiting(job->state) && job->due_ms > now_ms)
    message->due_time = convert_time(arena, job->due_ms);
  return message;
}

static void set_trust(struct arena *arena, const struct store_trust *trust, Ringback__V1__CallbackRule *message) {
  size_t count;
  struct certificate_summary summary;
  message->ca_certificates = arena_strdup(arena, trust->ca_certificates);
  if (trust->ca_certificates[0] && !certificate_check(trust->ca_certificates, &count))
    message->ca_certificate_count = (int32_t)count;
  message->client_certificate = arena_strdup(arena, trust->client_certificate);
  if (!trust->client_certificate[0] || !certificate_describe(trust->client_certificate, &summary))
    return;
  message->client_certificate_subject = arena_strdup(arena, summary.subject);
  message->client_certificate_expire_time = convert_time(arena, summary.expire_ms);
}

Ringback__V1__CallbackRule *convert_rule(struct arena *arena, const char *queue_name, const struct store_rule *rule) {
  Ringback__V1__CallbackRule *message = ARENA_NEW(arena, Ringback__V1__CallbackRule);
  ringback__v1__callback_rule__init(message);
  message->queue = arena_strdup(arena, queue_name);
  message->state = rule->on ? RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_ON
                            : RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF;
  message->url = arena_strdup(arena, rule->url);
  message->events = ARENA_ARRAY(arena, Ringback__V1__CallbackEvent, 32);
  for (int event = 1; event < 32; event++)
    if (rule->events >> event & 1)
      message->events[message->n_events++] = (Ringback__V1__CallbackEvent)event;
  message->secret_count = (int32_t)rule->secret_count;
  message->old_secrets_expire_time = convert_time(arena, rule->old_secrets_until_ms);
  message->timeout = convert_duration(arena, rule->timeout_ms);
  message->format = (Ringback__V1__CallbackFormat)rule->format;
  message->off_reason = arena_strdup(arena, rule->off_reason);
  message->concurrency = rule->concurrency;
  message->headers = ARENA_ARRAY(arena, Ringback__V1__CallbackHeader *, rule->header_count + 1);
  for (size_t i = 0; i < rule->header_count; i++) {
    Ringback__V1__CallbackHeader *header = ARENA_NEW(arena, Ringback__V1__CallbackHeader);
    ringback__v1__callback_header__init(header);
    header->name = arena_strdup(arena, rule->headers[i].name);
    message->headers[message->n_headers++] = header;
  }
  message->schedule = ARENA_ARRAY(arena, Google__Protobuf__Duration *, rule->schedule_count + 1);
  for (size_t i = 0; i < rule->schedule_count; i++)
    message->schedule[message->n_schedule++] = convert_duration(arena, rule->schedule_ms[i]);
  message->max_age = convert_duration(arena, rule->max_age_ms ? rule->max_age_ms : SCHEDULE_AGE_MAX_MS);
  message->allowed_cidrs = ARENA_ARRAY(arena, char *, strlen(rule->allowed) / 2 + 1);
  for (const char *at = rule->allowed; *at;) {
    size_t length = strcspn(at, ",");
    message->allowed_cidrs[message->n_allowed_cidrs++] = arena_strndup(arena, at, length);
    at += length + (at[length] == ',');
  }
  message->store_response = rule->store_response;
  set_trust(arena, &rule->trust, message);
  message->epoch = rule->epoch;
  message->in_flight_count = rule->in_flight;
  message->breaker_open_until = convert_time(arena, rule->breaker_until_ms);
  message->etag = arena_strdup(arena, rule->etag);
  message->update_time = convert_time(arena, rule->update_ms);
  return message;
}

/* A phase that took place took 1 us at least. */
static Google__Protobuf__Duration *convert_microseconds(struct arena *arena, int64_t us) {
  if (us <= 0)
    return NULL;
  Google__Protobuf__Duration *message = ARENA_NEW(arena, Google__Protobuf__Duration);
  google__protobuf__duration__init(message);
  message->seconds = us / 1000000;
  message->nanos = (int32_t)(us % 1000000 * 1000);
  return message;
}

static Ringback__V1__DeliveryAttempt *convert_attempt(struct arena *arena, const struct store_attempt *attempt) {
  Ringback__V1__DeliveryAttempt *message = ARENA_NEW(arena, Ringback__V1__DeliveryAttempt);
  ringback__v1__delivery_attempt__init(message);
  message->number = attempt->number;
  message->start_time = convert_time(arena, attempt->start_ms);
  message->address = arena_strdup(arena, attempt->address);
  message->http_status = attempt->http_status;
  message->error_class = arena_strdup(arena, attempt->error_class);
  message->error_message = arena_strdup(arena, attempt->error_message);
  message->dns_duration = convert_microseconds(arena, attempt->dns_us);
  message->connect_duration = convert_microseconds(arena, attempt->connect_us);
  message->tls_duration = convert_microseconds(arena, attempt->tls_us);
  message->first_byte_duration = convert_microseconds(arena, attempt->first_byte_us);
  message->total_duration = convert_microseconds(arena, attempt->total_us);
  message->next_attempt_time = convert_time(arena, attempt->next_ms);
  message->next_attempt_reason = (Ringback__V1__NextAttemptReason)attempt->next_reason;
  return message;
}

Ringback__V1__Delivery *convert_delivery(struct arena *arena, const char *bucket,
                                         const struct store_delivery *delivery) {
  Ringback__V1__Delivery *message = ARENA_NEW(arena, Ringback__V1__Delivery);
  ringback__v1__delivery__init(message);
  message->id = arena_strdup(arena, delivery->id);
  message->queue = names_format_queue(arena, bucket, delivery->queue);
  static const struct job_id no_job;
  bool has_job = memcmp(&delivery->job, &no_job, sizeof no_job) != 0;
  message->job_id = has_job ? convert_job_id(arena, &delivery->job) : arena_strdup(arena, "");
  message->event = (Ringback__V1__CallbackEvent)delivery->event;
  message->state = (Ringback__V1__DeliveryState)delivery->state;
  message->url = arena_strdup(arena, delivery->url);
  message->attempts = delivery->attempts;
  message->http_status = delivery->http_status;
  message->error_class = arena_strdup(arena, delivery->error_class);
  message->error_message = arena_strdup(arena, delivery->error_message);
  message->create_time = convert_time(arena, delivery->create_ms);
  message->last_attempt_time = convert_time(arena, delivery->last_attempt_ms);
  if (delivery->last_attempt_ms > 0)
    message->last_attempt_duration = convert_duration(arena, delivery->last_duration_ms);
  if (delivery->state == RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_PENDING)
    message->next_attempt_time = convert_time(arena, delivery->next_attempt_ms);
  message->own_url = delivery->own_url;
  message->breaker_open_until = convert_time(arena, delivery->breaker_until_ms);
  if (delivery->response.length) {
    message->response.data = arena_copy(arena, delivery->response.data, delivery->response.length);
    message->response.len = delivery->response.length;
  }
  message->attempt_log = ARENA_ARRAY(arena, Ringback__V1__DeliveryAttempt *, delivery->log_count + 1);
  for (size_t i = 0; i < delivery->log_count; i++)
    message->attempt_log[message->n_attempt_log++] = convert_attempt(arena, &delivery->log[i]);
  return message;
}
