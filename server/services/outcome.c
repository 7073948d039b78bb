/* What workers write about leases: its fields are checked and become the store's structs. Pure. */
#include "server/services/outcome.h"

#include <string.h>

#include "server/services/spec.h"

enum { MESSAGE_BYTES_MAX = 1024, CODE_CHARACTERS_MAX = 64 };

/* A lease of a batch: its job id, its token, and what to call it. */
static void read_lease(struct check *check, const struct field *field, const Ringback__V1__Lease *lease,
                       struct job_id *id, int64_t *fencing_token, const char **item) {
  *item = "job";
  if (!lease) {
    check_fail(check, field, "is missing");
    return;
  }
  check_job_id(check, FIELD(field, "job_id"), lease->job_id, id);
  *fencing_token = lease->fencing_token;
  *item = arena_printf(check->arena, "job %.40s", lease->job_id);
}

static void read_success(struct check *check, const struct field *field, const Ringback__V1__JobSuccess *success,
                         const struct services_config *config, struct store_finish *finish) {
  finish->success = true;
  finish->code = "Success";
  finish->message = spec_read_text(check->arena, success->message, MESSAGE_BYTES_MAX);
  finish->result = spec_read_result(check, FIELD(field, "result"), success->result, config);
}

static void read_failure(struct check *check, const struct field *field, const Ringback__V1__JobFailure *failure,
                         const struct services_config *config, struct store_finish *finish) {
  finish->code = *failure->code ? failure->code : "Failed";
  check_token(check, FIELD(field, "code"), finish->code, CODE_CHARACTERS_MAX);
  finish->message = spec_read_text(check->arena, failure->message, MESSAGE_BYTES_MAX);
  finish->result = spec_read_result(check, FIELD(field, "result"), failure->result, config);
  if (failure->retry_case == RINGBACK__V1__JOB_FAILURE__RETRY_NEVER && failure->never)
    finish->retry = STORE_RETRY_NEVER;
  if (failure->retry_case == RINGBACK__V1__JOB_FAILURE__RETRY_AFTER) {
    finish->retry = STORE_RETRY_AFTER;
    finish->after_ms = check_duration(check, FIELD(field, "after"), failure->after, 0, DAY_MS, 0);
  }
}

static void read_outcome(struct check *check, const struct field *field, const Ringback__V1__FinishedJob *job,
                         const struct services_config *config, struct store_finish *finish) {
  if (job->outcome_case == RINGBACK__V1__FINISHED_JOB__OUTCOME_SUCCESS)
    read_success(check, FIELD(field, "success"), job->success, config, finish);
  else if (job->outcome_case == RINGBACK__V1__FINISHED_JOB__OUTCOME_FAILURE)
    read_failure(check, FIELD(field, "failure"), job->failure, config, finish);
  else
    check_fail(check, FIELD(field, "outcome"), "is missing; it must be success or failure");
}

void outcome_read_renewal(struct check *check, const struct field *field, const Ringback__V1__LeaseRenewal *renewal,
                          struct store_renewal *read, const char **item) {
  read_lease(check, FIELD(field, "lease"), renewal->lease, &read->id, &read->fencing_token, item);
  read->progress = (int)check_range(check, FIELD(field, "progress"), renewal->progress, 0, 100);
  read->extension_ms = check_duration(check, FIELD(field, "extension"), renewal->extension, SECOND_MS, 12 * HOUR_MS, 0);
}

void outcome_read_finish(struct check *check, const struct field *field, const Ringback__V1__FinishedJob *job,
                         const struct services_config *config, struct store_finish *read, const char **item) {
  memset(read, 0, sizeof *read);
  read_lease(check, FIELD(field, "lease"), job->lease, &read->id, &read->fencing_token, item);
  read_outcome(check, field, job, config, read);
}

void outcome_read_release(struct check *check, const struct field *field, const Ringback__V1__Lease *lease,
                          struct store_release *read, const char **item) {
  read_lease(check, field, lease, &read->id, &read->fencing_token, item);
}
