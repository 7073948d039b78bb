/*
 * The commands about queues: making them, showing them with their counts, changing, pausing, emptying and deleting
 * them.
 */
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/messages.h"
#include "client/tool/output.h"
#include "client/tool/safe.h"
#include "ringback/v1/queue.pb-c.h"
#include <string.h>

#define SETTINGS_OPTIONS                                                                                               \
  {.name = "max-size",                                                                                                 \
   .kind = OPTION_INTEGER,                                                                                             \
   .value = "N",                                                                                                       \
   .help = "how many jobs may wait (1000000)",                                                                         \
   .low = 1,                                                                                                           \
   .high = 100000000},                                                                                                 \
      {.name = "max-concurrent",                                                                                       \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "how many jobs may run at once (10000)",                                                                \
       .low = 1,                                                                                                       \
       .high = 1000000},                                                                                               \
      {.name = "lease", .kind = OPTION_DURATION, .value = "DURATION", .help = "how long a lease lasts (1m)"},          \
      {.name = "max-attempts",                                                                                         \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "attempts of a job in all (5)",                                                                         \
       .low = 1,                                                                                                       \
       .high = 100},                                                                                                   \
      {.name = "min-backoff",                                                                                          \
       .kind = OPTION_DURATION,                                                                                        \
       .value = "DURATION",                                                                                            \
       .help = "the wait after the first failure; it doubles (5s)"},                                                   \
      {.name = "max-backoff", .kind = OPTION_DURATION, .value = "DURATION", .help = "the longest wait (10m)"},         \
      {.name = "retention-age",                                                                                        \
       .kind = OPTION_DURATION,                                                                                        \
       .value = "DURATION",                                                                                            \
       .help = "how long ended jobs stay readable (3d)"},                                                              \
      {.name = "retention-count",                                                                                      \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "how many ended jobs stay (100000)",                                                                    \
       .low = 1,                                                                                                       \
       .high = 100000000},                                                                                             \
  {                                                                                                                    \
    .name = "idempotency-window", .kind = OPTION_DURATION, .value = "DURATION",                                        \
    .help = "how long a request id is remembered (10m)"                                                                \
  }

const struct option_row activate_options[] = {{.name = NULL}};

const struct option_row queue_create_options[] = {
    {.name = "feature",
     .letter = 'f',
     .kind = OPTION_CHOICE,
     .value = "FEATURE",
     .help = "what its jobs are for (media)",
     .choices = feature_choices},
    {.name = "head-start",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "a level of priority counts as having waited this much longer; without it priority is strict"},
    SETTINGS_OPTIONS,
    {.name = NULL},
};

const struct option_row queue_list_options[] = {
    {.name = "names", .kind = OPTION_FLAG, .help = "only the names, one a line"},
    {.name = NULL},
};

const struct option_row queue_update_options[] = {
    SETTINGS_OPTIONS,
    {.name = "etag", .kind = OPTION_TEXT, .value = "ETAG", .help = "change nothing unless this is the current one"},
    {.name = NULL},
};

const struct option_row queue_delete_options[] = {
    {.name = "force", .kind = OPTION_FLAG, .help = "even when jobs wait or run or callbacks are open"},
    {.name = NULL},
};

static const char *queue_state(const struct tool *tool, const Ringback__V1__Queue *queue) {
  return output_state(tool, output_word(&ringback__v1__queue_state__descriptor, (int)queue->state));
}

