/* What the commands about jobs share. */
#ifndef RINGBACK_CLIENT_TOOL_JOB_H
#define RINGBACK_CLIENT_TOOL_JOB_H

#include "client/tool/messages.h"

/* The options of a JobFilter, but for the queue. */
#define FILTER_OPTIONS                                                                                                 \
  {.name = "tag", .kind = OPTION_TEXT, .value = "TAG", .help = "only jobs of this type"},                              \
      {.name = "state",                                                                                                \
       .kind = OPTION_CHOICE,                                                                                          \
       .repeatable = true,                                                                                             \
       .value = "STATE",                                                                                               \
       .help = "only jobs in this state",                                                                              \
       .choices = state_choices},                                                                                      \
      {.name = "since",                                                                                                \
       .kind = OPTION_PAST,                                                                                            \
       .value = "TIME|DURATION",                                                                                       \
       .help = "only jobs created then, or so long ago, or later"},                                                    \
  {                                                                                                                    \
    .name = "until", .kind = OPTION_PAST, .value = "TIME|DURATION", .help = "only jobs created before"                 \
  }

/* Prints a job's details. */
void job_show(struct tool *tool, const Ringback__V1__Job *job);
/* "Running", in its colour. */
const char *job_state_word(const struct tool *tool, Ringback__V1__JobState state);

/* Follows jobs until all of them have ended (watch.c), showing changes as --json and the terminal have it. Returns
 * TOOL_OK when all succeeded, TOOL_FAILED when one did not, TOOL_NOT_FOUND when one does not exist, TOOL_UNAVAILABLE
 * when give_up_ms (0: never) have passed or the server is gone for long. */
int job_watch_until_ended(struct tool *tool, const char *bucket, char *const *ids, size_t id_count, int64_t give_up_ms);

#endif
