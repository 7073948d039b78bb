/* A connection is a socket, a reader of the protocol, bytes to send, and the commands whose replies are still to come,
 * in order. It goes
 *
 *   DOWN -> RESOLVING -> CONNECTING -> SETUP -> UP -> DOWN
 *
 * and drops to DOWN from anywhere on any error. SETUP sends AUTH, SELECT, ROLE and FUNCTION LIST in one write and,
 * where the library is not there yet, FUNCTION LOAD. Commands queued before it is UP wait in `pending` and `waiting`.
 * Nothing here blocks.
 */
#include "redis/connection.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "redis/buffer.h"
#include "redis/library.h"
#include "redis/protocol.h"
#include "redis/resolve.h"
#include "server/base/clock.h"
#include "server/base/log.h"

enum {
  BACKOFF_MIN_MS = 100,
  BACKOFF_MAX_MS = 2000,
  CONNECT_MS_MAX = 10000, /* from the start to UP; the next try may reach another address */
  READ_BYTES = 64 * 1024,
  READS_A_TURN_MAX = 32,
  REPLY_BYTES_MAX = 256 << 20,  /* of one reply; more is a broken server */
  UNSENT_BYTES_MAX = 256 << 20, /* more means that nobody looks after the waiting time */
  SETUP_STEPS_MAX = 6,
  ERROR_BYTES = 256,
};

enum state { DOWN, RESOLVING, CONNECTING, SETUP, UP };
enum setup_step { STEP_AUTH, STEP_SELECT, STEP_ROLE, STEP_LIST, STEP_LOAD };

struct pending {
  redis_reply_done *done;
  void *context;
  int64_t queued_ms;
};

struct redis_connection {
  const struct redis_target *target;
  bool plain;
  enum state state;
  bool in_progress;
  unsigned generation; /* changes with every drop: tells a loop that a callback closed what it was reading */

  struct resolution *resolution;       /* RESOLVING, and CONNECTING while addresses are left */
  const struct addrinfo *next_address; /* CONNECTING: to try when this one fails */
  int fd;                              /* -1 before CONNECTING */
  struct protocol_reader *reader;      /* SETUP and UP */
  size_t partial_bytes;                /* read since the last whole reply */
  struct buffer out;                   /* bytes that may be sent now */
  struct buffer waiting;               /* commands that wait for UP */

  enum setup_step steps[SETUP_STEPS_MAX];
  size_t step_count, step_at;
  bool missing_function; /* dropped for that, and the library has not been found missing since */

  struct pending *pending; /* a ring: pending_count from pending_first */
  size_t pending_first, pending_count, pending_capacity;

  char *channel; /* NULL: no subscription */
  redis_message *message;
  void (*subscribed)(void *context);
  void *subscription_context;

  int64_t try_ms, backoff_ms; /* of the last try to connect */
  uint64_t ups;
  char error[ERROR_BYTES];
};

static int64_t now_ms(void) {
  return clock_monotonic_us() / 1000;
}

static void *must(void *memory) {
  if (!memory)
    abort();
  return memory;
}

/* --- the ring of pending commands --- */

static void push_pending(struct redis_connection *connection, redis_reply_done *done, void *context) {
  if (connection->pending_count == connection->pending_capacity) {
    size_t capacity = connection->pending_capacity ? connection->pending_capacity * 2 : 64;
    struct pending *ring = must(calloc(capacity, sizeof *ring));
    for (size_t i = 0; i < connection->pending_count; i++)
      ring[i] = connection->pending[(connection->pending_first + i) % connection->pending_capacity];
    free(connection->pending);
    connection->pending = ring;
    connection->pending_capacity = capacity;
    connection->pending_first = 0;
  }
  size_t last = (connection->pending_first + connection->pending_count++) % connection->pending_capacity;
  connection->pending[last] = (struct pending){done, context, now_ms()};
}

static struct pending pop_pending(struct redis_connection *connection) {
  struct pending first = connection->pending[connection->pending_first];
  connection->pending_first = (connection->pending_first + 1) % connection->pending_capacity;
  connection->pending_count--;
  return first;
}

static void append_words(struct buffer *buffer, size_t count, const char *const *words) {
  protocol_append_command(buffer, count, words, NULL);
}

/* --- losing it --- */

