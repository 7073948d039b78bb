/* Parts of requests and answers that several commands share. */
#ifndef RINGBACK_CLIENT_TOOL_MESSAGES_H
#define RINGBACK_CLIENT_TOOL_MESSAGES_H

#include "client/tool/tool.h"
#include "google/rpc/status.pb-c.h"
#include "ringback/v1/job.pb-c.h"
#include <jansson.h>

#define JOBS_PER_CALL 250

extern const char *const feature_choices[];
extern const char *const state_choices[];

/* MEDIA of "media". The text is one of feature_choices. */
Ringback__V1__Feature message_feature(const char *text);
/* The text is one of state_choices. */
Ringback__V1__JobState message_job_state(const char *text);

/* Fills `storage` from an option that was given and returns it; NULL when it was not. */
Google__Protobuf__Duration *message_duration(const struct tool *tool, const char *option,
                                             Google__Protobuf__Duration *storage);
Google__Protobuf__Timestamp *message_time(const struct tool *tool, const char *option,
                                          Google__Protobuf__Timestamp *storage);

/* For people, in a ring of buffers: local time, span, and how long ago; "-" when absent. */
const char *message_show_time(const Google__Protobuf__Timestamp *time);
const char *message_show_duration(const Google__Protobuf__Duration *duration);
/* Whether a time, which may be NULL, lies in the future. */
bool message_is_to_come(const Google__Protobuf__Timestamp *time);
const char *message_show_age(const Google__Protobuf__Timestamp *then);

/* A filter with the storage it points into: from --queue (or `queue`), --tag, --state, --since and --until. */
struct job_filter {
  Ringback__V1__JobFilter filter;
  Ringback__V1__JobState states[8];
  Google__Protobuf__Timestamp since, until;
};
/* False after printing what is wrong. */
bool message_job_filter(struct tool *tool, const char *queue, struct job_filter *filter);

/* "q" of "buckets/b/queues/q". */
const char *message_queue_short(const char *name);
/* Success or Failed or Cancel: nothing more will happen to it by itself. */
bool message_has_ended(Ringback__V1__JobState state);
const char *message_feature_word(Ringback__V1__Feature feature);

/* Joins the answers of a list's pages: `key`'s items are appended, everything else is the last page's. *all starts NULL
 * and is the caller's. */
void message_join_pages(json_t **all, const ProtobufCMessage *page, const char *key);

/* Prints a status of an item that failed, after what it is about. Returns its exit status. */
int message_item_failed(const char *about, const Google__Rpc__Status *status);

#endif
