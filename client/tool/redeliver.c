/*
 * The command that sends callbacks again: by id, in calls of 250, or all dead ones of a queue that a filter selects,
 * from continuation to continuation until the server says that there is no more.
 */
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/messages.h"
#include "client/tool/output.h"
#include "ringback/v1/callback.pb-c.h"
#include <stdlib.h>
#include <string.h>

#define IDS_PER_CALL 250
#define TESTS_LOOKED_FOR 100

const struct option_row callback_redeliver_options[] = {
    {.name = "queue",
     .letter = 'q',
     .kind = OPTION_QUEUE,
     .value = "QUEUE",
     .help = "all dead callbacks of this queue, but not its test callbacks"},
    {.name = "error-class",
     .kind = OPTION_CHOICE,
     .repeatable = true,
     .value = "CLASS",
     .help = "only those whose last attempt failed so",
     .choices = callback_error_classes},
    {.name = "since",
     .kind = OPTION_PAST,
     .value = "TIME|DURATION",
     .help = "only those created at this time, or so long ago, or later"},
    {.name = "until", .kind = OPTION_PAST, .value = "TIME|DURATION", .help = "only those created before this time"},
    {.name = NULL},
};

/* What the calls together did. */
struct redelivery {
  int64_t count;
  int status;  /* the worst one */
  bool failed; /* a call as a whole did */
  bool dead_test;
  char *example; /* an id that was put back; NULL where none is known */
  json_t *results;
};

static Ringback__V1__RedeliverCallbacksResponse *redeliver_call(struct tool *tool, struct redelivery *redelivery,
                                                                Ringback__V1__RedeliverCallbacksRequest *request) {
  int status = TOOL_OK;
  Ringback__V1__RedeliverCallbacksResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/RedeliverCallbacks", &request->base, &status);
  if (response == NULL) {
    redelivery->status = status;
    redelivery->failed = true;
    return NULL;
  }
  redelivery->count += response->redelivered_count;
  output_progress(tool, "%lld put back", (long long)redelivery->count);
  for (size_t i = 0; i < response->n_results && i < request->n_ids; i++) {
    const Google__Rpc__Status *result = response->results[i];
    json_t *row = json_of_message(&result->base);
    json_object_set_new(row, "id", json_of_text(request->ids[i]));
    json_array_append_new(redelivery->results, row);
    status = tool->json ? tool_exit_status(result->code) : message_item_failed(request->ids[i], result);
    if (status != TOOL_OK)
      redelivery->status = status;
    else if (redelivery->example == NULL)
      redelivery->example = request->ids[i];
  }
  return response;
}

static void redeliver_ids(struct tool *tool, struct redelivery *redelivery, char *bucket, char **ids, size_t count) {
  for (size_t done = 0, step; done < count; done += step) {
    Ringback__V1__RedeliverCallbacksRequest request = RINGBACK__V1__REDELIVER_CALLBACKS_REQUEST__INIT;
    step = count - done < IDS_PER_CALL ? count - done : IDS_PER_CALL;
    request.bucket = bucket;
    request.ids = ids + done;
    request.n_ids = step;
    Ringback__V1__RedeliverCallbacksResponse *response = redeliver_call(tool, redelivery, &request);
    if (response == NULL)
      return;
    ringback_free(&response->base);
  }
}

/* Whether a test callback is among the dead that the filter means: it may be what somebody wanted to send again. */
static bool has_dead_test(struct tool *tool, const Ringback__V1__RedeliveryFilter *filter) {
  Ringback__V1__DeliveryState dead = RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_DEAD;
  Ringback__V1__ListDeliveriesRequest request = RINGBACK__V1__LIST_DELIVERIES_REQUEST__INIT;
  request.queue = filter->queue;
  request.states = &dead;
  request.n_states = 1;
  request.error_classes = filter->error_classes;
  request.n_error_classes = filter->n_error_classes;
  request.start_create_time = filter->start_create_time;
  request.end_create_time = filter->end_create_time;
  request.page_size = TESTS_LOOKED_FOR;
  int status = TOOL_OK;
  Ringback__V1__ListDeliveriesResponse *page =
      tool_call(tool, "/ringback.v1.CallbackService/ListDeliveries", &request.base, &status);
  bool found = false;
  for (size_t i = 0; page != NULL && i < page->n_deliveries; i++)
    found = found || strncmp(page->deliveries[i]->id, "cb_test_", 8) == 0;
  ringback_free(page == NULL ? NULL : &page->base);
  return found;
}

