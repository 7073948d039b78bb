/* Calls that wait: for one of their keys, for a time, for the end of the server.
 *
 * A parked call has a waiter for each of its keys. Waiters stand in buckets, by hash of the key, ordered by ticket; a
 * call draws its ticket when it first parks and keeps it, so one that was tried in vain stands where it stood. All
 * parked calls are in one heap, by until_ms. Waiters are the call's own memory; the buckets are as many as calls may
 * park: nothing is allocated while calls come and go.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/rpc/bridge.h"

#define BUCKETS_MIN 64
#define BUCKETS_MAX 65536

static void *grow(void *array, size_t *capacity, size_t element_bytes) {
  *capacity = *capacity ? *capacity * 2 : 64;
  array = realloc(array, *capacity * element_bytes);
  if (!array)
    abort();
  return array;
}

void park_open(struct park_lot *lot, size_t parked_max) {
  size_t count = BUCKETS_MIN;
  while (count < parked_max && count < BUCKETS_MAX)
    count *= 2;
  memset(lot, 0, sizeof *lot);
  lot->bucket_mask = count - 1;
  lot->buckets = calloc(count, sizeof *lot->buckets);
  if (!lot->buckets)
    abort();
}

void park_close(struct park_lot *lot) {
  assert(lot->heap_count == 0);
  free(lot->buckets);
  free(lot->heap);
  free(lot->scratch);
  free(lot->trials);
}

static struct park_bucket *bucket_of(struct park_lot *lot, uint64_t key) {
  uint64_t mixed = key * UINT64_C(0x9E3779B97F4A7C15);
  return &lot->buckets[(mixed >> 32) & lot->bucket_mask];
}

/* --- the heap --- */

static void heap_put(struct park_lot *lot, size_t index, struct rpc_call *call) {
  lot->heap[index] = call;
  call->park_index = index;
}

static void heap_up(struct park_lot *lot, size_t index) {
  struct rpc_call *call = lot->heap[index];
  while (index > 0) {
    size_t parent = (index - 1) / 2;
    if (lot->heap[parent]->park_until_ms <= call->park_until_ms)
      break;
    heap_put(lot, index, lot->heap[parent]);
    index = parent;
  }
  heap_put(lot, index, call);
}

static void heap_down(struct park_lot *lot, size_t index) {
  struct rpc_call *call = lot->heap[index];
  for (;;) {
    size_t child = index * 2 + 1;
    if (child >= lot->heap_count)
      break;
    if (child + 1 < lot->heap_count && lot->heap[child + 1]->park_until_ms < lot->heap[child]->park_until_ms)
      child++;
    if (call->park_until_ms <= lot->heap[child]->park_until_ms)
      break;
    heap_put(lot, index, lot->heap[child]);
    index = child;
  }
  heap_put(lot, index, call);
}

static void heap_add(struct park_lot *lot, struct rpc_call *call) {
  if (lot->heap_count == lot->heap_capacity) {
    lot->heap = grow(lot->heap, &lot->heap_capacity, sizeof(struct rpc_call *));
    lot->scratch = realloc(lot->scratch, lot->heap_capacity * sizeof(struct rpc_call *));
    if (!lot->scratch)
      abort();
  }
  heap_put(lot, lot->heap_count, call);
  heap_up(lot, lot->heap_count++);
}

static void heap_remove(struct park_lot *lot, struct rpc_call *call) {
  size_t index = call->park_index;
  struct rpc_call *last = lot->heap[--lot->heap_count];
  if (last == call)
    return;
  heap_put(lot, index, last);
  heap_up(lot, index);
  heap_down(lot, last->park_index);
}

/* --- waiters --- */

static void waiter_insert(struct park_lot *lot, struct park_waiter *waiter) {
  struct park_bucket *bucket = bucket_of(lot, waiter->key);
  uint64_t ticket = waiter->call->park_ticket;
  struct park_waiter *before = bucket->last;
  if (bucket->first && ticket < bucket->first->call->park_ticket)
    before = NULL;
  while (before && before->call->park_ticket > ticket)
    before = before->previous;
  waiter->previous = before;
  waiter->next = before ? before->next : bucket->first;
  if (waiter->next)
    waiter->next->previous = waiter;
  else
    bucket->last = waiter;
  if (before)
    before->next = waiter;
  else
    bucket->first = waiter;
}

static void waiter_remove(struct park_lot *lot, struct park_waiter *waiter) {
  struct park_bucket *bucket = bucket_of(lot, waiter->key);
  if (waiter->previous)
    waiter->previous->next = waiter->next;
  else
    bucket->first = waiter->next;
  if (waiter->next)
    waiter->next->previous = waiter->previous;
  else
    bucket->last = waiter->previous;
}

