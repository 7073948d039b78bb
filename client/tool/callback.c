/*
 * The commands about callbacks: a queue's rule, a test, and what became of the deliveries.
 */
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/messages.h"
#include "client/tool/output.h"
#include "client/tool/values.h"
#include "ringback/v1/callback.pb-c.h"
#include <string.h>

#define LIST_LIMIT_DEFAULT 50
#define LIST_PAGE 100
#define SECRETS_MAX 5
#define HEADERS_MAX 20
#define HEADER_NAME_SIZE 128
#define WAITS_MAX 20
#define RULE_PATHS_MAX 12
#define STATES_MAX 8
#define PHASE_SIZE 32

const char *const callback_error_classes[CALLBACK_ERROR_CLASSES_MAX + 1] = {"dns",
                                                                            "connect_refused",
                                                                            "connect_timeout",
                                                                            "tls",
                                                                            "reset",
                                                                            "timeout",
                                                                            "status_4xx",
                                                                            "status_429",
                                                                            "status_5xx",
                                                                            "redirect",
                                                                            "gone",
                                                                            "blocked_address",
                                                                            "response_too_large",
                                                                            "cancelled",
                                                                            "too_old",
                                                                            "crash_loop",
                                                                            NULL};

/* In the order of the enum, which begins at 1. */
const char *const callback_formats[] = {"seed", "current", "json", NULL};

static const char *const delivery_states[] = {"pending", "sending", "delivered", "dead", "suppressed", NULL};

const struct option_row callback_set_options[] = {
    {.name = "url", .letter = 'u', .kind = OPTION_TEXT, .value = "URL", .help = "where to call back: http or https"},
    {.name = "secret",
     .letter = 's',
     .kind = OPTION_TEXT,
     .repeatable = true,
     .value = "whsec_...",
     .help = "sign with this; several: newest first, every one signs"},
    {.name = "no-secrets", .kind = OPTION_FLAG, .help = "sign no more"},
    {.name = "callback-timeout",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "how long one attempt may take (15s)"},
    {.name = "format",
     .kind = OPTION_CHOICE,
     .value = "FORMAT",
     .help = "the body: XML in the seed's or the current shape, or JSON (seed)",
     .choices = callback_formats},
    {.name = "concurrency",
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "at most so many under way at once (32)",
     .low = 1,
     .high = 256},
    {.name = "header",
     .kind = OPTION_TEXT,
     .repeatable = true,
     .value = "NAME:VALUE",
     .help = "send this header along; replaces those that were set"},
    {.name = "no-headers", .kind = OPTION_FLAG, .help = "send no headers along"},
    {.name = "schedule",
     .kind = OPTION_TEXT,
     .value = "5s,30s,...",
     .help = "waits after each failed attempt, the last one repeating; `default`"},
    {.name = "max-age", .kind = OPTION_DURATION, .value = "DURATION", .help = "give a callback up after this (72h)"},
    {.name = "off", .kind = OPTION_FLAG, .help = "set, but do not switch on"},
    {.name = "etag", .kind = OPTION_TEXT, .value = "ETAG", .help = "change nothing unless this is the current one"},
    {.name = NULL},
};

const struct option_row callback_rotate_options[] = {
    {.name = "overlap",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "how long the old secrets go on to sign (24h)"},
    {.name = NULL},
};

const struct option_row callback_off_options[] = {
    {.name = "delete", .kind = OPTION_FLAG, .help = "forget the URL and secrets too, and drop what waits"},
    {.name = NULL},
};

const struct option_row callback_deliveries_options[] = {
    {.name = "state",
     .kind = OPTION_CHOICE,
     .repeatable = true,
     .value = "STATE",
     .help = "only those in this state",
     .choices = delivery_states},
    {.name = "error-class",
     .kind = OPTION_CHOICE,
     .repeatable = true,
     .value = "CLASS",
     .help = "only those whose last attempt failed so",
     .choices = callback_error_classes},
    {.name = "job", .kind = OPTION_TEXT, .value = "ID", .help = "only this job's"},
    {.name = "since", .kind = OPTION_TIME, .value = "TIME", .help = "created at this time or later"},
    {.name = "until", .kind = OPTION_TIME, .value = "TIME", .help = "created before this time"},
    {.name = "limit",
     .letter = 'n',
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "at most so many (50); 0 for all",
     .high = 1000000000},
    {.name = NULL},
};

