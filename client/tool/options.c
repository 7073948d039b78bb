/*
 * Reads a command line by the tables of commands and options. Options may stand anywhere after the command's words and
 * the global ones before them too; `--` ends them. It prints nothing and keeps nothing but what the caller gave it.
 */
#include "client/tool/options.h"
#include "client/tool/values.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct option_row *find_long(const struct option_row *rows, const char *name, size_t length) {
  for (; rows != NULL && rows->name != NULL; rows++)
    if (strlen(rows->name) == length && memcmp(rows->name, name, length) == 0)
      return rows;
  return NULL;
}

static const struct option_row *find_letter(const struct option_row *rows, char letter) {
  for (; rows != NULL && rows->name != NULL; rows++)
    if (rows->letter == letter)
      return rows;
  return NULL;
}

static bool read_choice(const struct option_row *row, const char *text, char *problem, size_t problem_bytes) {
  int length = snprintf(problem, problem_bytes, "--%s: \"%s\" is none of", row->name, text);
  for (const char *const *choice = row->choices; *choice != NULL; choice++) {
    if (strcmp(*choice, text) == 0)
      return true;
    if (length >= 0 && (size_t)length < problem_bytes)
      length += snprintf(problem + length, problem_bytes - (size_t)length, "%s %s", choice == row->choices ? "" : ",",
                         *choice);
  }
  return false;
}

/* A time, or how long ago it was. Digits alone are a time. */
static bool parse_past(const char *text, int64_t *milliseconds) {
  int64_t ago;
  struct timespec now;
  if (value_parse_time(text, milliseconds))
    return true;
  if (!value_parse_duration(text, &ago))
    return false;
  clock_gettime(CLOCK_REALTIME, &now);
  int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
  *milliseconds = ago < now_ms ? now_ms - ago : 0;
  return true;
}

static bool read_number(const struct option_row *row, const char *text, int64_t *number, char *problem,
                        size_t problem_bytes) {
  const char *what = NULL;
  bool limited = false;
  if (row->kind == OPTION_INTEGER) {
    what = value_parse_integer(text, number) ? NULL : "a whole number";
    limited = true;
  } else if (row->kind == OPTION_DURATION) {
    what = value_parse_duration(text, number) ? NULL : "a duration such as 500ms, 5s, 2m, 1h or 3d";
    limited = row->high > 0;
  } else if (row->kind == OPTION_PAST) {
    what = parse_past(text, number) ? NULL : "a time such as 2026-11-22T23:15:54Z, or how long ago, such as 5m or 2h";
  } else {
    what = value_parse_time(text, number) ? NULL : "a time such as 2026-11-22T23:15:54Z, or seconds since 1970";
  }
  if (what != NULL) {
    snprintf(problem, problem_bytes, "--%s: \"%s\" is not %s", row->name, text, what);
    return false;
  }
  if (!limited || (*number >= row->low && *number <= row->high))
    return true;
  char low[VALUE_TEXT_BYTES], high[VALUE_TEXT_BYTES];
  snprintf(low, sizeof low, "%lld", (long long)row->low);
  snprintf(high, sizeof high, "%lld", (long long)row->high);
  if (row->kind == OPTION_DURATION) {
    value_show_duration(row->low, low);
    value_show_duration(row->high, high);
  }
  snprintf(problem, problem_bytes, "--%s: %s is not between %s and %s", row->name, text, low, high);
  return false;
}

bool option_read(const struct option_row *row, const char *text, struct option_value *value, char *problem,
                 size_t problem_bytes) {
  *value = (struct option_value){.row = row, .text = text};
  switch (row->kind) {
  case OPTION_FLAG:
  case OPTION_TEXT:
  case OPTION_QUEUE:
  case OPTION_FILE:
    return true;
  case OPTION_CHOICE:
    return read_choice(row, text, problem, problem_bytes);
  case OPTION_INTEGER:
  case OPTION_DURATION:
  case OPTION_TIME:
  case OPTION_PAST:
    return read_number(row, text, &value->number, problem, problem_bytes);
  }
  return false;
}

bool command_in_group(const struct command_row *command, const char *group) {
  size_t length = strlen(group);
  return strncmp(command->name, group, length) == 0 && command->name[length] == ' ';
}

/* The state of one reading. */
struct reading {
  const struct grammar *grammar;
  struct tool *tool;
  struct options_result *result;
  int argc, position; /* the argument being read */
  char **argv;
  const char *group; /* the first of two words, until the second has come */
  bool help, version;
};

