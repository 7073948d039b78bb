/* Between the store's structs and the contract's messages. Messages live in the arena; they copy whatever the store's
 * result points at.
 */
#ifndef RINGBACK_SERVER_SERVICES_CONVERT_H
#define RINGBACK_SERVER_SERVICES_CONVERT_H

#include "redis/store_callbacks.h"
#include "ringback/v1/callback.pb-c.h"
#include "ringback/v1/common.pb-c.h"
#include "ringback/v1/queue.pb-c.h"
#include "server/base/arena.h"

/* 0 and less: NULL (absent). */
Google__Protobuf__Timestamp *convert_time(struct arena *arena, int64_t ms);
Google__Protobuf__Duration *convert_duration(struct arena *arena, int64_t ms);
char *convert_job_id(struct arena *arena, const struct job_id *id);
char *convert_queue_id(struct arena *arena, const uint8_t bytes[16]);

Ringback__V1__Queue *convert_queue(struct arena *arena, const char *bucket, const struct store_queue *queue);
/* BASIC unless full. */
Ringback__V1__Job *convert_job(struct arena *arena, const char *bucket, const struct store_job *job, bool full,
                               int64_t now_ms);
Ringback__V1__CallbackRule *convert_rule(struct arena *arena, const char *queue_name, const struct store_rule *rule);
/* Without a job id where there is no job (a test). */
Ringback__V1__Delivery *convert_delivery(struct arena *arena, const char *bucket,
                                         const struct store_delivery *delivery);

/* Serialized, in the arena. */
struct bytes convert_pack(struct arena *arena, const ProtobufCMessage *message);

#endif
