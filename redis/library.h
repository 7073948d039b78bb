/* The function library as it is loaded into Redis: its source and the names that carry the source's hash. */
#ifndef RINGBACK_REDIS_LIBRARY_H
#define RINGBACK_REDIS_LIBRARY_H

#include <stddef.h>

enum { REDIS_LIBRARY_NAME_MAX = 64 };

extern const char redis_library_hash[];        /* 12 hex digits */
extern const char redis_library_source[];      /* NUL-terminated */
extern const size_t redis_library_source_size; /* without the NUL */

/* "ringback_<hash>" */
const char *redis_library_name(void);
/* "<base>_<hash>": what FCALL takes. It has to fit. Returns out. */
char *redis_library_function(const char *base, char *out, size_t size);

#endif
