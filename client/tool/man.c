/*
 * The tables of commands and options as the manual page ringback(1), in roff with the man macros. `ringback --man`
 * prints it when the project is built; nothing here is written by hand for a single command.
 */
#include "client/tool/options.h"
#include <string.h>

/* Text as roff reads it literally: a line that begins with a dot or a quote is no request. */
static void print_text(FILE *out, const char *text) {
  bool line_begins = true;
  for (; *text != '\0'; text++) {
    if (line_begins && (*text == '.' || *text == '\''))
      fputs("\\&", out);
    line_begins = *text == '\n';
    if (*text == '\\')
      fputs("\\e", out);
    else if (*text == '-')
      fputs("\\-", out);
    else
      fputc(*text, out);
  }
}

static void print_styled(FILE *out, char font, const char *text) {
  fprintf(out, "\\f%c", font);
  print_text(out, text);
  fputs("\\fR", out);
}

static void print_option(FILE *out, const struct option_row *row) {
  fputs(".TP\n", out);
  if (row->letter != 0)
    fprintf(out, "\\fB\\-%c\\fR, ", row->letter);
  fputs("\\fB\\-\\-", out);
  print_text(out, row->name);
  fputs("\\fR", out);
  if (row->value != NULL) {
    fputc(' ', out);
    print_styled(out, 'I', row->value);
  }
  if (row->repeatable)
    fputs(" ...", out);
  fputc('\n', out);
  print_text(out, row->help);
  if (row->kind == OPTION_CHOICE) {
    fputs(":\n", out);
    for (const char *const *choice = row->choices; *choice != NULL; choice++) {
      fputs(choice == row->choices ? "" : ", ", out);
      print_styled(out, 'B', *choice);
    }
  }
  fputc('\n', out);
}

static void print_options(FILE *out, const struct option_row *row) {
  for (; row != NULL && row->name != NULL; row++)
    print_option(out, row);
}

static void print_command(FILE *out, const struct command_row *row) {
  fputs(".SS \"ringback ", out);
  print_text(out, row->name);
  if (row->operands[0] != '\0') {
    fputc(' ', out);
    print_text(out, row->operands);
  }
  fputs("\"\n", out);
  print_text(out, row->summary);
  fputs(".\n", out);
  if (row->description != NULL) {
    /* Its lines are laid out for a terminal. */
    fputs(".PP\n.nf\n", out);
    print_text(out, row->description);
    fputs("\n.fi\n", out);
  }
  print_options(out, row->options);
}

void man_print(FILE *out, const struct grammar *grammar) {
  fputs(
      ".TH RINGBACK 1 \"\" \"ringback " RINGBACK_VERSION "\" \"User Commands\"\n"
      ".nh\n.ad l\n"
      ".SH NAME\nringback \\- works with the job queues of a Ringback server\n"
      ".SH SYNOPSIS\n\\fBringback\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]...\n"
      ".SH DESCRIPTION\n"
      "Submits jobs to priority queues, runs workers for them, watches and manages both, and receives callbacks.\n"
      ".PP\n"
      "A queue is named \\fBbuckets/\\fIBUCKET\\fB/queues/\\fIQUEUE\\fR, or just \\fIQUEUE\\fR with "
      "\\fB\\-\\-bucket\\fR.\n"
      "Durations are written as 500ms, 5s, 2m, 1h or 3d; times as 2026\\-11\\-22T23:15:54Z or as seconds since 1970.\n"
      ".SH OPTIONS\nThese every command takes.\n",
      out);
  print_options(out, grammar->globals);
  fputs(".SH COMMANDS\n", out);
  for (const struct command_row *row = grammar->commands; row->name != NULL; row++)
    print_command(out, row);
  fputs(".SH EXIT STATUS\n.nf\n", out);
  print_text(out, help_exit_statuses);
  fputs(".fi\n.SH ENVIRONMENT\n"
        ".TP\n\\fBRINGBACK_SERVER\\fR\nthe server, where \\fB\\-\\-server\\fR is not given\n"
        ".TP\n\\fBRINGBACK_BUCKET\\fR\nthe bucket, where \\fB\\-\\-bucket\\fR is not given\n"
        ".TP\n\\fBNO_COLOR\\fR\nno colours, when set\n"
        ".SH SEE ALSO\n\\fBringbackd\\fR(8)\n",
        out);
}