static void show_rule(struct tool *tool, const ProtobufCMessage *response, const Ringback__V1__CallbackRule *rule) {
  if (tool->json) {
    tool_print_json(response);
    return;
  }
  if (rule == NULL)
    return;
  output_field(tool, "Queue", "%s", rule->queue);
  output_field(tool, "State", "%s",
               output_state(tool, output_word(&ringback__v1__callback_rule_state__descriptor, (int)rule->state)));
  output_field(tool, "Reason", "%s", rule->off_reason);
  output_field(tool, "URL", "%s", rule->url[0] != '\0' ? rule->url : "-");
  if (rule->format >= 1 && rule->format <= 3)
    output_field(tool, "Format", "%s", callback_formats[rule->format - 1]);
  output_field(tool, "Secrets", "%d", rule->secret_count);
  output_field(tool, "Timeout", "%s", message_show_duration(rule->timeout));
  output_field(tool, "Concurrency", "%d", rule->concurrency);
  for (size_t i = 0; i < rule->n_headers; i++)
    output_field(tool, "Header", "%s", rule->headers[i]->name);
  for (size_t i = 0; i < rule->n_schedule; i++)
    output_field(tool, i == 0 ? "Schedule" : " ", "%s", message_show_duration(rule->schedule[i]));
  if (rule->max_age != NULL)
    output_field(tool, "Max age", "%s", message_show_duration(rule->max_age));
  output_field(tool, "Updated", "%s", message_show_time(rule->update_time));
  output_field(tool, "Etag", "%s", rule->etag);
}

static int update_rule(struct tool *tool, Ringback__V1__CallbackRule *rule, char **paths, size_t path_count) {
  Ringback__V1__UpdateCallbackRuleRequest request = RINGBACK__V1__UPDATE_CALLBACK_RULE_REQUEST__INIT;
  Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
  mask.paths = paths;
  mask.n_paths = path_count;
  request.rule = rule;
  request.update_mask = &mask;
  int status = TOOL_OK;
  Ringback__V1__UpdateCallbackRuleResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/UpdateCallbackRule", &request.base, &status);
  if (response == NULL)
    return status;
  show_rule(tool, &response->base, response->rule);
  ringback_free(&response->base);
  return TOOL_OK;
}

/* What the options of `callback set` describe, with the storage that the rule points into. */
struct rule_storage {
  Ringback__V1__CallbackHeader headers[HEADERS_MAX], *header_list[HEADERS_MAX];
  Google__Protobuf__Duration waits[WAITS_MAX], *wait_list[WAITS_MAX], timeout, max_age;
  char names[HEADERS_MAX][HEADER_NAME_SIZE];
};

static bool read_headers(struct tool *tool, Ringback__V1__CallbackRule *rule, struct rule_storage *storage) {
  size_t position = 0;
  rule->headers = storage->header_list;
  for (const char *text; (text = tool_next_text(tool, "header", &position)) != NULL;) {
    size_t name = strcspn(text, ":");
    if (text[name] == '\0' || name >= HEADER_NAME_SIZE || rule->n_headers == HEADERS_MAX) {
      tool_error("--header: \"%s\" is not NAME:VALUE, or there are more than %d", text, HEADERS_MAX);
      return false;
    }
    Ringback__V1__CallbackHeader *header = &storage->headers[rule->n_headers];
    ringback__v1__callback_header__init(header);
    snprintf(storage->names[rule->n_headers], HEADER_NAME_SIZE, "%.*s", (int)name, text);
    header->name = storage->names[rule->n_headers];
    header->value = (char *)text + name + 1 + strspn(text + name + 1, " ");
    storage->header_list[rule->n_headers++] = header;
  }
  return true;
}

static bool read_schedule(struct tool *tool, Ringback__V1__CallbackRule *rule, struct rule_storage *storage) {
  const char *text = tool_text(tool, "schedule", "default");
  rule->schedule = storage->wait_list;
  if (strcmp(text, "default") == 0)
    return true;
  for (size_t length; *text != '\0'; text += length + (text[length] == ',')) {
    char part[32];
    int64_t ms;
    length = strcspn(text, ",");
    snprintf(part, sizeof part, "%.*s", (int)(length < sizeof part ? length : sizeof part - 1), text);
    if (rule->n_schedule == WAITS_MAX || !value_parse_duration(part, &ms)) {
      tool_error("--schedule: \"%s\" is no duration, or there are more than %d", part, WAITS_MAX);
      return false;
    }
    Google__Protobuf__Duration *wait = &storage->waits[rule->n_schedule];
    google__protobuf__duration__init(wait);
    wait->seconds = ms / 1000;
    wait->nanos = (int32_t)(ms % 1000 * 1000000);
    storage->wait_list[rule->n_schedule++] = wait;
  }
  return true;
}

