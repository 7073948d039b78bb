/* One claimed delivery in the dispatcher's hands, from its claim to its settlement. Belongs to the dispatcher's thread.
 *
 *   FREEZING -> SENDING -> SETTLING -> freed
 *
 * A call of the store that Redis did not answer is asked again: freezing and settling may be repeated. A delivery whose
 * claim is lost is dropped; the store gives it to somebody when the claim runs out.
 */
#ifndef RINGBACK_SERVER_CALLBACK_DELIVERY_H
#define RINGBACK_SERVER_CALLBACK_DELIVERY_H

#include <stdatomic.h>
#include <stdbool.h>

#include "redis/store_callbacks.h"
#include "server/callback/dispatcher.h"
#include "server/callback/sender.h"

/* What deliveries share; the dispatcher owns it. */
struct delivery_set {
  struct store *store;
  struct sender *sender;
  struct arena *scratch;      /* of the body being rendered */
  size_t count;               /* in hand */
  size_t retries;             /* of them wait to ask the store again */
  struct delivery *first;     /* all of them */
  struct delivery *idle;      /* kept for the next ones */
  int64_t due_ms[PARTITIONS]; /* Redis's clock: when a partition's next delivery is due; 0: not known */
  int64_t clock_offset_us;    /* Redis's clock less the monotonic one, as the claims tell it */
  uint64_t random;
  uint64_t store_calls; /* queued so far, so that the dispatcher sees whether there is something to send */
  _Atomic uint64_t in_flight, claimed, attempts, delivered, retried, dead, dropped, attempt_ms, breakers_opened,
      breakers_closed;
  _Atomic uint64_t errors[CALLBACK_ERROR_COUNT];
};

/* Takes claims in hand, which were asked for at asked_us (monotonic). */
void delivery_begin(struct delivery_set *set, const struct store_claim *claims, size_t count, int64_t asked_us);

/* The store has ended so many for their age. */
void delivery_count_too_old(struct delivery_set *set, size_t deliveries);

/* A delivery of the partition is due then; 0: none is known. */
void delivery_set_due(struct delivery_set *set, unsigned partition, int64_t due_ms);

/* Asks the store again where it did not answer; call it every now and then. */
void delivery_retry_store(struct delivery_set *set, int64_t now_us);

/* Forgets everything in hand. The store and the sender must not run continuations afterwards. */
void delivery_drop_all(struct delivery_set *set);

#endif
