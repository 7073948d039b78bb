/*
 * The Work streams of the load generator: workers whose jobs succeed at once. Of a message only what the protocol needs
 * is looked at (ids, tokens, the number in the payload), and the outcomes are written as they will be sent. What has
 * gathered while a message was under way leaves in the next one.
 */
#include "client/lib/error.h"
#include "client/lib/load_core.h"
#include "client/lib/wire.h"
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdlib.h>

#define WORK_PATH "/ringback.v1.WorkerService/Work"
/* Jobs in hand for each job of credit: outcomes make room before their results are there. */
#define HELD_FACTOR 4
#define OUTCOMES_MAX 250 /* in a message */
#define OUTCOME_BYTES_MAX 96
#define JOB_ID_BYTES_MAX 64
#define OPEN_BYTES_MAX 512
#define HEAD_BYTES_MAX (2 * (1 + WIRE_VARINT_BYTES_MAX))

/* Numbers of the contract's fields, by message. */
enum {
  REQUEST_OPEN = 1,
  REQUEST_CREDIT = 2,
  REQUEST_ACKNOWLEDGED = 3,
  REQUEST_FINISHED = 5,
  OPEN_QUEUES = 1,
  OPEN_WORKER = 2,
  RESPONSE_SEQUENCE = 1,
  RESPONSE_JOBS = 2,
  RESPONSE_FINISHED = 4,
  LEASED_JOB = 1,
  LEASED_TOKEN = 2,
  JOB_ID = 1,
  JOB_SPEC = 4,
  SPEC_OPERATION = 3,
  PAYLOAD_OPAQUE = 2,
  OPAQUE_DATA = 1,
  FINISHED_LEASE = 1,
  FINISHED_SUCCESS = 2,
  LEASE_JOB_ID = 1,
  LEASE_TOKEN = 2,
  WORK_FINISH_RESULT = 2,
  RESULT_STATUS = 1,
  STATUS_CODE = 1,
};

struct held_job {
  uint64_t number;
  uint8_t outcome[OUTCOME_BYTES_MAX]; /* as it stands in the message */
  size_t outcome_bytes;
};

struct load_stream {
  struct load_thread *thread;
  unsigned index, connection;
  grpc_call *call;
  struct load_tag started_tag, sent_tag, received_tag, status_tag, closed_tag;
  grpc_metadata_array headers;
  grpc_byte_buffer *sent, *received;
  struct call_status status;
  bool opened, sending, leaving, closing, ended;
  unsigned credit; /* to be granted */
  uint64_t sequence, acknowledged;
  /* A ring of the jobs in hand, in the order in which they came, which is that of their outcomes and of the results:
   * first those whose results are due, then those whose outcomes are to be sent. */
  struct held_job *jobs;
  unsigned jobs_max, head, said, unsaid;
};

#define STREAM_OF(tag, member) ((struct load_stream *)((char *)(tag)-offsetof(struct load_stream, member)))

static void say(struct load_stream *stream);

static void receive(struct load_stream *stream) {
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
  op.data.recv_message.recv_message = &stream->received;
  load_start(stream->thread, stream->call, &op, 1, &stream->received_tag);
}

/* --- up: open, credit, outcomes ---------------------------------------------------------------------------------- */

static size_t write_open(const struct load_stream *stream, uint8_t bytes[OPEN_BYTES_MAX]) {
  const char *queue = stream->thread->load->options->streams.queue;
  assert(strlen(queue) < OPEN_BYTES_MAX / 2);
  uint8_t *at = wire_put_bytes(bytes, OPEN_QUEUES, queue, strlen(queue));
  at = wire_put_bytes(at, OPEN_WORKER, "bench", 5);
  return (size_t)(at - bytes);
}