int command_callback_set(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__CallbackRule rule = RINGBACK__V1__CALLBACK_RULE__INIT;
  struct rule_storage storage;
  char *paths[RULE_PATHS_MAX], *secrets[SECRETS_MAX];
  size_t path_count = 0, position = 0;
  rule.queue = tool_queue_name(tool, argv[0]);
  rule.etag = (char *)tool_text(tool, "etag", "");
  rule.secrets = secrets;
  for (const char *secret; (secret = tool_next_text(tool, "secret", &position)) != NULL;) {
    if (rule.n_secrets == SECRETS_MAX) {
      tool_error("--secret: at most %d", SECRETS_MAX);
      return TOOL_USAGE;
    }
    secrets[rule.n_secrets++] = (char *)secret;
  }
  if (rule.queue == NULL)
    return TOOL_USAGE;
  if (rule.n_secrets > 0 && tool_given(tool, "no-secrets")) {
    tool_error("--secret and --no-secrets exclude each other");
    return TOOL_USAGE;
  }
  rule.state = tool_given(tool, "off") ? RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF
                                       : RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_ON;
  paths[path_count++] = (char *)"state";
  if (tool_given(tool, "url")) {
    rule.url = (char *)tool_text(tool, "url", "");
    paths[path_count++] = (char *)"url";
  }
  if (rule.n_secrets > 0 || tool_given(tool, "no-secrets"))
    paths[path_count++] = (char *)"secrets";
  for (int i = 0; tool_given(tool, "format") && callback_formats[i] != NULL; i++)
    if (strcmp(callback_formats[i], tool_text(tool, "format", "")) == 0)
      rule.format = (Ringback__V1__CallbackFormat)(i + 1);
  if (tool_given(tool, "format"))
    paths[path_count++] = (char *)"format";
  if (!read_headers(tool, &rule, &storage) || !read_schedule(tool, &rule, &storage))
    return TOOL_USAGE;
  if (rule.n_headers > 0 || tool_given(tool, "no-headers"))
    paths[path_count++] = (char *)"headers";
  if (tool_given(tool, "schedule"))
    paths[path_count++] = (char *)"schedule";
  rule.concurrency = (int32_t)tool_number(tool, "concurrency", 0);
  if (tool_given(tool, "concurrency"))
    paths[path_count++] = (char *)"concurrency";
  rule.max_age = message_duration(tool, "max-age", &storage.max_age);
  if (rule.max_age != NULL)
    paths[path_count++] = (char *)"max_age";
  rule.timeout = message_duration(tool, "callback-timeout", &storage.timeout);
  if (rule.timeout != NULL)
    paths[path_count++] = (char *)"timeout";
  return update_rule(tool, &rule, paths, path_count);
}

