/* Each name has one place; a later one with the same place takes it over. */
#include "server/services/nearby.h"

#include "server/services/page_token.h"

static uint64_t name_of(const char *bucket, const char *queue) {
  return hash_text(hash_text(hash_text(HASH_START, bucket), "/"), queue);
}

static struct nearby_queue *place_of(struct nearby *nearby, uint64_t name) {
  return &nearby->places[(name ^ (name >> 32)) % NEARBY_PLACES];
}

void nearby_learn(struct nearby *nearby, const char *bucket, const char *const *queues, const uint64_t *keys,
                  size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint64_t name = name_of(bucket, queues[i]);
    *place_of(nearby, name) = (struct nearby_queue){name, keys[i]};
  }
}

void nearby_offer(struct nearby *nearby, struct rpc_call *call, const char *bucket, const char *queue) {
  uint64_t name = name_of(bucket, queue);
  const struct nearby_queue *place = place_of(nearby, name);
  if (place->name == name && rpc_wake_beside(call, place->key))
    rpc_reply_behind(call);
}