static void say(struct load_stream *stream) {
  if (stream->sending || stream->leaving || stream->ended)
    return;
  unsigned outcomes = stream->unsaid < OUTCOMES_MAX ? stream->unsaid : OUTCOMES_MAX;
  bool acknowledge = stream->acknowledged < stream->sequence;
  if (stream->opened && outcomes == 0 && stream->credit == 0 && !acknowledge)
    return;
  uint8_t open[OPEN_BYTES_MAX], head[HEAD_BYTES_MAX], *at = head;
  size_t open_bytes = stream->opened ? 0 : write_open(stream, open);
  if (stream->credit > 0)
    at = wire_put_number(at, REQUEST_CREDIT, stream->credit);
  if (acknowledge)
    at = wire_put_number(at, REQUEST_ACKNOWLEDGED, stream->sequence);
  size_t head_bytes = (size_t)(at - head);
  size_t size = head_bytes + (open_bytes > 0 ? 1 + wire_varint_bytes(open_bytes) + open_bytes : 0);
  for (unsigned i = 0; i < outcomes; i++)
    size += stream->jobs[(stream->head + stream->said + i) % stream->jobs_max].outcome_bytes;
  grpc_slice slice = grpc_slice_malloc(size);
  at = GRPC_SLICE_START_PTR(slice);
  if (open_bytes > 0)
    at = wire_put_bytes(at, REQUEST_OPEN, open, open_bytes);
  memcpy(at, head, head_bytes);
  at += head_bytes;
  for (unsigned i = 0; i < outcomes; i++) {
    unsigned place = (stream->head + stream->said + i) % stream->jobs_max;
    memcpy(at, stream->jobs[place].outcome, stream->jobs[place].outcome_bytes);
    at += stream->jobs[place].outcome_bytes;
  }
  assert(at == GRPC_SLICE_END_PTR(slice));
  stream->said += outcomes;
  stream->unsaid -= outcomes;
  stream->credit = 0;
  stream->acknowledged = stream->sequence;
  stream->opened = stream->sending = true;
  stream->sent = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
  op.data.send_message.send_message = stream->sent;
  load_start(stream->thread, stream->call, &op, 1, &stream->sent_tag);
}

/* A Ringback__V1__FinishedJob with an empty success, as a field of the request. */
static size_t write_outcome(uint8_t *bytes, struct wire job_id, uint64_t token) {
  uint8_t lease[JOB_ID_BYTES_MAX + 2 * (1 + WIRE_VARINT_BYTES_MAX)], finished[OUTCOME_BYTES_MAX];
  uint8_t *end = wire_put_bytes(lease, LEASE_JOB_ID, job_id.at, (size_t)(job_id.end - job_id.at));
  end = wire_put_number(end, LEASE_TOKEN, token);
  uint8_t *at = wire_put_bytes(finished, FINISHED_LEASE, lease, (size_t)(end - lease));
  at = wire_put_bytes(at, FINISHED_SUCCESS, "", 0);
  return (size_t)(wire_put_bytes(bytes, REQUEST_FINISHED, finished, (size_t)(at - finished)) - bytes);
}

/* --- down: jobs, results ----------------------------------------------------------------------------------------- */

static void protocol_error(struct load_stream *stream, const char *what) {
  struct ringback_error error;
  error_clear(&error);
  error_set(&error, RINGBACK_INTERNAL, "%s", what);
  load_tell(stream->thread->load, &error, true);
}

