/* Standard Webhooks signatures, with the specification's own vector. */
#include "server/callback/signature.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
static const char body[] = "{\"test\": 2432232314}";

static void the_published_vector_is_reproduced(void **state) {
  (void)state;
  const char *secrets[] = {SECRET};
  char header[SIGNATURE_HEADER_SIZE];
  assert_true(signature_write(secrets, 1, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, strlen(body), header));
  assert_string_equal(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

static void every_secret_signs_in_order(void **state) {
  (void)state;
  const char *secrets[] = {"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", SECRET, SECRET, SECRET, SECRET};
  char one[SIGNATURE_HEADER_SIZE], all[SIGNATURE_HEADER_SIZE];
  assert_true(signature_write(secrets, 1, "id", 1, body, strlen(body), one));
  assert_true(signature_write(secrets, 5, "id", 1, body, strlen(body), all));
  assert_int_equal(strlen(all), 5 * 47 + 4);
  assert_memory_equal(all, one, strlen(one));
  assert_int_equal(all[47], ' ');
}

static void a_secret_that_is_not_valid_signs_nothing(void **state) {
  (void)state;
  const char *secrets[] = {SECRET, "whsec_short"};
  char header[SIGNATURE_HEADER_SIZE];
  assert_false(signature_write(secrets, 2, "id", 1, body, strlen(body), header));
  assert_string_equal(header, "");
  assert_false(signature_write(secrets, 0, "id", 1, body, strlen(body), header));
}

static void secrets_hold_24_to_64_bytes(void **state) {
  (void)state;
  static const char *const good[] = {
      SECRET, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="};
  static const char *const bad[] = {
      "",
      "whsec_",
      "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB==",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=A",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA AA",
      "whsec_-_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
      "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
      "whsec_================================"};
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
    if (signature_secret_check(good[i]))
      fail_msg("refused: %s", good[i]);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    if (!signature_secret_check(bad[i]))
      fail_msg("accepted: %s", bad[i]);
  assert_string_equal(signature_secret_check("whsec_!!!"), "must be whsec_ and base64 with its padding");
  assert_string_equal(signature_secret_check("whsec_AAAA"), "must hold 24 to 64 bytes");
  assert_string_equal(signature_secret_check("whsec_"), "must hold 24 to 64 bytes");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_published_vector_is_reproduced),
      cmocka_unit_test(every_secret_signs_in_order),
      cmocka_unit_test(a_secret_that_is_not_valid_signs_nothing),
      cmocka_unit_test(secrets_hold_24_to_64_bytes),
  };
  return cmocka_run_group_tests(tests, 0, 0);
}
