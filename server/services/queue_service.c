/* QueueService: what each RPC does is said in proto/ringback/v1/queue.proto. */
#include <string.h>

#include "ringback/v1/queue.pb-c.h"
#include "server/services/convert.h"
#include "server/services/page_token.h"
#include "server/services/services.h"
#include "server/services/settings.h"
#include "server/services/status.h"

/* A call between its handler and its continuation. */
struct queue_call {
  struct rpc_call *call;
  const char *bucket;
  const char *what;                           /* for sentences about errors */
  const char *field;                          /* that STORE_INVALID speaks of */
  const ProtobufCMessageDescriptor *response; /* of the RPCs that answer with one queue in their first field */
  size_t page_size;
};

static struct queue_call *begin(struct rpc_call *call, const char *bucket, const char *what) {
  struct queue_call *context = ARENA_NEW(rpc_arena(call), struct queue_call);
  context->call = call;
  context->bucket = bucket;
  context->what = what;
  return context;
}

static const char *queue_phrase(struct rpc_call *call, const char *name) {
  return arena_printf(rpc_arena(call), "queue %s", name);
}

/* --- RPCs that answer with one queue --- */

/* CreateQueue, GetQueue, UpdateQueue, PauseQueue and ResumeQueue have answers of the same shape. */
_Static_assert(sizeof(Ringback__V1__CreateQueueResponse) == sizeof(Ringback__V1__GetQueueResponse), "one shape");
_Static_assert(sizeof(Ringback__V1__UpdateQueueResponse) == sizeof(Ringback__V1__GetQueueResponse), "one shape");
_Static_assert(sizeof(Ringback__V1__PauseQueueResponse) == sizeof(Ringback__V1__GetQueueResponse), "one shape");
_Static_assert(sizeof(Ringback__V1__ResumeQueueResponse) == sizeof(Ringback__V1__GetQueueResponse), "one shape");

static void one_queue_done(void *data, const struct store_error *error, const struct store_queue *queues,
                           size_t count) {
  struct queue_call *context = data;
  (void)count;
  if (status_failed(context->call, error, context->what, context->field))
    return;
  Ringback__V1__GetQueueResponse response;
  protobuf_c_message_init(context->response, &response);
  response.queue = convert_queue(rpc_arena(context->call), context->bucket, &queues[0]);
  rpc_reply(context->call, &response.base);
}

static void create_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__CreateQueueRequest *request = (const Ringback__V1__CreateQueueRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const struct field *field = FIELD(NULL, "queue");
  static const Ringback__V1__Queue nothing = RINGBACK__V1__QUEUE__INIT;
  const Ringback__V1__Queue *queue = request->queue ? request->queue : &nothing;
  struct queue_name name = check_queue(&check, FIELD(field, "name"), queue->name);
  if (queue->feature < RINGBACK__V1__FEATURE__FEATURE_MEDIA || queue->feature > RINGBACK__V1__FEATURE__FEATURE_DOCUMENT)
    check_fail(&check, FIELD(field, "feature"), "is %d; it must be 1 (media), 2 (speech) or 3 (document)",
               (int)queue->feature);
  struct store_settings settings = settings_read(&check, field, queue, ~0u);
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, name.bucket, queue_phrase(call, queue->name));
  context->field = "queue";
  context->response = &ringback__v1__create_queue_response__descriptor;
  store_create_queue(services_store(call), name.bucket, name.queue, (int)queue->feature, &settings, one_queue_done,
                     context);
}

static void get_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__GetQueueRequest *request = (const Ringback__V1__GetQueueRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct queue_name name = check_queue(&check, FIELD(NULL, "name"), request->name);
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, name.bucket, queue_phrase(call, request->name));
  context->response = &ringback__v1__get_queue_response__descriptor;
  store_get_queue(services_store(call), name.bucket, name.queue, one_queue_done, context);
}

static void update_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__UpdateQueueRequest *request = (const Ringback__V1__UpdateQueueRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const struct field *field = FIELD(NULL, "queue");
  static const Ringback__V1__Queue nothing = RINGBACK__V1__QUEUE__INIT;
  const Ringback__V1__Queue *queue = request->queue ? request->queue : &nothing;
  struct queue_name name = check_queue(&check, FIELD(field, "name"), queue->name);
  check_ascii(&check, FIELD(field, "etag"), queue->etag, 64);
  unsigned mask = settings_mask(&check, FIELD(NULL, "update_mask"), request->update_mask);
  struct store_settings settings = settings_read(&check, field, queue, mask);
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, name.bucket, queue_phrase(call, queue->name));
  context->field = "queue.retry_policy";
  context->response = &ringback__v1__update_queue_response__descriptor;
  store_update_queue(services_store(call), name.bucket, name.queue, queue->etag, mask, &settings, one_queue_done,
                     context);
}

static void set_paused(struct rpc_call *call, const char *queue, bool paused,
                       const ProtobufCMessageDescriptor *response) {
  struct check check = {.arena = rpc_arena(call)};
  struct queue_name name = check_queue(&check, FIELD(NULL, "name"), queue);
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, name.bucket, queue_phrase(call, queue));
  context->response = response;
  store_pause_queue(services_store(call), name.bucket, name.queue, paused, one_queue_done, context);
}

static void pause_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__PauseQueueRequest *request = (const Ringback__V1__PauseQueueRequest *)message;
  set_paused(call, request->name, true, &ringback__v1__pause_queue_response__descriptor);
}

static void resume_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ResumeQueueRequest *request = (const Ringback__V1__ResumeQueueRequest *)message;
  set_paused(call, request->name, false, &ringback__v1__resume_queue_response__descriptor);
}

/* --- ActivateFeatures and ListQueues --- */

