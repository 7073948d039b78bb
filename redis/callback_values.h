/* What store_rules.c and store_callbacks.c share: lists that Redis keeps as one text, and calls about a queue. */
#ifndef RINGBACK_REDIS_CALLBACK_VALUES_H
#define RINGBACK_REDIS_CALLBACK_VALUES_H

#include "redis/call.h"
#include "redis/store_callbacks.h"

/* A call whose first arguments are a bucket and a queue's name. */
struct store_call *call_create_for_queue(struct store *store, const char *function, const char *bucket,
                                         const char *queue, call_answer *answer, void (*done)(void), void *context);

/* Lines; none contains a line feed. */
const char *const *split_lines(struct arena *arena, const char *text, size_t *count);
/* Lines `name:value`. */
const struct store_header *split_headers(struct arena *arena, const char *text, size_t *count);
/* Numbers with commas. */
const int64_t *split_numbers(struct arena *arena, const char *text, size_t *count);

#endif
