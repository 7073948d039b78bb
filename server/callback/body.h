/* What a callback says of a job, before it is written in any format: the scalar fields of JobsDetail with their names
 * and texts, the input, the payloads. Pure. xml.c and json.c walk the same fields.
 */
#ifndef RINGBACK_SERVER_CALLBACK_BODY_H
#define RINGBACK_SERVER_CALLBACK_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringback/v1/common.pb-c.h"
#include "server/base/arena.h"

#define BODY_DETAILS_MAX 10

/* Seconds east of UTC at a moment: the server's zone, or a fixed one in tests. */
typedef int body_zone(int64_t unix_s);

/* The zone that the process runs in. */
body_zone body_zone_local;

struct body_source {
  const Ringback__V1__Job *job; /* spec set; what is absent is written as empty, times as "-" */
  const char *bucket;           /* of the job's queue */
  body_zone *zone;
  Ringback__V1__CallbackFormat format;
};

struct body_detail {
  const char *name;
  const char *text; /* any text: not gated for XML yet */
  bool number;
};

struct body_payload {
  const char *xml; /* a fragment, or NULL */
  const char *content_type;
  const char *base64; /* or NULL; neither: the payload is absent */
};

/* Code to QueueId, in the order of the wire contract; returns how many. Code and Message speak only of a failure. */
size_t body_details(struct arena *arena, const struct body_source *source,
                    struct body_detail details[BODY_DETAILS_MAX]);

/* BucketId, Object and Region, or Url; returns how many. */
size_t body_input(const struct body_source *source, struct body_detail details[3]);

/* xml_is_good false carries an XML fragment as bytes too. */
struct body_payload body_payload(struct arena *arena, const Ringback__V1__Payload *payload, bool xml_is_good);

/* `2022-06-30T19:30:20+0800`, "-" for NULL. */
const char *body_time(struct arena *arena, const Google__Protobuf__Timestamp *time, body_zone *zone);

#endif