bool rpc_park(struct rpc_call *call, const uint64_t *keys, size_t key_count, bool shared, int64_t until_ms) {
  struct rpc_thread *thread = call->thread;
  struct rpc_lane *lane = thread->lane;
  struct park_lot *lot = &thread->parked;
  assert(key_count >= 1 && key_count <= RPC_PARK_KEYS_MAX);
  if (call->over)
    return true; /* nothing is left to wait for, and nothing to answer */
  if (call->drain_woken)
    return false;
  park_remove(call);
  if (atomic_fetch_add_explicit(&lane->calls_parked, 1, memory_order_relaxed) >= lane->parked_max) {
    atomic_fetch_sub_explicit(&lane->calls_parked, 1, memory_order_relaxed);
    return false;
  }
  if (call->park_ticket == 0 || call->park_anew)
    call->park_ticket = ++lot->next_ticket;
  call->park_anew = false;
  if (call->waiter_capacity < key_count) {
    call->waiters = ARENA_ARRAY(call->arena, struct park_waiter, key_count);
    call->waiter_capacity = key_count;
  }
  call->parked = true;
  call->park_shared = shared;
  call->park_until_ms = until_ms;
  call->waiter_count = key_count;
  for (size_t i = 0; i < key_count; i++) {
    call->waiters[i].call = call;
    call->waiters[i].key = keys[i];
    waiter_insert(lot, &call->waiters[i]);
  }
  heap_add(lot, call);
  return true;
}

void rpc_leave_line(struct rpc_call *call) {
  call->park_anew = true;
}

void park_remove(struct rpc_call *call) {
  struct park_lot *lot = &call->thread->parked;
  if (!call->parked)
    return;
  for (size_t i = 0; i < call->waiter_count; i++)
    waiter_remove(lot, &call->waiters[i]);
  heap_remove(lot, call);
  call->parked = false;
  atomic_fetch_sub_explicit(&call->thread->lane->calls_parked, 1, memory_order_relaxed);
}

int64_t park_next_deadline(const struct park_lot *lot) {
  int64_t next_ms = lot->heap_count ? lot->heap[0]->park_until_ms : INT64_MAX;
  for (size_t i = 0; i < lot->quiet_count; i++)
    if (lot->quiet[i].told && lot->quiet[i].until_ms < next_ms)
      next_ms = lot->quiet[i].until_ms;
  return next_ms;
}

/* --- waking --- */

static void call_wake(struct rpc_call *call, enum rpc_wake why) {
  park_remove(call);
  assert(call->method->handler->wake);
  struct rpc_call *before = call_enter(call);
  call->method->handler->wake(call, why);
  call_leave(before);
}

static struct rpc_call *first_exclusive(struct park_lot *lot, uint64_t key) {
  for (struct park_waiter *waiter = bucket_of(lot, key)->first; waiter; waiter = waiter->next)
    if (waiter->key == key && !waiter->call->park_shared && !waiter->call->peer_gone)
      return waiter->call;
  return NULL;
}

static void wake_shared(struct park_lot *lot, uint64_t key) {
  size_t count = 0;
  for (struct park_waiter *waiter = bucket_of(lot, key)->first; waiter; waiter = waiter->next)
    if (waiter->key == key && waiter->call->park_shared && (count == 0 || lot->scratch[count - 1] != waiter->call))
      lot->scratch[count++] = waiter->call;
  for (size_t i = 0; i < count; i++)
    if (lot->scratch[i]->parked)
      call_wake(lot->scratch[i], RPC_WAKE_KEY);
}

static int by_ticket(const void *left, const void *right) {
  const struct rpc_call *a = *(struct rpc_call *const *)left, *b = *(struct rpc_call *const *)right;
  return (a->park_ticket > b->park_ticket) - (a->park_ticket < b->park_ticket);
}

/* Everybody who is parked now, in the order of their tickets. */
static void wake_all(struct park_lot *lot, enum rpc_wake why) {
  size_t count = lot->heap_count;
  if (count == 0)
    return;
  memcpy(lot->scratch, lot->heap, count * sizeof(struct rpc_call *));
  qsort(lot->scratch, count, sizeof(struct rpc_call *), by_ticket);
  for (size_t i = 0; i < count; i++) {
    lot->scratch[i]->drain_woken |= why == RPC_WAKE_DRAIN;
    if (lot->scratch[i]->parked)
      call_wake(lot->scratch[i], why);
  }
}

/* By one of the first `count` trials. */
static bool is_tried(const struct park_lot *lot, uint64_t key, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (lot->trials[i].key == key)
      return true;
  return false;
}

static struct park_quiet *quiet_find(struct park_lot *lot, uint64_t key) {
  for (size_t i = 0; i < lot->quiet_count; i++)
    if (lot->quiet[i].key == key)
      return &lot->quiet[i];
  return NULL;
}

static void quiet_remove(struct park_lot *lot, uint64_t key) {
  struct park_quiet *quiet = quiet_find(lot, key);
  if (quiet)
    *quiet = lot->quiet[--lot->quiet_count];
}

static void quiet_add(struct park_lot *lot, uint64_t key, int64_t until_ms) {
  quiet_remove(lot, key);
  if (lot->quiet_count < RPC_PARK_QUIET_MAX)
    lot->quiet[lot->quiet_count++] = (struct park_quiet){.key = key, .until_ms = until_ms};
}

