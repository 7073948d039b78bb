/*
 * `ringback listen`: a small receiver of callbacks for trying things out and for tests. It prints what comes, checks
 * signatures, and answers with errors, late or not at all when told to.
 *
 * Threads: libmicrohttpd has one for each connection, so that a late answer delays no other; what they share stands
 * under one lock. Main waits for a signal: the user's, or the one that the last wanted callback sends when its answer
 * has left.
 */
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/output.h"
#include "client/tool/safe.h"
#include "client/tool/signature.h"
#include "client/tool/values.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BODY_BYTES_MAX (8 << 20)
#define KEYS_MAX 16
#define CONNECTIONS_MAX 256
#define FAIL_STATUS 503
#define DONE_SIGNAL SIGUSR1

const struct option_row listen_options[] = {
    {.name = "port",
     .letter = 'p',
     .kind = OPTION_INTEGER,
     .value = "PORT",
     .help = "where to listen (8080); 0: any free port, printed",
     .high = 65535},
    {.name = "address", .kind = OPTION_TEXT, .value = "ADDRESS", .help = "the IPv4 address to listen on (127.0.0.1)"},
    {.name = "secret",
     .letter = 's',
     .kind = OPTION_TEXT,
     .repeatable = true,
     .value = "whsec_...",
     .help = "check signatures with this secret"},
    {.name = "status",
     .kind = OPTION_INTEGER,
     .value = "CODE",
     .help = "answer with this status (200); with --fail only the first (503)",
     .low = 200,
     .high = 599},
    {.name = "fail",
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "the first N answers are errors",
     .low = 1,
     .high = 1000000000},
    {.name = "drop",
     .kind = OPTION_FLAG,
     .help = "close the connection instead of answering; with --fail only the first"},
    {.name = "delay", .kind = OPTION_DURATION, .value = "DURATION", .help = "wait before answering", .high = 3600000},
    {.name = "count",
     .letter = 'n',
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "end after N callbacks, failed ones included",
     .low = 1,
     .high = 1000000000},
    {.name = "out",
     .kind = OPTION_FILE,
     .value = "DIR",
     .help = "store each body there as ID.xml (ID.body.json where it is JSON), its headers as ID.json"},
    {.name = NULL},
};

struct listener {
  struct tool *tool;
  struct signature_key keys[KEYS_MAX];
  size_t key_count;
  int64_t fail_count, wanted_count, delay_ms;
  int fail_status; /* 0: none but those of --fail */
  bool drop;
  const char *directory; /* may be NULL */
  pthread_mutex_t mutex; /* guards what follows, and standard output */
  int64_t received;
  bool signature_failed;
};

