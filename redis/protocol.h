/* Redis's protocol: commands into bytes, bytes into replies. The only module that knows hiredis; no socket, no clock.
 */
#ifndef RINGBACK_REDIS_PROTOCOL_H
#define RINGBACK_REDIS_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>

struct buffer;
struct redis_value; /* redis/reply.h */

/* lengths NULL: the arguments are text. */
void protocol_append_command(struct buffer *buffer, size_t count, const char *const *arguments, const size_t *lengths);

struct protocol_reader;

struct protocol_reader *protocol_reader_create(void);
void protocol_reader_destroy(struct protocol_reader *reader); /* may be NULL */
void protocol_feed(struct protocol_reader *reader, const char *bytes, size_t length);
/* The next whole reply of what was fed, to be given to protocol_free; NULL: none yet. False: this is not the protocol,
 * and protocol_error says why. */
bool protocol_read(struct protocol_reader *reader, struct redis_value **reply);
const char *protocol_error(struct protocol_reader *reader); /* lives as long as the reader */
void protocol_free(struct redis_value *reply);

#endif
