/* One thread's loop: take whatever events are ready, let handlers run, flush, tell who is gone, wake who waits, and
 * again until nothing moves; then give back what is finished: that is settling.
 *
 * While the store works, further events are taken: steps of the flush alternate with events, so that client, server and
 * store work at the same time. What settling does has to find everything answered, so as soon as there is something for
 * it, and every 10 ms at the latest, a whole flush ends the steps. A thread with little to do never takes a second
 * step.
 *
 * RPC threads poll gRPC's sockets; the system thread does not, because a thread that reads a request of another's only
 * adds a hop to it (30 µs, and a third of the CPU of a single submit). It waits for the others to hand it events, and
 * stands in for one that is in a flush for long.
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

/* Tries the calls that wait for what came into the inbox; each key once. */
static void inbox_empty(struct rpc_thread *thread) {
  struct rpc_inbox *inbox = &thread->inbox;
  pthread_mutex_lock(&inbox->lock);
  uint64_t *keys = inbox->keys;
  size_t count = inbox->count;
  bool everything = inbox->everything;
  inbox->keys = thread->inbox_taken;
  inbox->count = 0;
  inbox->everything = false;
  pthread_mutex_unlock(&inbox->lock);
  thread->inbox_taken = keys;
  if (count == 0 && !everything)
    return;
  qsort(keys, count, sizeof *keys, by_key);
  size_t kept = 0;
  for (size_t i = 0; i < count; i++)
    if (i == 0 || keys[i] != keys[i - 1])
      keys[kept++] = keys[i];
  park_wake(thread, keys, kept, everything);
}

static void thread_flush(struct rpc_thread *thread) {
  struct rpc_server *server = thread->server;
  if (thread->flush && !thread->flush(thread->context, RPC_PATIENCE_MS)) {
    atomic_fetch_add(&server->absent, 1);
    thread_poke(&server->threads[server->thread_count], NULL);
    thread->flush(thread->context, -1);
    atomic_fetch_sub(&server->absent, 1);
  }
  call_answer_behind(thread);
}

static void thread_settle(struct rpc_thread *thread) {
  call_deliver_deferred(thread);
  thread_flush(thread);
  call_close_gone(thread);
  park_continue(thread);
  inbox_empty(thread);
  park_expire(thread);
  bool moved;
  do {
    call_deliver_deferred(thread);
    thread_flush(thread);
    moved = call_close_gone(thread);
    moved |= park_continue(thread);
    if (atomic_load_explicit(&thread->server->draining, memory_order_acquire))
      moved |= park_drain(thread);
  } while (moved || thread->deferred_first);
  call_release_done(thread);
  thread->settled_ms = thread->now_ms;
  thread->poked = false;
}

/* True: the store has more to answer, and meanwhile there is nothing else to do than to take events. */
static bool thread_step(struct rpc_thread *thread) {
  bool settling = thread->poked || thread->gone || thread->behind || thread->deferred_first ||
                  thread->parked.trial_count > 0 || thread->now_ms - thread->settled_ms >= RPC_SETTLE_MS ||
                  atomic_load_explicit(&thread->server->draining, memory_order_relaxed);
  return !settling && thread->step && thread->step(thread->context, RPC_STEP_US, RPC_PATIENCE_MS);
}

static gpr_timespec unix_ms(int64_t ms) {
  if (ms == INT64_MAX)
    return gpr_inf_future(GPR_CLOCK_REALTIME);
  gpr_timespec time = {
      .tv_sec = ms / 1000, .tv_nsec = (int32_t)(ms % 1000) * 1000000, .clock_type = GPR_CLOCK_REALTIME};
  return time;
}

static grpc_event next_event(struct rpc_thread *thread) {
  gpr_timespec until = unix_ms(park_next_deadline(&thread->parked));
  while (thread->poller && atomic_load(&thread->server->absent) > 0) {
    grpc_event event = grpc_completion_queue_next(thread->queue, gpr_inf_past(GPR_CLOCK_REALTIME), NULL);
    if (event.type != GRPC_QUEUE_TIMEOUT || gpr_time_cmp(until, gpr_now(GPR_CLOCK_REALTIME)) <= 0)
      return event;
    gpr_timespec step = gpr_time_from_millis(RPC_STAND_IN_MS, GPR_TIMESPAN);
    grpc_completion_queue_next(thread->poller, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), step), NULL);
  }
  return grpc_completion_queue_next(thread->queue, until, NULL);
}

static void *thread_run(void *argument) {
  struct rpc_thread *thread = argument;
  bool under_way = false;
  for (;;) {
    grpc_event event = under_way ? grpc_completion_queue_next(thread->queue, gpr_inf_past(GPR_CLOCK_REALTIME), NULL)
                                 : next_event(thread);
    if (event.type == GRPC_QUEUE_SHUTDOWN) {
      if (under_way)
        thread_settle(thread);
      return NULL;
    }
    thread->now_ms = clock_wall_ms();
    if (!under_way)
      thread->settled_ms = thread->now_ms; /* it was idle */
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
    under_way = thread_step(thread);
    if (!under_way)
      thread_settle(thread);
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
    thread->flush = server->hooks.flush;
    thread->step = server->hooks.step;
    if (!thread->context)
      return false;
  }
  pthread_mutex_init(&thread->inbox.lock, NULL);
  thread->inbox.keys = calloc(RPC_INBOX_KEYS_MAX, sizeof(uint64_t));
  thread->inbox_taken = calloc(RPC_INBOX_KEYS_MAX, sizeof(uint64_t));
  if (!thread->inbox.keys || !thread->inbox_taken)
    abort();
  thread->message_arena = arena_create();
  park_open(&thread->parked, lane->parked_max);
  thread->queue = system ? quiet_queue() : grpc_completion_queue_create_for_next(NULL);
  thread->poller = system ? grpc_completion_queue_create_for_next(NULL) : NULL;
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
  if (thread->poller) {
    grpc_completion_queue_shutdown(thread->poller);
    grpc_completion_queue_next(thread->poller, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    grpc_completion_queue_destroy(thread->poller);
  }
  call_free_spare(thread);
  while (thread->spare_arena_count)
    arena_destroy(thread->spare_arenas[--thread->spare_arena_count]);
  arena_destroy(thread->message_arena);
  park_close(&thread->parked);
  free(thread->inbox.keys);
  free(thread->inbox_taken);
  pthread_mutex_destroy(&thread->inbox.lock);
}
