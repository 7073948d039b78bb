/*
 * ringback, the command-line tool: reads the command line and the environment, runs one command, and exits with its
 * status.
 */
#include "client/tool/commands.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *from_environment(const char *name, const char *fallback) {
  const char *value = getenv(name);
  return value != NULL && value[0] != '\0' ? value : fallback;
}

static void settle(struct tool *tool) {
  const char *terminal = from_environment("TERM", "dumb");
  tool->server = tool_text(tool, "server", from_environment("RINGBACK_SERVER", "127.0.0.1:7080"));
  tool->bucket = tool_text(tool, "bucket", from_environment("RINGBACK_BUCKET", NULL));
  if (tool->bucket != NULL && strncmp(tool->bucket, "buckets/", 8) == 0)
    tool->bucket += 8;
  tool->json = tool_given(tool, "json");
  tool_errors_as_json(tool->json);
  tool->timeout_ms = tool_number(tool, "timeout", 0);
  tool->live = isatty(STDERR_FILENO) && strcmp(terminal, "dumb") != 0;
  tool->color = isatty(STDOUT_FILENO) && strcmp(terminal, "dumb") != 0 && from_environment("NO_COLOR", NULL) == NULL;
}

static int show_help(const struct tool *tool, const struct options_result *result) {
  if (tool->command != NULL)
    help_print_command(stdout, &tool_grammar, tool->command);
  else if (result->topic != NULL)
    help_print_group(stdout, &tool_grammar, result->topic);
  else
    help_print_all(stdout, &tool_grammar);
  return TOOL_OK;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--man") == 0) {
    man_print(stdout, &tool_grammar);
    return fflush(stdout) == 0 ? TOOL_OK : TOOL_FAILED;
  }
  static struct tool tool;
  struct options_result result;
  /* The operands are moved to the front of the arguments, so a copy keeps what ps shows as it was. */
  char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
  if (arguments == NULL)
    return TOOL_FAILED;
  memcpy(arguments, argv, (size_t)argc * sizeof *argv);
  int status = TOOL_USAGE;
  switch (options_parse(&tool_grammar, argc, arguments, &tool, &result)) {
  case OPTIONS_HELP:
    status = show_help(&tool, &result);
    break;
  case OPTIONS_WRONG:
    /* It may stand behind what is wrong, where nothing was read any more. */
    for (int i = 1; i < argc; i++)
      if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "-j") == 0)
        tool_errors_as_json(true);
    tool_error("%s", result.problem);
    if (argc < 2)
      help_print_all(stderr, &tool_grammar);
    break;
  case OPTIONS_RUN:
    settle(&tool);
    status = tool.command->run(&tool, result.operand_count, result.operands);
    break;
  }
  ringback_disconnect(tool.client);
  for (size_t i = 0; i < tool.text_count; i++)
    free(tool.texts[i]);
  if (fflush(stdout) != 0 || ferror(stdout))
    status = status == TOOL_OK ? TOOL_FAILED : status;
  free(arguments);
  return status;
}