static bool wrong(struct reading *reading, const char *format, const char *text) {
  /* The formats are this file's own and take exactly one text. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf(reading->result->problem, PROBLEM_BYTES, format, text);
#pragma GCC diagnostic pop
  return false;
}

static bool add_value(struct reading *reading, const struct option_row *row, const char *text) {
  struct tool *tool = reading->tool;
  if (strcmp(row->name, "help") == 0) {
    reading->help = true;
    return true;
  }
  if (strcmp(row->name, "version") == 0) {
    reading->version = true;
    return true;
  }
  if (tool->value_count == TOOL_VALUES_MAX)
    return wrong(reading, "too many options, from %s on", row->name);
  struct option_value *value = &tool->values[tool->value_count];
  if (!option_read(row, text, value, reading->result->problem, PROBLEM_BYTES))
    return false;
  tool->value_count++;
  return true;
}

static bool next_text(struct reading *reading, const struct option_row *row, const char **text) {
  if (reading->position + 1 >= reading->argc)
    return wrong(reading, "--%s needs a value", row->name);
  *text = reading->argv[++reading->position];
  return true;
}

static bool read_long(struct reading *reading, const char *word) {
  const char *equals = strchr(word, '=');
  size_t length = equals == NULL ? strlen(word) : (size_t)(equals - word);
  const struct command_row *command = reading->tool->command;
  const struct option_row *row = command == NULL ? NULL : find_long(command->options, word, length);
  if (row == NULL)
    row = find_long(reading->grammar->globals, word, length);
  if (row == NULL)
    return wrong(reading, "there is no option --%s", word);
  if (row->kind == OPTION_FLAG && equals != NULL)
    return wrong(reading, "--%s takes no value", row->name);
  const char *text = equals == NULL ? "" : equals + 1;
  if (row->kind != OPTION_FLAG && equals == NULL && !next_text(reading, row, &text))
    return false;
  return add_value(reading, row, text);
}

static bool read_letters(struct reading *reading, const char *letters) {
  for (; *letters != '\0'; letters++) {
    const struct command_row *command = reading->tool->command;
    const struct option_row *row = command == NULL ? NULL : find_letter(command->options, *letters);
    if (row == NULL)
      row = find_letter(reading->grammar->globals, *letters);
    if (row == NULL)
      return wrong(reading, "there is no option -%.1s", letters);
    if (row->kind == OPTION_FLAG) {
      if (!add_value(reading, row, ""))
        return false;
      continue;
    }
    const char *text = letters + 1;
    if (*text == '\0' && !next_text(reading, row, &text))
      return false;
    return add_value(reading, row, text);
  }
  return true;
}

/* A word before the command is known: the command, or the first of its two words. */
static bool read_command_word(struct reading *reading, const char *word) {
  for (const struct command_row *row = reading->grammar->commands; row->name != NULL; row++) {
    const char *rest = row->name;
    if (reading->group != NULL) {
      if (!command_in_group(row, reading->group))
        continue;
      rest += strlen(reading->group) + 1;
    }
    if (strcmp(rest, word) == 0) {
      reading->tool->command = row;
      return true;
    }
  }
  for (const struct command_group *group = reading->grammar->groups; reading->group == NULL && group->name != NULL;
       group++)
    if (strcmp(group->name, word) == 0) {
      reading->group = group->name;
      return true;
    }
  if (strcmp(word, "help") == 0) {
    reading->help = true;
    return true;
  }
  for (const struct command_hint *hint = reading->grammar->hints; hint->group != NULL; hint++)
    if (reading->group != NULL && strcmp(hint->group, reading->group) == 0 && strcmp(hint->word, word) == 0)
      return wrong(reading, "there is no such command; %s", hint->hint);
  return wrong(reading, "there is no command \"%s\"; `ringback --help` lists them", word);
}

static bool read_argument(struct reading *reading, bool *options_over) {
  char *word = reading->argv[reading->position];
  if (!*options_over && strcmp(word, "--") == 0) {
    *options_over = true;
    return true;
  }
  if (!*options_over && word[0] == '-' && word[1] == '-')
    return read_long(reading, word + 2);
  if (!*options_over && word[0] == '-' && word[1] != '\0')
    return read_letters(reading, word + 1);
  if (reading->tool->command == NULL)
    return read_command_word(reading, word);
  reading->result->operands[reading->result->operand_count++] = word;
  return true;
}

static bool check_operands(struct reading *reading) {
  const struct command_row *command = reading->tool->command;
  int count = reading->result->operand_count;
  if (count < command->operands_min) {
    const char *missing = command->operands;
    for (int i = 0; i < count; i++)
      missing += strcspn(missing, " ") + (strchr(missing, ' ') != NULL);
    return wrong(reading, "missing: %s", missing);
  }
  if (command->operands_max >= 0 && count > command->operands_max)
    return wrong(reading, "\"%s\" is one operand too many", reading->result->operands[command->operands_max]);
  return true;
}

/* --version is the command of that name, whatever else is asked for. */
static bool take_version(struct reading *reading) {
  for (const struct command_row *row = reading->grammar->commands; row->name != NULL; row++)
    if (strcmp(row->name, "version") == 0) {
      reading->tool->command = row;
      reading->result->operand_count = 0;
      return true;
    }
  return false;
}

enum options_status options_parse(const struct grammar *grammar, int argc, char **argv, struct tool *tool,
                                  struct options_result *result) {
  /* Operands move to the front of argv: there are never more of them than of the arguments already read. */
  *result = (struct options_result){.operands = argv + 1};
  struct reading reading = {.grammar = grammar, .tool = tool, .result = result, .argc = argc, .argv = argv};
  bool options_over = false;
  for (reading.position = 1; reading.position < argc; reading.position++)
    if (!read_argument(&reading, &options_over))
      return OPTIONS_WRONG;
  result->topic = reading.group;
  if (reading.help)
    return OPTIONS_HELP;
  if (reading.version && take_version(&reading))
    return OPTIONS_RUN;
  if (tool->command == NULL) {
    if (reading.group == NULL)
      wrong(&reading, "a command is needed; `%s --help` lists them", "ringback");
    else
      wrong(&reading, "a command is needed; `ringback %s --help` lists them", reading.group);
    return OPTIONS_WRONG;
  }
  return check_operands(&reading) ? OPTIONS_RUN : OPTIONS_WRONG;
}
