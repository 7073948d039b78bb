/* The receiver's check of signatures, on the vector that Standard Webhooks publishes. */
#include "client/tool/signature.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ID "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define TIME "1614265330"
#define NOW 1614265330
#define BODY "{\"test\": 2432232314}"
#define SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

static struct signature_key key;

static enum signature_result check(const char *id, const char *time, const char *signatures, const char *body,
                                   int64_t now) {
  return signature_check(&key, 1, id, time, signatures, body, strlen(body), now);
}

static int read_the_key(void **state) {
  (void)state;
  return signature_read_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &key) ? 0 : -1;
}

static void the_published_signature_is_valid(void **state) {
  (void)state;
  assert_int_equal(check(ID, TIME, SIGNATURE, BODY, NOW), SIGNATURE_VALID);
  assert_int_equal(check(ID, TIME, "v1,AAAA v2,x " SIGNATURE, BODY, NOW), SIGNATURE_VALID);
}

static void anything_changed_is_wrong(void **state) {
  (void)state;
  assert_int_equal(check(ID "x", TIME, SIGNATURE, BODY, NOW), SIGNATURE_WRONG);
  assert_int_equal(check(ID, "1614265331", SIGNATURE, BODY, NOW), SIGNATURE_WRONG);
  assert_int_equal(check(ID, TIME, SIGNATURE, BODY " ", NOW), SIGNATURE_WRONG);
  assert_int_equal(check(ID, TIME, "v1,h0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY, NOW), SIGNATURE_WRONG);
  assert_int_equal(check(ID, TIME, "", BODY, NOW), SIGNATURE_WRONG);
  assert_int_equal(check(ID, "soon", SIGNATURE, BODY, NOW), SIGNATURE_WRONG);
}

static void an_absent_header_is_missing(void **state) {
  (void)state;
  assert_int_equal(check(NULL, TIME, SIGNATURE, BODY, NOW), SIGNATURE_MISSING);
  assert_int_equal(check(ID, NULL, SIGNATURE, BODY, NOW), SIGNATURE_MISSING);
  assert_int_equal(check(ID, TIME, NULL, BODY, NOW), SIGNATURE_MISSING);
}

static void a_replayed_callback_is_stale(void **state) {
  (void)state;
  assert_int_equal(check(ID, TIME, SIGNATURE, BODY, NOW + 300), SIGNATURE_VALID);
  assert_int_equal(check(ID, TIME, SIGNATURE, BODY, NOW + 301), SIGNATURE_STALE);
  assert_int_equal(check(ID, TIME, SIGNATURE, BODY, NOW - 301), SIGNATURE_STALE);
}

static void a_key_has_24_to_64_bytes(void **state) {
  (void)state;
  struct signature_key other;
  assert_true(signature_read_key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &other));
  assert_false(signature_read_key("whsec_", &other));
  assert_false(signature_read_key("whsec_AAAA", &other));
  assert_false(signature_read_key("whsec_not base64 at all, whatever its length", &other));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_published_signature_is_valid), cmocka_unit_test(anything_changed_is_wrong),
      cmocka_unit_test(an_absent_header_is_missing),      cmocka_unit_test(a_replayed_callback_is_stale),
      cmocka_unit_test(a_key_has_24_to_64_bytes),
  };
  return cmocka_run_group_tests_name("tool_signature", tests, read_the_key, NULL);
}
