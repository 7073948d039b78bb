/* Running a worker's command: what it gets, what is kept of what it writes, and that nothing of it is left behind. */
#include "client/tool/worker_process.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

static void run(struct process *process, const char *command, const char *input) {
  assert_int_equal(process_start(process, command, environ, input, strlen(input)), 0);
  int rounds = 0;
  while (!process_wait(process, 100)) {
    assert_true(++rounds < 100000);
  }
}

static void the_input_is_read_and_the_output_kept(void **state) {
  (void)state;
  struct process process;
  run(&process, "cat; exit 3", "{\"a\":1}");
  assert_true(WIFEXITED(process.wait_status));
  assert_int_equal(WEXITSTATUS(process.wait_status), 3);
  assert_int_equal(process.output_length, 7);
  assert_memory_equal(process.output, "{\"a\":1}", 7);
  process_close(&process);
}

static void lines_on_descriptor_3_are_understood_and_others_ignored(void **state) {
  (void)state;
  struct process process;
  run(&process,
      "printf 'progress 42\\nprogress 101\\nprogress x\\nnonsense\\ncode My.Code-1\\ncode not good\\nmessage one "
      "two\\n' >&3; "
      "printf 'progress 77' >&3",
      "");
  assert_int_equal(process.progress, 77);
  assert_string_equal(process.code, "My.Code-1");
  assert_string_equal(process.message, "one two");
  process_close(&process);
}

static void the_end_of_standard_error_is_kept(void **state) {
  (void)state;
  struct process process;
  char text[64];
  run(&process,
      "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i + 1)); done; printf 'odd \\377 byte\\n\\n' >&2", "");
  process_last_lines(&process, text, sizeof text);
  assert_string_equal(text, "line 1995\nline 1996\nline 1997\nline 1998\nline 1999\nodd ? byte");
  process_close(&process);
}

static void output_beyond_the_limit_is_cut_and_said_to_be(void **state) {
  (void)state;
  struct process process;
  run(&process, "head -c 3000000 /dev/zero", "");
  assert_true(process.output_cut);
  assert_int_equal(process.output_length, PROCESS_OUTPUT_BYTES_MAX);
  process_close(&process);
}

static void what_the_command_leaves_running_is_killed(void **state) {
  (void)state;
  struct process process;
  run(&process, "(trap '' TERM; exec sleep 300) & echo $!", "");
  char text[32] = ""; /* the output has no NUL of its own */
  memcpy(text, process.output, process.output_length < sizeof text ? process.output_length : sizeof text - 1);
  pid_t left = (pid_t)strtol(text, NULL, 10);
  assert_true(left > 1);
  char path[64], stat[256] = "";
  snprintf(path, sizeof path, "/proc/%d/stat", (int)left);
  for (int i = 0; i < 3000; i++) {
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(stat, sizeof stat, file) == NULL || strstr(stat, ") Z") != NULL) {
      stat[0] = '\0';
    }
    if (file != NULL) {
      fclose(file);
    }
    if (stat[0] == '\0') {
      break;
    }
    usleep(20000);
  }
  assert_string_equal(stat, "");
  process_close(&process);
}

static void a_signal_reaches_the_whole_group(void **state) {
  (void)state;
  struct process process;
  assert_int_equal(process_start(&process, "sleep 300 & sleep 300 & wait", environ, "", 0), 0);
  process_wait(&process, 50);
  process_signal(&process, SIGTERM);
  int rounds = 0;
  while (!process_wait(&process, 100)) {
    assert_true(++rounds < 100000);
  }
  assert_true(WIFSIGNALED(process.wait_status));
  process_close(&process);
}

static void a_command_that_closes_everything_is_waited_for(void **state) {
  (void)state;
  struct process process;
  run(&process, "exec <&- >&- 2>&- 3>&-; sleep 0.2; exit 7", "");
  assert_int_equal(WEXITSTATUS(process.wait_status), 7);
  process_close(&process);
}

static void text_is_told_from_bytes(void **state) {
  (void)state;
  assert_true(process_is_text("caf\xc3\xa9 \xf0\x9f\x98\x80", 10));
  assert_false(process_is_text("\xc0\x80", 2));
  assert_false(process_is_text("\xed\xa0\x80", 3));
  assert_false(process_is_text("\xf4\x90\x80\x80", 4));
  assert_false(process_is_text("a\0b", 3));
  assert_false(process_is_text("\xc3", 1));
  char text[] = "a\x01\xffz\xc3\xa9";
  process_clean_text(text, strlen(text));
  assert_string_equal(text, "a??z\xc3\xa9");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_input_is_read_and_the_output_kept),
      cmocka_unit_test(lines_on_descriptor_3_are_understood_and_others_ignored),
      cmocka_unit_test(the_end_of_standard_error_is_kept),
      cmocka_unit_test(output_beyond_the_limit_is_cut_and_said_to_be),
      cmocka_unit_test(what_the_command_leaves_running_is_killed),
      cmocka_unit_test(a_signal_reaches_the_whole_group),
      cmocka_unit_test(a_command_that_closes_everything_is_waited_for),
      cmocka_unit_test(text_is_told_from_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