int command_callback_show(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__GetCallbackRuleRequest request = RINGBACK__V1__GET_CALLBACK_RULE_REQUEST__INIT;
  request.queue = tool_queue_name(tool, argv[0]);
  if (request.queue == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__GetCallbackRuleResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/GetCallbackRule", &request.base, &status);
  if (response == NULL)
    return status;
  show_rule(tool, &response->base, response->rule);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_callback_rotate(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__RotateSigningSecretRequest request = RINGBACK__V1__ROTATE_SIGNING_SECRET_REQUEST__INIT;
  Google__Protobuf__Duration overlap;
  request.queue = tool_queue_name(tool, argv[0]);
  if (request.queue == NULL)
    return TOOL_USAGE;
  request.overlap = message_duration(tool, "overlap", &overlap);
  int status = TOOL_OK;
  Ringback__V1__RotateSigningSecretResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/RotateSigningSecret", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s\n", response->secret);
  ringback_free(&response->base);
  return TOOL_OK;
}

static int delete_rule(struct tool *tool, char *queue) {
  Ringback__V1__DeleteCallbackRuleRequest request = RINGBACK__V1__DELETE_CALLBACK_RULE_REQUEST__INIT;
  request.queue = queue;
  int status = TOOL_OK;
  Ringback__V1__DeleteCallbackRuleResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/DeleteCallbackRule", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s calls nobody back\n", message_queue_short(queue));
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_callback_off(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__CallbackRule rule = RINGBACK__V1__CALLBACK_RULE__INIT;
  char *paths[] = {(char *)"state"};
  rule.queue = tool_queue_name(tool, argv[0]);
  rule.state = RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF;
  if (rule.queue == NULL)
    return TOOL_USAGE;
  return tool_given(tool, "delete") ? delete_rule(tool, rule.queue) : update_rule(tool, &rule, paths, 1);
}

static const char *delivery_state(const struct tool *tool, const Ringback__V1__Delivery *delivery) {
  return output_state(tool, output_word(&ringback__v1__delivery_state__descriptor, (int)delivery->state));
}

static void show_delivery(struct tool *tool, const Ringback__V1__Delivery *delivery) {
  output_field(tool, "Delivery", "%s", delivery->id);
  output_field(tool, "State", "%s", delivery_state(tool, delivery));
  output_field(tool, "URL", "%s", delivery->url);
  if (delivery->http_status != 0)
    output_field(tool, "Answer", "%d", delivery->http_status);
  if (delivery->error_class[0] != '\0')
    output_field(tool, "Error", "%s: %s", delivery->error_class, delivery->error_message);
  if (delivery->last_attempt_duration != NULL)
    output_field(tool, "Took", "%s", message_show_duration(delivery->last_attempt_duration));
}

/* Milliseconds into text, which is returned; a phase that did not take place is "-". */
static const char *show_phase(const Google__Protobuf__Duration *duration, char text[PHASE_SIZE]) {
  if (duration == NULL)
    return "-";
  snprintf(text, PHASE_SIZE, "%.1f", (double)duration->seconds * 1000 + duration->nanos / 1e6);
  return text;
}

static void show_attempts(struct tool *tool, const Ringback__V1__Delivery *delivery) {
  static const char *const headings[] = {">ATTEMPT",    "AT",      "ADDRESS",        ">ANSWER",   "ERROR", ">DNS MS",
                                         ">CONNECT MS", ">TLS MS", ">FIRST BYTE MS", ">TOTAL MS", "NEXT",  "WHY"};
  if (delivery->n_attempt_log == 0)
    return;
  struct table *table = table_create(12, headings);
  for (size_t i = 0; i < delivery->n_attempt_log; i++) {
    const Ringback__V1__DeliveryAttempt *attempt = delivery->attempt_log[i];
    char dns[PHASE_SIZE], connect[PHASE_SIZE], tls[PHASE_SIZE], first[PHASE_SIZE], total[PHASE_SIZE];
    bool again = attempt->next_attempt_time != NULL;
    table_add(table, output_number(attempt->number), message_show_time(attempt->start_time), attempt->address,
              attempt->http_status == 0 ? "" : output_number(attempt->http_status), attempt->error_class,
              show_phase(attempt->dns_duration, dns), show_phase(attempt->connect_duration, connect),
              show_phase(attempt->tls_duration, tls), show_phase(attempt->first_byte_duration, first),
              show_phase(attempt->total_duration, total), again ? message_show_time(attempt->next_attempt_time) : "",
              again ? output_word(&ringback__v1__next_attempt_reason__descriptor, (int)attempt->next_attempt_reason)
                    : "");
  }
  printf("\n");
  table_print(tool, table, true);
}

int command_callback_show_delivery(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__GetDeliveryRequest request = RINGBACK__V1__GET_DELIVERY_REQUEST__INIT;
  request.bucket = tool_bucket_name(tool, NULL);
  request.id = argv[0];
  if (request.bucket == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__GetDeliveryResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/GetDelivery", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json) {
    tool_print_json(&response->base);
  } else if (response->delivery != NULL) {
    const Ringback__V1__Delivery *delivery = response->delivery;
    show_delivery(tool, delivery);
    output_field(tool, "Queue", "%s", delivery->queue);
    output_field(tool, "Job", "%s", delivery->job_id);
    output_field(tool, "Created", "%s", message_show_time(delivery->create_time));
    if (delivery->next_attempt_time != NULL)
      output_field(tool, "Next", "%s", message_show_time(delivery->next_attempt_time));
    show_attempts(tool, delivery);
  }
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_callback_test(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__SendTestCallbackRequest request = RINGBACK__V1__SEND_TEST_CALLBACK_REQUEST__INIT;
  request.queue = tool_queue_name(tool, argv[0]);
  if (request.queue == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__SendTestCallbackResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/SendTestCallback", &request.base, &status);
  if (response == NULL)
    return status;
  bool delivered =
      response->delivery != NULL && response->delivery->state == RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_DELIVERED;
  if (tool->json) {
    tool_print_json(&response->base);
  } else if (response->delivery != NULL) {
    show_delivery(tool, response->delivery);
    show_attempts(tool, response->delivery);
  }
  ringback_free(&response->base);
  return delivered ? TOOL_OK : TOOL_FAILED;
}

static void list_add(struct tool *tool, struct table *table, const Ringback__V1__Delivery *delivery) {
  table_add(table, delivery->id, delivery_state(tool, delivery), output_number(delivery->attempts),
            delivery->http_status == 0 ? "" : output_number(delivery->http_status), delivery->error_class,
            message_show_age(delivery->create_time), message_show_time(delivery->next_attempt_time), delivery->url);
}

size_t callback_given_error_classes(const struct tool *tool, char *classes[CALLBACK_ERROR_CLASSES_MAX]) {
  size_t count = 0, position = 0;
  for (const char *class;
       count < CALLBACK_ERROR_CLASSES_MAX && (class = tool_next_text(tool, "error-class", &position)) != NULL;)
    classes[count++] = (char *)class;
  return count;
}

static int delivery_state_number(const char *text) {
  for (int i = 0; delivery_states[i] != NULL; i++)
    if (strcmp(delivery_states[i], text) == 0)
      return i + 1; /* the choices stand in the order of the enum, which begins at 1 */
  return 0;
}

int command_callback_deliveries(struct tool *tool, int argc, char **argv) {
  static const char *const headings[] = {"DELIVERY", "STATE", ">ATTEMPTS", ">ANSWER", "ERROR", "AGE", "NEXT", "URL"};
  (void)argc;
  Ringback__V1__ListDeliveriesRequest request = RINGBACK__V1__LIST_DELIVERIES_REQUEST__INIT;
  Ringback__V1__DeliveryState states[STATES_MAX];
  size_t position = 0;
  request.queue = tool_queue_name(tool, argv[0]);
  if (request.queue == NULL)
    return TOOL_USAGE;
  request.job_id = (char *)tool_text(tool, "job", "");
  char *classes[CALLBACK_ERROR_CLASSES_MAX];
  Google__Protobuf__Timestamp since, until;
  request.error_classes = classes;
  request.start_create_time = message_time(tool, "since", &since);
  request.end_create_time = message_time(tool, "until", &until);
  request.n_error_classes = callback_given_error_classes(tool, classes);
  request.states = states;
  for (const char *state; (state = tool_next_text(tool, "state", &position)) != NULL && request.n_states < STATES_MAX;)
    states[request.n_states++] = (Ringback__V1__DeliveryState)delivery_state_number(state);
  int64_t left = tool_number(tool, "limit", LIST_LIMIT_DEFAULT);
  bool all = left == 0;
  struct table *table = tool->json ? NULL : table_create(8, headings);
  json_t *json = NULL;
  Ringback__V1__ListDeliveriesResponse *page = NULL;
  int status = TOOL_OK;
  do {
    request.page_size = all || left > LIST_PAGE ? LIST_PAGE : (int32_t)left;
    Ringback__V1__ListDeliveriesResponse *next =
        tool_call(tool, "/ringback.v1.CallbackService/ListDeliveries", &request.base, &status);
    ringback_free(page == NULL ? NULL : &page->base); /* it held the token that was just sent */
    page = next;
    if (page == NULL)
      break;
    if (tool->json)
      message_join_pages(&json, &page->base, "deliveries");
    for (size_t i = 0; table != NULL && i < page->n_deliveries; i++)
      list_add(tool, table, page->deliveries[i]);
    left -= (int64_t)page->n_deliveries;
    request.page_token = page->next_page_token;
  } while (page->next_page_token[0] != '\0' && (all || left > 0));
  if (table != NULL)
    table_print(tool, table, status == TOOL_OK);
  if (json != NULL)
    json_print(json);
  ringback_free(page == NULL ? NULL : &page->base);
  return status;
}
