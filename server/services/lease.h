/* LeaseJobs, the long poll. */
#ifndef RINGBACK_SERVER_SERVICES_LEASE_H
#define RINGBACK_SERVER_SERVICES_LEASE_H

#include "server/services/services.h"
#include "server/services/validate.h"

enum { LEASE_WORKER_CHARACTERS_MAX = 128 };

/* The plain names of 1 to 100 queues of one bucket, and the bucket's; NULL or unusable after a finding. The names live
 * in the check's arena. */
const char **lease_read_queues(struct check *check, const struct field *parent, char *const *names, size_t count,
                               const char **bucket);

void lease_jobs(struct rpc_call *call, const ProtobufCMessage *message);
void lease_wake(struct rpc_call *call, enum rpc_wake why);
void lease_undelivered(struct rpc_call *call);

#endif
