/* One connection to Redis. It never blocks; whoever waits does so with poll on its descriptor.
 *
 * Connecting includes AUTH, SELECT and loading the function library where it is not there yet; until that is done
 * commands wait. After any error the connection is closed, every command that was not answered gets a NULL reply, and a
 * later redis_connection_start tries again (no sooner than 100 ms after the last try, doubling to 2 s).
 */
#ifndef RINGBACK_REDIS_CONNECTION_H
#define RINGBACK_REDIS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "redis/reply.h"

/* Where Redis is. */
struct redis_target {
  char *unix_path; /* NULL: tcp */
  char *host;
  int port;
  char *user, *password; /* NULL: none */
  int database;
};

/* redis://[user:password@]host[:port][/db], unix:///path[?db=N] (also redis+unix://, with user:password@). rediss:// is
 * refused with a clear reason. False: *reason is a sentence for people. */
bool redis_target_parse(const char *url, struct redis_target *target, const char **reason);
void redis_target_clear(struct redis_target *target);
/* Without the password, for logs. */
void redis_target_describe(const struct redis_target *target, char *text, size_t size);

struct redis_connection;

/* reply NULL: the connection was lost before the answer came. */
typedef void redis_reply_done(void *context, const struct redis_value *reply);
/* Messages of a subscription. */
typedef void redis_message(void *context, const char *payload, size_t length);

/* target must outlive it. */
struct redis_connection *redis_connection_create(const struct redis_target *target);
/* One that neither wants the function library nor minds a replica or a server that is still loading: for questions
 * about the server. */
struct redis_connection *redis_connection_create_plain(const struct redis_target *target);
void redis_connection_destroy(
    struct redis_connection *connection); /* pending commands get NULL first; not in a callback */

/* Begins to connect if not connected and a try is due; gives up a try that has taken 10 s. */
void redis_connection_start(struct redis_connection *connection);
bool redis_connection_is_up(const struct redis_connection *connection);   /* connected, authenticated, library loaded */
bool redis_connection_is_down(const struct redis_connection *connection); /* neither up nor on the way */
/* Why it is down, "" if it is not. */
const char *redis_connection_error(const struct redis_connection *connection);
uint64_t redis_connection_reconnects(const struct redis_connection *connection);

/* Queues one command; arguments are copied. Down: the callback gets NULL at once. Commands queued while connecting are
 * sent once it is up. */
void redis_command(struct redis_connection *connection, size_t count, const char *const *arguments,
                   const size_t *lengths, redis_reply_done *done, void *context);
/* One channel a connection; from then on the only command it takes is PING. Subscribes (again after each reconnection,
 * for as long as it lives); `subscribed` runs after each time it took effect. */
void redis_subscribe(struct redis_connection *connection, const char *channel, redis_message *message,
                     void (*subscribed)(void *context), void *context);

int redis_fd(const struct redis_connection *connection); /* -1: down */
bool redis_wants_write(const struct redis_connection *connection);
size_t redis_pending(const struct redis_connection *connection); /* commands not yet answered */
/* Milliseconds since the oldest unanswered command was queued or the connecting began; 0: nothing waits. */
int64_t redis_waiting_ms(const struct redis_connection *connection);
/* Writes and reads what it can without blocking, and runs callbacks. */
void redis_progress(struct redis_connection *connection);
/* Closes it: whoever waits gets NULL. */
void redis_connection_close(struct redis_connection *connection, const char *why);

#endif
