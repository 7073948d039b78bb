/* Put before a program by LD_PRELOAD: the time of day and CLOCK_BOOTTIME are ahead by as many nanoseconds as the first
 * eight bytes of the file SHIFT_CLOCK_FILE say at that moment. CLOCK_MONOTONIC stays: so it is as if the machine had
 * slept. (libfaketime does the like for most programs, but not for a Redis with jemalloc, which asks for the time while
 * it is being set up.) Nothing here may allocate.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000

static int64_t ahead_ns(void) {
  static const _Atomic int64_t *_Atomic shared;
  if (!shared) {
    const char *path = getenv("SHIFT_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = fd >= 0 ? mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (mapped == MAP_FAILED)
      abort();
    close(fd);
    shared = mapped;
  }
  return *shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (syscall(SYS_clock_gettime, clock, now))
    return -1;
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_BOOTTIME) {
    int64_t ns = now->tv_nsec + ahead_ns();
    now->tv_sec += (time_t)(ns / SECOND_NS);
    now->tv_nsec = (long)(ns % SECOND_NS);
  }
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  if (clock_gettime(CLOCK_REALTIME, &precise))
    return -1;
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec precise;
  if (clock_gettime(CLOCK_REALTIME, &precise))
    return -1;
  if (now)
    *now = precise.tv_sec;
  return precise.tv_sec;
}
