/* The body of a claimed delivery at its first attempt: from the job's record in the store, or made up for a test, to
 * bytes. */
#ifndef RINGBACK_SERVER_CALLBACK_CLAIM_BODY_H
#define RINGBACK_SERVER_CALLBACK_CLAIM_BODY_H

#include "redis/store_callbacks.h"
#include "server/base/arena.h"

/* Everything lives in the arena. NULL, or why there is nothing to send (static): the job is gone, or its record cannot
 * be read. */
const char *claim_body_render(struct arena *arena, const struct store_claim *claim, int64_t now_ms,
                              struct store_body *body);

#endif