static void show_queue(struct tool *tool, const Ringback__V1__Queue *queue) {
  const Ringback__V1__QueueCounts *counts = queue->counts;
  const Ringback__V1__RetryPolicy *retry = queue->retry_policy;
  output_field(tool, "Name", "%s", queue->name);
  output_field(tool, "Id", "%s", queue->queue_id);
  output_field(tool, "Feature", "%s%s", message_feature_word(queue->feature),
               queue->feature_default ? " (its default)" : "");
  output_field(tool, "State", "%s", queue_state(tool, queue));
  if (queue->ordering != NULL && queue->ordering->head_start != NULL)
    output_field(tool, "Order", "head start of %s a level", message_show_duration(queue->ordering->head_start));
  else
    output_field(tool, "Order", "strict priority");
  if (counts != NULL) {
    output_field(tool, "Waiting", "%lld%s%s", (long long)counts->waiting,
                 counts->oldest_waiting_age == NULL ? "" : ", the oldest for ",
                 counts->oldest_waiting_age == NULL ? "" : message_show_duration(counts->oldest_waiting_age));
    output_field(tool, "Delayed", "%lld", (long long)counts->delayed);
    output_field(tool, "Running", "%lld", (long long)counts->running);
    output_field(tool, "Success", "%lld", (long long)counts->success);
    output_field(tool, "Failed", "%lld", (long long)counts->failed);
    output_field(tool, "Cancel", "%lld", (long long)counts->cancel);
  }
  output_field(tool, "Max size", "%lld", (long long)queue->max_size);
  output_field(tool, "Max concurrent", "%lld", (long long)queue->max_concurrent);
  output_field(tool, "Lease", "%s", message_show_duration(queue->default_lease));
  if (retry != NULL)
    output_field(tool, "Attempts", "%d, backoff %s to %s", retry->max_attempts,
                 message_show_duration(retry->min_backoff), message_show_duration(retry->max_backoff));
  if (queue->retention != NULL)
    output_field(tool, "Retention", "%s, %lld jobs", message_show_duration(queue->retention->max_age),
                 (long long)queue->retention->max_count);
  output_field(tool, "Request ids", "%s", message_show_duration(queue->idempotency_window));
  output_field(tool, "Created", "%s", message_show_time(queue->create_time));
  output_field(tool, "Updated", "%s", message_show_time(queue->update_time));
  output_field(tool, "Etag", "%s", queue->etag);
}

static struct table *queue_table(void) {
  static const char *const headings[] = {"QUEUE",    "FEATURE",  "STATE",   ">WAITING", ">DELAYED",
                                         ">RUNNING", ">SUCCESS", ">FAILED", ">CANCEL",  "OLDEST"};
  return table_create(10, headings);
}

static void queue_table_add(struct tool *tool, struct table *table, const Ringback__V1__Queue *queue) {
  static const Ringback__V1__QueueCounts none = RINGBACK__V1__QUEUE_COUNTS__INIT;
  const Ringback__V1__QueueCounts *counts = queue->counts != NULL ? queue->counts : &none;
  table_add(table, message_queue_short(queue->name), message_feature_word(queue->feature), queue_state(tool, queue),
            output_number(counts->waiting), output_number(counts->delayed), output_number(counts->running),
            output_number(counts->success), output_number(counts->failed), output_number(counts->cancel),
            message_show_duration(counts->oldest_waiting_age));
}

int command_activate(struct tool *tool, int argc, char **argv) {
  Ringback__V1__ActivateFeaturesRequest request = RINGBACK__V1__ACTIVATE_FEATURES_REQUEST__INIT;
  Ringback__V1__Feature features[3];
  request.features = features;
  request.bucket = tool_bucket_name(tool, NULL);
  for (int i = 0; i < argc; i++) {
    features[request.n_features++] = message_feature(argv[i]);
    if (features[i] == RINGBACK__V1__FEATURE__FEATURE_UNSPECIFIED) {
      tool_error("\"%s\" is none of media, speech, document", argv[i]);
      return TOOL_USAGE;
    }
  }
  if (request.bucket == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__ActivateFeaturesResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/ActivateFeatures", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json) {
    tool_print_json(&response->base);
  } else {
    struct table *table = queue_table();
    for (size_t i = 0; i < response->n_queues; i++)
      queue_table_add(tool, table, response->queues[i]);
    table_print(tool, table, true);
  }
  ringback_free(&response->base);
  return TOOL_OK;
}

