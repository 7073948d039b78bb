/* The commands are written here, the replies are read by hiredis. */
#include "redis/protocol.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#include "redis/buffer.h"
#include "redis/reply.h"

/* --- commands --- */

/* What a count or a length looks like in the protocol. */
static void append_header(struct buffer *buffer, char kind, size_t number) {
  char text[24];
  size_t at = sizeof text;
  text[--at] = '\n';
  text[--at] = '\r';
  do
    text[--at] = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  text[--at] = kind;
  buffer_append(buffer, text + at, sizeof text - at);
}

/* hiredis would format it with sprintf into memory of its own, to be copied from there: a twentieth of the server's
 * CPU.
 */
void protocol_append_command(struct buffer *buffer, size_t count, const char *const *arguments, const size_t *lengths) {
  append_header(buffer, '*', count);
  for (size_t i = 0; i < count; i++) {
    size_t length = lengths ? lengths[i] : strlen(arguments[i]);
    append_header(buffer, '$', length);
    buffer_append(buffer, arguments[i], length);
    buffer_append(buffer, "\r\n", 2);
  }
}

/* --- the reader: a redisReader under another name, as a redis_value is a redisReply --- */

static redisReader *as_reader(struct protocol_reader *reader) {
  return (redisReader *)reader;
}

struct protocol_reader *protocol_reader_create(void) {
  redisReader *reader = redisReaderCreate();
  if (!reader)
    abort();
  return (struct protocol_reader *)reader;
}

void protocol_reader_destroy(struct protocol_reader *reader) {
  if (reader)
    redisReaderFree(as_reader(reader));
}

void protocol_feed(struct protocol_reader *reader, const char *bytes, size_t length) {
  redisReaderFeed(as_reader(reader), bytes, length);
}

bool protocol_read(struct protocol_reader *reader, struct redis_value **reply) {
  void *whole = NULL;
  bool understood = redisReaderGetReply(as_reader(reader), &whole) == REDIS_OK;
  *reply = whole;
  return understood;
}

const char *protocol_error(struct protocol_reader *reader) {
  return as_reader(reader)->errstr;
}

void protocol_free(struct redis_value *reply) {
  freeReplyObject(reply);
}

/* --- replies --- */

static const redisReply nil = {.type = REDIS_REPLY_NIL};

static const redisReply *as_reply(const struct redis_value *value) {
  return (const redisReply *)value;
}

enum redis_kind redis_kind(const struct redis_value *value) {
  switch (as_reply(value)->type) {
  case REDIS_REPLY_INTEGER:
    return REDIS_INTEGER;
  case REDIS_REPLY_STRING:
  case REDIS_REPLY_STATUS:
    return REDIS_TEXT;
  case REDIS_REPLY_ARRAY:
    return REDIS_ARRAY;
  case REDIS_REPLY_ERROR:
    return REDIS_ERROR;
  default:
    return REDIS_NIL;
  }
}

const char *redis_text(const struct redis_value *value, size_t *length) {
  enum redis_kind kind = redis_kind(value);
  bool text = (kind == REDIS_TEXT || kind == REDIS_ERROR) && as_reply(value)->str;
  if (length)
    *length = text ? (size_t)as_reply(value)->len : 0;
  return text ? as_reply(value)->str : "";
}

int64_t redis_integer(const struct redis_value *value) {
  if (redis_kind(value) == REDIS_INTEGER)
    return as_reply(value)->integer;
  return redis_kind(value) == REDIS_TEXT ? strtoll(redis_text(value, NULL), NULL, 10) : 0;
}

size_t redis_count(const struct redis_value *value) {
  return redis_kind(value) == REDIS_ARRAY ? as_reply(value)->elements : 0;
}

const struct redis_value *redis_at(const struct redis_value *value, size_t index) {
  const redisReply *reply = index < redis_count(value) ? as_reply(value)->element[index] : &nil;
  return (const struct redis_value *)reply;
}
