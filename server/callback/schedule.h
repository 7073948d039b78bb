/* When a failed delivery is tried again, and when it is given up. Pure: time and chance are arguments. */
#ifndef RINGBACK_SERVER_CALLBACK_SCHEDULE_H
#define RINGBACK_SERVER_CALLBACK_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCHEDULE_AGE_MAX_MS (72LL * 3600 * 1000) /* AGE_MAX_MS of 55_dispatch.lua too */

/* Why an attempt failed; the names stand in ringback/v1/callback.proto. */
enum callback_error {
  CALLBACK_ERROR_NONE,
  CALLBACK_ERROR_DNS,
  CALLBACK_ERROR_CONNECT_REFUSED,
  CALLBACK_ERROR_CONNECT_TIMEOUT,
  CALLBACK_ERROR_TLS,
  CALLBACK_ERROR_RESET,
  CALLBACK_ERROR_TIMEOUT,
  CALLBACK_ERROR_STATUS_4XX,
  CALLBACK_ERROR_STATUS_429,
  CALLBACK_ERROR_STATUS_5XX,
  CALLBACK_ERROR_REDIRECT,
  CALLBACK_ERROR_GONE,
  CALLBACK_ERROR_BLOCKED_ADDRESS,
  CALLBACK_ERROR_RESPONSE_TOO_LARGE,
  CALLBACK_ERROR_CANCELLED,
  CALLBACK_ERROR_TOO_OLD,
  CALLBACK_ERROR_CRASH_LOOP, /* given by the store */
  CALLBACK_ERROR_COUNT,
};

/* `status_4xx` and so on; "" for CALLBACK_ERROR_NONE. */
const char *callback_error_name(enum callback_error error);
/* Whether trying again is pointless: the receiver said 410, or the address may not be dialled. */
bool callback_error_is_permanent(enum callback_error error);
/* What a final HTTP status means: 2xx none, 3xx redirect (never followed), 410 gone, 429, other 4xx, everything else
 * 5xx. */
enum callback_error callback_error_of_status(int http_status);

struct schedule_failure {
  enum callback_error error;
  int attempts;       /* made so far, this one included: at least 1 */
  int64_t created_ms; /* when the delivery came into being */
  int64_t now_ms;
  uint32_t random;         /* any; spreads the waits by 20 % to either side */
  int64_t retry_after_ms;  /* what the receiver asked for, from now; -1 for nothing */
  const int64_t *waits_ms; /* the rule's own, at most 24 h each; the last repeats */
  size_t wait_count;       /* 0: the default waits */
  int64_t age_max_ms;      /* 0: SCHEDULE_AGE_MAX_MS */
};

/* Why the next attempt comes when it comes: the values of ringback.v1.NextAttemptReason. */
enum schedule_reason { SCHEDULE_NONE, SCHEDULE_WAIT, SCHEDULE_RETRY_AFTER, SCHEDULE_AGE_LIMIT };

struct schedule_verdict {
  bool dead;
  enum callback_error error; /* the failure's, or CALLBACK_ERROR_TOO_OLD when only age ended it */
  int64_t next_ms;           /* when to try again; only when not dead */
  enum schedule_reason reason;
};

/* The rule's own waits and age; without them waits of 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h, 8 h, 12 h, 16 h,
 * then 24 h each, ±20 %, until the delivery is 72 h old. Retry-After lengthens a wait, never shortens it; one that
 * points beyond the 72 h means one last attempt at their end. */
struct schedule_verdict schedule_after_failure(const struct schedule_failure *failure);

/* Retry-After (RFC 9110, 10.2.3) in ms from now: delay-seconds or an HTTP-date in any of its three forms; past dates
 * are 0; -1 when it is neither. Capped at a year. */
int64_t schedule_parse_retry_after(const char *value, int64_t now_ms);

#endif