static void take_job(struct load_stream *stream, struct wire leased, int64_t now_ns) {
  struct load *load = stream->thread->load;
  const struct load_streams *streams = &load->options->streams;
  struct wire_field job, id, field, token;
  if (!wire_find(leased, LEASED_JOB, &job) || !wire_find(leased, LEASED_TOKEN, &token) ||
      !wire_find(job.bytes, JOB_ID, &id) || id.bytes.end - id.bytes.at > JOB_ID_BYTES_MAX - 16 ||
      stream->said + stream->unsaid == stream->jobs_max) {
    protocol_error(stream, "a job came without an id or a token, or beyond the credit");
    return;
  }
  uint64_t number;
  int64_t due_ns;
  struct wire payload = {NULL, NULL};
  if (wire_find(job.bytes, JOB_SPEC, &field) && wire_find(field.bytes, SPEC_OPERATION, &field) &&
      wire_find(field.bytes, PAYLOAD_OPAQUE, &field) && wire_find(field.bytes, OPAQUE_DATA, &field))
    payload = field.bytes;
  if (!streams->arrived(streams->context, payload.at, (size_t)(payload.end - payload.at), &number, &due_ns)) {
    /* It is not finished: the stream's end gives it back. */
    protocol_error(stream, "the queue has a job that is not of this run");
    return;
  }
  unsigned place = (stream->head + stream->said + stream->unsaid++) % stream->jobs_max;
  stream->jobs[place].number = number;
  stream->jobs[place].outcome_bytes = write_outcome(stream->jobs[place].outcome, id.bytes, token.number);
  stream->credit++;
  if (load_measures(load, now_ns)) {
    load_count(&stream->thread->counters.arrived, 1);
    histogram_record(&stream->thread->counters.arrival_ns, now_ns > due_ns ? (uint64_t)(now_ns - due_ns) : 0);
  }
}

static void take_result(struct load_stream *stream, struct wire finish, int64_t now_ns) {
  struct load *load = stream->thread->load;
  const struct load_streams *streams = &load->options->streams;
  struct load_counters *counters = &stream->thread->counters;
  struct wire_field result, status, code;
  if (stream->said == 0) {
    protocol_error(stream, "a result came for which nothing had been sent");
    return;
  }
  bool has_code = wire_find(finish, WORK_FINISH_RESULT, &result) && wire_find(result.bytes, RESULT_STATUS, &status) &&
                  wire_find(status.bytes, STATUS_CODE, &code);
  uint64_t number = stream->jobs[stream->head].number;
  stream->head = (stream->head + 1) % stream->jobs_max;
  stream->said--;
  streams->finished(streams->context, number, has_code ? (int)code.number : RINGBACK_OK);
  if (load_measures(load, now_ns)) {
    load_count(has_code && code.number != RINGBACK_OK ? &counters->finish_failed : &counters->finished, 1);
    atomic_store_explicit(&counters->last_ns, now_ns, memory_order_relaxed);
  }
}

static void take_message(struct load_stream *stream, struct wire message) {
  int64_t now_ns = load_now_ns();
  struct wire_field field;
  bool results = false, jobs = false;
  while (wire_next(&message, &field)) {
    if (field.number_of == RESPONSE_SEQUENCE) {
      stream->sequence = field.number > stream->sequence ? field.number : stream->sequence;
    } else if (field.number_of == RESPONSE_JOBS) {
      take_job(stream, field.bytes, now_ns);
      jobs = true;
    } else if (field.number_of == RESPONSE_FINISHED) {
      take_result(stream, field.bytes, now_ns);
      results = true;
    }
  }
  if (message.at != message.end)
    protocol_error(stream, "the answer is no ringback.v1.WorkResponse");
  if (jobs && load_measures(stream->thread->load, now_ns))
    load_count(&stream->thread->counters.messages, 1);
  if (results)
    load_poke_gated(stream->thread->load);
}

/* Says goodbye once nothing is being sent. */
static void leave(struct load_stream *stream) {
  stream->leaving = true;
  if (stream->sending || stream->closing || stream->ended)
    return;
  stream->closing = true;
  grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
  load_start(stream->thread, stream->call, &op, 1, &stream->closed_tag);
}

/* --- batches that are done --------------------------------------------------------------------------------------- */

static void started_done(struct load_tag *tag, bool ok) {
  (void)tag, (void)ok;
}

static void sent_done(struct load_tag *tag, bool ok) {
  (void)ok;
  struct load_stream *stream = STREAM_OF(tag, sent_tag);
  grpc_byte_buffer_destroy(stream->sent);
  stream->sent = NULL;
  stream->sending = false;
  if (stream->leaving)
    leave(stream);
  else
    say(stream);
}

