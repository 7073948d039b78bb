/*
 * ringback_work: a worker over the stream WorkerService.Work. The thread in ringback_work_run drives everything from
 * one completion queue: it reads, calls back, and says what there is to say in one message at a time. Other threads
 * change the jobs in hand under the mutex and wake it by an empty batch on the permanent call of a lame channel.
 *
 * Credit: what is granted and not used, and what runs, is together never more than jobs_max; a job whose outcome is on
 * its way has made room already, so outcome and credit leave together.
 */
#include "client/lib/work.h"
#include "client/lib/client.h"
#include "client/lib/error.h"
#include "client/lib/retry.h"
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORK_PATH "/ringback.v1.WorkerService/Work"
#define JOBS_MAX 1000
#define AGAIN_MS 500           /* an item that the service could not take */
#define STOP_MS 2000           /* for the goodbye of a stream that has nothing left to do */
#define LEASE_MS_ASSUMED 30000 /* of a server that does not say how long the lease is */

struct ringback_work {
  struct ringback_client *client;
  struct ringback_work_options options; /* its texts are ours */
  size_t jobs_max;

  pthread_mutex_t mutex; /* of all that other threads change: */
  struct work_jobs jobs;
  bool draining, stopping, poked;

  /* The running thread's own. */
  grpc_completion_queue *queue;
  grpc_channel *lame_channel;
  grpc_call *lame_call;
  struct work_saying saying;
  int64_t received_total;

