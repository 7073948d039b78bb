/* Work: one stream of a worker. What the worker says goes to the store at once, together with a lease as large as its
 * credit; what the store says is collected and leaves in one message when every store call of the stream is answered
 * and the message before has been taken. Store calls of all streams that the thread has in hand merge.
 *
 * A stream is always parked while no store call of its own is under way: under its queues' keys when there was too
 * little to lease, else under a key that nobody wakes, for its time limits and for the server's end.
 *
 * The stream's memory outlives its call where a continuation is still due: `over` says that the call must not be
 * touched any more. What it holds is in work_held.c; items are read in outcome.c, and handled in work_items.c.
 */
#include "server/services/work.h"

#include <stdlib.h>
#include <string.h>

#include "server/rpc/errors.h"
#include "server/services/convert.h"
#include "server/services/lease.h"
#include "server/services/status.h"
#include "server/services/work_stream.h"

/* Between a stream's beginning and its `open`. */
#define OPEN_MS_MAX (30 * SECOND_MS)
#define ACKNOWLEDGE_MS_DEFAULT (10 * SECOND_MS)
/* After the store could not be reached. */
#define LEASE_AGAIN_MS SECOND_MS
/* An answer of the store that is shorter than asked for, and smaller than this, has emptied the queues. */
#define SHORT_BYTES_MAX (ANSWER_BYTES_MAX / 4)

static void settle(struct work *work);

static void need_arena(struct work *work) {
  if (!work->out)
    work->out = arena_create();
}

static void drop_arena(struct work *work) {
  if (work->out)
    arena_destroy(work->out);
  work->out = NULL;
}

static void destroy(struct work *work) {
  held_close(&work->held);
  drop_arena(work);
  free(work);
}

/* --- giving back --- */

static void give_back_done(void *context, const struct store_error *error, const struct store_items *result) {
  /* A job that could not be given back returns when its lease runs out. */
  (void)context;
  (void)error;
  (void)result;
}

/* Acknowledged jobs stay with a worker that wants it so, and with every worker whose server goes away. */
static void give_back_held(struct work *work) {
  bool keep = work->keep_leases || work->shutting_down;
  struct store_release releases[BATCH_MAX];
  size_t count = 0;
  for (size_t i = 0; i < work->held.capacity; i++) {
    const struct held_job *job = &work->held.places[i];
    if (job->fencing_token == 0 || (keep && job->sequence <= work->acknowledged))
      continue;
    releases[count++] = (struct store_release){job->id, job->fencing_token};
    if (count == BATCH_MAX) {
      store_release(work->store, work->bucket, releases, count, give_back_done, NULL);
      count = 0;
    }
  }
  if (count > 0)
    store_release(work->store, work->bucket, releases, count, give_back_done, NULL);
  held_close(&work->held);
}

/* --- the end --- */

/* The call is answered or gone; the stream goes with its last continuation. */
static void leave(struct work *work) {
  if (work->over)
    return;
  work->over = true;
  if (work->opened)
    give_back_held(work);
  if (work->under_way == 0)
    destroy(work);
}

static void fail(struct work *work, const Google__Rpc__Status *status) {
  rpc_fail_status(work->call, status);
  leave(work);
}

static bool refuse(struct work *work, const struct check *check) {
  if (check->count == 0)
    return false;
  fail(work, status_findings(rpc_arena(work->call), check));
  return true;
}

/* --- leasing --- */

