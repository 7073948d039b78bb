/*
 * What people see: tables, details, states in colour, progress bars. Colours and overwriting appear on terminals only,
 * so that what goes into a file or a pipe is plain.
 */
#include "client/tool/output.h"
#include "client/tool/safe.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define RING_COUNT 8
#define RING_BYTES 64

struct table {
  int columns;
  size_t row_count, row_capacity;
  char **cells; /* row after row; row 0 has the headings */
  bool right[TABLE_COLUMNS_MAX];
};

static char ring[RING_COUNT][RING_BYTES];

static char *ring_next(void) {
  static int next;
  next = (next + 1) % RING_COUNT;
  return ring[next];
}

/* Whether this file made the text: then it may have escape sequences, for the colour of a state. All other text comes
 * from jobs, workers and servers. */
static bool in_ring(const char *text) {
  return (uintptr_t)text >= (uintptr_t)ring && (uintptr_t)text < (uintptr_t)ring + sizeof ring;
}

static void *must(void *memory) {
  if (memory == NULL) {
    fputs("ringback: out of memory\n", stderr);
    exit(TOOL_FAILED);
  }
  return memory;
}

static char **table_row(struct table *table) {
  if (table->row_count == table->row_capacity) {
    table->row_capacity = table->row_capacity == 0 ? 32 : table->row_capacity * 2;
    table->cells = must(realloc(table->cells, table->row_capacity * (size_t)table->columns * sizeof *table->cells));
  }
  return table->cells + table->row_count++ * (size_t)table->columns;
}

struct table *table_create(int columns, const char *const *headings) {
  struct table *table = must(calloc(1, sizeof *table));
  table->columns = columns;
  char **row = table_row(table);
  for (int i = 0; i < columns; i++) {
    table->right[i] = headings[i][0] == '>';
    row[i] = must(strdup(headings[i] + table->right[i]));
  }
  return table;
}

void table_add(struct table *table, ...) {
  char **row = table_row(table);
  va_list arguments;
  va_start(arguments, table);
  for (int i = 0; i < table->columns; i++) {
    const char *text = va_arg(arguments, const char *);
    row[i] = must(strdup(text == NULL ? "" : text));
    if (text != NULL && !in_ring(text))
      safe_clean(row[i], strlen(row[i]), false);
  }
  va_end(arguments);
}

/* How many cells of the terminal a text takes: code points, without escape sequences. */
static int shown_width(const char *text) {
  int width = 0;
  for (; *text != '\0'; text++) {
    if (*text == '\033') {
      while (*text != '\0' && *text != 'm')
        text++;
      if (*text == '\0')
        break;
    } else if (((unsigned char)*text & 0xc0) != 0x80) {
      width++;
    }
  }
  return width;
}

static void print_row(const struct table *table, char *const *row, const int *widths) {
  for (int i = 0; i < table->columns; i++) {
    int padding = widths[i] - shown_width(row[i]);
    bool last = i == table->columns - 1;
    if (table->right[i])
      printf("%*s", padding, "");
    fputs(row[i], stdout);
    if (!last)
      printf("%*s", (table->right[i] ? 0 : padding) + 2, "");
  }
}

void table_print(struct tool *tool, struct table *table, bool complete) {
  int widths[TABLE_COLUMNS_MAX] = {0};
  size_t cell_count = table->row_count * (size_t)table->columns;
  for (size_t i = 0; i < cell_count; i++) {
    int width = shown_width(table->cells[i]), *widest = &widths[i % (size_t)table->columns];
    if (width > *widest)
      *widest = width;
  }
  for (size_t i = 0; i < table->row_count && (complete || table->row_count > 1); i++) {
    bool heading = tool->color && i == 0;
    fputs(heading ? "\033[1m" : "", stdout);
    print_row(table, table->cells + i * (size_t)table->columns, widths);
    fputs(heading ? "\033[0m\n" : "\n", stdout);
  }
  for (size_t i = 0; i < cell_count; i++)
    free(table->cells[i]);
  free(table->cells);
  free(table);
}

void output_field(struct tool *tool, const char *name, const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  bool ours = strcmp(format, "%s") == 0 && in_ring(va_arg(arguments, const char *));
  va_end(arguments);
  va_start(arguments, format);
  int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length > 0) {
    if (!ours)
      safe_clean(text, (size_t)length, false);
    printf("%s%-18s%s", tool->color ? "\033[1m" : "", name, tool->color ? "\033[0m" : "");
    puts(text);
  }
  if (length >= 0)
    free(text);
}

const char *output_state(const struct tool *tool, const char *state) {
  static const struct {
    const char *state, *color;
  } colors[] = {
      {"Success", "32"}, {"Delivered", "32"}, {"Active", "32"}, {"On", "32"},     {"Running", "36"}, {"Sending", "36"},
      {"Failed", "31"},  {"Dead", "31"},      {"Pause", "33"},  {"Paused", "33"}, {"Off", "33"},     {"Cancel", "35"},
  };
  for (size_t i = 0; tool->color && i < sizeof colors / sizeof *colors; i++)
    if (strcmp(colors[i].state, state) == 0) {
      char *text = ring_next();
      snprintf(text, RING_BYTES, "\033[%sm%s\033[0m", colors[i].color, state);
      return text;
    }
  return state;
}

/* JOB_STATE_ of JobState: what the names of an enum's values have in front. */
static size_t enum_prefix_length(const ProtobufCEnumDescriptor *descriptor) {
  size_t length = 0;
  for (const char *c = descriptor->short_name; *c != '\0'; c++)
    length += c != descriptor->short_name && isupper((unsigned char)*c) ? 2 : 1;
  return length + 1;
}

const char *output_enum(const ProtobufCEnumDescriptor *descriptor, int value) {
  const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(descriptor, value);
  size_t prefix = enum_prefix_length(descriptor);
  return row == NULL || strlen(row->name) <= prefix ? "?" : row->name + prefix;
}

const char *output_word(const ProtobufCEnumDescriptor *descriptor, int value) {
  const char *name = output_enum(descriptor, value);
  char *text = ring_next();
  size_t i = 0;
  for (; name[i] != '\0' && i < RING_BYTES - 1; i++)
    text[i] = name[i] == '_' ? ' ' : (char)(i == 0 ? toupper((unsigned char)name[i]) : tolower((unsigned char)name[i]));
  text[i] = '\0';
  return text;
}

const char *output_number(int64_t number) {
  char *text = ring_next();
  snprintf(text, RING_BYTES, "%lld", (long long)number);
  return text;
}

void output_bar(int percent, int width, char *text, size_t text_bytes) {
  int bounded = percent < 0 ? 0 : percent > 100 ? 100 : percent;
  int full = bounded * width / 100;
  size_t at = 0;
  if (text_bytes < (size_t)width + 8)
    return;
  text[at++] = '[';
  for (int i = 0; i < width; i++)
    text[at++] = i < full ? '#' : '-';
  snprintf(text + at, text_bytes - at, "] %3d%%", bounded);
}

void output_progress(const struct tool *tool, const char *format, ...) {
  if (!tool->live)
    return;
  va_list arguments;
  va_start(arguments, format);
  fputs("\r\033[K", stderr);
  vfprintf(stderr, format, arguments);
  fflush(stderr);
  va_end(arguments);
}

void output_progress_clear(const struct tool *tool) {
  if (tool->live)
    fputs("\r\033[K", stderr);
}
