/*
 * The load generator's threads and its clock: see load.h. The caller's thread runs the stages (running, draining,
 * closing, cancelling) and ticks; each load thread has a completion queue and moves its calls and streams. With a rate
 * one more thread wakes them when a call is due: gRPC's own timers know whole milliseconds only.
 */
#include "client/lib/load.h"
#include "client/lib/error.h"
#include "client/lib/load_core.h"
#include "client/lib/wire.h"
#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define NS_PER_MS 1000000
#define CONNECT_MS 5000
#define TICK_NS (100 * (int64_t)NS_PER_MS)
#define LOOK_NS (10 * (int64_t)NS_PER_MS) /* how often the stages are looked at */
#define GOODBYE_NS (2000 * (int64_t)NS_PER_MS)
#define PACE_NS_MIN 50000 /* calls that are due closer together are woken together */

int64_t load_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t cpu_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void sleep_until_ns(int64_t end_ns) {
  struct timespec end = {.tv_sec = end_ns / 1000000000, .tv_nsec = end_ns % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {
  }
}

/* --- what calls and streams use ---------------------------------------------------------------------------------- */

void load_start(struct load_thread *thread, grpc_call *call, const grpc_op *ops, size_t count, struct load_tag *tag) {
  thread->pending++;
  grpc_call_error started = grpc_call_start_batch(call, ops, count, tag, NULL);
  assert(started == GRPC_CALL_OK);
  (void)started;
}

void load_poke(struct load_thread *thread) {
  if (atomic_exchange(&thread->poked, true))
    return;
  grpc_call_error started = grpc_call_start_batch(thread->lame_call, NULL, 0, &thread->poke_tag, NULL);
  assert(started == GRPC_CALL_OK);
  (void)started;
}

void load_poke_gated(struct load *load) {
  for (unsigned i = 0; i < load->thread_count; i++)
    if (atomic_exchange(&load->threads[i].gated, false))
      load_poke(&load->threads[i]);
}

static void poke_all(struct load *load) {
  for (unsigned i = 0; i < load->thread_count; i++)
    load_poke(&load->threads[i]);
}

static void poke_done(struct load_tag *tag, bool ok) {
  (void)ok;
  struct load_thread *thread = (struct load_thread *)((char *)tag - offsetof(struct load_thread, poke_tag));
  atomic_store(&thread->poked, false);
}

void load_tell(struct load *load, const struct ringback_error *error, bool fatal) {
  pthread_mutex_lock(&load->mutex);
  if (load->error.code == RINGBACK_OK || (fatal && !atomic_load(&load->failed)))
    load->error = *error;
  pthread_mutex_unlock(&load->mutex);
  if (fatal)
    atomic_store(&load->failed, true);
}

struct wire load_bytes(grpc_byte_buffer *buffer, grpc_slice *slice) {
  grpc_byte_buffer_reader reader;
  *slice = grpc_empty_slice();
  if (!grpc_byte_buffer_reader_init(&reader, buffer))
    return (struct wire){NULL, NULL};
  grpc_slice *first = NULL;
  struct wire bytes = {NULL, NULL};
  if (grpc_byte_buffer_reader_peek(&reader, &first) && GRPC_SLICE_LENGTH(*first) == grpc_byte_buffer_length(buffer)) {
    *slice = grpc_slice_ref(*first);
    bytes = (struct wire){GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_END_PTR(*slice)};
    grpc_byte_buffer_reader_destroy(&reader);
    return bytes;
  }
  grpc_byte_buffer_reader_destroy(&reader);
  if (!grpc_byte_buffer_reader_init(&reader, buffer))
    return bytes;
  *slice = grpc_byte_buffer_reader_readall(&reader);
  grpc_byte_buffer_reader_destroy(&reader);
  return (struct wire){GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_END_PTR(*slice)};
}

/* --- a thread ---------------------------------------------------------------------------------------------------- */

static void follow_stage(struct load_thread *thread) {
  enum load_stage stage = load_stage(thread->load);
  if (stage >= LOAD_CLOSING && !thread->closing) {
    thread->closing = true;
    load_streams_end(thread);
  }
  if (stage >= LOAD_CANCELLING && !thread->cancelled) {
    thread->cancelled = true;
    load_calls_cancel(thread);
    load_streams_cancel(thread);
  }
}

/* After an error the thread looks again by itself; otherwise something wakes it. */
static gpr_timespec wait_end(const struct load_thread *thread) {
  int64_t rest_ns = thread->rest_until_ns == 0 ? 0 : thread->rest_until_ns - load_now_ns();
  return call_deadline(rest_ns > 0 ? rest_ns / NS_PER_MS + 1 : -1);
}

static void *thread_run(void *argument) {
  struct load_thread *thread = argument;
  load_streams_start(thread);
  for (;;) {
    follow_stage(thread);
    if (thread->closing && thread->pending == 0)
      return NULL;
    load_calls_pump(thread);
    grpc_event event = grpc_completion_queue_next(thread->queue, wait_end(thread), NULL);
    if (event.type != GRPC_OP_COMPLETE)
      continue;
    struct load_tag *tag = event.tag;
    if (tag != &thread->poke_tag)
      thread->pending--;
    tag->done(tag, event.success != 0);
  }
}

/* Wakes threads when their calls are due. */
static void *pacer_run(void *argument) {
  struct load *load = argument;
  double apart_ns = 1e9 / load->options->calls.rate;
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  for (uint64_t turn = 0; load_stage(load) == LOAD_RUNNING;) {
    int64_t due_ns = load->start_ns + (int64_t)((double)turn * apart_ns), now_ns = load_now_ns();
    if (due_ns > now_ns) {
      int64_t look_ns = now_ns + LOOK_NS; /* at the stage, when the rate is low */
      sleep_until_ns(due_ns < look_ns ? due_ns : look_ns);
      if (due_ns > look_ns)
        continue;
    }
    uint64_t due = (uint64_t)((double)(load_now_ns() - load->start_ns) / apart_ns) + 1;
    for (unsigned i = 0; turn < due && i < load->thread_count; i++)
      load_poke(&load->threads[turn++ % load->thread_count]);
    turn = due > turn ? due : turn;
    if (apart_ns < PACE_NS_MIN)
      sleep_until_ns(load_now_ns() + PACE_NS_MIN);
  }
  return NULL;
}

/* --- making and ending ------------------------------------------------------------------------------------------- */

static unsigned share(unsigned all, unsigned parts, unsigned index) {
  return all / parts + (index < all % parts);
}

static bool thread_open(struct load *load, unsigned index) {
  struct load_thread *thread = &load->threads[index];
  thread->load = load;
  thread->index = index;
  thread->queue = grpc_completion_queue_create_for_next(NULL);
  thread->lame_call = grpc_channel_create_call(load->lame_channel, NULL, GRPC_PROPAGATE_DEFAULTS, thread->queue,
                                               grpc_slice_from_static_string("/wake-up"), NULL,
                                               gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
  thread->poke_tag.done = poke_done;
  return load_calls_open(thread, share(load->options->calls.in_flight, load->thread_count, index)) &&
         load_streams_open(thread, share(load->options->streams.count, load->thread_count, index));
}

static void thread_close(struct load_thread *thread) {
  load_calls_close(thread);
  load_streams_close(thread);
  if (thread->lame_call != NULL)
    grpc_call_unref(thread->lame_call);
  if (thread->queue == NULL)
    return;
  grpc_completion_queue_shutdown(thread->queue);
  while (grpc_completion_queue_next(thread->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
         GRPC_QUEUE_SHUTDOWN) {
  }
  grpc_completion_queue_destroy(thread->queue);
}

/* Waits until the connection stands, so that nobody measures its making. */
static bool connection_wait(struct ringback_client *client, const char *target, struct ringback_error *error) {
  grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
  gpr_timespec deadline = call_deadline(CONNECT_MS);
  grpc_connectivity_state state;
  bool waiting = true;
  while (waiting && (state = grpc_channel_check_connectivity_state(client->channel, 1)) != GRPC_CHANNEL_READY) {
    grpc_channel_watch_connectivity_state(client->channel, state, deadline, queue, NULL);
    waiting = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).success != 0;
  }
  grpc_completion_queue_shutdown(queue);
  grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
  grpc_completion_queue_destroy(queue);
  if (!waiting)
    error_set(error, RINGBACK_UNAVAILABLE, "%s: no connection within %d s", target, CONNECT_MS / 1000);
  return waiting;
}

static bool connect_all(struct load *load, struct ringback_error *error) {
  const struct load_options *options = load->options;
  const struct ringback_options connection = {.user_agent = "ringback-load"};
  for (unsigned i = 0; i < load->call_connections + load->stream_connections; i++) {
    load->connections[i] = ringback_connect(options->target, &connection, error);
    if (load->connections[i] == NULL || !connection_wait(load->connections[i], options->target, error))
      return false;
    if (i < load->call_connections)
      load->registered[i] = grpc_channel_register_call(load->connections[i]->channel, options->calls.path, NULL, NULL);
  }
  return true;
}

static unsigned at_most(unsigned value, unsigned most) {
  return value < most ? value : most;
}

struct load *load_create(const struct load_options *options, struct ringback_error *error) {
  assert(options->threads >= 1 && options->threads <= LOAD_THREADS_MAX && options->connections >= 1);
  error_clear(error);
  struct load *load = calloc(1, sizeof *load);
  if (load == NULL) {
    error_set(error, RINGBACK_RESOURCE_EXHAUSTED, "out of memory");
    return NULL;
  }
  grpc_init();
  load->options = options;
  pthread_mutex_init(&load->mutex, NULL);
  atomic_init(&load->measure_from_ns, INT64_MAX);
  atomic_init(&load->measure_until_ns, INT64_MAX);
  load->lame_channel = grpc_lame_client_channel_create("wake-up", GRPC_STATUS_UNAVAILABLE, "never used");
  load->call_connections = at_most(options->connections, options->calls.in_flight);
  load->stream_connections = at_most(options->connections, options->streams.count);
  load->connections = calloc(load->call_connections + load->stream_connections + 1u, sizeof *load->connections);
  load->registered = calloc(load->call_connections + 1u, sizeof *load->registered);
  load->threads = calloc(options->threads, sizeof *load->threads);
  bool good = load->connections != NULL && load->registered != NULL && load->threads != NULL;
  load->thread_count = load->threads != NULL ? options->threads : 0;
  for (unsigned i = 0; good && i < load->thread_count; i++)
    good = thread_open(load, i);
  if (!good)
    error_set(error, RINGBACK_RESOURCE_EXHAUSTED, "out of memory");
  if (good && connect_all(load, error))
    return load;
  load_destroy(load);
  return NULL;
}

void load_destroy(struct load *load) {
  if (load == NULL)
    return;
  for (unsigned i = 0; i < load->thread_count; i++)
    thread_close(&load->threads[i]);
  for (unsigned i = 0; load->connections != NULL && i < load->call_connections + load->stream_connections; i++)
    ringback_disconnect(load->connections[i]);
  grpc_channel_destroy(load->lame_channel);
  pthread_mutex_destroy(&load->mutex);
  free(load->threads);
  free((void *)load->connections);
  free((void *)load->registered);
  free(load);
  grpc_shutdown();
}

/* --- the stages -------------------------------------------------------------------------------------------------- */

static void set_stage(struct load *load, enum load_stage stage) {
  atomic_store(&load->stage, stage);
  poke_all(load);
}

static bool calls_over(struct load *load) {
  uint64_t in_flight = 0;
  for (unsigned i = 0; i < load->thread_count; i++)
    in_flight += atomic_load(&load->threads[i].in_flight);
  return in_flight == 0;
}

/* Whether everything that was submitted has been finished. */
static bool streams_over(struct load *load) {
  const struct load_streams *streams = &load->options->streams;
  return streams->count == 0 || streams->left(streams->context) == 0;
}

/* Ends the measured time; what was counted before stays. */
static void stop_measuring(struct load *load, int64_t now_ns) {
  if (now_ns < atomic_load(&load->measure_until_ns))
    atomic_store(&load->measure_until_ns, now_ns);
  if (atomic_load(&load->cpu_until_ns) == 0)
    atomic_store(&load->cpu_until_ns, cpu_now_ns());
}

static void look_at_cpu(struct load *load, int64_t now_ns) {
  if (atomic_load(&load->cpu_from_ns) == 0 && now_ns >= atomic_load(&load->measure_from_ns))
    atomic_store(&load->cpu_from_ns, cpu_now_ns());
}

/* While calls start, or, where there are none, while there are jobs to be worked on. */
static enum load_end run_running(struct load *load) {
  const struct load_options *options = load->options;
  int64_t end_ns = load->measure_from_ns + options->duration_ms * NS_PER_MS, tick_ns = load->start_ns + TICK_NS;
  for (;;) {
    int64_t now_ns = load_now_ns();
    look_at_cpu(load, now_ns);
    if (atomic_load(&load->failed))
      return LOAD_END_FAILED;
    if (now_ns >= end_ns)
      return LOAD_END_TIME;
    if (options->calls.in_flight > 0 ? atomic_load(&load->items_over) : streams_over(load))
      return LOAD_END_COUNT;
    if (now_ns >= tick_ns) {
      tick_ns = now_ns + TICK_NS;
      if (options->tick != NULL && !options->tick(options->context, load))
        return LOAD_END_STOPPED;
    }
    int64_t next_ns = now_ns + LOOK_NS, from_ns = load->measure_from_ns;
    next_ns = end_ns < next_ns ? end_ns : next_ns;
    sleep_until_ns(now_ns < from_ns && from_ns < next_ns ? from_ns : next_ns);
  }
}

/* Lets what is under way end. False when it does not, or when tick has enough. */
static bool run_draining(struct load *load, int64_t end_ns) {
  const struct load_options *options = load->options;
  int64_t tick_ns = load_now_ns() + TICK_NS;
  while (!calls_over(load) || !streams_over(load)) {
    int64_t now_ns = load_now_ns();
    if (now_ns >= end_ns || atomic_load(&load->failed))
      return false;
    if (now_ns >= tick_ns) {
      tick_ns = now_ns + TICK_NS;
      if (options->tick != NULL && !options->tick(options->context, load))
        return false;
    }
    sleep_until_ns(now_ns + LOOK_NS);
  }
  return true;
}

static bool threads_run(struct load *load) {
  for (unsigned i = 0; i < load->thread_count; i++) {
    if (pthread_create(&load->threads[i].thread, NULL, thread_run, &load->threads[i]) != 0)
      return false;
    load->threads[i].started = true;
  }
  return true;
}

enum load_end load_run(struct load *load, bool *drained, struct ringback_error *error) {
  const struct load_options *options = load->options;
  pthread_t pacer;
  load->start_ns = load_now_ns();
  load->measure_from_ns = load->start_ns + options->warm_up_ms * NS_PER_MS;
  load->measure_until_ns = load->measure_from_ns + options->duration_ms * NS_PER_MS;
  bool paced = options->calls.in_flight > 0 && options->calls.rate > 0;
  bool running = !paced || pthread_create(&pacer, NULL, pacer_run, load) == 0;
  paced = paced && running;
  running = running && threads_run(load);
  enum load_end end = LOAD_END_FAILED;
  if (running)
    end = run_running(load);
  else
    error_set(&load->error, RINGBACK_RESOURCE_EXHAUSTED, "a thread cannot be started");
  /* With a number of items to reach, the last of them count too. */
  if (end != LOAD_END_COUNT)
    stop_measuring(load, load_now_ns());
  set_stage(load, LOAD_DRAINING);
  *drained = running && run_draining(load, load_now_ns() + options->drain_ms * NS_PER_MS);
  stop_measuring(load, load_now_ns());
  if (end == LOAD_END_COUNT && atomic_load(&load->failed))
    end = LOAD_END_FAILED;
  set_stage(load, *drained ? LOAD_CLOSING : LOAD_CANCELLING);
  for (unsigned i = 0; i < load->thread_count; i++) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += GOODBYE_NS / 1000000000;
    if (!load->threads[i].started)
      continue;
    if (pthread_timedjoin_np(load->threads[i].thread, NULL, &until) != 0) {
      set_stage(load, LOAD_CANCELLING);
      pthread_join(load->threads[i].thread, NULL);
    }
  }
  if (paced)
    pthread_join(pacer, NULL);
  *error = load->error;
  return end;
}

/* --- figures ----------------------------------------------------------------------------------------------------- */

static void add_counters(struct load_figures *figures, struct load_counters *counters, int64_t *last_ns) {
  figures->calls += counters->calls;
  figures->call_items += counters->call_items;
  figures->failed += counters->failed;
  for (int i = 0; i < LOAD_CODES; i++)
    figures->codes[i] += counters->codes[i];
  figures->arrived += counters->arrived;
  figures->finished += counters->finished;
  figures->finish_failed += counters->finish_failed;
  figures->messages += counters->messages;
  figures->request_bytes += counters->request_bytes;
  figures->response_bytes += counters->response_bytes;
  histogram_add(&figures->call_ns, &counters->call_ns);
  histogram_add(&figures->arrival_ns, &counters->arrival_ns);
  if (counters->last_ns > *last_ns)
    *last_ns = counters->last_ns;
}

void load_read(struct load *load, struct load_figures *figures) {
  memset(figures, 0, sizeof *figures);
  int64_t now_ns = load_now_ns(), last_ns = 0;
  for (unsigned i = 0; i < load->thread_count; i++)
    add_counters(figures, &load->threads[i].counters, &last_ns);
  int64_t from_ns = load->measure_from_ns, until_ns = load->measure_until_ns;
  figures->measuring = now_ns >= from_ns;
  bool by_count = atomic_load(&load->items_over) || load->options->calls.in_flight == 0;
  if (by_count && atomic_load(&load->cpu_until_ns) != 0 && last_ns > from_ns)
    until_ns = last_ns;
  if (now_ns < until_ns)
    until_ns = now_ns;
  figures->elapsed_ns = until_ns > from_ns ? until_ns - from_ns : 0;
  int64_t cpu_from_ns = load->cpu_from_ns, cpu_until_ns = load->cpu_until_ns;
  if (cpu_from_ns != 0)
    figures->cpu_ns = (cpu_until_ns != 0 ? cpu_until_ns : cpu_now_ns()) - cpu_from_ns;
}
