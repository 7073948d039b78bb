/*
 * The commands about callbacks' deliveries: a test, and what became of them.
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
#define STATES_MAX 8
#define PHASE_SIZE 32
#define HOLD_SIZE 80

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

static const char *const delivery_states[] = {"pending", "sending", "delivered", "dead", "suppressed", NULL};

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
    {.name = "since",
     .kind = OPTION_PAST,
     .value = "TIME|DURATION",
     .help = "created at this time, or so long ago, or later"},
    {.name = "until", .kind = OPTION_PAST, .value = "TIME|DURATION", .help = "created before this time"},
    {.name = "limit",
     .letter = 'n',
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "at most so many (50); 0 for all",
     .high = 1000000000},
    {.name = "page-token",
     .kind = OPTION_TEXT,
     .value = "TOKEN",
     .help = "go on where a list ended: the nextPageToken that --json shows, with the same other options"},
    {.name = NULL},
};

static const char *delivery_state(const struct tool *tool, const Ringback__V1__Delivery *delivery) {
  return output_state(tool, output_word(&ringback__v1__delivery_state__descriptor, (int)delivery->state));
}

static bool is_before(const Google__Protobuf__Timestamp *a, const Google__Protobuf__Timestamp *b) {
  return a->seconds != b->seconds ? a->seconds < b->seconds : a->nanos < b->nanos;
}

const char *callback_hold(const Ringback__V1__Delivery *delivery, const Ringback__V1__CallbackRule *rule) {
  static char text[HOLD_SIZE];
  const Google__Protobuf__Timestamp *next = delivery->next_attempt_time, *open = delivery->breaker_open_until;
  if (delivery->state != RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_PENDING || next == NULL)
    return "";
  bool is_test = strncmp(delivery->id, "cb_test_", 8) == 0;
  if (!delivery->own_url && !is_test && rule != NULL &&
      rule->state == RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF)
    return "rule off";
  if (!message_is_to_come(open) || !is_before(next, open))
    return "";
  snprintf(text, sizeof text, "breaker until %s", message_show_time(open));
  return text;
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

/* Line feeds and printable ASCII as they are, everything else as \xNN. */
static void show_response(const Ringback__V1__Delivery *delivery) {
  if (delivery->response.len == 0)
    return;
  printf("\n");
  for (size_t i = 0; i < delivery->response.len; i++) {
    unsigned char byte = delivery->response.data[i];
    if (byte == '\n' || (byte >= ' ' && byte <= '~'))
      putchar(byte);
    else
      printf("\\x%02x", byte);
  }
  printf("\n");
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

/* When the next attempt is made, or what holds it. */
static void show_next(struct tool *tool, const Ringback__V1__Delivery *delivery) {
  if (delivery->next_attempt_time == NULL)
    return;
  int status = TOOL_OK;
  Ringback__V1__GetCallbackRuleResponse *response = callback_get_rule(tool, delivery->queue, &status);
  const char *hold = callback_hold(delivery, response == NULL ? NULL : response->rule);
  output_field(tool, "Next", "%s", hold[0] != '\0' ? hold : message_show_time(delivery->next_attempt_time));
  ringback_free(response == NULL ? NULL : &response->base);
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
    show_next(tool, delivery);
    if (message_is_to_come(delivery->breaker_open_until))
      output_field(tool, "Breaker", "open until %s", message_show_time(delivery->breaker_open_until));
    show_attempts(tool, delivery);
    show_response(delivery);
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
    show_response(response->delivery);
  }
  ringback_free(&response->base);
  return delivered ? TOOL_OK : TOOL_FAILED;
}

static void list_add(struct tool *tool, struct table *table, const Ringback__V1__Delivery *delivery,
                     const Ringback__V1__CallbackRule *rule) {
  const char *hold = callback_hold(delivery, rule);
  table_add(table, delivery->id, delivery_state(tool, delivery), output_number(delivery->attempts),
            delivery->http_status == 0 ? "" : output_number(delivery->http_status), delivery->error_class,
            message_show_age(delivery->create_time),
            hold[0] != '\0' ? hold : message_show_time(delivery->next_attempt_time), delivery->url);
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
  request.page_token = (char *)tool_text(tool, "page-token", "");
  /* A rule that is off holds those that wait. */
  Ringback__V1__GetCallbackRuleResponse *rule = tool->json ? NULL : callback_get_rule(tool, request.queue, &status);
  if (status != TOOL_OK) {
    table_print(tool, table, false);
    return status;
  }
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
      list_add(tool, table, page->deliveries[i], rule->rule);
    left -= (int64_t)page->n_deliveries;
    request.page_token = page->next_page_token;
  } while (page->next_page_token[0] != '\0' && (all || left > 0));
  if (table != NULL)
    table_print(tool, table, status == TOOL_OK);
  if (table != NULL && page != NULL && page->next_page_token[0] != '\0') {
    fflush(stdout);
    fprintf(stderr, "ringback: there may be more; --limit N shows more, --limit 0 all\n");
  }
  if (json != NULL)
    json_print(json);
  ringback_free(page == NULL ? NULL : &page->base);
  ringback_free(rule == NULL ? NULL : &rule->base);
  return status;
}
