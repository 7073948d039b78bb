/* Renewals, outcomes and releases of a Work stream. Every item gets its place in the next message at once, so results
 * stand in the order of their items; an item that is not valid has its status at once, the others when the store has
 * answered. Items also tell what the stream holds: they acknowledge, take over, and end.
 */
#include <string.h>

#include "server/services/convert.h"
#include "server/services/outcome.h"
#include "server/services/status.h"
#include "server/services/work_stream.h"

enum { LIST_ITEMS_MIN = 16, SHOWN_ID_CHARACTERS_MAX = 40 };

struct item {
  const char *what; /* `job ID` */
  struct job_id id;
  int64_t fencing_token;
  void *result; /* Ringback__V1__WorkRenewal, WorkFinish or WorkRelease */
};

/* The items of one message and kind that went to the store. */
struct item_batch {
  struct work *work;
  size_t count;
  struct item *items;
};

static void list_add(struct arena *arena, struct work_list *list, void *item) {
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? list->capacity * 2 : LIST_ITEMS_MIN;
    void **larger = ARENA_ARRAY(arena, void *, list->capacity);
    if (list->count)
      memcpy(larger, list->items, list->count * sizeof *larger);
    list->items = larger;
  }
  list->items[list->count++] = item;
}

static struct item_batch *begin(struct work *work, size_t count) {
  struct item_batch *batch = ARENA_NEW(work->out, struct item_batch);
  batch->work = work;
  batch->items = ARENA_ARRAY(work->out, struct item, count);
  return batch;
}

static char *shown_id(struct work *work, const Ringback__V1__Lease *lease) {
  const char *id = lease ? lease->job_id : "";
  return arena_strndup(work->out, id, strnlen(id, SHOWN_ID_CHARACTERS_MAX));
}

/* After an item was read into the batch's next place: NULL if it goes to the store, otherwise its status. */
static Google__Rpc__Status *settle_item(struct item_batch *batch, const struct check *check, const struct job_id *id,
                                        int64_t fencing_token, const char *what, void *result) {
  struct work *work = batch->work;
  if (check->count)
    return status_findings(work->out, check);
  batch->items[batch->count++] = (struct item){what, *id, fencing_token, result};
  const struct held_job *job = held_find(&work->held, id, fencing_token);
  if (job)
    work_acknowledge(work, job->sequence);
  return NULL;
}

/* Each continuation: what the store said of item i. */
static const struct store_error *error_of(const struct store_error *error, const struct store_items *result, size_t i) {
  return error->code ? error : &result->items[i].error;
}

static Google__Rpc__Status *status_of(struct item_batch *batch, const struct store_error *error, size_t i) {
  return status_store(batch->work->out, error, batch->items[i].what, batch->items[i].what);
}

/* The lease has ended, or was none: as opposed to an answer that leaves it open. */
static bool is_ended(const struct store_error *error) {
  return error->code == STORE_OK || error->code == STORE_NOT_FOUND || error->code == STORE_PRECONDITION;
}

static void batch_end(struct item_batch *batch) {
  struct work *work = batch->work;
  work->under_way--;
  work_settle(work);
}

/* --- renewals --- */

static void renew_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct item_batch *batch = data;
  struct work *work = batch->work;
  for (size_t i = 0; i < batch->count && !work->over; i++) {
    const struct item *item = &batch->items[i];
    const struct store_error *of_item = error_of(error, result, i);
    Ringback__V1__RenewLeasesResult *renewed = ((Ringback__V1__WorkRenewal *)item->result)->result;
    renewed->status = status_of(batch, of_item, i);
    if (of_item->code == STORE_OK) {
      renewed->lease_expire_time = convert_time(work->out, result->items[i].lease_expire_ms);
      if (!held_find(&work->held, &item->id, item->fencing_token) && work->held.count < WORK_HELD_MAX)
        held_add(&work->held, &item->id, item->fencing_token, 0);
    } else if (is_ended(of_item)) {
      renewed->stop_reason = (Ringback__V1__StopReason)result->items[i].stop_reason;
      held_remove(&work->held, &item->id, item->fencing_token);
    }
  }
  batch_end(batch);
}

