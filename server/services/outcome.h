/* What workers write about leases, read item by item: for the batches of WorkerService and for the stream. */
#ifndef RINGBACK_SERVER_SERVICES_OUTCOME_H
#define RINGBACK_SERVER_SERVICES_OUTCOME_H

#include "ringback/v1/worker.pb-c.h"
#include "server/services/services.h"
#include "server/services/validate.h"

/* Each checks the message at `field` and fills what goes to the store, usable only without findings. *item becomes what
 * to call it in errors, `job ID`, in the check's arena. */
void outcome_read_renewal(struct check *check, const struct field *field, const Ringback__V1__LeaseRenewal *renewal,
                          struct store_renewal *read, const char **item);
void outcome_read_finish(struct check *check, const struct field *field, const Ringback__V1__FinishedJob *job,
                         const struct services_config *config, struct store_finish *read, const char **item);
void outcome_read_release(struct check *check, const struct field *field, const Ringback__V1__Lease *lease,
                          struct store_release *read, const char **item);

#endif
