/*
 * `ringback worker` over the Work stream: a thread runs ringback_work, which leases, renews and tells; slots take the
 * jobs that it brings and wait for what becomes of their outcomes. Its callbacks only put things down under
 * stream_lock and wake the slots.
 *
 * Without a stream that goes on (it has been refused for good) a slot gets along by the single calls of worker_run.c.
 */
#include "client/tool/worker.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* With stream_lock held. */
static struct worker_slot *slot_with(struct worker *worker, const char *job_id, int64_t fencing_token) {
  for (size_t i = 0; i < worker->slot_count; i++) {
    struct worker_slot *slot = &worker->slots[i];
    const Ringback__V1__LeasedJob *leased = slot->leased;
    if (leased != NULL && leased->fencing_token == fencing_token && strcmp(leased->job->id, job_id) == 0)
      return slot;
  }
  return NULL;
}

static Ringback__V1__LeasedJob *copy_of(const Ringback__V1__LeasedJob *leased) {
  size_t size = ringback__v1__leased_job__get_packed_size(leased);
  uint8_t *bytes = malloc(size + 1);
  if (bytes == NULL)
    return NULL;
  ringback__v1__leased_job__pack(leased, bytes);
  Ringback__V1__LeasedJob *copy = ringback__v1__leased_job__unpack(NULL, size, bytes);
  free(bytes);
  return copy;
}

static void on_job(void *context, struct ringback_work *work, const ProtobufCMessage *leased_job) {
  struct worker *worker = context;
  Ringback__V1__LeasedJob *leased = copy_of((const Ringback__V1__LeasedJob *)leased_job);
  pthread_mutex_lock(&worker->stream_lock);
  bool taken = leased != NULL && worker->brought_count < WORKER_SLOTS_MAX;
  if (taken)
    worker->brought[worker->brought_count++] = leased;
  pthread_cond_broadcast(&worker->stream_changed);
  pthread_mutex_unlock(&worker->stream_lock);
  if (!taken && leased != NULL) {
    ringback_work_release(work, leased->job->id, leased->fencing_token);
    ringback__v1__leased_job__free_unpacked(leased, NULL);
  }
}

static void on_stop(void *context, struct ringback_work *work, const char *job_id, int64_t fencing_token, int reason) {
  struct worker *worker = context;
  (void)work;
  pthread_mutex_lock(&worker->stream_lock);
  struct worker_slot *slot = slot_with(worker, job_id, fencing_token);
  if (slot != NULL)
    slot->stop_reason = reason;
  for (size_t i = 0; slot == NULL && i < worker->brought_count; i++) {
    Ringback__V1__LeasedJob *leased = worker->brought[i];
    if (leased->fencing_token != fencing_token || strcmp(leased->job->id, job_id) != 0)
      continue;
    worker->brought_count--;
    memmove(&worker->brought[i], &worker->brought[i + 1], (worker->brought_count - i) * sizeof leased);
    ringback__v1__leased_job__free_unpacked(leased, NULL);
    break;
  }
  pthread_cond_broadcast(&worker->stream_changed);
  pthread_mutex_unlock(&worker->stream_lock);
}

static void on_result(void *context, struct ringback_work *work, const char *job_id, int64_t fencing_token, int state,
                      const struct ringback_error *error) {
  struct worker *worker = context;
  (void)work;
  pthread_mutex_lock(&worker->stream_lock);
  struct worker_slot *slot = slot_with(worker, job_id, fencing_token);
  if (slot != NULL) {
    slot->answered = true;
    slot->answer_state = state;
    slot->answer = *error;
  }
  pthread_cond_broadcast(&worker->stream_changed);
  pthread_mutex_unlock(&worker->stream_lock);
}

static void on_trouble(void *context, struct ringback_work *work, const struct ringback_error *error) {
  struct worker *worker = context;
  (void)work;
  if (error->code != RINGBACK_OK && !worker->troubled && atomic_load(&worker->stage) == WORKER_LEASING)
    worker_warn(worker, "cannot lease, trying on: %s", error->message);
  worker->troubled = error->code != RINGBACK_OK;
}

