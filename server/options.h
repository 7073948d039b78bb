/* The daemon's options: one table from which flags, RINGBACK_* environment variables, --help, the manual page and
 * the packaged configuration come.
 *
 * A flag wins over the environment, the environment over the default. `--name value` and `--name=value` are the same.
 * Pure but for the number of processors, which decides a default.
 */
#ifndef RINGBACK_SERVER_OPTIONS_H
#define RINGBACK_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "server/base/log.h"

enum { OPTIONS_MESSAGE_SIZE = 512 };

struct options {
  /* texts point into the arguments, the environment or the table */
  const char *listen;
  const char *http; /* "off": no side port */
  const char *ports_file;
  const char *redis; /* "": the embedded one */
  const char *data;
  int64_t appendfsync; /* enum options_appendfsync */
  int64_t redis_wait_ms;
  int64_t rpc_threads;
  int64_t calls_max;
  int64_t parked_max;
  int64_t streams_per_connection_max;
  int64_t request_bytes_max;
  int64_t header_bytes_max;
  int64_t payload_bytes_max;
  int64_t grace_ms;
  const char *callback_allow;
  int64_t callback_concurrency;
  int64_t log_level; /* enum log_level */
  int64_t log_json;  /* 0 or 1 */
};

enum options_appendfsync { OPTIONS_APPENDFSYNC_ALWAYS, OPTIONS_APPENDFSYNC_EVERYSEC };

enum options_verdict {
  OPTIONS_RUN,
  OPTIONS_HELP,
  OPTIONS_VERSION,
  OPTIONS_MAN, /* --man and --environment-file, for packagers: print what the functions below do */
  OPTIONS_ENVIRONMENT,
  OPTIONS_WRONG, /* message says which option, which value, and what would be right */
};

/* environment: like getenv. */
enum options_verdict options_parse(struct options *options, int argc, char *const *argv,
                                   char *(*environment)(const char *name), char message[OPTIONS_MESSAGE_SIZE]);

void options_print_help(FILE *file);
/* ringbackd(8), in roff with the man macros. */
void options_print_man(FILE *file);
/* Every option as a commented-out line RINGBACK_NAME=default, as a service manager's environment file. */
void options_print_environment(FILE *file);
/* The embedded Redis's setting of that name. */
const char *options_appendfsync_name(int64_t appendfsync);

#endif
