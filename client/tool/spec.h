/* A job's specification from the options of the command line and from lines of JSON. */
#ifndef RINGBACK_CLIENT_TOOL_SPEC_H
#define RINGBACK_CLIENT_TOOL_SPEC_H

#include "client/tool/json.h"
#include "client/tool/tool.h"
#include "ringback/v1/job.pb-c.h"

#define SPEC_OPTIONS                                                                                                   \
  {.name = "tag", .letter = 't', .kind = OPTION_TEXT, .value = "TAG", .help = "the type of job, such as Transcode"},   \
      {.name = "object", .letter = 'o', .kind = OPTION_TEXT, .value = "KEY", .help = "the object to work on"},         \
      {.name = "input-bucket", .kind = OPTION_TEXT, .value = "BUCKET", .help = "the object's bucket, if another"},     \
      {.name = "region", .kind = OPTION_TEXT, .value = "REGION", .help = "the object's region"},                       \
      {.name = "url", .kind = OPTION_TEXT, .value = "URL", .help = "the input as an http or https URL"},               \
      {.name = "operation",                                                                                            \
       .kind = OPTION_TEXT,                                                                                            \
       .value = "XML|@FILE|-",                                                                                         \
       .help = "what to do: a fragment of XML (64 KiB, 32 levels deep at most), a file of it, or standard input"},     \
      {.name = "data",                                                                                                 \
       .kind = OPTION_FILE,                                                                                            \
       .value = "FILE|-",                                                                                              \
       .help = "what to do, as bytes of any kind, 64 KiB at most"},                                                    \
      {.name = "content-type", .kind = OPTION_TEXT, .value = "TYPE", .help = "the type of --data"},                    \
      {.name = "user-data",                                                                                            \
       .kind = OPTION_TEXT,                                                                                            \
       .value = "TEXT",                                                                                                \
       .help = "handed back in the callback: printable ASCII, 1,024 characters at most"},                              \
      {.name = "priority",                                                                                             \
       .letter = 'p',                                                                                                  \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "0 to 255, larger first (0)",                                                                           \
       .high = 255},                                                                                                   \
      {.name = "delay", .kind = OPTION_DURATION, .value = "DURATION", .help = "not before so long from now"},          \
      {.name = "not-before", .kind = OPTION_TIME, .value = "TIME", .help = "not before then"},                         \
      {.name = "expire",                                                                                               \
       .kind = OPTION_TEXT,                                                                                            \
       .value = "TIME|DURATION",                                                                                       \
       .help = "fails as Expired if it has not ended by then"},                                                        \
      {.name = "lease", .kind = OPTION_DURATION, .value = "DURATION", .help = "how long a lease of it lasts"},         \
      {.name = "run-timeout",                                                                                          \
       .kind = OPTION_DURATION,                                                                                        \
       .value = "DURATION",                                                                                            \
       .help = "the longest that an attempt may take"},                                                                \
      {.name = "max-attempts",                                                                                         \
       .kind = OPTION_INTEGER,                                                                                         \
       .value = "N",                                                                                                   \
       .help = "attempts in all",                                                                                      \
       .low = 1,                                                                                                       \
       .high = 100},                                                                                                   \
      {.name = "callback", .kind = OPTION_TEXT, .value = "URL|none", .help = "call back there instead, or nowhere"},   \
      {.name = "callback-format",                                                                                      \
       .kind = OPTION_CHOICE,                                                                                          \
       .value = "FORMAT",                                                                                              \
       .help = "the body of --callback (seed), as `callback set --help` explains",                                     \
       .choices = callback_formats},                                                                                   \
  {                                                                                                                    \
    .name = "traceparent", .kind = OPTION_TEXT, .value = "TRACE", .help = "W3C trace context"                          \
  }

/* The specification that the options describe, as JSON: only what was given. NULL after printing what is wrong. */
json_t *spec_from_options(struct tool *tool);

/* A line of JSON over the defaults, as a message for the caller to free with ringback_free. NULL with what is wrong. */
Ringback__V1__JobSpec *spec_from_line(const json_t *defaults, const char *line, size_t line_bytes, char *problem,
                                      size_t problem_bytes);

#endif
