/*
 * `ringback completion bash`: a script for bash's completion, written from the tables of commands and options. Only the
 * names of queues are asked for when completing.
 */
#include "client/tool/commands.h"
#include "client/tool/output.h"
#include <string.h>

static const char head[] = "# Completion of ringback in bash: source <(ringback completion bash)\n"
                           "_ringback_queues() {\n"
                           "  ringback queue list --names --timeout 1s ${bucket:+--bucket \"$bucket\"} "
                           "${server:+--server \"$server\"} 2>/dev/null\n"
                           "}\n"
                           "_ringback() {\n"
                           "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
                           "  local command= bucket= server= options= choices= i word\n"
                           "  COMPREPLY=()\n"
                           "  # bash parts --name=value at the equals sign\n"
                           "  [[ $previous == = ]] && previous=\"${COMP_WORDS[COMP_CWORD-2]}\"\n"
                           "  [[ $current == = ]] && current=\n"
                           "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
                           "    word=\"${COMP_WORDS[i]}\"\n"
                           "    case \"$word\" in\n"
                           "    -b | --bucket) bucket=\"${COMP_WORDS[i+1]}\"; i=$((i + 1)) ;;\n"
                           "    --server) server=\"${COMP_WORDS[i+1]}\"; i=$((i + 1)) ;;\n"
                           "    -*) ;;\n"
                           "    *)\n";

/* The words that are no operands: commands, and first words of two. */
static void print_words(void) {
  puts("      case \"$command $word\" in");
  for (const struct command_group *group = tool_grammar.groups; group->name != NULL; group++)
    printf("      \" %s\") command=%s ;;\n", group->name, group->name);
  for (const struct command_row *row = tool_grammar.commands; row->name != NULL; row++)
    printf("      \"%s%s\") command=\"%s\" ;;\n", strchr(row->name, ' ') == NULL ? " " : "", row->name, row->name);
  puts("      esac ;;\n    esac\n  done");
}

static void print_option_values(const struct option_row *row, const char *indent) {
  printf("%s--%s", indent, row->name);
  if (row->letter != 0)
    printf(" | -%c", row->letter);
  printf(") ");
  switch (row->kind) {
  case OPTION_CHOICE:
    fputs("choices=\"", stdout);
    for (const char *const *choice = row->choices; *choice != NULL; choice++)
      printf("%s%s", choice == row->choices ? "" : " ", *choice);
    puts("\" ;;");
    break;
  case OPTION_QUEUE:
    puts("choices=\"$(_ringback_queues)\" ;;");
    break;
  case OPTION_FILE:
    puts("compopt -o default; return ;;");
    break;
  default:
    puts("return ;;");
    break;
  }
}

static void print_values(const struct option_row *rows) {
  for (; rows != NULL && rows->name != NULL; rows++)
    if (rows->kind != OPTION_FLAG)
      print_option_values(rows, "      ");
}

static void print_names(const struct option_row *rows) {
  for (; rows != NULL && rows->name != NULL; rows++)
    printf(" --%s", rows->name);
}

static void print_operands(const struct command_row *row) {
  if (strncmp(row->operands, "QUEUE", 5) == 0 || strncmp(row->operands, "[QUEUE]", 7) == 0) {
    if (strcmp(row->name, "queue create") != 0)
      puts("    [[ $current == -* ]] || choices=\"$(_ringback_queues)\"");
  } else if (strncmp(row->operands, "[FEATURE", 8) == 0) {
    puts("    choices=\"media speech document\"");
  } else if (strcmp(row->operands, "bash") == 0) {
    puts("    choices=bash");
  }
}

static void print_command(const struct command_row *row) {
  printf("  \"%s\")\n    options=\"", row->name);
  print_names(row->options);
  puts("\"");
  print_operands(row);
  if (row->options != NULL && row->options[0].name != NULL) {
    puts("    case \"$previous\" in");
    print_values(row->options);
    puts("    esac");
  }
  puts("    ;;");
}

/* The words that may come where no command is complete yet. */
static void print_choices_of(const char *group) {
  printf("  \"%s\") choices=\"", group);
  for (const struct command_group *row = tool_grammar.groups; group[0] == '\0' && row->name != NULL; row++)
    printf(" %s", row->name);
  for (const struct command_row *row = tool_grammar.commands; row->name != NULL; row++) {
    if (group[0] == '\0' && strchr(row->name, ' ') == NULL)
      printf(" %s", row->name);
    else if (group[0] != '\0' && command_in_group(row, group))
      printf(" %s", row->name + strlen(group) + 1);
  }
  puts("\" ;;");
}

int command_completion(struct tool *tool, int argc, char **argv) {
  (void)tool, (void)argc;
  if (strcmp(argv[0], "bash") != 0) {
    tool_error("there is completion for bash only");
    return TOOL_USAGE;
  }
  fputs(head, stdout);
  print_words();
  puts("  case \"$previous\" in");
  for (const struct option_row *row = tool_grammar.globals; row->name != NULL; row++)
    if (row->kind != OPTION_FLAG)
      print_option_values(row, "  ");
  puts("  esac\n  case \"$command\" in");
  print_choices_of("");
  for (const struct command_group *group = tool_grammar.groups; group->name != NULL; group++)
    print_choices_of(group->name);
  for (const struct command_row *row = tool_grammar.commands; row->name != NULL; row++)
    print_command(row);
  fputs("  esac\n  [[ $current == -* ]] && choices=\"$options", stdout);
  print_names(tool_grammar.globals);
  puts("\"\n  COMPREPLY=($(compgen -W \"$choices\" -- \"$current\"))\n}\ncomplete -F _ringback ringback");
  return TOOL_OK;
}