  /* Of one stream. */
  grpc_call *call;
  grpc_metadata_array headers;
  grpc_byte_buffer *sent, *received;
  struct call_status status;
  bool opened, sending, reading, closing, ended;
  bool drain_said, drain_answered, heard;
  bool leaving;   /* the server goes away: end the stream once every outcome is answered, and open another */
  int64_t credit; /* granted and not used */
  int64_t sequence, acknowledged;
  /* Tags: their addresses tell the batches apart. */
  char started_tag, sent_tag, closed_tag, received_tag, status_tag, poke_tag;
  unsigned pending;
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- making and ending ----------------------------------------------------------------------------------------------
 */

static void options_close(struct ringback_work_options *options) {
  for (size_t i = 0; options->queues != NULL && i < options->queue_count; i++)
    free((char *)options->queues[i]);
  free((void *)options->queues);
  free((char *)options->worker);
}

static bool options_copy(struct ringback_work_options *copy, const struct ringback_work_options *options) {
  *copy = *options;
  copy->worker = strdup(options->worker != NULL ? options->worker : "");
  char **queues = calloc(options->queue_count, sizeof *queues);
  copy->queues = (const char *const *)queues;
  if (copy->worker == NULL || queues == NULL)
    return false;
  for (size_t i = 0; i < options->queue_count; i++)
    if ((queues[i] = strdup(options->queues[i])) == NULL)
      return false;
  return true;
}

struct ringback_work *ringback_work_create(struct ringback_client *client, const struct ringback_work_options *options,
                                           struct ringback_error *error) {
  struct ringback_error unwanted;
  if (error == NULL)
    error = &unwanted;
  error_clear(error);
  if (options->queue_count == 0 || options->on_job == NULL || options->jobs_max > JOBS_MAX) {
    error_set(error, RINGBACK_INVALID_ARGUMENT, "a worker needs queues, on_job, and at most %d jobs in hand", JOBS_MAX);
    return NULL;
  }
  struct ringback_work *work = calloc(1, sizeof *work);
  if (work == NULL || !options_copy(&work->options, options)) {
    error_set(error, RINGBACK_RESOURCE_EXHAUSTED, "out of memory");
    if (work != NULL)
      options_close(&work->options);
    free(work);
    return NULL;
  }
  work->client = client;
  work->jobs_max = options->jobs_max != 0 ? options->jobs_max : 1;
  pthread_mutex_init(&work->mutex, NULL);
  work->queue = grpc_completion_queue_create_for_next(NULL);
  work->lame_channel = grpc_lame_client_channel_create("wake-up", GRPC_STATUS_UNAVAILABLE, "never used");
  work->lame_call = grpc_channel_create_call(work->lame_channel, NULL, GRPC_PROPAGATE_DEFAULTS, work->queue,
                                             grpc_slice_from_static_string("/wake-up"), NULL,
                                             gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
  return work;
}

void ringback_work_destroy(struct ringback_work *work) {
  if (work == NULL)
    return;
  grpc_call_unref(work->lame_call);
  grpc_channel_destroy(work->lame_channel);
  grpc_completion_queue_shutdown(work->queue);
  while (grpc_completion_queue_next(work->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
         GRPC_QUEUE_SHUTDOWN) {
  }
  grpc_completion_queue_destroy(work->queue);
  work_jobs_close(&work->jobs);
  pthread_mutex_destroy(&work->mutex);
  options_close(&work->options);
  free(work);
}

/* --- from any thread ------------------------------------------------------------------------------------------------
 */

/* With the mutex held: makes the running thread look again. */
static void poke(struct ringback_work *work) {
  if (work->poked)
    return;
  work->poked = true;
  grpc_call_error started = grpc_call_start_batch(work->lame_call, NULL, 0, &work->poke_tag, NULL);
  assert(started == GRPC_CALL_OK);
  (void)started;
}

/* With the mutex held: the job, if its end has not been asked for. */
static struct work_job *running(struct ringback_work *work, const char *job_id, int64_t fencing_token) {
  struct work_job *job = fencing_token != 0 ? work_jobs_find(&work->jobs, job_id, fencing_token) : NULL;
  return job != NULL && job->state == WORK_RUNNING ? job : NULL;
}

bool ringback_work_finish(struct ringback_work *work, const ProtobufCMessage *finished_job) {
  const Ringback__V1__FinishedJob *finished = (const Ringback__V1__FinishedJob *)finished_job;
  assert(finished_job->descriptor == &ringback__v1__finished_job__descriptor);
  if (finished->lease == NULL)
    return false;
  size_t size = ringback__v1__finished_job__get_packed_size(finished);
  uint8_t *bytes = malloc(size + 1);
  Ringback__V1__FinishedJob *copy = NULL;
  if (bytes != NULL)
    copy = ringback__v1__finished_job__unpack(NULL, ringback__v1__finished_job__pack(finished, bytes), bytes);
  free(bytes);
  if (copy == NULL)
    return false;
  pthread_mutex_lock(&work->mutex);
  struct work_job *job = running(work, copy->lease->job_id, copy->lease->fencing_token);
  if (job != NULL) {
    work_job_end(&work->jobs, job, WORK_FINISHING, copy);
    poke(work);
  }
  pthread_mutex_unlock(&work->mutex);
  if (job == NULL)
    ringback__v1__finished_job__free_unpacked(copy, NULL);
  return job != NULL;
}

bool ringback_work_release(struct ringback_work *work, const char *job_id, int64_t fencing_token) {
  pthread_mutex_lock(&work->mutex);
  struct work_job *job = running(work, job_id, fencing_token);
  if (job != NULL) {
    work_job_end(&work->jobs, job, WORK_RELEASING, NULL);
    poke(work);
  }
  pthread_mutex_unlock(&work->mutex);
  return job != NULL;
}

bool ringback_work_forget(struct ringback_work *work, const char *job_id, int64_t fencing_token) {
  pthread_mutex_lock(&work->mutex);
  struct work_job *job = fencing_token != 0 ? work_jobs_find(&work->jobs, job_id, fencing_token) : NULL;
  if (job != NULL) {
    work_jobs_remove(&work->jobs, job);
    poke(work);
  }
  pthread_mutex_unlock(&work->mutex);
  return job != NULL;
}

bool ringback_work_progress(struct ringback_work *work, const char *job_id, int64_t fencing_token, int progress) {
  pthread_mutex_lock(&work->mutex);
  struct work_job *job = running(work, job_id, fencing_token);
  if (job != NULL) {
    work_job_progress(&work->jobs, job, progress < 0 ? 0 : progress > 100 ? 100 : progress);
    poke(work);
  }
  pthread_mutex_unlock(&work->mutex);
  return job != NULL;
}

void ringback_work_drain(struct ringback_work *work) {
  pthread_mutex_lock(&work->mutex);
  work->draining = true;
  poke(work);
  pthread_mutex_unlock(&work->mutex);
}

void ringback_work_stop(struct ringback_work *work) {
  pthread_mutex_lock(&work->mutex);
  work->stopping = work->draining = true;
  poke(work);
  pthread_mutex_unlock(&work->mutex);
}

/* --- what the service says ------------------------------------------------------------------------------------------
 */

static int64_t milliseconds_of(const Google__Protobuf__Timestamp *time) {
  return time->seconds * 1000 + time->nanos / 1000000;
}

static int64_t lease_length_ms(const struct ringback_work *work, const Ringback__V1__LeasedJob *leased) {
  if (leased->lease_expire_time != NULL && leased->job->start_time != NULL) {
    int64_t length_ms = milliseconds_of(leased->lease_expire_time) - milliseconds_of(leased->job->start_time);
    if (length_ms > 0)
      return length_ms;
  }
  return work->options.lease_ms > 0 ? work->options.lease_ms : LEASE_MS_ASSUMED;
}

static void hear_job(struct ringback_work *work, const Ringback__V1__LeasedJob *leased) {
  if (leased->job == NULL)
    return;
  work->credit--;
  work->received_total++;
  pthread_mutex_lock(&work->mutex);
  struct work_job *added = work_jobs_add(&work->jobs, leased, lease_length_ms(work, leased), now_ms());
  pthread_mutex_unlock(&work->mutex);
  if (added != NULL) /* a job for which there is no memory comes back when its lease runs out */
    work->options.on_job(work->options.context, work, &leased->base);
}

static void tell_stop(struct ringback_work *work, const char *job_id, int64_t fencing_token, int reason) {
  if (work->options.on_stop != NULL)
    work->options.on_stop(work->options.context, work, job_id, fencing_token, reason);
}

static void hear_renewal(struct ringback_work *work, const Ringback__V1__WorkRenewal *renewal) {
  const Ringback__V1__RenewLeasesResult *result = renewal->result;
  if (result == NULL)
    return;
  int64_t stopped_token = 0;
  pthread_mutex_lock(&work->mutex);
  struct work_job *job = work_jobs_find(&work->jobs, renewal->job_id, 0);
  if (job != NULL && job->state == WORK_RUNNING) {
    if (result->status == NULL || result->status->code == RINGBACK_OK) {
      work_job_renewed(&work->jobs, job);
    } else if (result->stop_reason != RINGBACK__V1__STOP_REASON__STOP_REASON_UNSPECIFIED) {
      stopped_token = job->fencing_token;
      work_jobs_remove(&work->jobs, job);
    } else {
      work_job_again(&work->jobs, job, now_ms() + AGAIN_MS);
    }
  }
  pthread_mutex_unlock(&work->mutex);
  if (stopped_token != 0)
    tell_stop(work, renewal->job_id, stopped_token, (int)result->stop_reason);
}

/* The result of a finish or a release. */
static void hear_end(struct ringback_work *work, enum work_state state, const char *job_id,
                     const Google__Rpc__Status *status, int job_state) {
  struct ringback_error error;
  error_clear(&error);
  if (status != NULL)
    ringback_error_from_status(&error, &status->base);
  bool again = error.code == RINGBACK_UNAVAILABLE || error.code == RINGBACK_INTERNAL;
  int64_t token = 0;
  pthread_mutex_lock(&work->mutex);
  struct work_job *job = work_jobs_find(&work->jobs, job_id, 0);
  if (job != NULL && job->state == state && job->said) {
    if (again) {
      work_job_again(&work->jobs, job, now_ms() + AGAIN_MS);
    } else {
      token = job->fencing_token;
      if (error.code == RINGBACK_INVALID_ARGUMENT && state == WORK_FINISHING)
        work_job_go_on(&work->jobs, job);
      else
        work_jobs_remove(&work->jobs, job);
    }
  }
  pthread_mutex_unlock(&work->mutex);
  if (token != 0 && work->options.on_result != NULL)
    work->options.on_result(work->options.context, work, job_id, token, job_state, &error);
}

static void hear(struct ringback_work *work, const Ringback__V1__WorkResponse *response) {
  work->heard = true;
  if (response->sequence > work->sequence)
    work->sequence = response->sequence;
  if (response->draining == RINGBACK__V1__DRAIN_REASON__DRAIN_REASON_REQUESTED)
    work->drain_answered = true;
  if (response->draining == RINGBACK__V1__DRAIN_REASON__DRAIN_REASON_SHUTTING_DOWN)
    work->leaving = true;
  for (size_t i = 0; i < response->n_renewals; i++)
    hear_renewal(work, response->renewals[i]);
  for (size_t i = 0; i < response->n_finished; i++) {
    const Ringback__V1__FinishJobsResult *result = response->finished[i]->result;
    if (result != NULL)
      hear_end(work, WORK_FINISHING, response->finished[i]->job_id, result->status, (int)result->state);
  }
  for (size_t i = 0; i < response->n_released; i++)
    hear_end(work, WORK_RELEASING, response->released[i]->job_id, response->released[i]->status, 0);
  for (size_t i = 0; i < response->n_jobs; i++)
    hear_job(work, response->jobs[i]);
}

/* Jobs whose leases have run out by our clock: renewals did not get through. */
static void end_expired(struct ringback_work *work) {
  for (;;) {
    char *job_id = NULL;
    int64_t token = 0, time_ms = now_ms();
    pthread_mutex_lock(&work->mutex);
    struct work_job *job = work_jobs_expired(&work->jobs, time_ms);
    if (job != NULL) {
      job_id = strdup(job->job_id);
      token = job->fencing_token;
      work_jobs_remove(&work->jobs, job);
    }
    pthread_mutex_unlock(&work->mutex);
    if (job_id == NULL)
      return;
    tell_stop(work, job_id, token, RINGBACK__V1__STOP_REASON__STOP_REASON_LEASE_LOST);
    free(job_id);
  }
}

/* --- the stream -----------------------------------------------------------------------------------------------------
 */

static void start(struct ringback_work *work, const grpc_op *ops, size_t count, void *tag) {
  grpc_call_error started = grpc_call_start_batch(work->call, ops, count, tag, NULL);
  assert(started == GRPC_CALL_OK);
  (void)started;
  work->pending++;
}

static void start_reading(struct ringback_work *work) {
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
  op.data.recv_message.recv_message = &work->received;
  work->reading = true;
  start(work, &op, 1, &work->received_tag);
}

static void open_stream(struct ringback_work *work) {
  work->opened = work->sending = work->closing = work->ended = false;
  work->drain_said = work->drain_answered = work->heard = work->leaving = false;
  work->credit = work->sequence = work->acknowledged = 0;
  work->call = call_create(work->client, WORK_PATH, work->queue, call_deadline(-1));
  grpc_metadata_array_init(&work->headers);
  call_status_init(&work->status);
  pthread_mutex_lock(&work->mutex);
  work_jobs_forget_said(&work->jobs);
  pthread_mutex_unlock(&work->mutex);

  grpc_op ops[2] = {0};
  ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
  ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
  ops[1].data.recv_initial_metadata.recv_initial_metadata = &work->headers;
  start(work, ops, 2, &work->started_tag);
  grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
  end.data.recv_status_on_client.trailing_metadata = &work->status.trailers;
  end.data.recv_status_on_client.status = &work->status.code;
  end.data.recv_status_on_client.status_details = &work->status.details;
  start(work, &end, 1, &work->status_tag);
  start_reading(work);
}

static void close_stream(struct ringback_work *work) {
  assert(work->pending == 0);
  if (work->sent != NULL)
    grpc_byte_buffer_destroy(work->sent);
  if (work->received != NULL)
    grpc_byte_buffer_destroy(work->received);
  work->sent = work->received = NULL;
  grpc_metadata_array_destroy(&work->headers);
  call_status_close(&work->status);
  grpc_call_unref(work->call);
  work->call = NULL;
}

/* With the mutex held: how much more credit there is to give. */
static int64_t more_credit(const struct ringback_work *work) {
  if (work->draining)
    return 0;
  int64_t room = (int64_t)work->jobs_max - (int64_t)work->jobs.running - work->credit;
  if (work->options.jobs_total > 0) {
    int64_t left = work->options.jobs_total - work->received_total - work->credit;
    room = left < room ? left : room;
  }
  return room > 0 ? room : 0;
}

static void fill_open(struct ringback_work *work, Ringback__V1__WorkOpen *open, Google__Protobuf__Duration *lease) {
  open->queues = (char **)work->options.queues;
  open->n_queues = work->options.queue_count;
  open->worker = (char *)work->options.worker;
  open->keep_leases = work->options.keep_leases;
  if (work->options.lease_ms > 0) {
    lease->seconds = work->options.lease_ms / 1000;
    lease->nanos = (int32_t)(work->options.lease_ms % 1000 * 1000000);
    open->lease = lease;
  }
}

/* Puts everything that there is to say into one message, while none is under way. */
static void say(struct ringback_work *work) {
  if (work->sending || work->closing || work->ended)
    return;
  Ringback__V1__WorkRequest request = RINGBACK__V1__WORK_REQUEST__INIT;
  Ringback__V1__WorkOpen open = RINGBACK__V1__WORK_OPEN__INIT;
  Google__Protobuf__Duration lease = GOOGLE__PROTOBUF__DURATION__INIT;
  if (!work->opened) {
    fill_open(work, &open, &lease);
    request.open = &open;
  }
  if (work->acknowledged < work->sequence)
    request.acknowledged_sequence = work->acknowledged = work->sequence;
  pthread_mutex_lock(&work->mutex);
  if (work->options.jobs_total > 0 && work->received_total >= work->options.jobs_total)
    work->draining = true;
  work_jobs_say(&work->jobs, now_ms(), &work->saying, &request);
  request.credit = (int32_t)more_credit(work);
  request.drain = work->draining && !work->drain_said;
  bool done = work->stopping || (work->draining && work->drain_answered && work->jobs.count == 0) ||
              (work->leaving && work->jobs.count == work->jobs.running);
  bool news = request.open != NULL || request.acknowledged_sequence != 0 || request.credit != 0 || request.drain ||
              request.n_renewals + request.n_finished + request.n_released > 0;
  if (news)
    work->sent = call_pack(&request.base);
  pthread_mutex_unlock(&work->mutex);
  if (news) {
    work->opened = true;
    work->drain_said |= request.drain != 0;
    work->credit += request.credit;
    work->sending = true;
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    op.data.send_message.send_message = work->sent;
    start(work, &op, 1, &work->sent_tag);
  } else if (done) {
    work->closing = true;
    grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    start(work, &op, 1, &work->closed_tag);
  }
}

static void take_message(struct ringback_work *work) {
  work->reading = false;
  if (work->received == NULL)
    return; /* the end: the status tells */
  struct ringback_error malformed = {.code = RINGBACK_OK};
  Ringback__V1__WorkResponse *response =
      (Ringback__V1__WorkResponse *)call_unpack(&ringback__v1__work_response__descriptor, work->received, &malformed);
  grpc_byte_buffer_destroy(work->received);
  work->received = NULL;
  if (response == NULL) {
    grpc_call_cancel(work->call, NULL);
    return;
  }
  hear(work, response);
  ringback__v1__work_response__free_unpacked(response, NULL);
  start_reading(work);
}

/* One event, or none until the time is up. */
static void take_event(struct ringback_work *work, int64_t until_ms) {
  int64_t wait_ms = until_ms == INT64_MAX ? -1 : until_ms - now_ms();
  grpc_event event =
      grpc_completion_queue_next(work->queue, call_deadline(wait_ms < 0 && until_ms != INT64_MAX ? 0 : wait_ms), NULL);
  if (event.type != GRPC_OP_COMPLETE)
    return;
  if (event.tag == &work->poke_tag) {
    pthread_mutex_lock(&work->mutex);
    work->poked = false;
    pthread_mutex_unlock(&work->mutex);
    return;
  }
  work->pending--;
  if (event.tag == &work->sent_tag) {
    work->sending = false;
    grpc_byte_buffer_destroy(work->sent);
    work->sent = NULL;
  } else if (event.tag == &work->received_tag) {
    take_message(work);
  } else if (event.tag == &work->status_tag) {
    work->ended = true;
  }
}

/* True when there is nothing left to do. */
static bool is_done(struct ringback_work *work) {
  pthread_mutex_lock(&work->mutex);
  bool done = work->stopping || (work->draining && work->jobs.count == 0);
  pthread_mutex_unlock(&work->mutex);
  return done;
}

/* One stream from its opening to its end; how it ended goes into *error. */
static void run_stream(struct ringback_work *work, struct ringback_error *error) {
  int64_t give_up_ms = INT64_MAX;
  open_stream(work);
  while (!work->ended || work->pending > 0) {
    if (!work->ended)
      say(work);
    if (!is_done(work))
      give_up_ms = INT64_MAX;
    else if (give_up_ms == INT64_MAX)
      give_up_ms = now_ms() + STOP_MS;
    pthread_mutex_lock(&work->mutex);
    int64_t until_ms = work->sending || work->closing || work->ended ? INT64_MAX : work_jobs_next_ms(&work->jobs);
    pthread_mutex_unlock(&work->mutex);
    take_event(work, until_ms < give_up_ms ? until_ms : give_up_ms);
    end_expired(work);
    if (now_ms() >= give_up_ms) {
      grpc_call_cancel(work->call, NULL);
      give_up_ms = INT64_MAX - 1; /* once is enough */
    }
  }
  call_status_read(&work->status, error);
  close_stream(work);
}

/* Whether another stream may fare better. */
static bool may_pass(int code) {
  return code == RINGBACK_OK || code == RINGBACK_CANCELLED || code == RINGBACK_UNKNOWN ||
         code == RINGBACK_DEADLINE_EXCEEDED || code == RINGBACK_RESOURCE_EXHAUSTED || code == RINGBACK_ABORTED ||
         code == RINGBACK_INTERNAL || code == RINGBACK_UNAVAILABLE;
}

bool ringback_work_run(struct ringback_work *work, struct ringback_error *error) {
  struct ringback_error unwanted;
  if (error == NULL)
    error = &unwanted;
  error_clear(error);
  for (int attempt = 1; !is_done(work); attempt++) {
    run_stream(work, error);
    if (is_done(work))
      break;
    if (!may_pass(error->code))
      return false;
    if (work->heard)
      attempt = 1;
    if (work->options.on_trouble != NULL)
      work->options.on_trouble(work->options.context, work, error);
    int64_t again_ms = now_ms() + retry_wait_ms(attempt, error->retry_delay_ms, retry_random());
    while (now_ms() < again_ms && !is_done(work)) {
      take_event(work, again_ms);
      end_expired(work);
    }
  }
  error_clear(error);
  return true;
}
