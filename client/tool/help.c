/* The tables of commands and options as help texts. */
#include "client/tool/options.h"
#include <string.h>

#define LEFT_COLUMN 30

const char help_exit_statuses[] =
    "Exit status: 0 success; 1 the operation or the job failed; 2 wrong usage; 3 not found;\n"
    "             4 the server cannot be reached, or time ran out.\n"
    "With --json an error is a line on standard error:\n"
    "  {\"error\": {\"code\": \"NOT_FOUND\", \"message\": \"...\", \"violations\": [{\"field\": \"...\", "
    "\"description\": \"...\"}]}}\n"
    "where code is gRPC's name, or LOCAL for what the tool found itself; \"about\" names an item of several.\n";

static void print_row(FILE *out, const char *left, const char *right) {
  if (strlen(left) < LEFT_COLUMN - 2)
    fprintf(out, "  %-*s%s\n", LEFT_COLUMN - 2, left, right);
  else
    fprintf(out, "  %s\n%*s%s\n", left, LEFT_COLUMN, "", right);
}

static void print_choices(FILE *out, const struct option_row *row) {
  fprintf(out, "%*s", LEFT_COLUMN, "");
  for (const char *const *choice = row->choices; *choice != NULL; choice++)
    fprintf(out, "%s%s", choice == row->choices ? "" : ", ", *choice);
  fputc('\n', out);
}

static void print_options(FILE *out, const char *title, const struct option_row *rows) {
  if (rows == NULL || rows->name == NULL)
    return;
  fprintf(out, "\n%s:\n", title);
  for (; rows->name != NULL; rows++) {
    char left[96], letter[8] = "    ";
    if (rows->letter != 0)
      snprintf(letter, sizeof letter, "-%c, ", rows->letter);
    snprintf(left, sizeof left, "%s--%s%s%s%s", letter, rows->name, rows->value == NULL ? "" : " ",
             rows->value == NULL ? "" : rows->value, rows->repeatable ? "..." : "");
    print_row(out, left, rows->help);
    if (rows->kind == OPTION_CHOICE)
      print_choices(out, rows);
  }
}

static void print_command_line(FILE *out, const struct command_row *command, const char *name) {
  char left[96];
  snprintf(left, sizeof left, "%s%s%s", name, command->operands[0] == '\0' ? "" : " ", command->operands);
  print_row(out, left, command->summary);
}

void help_print_all(FILE *out, const struct grammar *grammar) {
  fprintf(out, "Usage: ringback COMMAND [OPTION]...\n\nWorks with the job queues of a Ringback server.\n\nCommands:\n");
  for (const struct command_group *group = grammar->groups; group->name != NULL; group++) {
    char left[32];
    snprintf(left, sizeof left, "%s ...", group->name);
    print_row(out, left, group->summary);
  }
  for (const struct command_row *row = grammar->commands; row->name != NULL; row++)
    if (strchr(row->name, ' ') == NULL)
      print_command_line(out, row, row->name);
  print_options(out, "Options of every command", grammar->globals);
  fprintf(out,
          "\n`ringback COMMAND --help` tells more. A queue is named buckets/BUCKET/queues/QUEUE, or just QUEUE with "
          "--bucket.\n"
          "Durations: 500ms, 5s, 2m, 1h, 3d. Times: 2026-11-22T23:15:54Z, or seconds since 1970;\n"
          "--since and --until also take a duration: so long ago.\n\n%s",
          help_exit_statuses);
}

void help_print_group(FILE *out, const struct grammar *grammar, const char *group) {
  fprintf(out, "Usage: ringback %s COMMAND [OPTION]...\n\n", group);
  for (const struct command_group *row = grammar->groups; row->name != NULL; row++)
    if (strcmp(row->name, group) == 0)
      fprintf(out, "%s.\n\nCommands:\n", row->summary);
  for (const struct command_row *row = grammar->commands; row->name != NULL; row++)
    if (command_in_group(row, group))
      print_command_line(out, row, row->name + strlen(group) + 1);
  fprintf(out, "\n`ringback %s COMMAND --help` tells more.\n", group);
}

void help_print_command(FILE *out, const struct grammar *grammar, const struct command_row *command) {
  fprintf(out, "Usage: ringback %s%s%s [OPTION]...\n\n%s.\n", command->name, command->operands[0] == '\0' ? "" : " ",
          command->operands, command->summary);
  if (command->description != NULL)
    fprintf(out, "\n%s\n", command->description);
  print_options(out, "Options", command->options);
  print_options(out, "Options of every command", grammar->globals);
  fprintf(out, "\n%s", help_exit_statuses);
}