/* A queue as the options describe it, with everything that it points to. */
struct queue_settings {
  Ringback__V1__Queue queue;
  Ringback__V1__Ordering ordering;
  Ringback__V1__RetryPolicy retry;
  Ringback__V1__Retention retention;
  Google__Protobuf__Duration head_start, lease, min_backoff, max_backoff, max_age, window;
};

static void read_settings(const struct tool *tool, struct queue_settings *settings) {
  Ringback__V1__Queue *queue = &settings->queue;
  ringback__v1__queue__init(queue);
  ringback__v1__retry_policy__init(&settings->retry);
  ringback__v1__retention__init(&settings->retention);
  queue->max_size = tool_number(tool, "max-size", 0);
  queue->max_concurrent = tool_number(tool, "max-concurrent", 0);
  queue->default_lease = message_duration(tool, "lease", &settings->lease);
  queue->idempotency_window = message_duration(tool, "idempotency-window", &settings->window);
  settings->retry.max_attempts = (int32_t)tool_number(tool, "max-attempts", 0);
  settings->retry.min_backoff = message_duration(tool, "min-backoff", &settings->min_backoff);
  settings->retry.max_backoff = message_duration(tool, "max-backoff", &settings->max_backoff);
  settings->retention.max_age = message_duration(tool, "retention-age", &settings->max_age);
  settings->retention.max_count = tool_number(tool, "retention-count", 0);
  queue->retry_policy = &settings->retry;
  queue->retention = &settings->retention;
}

static int print_queue(struct tool *tool, const ProtobufCMessage *response, const Ringback__V1__Queue *queue) {
  if (tool->json)
    tool_print_json(response);
  else if (queue != NULL)
    show_queue(tool, queue);
  return TOOL_OK;
}

int command_queue_create(struct tool *tool, int argc, char **argv) {
  (void)argc;
  struct queue_settings settings;
  read_settings(tool, &settings);
  Ringback__V1__Queue *queue = &settings.queue;
  queue->name = tool_queue_name(tool, argv[0]);
  if (queue->name == NULL)
    return TOOL_USAGE;
  queue->feature = message_feature(tool_text(tool, "feature", "media"));
  ringback__v1__ordering__init(&settings.ordering);
  settings.ordering.head_start = message_duration(tool, "head-start", &settings.head_start);
  if (settings.ordering.head_start != NULL)
    queue->ordering = &settings.ordering;
  Ringback__V1__CreateQueueRequest request = RINGBACK__V1__CREATE_QUEUE_REQUEST__INIT;
  request.queue = queue;
  int status = TOOL_OK;
  Ringback__V1__CreateQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/CreateQueue", &request.base, &status);
  if (response == NULL)
    return status;
  print_queue(tool, &response->base, response->queue);
  ringback_free(&response->base);
  return TOOL_OK;
}

static void list_page(struct tool *tool, const Ringback__V1__ListQueuesResponse *page, struct table *table,
                      json_t **json) {
  if (tool->json) {
    message_join_pages(json, &page->base, "queues");
    return;
  }
  for (size_t i = 0; i < page->n_queues; i++) {
    if (table == NULL)
      puts(safe_text(message_queue_short(page->queues[i]->name)));
    else
      queue_table_add(tool, table, page->queues[i]);
  }
}

int command_queue_list(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  Ringback__V1__ListQueuesRequest request = RINGBACK__V1__LIST_QUEUES_REQUEST__INIT;
  request.bucket = tool_bucket_name(tool, NULL);
  if (request.bucket == NULL)
    return TOOL_USAGE;
  request.page_size = 100;
  struct table *table = tool_given(tool, "names") || tool->json ? NULL : queue_table();
  json_t *json = NULL;
  Ringback__V1__ListQueuesResponse *page = NULL;
  int status = TOOL_OK;
  do {
    Ringback__V1__ListQueuesResponse *next =
        tool_call(tool, "/ringback.v1.QueueService/ListQueues", &request.base, &status);
    ringback_free(page == NULL ? NULL : &page->base); /* it held the token that was just sent */
    page = next;
    if (page == NULL)
      break;
    list_page(tool, page, table, &json);
    request.page_token = page->next_page_token;
  } while (page->next_page_token[0] != '\0');
  if (table != NULL)
    table_print(tool, table, status == TOOL_OK);
  if (json != NULL)
    json_print(json);
  ringback_free(page == NULL ? NULL : &page->base);
  return status;
}

