/* WatchJobs: follows a bucket's log. One store call is under way, or one message, or the call is parked until something
 * changes.
 *
 * Progress alone is reported at most once a second a job: what comes sooner is kept in a small table, one place a job
 * by its hash, and sent when its time has come, unless a change of state has overtaken it. Two jobs at one place send
 * what is kept early, never lose it. Memory of a stream is its table and an arena that is emptied for every message.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/rpc/errors.h"
#include "server/services/convert.h"
#include "server/services/job_handlers.h"
#include "server/services/page_token.h"
#include "server/services/status.h"

enum { SLOTS = 256, CURSOR_SIZE = 128, QUEUE_SIZE = QUEUE_CHARACTERS_MAX + 1 };

#define PROGRESS_EVERY_MS SECOND_MS
/* A stream whose filter lets nothing through learns a new cursor this often, so that it is not trimmed away. */
#define CURSOR_EVERY_MS (30 * SECOND_MS)

struct slot {
  bool used, kept; /* kept: there is progress to be sent */
  struct job_id id;
  int state, progress;
  int64_t sent_ms; /* when something of this job was sent last */
  int64_t time_ms; /* of the kept progress */
  char queue[QUEUE_SIZE];
};

struct watch {
  struct rpc_call *call;
  const char *bucket, *queue, *what;
  struct job_id *ids; /* sorted */
  size_t id_count;
  char cursor[CURSOR_SIZE], cursor_sent[CURSOR_SIZE];
  int64_t sent_ms; /* 0: nothing yet */
  struct arena *scratch;
  Ringback__V1__JobEvent **events; /* of the message that is being made; in scratch */
  size_t event_count;
  struct slot slots[SLOTS];
};

static void watch_done(void *data, const struct store_error *error, const struct store_events *result);

static void ask(struct watch *watch) {
  store_watch(services_store(watch->call), watch->bucket, watch->cursor, watch_done, watch);
}

static void destroy(struct watch *watch) {
  arena_destroy(watch->scratch);
  free(watch);
}

static int compare_ids(const void *a, const void *b) {
  return memcmp(a, b, sizeof(struct job_id));
}

static bool is_wanted(const struct watch *watch, const struct store_event *event) {
  if (*watch->queue && strcmp(watch->queue, event->queue) != 0)
    return false;
  return !watch->id_count || bsearch(&event->id, watch->ids, watch->id_count, sizeof *watch->ids, compare_ids);
}

static void add_event(struct watch *watch, const struct job_id *id, const char *queue, int state, int progress,
                      int64_t time_ms) {
  struct arena *arena = watch->scratch;
  Ringback__V1__JobEvent *event = ARENA_NEW(arena, Ringback__V1__JobEvent);
  ringback__v1__job_event__init(event);
  event->job_id = convert_job_id(arena, id);
  event->queue = *queue ? names_format_queue(arena, watch->bucket, queue) : arena_strdup(arena, "");
  event->state = (Ringback__V1__JobState)state;
  event->progress = progress;
  event->time = convert_time(arena, time_ms);
  watch->events[watch->event_count++] = event;
}

static void send_kept(struct watch *watch, struct slot *slot, int64_t now_ms) {
  add_event(watch, &slot->id, slot->queue, slot->state, slot->progress, slot->time_ms);
  slot->kept = false;
  slot->sent_ms = now_ms;
}

static struct slot *slot_of(struct watch *watch, const struct job_id *id) {
  return &watch->slots[hash_bytes(HASH_START, id->bytes, sizeof id->bytes) % SLOTS];
}

static void take_event(struct watch *watch, const struct store_event *event, int64_t now_ms) {
  const int running = RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING;
  struct slot *slot = slot_of(watch, &event->id);
  bool known = slot->used && memcmp(&slot->id, &event->id, sizeof event->id) == 0;
  bool only_progress = known && slot->state == running && event->state == running;
  if (only_progress && now_ms - slot->sent_ms < PROGRESS_EVERY_MS) {
    slot->kept = true;
    slot->progress = event->progress;
    slot->time_ms = event->time_ms;
    return;
  }
  if (!known && slot->used && slot->kept)
    send_kept(watch, slot, now_ms);
  add_event(watch, &event->id, event->queue, event->state, event->progress, event->time_ms);
  slot->used = event->state == running;
  slot->kept = false;
  slot->id = event->id;
  slot->state = event->state;
  slot->sent_ms = now_ms;
  strncpy(slot->queue, event->queue, QUEUE_SIZE - 1);
}

/* Adds what has been kept long enough; the time when the next one will have been, INT64_MAX for never. */
static int64_t send_due(struct watch *watch, int64_t now_ms) {
  int64_t next_ms = INT64_MAX;
  for (size_t i = 0; i < SLOTS; i++) {
    struct slot *slot = &watch->slots[i];
    if (!slot->kept)
      continue;
    int64_t due_ms = slot->sent_ms + PROGRESS_EVERY_MS;
    if (due_ms <= now_ms)
      send_kept(watch, slot, now_ms);
    else if (due_ms < next_ms)
      next_ms = due_ms;
  }
  return next_ms;
}

static void send_message(struct watch *watch, int64_t now_ms) {
  Ringback__V1__WatchJobsResponse response = RINGBACK__V1__WATCH_JOBS_RESPONSE__INIT;
  response.events = watch->events;
  response.n_events = watch->event_count;
  response.cursor = watch->cursor;
  watch->sent_ms = now_ms;
  memcpy(watch->cursor_sent, watch->cursor, CURSOR_SIZE);
  rpc_send(watch->call, &response.base);
}

