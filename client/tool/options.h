/* Reading a command line by the tables of commands and options, and showing those tables as help. */
#ifndef RINGBACK_CLIENT_TOOL_OPTIONS_H
#define RINGBACK_CLIENT_TOOL_OPTIONS_H

#include "client/tool/tool.h"
#include <stdio.h>

/* Commands whose names begin with the same word. */
struct command_group {
  const char *name;
  const char *summary;
};

/* What to do instead of a command that people look for and that does not exist. */
struct command_hint {
  const char *group, *word;
  const char *hint;
};

/* The whole grammar. Every table ends with a NULL name. */
struct grammar {
  const struct command_row *commands;
  const struct command_group *groups;
  const struct option_row *globals;
  const struct command_hint *hints;
};

enum options_status {
  OPTIONS_RUN,   /* tool->command and its values are set, and the operands */
  OPTIONS_HELP,  /* help was asked for: of tool->command, else of the word in `topic` (may be NULL: of everything) */
  OPTIONS_WRONG, /* `problem` says what */
};

#define PROBLEM_BYTES 512

struct options_result {
  int operand_count;
  char **operands; /* points into argv, which is reordered */
  const char *topic;
  char problem[PROBLEM_BYTES];
};

/* Reads argv[1..]. Texts are not copied: argv must outlive the tool. */
enum options_status options_parse(const struct grammar *grammar, int argc, char **argv, struct tool *tool,
                                  struct options_result *result);

/* Reads one option's text as its kind demands. False with what is wrong. */
bool option_read(const struct option_row *row, const char *text, struct option_value *value, char *problem,
                 size_t problem_bytes);

/* Whether a command belongs to the group. */
bool command_in_group(const struct command_row *command, const char *group);

void help_print_all(FILE *out, const struct grammar *grammar);
void help_print_group(FILE *out, const struct grammar *grammar, const char *group);
void help_print_command(FILE *out, const struct grammar *grammar, const struct command_row *command);
extern const char help_exit_statuses[];

/* The same tables as the manual page ringback(1). */
void man_print(FILE *out, const struct grammar *grammar);

#endif
