/* The daemon's options: see options.h. */
#include "server/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_type {
  OPTION_TEXT,
  OPTION_ADDRESS,
  OPTION_LIST,
  OPTION_COUNT,
  OPTION_BYTES,
  OPTION_DURATION,
  OPTION_CHOICE
};

struct option_row {
  const char *group; /* the heading that --help begins here; NULL: the one before */
  const char *name;
  enum option_type type;
  size_t offset;        /* in struct options: const char * for texts, int64_t otherwise */
  const char *fallback; /* as it would be written; NULL: computed */
  int64_t min, max;     /* of counts, bytes and durations (ms) */
  const char *choices;  /* of a choice, `a|b`: the value is the place */
  const char *placeholder;
  const char *help;
};

#define AT(field) offsetof(struct options, field)

static const struct option_row rows[] = {
    {"Ports", "listen", OPTION_ADDRESS, AT(listen), "127.0.0.1:7080", 0, 0, NULL, "HOST:PORT",
     "where gRPC is served; port 0 takes any free one"},
    {NULL, "http", OPTION_ADDRESS, AT(http), "127.0.0.1:7081", 0, 0, NULL, "HOST:PORT",
     "where /metrics and /healthz are served; off for not at all"},
    {NULL, "ports-file", OPTION_TEXT, AT(ports_file), "", 0, 0, NULL, "FILE",
     "gets the ports, grpc=PORT and http=PORT, once the server is ready"},
    {"Storage", "redis", OPTION_TEXT, AT(redis), "", 0, 0, NULL, "URL",
     "use this Redis, redis://[user:password@]host[:port][/db] or unix:///path[?db=N], instead of one of its own"},
    {NULL, "data", OPTION_TEXT, AT(data), "./ringback-data", 0, 0, NULL, "DIR",
     "where the server's own Redis keeps its data; without effect with --redis"},
    {NULL, "appendfsync", OPTION_CHOICE, AT(appendfsync), "always", 0, 0, "always|everysec", NULL,
     "when the server's own Redis brings acknowledged jobs to the disk"},
    {NULL, "redis-wait", OPTION_DURATION, AT(redis_wait_ms), "1s", 100, 60000, NULL, "TIME",
     "how long a call waits for Redis before it is UNAVAILABLE"},
    {"Limits", "rpc-threads", OPTION_COUNT, AT(rpc_threads), NULL, 1, 64, NULL, "N",
     "threads that serve calls; default: half the processors"},
    {NULL, "calls-max", OPTION_COUNT, AT(calls_max), "10000", 1, 1000000, NULL, "N",
     "calls in hand at once; one more is RESOURCE_EXHAUSTED"},
    {NULL, "parked-max", OPTION_COUNT, AT(parked_max), "10000", 1, 1000000, NULL, "N",
     "calls that wait for a job or a change at once"},
    {NULL, "streams-per-connection-max", OPTION_COUNT, AT(streams_per_connection_max), "10000", 1, 100000, NULL, "N",
     "calls of one connection at once"},
    {NULL, "request-bytes-max", OPTION_BYTES, AT(request_bytes_max), "4MiB", 65536, 64 << 20, NULL, "BYTES",
     "size of one request"},
    {NULL, "header-bytes-max", OPTION_BYTES, AT(header_bytes_max), "16KiB", 1024, 1 << 20, NULL, "BYTES",
     "size of all headers of one call"},
    {NULL, "payload-bytes-max", OPTION_BYTES, AT(payload_bytes_max), "64KiB", 1, 1 << 20, NULL, "BYTES",
     "size of a job's operation or result"},
    {NULL, "grace", OPTION_DURATION, AT(grace_ms), "10s", 0, 600000, NULL, "TIME",
     "how long calls may go on after SIGTERM or SIGINT"},
    {"Callbacks", "callback-allow", OPTION_LIST, AT(callback_allow), "", 0, 0, NULL, "CIDR[,CIDR...]",
     "private or local addresses that callbacks may go to, such as 10.0.0.0/8"},
    {NULL, "callback-concurrency", OPTION_COUNT, AT(callback_concurrency), "256", 1, 10000, NULL, "N",
     "callbacks under way at once"},
    {"Log", "log-format", OPTION_CHOICE, AT(log_json), "text", 0, 0, "text|json", NULL, "how log lines are written"},
    {NULL, "log-level", OPTION_CHOICE, AT(log_level), "info", 0, 0, "debug|info|warn|error", NULL,
     "the least important lines that are written"},
};