static void close_socket(struct redis_connection *connection) {
  if (connection->fd >= 0)
    close(connection->fd);
  connection->fd = -1;
  protocol_reader_destroy(connection->reader);
  connection->reader = NULL;
  connection->partial_bytes = 0;
}

static void stop_resolving(struct redis_connection *connection) {
  resolution_release(connection->resolution);
  connection->resolution = NULL;
  connection->next_address = NULL;
}

static void drop(struct redis_connection *connection, const char *why, const char *detail) {
  if (connection->state == DOWN)
    return;
  close_socket(connection);
  stop_resolving(connection);
  buffer_clear(&connection->out);
  buffer_clear(&connection->waiting);
  connection->state = DOWN;
  connection->generation++;
  int64_t next_ms = connection->backoff_ms * 2;
  connection->backoff_ms = next_ms < BACKOFF_MIN_MS   ? BACKOFF_MIN_MS
                           : next_ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS
                                                      : next_ms;
  snprintf(connection->error, sizeof connection->error, "%s%s%s", why, detail ? ": " : "", detail ? detail : "");
  /* Callbacks may start it again and queue: those commands go to a ring of their own. */
  struct pending *ring = connection->pending;
  size_t first = connection->pending_first, count = connection->pending_count, capacity = connection->pending_capacity;
  connection->pending = NULL;
  connection->pending_first = connection->pending_count = connection->pending_capacity = 0;
  for (size_t i = 0; i < count; i++) {
    struct pending *lost = &ring[(first + i) % capacity];
    lost->done(lost->context, NULL);
  }
  free(ring);
}

static void drop_errno(struct redis_connection *connection, const char *why, int error) {
  drop(connection, why, strerror(error));
}

void redis_connection_close(struct redis_connection *connection, const char *why) {
  drop(connection, why, NULL);
}

/* --- setup --- */

static void add_step(struct redis_connection *connection, enum setup_step step, size_t count,
                     const char *const *words) {
  assert(connection->step_count < SETUP_STEPS_MAX);
  connection->steps[connection->step_count++] = step;
  append_words(&connection->out, count, words);
}

static void begin_setup(struct redis_connection *connection) {
  const struct redis_target *target = connection->target;
  connection->state = SETUP;
  connection->reader = protocol_reader_create();
  connection->step_count = connection->step_at = 0;
  if (target->password && target->user)
    add_step(connection, STEP_AUTH, 3, (const char *[]){"AUTH", target->user, target->password});
  else if (target->password)
    add_step(connection, STEP_AUTH, 2, (const char *[]){"AUTH", target->password});
  char number[16];
  snprintf(number, sizeof number, "%d", target->database);
  /* Always, so that a plain connection too has one answer that shows whether it is let in. */
  add_step(connection, STEP_SELECT, 2, (const char *[]){"SELECT", number});
  if (connection->plain)
    return;
  add_step(connection, STEP_ROLE, 1, (const char *[]){"ROLE"});
  add_step(connection, STEP_LIST, 4, (const char *[]){"FUNCTION", "LIST", "LIBRARYNAME", redis_library_name()});
}

static void become_up(struct redis_connection *connection) {
  connection->state = UP;
  connection->ups++;
  connection->backoff_ms = 0;
  connection->error[0] = 0;
  buffer_append(&connection->out, connection->waiting.data + connection->waiting.start,
                buffer_length(&connection->waiting));
  buffer_clear(&connection->waiting);
  if (connection->channel)
    append_words(&connection->out, 2, (const char *[]){"SUBSCRIBE", connection->channel});
}

static bool begins(const char *text, const char *prefix) {
  return !strncmp(text, prefix, strlen(prefix));
}

/* Errors that say something of the server rather than of a command: NULL for others. */
static const char *server_error(const char *text) {
  static const struct {
    const char *prefix, *meaning;
  } errors[] = {
      {"LOADING", "Redis is still loading its data"},
      {"READONLY", "this Redis is a read-only replica; name the primary"},
      {"MASTERDOWN", "this Redis is a replica without its primary"},
      {"NOAUTH", "Redis asks for a password"},
      {"WRONGPASS", "Redis refuses the user or password"},
  };
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (begins(text, errors[i].prefix))
      return errors[i].meaning;
  return NULL;
}

