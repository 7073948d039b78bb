/* One thread's loop. A turn takes whatever events are ready and lets handlers run, lets the store send and answer, and
 * does what has become possible by it: tells who is gone, wakes who waits, gives back what is finished. It never waits
 * for the store alone: turns follow each other while the store has something under way, so that client, server and
 * store work at the same time, and what comes meanwhile merges into the store's next command.
 *
 * Where something must not overtake the store, it remembers how much was asked, and waits until that much is answered:
 * a key that was woken (who asked before it was may be about to park), a call that was tried, an answer that leaves
 * behind another.
 *
 * RPC threads poll gRPC's sockets; the system thread does not, because a thread that reads a request of another's only
 * adds a hop to it (30 µs, and a third of the CPU of a single submit). It waits for the others to hand it events.
 *
 * Other threads reach it through the inbox only: keys behind a lock, and an empty batch on the permanent call of a lame
 * channel, whose completion makes the queue return. One such batch is under way at a time, however many keys come.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/rpc/bridge.h"

static void on_woken(void *self, bool ok) {
  struct rpc_thread *thread = self;
  (void)ok;
  thread->poked = true;
  pthread_mutex_lock(&thread->inbox.lock);
  thread->inbox.signalled = false;
  pthread_mutex_unlock(&thread->inbox.lock);
}

void thread_poke(struct rpc_thread *thread, const uint64_t *key) {
  struct rpc_inbox *inbox = &thread->inbox;
  pthread_mutex_lock(&inbox->lock);
  if (key && (*key == 0 || inbox->count == RPC_INBOX_KEYS_MAX))
    inbox->everything = true;
  else if (key && (inbox->count == 0 || inbox->keys[inbox->count - 1] != *key))
    inbox->keys[inbox->count++] = *key;
  if (!inbox->signalled && !inbox->closed) {
    inbox->signalled = true;
    grpc_call_error error = grpc_call_start_batch(thread->lame_call, NULL, 0, &thread->woken, NULL);
    assert(error == GRPC_CALL_OK);
    (void)error;
  }
  pthread_mutex_unlock(&inbox->lock);
}

struct arena *thread_take_arena(struct rpc_thread *thread) {
  return thread->spare_arena_count ? thread->spare_arenas[--thread->spare_arena_count] : arena_create();
}

void thread_give_arena(struct rpc_thread *thread, struct arena *arena) {
  if (thread->spare_arena_count == RPC_SPARE_ARENAS_MAX) {
    arena_destroy(arena);
    return;
  }
  arena_reset(arena);
  thread->spare_arenas[thread->spare_arena_count++] = arena;
}

static int by_key(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return (a > b) - (a < b);
}

uint64_t thread_asked(const struct rpc_thread *thread) {
  return thread->hooks.asked ? thread->hooks.asked(thread->context) : 0;
}

uint64_t thread_answered(const struct rpc_thread *thread) {
  return thread->hooks.answered ? thread->hooks.answered(thread->context) : 0;
}

static void inbox_take(struct rpc_thread *thread) {
  struct rpc_inbox *inbox = &thread->inbox;
  struct rpc_woken *taken = &thread->taken;
  pthread_mutex_lock(&inbox->lock);
  uint64_t *keys = inbox->keys;
  taken->count = inbox->count;
  taken->everything = inbox->everything;
  inbox->keys = taken->keys;
  inbox->count = 0;
  inbox->everything = false;
  pthread_mutex_unlock(&inbox->lock);
  taken->keys = keys;
  taken->asked = thread_asked(thread);
  thread->poked = false;
}

/* Tries the calls that wait for what came into the inbox, each key once; and not before everybody is answered who may
 * have asked before the keys were woken, and parks now. */
static void inbox_empty(struct rpc_thread *thread) {
  struct rpc_woken *taken = &thread->taken;
  for (;;) {
    if (taken->count == 0 && !taken->everything) {
      if (!thread->poked)
        return;
      inbox_take(thread);
    }
    if (thread_answered(thread) < taken->asked)
      return;
    qsort(taken->keys, taken->count, sizeof *taken->keys, by_key);
    size_t kept = 0;
    for (size_t i = 0; i < taken->count; i++)
      if (i == 0 || taken->keys[i] != taken->keys[i - 1])
        taken->keys[kept++] = taken->keys[i];
    park_wake(thread, taken->keys, kept, taken->everything);
    taken->count = 0;
    taken->everything = false;
  }
}

/* What follows the events. True: more is to be done at once, or the store has something under way. */
static bool thread_turn(struct rpc_thread *thread) {
  call_deliver_deferred(thread);
  if (thread_asked(thread) != thread_answered(thread))
    thread->hooks.step(thread->context);
  call_answer_behind(thread);
  call_close_gone(thread);
  park_continue(thread);
  inbox_empty(thread);
  park_expire(thread);
  if (atomic_load_explicit(&thread->server->draining, memory_order_acquire))
    park_drain(thread);
  call_release_done(thread);
  return thread->deferred_first || thread_asked(thread) != thread_answered(thread);
}

static gpr_timespec unix_ms(int64_t ms) {
  if (ms == INT64_MAX)
    return gpr_inf_future(GPR_CLOCK_REALTIME);
  gpr_timespec time = {
      .tv_sec = ms / 1000, .tv_nsec = (int32_t)(ms % 1000) * 1000000, .clock_type = GPR_CLOCK_REALTIME};
  return time;
}