enum { ROW_COUNT = sizeof rows / sizeof rows[0], NAME_SIZE = 64 };

const char *options_appendfsync_name(int64_t appendfsync) {
  return appendfsync == OPTIONS_APPENDFSYNC_EVERYSEC ? "everysec" : "always";
}

static int64_t default_threads(void) {
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  return processors < 4 ? 1 : processors / 2 > 64 ? 64 : processors / 2;
}

static void environment_name(const struct option_row *row, char name[NAME_SIZE]) {
  snprintf(name, NAME_SIZE, "RINGBACK_%s", row->name);
  for (char *c = name; *c; c++)
    *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

struct unit {
  const char *name;
  int64_t factor;
};

static const struct unit byte_units[] = {{"", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {NULL, 0}};
static const struct unit time_units[] = {{"ms", 1},      {"s", 1000},    {"m", 60000},
                                         {"min", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

/* A whole number with one of the units, between min and max. */
static bool parse_number(const char *value, const struct unit *units, int64_t min, int64_t max, int64_t *number) {
  if (!isdigit((unsigned char)*value))
    return false;
  char *end;
  errno = 0;
  long long digits = strtoll(value, &end, 10);
  for (; errno == 0 && units->name; units++)
    if (strcmp(end, units->name) == 0 && digits <= max / units->factor) {
      *number = digits * units->factor;
      return *number >= min;
    }
  return false;
}

static bool parse_choice(const char *value, const char *choices, int64_t *number) {
  size_t length = strlen(value);
  for (*number = 0; *choices; ++*number) {
    size_t choice = strcspn(choices, "|");
    if (choice == length && strncmp(choices, value, length) == 0)
      return true;
    choices += choice + (choices[choice] == '|');
  }
  return false;
}

/* host:port, [v6]:port; for http also `off`. */
static bool is_address(const char *value) {
  const char *colon = strrchr(value, ':');
  int64_t port;
  if (!colon || colon == value)
    return false;
  if (strchr(value, ':') != colon && (*value != '[' || colon[-1] != ']'))
    return false;
  return parse_number(colon + 1, no_units, 0, 65535, &port);
}

static const char *expected(const struct option_row *row, char text[OPTIONS_MESSAGE_SIZE]) {
  switch (row->type) {
  case OPTION_COUNT:
    snprintf(text, OPTIONS_MESSAGE_SIZE, "a number from %" PRId64 " to %" PRId64, row->min, row->max);
    break;
  case OPTION_BYTES:
    snprintf(text, OPTIONS_MESSAGE_SIZE, "a number of bytes from %" PRId64 " to %" PRId64 ", such as 64KiB or 4MiB",
             row->min, row->max);
    break;
  case OPTION_DURATION:
    snprintf(text, OPTIONS_MESSAGE_SIZE, "a time from %" PRId64 "s to %" PRId64 "s, such as 500ms, 10s or 5m",
             row->min / 1000, row->max / 1000);
    break;
  case OPTION_CHOICE:
    snprintf(text, OPTIONS_MESSAGE_SIZE, "one of %s", row->choices);
    break;
  case OPTION_ADDRESS:
    snprintf(text, OPTIONS_MESSAGE_SIZE, "HOST:PORT%s, such as %s", strcmp(row->name, "http") == 0 ? " or off" : "",
             row->fallback);
    break;
  default:
    snprintf(text, OPTIONS_MESSAGE_SIZE, "%s", row->placeholder);
  }
  return text;
}

static bool set_value(struct options *options, const struct option_row *row, const char *value) {
  void *field = (char *)options + row->offset;
  switch (row->type) {
  case OPTION_COUNT:
    return parse_number(value, no_units, row->min, row->max, field);
  case OPTION_BYTES:
    return parse_number(value, byte_units, row->min, row->max, field);
  case OPTION_DURATION:
    return parse_number(value, time_units, row->min, row->max, field);
  case OPTION_CHOICE:
    return parse_choice(value, row->choices, field);
  case OPTION_ADDRESS:
    if (!is_address(value) && !(row->offset == AT(http) && strcmp(value, "off") == 0))
      return false;
    break;
  default:
    break;
  }
  *(const char **)field = value;
  return true;
}

static enum options_verdict wrong_value(const struct option_row *row, const char *source, const char *value,
                                        char message[OPTIONS_MESSAGE_SIZE]) {
  char right[OPTIONS_MESSAGE_SIZE];
  snprintf(message, OPTIONS_MESSAGE_SIZE, "%s is \"%.100s\"; it must be %.300s", source, value, expected(row, right));
  return OPTIONS_WRONG;
}

static const struct option_row *find_row(const char *name, size_t length) {
  for (size_t i = 0; i < ROW_COUNT; i++)
    if (strlen(rows[i].name) == length && strncmp(rows[i].name, name, length) == 0)
      return &rows[i];
  return NULL;
}

static void set_defaults(struct options *options) {
  memset(options, 0, sizeof *options);
  for (size_t i = 0; i < ROW_COUNT; i++)
    if (rows[i].fallback)
      set_value(options, &rows[i], rows[i].fallback);
  options->rpc_threads = default_threads();
}

static enum options_verdict parse_environment(struct options *options, char *(*environment)(const char *name),
                                              char message[OPTIONS_MESSAGE_SIZE]) {
  for (size_t i = 0; i < ROW_COUNT; i++) {
    char name[NAME_SIZE];
    environment_name(&rows[i], name);
    const char *value = environment(name);
    if (value && !set_value(options, &rows[i], value))
      return wrong_value(&rows[i], name, value, message);
  }
  return OPTIONS_RUN;
}

enum options_verdict options_parse(struct options *options, int argc, char *const *argv,
                                   char *(*environment)(const char *name), char message[OPTIONS_MESSAGE_SIZE]) {
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
      return OPTIONS_HELP;
    if (strcmp(argv[i], "--version") == 0)
      return OPTIONS_VERSION;
    if (strcmp(argv[i], "--man") == 0)
      return OPTIONS_MAN;
    if (strcmp(argv[i], "--environment-file") == 0)
      return OPTIONS_ENVIRONMENT;
  }
  set_defaults(options);
  enum options_verdict verdict = parse_environment(options, environment, message);
  for (int i = 1; verdict == OPTIONS_RUN && i < argc; i++) {
    const char *argument = argv[i];
    if (strncmp(argument, "--", 2) != 0) {
      snprintf(message, OPTIONS_MESSAGE_SIZE, "\"%.100s\" is no option; see --help", argument);
      return OPTIONS_WRONG;
    }
    size_t length = strcspn(argument + 2, "=");
    const struct option_row *row = find_row(argument + 2, length);
    if (!row) {
      snprintf(message, OPTIONS_MESSAGE_SIZE, "there is no option %.100s; see --help", argument);
      return OPTIONS_WRONG;
    }
    char source[NAME_SIZE];
    snprintf(source, sizeof source, "--%s", row->name);
    const char *value = argument[2 + length] == '=' ? argument + 3 + length : i + 1 < argc ? argv[++i] : NULL;
    if (!value) {
      char right[OPTIONS_MESSAGE_SIZE];
      snprintf(message, OPTIONS_MESSAGE_SIZE, "%s has no value; it must be %.300s", source, expected(row, right));
      return OPTIONS_WRONG;
    }
    if (!set_value(options, row, value))
      verdict = wrong_value(row, source, value, message);
  }
  return verdict;
}

void options_print_help(FILE *file) {
  fprintf(file, "ringbackd %s: priority job queues that call back\n\nUsage: ringbackd [--option value]...\n",
          RINGBACK_VERSION);
  for (size_t i = 0; i < ROW_COUNT; i++) {
    const struct option_row *row = &rows[i];
    char name[NAME_SIZE];
    environment_name(row, name);
    if (row->group)
      fprintf(file, "\n%s\n", row->group);
    fprintf(file, "  --%s %s\n      %s", row->name, row->placeholder ? row->placeholder : row->choices, row->help);
    if (row->fallback && *row->fallback)
      fprintf(file, " [%s]", row->fallback);
    fprintf(file, " (%s)\n", name);
  }
  fprintf(file, "\n  --help\n      this text\n  --version\n      the version\n");
}

/* Text as roff reads it literally. */
static void print_roff(FILE *file, const char *text) {
  if (*text == '.' || *text == '\'')
    fputs("\\&", file);
  for (; *text; text++)
    if (*text == '\\')
      fputs("\\e", file);
    else if (*text == '-')
      fputs("\\-", file);
    else
      fputc(*text, file);
}

void options_print_man(FILE *file) {
  fputs(".TH RINGBACKD 8 \"\" \"ringback " RINGBACK_VERSION "\" \"System Administration\"\n.nh\n.ad l\n"
        ".SH NAME\nringbackd \\- priority job queues that call back\n"
        ".SH SYNOPSIS\n\\fBringbackd\\fR [\\fB\\-\\-\\fIoption value\\fR]...\n"
        ".SH DESCRIPTION\n"
        "Serves job queues over gRPC, keeps them in Redis, and posts an XML callback when a job has ended. Without\n"
        "\\fB\\-\\-redis\\fR it starts a Redis of its own in the data directory.\n"
        ".PP\n"
        "Every option can also be given in the environment, under the name that stands behind it; an option wins over "
        "the\n"
        "environment.\n",
        file);
  for (size_t i = 0; i < ROW_COUNT; i++) {
    const struct option_row *row = &rows[i];
    char name[NAME_SIZE];
    environment_name(row, name);
    if (row->group)
      fprintf(file, "%s.SS %s\n", i == 0 ? ".SH OPTIONS\n" : "", row->group);
    fputs(".TP\n\\fB\\-\\-", file);
    print_roff(file, row->name);
    fputs("\\fR \\fI", file);
    print_roff(file, row->placeholder ? row->placeholder : row->choices);
    fputs("\\fR\n", file);
    print_roff(file, row->help);
    fprintf(file, " (%s", name);
    if (row->fallback && *row->fallback) {
      fputs("; default: ", file);
      print_roff(file, row->fallback);
    }
    fputs(")\n", file);
  }
  fputs(".SS Help\n.TP\n\\fB\\-\\-help\\fR\nprint the options\n.TP\n\\fB\\-\\-version\\fR\nprint the version\n"
        ".SH SIGNALS\nSIGTERM and SIGINT end the server: no new calls are taken, calls in hand go on for "
        "\\fB\\-\\-grace\\fR. A second\n"
        "one ends it at once.\n"
        ".SH EXIT STATUS\n0 after a signal; 1 when it could not start or was ended by a second signal; 2 when an "
        "option is wrong.\n"
        ".SH FILES\n.TP\n\\fI/etc/ringback/ringbackd.env\\fR\noptions of the packaged service\n"
        ".TP\n\\fI/var/lib/ringback\\fR\ndata of the packaged service's own Redis\n"
        ".SH SEE ALSO\n\\fBringback\\fR(1)\n",
        file);
}

void options_print_environment(FILE *file) {
  fputs("# Options of the service ringbackd, read when it starts: systemctl restart ringbackd\n"
        "# What is commented out is the default, but that the service keeps its data in /var/lib/ringback. See "
        "ringbackd(8).\n",
        file);
  for (size_t i = 0; i < ROW_COUNT; i++) {
    char name[NAME_SIZE];
    environment_name(&rows[i], name);
    if (strcmp(rows[i].name, "ports-file") == 0 || strcmp(rows[i].name, "data") == 0)
      continue;
    fprintf(file, "\n# %s (%s)\n#%s=%s\n", rows[i].help, rows[i].placeholder ? rows[i].placeholder : rows[i].choices,
            name, rows[i].fallback ? rows[i].fallback : "");
  }
}