static void redeliver_dead(struct tool *tool, struct redelivery *redelivery, char *bucket, const char *queue) {
  Ringback__V1__RedeliverCallbacksRequest request = RINGBACK__V1__REDELIVER_CALLBACKS_REQUEST__INIT;
  Ringback__V1__RedeliveryFilter filter = RINGBACK__V1__REDELIVERY_FILTER__INIT;
  Google__Protobuf__Timestamp since, until;
  char *classes[CALLBACK_ERROR_CLASSES_MAX];
  filter.queue = tool_queue_name(tool, queue);
  if (filter.queue == NULL) {
    redelivery->status = TOOL_USAGE;
    return;
  }
  filter.error_classes = classes;
  filter.n_error_classes = callback_given_error_classes(tool, classes);
  filter.start_create_time = message_time(tool, "since", &since);
  filter.end_create_time = message_time(tool, "until", &until);
  request.bucket = bucket;
  request.filter = &filter;
  Ringback__V1__RedeliverCallbacksResponse *page = NULL;
  do {
    Ringback__V1__RedeliverCallbacksResponse *next = redeliver_call(tool, redelivery, &request);
    ringback_free(page == NULL ? NULL : &page->base); /* it held the token that was just sent */
    page = next;
    if (page != NULL)
      request.page_token = page->next_page_token;
  } while (page != NULL && page->next_page_token[0] != '\0');
  redelivery->dead_test = page != NULL && redelivery->count == 0 && !tool->json && has_dead_test(tool, &filter);
  ringback_free(page == NULL ? NULL : &page->base);
}

/* What still holds one that was put back by its id. */
static void tell_hold_of(struct tool *tool, char *bucket, char *id) {
  int status = TOOL_OK;
  Ringback__V1__GetDeliveryRequest request = RINGBACK__V1__GET_DELIVERY_REQUEST__INIT;
  request.bucket = bucket;
  request.id = id;
  Ringback__V1__GetDeliveryResponse *found =
      tool_call(tool, "/ringback.v1.CallbackService/GetDelivery", &request.base, &status);
  if (found == NULL)
    return;
  Ringback__V1__GetCallbackRuleResponse *rule =
      found->delivery == NULL ? NULL : callback_get_rule(tool, found->delivery->queue, &status);
  const char *hold = rule == NULL ? "" : callback_hold(found->delivery, rule->rule);
  if (hold[0] != '\0')
    printf("%s waits: %s\n", id, hold);
  ringback_free(rule == NULL ? NULL : &rule->base);
  ringback_free(&found->base);
}

/* What still holds those of a queue. */
static void tell_hold_of_queue(struct tool *tool, const char *queue) {
  int status = TOOL_OK;
  Ringback__V1__GetCallbackRuleResponse *response = callback_get_rule(tool, tool_queue_name(tool, queue), &status);
  const Ringback__V1__CallbackRule *rule = response == NULL ? NULL : response->rule;
  if (rule != NULL && rule->state == RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF)
    printf("they wait: rule off\n");
  else if (rule != NULL && message_is_to_come(rule->breaker_open_until))
    printf("they wait: breaker until %s\n", message_show_time(rule->breaker_open_until));
  ringback_free(response == NULL ? NULL : &response->base);
}

static void tell(struct tool *tool, const struct redelivery *redelivery, char *bucket, const char *queue) {
  if (redelivery->failed && redelivery->count == 0 && json_array_size(redelivery->results) == 0)
    return; /* the error is all there is to tell */
  if (tool->json) {
    json_print(
        json_pack("{s:I,s:O}", "redeliveredCount", (json_int_t)redelivery->count, "results", redelivery->results));
    return;
  }
  printf("%lld put back%s\n", (long long)redelivery->count,
         redelivery->dead_test ? "; test callbacks are not sent again, `callback test` sends a new one" : "");
  if (redelivery->count > 0 && queue != NULL)
    tell_hold_of_queue(tool, queue);
  else if (redelivery->example != NULL)
    tell_hold_of(tool, bucket, redelivery->example);
}

int command_callback_redeliver(struct tool *tool, int argc, char **argv) {
  const char *queue = tool_text(tool, "queue", NULL);
  bool filtered =
      queue != NULL || tool_given(tool, "error-class") || tool_given(tool, "since") || tool_given(tool, "until");
  if (argc > 0 && filtered) {
    tool_error("ids and --queue, --error-class, --since and --until exclude each other");
    return TOOL_USAGE;
  }
  if ((argc == 0 && !filtered) || (filtered && queue == NULL)) {
    tool_error("give ids of deliveries, or --queue and what else selects them");
    return TOOL_USAGE;
  }
  char *bucket = tool_bucket_name(tool, queue);
  if (bucket == NULL)
    return TOOL_USAGE;
  struct redelivery redelivery = {.status = TOOL_OK, .results = json_array()};
  if (filtered)
    redeliver_dead(tool, &redelivery, bucket, queue);
  else
    redeliver_ids(tool, &redelivery, bucket, argv, (size_t)argc);
  output_progress_clear(tool);
  tell(tool, &redelivery, bucket, queue);
  json_decref(redelivery.results);
  return redelivery.status;
}
