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

const struct option_row callback_redeliver_options[] = {
    {.name = "queue",
     .letter = 'q',
     .kind = OPTION_QUEUE,
     .value = "QUEUE",
     .help = "all dead callbacks of this queue"},
    {.name = "error-class",
     .kind = OPTION_CHOICE,
     .repeatable = true,
     .value = "CLASS",
     .help = "only those whose last attempt failed so",
     .choices = callback_error_classes},
    {.name = "since", .kind = OPTION_TIME, .value = "TIME", .help = "only those created at this time or later"},
    {.name = "until", .kind = OPTION_TIME, .value = "TIME", .help = "only those created before this time"},
    {.name = NULL},
};

/* What the calls together did. */
struct redelivery {
  int64_t count;
  int status; /* the worst one */
  json_t *results;
};

static Ringback__V1__RedeliverCallbacksResponse *redeliver_call(struct tool *tool, struct redelivery *redelivery,
                                                                Ringback__V1__RedeliverCallbacksRequest *request) {
  int status = TOOL_OK;
  Ringback__V1__RedeliverCallbacksResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/RedeliverCallbacks", &request->base, &status);
  if (response == NULL) {
    redelivery->status = status;
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
  ringback_free(page == NULL ? NULL : &page->base);
}

int command_callback_redeliver(struct tool *tool, int argc, char **argv) {
  const char *queue = tool_text(tool, "queue", NULL);
  bool filtered =
      queue != NULL || tool_given(tool, "error-class") || tool_given(tool, "since") || tool_given(tool, "until");
  if ((argc > 0) == filtered || (filtered && queue == NULL)) {
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
  if (tool->json)
    json_print(json_pack("{s:I,s:O}", "redeliveredCount", (json_int_t)redelivery.count, "results", redelivery.results));
  else
    printf("%lld put back\n", (long long)redelivery.count);
  json_decref(redelivery.results);
  return redelivery.status;
}
