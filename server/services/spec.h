/* Job specifications and payloads on their way in: checked, their XML parsed and written again, packed for the store.
 */
#ifndef RINGBACK_SERVER_SERVICES_SPEC_H
#define RINGBACK_SERVER_SERVICES_SPEC_H

#include "redis/store.h"
#include "ringback/v1/common.pb-c.h"
#include "server/services/services.h"
#include "server/services/validate.h"

/* Checks a producer's spec (which may be NULL: a finding) and fills in what the store wants. Points into the spec and
 * the arena. */
void spec_read(struct check *check, const struct field *field, const Ringback__V1__JobSpec *spec,
               const struct services_config *config, int64_t now_ms, struct store_new_job *job);

/* A worker's result, packed; empty when there is none. Text that XML cannot carry is replaced by U+FFFD, and XML that
 * is not well-formed is kept as an opaque payload of the type application/xml: only a result above the size limit is a
 * finding. */
struct bytes spec_read_result(struct check *check, const struct field *field, const Ringback__V1__Payload *result,
                              const struct services_config *config);

/* A worker's text: repaired in the same way and cut to max bytes. */
const char *spec_read_text(struct arena *arena, const char *text, size_t max);

#endif