static void setup_failed(struct redis_connection *connection, enum setup_step step, const char *text) {
  static const char *const doing[] = {
      [STEP_AUTH] = "Redis refuses the user or password",
      [STEP_SELECT] = "Redis refuses the database",
      [STEP_ROLE] = "Redis refuses ROLE",
      [STEP_LIST] = "Redis refuses FUNCTION LIST (version 7 or later is needed)",
      [STEP_LOAD] = "Redis refuses to load the function library",
  };
  const char *meaning = server_error(text);
  drop(connection, meaning ? meaning : doing[step], text);
}

static void setup_reply(struct redis_connection *connection, const struct redis_value *reply) {
  enum setup_step step = connection->steps[connection->step_at++];
  if (redis_kind(reply) == REDIS_ERROR) {
    const char *text = redis_text(reply, NULL);
    bool harmless = (step == STEP_ROLE && !server_error(text)) ||
                    (step == STEP_LOAD && begins(text, "ERR Library") && strstr(text, "already exists"));
    if (!harmless) {
      setup_failed(connection, step, text);
      return;
    }
  } else if (step == STEP_ROLE && !strcmp(redis_text(redis_at(reply, 0), NULL), "slave")) {
    setup_failed(connection, step, "READONLY");
    return;
  } else if (step == STEP_LIST && redis_count(reply) == 0) {
    connection->missing_function = false;
    add_step(connection, STEP_LOAD, 3, (const char *[]){"FUNCTION", "LOAD", redis_library_source});
  } else if (step == STEP_LOAD) {
    log_event(LOG_INFO, "function library loaded", log_text("name", redis_library_name()));
  }
  if (connection->step_at == connection->step_count)
    become_up(connection);
}

/* --- connecting --- */

static void set_socket_options(int fd) {
  static const struct {
    int level, option, value;
  } options[] = {
      {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1}, {IPPROTO_TCP, TCP_KEEPIDLE, 15},
      {IPPROTO_TCP, TCP_KEEPINTVL, 5}, {IPPROTO_TCP, TCP_KEEPCNT, 3},
  };
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof options[i].value);
}

static bool open_socket(struct redis_connection *connection, int family) {
  connection->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection->fd < 0)
    return false;
  if (family != AF_UNIX)
    set_socket_options(connection->fd);
  return true;
}

static void connect_unix(struct redis_connection *connection) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = connection->target->unix_path;
  connection->state = CONNECTING;
  if (strlen(path) >= sizeof address.sun_path) {
    drop(connection, "the path of the Unix socket is longer than 107 bytes", path);
    return;
  }
  memcpy(address.sun_path, path, strlen(path) + 1);
  if (!open_socket(connection, AF_UNIX) || connect(connection->fd, (struct sockaddr *)&address, sizeof address)) {
    char why[ERROR_BYTES];
    int error = errno;
    snprintf(why, sizeof why, "cannot connect to %s", path);
    drop_errno(connection, why, error);
    return;
  }
  begin_setup(connection);
}

static void connect_failed(struct redis_connection *connection, int error) {
  char why[ERROR_BYTES];
  snprintf(why, sizeof why, "cannot connect to %s port %d", connection->target->host, connection->target->port);
  drop_errno(connection, why, error);
}

/* Tries the addresses of the host in turn until one connects or is on the way. */
static void connect_next_address(struct redis_connection *connection) {
  int error = EADDRNOTAVAIL;
  connection->state = CONNECTING;
  while (connection->next_address) {
    const struct addrinfo *address = connection->next_address;
    connection->next_address = address->ai_next;
    if (open_socket(connection, address->ai_family)) {
      if (connect(connection->fd, address->ai_addr, address->ai_addrlen) == 0) {
        stop_resolving(connection);
        begin_setup(connection);
        return;
      }
      if (errno == EINPROGRESS)
        return;
    }
    error = errno;
    close_socket(connection);
  }
  connect_failed(connection, error);
}

static void check_resolution(struct redis_connection *connection) {
  int error;
  if (!resolution_result(connection->resolution, &connection->next_address, &error))
    return;
  if (error) {
    char why[ERROR_BYTES];
    snprintf(why, sizeof why, "cannot find the host %s", connection->target->host);
    drop(connection, why, gai_strerror(error));
    return;
  }
  connect_next_address(connection);
}

