/* Reading command lines by the tool's own table, and the table's own soundness. */
#include "client/tool/commands.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ARGUMENTS_MAX 24

static struct tool tool;
static struct options_result result;
static char line[512];
static char *arguments[ARGUMENTS_MAX];

/* Words parted by spaces. */
static enum options_status parse(const char *words) {
  int count = 0;
  tool = (struct tool){0};
  snprintf(line, sizeof line, "ringback %s", words);
  for (char *word = strtok(line, " "); word != NULL && count < ARGUMENTS_MAX; word = strtok(NULL, " "))
    arguments[count++] = word;
  return options_parse(&tool_grammar, count, arguments, &tool, &result);
}

static void options_and_operands_may_be_mixed(void **state) {
  (void)state;
  assert_int_equal(parse("--server h:1 job cancel id1 -b films --tag=T id2 --json -- -id3"), OPTIONS_RUN);
  assert_string_equal(tool.command->name, "job cancel");
  assert_int_equal(result.operand_count, 3);
  assert_string_equal(result.operands[0], "id1");
  assert_string_equal(result.operands[1], "id2");
  assert_string_equal(result.operands[2], "-id3");
  assert_string_equal(tool_text(&tool, "server", ""), "h:1");
  assert_string_equal(tool_text(&tool, "bucket", ""), "films");
  assert_string_equal(tool_text(&tool, "tag", ""), "T");
  assert_true(tool_given(&tool, "json"));
  assert_false(tool_given(&tool, "until"));
}

static void letters_may_be_joined_with_each_other_and_their_value(void **state) {
  (void)state;
  assert_int_equal(parse("job submit -jwtT -p7"), OPTIONS_RUN);
  assert_true(tool_given(&tool, "wait"));
  assert_string_equal(tool_text(&tool, "tag", ""), "T");
  assert_int_equal(tool_number(&tool, "priority", 0), 7);
}

static void the_last_value_counts_and_all_can_be_read(void **state) {
  (void)state;
  size_t position = 0;
  assert_int_equal(parse("job list q --state failed --state cancel --limit 1 --limit 2"), OPTIONS_RUN);
  assert_int_equal(tool_number(&tool, "limit", 0), 2);
  assert_string_equal(tool_next_text(&tool, "state", &position), "failed");
  assert_string_equal(tool_next_text(&tool, "state", &position), "cancel");
  assert_null(tool_next_text(&tool, "state", &position));
}

static void what_is_wrong_is_said(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"", "a command is needed; `ringback --help` lists them"},
      {"queue", "a command is needed; `ringback queue --help` lists them"},
      {"fly", "there is no command \"fly\"; `ringback --help` lists them"},
      {"queue fly", "there is no command \"fly\"; `ringback --help` lists them"},
      {"callback on q", "there is no such command; `ringback callback set QUEUE` switches a queue's callbacks on"},
      {"job list q --since soon",
       "--since: \"soon\" is not a time such as 2026-11-22T23:15:54Z, or how long ago, such as 5m or 2h"},
      {"job list --colour", "there is no option --colour"},
      {"--tag T job submit", "there is no option --tag"},
      {"job list -Z", "there is no option -Z"},
      {"job submit --tag", "--tag needs a value"},
      {"job submit --wait=yes", "--wait takes no value"},
      {"job submit --priority 256", "--priority: 256 is not between 0 and 255"},
      {"job submit --priority x", "--priority: \"x\" is not a whole number"},
      {"job submit --delay soon", "--delay: \"soon\" is not a duration such as 500ms, 5s, 2m, 1h or 3d"},
      {"job list q --state lost", "--state: \"lost\" is none of submitted, running, success, failed, pause, cancel"},
      {"queue show", "missing: QUEUE"},
      {"job priority", "missing: ID PRIORITY"},
      {"job priority j1", "missing: PRIORITY"},
      {"queue show a b", "\"b\" is one operand too many"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    assert_int_equal(parse(rows[i][0]), OPTIONS_WRONG);
    assert_string_equal(result.problem, rows[i][1]);
  }
}

static void help_is_known_at_every_level(void **state) {
  (void)state;
  assert_int_equal(parse("--help"), OPTIONS_HELP);
  assert_null(tool.command);
  assert_null(result.topic);
  assert_int_equal(parse("queue -h"), OPTIONS_HELP);
  assert_string_equal(result.topic, "queue");
  assert_int_equal(parse("queue show --help"), OPTIONS_HELP);
  assert_string_equal(tool.command->name, "queue show");
  assert_int_equal(parse("help queue"), OPTIONS_HELP);
}

/* Two rows of a command, or of a command and the global ones, with the same name or letter would hide one another. */
static void no_option_hides_another(void **state) {
  (void)state;
  for (const struct command_row *command = tool_grammar.commands; command->name != NULL; command++)
    for (const struct option_row *a = command->options; a != NULL && a->name != NULL; a++) {
      for (const struct option_row *b = a + 1; b->name != NULL; b++) {
        assert_string_not_equal(a->name, b->name);
        assert_true(a->letter == 0 || a->letter != b->letter);
      }
      for (const struct option_row *b = tool_grammar.globals; b->name != NULL; b++) {
        assert_string_not_equal(a->name, b->name);
        assert_true(a->letter == 0 || a->letter != b->letter);
      }
      assert_true((a->kind == OPTION_FLAG) == (a->value == NULL));
      assert_true((a->kind == OPTION_CHOICE) == (a->choices != NULL));
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(options_and_operands_may_be_mixed),
      cmocka_unit_test(letters_may_be_joined_with_each_other_and_their_value),
      cmocka_unit_test(the_last_value_counts_and_all_can_be_read),
      cmocka_unit_test(what_is_wrong_is_said),
      cmocka_unit_test(help_is_known_at_every_level),
      cmocka_unit_test(no_option_hides_another),
  };
  return cmocka_run_group_tests_name("tool_options", tests, NULL, NULL);
}
