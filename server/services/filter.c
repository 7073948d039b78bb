/* JobFilter on its way in: see filter.h. */
#include "server/services/filter.h"

#include <string.h>

#include "server/services/page_token.h"

static unsigned read_states(struct check *check, const struct field *field, const Ringback__V1__JobFilter *filter) {
  unsigned states = 0;
  for (size_t i = 0; i < filter->n_states; i++) {
    int state = (int)filter->states[i];
    if (state < RINGBACK__V1__JOB_STATE__JOB_STATE_SUBMITTED || state > RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL)
      check_fail(check, FIELD_AT(field, "states", i), "is %d; it must be a JobState from 1 to 6", state);
    else
      states |= 1u << state;
  }
  return states;
}

void filter_read(struct check *check, const struct field *field, const Ringback__V1__JobFilter *filter,
                 const char *bucket, struct job_filter *read) {
  memset(read, 0, sizeof *read);
  read->bucket = read->queue_name = read->store.queue = read->store.tag = "";
  if (!filter) {
    check_fail(check, field, "is missing; it must have at least a queue");
    return;
  }
  struct queue_name name = check_queue(check, FIELD(field, "queue"), filter->queue);
  if (*bucket && *name.bucket && strcmp(bucket, name.bucket) != 0)
    check_fail(check, FIELD(field, "queue"), "is in the bucket \"%s\"; the request's bucket is \"%s\"", name.bucket,
               bucket);
  if (*filter->tag)
    check_token(check, FIELD(field, "tag"), filter->tag, TAG_CHARACTERS_MAX);
  read->bucket = name.bucket;
  read->queue_name = filter->queue;
  read->store.queue = name.queue;
  read->store.tag = filter->tag;
  read->store.states = read_states(check, field, filter);
  read->store.start_ms = check_time(check, FIELD(field, "start_create_time"), filter->start_create_time, 0);
  read->store.end_ms = check_time(check, FIELD(field, "end_create_time"), filter->end_create_time, 0);
  /* 0 means none: an end before all jobs must not become no end. */
  if (filter->end_create_time && read->store.end_ms <= 0)
    read->store.end_ms = 1;
  if (read->store.start_ms < 0)
    read->store.start_ms = 0;

  uint64_t hash = hash_text(hash_text(hash_text(HASH_START, name.bucket), name.queue), filter->tag);
  hash = hash_number(hash, read->store.states);
  read->hash = hash_number(hash_number(hash, read->store.start_ms), read->store.end_ms);
}
