/* See schedule.h. */
#include "server/callback/schedule.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const int64_t waits_s[] = {5,        30,       2 * 60,   10 * 60,   30 * 60,   3600,
                                  2 * 3600, 4 * 3600, 8 * 3600, 12 * 3600, 16 * 3600, 24 * 3600};
#define WAIT_COUNT ((int)(sizeof(waits_s) / sizeof(waits_s[0])))
#define JITTER_PERCENT 20
#define RETRY_AFTER_MAX_S (366LL * 86400)

static const struct {
  const char *name;
  bool permanent;
} errors[CALLBACK_ERROR_COUNT] = {
    [CALLBACK_ERROR_NONE] = {"", false},
    [CALLBACK_ERROR_DNS] = {"dns", false},
    [CALLBACK_ERROR_CONNECT_REFUSED] = {"connect_refused", false},
    [CALLBACK_ERROR_CONNECT_TIMEOUT] = {"connect_timeout", false},
    [CALLBACK_ERROR_TLS] = {"tls", false},
    [CALLBACK_ERROR_RESET] = {"reset", false},
    [CALLBACK_ERROR_TIMEOUT] = {"timeout", false},
    [CALLBACK_ERROR_STATUS_4XX] = {"status_4xx", false},
    [CALLBACK_ERROR_STATUS_429] = {"status_429", false},
    [CALLBACK_ERROR_STATUS_5XX] = {"status_5xx", false},
    [CALLBACK_ERROR_REDIRECT] = {"redirect", false},
    [CALLBACK_ERROR_GONE] = {"gone", true},
    [CALLBACK_ERROR_BLOCKED_ADDRESS] = {"blocked_address", true},
    [CALLBACK_ERROR_RESPONSE_TOO_LARGE] = {"response_too_large", false},
    [CALLBACK_ERROR_CANCELLED] = {"cancelled", false},
    [CALLBACK_ERROR_TOO_OLD] = {"too_old", true},
    [CALLBACK_ERROR_CRASH_LOOP] = {"crash_loop", true},
};

const char *callback_error_name(enum callback_error error) {
  assert(error < CALLBACK_ERROR_COUNT);
  return errors[error].name;
}

bool callback_error_is_permanent(enum callback_error error) {
  assert(error < CALLBACK_ERROR_COUNT);
  return errors[error].permanent;
}

enum callback_error callback_error_of_status(int http_status) {
  if (http_status >= 200 && http_status < 300)
    return CALLBACK_ERROR_NONE;
  if (http_status >= 300 && http_status < 400)
    return CALLBACK_ERROR_REDIRECT;
  if (http_status == 410)
    return CALLBACK_ERROR_GONE;
  if (http_status == 429)
    return CALLBACK_ERROR_STATUS_429;
  if (http_status >= 400 && http_status < 500)
    return CALLBACK_ERROR_STATUS_4XX;
  return CALLBACK_ERROR_STATUS_5XX;
}

static int64_t jittered_wait_ms(const struct schedule_failure *failure) {
  int count = failure->wait_count ? (int)failure->wait_count : WAIT_COUNT;
  int index = failure->attempts - 1 < count ? failure->attempts - 1 : count - 1;
  int64_t wait_ms = failure->wait_count ? failure->waits_ms[index] : waits_s[index] * 1000;
  int64_t spread_ms = wait_ms * JITTER_PERCENT / 100;
  return wait_ms - spread_ms + (int64_t)((uint64_t)failure->random % (uint64_t)(2 * spread_ms + 1));
}

struct schedule_verdict schedule_after_failure(const struct schedule_failure *failure) {
  assert(failure->attempts >= 1);
  assert(failure->error != CALLBACK_ERROR_NONE);
  struct schedule_verdict verdict = {.dead = true, .error = failure->error};
  if (callback_error_is_permanent(failure->error))
    return verdict;
  int64_t last_ms = failure->created_ms + (failure->age_max_ms ? failure->age_max_ms : SCHEDULE_AGE_MAX_MS);
  int64_t next_ms = failure->now_ms + jittered_wait_ms(failure);
  enum schedule_reason reason = SCHEDULE_WAIT;
  if (failure->retry_after_ms >= 0 && failure->now_ms < last_ms) {
    int64_t asked_ms = failure->now_ms + failure->retry_after_ms;
    if (asked_ms > next_ms) {
      next_ms = asked_ms < last_ms ? asked_ms : last_ms;
      reason = asked_ms < last_ms ? SCHEDULE_RETRY_AFTER : SCHEDULE_AGE_LIMIT;
    }
  }
  if (next_ms > last_ms) {
    verdict.error = CALLBACK_ERROR_TOO_OLD;
    return verdict;
  }
  verdict.dead = false;
  verdict.next_ms = next_ms;
  verdict.reason = reason;
  return verdict;
}

static int64_t parse_seconds(const char *value, size_t digits) {
  int64_t seconds = 0;
  for (size_t i = 0; i < digits && seconds <= RETRY_AFTER_MAX_S; i++)
    seconds = seconds * 10 + (value[i] - '0');
  return (seconds < RETRY_AFTER_MAX_S ? seconds : RETRY_AFTER_MAX_S) * 1000;
}

static int64_t parse_date(const char *value, int64_t now_ms) {
  static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"};
  for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
    struct tm broken = {0};
    const char *end = strptime(value, forms[i], &broken);
    if (!end || end[strspn(end, " \t")])
      continue;
    int64_t wait_ms = (int64_t)timegm(&broken) * 1000 - now_ms;
    if (wait_ms < 0)
      return 0;
    return wait_ms < RETRY_AFTER_MAX_S * 1000 ? wait_ms : RETRY_AFTER_MAX_S * 1000;
  }
  return -1;
}

int64_t schedule_parse_retry_after(const char *value, int64_t now_ms) {
  value += strspn(value, " \t");
  size_t digits = strspn(value, "0123456789");
  if (digits && !value[digits + strspn(value + digits, " \t")])
    return parse_seconds(value, digits);
  return parse_date(value, now_ms);
}
