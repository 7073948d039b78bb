/* JobFilter on its way in: which jobs a list, a cancellation or a retry looks at. */
#ifndef RINGBACK_SERVER_SERVICES_FILTER_H
#define RINGBACK_SERVER_SERVICES_FILTER_H

#include "redis/store.h"
#include "ringback/v1/job.pb-c.h"
#include "server/services/validate.h"

struct job_filter {
  const char *bucket;
  const char *queue_name; /* in full */
  struct store_filter store;
  uint64_t hash; /* of all of it, for page tokens */
};

/* filter NULL: a finding. bucket "" : any. */
void filter_read(struct check *check, const struct field *field, const Ringback__V1__JobFilter *filter,
                 const char *bucket, struct job_filter *read);

#endif