static void *thread_run(void *argument) {
  struct rpc_thread *thread = argument;
  bool under_way = false;
  for (;;) {
    gpr_timespec until = under_way ? gpr_inf_past(GPR_CLOCK_REALTIME) : unix_ms(park_next_deadline(&thread->parked));
    grpc_event event = grpc_completion_queue_next(thread->queue, until, NULL);
    if (event.type == GRPC_QUEUE_SHUTDOWN)
      return NULL;
    thread->now_ms = clock_wall_ms();
    unsigned events = 0;
    while (event.type == GRPC_OP_COMPLETE) {
      struct rpc_tag *tag = event.tag;
      tag->done(tag->self, event.success != 0);
      if (++events == RPC_EVENTS_PER_BATCH_MAX)
        break;
      event = grpc_completion_queue_next(thread->queue, gpr_inf_past(GPR_CLOCK_REALTIME), NULL);
    }
    if (events > 0) {
      atomic_fetch_add_explicit(&thread->counters.batches, 1, memory_order_relaxed);
      atomic_fetch_add_explicit(&thread->counters.batch_events, events, memory_order_relaxed);
    }
    under_way = thread_turn(thread);
  }
}

/* A queue whose waiting thread does no polling. */
static grpc_completion_queue *quiet_queue(void) {
  grpc_completion_queue_attributes attributes = {
      .version = GRPC_CQ_CURRENT_VERSION, .cq_completion_type = GRPC_CQ_NEXT, .cq_polling_type = GRPC_CQ_NON_POLLING};
  return grpc_completion_queue_create(grpc_completion_queue_factory_lookup(&attributes), &attributes, NULL);
}

bool thread_open(struct rpc_thread *thread, struct rpc_server *server, struct rpc_lane *lane, unsigned index) {
  bool system = lane == &server->system;
  thread->server = server;
  thread->lane = lane;
  thread->index = index;
  thread->now_ms = clock_wall_ms();
  thread->context = server;
  if (!system) {
    thread->context = server->hooks.thread_open ? server->hooks.thread_open(server->hooks.context, index) : server;
    thread->hooks = server->hooks;
    if (!thread->context)
      return false;
  }
  pthread_mutex_init(&thread->inbox.lock, NULL);
  thread->inbox.keys = calloc(RPC_INBOX_KEYS_MAX, sizeof(uint64_t));
  thread->taken.keys = calloc(RPC_INBOX_KEYS_MAX, sizeof(uint64_t));
  if (!thread->inbox.keys || !thread->taken.keys)
    abort();
  thread->message_arena = arena_create();
  park_open(&thread->parked, lane->parked_max);
  thread->queue = system ? quiet_queue() : grpc_completion_queue_create_for_next(NULL);
  grpc_server_register_completion_queue(server->core, thread->queue, NULL);
  thread->woken = (struct rpc_tag){on_woken, thread};
  thread->lame_channel = grpc_lame_client_channel_create("wake-up", GRPC_STATUS_UNAVAILABLE, "never used");
  thread->lame_call = grpc_channel_create_call(thread->lame_channel, NULL, GRPC_PROPAGATE_DEFAULTS, thread->queue,
                                               grpc_slice_from_static_string("/wake-up"), NULL,
                                               gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
  return true;
}

void thread_arm(struct rpc_thread *thread) {
  for (size_t i = 0; i < thread->lane->method_count; i++)
    for (unsigned k = 0; k < RPC_ARMED_PER_METHOD; k++)
      call_arm(thread, &thread->lane->methods[i]);
  for (unsigned k = 0; k < RPC_ARMED_GENERIC; k++)
    call_arm(thread, NULL);
}

void thread_start(struct rpc_thread *thread) {
  int error = pthread_create(&thread->handle, NULL, thread_run, thread);
  if (error) {
    log_event(LOG_ERROR, "cannot start a thread", log_text("error", strerror(error)));
    abort();
  }
  thread->started = true;
}

void thread_stop(struct rpc_thread *thread) {
  pthread_mutex_lock(&thread->inbox.lock);
  thread->inbox.closed = true;
  pthread_mutex_unlock(&thread->inbox.lock);
  grpc_completion_queue_shutdown(thread->queue);
  if (thread->started)
    pthread_join(thread->handle, NULL);
  else
    while (grpc_completion_queue_next(thread->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
      ;
}

void thread_close(struct rpc_thread *thread) {
  if (!thread->queue)
    return;
  if (thread->server->hooks.thread_close && thread->lane == &thread->server->services)
    thread->server->hooks.thread_close(thread->context);
  grpc_call_unref(thread->lame_call);
  grpc_channel_destroy(thread->lame_channel);
  grpc_completion_queue_destroy(thread->queue);
  call_free_spare(thread);
  while (thread->spare_arena_count)
    arena_destroy(thread->spare_arenas[--thread->spare_arena_count]);
  arena_destroy(thread->message_arena);
  park_close(&thread->parked);
  free(thread->inbox.keys);
  free(thread->taken.keys);
  pthread_mutex_destroy(&thread->inbox.lock);
}