static void trial_add(struct park_lot *lot, uint64_t key, struct rpc_call *call, bool beside) {
  if (lot->trial_count == lot->trial_capacity)
    lot->trials = grow(lot->trials, &lot->trial_capacity, sizeof(struct park_trial));
  call->pending++;
  lot->trials[lot->trial_count++] =
      (struct park_trial){.key = key, .call = call, .ticket = call->park_ticket, .beside = beside};
}

/* Wakes the call of a trial, and notes what it asks. */
static void trial_wake(struct park_lot *lot, size_t index) {
  struct rpc_call *call = lot->trials[index].call;
  call_wake(call, RPC_WAKE_KEY);
  lot->trials[index].asked = thread_asked(call->thread);
}

/* One trial of a key at a time: while it succeeds the next call is tried. */
static bool try_first(struct park_lot *lot, uint64_t key, bool beside) {
  struct rpc_call *call = is_tried(lot, key, lot->trial_count) ? NULL : first_exclusive(lot, key);
  if (!call)
    return false;
  quiet_remove(lot, key);
  trial_add(lot, key, call, beside);
  trial_wake(lot, lot->trial_count - 1);
  return true;
}

bool rpc_wake_beside(struct rpc_call *call, uint64_t key) {
  return try_first(&call->thread->parked, key, true);
}

/* Every shared waiter, and of the exclusive ones the first of each key: the others would find no more than that one. */
static void wake_every_key(struct park_lot *lot) {
  size_t count = lot->heap_count, tried = lot->trial_count;
  if (count == 0)
    return;
  memcpy(lot->scratch, lot->heap, count * sizeof(struct rpc_call *));
  qsort(lot->scratch, count, sizeof(struct rpc_call *), by_ticket);
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < lot->scratch[i]->waiter_count; k++) {
      uint64_t key = lot->scratch[i]->waiters[k].key;
      if (first_exclusive(lot, key) == lot->scratch[i] && !is_tried(lot, key, tried))
        trial_add(lot, key, lot->scratch[i], false);
    }
  for (size_t i = 0; i < count; i++)
    if (lot->scratch[i]->parked && lot->scratch[i]->park_shared)
      call_wake(lot->scratch[i], RPC_WAKE_KEY);
  for (size_t i = tried; i < lot->trial_count; i++)
    if (lot->trials[i].call->parked)
      trial_wake(lot, i);
}

void park_wake(struct rpc_thread *thread, const uint64_t *keys, size_t count, bool everything) {
  struct park_lot *lot = &thread->parked;
  if (everything) {
    lot->quiet_count = 0;
    wake_every_key(lot);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    wake_shared(lot, keys[i]);
    struct park_quiet *quiet = quiet_find(lot, keys[i]);
    if (quiet && thread->now_ms < quiet->until_ms)
      quiet->told = true;
    else
      try_first(lot, keys[i], false);
  }
}

static bool waits_for(const struct rpc_call *call, uint64_t key) {
  for (size_t i = 0; call->parked && i < call->waiter_count; i++)
    if (call->waiters[i].key == key)
      return true;
  return false;
}

void park_continue(struct rpc_thread *thread) {
  struct park_lot *lot = &thread->parked;
  uint64_t answered = thread_answered(thread);
  for (size_t i = 0; i < lot->trial_count;) {
    struct park_trial trial = lot->trials[i];
    if (answered < trial.asked) {
      i++;
      continue;
    }
    bool waits = !trial.call->over && waits_for(trial.call, trial.key);
    if (trial.beside && !(waits && trial.call->park_ticket == trial.ticket))
      quiet_add(lot, trial.key, thread->now_ms + RPC_PARK_QUIET_MS);
    lot->trials[i] = lot->trials[--lot->trial_count];
    trial.call->pending--;
    call_maybe_release(trial.call);
    struct rpc_call *next =
        waits ? NULL : first_exclusive(lot, trial.key); /* waits: there was nothing, or it took all */
    if (!next)
      continue;
    trial_add(lot, trial.key, next, trial.beside);
    trial_wake(lot, lot->trial_count - 1);
  }
}

/* Keys that were to be quiet until now, and of which something was told. */
static void quiet_expire(struct rpc_thread *thread) {
  struct park_lot *lot = &thread->parked;
  for (size_t i = 0; i < lot->quiet_count;) {
    struct park_quiet quiet = lot->quiet[i];
    if (thread->now_ms < quiet.until_ms) {
      i++;
      continue;
    }
    lot->quiet[i] = lot->quiet[--lot->quiet_count];
    if (quiet.told)
      try_first(lot, quiet.key, false);
  }
}

void park_expire(struct rpc_thread *thread) {
  struct park_lot *lot = &thread->parked;
  quiet_expire(thread);
  while (lot->heap_count && lot->heap[0]->park_until_ms <= thread->now_ms) {
    struct rpc_call *call = lot->heap[0];
    call_wake(call, RPC_WAKE_DEADLINE);
    if (call->parked && call->park_until_ms <= thread->now_ms)
      break; /* it parked again until a time that is past: not twice in one turn */
  }
}

void park_drain(struct rpc_thread *thread) {
  wake_all(&thread->parked, RPC_WAKE_DRAIN);
}