static void watch_park(struct watch *watch, int64_t until_ms) {
  struct rpc_call *call = watch->call;
  uint64_t key = store_key_watch(watch->bucket);
  if (rpc_park(call, &key, 1, true, until_ms))
    return;
  Google__Rpc__Status *status = status_too_many_parked(rpc_arena(call));
  destroy(watch);
  rpc_fail_status(call, status);
}

static void watch_done(void *data, const struct store_error *error, const struct store_events *result) {
  struct watch *watch = data;
  struct rpc_call *call = watch->call;
  if (error->code != STORE_OK) {
    Google__Rpc__Status *status = status_store(rpc_arena(call), error, watch->what, "cursor");
    destroy(watch);
    rpc_fail_status(call, status);
    return;
  }
  int64_t now_ms = rpc_now_ms(call);
  arena_reset(watch->scratch);
  /* An event can push out a kept one; at the end every place may have one more. */
  watch->events = ARENA_ARRAY(watch->scratch, Ringback__V1__JobEvent *, 2 * result->count + SLOTS);
  watch->event_count = 0;
  for (size_t i = 0; i < result->count; i++)
    if (is_wanted(watch, &result->events[i]))
      take_event(watch, &result->events[i], now_ms);
  snprintf(watch->cursor, CURSOR_SIZE, "%s", result->cursor);
  int64_t next_ms = send_due(watch, now_ms);
  bool cursor_due = now_ms - watch->sent_ms >= CURSOR_EVERY_MS && strcmp(watch->cursor, watch->cursor_sent) != 0;
  if (watch->event_count > 0 || watch->sent_ms == 0 || cursor_due) {
    send_message(watch, now_ms); /* watch_writable goes on */
    return;
  }
  /* Only an answer without anything asks Redis to tell of the next change. */
  if (result->more || result->count > 0) {
    ask(watch);
    return;
  }
  if (now_ms + CURSOR_EVERY_MS < next_ms)
    next_ms = now_ms + CURSOR_EVERY_MS;
  watch_park(watch, next_ms);
}

static void read_ids(struct check *check, const Ringback__V1__WatchJobsRequest *request, struct watch *watch) {
  if (request->n_job_ids == 0)
    return;
  watch->ids = check_job_ids(check, FIELD(NULL, "job_ids"), request->job_ids, request->n_job_ids, BATCH_MAX);
  watch->id_count = request->n_job_ids;
  if (watch->ids)
    qsort(watch->ids, watch->id_count, sizeof *watch->ids, compare_ids);
}

/* A place in the log is two numbers, `1795391208026-17`. */
static void check_cursor(struct check *check, const struct field *field, const char *cursor) {
  static const char digits[] = "0123456789";
  size_t first = strspn(cursor, digits);
  size_t second = cursor[first] == '-' ? strspn(cursor + first + 1, digits) : 0;
  if (*cursor && (first < 1 || first > 15 || second < 1 || second > 15 || cursor[first + 1 + second]))
    check_fail(check, field, "is no cursor of ListJobs or WatchJobs; leave it empty to begin now");
}

/* A queue that does not exist would be silent for ever. */
static void queue_done(void *data, const struct store_error *error, const struct store_queue *queues, size_t count) {
  struct watch *watch = data;
  struct rpc_call *call = watch->call;
  (void)queues;
  (void)count;
  if (error->code == STORE_OK) {
    ask(watch);
    return;
  }
  const char *what = names_format_queue(rpc_arena(call), watch->bucket, watch->queue);
  Google__Rpc__Status *status =
      status_store(rpc_arena(call), error, arena_printf(rpc_arena(call), "queue %s", what), "queue");
  destroy(watch);
  rpc_fail_status(call, status);
}

void watch_jobs(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__WatchJobsRequest *request = (const Ringback__V1__WatchJobsRequest *)message;
  struct check check = {.arena = rpc_arena(call)};
  struct watch *watch = calloc(1, sizeof *watch);
  if (!watch)
    abort();
  watch->call = call;
  watch->scratch = arena_create();
  watch->bucket = check_bucket(&check, FIELD(NULL, "bucket"), request->bucket);
  watch->what = arena_printf(check.arena, "bucket %.80s", request->bucket);
  watch->queue = "";
  if (*request->queue) {
    struct queue_name name = check_queue(&check, FIELD(NULL, "queue"), request->queue);
    watch->queue = name.queue;
    if (*name.bucket && *watch->bucket && strcmp(name.bucket, watch->bucket) != 0)
      check_fail(&check, FIELD(NULL, "queue"), "is in the bucket \"%s\"; the request's bucket is \"%s\"", name.bucket,
                 watch->bucket);
  }
  read_ids(&check, request, watch);
  check_cursor(&check, FIELD(NULL, "cursor"), request->cursor);
  if (check.count) {
    destroy(watch);
    status_refuse(call, &check);
    return;
  }
  snprintf(watch->cursor, CURSOR_SIZE, "%s", request->cursor);
  rpc_set_data(call, watch);
  if (*watch->queue)
    store_get_queue(services_store(call), watch->bucket, watch->queue, queue_done, watch);
  else
    ask(watch);
}

void watch_writable(struct rpc_call *call) {
  ask(rpc_data(call));
}

void watch_wake(struct rpc_call *call, enum rpc_wake why) {
  struct watch *watch = rpc_data(call);
  if (why != RPC_WAKE_DRAIN) {
    ask(watch);
    return;
  }
  destroy(watch);
  rpc_fail_status(call, rpc_status_create(rpc_arena(call), RPC_UNAVAILABLE,
                                          "the server is going away; go on from the last cursor"));
}

void watch_closed(struct rpc_call *call) {
  destroy(rpc_data(call));
}
