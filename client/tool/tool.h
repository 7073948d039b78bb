/*
 * What the commands of the tool `ringback` share: the table of commands and options, the values of this invocation, the
 * connection, and how results and errors are shown.
 *
 * A command is a row of the table in tool.c. Parsing, --help at every level and the bash completion all come from the
 * rows, so a command never looks at argv itself: its options are read with the tool_* functions below, and argc/argv
 * hold the operands alone. A command returns its exit status.
 */
#ifndef RINGBACK_CLIENT_TOOL_TOOL_H
#define RINGBACK_CLIENT_TOOL_TOOL_H

#include "client/lib/ringback.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The exit statuses, documented in `ringback --help`. */
enum tool_exit {
  TOOL_OK = 0,
  TOOL_FAILED = 1,      /* the operation failed, or the job did */
  TOOL_USAGE = 2,       /* the command line or a value in it is wrong */
  TOOL_NOT_FOUND = 3,   /* no such queue or job */
  TOOL_UNAVAILABLE = 4, /* the server cannot be reached, or time ran out */
};

enum option_kind {
  OPTION_FLAG,     /* --name, without a value */
  OPTION_TEXT,     /* any text */
  OPTION_INTEGER,  /* between low and high */
  OPTION_DURATION, /* 500ms, 5s, 2m, 1h, 3d; a bare number is seconds; between low and high milliseconds when high > 0
                    */
  OPTION_TIME,     /* RFC 3339 or seconds since 1970 */
  OPTION_PAST,     /* a time, or a duration with its unit: so long ago */
  OPTION_CHOICE,   /* one of `choices` */
  OPTION_QUEUE,    /* a queue's name, completed from the server's */
  OPTION_FILE,     /* a path, completed as such */
};

/* One option. Tables of them end with a NULL name. */
struct option_row {
  const char *name; /* without the dashes */
  char letter;      /* short form, or 0 */
  enum option_kind kind;
  bool repeatable;
  const char *value;          /* what stands for the value in --help, such as "DURATION"; NULL for flags */
  const char *help;           /* one line */
  const char *const *choices; /* NULL-ended; only for OPTION_CHOICE */
  int64_t low, high;          /* for OPTION_INTEGER and OPTION_DURATION */
};

struct tool;

/* One command. */
struct command_row {
  const char *name;                 /* "job submit" */
  const char *operands;             /* as --help shows them, such as "ID..."; "" for none */
  int operands_min, operands_max;   /* max -1: any number */
  const char *summary;              /* one line, for the list of commands */
  const char *description;          /* more, for the command's own --help; may be NULL */
  const struct option_row *options; /* ends with a NULL name; may be NULL */
  int (*run)(struct tool *tool, int argc, char **argv);
};

/* One option as it was given. */
struct option_value {
  const struct option_row *row;
  const char *text;
  int64_t number; /* the integer, milliseconds of a duration, milliseconds since 1970 of a time */
};

#define TOOL_VALUES_MAX 512
#define TOOL_TEXTS_MAX 256

/* One invocation. */
struct tool {
  const struct command_row *command;
  size_t value_count;
  struct option_value values[TOOL_VALUES_MAX];
  const char *server;             /* --server, RINGBACK_SERVER, or the default */
  const char *bucket;             /* --bucket or RINGBACK_BUCKET, without "buckets/"; may be NULL */
  bool json;                      /* --json: results as JSON on standard output */
  bool color;                     /* standard output is a terminal that takes colours */
  bool live;                      /* standard error is a terminal: progress bars may be drawn */
  int64_t timeout_ms;             /* --timeout, or 0 */
  struct ringback_client *client; /* tool_client opens it; the tool closes it at the end */
  size_t text_count;
  char *texts[TOOL_TEXTS_MAX]; /* names made by tool_queue_name and tool_bucket_name, freed at the end */
};

/* The value of an option of this command: the last one given, or the fallback. The name must be one of the command's.
 */
bool tool_given(const struct tool *tool, const char *name);
const char *tool_text(const struct tool *tool, const char *name, const char *fallback);
int64_t tool_number(const struct tool *tool, const char *name, int64_t fallback);
/* Prints what is wrong and returns false where both options are given, or the first without the other: one of them
 * could have no effect. */
bool tool_exclude(const struct tool *tool, const char *one, const char *other);
bool tool_needs(const struct tool *tool, const char *name, const char *other);
/* All values of a repeatable option, in order: *position starts at 0; NULL after the last. */
const char *tool_next_text(const struct tool *tool, const char *name, size_t *position);

/* The client, connected to tool->server; the same one at every call. Prints and exits with TOOL_USAGE when the
 * target is malformed, so it never returns NULL. */
struct ringback_client *tool_client(struct tool *tool);
/* ringback_call with the tool's timeout; on an error prints it and sets *status to the exit status. NULL on error. */
void *tool_call(struct tool *tool, const char *method, const ProtobufCMessage *request, int *status);

/* Errors, on standard error: "ringback: message", then one line a field violation; or each as a line of JSON. */
void tool_errors_as_json(bool json);
void tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints a call's error and returns the exit status for its code. */
int tool_call_failed(const struct ringback_error *error);
/* The same after what it is about, such as an item of a batch; NULL for nothing. */
int tool_print_failure(const char *about, const struct ringback_error *error);
int tool_exit_status(int code);

/* "buckets/b/queues/q" of a queue's full name or plain name with the tool's bucket. The text lives as long as the tool.
 * NULL after printing what is wrong (then exit with TOOL_USAGE). */
char *tool_queue_name(struct tool *tool, const char *name);
/* "buckets/b" of the tool's bucket, or of the full queue name given (may be NULL). NULL after printing what is wrong.
 */
char *tool_bucket_name(struct tool *tool, const char *queue_name);

/* Prints a message as JSON on standard output: indented, or on one line. */
void tool_print_json(const ProtobufCMessage *message);
void tool_print_json_line(const ProtobufCMessage *message);

/* The `worker` command: worker.c has all three. */
extern const char worker_description[];
extern const struct option_row worker_options[];
int command_worker(struct tool *tool, int argc, char **argv);

#endif
