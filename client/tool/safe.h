/* Texts of others made fit for a terminal: what a job, a worker or a server says must not steer it. */
#ifndef RINGBACK_CLIENT_TOOL_SAFE_H
#define RINGBACK_CLIENT_TOOL_SAFE_H

#include <stdbool.h>
#include <stddef.h>

/* Replaces, in place, control characters (C0, DEL and C1) and what is no UTF-8 by '?'. Line feeds and tabs stay where
 * `lines` are meant and become spaces otherwise. Returns the new length, which is never larger; the text ends with a
 * NUL there when there was one at `length`. */
size_t safe_clean(char *text, size_t length, bool lines);

/* The same of a text that is one line: the text itself where nothing is wrong with it, else a copy that is valid for
 * the next seven calls. Not for several threads at once. */
const char *safe_text(const char *text);

#endif