static void check_connecting(struct redis_connection *connection) {
  int error = 0;
  socklen_t length = sizeof error;
  struct sockaddr_storage peer;
  socklen_t peer_length = sizeof peer;
  getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error && connection->next_address) {
    close_socket(connection);
    connect_next_address(connection);
  } else if (error) {
    connect_failed(connection, error);
  } else if (getpeername(connection->fd, (struct sockaddr *)&peer, &peer_length) == 0) {
    stop_resolving(connection);
    begin_setup(connection);
  }
}

void redis_connection_start(struct redis_connection *connection) {
  int64_t now = now_ms();
  if (connection->state != DOWN && connection->state != UP && now > connection->try_ms + CONNECT_MS_MAX)
    drop(connection, "Redis did not answer while connecting", NULL);
  if (connection->state != DOWN || (connection->try_ms && now < connection->try_ms + connection->backoff_ms))
    return;
  connection->try_ms = now;
  if (connection->target->unix_path) {
    connect_unix(connection);
    return;
  }
  connection->state = RESOLVING;
  connection->resolution = resolution_start(connection->target->host, connection->target->port);
  if (connection->resolution)
    check_resolution(connection);
  else
    drop(connection, "no thread for looking up the host", NULL);
}

/* --- traffic --- */

static void user_reply(struct redis_connection *connection, const struct redis_value *reply) {
  const char *text = redis_kind(reply) == REDIS_ERROR ? redis_text(reply, NULL) : "";
  if (!connection->plain && *text) {
    const char *meaning = server_error(text);
    if (meaning) {
      drop(connection, meaning, text);
      return;
    }
    /* A FUNCTION FLUSH or a failover took the library away: the next setup loads it. When that finds it in its place,
     * the function is not part of it and the next such call gets the error as its answer. */
    if (strstr(text, "Function not found")) {
      connection->missing_function = !connection->missing_function;
      if (connection->missing_function) {
        drop(connection, "Redis has lost the function library", NULL);
        return;
      }
    }
  }
  if (!connection->pending_count) {
    drop(connection, "Redis sent an answer to nothing", *text ? text : NULL);
    return;
  }
  struct pending first = pop_pending(connection);
  first.done(first.context, reply);
}

/* True when it belonged to the subscription. */
static bool subscription_reply(struct redis_connection *connection, const struct redis_value *reply) {
  if (!connection->channel || redis_count(reply) != 3)
    return false;
  const char *kind = redis_text(redis_at(reply, 0), NULL);
  if (!strcmp(kind, "subscribe")) {
    if (connection->subscribed)
      connection->subscribed(connection->subscription_context);
    return true;
  }
  if (strcmp(kind, "message"))
    return false;
  size_t length;
  const char *payload = redis_text(redis_at(reply, 2), &length);
  connection->message(connection->subscription_context, payload, length);
  return true;
}

static void take_reply(struct redis_connection *connection, const struct redis_value *reply) {
  if (connection->state == SETUP)
    setup_reply(connection, reply);
  else if (!subscription_reply(connection, reply))
    user_reply(connection, reply);
}

/* Hands out every whole reply that has been read. */
static void take_replies(struct redis_connection *connection) {
  unsigned generation = connection->generation;
  while (connection->generation == generation) {
    struct redis_value *reply;
    if (!protocol_read(connection->reader, &reply)) {
      drop(connection, "Redis does not speak its protocol", protocol_error(connection->reader));
      return;
    }
    if (!reply)
      return;
    connection->partial_bytes = 0;
    take_reply(connection, reply);
    protocol_free(reply);
  }
}

static void read_some(struct redis_connection *connection) {
  static _Thread_local char bytes[READ_BYTES];
  unsigned generation = connection->generation;
  for (int turn = 0; turn < READS_A_TURN_MAX && connection->generation == generation; turn++) {
    ssize_t length = recv(connection->fd, bytes, sizeof bytes, 0);
    if (length < 0 && errno == EINTR)
      continue;
    if (length < 0 && errno == EAGAIN)
      return;
    if (length < 0) {
      drop_errno(connection, "the connection to Redis broke", errno);
      return;
    }
    if (length == 0) {
      drop(connection, "Redis closed the connection", NULL);
      return;
    }
    connection->partial_bytes += (size_t)length;
    protocol_feed(connection->reader, bytes, (size_t)length);
    take_replies(connection);
    if (connection->generation == generation && connection->partial_bytes > REPLY_BYTES_MAX) {
      drop(connection, "a reply of Redis is too large", NULL);
      return;
    }
    if ((size_t)length < sizeof bytes)
      return;
  }
}

