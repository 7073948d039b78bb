/* LeaseJobs, the long poll. */
#ifndef RINGBACK_SERVER_SERVICES_LEASE_H
#define RINGBACK_SERVER_SERVICES_LEASE_H

#include "server/services/services.h"

void lease_jobs(struct rpc_call *call, const ProtobufCMessage *message);
void lease_wake(struct rpc_call *call, enum rpc_wake why);
void lease_undelivered(struct rpc_call *call);

#endif