/* One callback while it comes in. */
struct callback {
  char *body;
  size_t byte_count, capacity;
  bool too_long;
  bool counted; /* it has its number */
  bool last;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status) {
  struct MHD_Response *response = MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
  if (response == NULL)
    return MHD_NO;
  enum MHD_Result queued = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

static bool callback_append(struct callback *callback, const char *bytes, size_t byte_count) {
  if (callback->byte_count + byte_count > BODY_BYTES_MAX) {
    callback->too_long = true;
    return true;
  }
  if (callback->byte_count + byte_count + 1 > callback->capacity) {
    size_t capacity = (callback->byte_count + byte_count + 1) * 2;
    char *larger = realloc(callback->body, capacity);
    if (larger == NULL)
      return false;
    callback->body = larger;
    callback->capacity = capacity;
  }
  memcpy(callback->body + callback->byte_count, bytes, byte_count);
  callback->byte_count += byte_count;
  callback->body[callback->byte_count] = '\0';
  return true;
}

/* The text of the first element or JSON member of a name, for the line that people read. It is no parser: what it shows
 * decides nothing. */
static const char *element_text(const char *body, const char *name, char text[64]) {
  char tag[32];
  bool json = body[0] == '{';
  snprintf(tag, sizeof tag, json ? "\"%s\":\"" : "<%s>", name);
  const char *start = strstr(body, tag);
  size_t length = start == NULL ? 0 : strcspn(start += strlen(tag), json ? "\"" : "<");
  snprintf(text, 64, "%.*s", (int)(length < 63 ? length : 63), start == NULL ? "" : start);
  return text;
}

static const char *header(struct MHD_Connection *connection, const char *name) {
  return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static const char *check(const struct listener *listener, struct MHD_Connection *connection,
                         const struct callback *callback, bool *good) {
  static const char *const words[] = {"valid", "missing", "stale", "wrong"};
  *good = true;
  if (listener->key_count == 0)
    return "unchecked";
  enum signature_result result = signature_check(
      listener->keys, listener->key_count, header(connection, "webhook-id"), header(connection, "webhook-timestamp"),
      header(connection, "webhook-signature"), callback->body, callback->byte_count, (int64_t)time(NULL));
  *good = result == SIGNATURE_VALID;
  return words[result];
}

static enum MHD_Result add_header(void *object, enum MHD_ValueKind kind, const char *name, const char *value) {
  (void)kind;
  char lower[128];
  size_t i = 0;
  for (; name[i] != '\0' && i < sizeof lower - 1; i++)
    lower[i] = (char)tolower((unsigned char)name[i]);
  lower[i] = '\0';
  json_object_set_new(object, lower, json_of_text(value == NULL ? "" : value));
  return MHD_YES;
}

static json_t *headers_of(struct MHD_Connection *connection) {
  json_t *headers = json_object();
  MHD_get_connection_values(connection, MHD_HEADER_KIND, add_header, headers);
  return headers;
}

/* Writes one file of a callback. */
static void store_file(const struct listener *listener, const char *name, const char *extension, const char *bytes,
                       size_t byte_count) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.%s", listener->directory, name, extension);
  FILE *file = fopen(path, "wb");
  bool written = file != NULL && fwrite(bytes, 1, byte_count, file) == byte_count;
  if (file != NULL && fclose(file) != 0)
    written = false;
  if (!written)
    tool_error("%s: %s", path, strerror(errno));
}

/* The body and, beside it, the headers; named after the webhook-id where that can be a name, else after the callback's
 * number. */
static void store(const struct listener *listener, struct MHD_Connection *connection, const struct callback *callback,
                  int64_t number) {
  const char *id = header(connection, "webhook-id"), *type = header(connection, MHD_HTTP_HEADER_CONTENT_TYPE);
  const char *extension = "bin";
  char numbered[32];
  snprintf(numbered, sizeof numbered, "callback-%06lld", (long long)number);
  if (id == NULL || id[0] == '.' || id[0] == '\0' || strlen(id) > 200 ||
      strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != strlen(id))
    id = numbered;
  if (type != NULL && strstr(type, "xml") != NULL)
    extension = "xml";
  else if (type != NULL && strstr(type, "json") != NULL)
    extension = "body.json";
  json_t *headers = headers_of(connection);
  char *text = json_dumps(headers, JSON_INDENT(2));
  json_decref(headers);
  if (text != NULL)
    store_file(listener, id, "json", text, strlen(text));
  free(text);
  /* The body last: whoever sees it finds the headers too. */
  store_file(listener, id, extension, callback->body, callback->byte_count);
}

static void print_json(struct MHD_Connection *connection, const char *path, const struct callback *callback,
                       int64_t number, unsigned status, const char *signature) {
  char now[VALUE_TEXT_BYTES], job[64], state[64];
  struct timespec clock;
  clock_gettime(CLOCK_REALTIME, &clock);
  value_format_time(clock.tv_sec, (int32_t)(clock.tv_nsec / 1000000 * 1000000), now);
  json_t *body = json_stringn(callback->body, callback->byte_count);
  json_t *line = json_pack("{s:I,s:s,s:o,s:s,s:o,s:o,s:i,s:o}", "number", (json_int_t)number, "time", now, "path",
                           json_of_text(path), "signature", signature, "jobId",
                           json_of_text(element_text(callback->body, "JobId", job)), "state",
                           json_of_text(element_text(callback->body, "State", state)), "status", (int)status, "headers",
                           headers_of(connection));
  if (body != NULL) {
    json_object_set_new(line, "body", body);
  } else {
    char *base64 = value_encode_base64((const uint8_t *)callback->body, callback->byte_count);
    json_object_set_new(line, "bodyBase64", json_string(base64));
    free(base64);
  }
  json_print_line(line);
}

static void print_text(const struct listener *listener, struct MHD_Connection *connection,
                       const struct callback *callback, unsigned status, const char *signature) {
  const struct tool *tool = listener->tool;
  char now[VALUE_TEXT_BYTES], job[64], state[64], answered[32] = "dropped";
  value_show_time((int64_t)time(NULL), now);
  const char *id = header(connection, "webhook-id");
  if (status != 0)
    snprintf(answered, sizeof answered, "answered %u", status);
  printf("%s%s  %s  %s%s  %s, signature %s\n", tool->color ? "\033[1m" : "", now, id == NULL ? "-" : safe_text(id),
         safe_text(element_text(callback->body, "JobId", job)), tool->color ? "\033[0m" : "", answered, signature);
  element_text(callback->body, "State", state);
  if (state[0] != '\0')
    printf("State %s\n", output_state(tool, safe_text(state)));
  char *body = malloc(callback->byte_count + 1);
  if (body != NULL) {
    memcpy(body, callback->body, callback->byte_count);
    fwrite(body, 1, safe_clean(body, callback->byte_count, true), stdout);
    free(body);
  }
  fputs("\n\n", stdout);
  fflush(stdout);
}

/* Numbers, prints and stores a callback that is there as a whole. Returns the status to answer with, 0 for none. */
static unsigned take(struct listener *listener, struct MHD_Connection *connection, const char *path,
                     struct callback *callback) {
  bool good;
  const char *signature = check(listener, connection, callback, &good);
  pthread_mutex_lock(&listener->mutex);
  int64_t number = ++listener->received;
  callback->counted = true;
  callback->last = listener->wanted_count > 0 && number >= listener->wanted_count;
  bool fail = listener->fail_count > 0 ? number <= listener->fail_count : listener->fail_status != 0 || listener->drop;
  unsigned status = good ? MHD_HTTP_OK : MHD_HTTP_UNAUTHORIZED;
  if (fail)
    status = listener->drop ? 0 : (unsigned)(listener->fail_status != 0 ? listener->fail_status : FAIL_STATUS);
  if (!good)
    listener->signature_failed = true;
  if (listener->tool->json)
    print_json(connection, path, callback, number, status, signature);
  else
    print_text(listener, connection, callback, status, signature);
  if (listener->directory != NULL)
    store(listener, connection, callback, number);
  pthread_mutex_unlock(&listener->mutex);
  return status;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path, const char *method,
                              const char *version, const char *bytes, size_t *byte_count, void **request) {
  (void)version;
  struct listener *listener = context;
  struct callback *callback = *request;
  if (callback == NULL) {
    *request = callback = calloc(1, sizeof *callback);
    return callback != NULL && callback_append(callback, "", 0) ? MHD_YES : MHD_NO;
  }
  if (*byte_count > 0) {
    if (!callback_append(callback, bytes, *byte_count))
      return MHD_NO;
    *byte_count = 0;
    return MHD_YES;
  }
  if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
    return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED);
  if (callback->too_long)
    return answer(connection, 413);
  unsigned status = take(listener, connection, path, callback);
  if (listener->delay_ms > 0) {
    struct timespec span = {listener->delay_ms / 1000, listener->delay_ms % 1000 * 1000000};
    nanosleep(&span, NULL);
  }
  return status == 0 ? MHD_NO : answer(connection, status);
}

