/* Files that the command line names. */
#ifndef RINGBACK_CLIENT_TOOL_FILES_H
#define RINGBACK_CLIENT_TOOL_FILES_H

#include <stddef.h>

/* A whole file, or standard input for "-", NUL-terminated, for the caller to free. NULL after printing why, also when
 * it is longer than 1 MiB. */
char *file_read(const char *path, size_t *byte_count);

#endif
