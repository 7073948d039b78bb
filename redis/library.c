/* Names of the function library. The source itself is made by library.cmake at build time. */
#include "redis/library.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static char name[REDIS_LIBRARY_NAME_MAX];
static pthread_once_t named = PTHREAD_ONCE_INIT;

static void make_name(void) {
  redis_library_function("ringback", name, sizeof name);
}

const char *redis_library_name(void) {
  pthread_once(&named, make_name);
  return name;
}

char *redis_library_function(const char *base, char *out, size_t size) {
  int length = snprintf(out, size, "%s_%s", base, redis_library_hash);
  if (length < 0 || (size_t)length >= size)
    abort();
  return out;
}