static void write_some(struct redis_connection *connection) {
  struct buffer *out = &connection->out;
  while (buffer_length(out)) {
    ssize_t length = send(connection->fd, out->data + out->start, buffer_length(out), MSG_NOSIGNAL);
    if (length < 0 && errno == EINTR)
      continue;
    if (length < 0 && errno == EAGAIN)
      return;
    if (length < 0) {
      /* Redis may have said why before it closed. */
      int error = errno;
      unsigned generation = connection->generation;
      read_some(connection);
      if (connection->generation == generation)
        drop_errno(connection, "the connection to Redis broke", error);
      return;
    }
    out->start += (size_t)length;
  }
  buffer_clear(out);
}

void redis_progress(struct redis_connection *connection) {
  if (connection->in_progress)
    return;
  connection->in_progress = true;
  if (connection->state == RESOLVING)
    check_resolution(connection);
  if (connection->state == CONNECTING)
    check_connecting(connection);
  if (connection->state >= SETUP)
    write_some(connection);
  if (connection->state >= SETUP)
    read_some(connection);
  /* What the replies led to, such as the commands that waited for the setup. */
  if (connection->state >= SETUP)
    write_some(connection);
  connection->in_progress = false;
}

void redis_command(struct redis_connection *connection, size_t count, const char *const *arguments,
                   const size_t *lengths, redis_reply_done *done, void *context) {
  if (connection->state == DOWN) {
    done(context, NULL);
    return;
  }
  struct buffer *buffer = connection->state == UP ? &connection->out : &connection->waiting;
  protocol_append_command(buffer, count, arguments, lengths);
  push_pending(connection, done, context);
  if (buffer_length(buffer) > UNSENT_BYTES_MAX)
    drop(connection, "too much is waiting to be sent to Redis", NULL);
}

void redis_subscribe(struct redis_connection *connection, const char *channel, redis_message *message,
                     void (*subscribed)(void *context), void *context) {
  if (connection->channel)
    abort();
  connection->channel = must(strdup(channel));
  connection->message = message;
  connection->subscribed = subscribed;
  connection->subscription_context = context;
  if (connection->state == UP)
    append_words(&connection->out, 2, (const char *[]){"SUBSCRIBE", channel});
}

/* --- what is asked of it --- */

static struct redis_connection *create(const struct redis_target *target, bool plain) {
  struct redis_connection *connection = must(calloc(1, sizeof *connection));
  connection->target = target;
  connection->plain = plain;
  connection->fd = -1;
  snprintf(connection->error, sizeof connection->error, "not connected yet");
  return connection;
}

struct redis_connection *redis_connection_create(const struct redis_target *target) {
  return create(target, false);
}

struct redis_connection *redis_connection_create_plain(const struct redis_target *target) {
  return create(target, true);
}

void redis_connection_destroy(struct redis_connection *connection) {
  if (!connection)
    return;
  drop(connection, "closed", NULL);
  free(connection->pending);
  buffer_close(&connection->out);
  buffer_close(&connection->waiting);
  free(connection->channel);
  free(connection);
}

bool redis_connection_is_up(const struct redis_connection *connection) {
  return connection->state == UP;
}

bool redis_connection_is_down(const struct redis_connection *connection) {
  return connection->state == DOWN;
}

const char *redis_connection_error(const struct redis_connection *connection) {
  return connection->state == DOWN ? connection->error : "";
}

uint64_t redis_connection_reconnects(const struct redis_connection *connection) {
  return connection->ups ? connection->ups - 1 : 0;
}

int redis_fd(const struct redis_connection *connection) {
  return connection->state == RESOLVING ? resolution_fd(connection->resolution) : connection->fd;
}

bool redis_wants_write(const struct redis_connection *connection) {
  return connection->state == CONNECTING || (connection->state >= SETUP && buffer_length(&connection->out));
}

size_t redis_pending(const struct redis_connection *connection) {
  return connection->pending_count;
}

int64_t redis_waiting_ms(const struct redis_connection *connection) {
  int64_t since;
  if (connection->state == RESOLVING || connection->state == CONNECTING || connection->state == SETUP)
    since = connection->try_ms;
  else if (connection->pending_count)
    since = connection->pending[connection->pending_first].queued_ms;
  else
    return 0;
  int64_t waited = now_ms() - since;
  return waited > 0 ? waited : 1;
}
