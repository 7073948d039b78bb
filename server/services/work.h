/* Work, the stream of a worker. */
#ifndef RINGBACK_SERVER_SERVICES_WORK_H
#define RINGBACK_SERVER_SERVICES_WORK_H

#include "server/services/services.h"

void work_start(struct rpc_call *call, const ProtobufCMessage *nothing);
void work_message(struct rpc_call *call, const ProtobufCMessage *message);
void work_half_closed(struct rpc_call *call);
void work_writable(struct rpc_call *call);
void work_wake(struct rpc_call *call, enum rpc_wake why);
void work_closed(struct rpc_call *call);

#endif