static void *stream_thread(void *argument) {
  struct worker *worker = argument;
  struct ringback_error error;
  bool ended_well = ringback_work_run(worker->work, &error);
  pthread_mutex_lock(&worker->stream_lock);
  worker->stream_ended = true;
  pthread_cond_broadcast(&worker->stream_changed);
  pthread_mutex_unlock(&worker->stream_lock);
  if (!ended_well)
    worker_fail(worker, &error);
  return NULL;
}

bool worker_stream_start(struct worker *worker) {
  struct ringback_work_options options = {
      .queues = (const char *const *)worker->queues,
      .queue_count = worker->queue_count,
      .worker = worker->name,
      .lease_ms = worker->lease_ms,
      .jobs_max = worker->slot_count,
      .jobs_total = worker->counted ? (int64_t)atomic_load(&worker->remaining) : 0,
      .context = worker,
      .on_job = on_job,
      .on_stop = on_stop,
      .on_result = on_result,
      .on_trouble = on_trouble,
  };
  struct ringback_error error;
  worker->work = ringback_work_create(worker->client, &options, &error);
  if (worker->work == NULL) {
    tool_error("%s", error.message);
    return false;
  }
  if (pthread_create(&worker->stream_thread, NULL, stream_thread, worker) != 0) {
    tool_error("no thread for the stream");
    ringback_work_destroy(worker->work);
    worker->work = NULL;
    return false;
  }
  return true;
}

void worker_stream_end(struct worker *worker) {
  if (worker->work == NULL)
    return;
  ringback_work_stop(worker->work);
  pthread_join(worker->stream_thread, NULL);
  ringback_work_destroy(worker->work);
  worker->work = NULL;
  for (size_t i = 0; i < worker->brought_count; i++)
    ringback__v1__leased_job__free_unpacked(worker->brought[i], NULL);
  worker->brought_count = 0;
}

Ringback__V1__LeasedJob *worker_stream_take(struct worker_slot *slot) {
  struct worker *worker = slot->worker;
  Ringback__V1__LeasedJob *leased = NULL;
  pthread_mutex_lock(&worker->stream_lock);
  while (worker->brought_count == 0 && !worker->stream_ended)
    pthread_cond_wait(&worker->stream_changed, &worker->stream_lock);
  if (worker->brought_count > 0 && !worker->stream_ended) {
    leased = worker->brought[0];
    worker->brought_count--;
    memmove(&worker->brought[0], &worker->brought[1], worker->brought_count * sizeof leased);
    slot->leased = leased;
    slot->stop_reason = 0;
    slot->answered = false;
  }
  pthread_mutex_unlock(&worker->stream_lock);
  return leased;
}

void worker_stream_done(struct worker_slot *slot) {
  pthread_mutex_lock(&slot->worker->stream_lock);
  ringback__v1__leased_job__free_unpacked(slot->leased, NULL);
  slot->leased = NULL;
  pthread_mutex_unlock(&slot->worker->stream_lock);
}

int worker_stream_stop_reason(struct worker_slot *slot) {
  pthread_mutex_lock(&slot->worker->stream_lock);
  int reason = slot->stop_reason;
  pthread_mutex_unlock(&slot->worker->stream_lock);
  return reason;
}

bool worker_stream_goes_on(struct worker *worker) {
  if (worker->work == NULL)
    return false;
  pthread_mutex_lock(&worker->stream_lock);
  bool ended = worker->stream_ended;
  pthread_mutex_unlock(&worker->stream_lock);
  return !ended;
}

bool worker_stream_answer(struct worker_slot *slot, int64_t timeout_ms, int *state, struct ringback_error *error) {
  struct worker *worker = slot->worker;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += timeout_ms / 1000;
  pthread_mutex_lock(&worker->stream_lock);
  while (!slot->answered && !worker->stream_ended &&
         pthread_cond_timedwait(&worker->stream_changed, &worker->stream_lock, &until) != ETIMEDOUT) {
  }
  bool answered = slot->answered;
  slot->answered = false;
  if (answered) {
    *state = slot->answer_state;
    *error = slot->answer;
  }
  pthread_mutex_unlock(&worker->stream_lock);
  return answered;
}