static void completed(void *context, struct MHD_Connection *connection, void **request,
                      enum MHD_RequestTerminationCode code) {
  (void)context, (void)connection, (void)code;
  struct callback *callback = *request;
  if (callback == NULL)
    return;
  if (callback->last)
    kill(getpid(), DONE_SIGNAL);
  free(callback->body);
  free(callback);
  *request = NULL;
}

static bool read_listener(struct tool *tool, struct listener *listener) {
  size_t position = 0;
  listener->tool = tool;
  for (const char *secret; (secret = tool_next_text(tool, "secret", &position)) != NULL;) {
    if (listener->key_count == KEYS_MAX || !signature_read_key(secret, &listener->keys[listener->key_count++])) {
      tool_error("--secret: must be whsec_ and the base64 of 24 to 64 bytes, at most %d of them", KEYS_MAX);
      return false;
    }
  }
  listener->fail_count = tool_number(tool, "fail", 0);
  listener->fail_status = (int)tool_number(tool, "status", 0);
  listener->drop = tool_given(tool, "drop");
  if (!tool_exclude(tool, "drop", "status"))
    return false;
  if (inet_pton(AF_INET, tool_text(tool, "address", "127.0.0.1"), &(struct in_addr){0}) != 1) {
    tool_error("--address: \"%s\" is no IPv4 address", tool_text(tool, "address", ""));
    return false;
  }
  listener->delay_ms = tool_number(tool, "delay", 0);
  listener->wanted_count = tool_number(tool, "count", 0);
  listener->directory = tool_text(tool, "out", NULL);
  if (listener->directory != NULL && mkdir(listener->directory, 0777) != 0 && errno != EEXIST) {
    tool_error("%s: %s", listener->directory, strerror(errno));
    return false;
  }
  pthread_mutex_init(&listener->mutex, NULL);
  return true;
}

static struct MHD_Daemon *start(struct tool *tool, struct listener *listener) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  const char *text = tool_text(tool, "address", "127.0.0.1");
  uint16_t port = (uint16_t)tool_number(tool, "port", 8080);
  address.sin_port = htons(port);
  inet_pton(AF_INET, text, &address.sin_addr);
  struct MHD_Daemon *daemon =
      MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD, port, NULL, NULL, handle,
                       listener, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_NOTIFY_COMPLETED,
                       completed, listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_END);
  const union MHD_DaemonInfo *info = daemon == NULL ? NULL : MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
  if (info == NULL) {
    tool_error("cannot listen on %s port %u: %s", text, port, strerror(errno));
    return NULL;
  }
  char url[64];
  snprintf(url, sizeof url, "http://%s:%u/", text, info->port);
  if (tool->json)
    json_print_line(json_pack("{s:s,s:i}", "listening", url, "port", (int)info->port));
  else
    printf("Listening on %s\n", url);
  fflush(stdout);
  return daemon;
}

int command_listen(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  static struct listener listener;
  sigset_t signals;
  int caught;
  if (!read_listener(tool, &listener))
    return TOOL_USAGE;
  /* Blocked before there are threads, so that only sigwait takes them. */
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, DONE_SIGNAL);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  struct MHD_Daemon *daemon = start(tool, &listener);
  if (daemon == NULL)
    return TOOL_FAILED;
  sigwait(&signals, &caught);
  MHD_stop_daemon(daemon);
  pthread_mutex_destroy(&listener.mutex);
  return listener.signature_failed ? TOOL_FAILED : TOOL_OK;
}
