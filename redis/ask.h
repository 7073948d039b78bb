/* A question to a server, and the wait for its answer: for the start and the upkeep of the embedded server, where
 * nothing else runs that could be held up.
 */
#ifndef RINGBACK_REDIS_ASK_H
#define RINGBACK_REDIS_ASK_H

#include "redis/connection.h"

/* Connects where needed, again and again for as long as the time allows, and calls done once with the answer. False:
 * none came in time and done was not called; *reason is why, and lives as long as the connection. */
bool redis_ask(struct redis_connection *connection, int timeout_ms, const char *const *words, size_t count,
               redis_reply_done *done, void *context, const char **reason);

#endif