static void received_done(struct load_tag *tag, bool ok) {
  (void)ok;
  struct load_stream *stream = STREAM_OF(tag, received_tag);
  if (stream->received == NULL)
    return; /* the end: the status tells */
  grpc_slice slice = grpc_empty_slice();
  take_message(stream, load_bytes(stream->received, &slice));
  grpc_slice_unref(slice);
  grpc_byte_buffer_destroy(stream->received);
  stream->received = NULL;
  receive(stream);
  say(stream);
}

static void status_done(struct load_tag *tag, bool ok) {
  (void)ok;
  struct load_stream *stream = STREAM_OF(tag, status_tag);
  stream->ended = true;
  struct ringback_error error;
  call_status_read(&stream->status, &error);
  enum load_stage stage = load_stage(stream->thread->load);
  if (stage >= LOAD_CLOSING)
    return;
  if (error.code == RINGBACK_OK)
    error_set(&error, RINGBACK_UNAVAILABLE, "the server has ended a stream");
  load_tell(stream->thread->load, &error, true);
}

/* --- opening and ending ------------------------------------------------------------------------------------------ */

bool load_streams_open(struct load_thread *thread, unsigned count) {
  struct load *load = thread->load;
  thread->streams = calloc(count == 0 ? 1 : count, sizeof *thread->streams);
  if (thread->streams == NULL)
    return false;
  thread->stream_count = count;
  for (unsigned i = 0; i < count; i++) {
    struct load_stream *stream = &thread->streams[i];
    stream->thread = thread;
    stream->connection = load->call_connections + (thread->index + i * load->thread_count) % load->stream_connections;
    stream->credit = load->options->streams.credit;
    stream->started_tag.done = stream->closed_tag.done = started_done;
    stream->sent_tag.done = sent_done;
    stream->received_tag.done = received_done;
    stream->status_tag.done = status_done;
    grpc_metadata_array_init(&stream->headers);
    call_status_init(&stream->status);
    stream->jobs_max = HELD_FACTOR * stream->credit;
    stream->jobs = calloc(stream->jobs_max, sizeof *stream->jobs);
    if (stream->jobs == NULL)
      return false;
  }
  return true;
}

void load_streams_start(struct load_thread *thread) {
  for (unsigned i = 0; i < thread->stream_count; i++) {
    struct load_stream *stream = &thread->streams[i];
    stream->call =
        call_create(thread->load->connections[stream->connection], WORK_PATH, thread->queue, call_deadline(-1));
    grpc_op ops[2] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
    load_start(thread, stream->call, ops, 2, &stream->started_tag);
    grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    end.data.recv_status_on_client.trailing_metadata = &stream->status.trailers;
    end.data.recv_status_on_client.status = &stream->status.code;
    end.data.recv_status_on_client.status_details = &stream->status.details;
    load_start(thread, stream->call, &end, 1, &stream->status_tag);
    receive(stream);
    say(stream);
  }
}

void load_streams_end(struct load_thread *thread) {
  for (unsigned i = 0; i < thread->stream_count; i++) {
    if (thread->streams[i].call != NULL)
      leave(&thread->streams[i]);
  }
}

void load_streams_cancel(struct load_thread *thread) {
  for (unsigned i = 0; i < thread->stream_count; i++)
    if (thread->streams[i].call != NULL && !thread->streams[i].ended)
      grpc_call_cancel(thread->streams[i].call, NULL);
}

void load_streams_close(struct load_thread *thread) {
  for (unsigned i = 0; thread->streams != NULL && i < thread->stream_count; i++) {
    struct load_stream *stream = &thread->streams[i];
    grpc_metadata_array_destroy(&stream->headers);
    call_status_close(&stream->status);
    if (stream->call != NULL)
      grpc_call_unref(stream->call);
    free(stream->jobs);
  }
  free(thread->streams);
}