static void take_jobs(struct work *work, const struct store_leased *result) {
  struct arena *arena;
  size_t bytes = 0, taken = 0;
  work->waiting = result->count == 0;
  if (work->waiting)
    return;
  need_arena(work);
  arena = work->out;
  work->jobs = ARENA_ARRAY(arena, Ringback__V1__LeasedJob *, result->count + 1);
  for (; taken < result->count; taken++) {
    const struct store_job *leased = &result->jobs[taken];
    Ringback__V1__LeasedJob *message = ARENA_NEW(arena, Ringback__V1__LeasedJob);
    ringback__v1__leased_job__init(message);
    message->job = convert_job(arena, work->bucket, leased, true, rpc_now_ms(work->call));
    message->fencing_token = leased->fencing_token;
    message->lease_expire_time = convert_time(arena, leased->lease_expire_ms);
    bytes += ringback__v1__leased_job__get_packed_size(message) + 8;
    if (bytes > ANSWER_BYTES_MAX && taken > 0)
      break;
    work->jobs[work->job_count++] = message;
    held_add(&work->held, &leased->id, leased->fencing_token, work->sequence + 1);
  }
  struct store_release *left_out = ARENA_ARRAY(arena, struct store_release, result->count + 1);
  for (size_t i = taken; i < result->count; i++)
    left_out[i - taken] = (struct store_release){result->jobs[i].id, result->jobs[i].fencing_token};
  if (taken < result->count)
    store_release(work->store, work->bucket, left_out, result->count - taken, give_back_done, NULL);
  work->credit -= (int64_t)taken < work->credit ? (int64_t)taken : work->credit;
  work->waiting = result->count < work->asked && bytes < SHORT_BYTES_MAX;
}

static void lease_done(void *data, const struct store_error *error, const struct store_leased *result) {
  struct work *work = data;
  work->under_way--;
  work->leasing = false;
  if (work->over) {
    if (error->code == STORE_OK)
      for (size_t i = 0; i < result->count; i++) {
        struct store_release release = {result->jobs[i].id, result->jobs[i].fencing_token};
        store_release(work->store, work->bucket, &release, 1, give_back_done, NULL);
      }
  } else if (error->code == STORE_UNAVAILABLE) {
    work->lease_again_ms = rpc_now_ms(work->call) + LEASE_AGAIN_MS;
  } else if (error->code != STORE_OK) {
    fail(work, status_store(rpc_arena(work->call), error, work->what, NULL));
    return;
  } else {
    take_jobs(work, result);
    memcpy(work->keys, result->wait_keys, work->queue_count * sizeof *work->keys);
    if (work->waiting)
      nearby_learn(services_nearby(work->call), work->bucket, work->queues, work->keys, work->queue_count);
    if (result->count > 0)
      rpc_leave_line(work->call);
  }
  settle(work);
}

static bool may_lease(const struct work *work) {
  return work->opened && !work->over && !work->leasing && !work->waiting && work->credit > 0 && !work->drained &&
         !work->shutting_down && !work->half_closed && work->job_count == 0 && work->held.count < WORK_HELD_MAX &&
         work->sequence - work->acknowledged < WORK_UNACKNOWLEDGED_MAX &&
         rpc_now_ms(work->call) >= work->lease_again_ms;
}

static void lease(struct work *work) {
  size_t room = WORK_HELD_MAX - work->held.count;
  work->asked = (size_t)work->credit < room ? (size_t)work->credit : room;
  if (work->asked > BATCH_MAX)
    work->asked = BATCH_MAX;
  struct store_lease request = {work->bucket, work->queues, work->queue_count,
                                work->asked,  work->worker, work->lease_ms};
  work->leasing = true;
  work->under_way++;
  store_lease(work->store, &request, lease_done, work);
}

/* --- messages down --- */

static bool has_news(const struct work *work) {
  return work->job_count || work->renewals.count || work->finished.count || work->released.count || work->notice;
}

static void send_news(struct work *work) {
  if (work->sending || !has_news(work))
    return;
  Ringback__V1__WorkResponse response = RINGBACK__V1__WORK_RESPONSE__INIT;
  response.jobs = work->jobs;
  response.n_jobs = work->job_count;
  response.renewals = (Ringback__V1__WorkRenewal **)work->renewals.items;
  response.n_renewals = work->renewals.count;
  response.finished = (Ringback__V1__WorkFinish **)work->finished.items;
  response.n_finished = work->finished.count;
  response.released = (Ringback__V1__WorkRelease **)work->released.items;
  response.n_released = work->released.count;
  response.draining = work->notice;
  if (work->job_count)
    response.sequence = work->sequence + 1;
  if (!rpc_send(work->call, &response.base))
    return; /* the peer is gone: work_closed follows */
  work->sending = true;
  work->sending_since_ms = rpc_now_ms(work->call);
  if (work->job_count)
    work->sent_ms[++work->sequence % WORK_UNACKNOWLEDGED_MAX] = work->sending_since_ms;
  work->job_count = 0;
  work->notice = RINGBACK__V1__DRAIN_REASON__DRAIN_REASON_UNSPECIFIED;
  memset(&work->renewals, 0, sizeof work->renewals);
  memset(&work->finished, 0, sizeof work->finished);
  memset(&work->released, 0, sizeof work->released);
  if (work->out)
    arena_reset(work->out);
  if (work->paused) {
    work->paused = false;
    rpc_resume_reading(work->call);
  }
}

