/*
 * The jobs of a bench run. Each has a number; its payload begins with the run's mark, the number and the time at which
 * it was due, so that a worker anywhere in this process knows it again. Requests are put together from prebuilt parts,
 * one for each priority. The ledger has a byte a job, in which its submission and its end meet in whatever order they
 * come.
 */
#include "client/lib/retry.h"
#include "client/lib/wire.h"
#include "client/tool/bench.h"
#include "ringback/v1/job.pb-c.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRIORITIES_MAX 256
#define MARK_BYTES 8
/* The same field in SubmitJobRequest (its job) and in SubmitJobsRequest (its jobs). */
#define FIELD_JOB 3
#define FIELD_REQUEST_ID 4
#define FIELD_RESULTS 1
#define FIELD_STATUS 1
#define FIELD_CODE 1
#define NUMBERS_A_SECOND 2000000 /* more than anything can submit */

enum { ACCEPTED = 1, UNKNOWN = 2, ARRIVED = 4, FINISHED = 8 };

struct job_part {
  uint8_t *bytes; /* the job as a field of the request */
  size_t byte_count;
  size_t payload_at;
};

struct bench_jobs {
  unsigned batch, priorities;
  uint64_t backlog;
  bool request_ids;
  uint8_t *head; /* the queue's name as a field of the request */
  size_t head_bytes;
  struct job_part parts[PRIORITIES_MAX];
  uint8_t mark[MARK_BYTES];
  char id_head[20]; /* of request ids */
  _Atomic uint8_t *ledger;
  uint64_t numbers_max;
  _Atomic uint64_t started, accepted, unknown, again, arrived, finished, twice, unconfirmed;
  _Atomic uint64_t unknown_finished;
};

static bool part_build(struct job_part *part, const struct bench_jobs *jobs, int priority, size_t payload_bytes) {
  Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
  Ringback__V1__Payload payload = RINGBACK__V1__PAYLOAD__INIT;
  Ringback__V1__OpaquePayload opaque = RINGBACK__V1__OPAQUE_PAYLOAD__INIT;
  spec.tag = (char *)"Bench";
  spec.priority = priority;
  spec.operation = &payload;
  payload.form_case = RINGBACK__V1__PAYLOAD__FORM_OPAQUE;
  payload.opaque = &opaque;
  opaque.data.len = payload_bytes;
  opaque.data.data = malloc(payload_bytes);
  if (opaque.data.data == NULL)
    return false;
  memset(opaque.data.data, 'x', payload_bytes);
  memcpy(opaque.data.data, jobs->mark, MARK_BYTES);
  size_t size = ringback__v1__job_spec__get_packed_size(&spec);
  uint8_t *packed = malloc(size);
  part->bytes = malloc(1 + WIRE_VARINT_BYTES_MAX + size);
  if (packed != NULL && part->bytes != NULL) {
    ringback__v1__job_spec__pack(&spec, packed);
    part->byte_count = (size_t)(wire_put_bytes(part->bytes, FIELD_JOB, packed, size) - part->bytes);
    const uint8_t *found = memmem(part->bytes, part->byte_count, jobs->mark, MARK_BYTES);
    assert(found != NULL);
    part->payload_at = (size_t)(found - part->bytes);
  }
  free(packed);
  free(opaque.data.data);
  return part->byte_count > 0;
}

