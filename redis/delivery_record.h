/* What the store packs of a delivery, so that the functions pass it on without opening it: its id, an attempt, a body.
 * Only delivery_record.c and redis/functions/15_deliveries.lua know these layouts.
 */
#ifndef RINGBACK_REDIS_DELIVERY_RECORD_H
#define RINGBACK_REDIS_DELIVERY_RECORD_H

#include "redis/store_callbacks.h"
#include "server/base/arena.h"

/* As text: cb_<job>_<event>_<run>, or a test's, which is the same in both forms. A text that is neither stays as it is:
 * no delivery has it. */
struct bytes delivery_id_parse(struct arena *arena, const char *text);
const char *delivery_id_format(struct arena *arena, struct bytes id, struct job_id *job, int *event);

/* Texts beyond what a length field holds are cut. */
struct bytes attempt_pack(struct arena *arena, const struct store_settlement *settlement);
/* The attempts of a log, the last of which has this number. NULL: it cannot be read. */
const struct store_attempt *attempts_unpack(struct arena *arena, struct bytes log, size_t count, int last_number);

struct bytes body_pack(struct arena *arena, const struct store_body *body);
/* False: it cannot be read. The parts point into `packed` but for the texts. */
bool body_unpack(struct arena *arena, struct bytes packed, struct store_body *body);

#endif
