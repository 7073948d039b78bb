/* What people see: tables, colours, progress bars. */
#ifndef RINGBACK_CLIENT_TOOL_OUTPUT_H
#define RINGBACK_CLIENT_TOOL_OUTPUT_H

#include "client/tool/tool.h"
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

/* Rows are kept until table_print, so that columns are as wide as their widest text. */
struct table;

/* headings: `columns` texts; one that begins with '>' is of a column set to the right. */
struct table *table_create(int columns, const char *const *headings);
/* Appends a row of `columns` texts (char pointers; NULL shows as nothing). They are copied. */
void table_add(struct table *table, ...);
/* Prints on standard output and frees; without rows the headings are printed only where `complete` says that there are
 * none indeed. */
void table_print(struct tool *tool, struct table *table, bool complete);

/* "name: value" lines of one thing's details, set in two columns; NULL and empty values are left out. */
void output_field(struct tool *tool, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* How a state is coloured: by its name in the domain's spelling, such as "Success". Returns text in a ring of
 * buffers, valid for the next seven calls. */
const char *output_state(const struct tool *tool, const char *state);
/* An enum's value without its prefix, such as "RUNNING" of JOB_STATE_RUNNING; "?" when unknown. */
const char *output_enum(const ProtobufCEnumDescriptor *descriptor, int value);
/* The same in the domain's spelling, such as "Running". In the ring too. */
const char *output_word(const ProtobufCEnumDescriptor *descriptor, int value);
/* A number in the ring. */
const char *output_number(int64_t number);

/* A bar such as "[######----]  60%" of `width` cells into text. */
void output_bar(int percent, int width, char *text, size_t text_bytes);

/* A line of progress on standard error that overwrites itself; only when the tool is live. */
void output_progress(const struct tool *tool, const char *format, ...) __attribute__((format(printf, 2, 3)));
void output_progress_clear(const struct tool *tool);

#endif
