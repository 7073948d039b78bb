/* JobService's handlers, which stand in several files; job_service.c has the table. */
#ifndef RINGBACK_SERVER_SERVICES_JOB_HANDLERS_H
#define RINGBACK_SERVER_SERVICES_JOB_HANDLERS_H

#include "ringback/v1/job.pb-c.h"
#include "server/services/services.h"

/* submit.c */
void submit_job(struct rpc_call *call, const ProtobufCMessage *message);
void submit_jobs(struct rpc_call *call, const ProtobufCMessage *message);

/* change.c */
void cancel_jobs(struct rpc_call *call, const ProtobufCMessage *message);
void retry_jobs(struct rpc_call *call, const ProtobufCMessage *message);
void change_priority(struct rpc_call *call, const ProtobufCMessage *message);

/* watch.c */
void watch_jobs(struct rpc_call *call, const ProtobufCMessage *message);
void watch_writable(struct rpc_call *call);
void watch_wake(struct rpc_call *call, enum rpc_wake why);
void watch_closed(struct rpc_call *call);

#endif