struct bench_jobs *bench_jobs_create(const char *queue, const struct bench_settings *settings) {
  struct bench_jobs *jobs = calloc(1, sizeof *jobs);
  if (jobs == NULL)
    return NULL;
  assert(settings->priorities >= 1 && settings->priorities <= PRIORITIES_MAX);
  jobs->batch = settings->batch;
  jobs->priorities = settings->priorities;
  jobs->backlog = settings->backlog;
  jobs->request_ids = settings->request_ids;
  uint64_t mark = retry_random();
  memcpy(jobs->mark, &mark, sizeof mark);
  snprintf(jobs->id_head, sizeof jobs->id_head, "%016llx-", (unsigned long long)mark);
  size_t queue_bytes = strlen(queue);
  jobs->head = malloc(1 + WIRE_VARINT_BYTES_MAX + queue_bytes);
  bool good = jobs->head != NULL;
  if (good)
    jobs->head_bytes = (size_t)(wire_put_bytes(jobs->head, 1, queue, queue_bytes) - jobs->head);
  for (unsigned i = 0; good && i < jobs->priorities; i++)
    good = part_build(&jobs->parts[i], jobs, (int)i, settings->payload_bytes);
  uint64_t seconds = (uint64_t)(settings->duration_ms + settings->warm_up_ms) / 1000 + 1;
  jobs->numbers_max = settings->count > 0 ? settings->count : seconds * NUMBERS_A_SECOND;
  if (jobs->numbers_max > BENCH_NUMBERS_MAX)
    jobs->numbers_max = BENCH_NUMBERS_MAX;
  /* Pages that no job touches are never there. */
  jobs->ledger = good ? calloc(jobs->numbers_max, sizeof *jobs->ledger) : NULL;
  if (jobs->ledger != NULL)
    return jobs;
  bench_jobs_destroy(jobs);
  return NULL;
}

void bench_jobs_destroy(struct bench_jobs *jobs) {
  if (jobs == NULL)
    return;
  for (unsigned i = 0; i < PRIORITIES_MAX; i++)
    free(jobs->parts[i].bytes);
  free(jobs->head);
  free((void *)jobs->ledger);
  free(jobs);
}