static void take_renewals(struct work *work, Ringback__V1__LeaseRenewal *const *renewals, size_t count) {
  struct item_batch *batch = begin(work, count);
  struct store_renewal *reads = ARENA_ARRAY(work->out, struct store_renewal, count);
  for (size_t i = 0; i < count; i++) {
    struct store_renewal *read = &reads[batch->count];
    struct check check = {.arena = work->out};
    const char *what;
    outcome_read_renewal(&check, FIELD_AT(NULL, "renewals", i), renewals[i], read, &what);
    Ringback__V1__WorkRenewal *result = ARENA_NEW(work->out, Ringback__V1__WorkRenewal);
    ringback__v1__work_renewal__init(result);
    result->job_id = shown_id(work, renewals[i]->lease);
    result->result = ARENA_NEW(work->out, Ringback__V1__RenewLeasesResult);
    ringback__v1__renew_leases_result__init(result->result);
    result->result->status = settle_item(batch, &check, &read->id, read->fencing_token, what, result);
    list_add(work->out, &work->renewals, result);
  }
  if (batch->count == 0)
    return;
  work->under_way++;
  store_renew(work->store, work->bucket, reads, batch->count, renew_done, batch);
}

/* --- outcomes --- */

static void finish_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct item_batch *batch = data;
  struct work *work = batch->work;
  for (size_t i = 0; i < batch->count && !work->over; i++) {
    const struct item *item = &batch->items[i];
    const struct store_error *of_item = error_of(error, result, i);
    Ringback__V1__FinishJobsResult *finished = ((Ringback__V1__WorkFinish *)item->result)->result;
    finished->status = status_of(batch, of_item, i);
    if (of_item->code == STORE_OK)
      finished->state = (Ringback__V1__JobState)result->items[i].state;
    if (is_ended(of_item))
      held_remove(&work->held, &item->id, item->fencing_token);
  }
  batch_end(batch);
}

static void take_finished(struct work *work, Ringback__V1__FinishedJob *const *jobs, size_t count) {
  struct item_batch *batch = begin(work, count);
  struct store_finish *reads = ARENA_ARRAY(work->out, struct store_finish, count);
  for (size_t i = 0; i < count; i++) {
    struct store_finish *read = &reads[batch->count];
    struct check check = {.arena = work->out};
    const char *what;
    outcome_read_finish(&check, FIELD_AT(NULL, "finished", i), jobs[i], work->config, read, &what);
    Ringback__V1__WorkFinish *result = ARENA_NEW(work->out, Ringback__V1__WorkFinish);
    ringback__v1__work_finish__init(result);
    result->job_id = shown_id(work, jobs[i]->lease);
    result->result = ARENA_NEW(work->out, Ringback__V1__FinishJobsResult);
    ringback__v1__finish_jobs_result__init(result->result);
    result->result->status = settle_item(batch, &check, &read->id, read->fencing_token, what, result);
    list_add(work->out, &work->finished, result);
  }
  if (batch->count == 0)
    return;
  work->under_way++;
  store_finish(work->store, work->bucket, reads, batch->count, finish_done, batch);
}

/* --- releases --- */

static void release_done(void *data, const struct store_error *error, const struct store_items *result) {
  struct item_batch *batch = data;
  struct work *work = batch->work;
  for (size_t i = 0; i < batch->count && !work->over; i++) {
    const struct item *item = &batch->items[i];
    const struct store_error *of_item = error_of(error, result, i);
    ((Ringback__V1__WorkRelease *)item->result)->status = status_of(batch, of_item, i);
    if (is_ended(of_item))
      held_remove(&work->held, &item->id, item->fencing_token);
  }
  batch_end(batch);
}

static void take_released(struct work *work, Ringback__V1__Lease *const *leases, size_t count) {
  struct item_batch *batch = begin(work, count);
  struct store_release *reads = ARENA_ARRAY(work->out, struct store_release, count);
  for (size_t i = 0; i < count; i++) {
    struct store_release *read = &reads[batch->count];
    struct check check = {.arena = work->out};
    const char *what;
    outcome_read_release(&check, FIELD_AT(NULL, "released", i), leases[i], read, &what);
    Ringback__V1__WorkRelease *result = ARENA_NEW(work->out, Ringback__V1__WorkRelease);
    ringback__v1__work_release__init(result);
    result->job_id = shown_id(work, leases[i]);
    result->status = settle_item(batch, &check, &read->id, read->fencing_token, what, result);
    list_add(work->out, &work->released, result);
  }
  if (batch->count == 0)
    return;
  work->under_way++;
  store_release(work->store, work->bucket, reads, batch->count, release_done, batch);
}

void work_take_items(struct work *work, const Ringback__V1__WorkRequest *request) {
  if (request->n_renewals)
    take_renewals(work, request->renewals, request->n_renewals);
  if (request->n_finished)
    take_finished(work, request->finished, request->n_finished);
  if (request->n_released)
    take_released(work, request->released, request->n_released);
}