int command_queue_show(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__GetQueueRequest request = RINGBACK__V1__GET_QUEUE_REQUEST__INIT;
  request.name = tool_queue_name(tool, argv[0]);
  if (request.name == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__GetQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/GetQueue", &request.base, &status);
  if (response == NULL)
    return status;
  print_queue(tool, &response->base, response->queue);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_queue_update(struct tool *tool, int argc, char **argv) {
  static const struct {
    const char *option;
    const char *path;
  } paths[] = {
      {"max-size", "max_size"},
      {"max-concurrent", "max_concurrent"},
      {"lease", "default_lease"},
      {"max-attempts", "retry_policy.max_attempts"},
      {"min-backoff", "retry_policy.min_backoff"},
      {"max-backoff", "retry_policy.max_backoff"},
      {"retention-age", "retention.max_age"},
      {"retention-count", "retention.max_count"},
      {"idempotency-window", "idempotency_window"},
  };
  (void)argc;
  struct queue_settings settings;
  read_settings(tool, &settings);
  settings.queue.name = tool_queue_name(tool, argv[0]);
  settings.queue.etag = (char *)tool_text(tool, "etag", "");
  if (settings.queue.name == NULL)
    return TOOL_USAGE;
  Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
  char *masked[sizeof paths / sizeof *paths];
  mask.paths = masked;
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    if (tool_given(tool, paths[i].option))
      masked[mask.n_paths++] = (char *)paths[i].path;
  if (mask.n_paths == 0) {
    tool_error("say what to change, such as --max-concurrent 4");
    return TOOL_USAGE;
  }
  Ringback__V1__UpdateQueueRequest request = RINGBACK__V1__UPDATE_QUEUE_REQUEST__INIT;
  request.queue = &settings.queue;
  request.update_mask = &mask;
  int status = TOOL_OK;
  Ringback__V1__UpdateQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/UpdateQueue", &request.base, &status);
  if (response == NULL)
    return status;
  print_queue(tool, &response->base, response->queue);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_queue_pause(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__PauseQueueRequest request = RINGBACK__V1__PAUSE_QUEUE_REQUEST__INIT;
  request.name = tool_queue_name(tool, argv[0]);
  if (request.name == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__PauseQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/PauseQueue", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s is paused\n", argv[0]);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_queue_resume(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__ResumeQueueRequest request = RINGBACK__V1__RESUME_QUEUE_REQUEST__INIT;
  request.name = tool_queue_name(tool, argv[0]);
  if (request.name == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__ResumeQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/ResumeQueue", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s is active\n", argv[0]);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_queue_purge(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__PurgeQueueRequest request = RINGBACK__V1__PURGE_QUEUE_REQUEST__INIT;
  request.name = tool_queue_name(tool, argv[0]);
  if (request.name == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__PurgeQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/PurgeQueue", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%lld jobs were cancelled\n", (long long)response->purged_count);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_queue_delete(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__DeleteQueueRequest request = RINGBACK__V1__DELETE_QUEUE_REQUEST__INIT;
  request.name = tool_queue_name(tool, argv[0]);
  request.force = tool_given(tool, "force");
  if (request.name == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__DeleteQueueResponse *response =
      tool_call(tool, "/ringback.v1.QueueService/DeleteQueue", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s is deleted\n", argv[0]);
  ringback_free(&response->base);
  return TOOL_OK;
}