static void count(_Atomic uint64_t *counter, uint64_t more) {
  atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static uint64_t counted(const _Atomic uint64_t *counter) {
  return atomic_load_explicit(counter, memory_order_relaxed);
}

/* --- submitting -------------------------------------------------------------------------------------------------- */

static const struct job_part *part_of(const struct bench_jobs *jobs, uint64_t number) {
  return &jobs->parts[number % jobs->priorities];
}

static size_t id_bytes(const struct bench_jobs *jobs, uint64_t first, char id[48]) {
  return (size_t)snprintf(id, 48, "%s%llu", jobs->id_head, (unsigned long long)first);
}

static size_t request_bytes(void *context, uint64_t first, unsigned items) {
  const struct bench_jobs *jobs = context;
  char id[48];
  size_t size = jobs->head_bytes + (jobs->request_ids ? 2 + id_bytes(jobs, first, id) : 0);
  if (jobs->priorities == 1)
    return size + items * jobs->parts[0].byte_count;
  for (unsigned i = 0; i < items; i++)
    size += part_of(jobs, first + i)->byte_count;
  return size;
}

static void request_write(void *context, uint64_t first, unsigned items, int64_t due_ns, uint8_t *bytes) {
  struct bench_jobs *jobs = context;
  memcpy(bytes, jobs->head, jobs->head_bytes);
  uint8_t *at = bytes + jobs->head_bytes;
  for (unsigned i = 0; i < items; i++) {
    const struct job_part *part = part_of(jobs, first + i);
    uint64_t number = first + i;
    memcpy(at, part->bytes, part->byte_count);
    memcpy(at + part->payload_at + MARK_BYTES, &number, sizeof number);
    memcpy(at + part->payload_at + MARK_BYTES + sizeof number, &due_ns, sizeof due_ns);
    at += part->byte_count;
  }
  if (jobs->request_ids) {
    char id[48];
    size_t length = id_bytes(jobs, first, id);
    wire_put_bytes(at, FIELD_REQUEST_ID, id, length);
  }
  count(&jobs->started, items);
}

static void submitted(struct bench_jobs *jobs, uint64_t number, bool accepted) {
  uint8_t was = atomic_fetch_or(&jobs->ledger[number], (uint8_t)(accepted ? ACCEPTED : UNKNOWN));
  count(accepted ? &jobs->accepted : &jobs->unknown, 1);
  if (!accepted && (was & FINISHED) != 0)
    count(&jobs->unknown_finished, 1);
}

static unsigned answered(void *context, uint64_t first, unsigned items, int code, const uint8_t *bytes,
                         size_t byte_count) {
  struct bench_jobs *jobs = context;
  unsigned good = 0, seen = 0;
  if (code == RINGBACK_OK && jobs->batch == 1) {
    submitted(jobs, first, true);
    return 1;
  }
  struct wire answer = {bytes, bytes + byte_count};
  struct wire_field result, status, status_code;
  while (code == RINGBACK_OK && seen < items && wire_next(&answer, &result)) {
    if (result.number_of != FIELD_RESULTS)
      continue;
    bool refused = wire_find(result.bytes, FIELD_STATUS, &status) &&
                   wire_find(status.bytes, FIELD_CODE, &status_code) && status_code.number != RINGBACK_OK;
    submitted(jobs, first + seen++, !refused);
    good += !refused;
  }
  for (; seen < items; seen++)
    submitted(jobs, first + seen, false);
  return good;
}

/* Whether another call keeps the backlog within its bounds; the first of all always does. */
static bool may_start(void *context) {
  const struct bench_jobs *jobs = context;
  uint64_t over = counted(&jobs->finished) + counted(&jobs->unknown) - counted(&jobs->unknown_finished);
  uint64_t started = counted(&jobs->started);
  uint64_t open = started > over ? started - over : 0;
  return open == 0 || open + jobs->batch <= jobs->backlog;
}

void bench_jobs_calls(struct bench_jobs *jobs, struct load_calls *calls) {
  calls->path = jobs->batch == 1 ? "/ringback.v1.JobService/SubmitJob" : "/ringback.v1.JobService/SubmitJobs";
  calls->items = jobs->batch;
  calls->items_max = jobs->numbers_max;
  calls->context = jobs;
  calls->may_start = jobs->backlog > 0 ? may_start : NULL;
  calls->request_bytes = request_bytes;
  calls->request_write = request_write;
  calls->answered = answered;
}

/* --- working ----------------------------------------------------------------------------------------------------- */

static bool arrived(void *context, const uint8_t *payload, size_t byte_count, uint64_t *number, int64_t *due_ns) {
  struct bench_jobs *jobs = context;
  if (byte_count < BENCH_PAYLOAD_BYTES_MIN || memcmp(payload, jobs->mark, MARK_BYTES) != 0)
    return false;
  memcpy(number, payload + MARK_BYTES, sizeof *number);
  memcpy(due_ns, payload + MARK_BYTES + sizeof *number, sizeof *due_ns);
  if (*number >= jobs->numbers_max)
    return false;
  uint8_t was = atomic_fetch_or(&jobs->ledger[*number], ARRIVED);
  count((was & ARRIVED) != 0 ? &jobs->again : &jobs->arrived, 1);
  return true;
}

static void finished(void *context, uint64_t number, int code) {
  struct bench_jobs *jobs = context;
  if (code != RINGBACK_OK) {
    count(&jobs->unconfirmed, 1);
    return;
  }
  uint8_t was = atomic_fetch_or(&jobs->ledger[number], FINISHED);
  if ((was & FINISHED) != 0) {
    count(&jobs->twice, 1);
    return;
  }
  if ((was & UNKNOWN) != 0)
    count(&jobs->unknown_finished, 1);
  count(&jobs->finished, 1);
}

/* Once every submission is answered: accepted jobs that are not finished. */
static uint64_t left(void *context) {
  const struct bench_jobs *jobs = context;
  uint64_t over = counted(&jobs->finished) - counted(&jobs->unknown_finished), accepted = counted(&jobs->accepted);
  return accepted > over ? accepted - over : 0;
}

void bench_jobs_streams(struct bench_jobs *jobs, struct load_streams *streams) {
  streams->context = jobs;
  streams->arrived = arrived;
  streams->finished = finished;
  streams->left = left;
}

void bench_jobs_ledger(const struct bench_jobs *jobs, struct bench_ledger *ledger) {
  *ledger = (struct bench_ledger){.accepted = counted(&jobs->accepted),
                                  .unknown = counted(&jobs->unknown),
                                  .arrived = counted(&jobs->arrived),
                                  .again = counted(&jobs->again),
                                  .finished = counted(&jobs->finished),
                                  .twice = counted(&jobs->twice),
                                  .unconfirmed = counted(&jobs->unconfirmed)};
  uint64_t used = counted(&jobs->started);
  for (uint64_t i = 0; i < used && i < jobs->numbers_max; i++) {
    uint8_t state = atomic_load_explicit(&jobs->ledger[i], memory_order_relaxed);
    ledger->lost += (state & ACCEPTED) != 0 && (state & FINISHED) == 0;
  }
}