static void activate_done(void *data, const struct store_error *error, const struct store_queue *queues, size_t count) {
  struct queue_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ActivateFeaturesResponse response = RINGBACK__V1__ACTIVATE_FEATURES_RESPONSE__INIT;
  response.queues = ARENA_ARRAY(arena, Ringback__V1__Queue *, count + 1);
  for (size_t i = 0; i < count; i++)
    response.queues[response.n_queues++] = convert_queue(arena, context->bucket, &queues[i]);
  rpc_reply(context->call, &response.base);
}

static void activate_features(struct rpc_call *call, const ProtobufCMessage *message) {
  enum { FEATURES = 3 };
  static const char *const names[FEATURES + 1] = {"", "media", "speech", "document"};
  const Ringback__V1__ActivateFeaturesRequest *request = (const Ringback__V1__ActivateFeaturesRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  int features[FEATURES] = {RINGBACK__V1__FEATURE__FEATURE_MEDIA, RINGBACK__V1__FEATURE__FEATURE_SPEECH,
                            RINGBACK__V1__FEATURE__FEATURE_DOCUMENT};
  size_t count = request->n_features ? 0 : FEATURES;
  unsigned seen = 0;
  for (size_t i = 0; i < request->n_features; i++) {
    int feature = (int)request->features[i];
    if (feature < 1 || feature > FEATURES)
      check_fail(&check, FIELD_AT(NULL, "features", i), "is %d; it must be 1 (media), 2 (speech) or 3 (document)",
                 feature);
    else if (seen & 1u << feature)
      check_fail(&check, FIELD_AT(NULL, "features", i), "is %d (%s) a second time; each feature may be named once",
                 feature, names[feature]);
    else
      features[count++] = feature;
    seen |= feature >= 1 && feature <= FEATURES ? 1u << feature : 0;
  }
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, bucket, arena_printf(rpc_arena(call), "bucket %s", request->bucket));
  store_activate(services_store(call), bucket, features, count, &settings_default, activate_done, context);
}

static uint64_t list_filter(const char *bucket) {
  return hash_text(hash_text(HASH_START, "ListQueues"), bucket);
}

static void list_done(void *data, const struct store_error *error, const struct store_queue *queues, size_t count) {
  struct queue_call *context = data;
  struct arena *arena = rpc_arena(context->call);
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__ListQueuesResponse response = RINGBACK__V1__LIST_QUEUES_RESPONSE__INIT;
  bool more = count > context->page_size;
  size_t shown = more ? context->page_size : count;
  response.queues = ARENA_ARRAY(arena, Ringback__V1__Queue *, shown + 1);
  for (size_t i = 0; i < shown; i++)
    response.queues[response.n_queues++] = convert_queue(arena, context->bucket, &queues[i]);
  if (more)
    response.next_page_token = page_token_write(arena, list_filter(context->bucket), queues[shown - 1].name);
  rpc_reply(context->call, &response.base);
}

static void list_queues(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__ListQueuesRequest *request = (const Ringback__V1__ListQueuesRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  const char *bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  int64_t page_size =
      check_range_or(&check, FIELD(NULL, "page_size"), request->page_size, 1, PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT);
  const char *after = page_token_read(check.arena, list_filter(bucket), request->page_token);
  if (!after)
    check_fail(&check, FIELD(NULL, "page_token"), "is no next_page_token of this list; leave it empty to begin anew");
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, bucket, arena_printf(rpc_arena(call), "bucket %s", request->bucket));
  context->page_size = (size_t)page_size;
  store_list_queues(services_store(call), bucket, after, context->page_size + 1, list_done, context);
}

/* --- PurgeQueue and DeleteQueue --- */

static void purge_done(void *data, const struct store_error *error, int64_t count) {
  struct queue_call *context = data;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__PurgeQueueResponse response = RINGBACK__V1__PURGE_QUEUE_RESPONSE__INIT;
  response.purged_count = count;
  rpc_reply(context->call, &response.base);
}

static void purge_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__PurgeQueueRequest *request = (const Ringback__V1__PurgeQueueRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct queue_name name = check_queue(&check, FIELD(NULL, "name"), request->name);
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, name.bucket, queue_phrase(call, request->name));
  store_purge_queue(services_store(call), name.bucket, name.queue, purge_done, context);
}

static void delete_done(void *data, const struct store_error *error, int64_t count) {
  struct queue_call *context = data;
  (void)count;
  if (status_failed(context->call, error, context->what, NULL))
    return;
  Ringback__V1__DeleteQueueResponse response = RINGBACK__V1__DELETE_QUEUE_RESPONSE__INIT;
  rpc_reply(context->call, &response.base);
}

static void delete_queue(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__DeleteQueueRequest *request = (const Ringback__V1__DeleteQueueRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct queue_name name = check_queue(&check, FIELD(NULL, "name"), request->name);
  if (status_refuse(call, &check))
    return;
  struct queue_call *context = begin(call, name.bucket, queue_phrase(call, request->name));
  store_delete_queue(services_store(call), name.bucket, name.queue, request->force, delete_done, context);
}

static const struct rpc_method methods[] = {
    {.name = "ActivateFeatures", .start = activate_features},
    {.name = "CreateQueue", .start = create_queue},
    {.name = "GetQueue", .start = get_queue},
    {.name = "ListQueues", .start = list_queues},
    {.name = "UpdateQueue", .start = update_queue},
    {.name = "PauseQueue", .start = pause_queue},
    {.name = "ResumeQueue", .start = resume_queue},
    {.name = "PurgeQueue", .start = purge_queue},
    {.name = "DeleteQueue", .start = delete_queue},
    {.name = NULL},
};

const struct rpc_service queue_service = {&ringback__v1__queue_service__descriptor, methods};
