/*
 * Parts of requests and answers that several commands share: options as messages, messages as text.
 */
#include "client/tool/messages.h"
#include "client/tool/json.h"
#include "client/tool/output.h"
#include "client/tool/values.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *const feature_choices[] = {"media", "speech", "document", NULL};
const char *const state_choices[] = {"submitted", "running", "success", "failed", "pause", "cancel", NULL};

static int choice_number(const char *const *choices, const char *text) {
  for (int i = 0; choices[i] != NULL; i++)
    if (strcmp(choices[i], text) == 0)
      return i + 1;
  return 0;
}

/* The choices stand in the order of the enums' values, which begin at 1. */
Ringback__V1__Feature message_feature(const char *text) {
  return (Ringback__V1__Feature)choice_number(feature_choices, text);
}

Ringback__V1__JobState message_job_state(const char *text) {
  return (Ringback__V1__JobState)choice_number(state_choices, text);
}

const char *message_feature_word(Ringback__V1__Feature feature) {
  return feature >= 1 && feature <= 3 ? feature_choices[feature - 1] : "?";
}

Google__Protobuf__Duration *message_duration(const struct tool *tool, const char *option,
                                             Google__Protobuf__Duration *storage) {
  if (!tool_given(tool, option))
    return NULL;
  int64_t ms = tool_number(tool, option, 0);
  google__protobuf__duration__init(storage);
  storage->seconds = ms / 1000;
  storage->nanos = (int32_t)(ms % 1000 * 1000000);
  return storage;
}

Google__Protobuf__Timestamp *message_time(const struct tool *tool, const char *option,
                                          Google__Protobuf__Timestamp *storage) {
  if (!tool_given(tool, option))
    return NULL;
  int64_t ms = tool_number(tool, option, 0);
  google__protobuf__timestamp__init(storage);
  storage->seconds = ms / 1000 - (ms % 1000 < 0);
  storage->nanos = (int32_t)((ms % 1000 + 1000) % 1000 * 1000000);
  return storage;
}

static char *ring_text(void) {
  static char ring[8][VALUE_TEXT_BYTES];
  static int next;
  next = (next + 1) % 8;
  return ring[next];
}

const char *message_show_time(const Google__Protobuf__Timestamp *time) {
  if (time == NULL)
    return "-";
  char *text = ring_text();
  value_show_time(time->seconds, text);
  return text;
}

const char *message_show_duration(const Google__Protobuf__Duration *duration) {
  if (duration == NULL)
    return "-";
  char *text = ring_text();
  value_show_duration(duration->seconds * 1000 + duration->nanos / 1000000, text);
  return text;
}

bool message_is_to_come(const Google__Protobuf__Timestamp *time) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return time != NULL && (time->seconds > now.tv_sec || (time->seconds == now.tv_sec && time->nanos > now.tv_nsec));
}

const char *message_show_age(const Google__Protobuf__Timestamp *then) {
  if (then == NULL)
    return "-";
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int64_t ms = ((int64_t)now.tv_sec - then->seconds) * 1000 + (now.tv_nsec - then->nanos) / 1000000;
  char *text = ring_text();
  /* Clocks of two machines differ by a little: what happens now did not happen in the future. */
  if (ms < 1000)
    return "0s";
  value_show_duration(ms / 1000 * 1000, text);
  return text;
}

bool message_job_filter(struct tool *tool, const char *queue, struct job_filter *storage) {
  Ringback__V1__JobFilter *filter = &storage->filter;
  ringback__v1__job_filter__init(filter);
  if (queue == NULL)
    queue = tool_text(tool, "queue", NULL);
  if (queue == NULL) {
    tool_error("name the queue");
    return false;
  }
  filter->queue = tool_queue_name(tool, queue);
  filter->tag = (char *)tool_text(tool, "tag", "");
  filter->states = storage->states;
  size_t position = 0;
  for (const char *state; (state = tool_next_text(tool, "state", &position)) != NULL && filter->n_states < 8;)
    storage->states[filter->n_states++] = message_job_state(state);
  filter->start_create_time = message_time(tool, "since", &storage->since);
  filter->end_create_time = message_time(tool, "until", &storage->until);
  return filter->queue != NULL;
}

const char *message_queue_short(const char *name) {
  const char *slash = strrchr(name, '/');
  return slash == NULL ? name : slash + 1;
}

bool message_has_ended(Ringback__V1__JobState state) {
  return state == RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS || state == RINGBACK__V1__JOB_STATE__JOB_STATE_FAILED ||
         state == RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL;
}

void message_join_pages(json_t **all, const ProtobufCMessage *page, const char *key) {
  json_t *json = json_of_message(page);
  if (*all == NULL) {
    *all = json;
    return;
  }
  json_t *items = json_incref(json_object_get(*all, key));
  json_array_extend(items, json_object_get(json, key));
  json_object_update(*all, json);
  json_object_set_new(*all, key, items);
  json_decref(json);
}

int message_item_failed(const char *about, const Google__Rpc__Status *status) {
  struct ringback_error error;
  ringback_error_from_status(&error, status == NULL ? NULL : &status->base);
  if (error.code == RINGBACK_OK)
    return TOOL_OK;
  return tool_print_failure(about, &error);
}