/* --- waiting --- */

static int64_t earlier(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* When the peer is deaf; INT64_MAX while there is nothing that it has not heard. */
static int64_t deaf_ms(const struct work *work) {
  int64_t at_ms = INT64_MAX;
  if (work->sending)
    at_ms = work->sending_since_ms + work->acknowledge_ms;
  if (work->acknowledged < work->sequence)
    at_ms = earlier(at_ms, work->sent_ms[(work->acknowledged + 1) % WORK_UNACKNOWLEDGED_MAX] + work->acknowledge_ms);
  return at_ms;
}

static void park(struct work *work) {
  int64_t now_ms = rpc_now_ms(work->call);
  if (!has_news(work))
    drop_arena(work);
  bool waiting = work->waiting && work->credit > 0 && !work->drained && !work->half_closed;
  int64_t until_ms = work->opened ? deaf_ms(work) : work->open_by_ms;
  if (work->lease_again_ms > now_ms && work->credit > 0)
    until_ms = earlier(until_ms, work->lease_again_ms);
  if (work->parked && work->parked_waiting == waiting && work->parked_until_ms <= until_ms)
    return; /* what wakes it early parks it again */
  uint64_t nobodys_key = ~(uint64_t)(uintptr_t)work;
  if (waiting)
    work->parked = rpc_park(work->call, work->keys, work->queue_count, false, until_ms);
  else
    work->parked = rpc_park(work->call, &nobodys_key, 1, false, until_ms);
  work->parked_waiting = waiting;
  work->parked_until_ms = until_ms;
  if (!work->parked && !work->shutting_down)
    fail(work, status_too_many_parked(rpc_arena(work->call)));
}

/* Everything has been said, and nothing more can come. */
static bool is_finished(const struct work *work) {
  if (work->sending || has_news(work))
    return false;
  return work->half_closed || (work->shutting_down && work->held.count == 0);
}

/* Goes on from wherever the stream stands, once none of its store calls is under way. */
static void settle(struct work *work) {
  if (work->under_way > 0)
    return;
  if (work->over) {
    destroy(work);
    return;
  }
  send_news(work);
  if (is_finished(work)) {
    rpc_end(work->call);
    leave(work);
  } else if (may_lease(work)) {
    lease(work);
  } else {
    park(work);
  }
}

void work_settle(struct work *work) {
  settle(work);
}

/* --- messages up --- */

static bool open_stream(struct work *work, const Ringback__V1__WorkOpen *open) {
  struct check check = {.arena = rpc_arena(work->call)};
  const struct field *field = FIELD(NULL, "open");
  if (!open) {
    check_fail(&check, field, "is missing; the first message must have it");
    refuse(work, &check);
    return false;
  }
  work->queues = lease_read_queues(&check, field, open->queues, open->n_queues, &work->bucket);
  work->queue_count = open->n_queues;
  check_ascii(&check, FIELD(field, "worker"), open->worker, LEASE_WORKER_CHARACTERS_MAX);
  work->worker = arena_strdup(check.arena, open->worker);
  work->lease_ms = check_duration(&check, FIELD(field, "lease"), open->lease, SECOND_MS, 12 * HOUR_MS, 0);
  work->acknowledge_ms = check_duration(&check, FIELD(field, "acknowledge_within"), open->acknowledge_within, SECOND_MS,
                                        MINUTE_MS, ACKNOWLEDGE_MS_DEFAULT);
  work->keep_leases = open->keep_leases;
  if (refuse(work, &check))
    return false;
  work->what = open->n_queues == 1 ? arena_printf(check.arena, "queue %s", open->queues[0])
                                   : arena_printf(check.arena, "queues of the bucket %s", work->bucket);
  work->keys = ARENA_ARRAY(check.arena, uint64_t, work->queue_count);
  work->opened = true;
  return true;
}

void work_acknowledge(struct work *work, int64_t sequence) {
  if (sequence > work->acknowledged && sequence <= work->sequence)
    work->acknowledged = sequence;
}

void work_message(struct rpc_call *call, const ProtobufCMessage *message) {
  const Ringback__V1__WorkRequest *request = (const Ringback__V1__WorkRequest *)message;
  struct work *work = rpc_data(call);
  struct check check = {.arena = rpc_arena(call)};
  if (!work->opened) {
    if (!open_stream(work, request->open))
      return;
  } else if (request->open) {
    check_fail(&check, FIELD(NULL, "open"), "comes a second time; only the first message may have it");
  }
  check_range(&check, FIELD(NULL, "credit"), request->credit, 0, WORK_CREDIT_MAX - work->credit);
  check_range(&check, FIELD(NULL, "acknowledged_sequence"), request->acknowledged_sequence, 0, work->sequence);
  check_count(&check, FIELD(NULL, "renewals"), request->n_renewals, 0, BATCH_MAX);
  check_count(&check, FIELD(NULL, "finished"), request->n_finished, 0, BATCH_MAX);
  check_count(&check, FIELD(NULL, "released"), request->n_released, 0, BATCH_MAX);
  if (refuse(work, &check))
    return;
  work_acknowledge(work, request->acknowledged_sequence);
  need_arena(work);
  work_take_items(work, request);
  work->credit += request->credit;
  if (request->drain && !work->drained) {
    work->drained = true;
    work->notice = RINGBACK__V1__DRAIN_REASON__DRAIN_REASON_REQUESTED;
  }
  if (may_lease(work))
    lease(work);
  if (work->renewals.count + work->finished.count + work->released.count >= WORK_RESULTS_MAX) {
    work->paused = true;
    rpc_pause_reading(call);
  }
  settle(work);
}

/* --- what else happens to the call --- */

void work_start(struct rpc_call *call, const ProtobufCMessage *nothing) {
  (void)nothing;
  struct work *work = calloc(1, sizeof *work);
  if (!work)
    abort();
  work->call = call;
  work->store = services_store(call);
  work->config = services_config(call);
  work->open_by_ms = rpc_now_ms(call) + OPEN_MS_MAX;
  rpc_set_data(call, work);
  park(work);
}

void work_half_closed(struct rpc_call *call) {
  struct work *work = rpc_data(call);
  if (!work->opened) {
    open_stream(work, NULL);
    return;
  }
  work->half_closed = true;
  settle(work);
}

void work_writable(struct rpc_call *call) {
  struct work *work = rpc_data(call);
  work->sending = false;
  settle(work);
}

void work_wake(struct rpc_call *call, enum rpc_wake why) {
  struct work *work = rpc_data(call);
  struct arena *arena = rpc_arena(call);
  int64_t now_ms = rpc_now_ms(call);
  work->parked = false;
  if (why == RPC_WAKE_DRAIN) {
    work->shutting_down = true;
    if (!work->opened) {
      fail(work, rpc_status_create(arena, RPC_UNAVAILABLE, "the server is shutting down"));
      return;
    }
    work->notice = RINGBACK__V1__DRAIN_REASON__DRAIN_REASON_SHUTTING_DOWN;
  } else if (!work->opened && work->open_by_ms <= now_ms) {
    fail(work, rpc_status_create(arena, RPC_DEADLINE_EXCEEDED, "no message with `open` has come in time"));
    return;
  } else if (work->opened && deaf_ms(work) <= now_ms) {
    fail(work, rpc_status_create(arena, RPC_ABORTED,
                                 "the worker takes or acknowledges nothing; what it held has been given back"));
    return;
  } else if (why == RPC_WAKE_KEY) {
    work->waiting = false;
  }
  settle(work);
}

void work_closed(struct rpc_call *call) {
  leave(rpc_data(call));
}
