/*
 * See files.h. Nothing is read that the server would not take.
 */
#include "client/tool/files.h"
#include "client/tool/tool.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The server takes 1 MiB at most; more is not worth reading. */
#define CONTENT_BYTES_MAX (1 << 20)

char *file_read(const char *path, size_t *byte_count) {
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
  char *content = file == NULL ? NULL : malloc(CONTENT_BYTES_MAX + 2);
  if (content == NULL) {
    tool_error("%s: %s", path, strerror(errno));
    if (file != NULL && file != stdin)
      fclose(file);
    return NULL;
  }
  *byte_count = fread(content, 1, CONTENT_BYTES_MAX + 1, file);
  content[*byte_count] = '\0';
  bool failed = ferror(file) != 0;
  if (failed)
    tool_error("%s: %s", path, strerror(errno));
  else if (*byte_count > CONTENT_BYTES_MAX)
    tool_error("%s: longer than 1 MiB", path);
  if (file != stdin)
    fclose(file);
  if (!failed && *byte_count <= CONTENT_BYTES_MAX)
    return content;
  free(content);
  return NULL;
}
