/* Files in the data directory: lock (flock, holds the owner's pid), redis.conf (written at every start), redis.sock,
 * redis.pid, redis.log, appendonlydir/. The child gets a process group of its own, so that Ctrl-C on a terminal reaches
 * only its owner, which ends it in order.
 */
#include "redis/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "redis/ask.h"
#include "server/base/clock.h"
#include "server/base/log.h"

enum {
  ANSWER_TIMEOUT_MS = 20000,
  ADOPT_TIMEOUT_MS = 10000,
  STOP_TIMEOUT_MS = 10000,
  BACKOFF_MIN_MS = 1000,
  BACKOFF_MAX_MS = 30000,
  STEADY_MS = 60000, /* after so long a life a death is the first again */
  TURN_MS = 20,
  LOG_BYTES_MAX = 16 << 20,
  PATH_BYTES = 4096,
  TAIL_BYTES = 4096,
};

extern char **environ;

struct embedded {
  char *dir; /* absolute */
  int dir_fd;
  int lock_fd;
  char *program;
  char *appendfsync;
  struct redis_target target;
  pid_t pid;        /* 0: not running */
  bool adopted;     /* not our child: no waitpid */
  bool ours_before; /* adopted by embedded_start */
  bool repair;      /* it ended, and had found its file cut off */
  off_t log_start;  /* where the log of this process begins */
  int64_t started_ms, restart_ms, backoff_ms;
  uint64_t restarts;
};

static int64_t now_ms(void) {
  return clock_monotonic_us() / 1000;
}

static void sleep_ms(int ms) {
  struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
  nanosleep(&time, NULL);
}

static char *must_copy(const char *text) {
  char *copy = strdup(text);
  if (!copy)
    abort();
  return copy;
}

/* The first line of a small file of the directory; "" where there is none. */
static void read_line(int dir_fd, const char *name, char *line, size_t size) {
  line[0] = 0;
  int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return;
  ssize_t length = read(fd, line, size - 1);
  close(fd);
  line[length > 0 ? length : 0] = 0;
  line[strcspn(line, "\n")] = 0;
}

/* --- the directory and its lock --- */

static bool open_directory(struct embedded *embedded, const char *path, char *error, size_t error_size) {
  if (mkdir(path, 0700) && errno != EEXIST) {
    snprintf(error, error_size, "cannot create the data directory %s: %s", path, strerror(errno));
    return false;
  }
  embedded->dir = realpath(path, NULL);
  embedded->dir_fd = embedded->dir ? open(embedded->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (embedded->dir_fd < 0)
    snprintf(error, error_size, "cannot open the data directory %s: %s", path, strerror(errno));
  return embedded->dir_fd >= 0;
}

static bool take_lock(struct embedded *embedded, char *error, size_t error_size) {
  embedded->lock_fd = openat(embedded->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (embedded->lock_fd < 0) {
    snprintf(error, error_size, "cannot write to the data directory %s: %s", embedded->dir, strerror(errno));
    return false;
  }
  if (flock(embedded->lock_fd, LOCK_EX | LOCK_NB)) {
    char owner[32];
    read_line(embedded->dir_fd, "lock", owner, sizeof owner);
    snprintf(error, error_size, "the data directory %s is in use by another server (process %s)", embedded->dir,
             *owner ? owner : "unknown");
    return false;
  }
  char pid[32];
  int length = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
  if (ftruncate(embedded->lock_fd, 0) || pwrite(embedded->lock_fd, pid, (size_t)length, 0) != length) {
    snprintf(error, error_size, "cannot write to the data directory %s: %s", embedded->dir, strerror(errno));
    return false;
  }
  return true;
}

/* A path that fits into sockaddr_un; a long one goes through the open directory instead. */
static void set_target(struct embedded *embedded) {
  char path[PATH_BYTES + 16];
  struct sockaddr_un address;
  int length = snprintf(path, sizeof path, "%s/redis.sock", embedded->dir);
  if ((size_t)length >= sizeof address.sun_path)
    snprintf(path, sizeof path, "/proc/%d/fd/%d/redis.sock", (int)getpid(), embedded->dir_fd);
  embedded->target.unix_path = must_copy(path);
}

static bool write_config(const struct embedded *embedded) {
  int fd = openat(embedded->dir_fd, "redis.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0)
    return false;
  /* Paths are relative to the directory, in which the server is started. */
  int written = dprintf(
      fd,
      "# Written by ringbackd at every start.\n"
      "port 0\nunixsocket redis.sock\nunixsocketperm 700\ndir ./\npidfile redis.pid\nlogfile redis.log\n"
      "daemonize no\nappendonly yes\naof-load-truncated no\nappendfsync %s\nsave \"\"\nmaxmemory-policy noeviction\n",
      embedded->appendfsync);
  return close(fd) == 0 && written > 0;
}

/* The log starts anew when it has grown large; the one before is kept. */
static void rotate_log(const struct embedded *embedded) {
  struct stat status;
  if (fstatat(embedded->dir_fd, "redis.log", &status, 0) == 0 && status.st_size > LOG_BYTES_MAX)
    renameat(embedded->dir_fd, "redis.log", embedded->dir_fd, "redis.log.1");
}

/* --- the process --- */

/* A program from PATH, absolute since the child changes its directory before it is run; NULL: not there. */
static char *find_program(const char *name) {
  char path[PATH_BYTES];
  if (strchr(name, '/'))
    return realpath(name, NULL);
  const char *at = getenv("PATH");
  for (at = at ? at : "/usr/local/bin:/usr/bin:/bin"; *at; at += *at == ':') {
    size_t length = strcspn(at, ":");
    snprintf(path, sizeof path, "%.*s/%s", (int)length, at, name);
    /* Links stay: Debian's redis-server is one to another program, which goes by its name. */
    if (*path == '/' && access(path, X_OK) == 0)
      return must_copy(path);
    at += length;
  }
  return NULL;
}

static bool choose_program(struct embedded *embedded, const char *program, char *error, size_t error_size) {
  embedded->program = find_program(program ? program : "redis-server");
  if (!embedded->program && !program)
    embedded->program = find_program("valkey-server");
  if (!embedded->program)
    snprintf(error, error_size, "%s is not installed (in PATH); install it, or name a Redis with --redis",
             program ? program : "redis-server");
  return embedded->program;
}

static int spawn(struct embedded *embedded) {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, embedded->dir);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "redis.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  /* Whatever else is open here, above all listening sockets and the lock, must not outlive its owner in the child. */
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);

  char name[] = "redis-server", config[] = "redis.conf";
  char *const arguments[] = {name, config, NULL};
  struct stat status;
  rotate_log(embedded);
  embedded->log_start = fstatat(embedded->dir_fd, "redis.log", &status, 0) ? 0 : status.st_size;
  int error = write_config(embedded) ? 0 : errno;
  pid_t pid = 0;
  if (!error)
    error = posix_spawn(&pid, embedded->program, &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error)
    return error;
  embedded->pid = pid;
  embedded->adopted = false;
  embedded->started_ms = now_ms();
  return 0;
}

/* Whether the process that has ended refused its append-only file because that ends too early. Of a file that is
 * damaged in its midst it says something else, and cutting there would throw away all that was acknowledged since. */
static bool found_cut_off(const struct embedded *embedded) {
  char text[TAIL_BYTES + 1];
  struct stat status;
  int fd = openat(embedded->dir_fd, "redis.log", O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return false;
  off_t start = embedded->log_start;
  if (!fstat(fd, &status) && status.st_size - start > TAIL_BYTES)
    start = status.st_size - TAIL_BYTES;
  ssize_t length = pread(fd, text, TAIL_BYTES, start);
  close(fd);
  text[length > 0 ? length : 0] = 0;
  return strstr(text, "Unexpected end of file reading the append only file");
}

/* Cuts off a transaction that a kill left half written at the end of the append-only file. Redis would do so itself
 * (aof-load-truncated), but at the last whole command: the file then goes on within the open transaction, whose
 * beginning runs at the next start together with what comes after it (7.0.15). The check tool of the same program,
 * which goes by its name, cuts before the transaction; where the file is whole it changes nothing. */
static void repair(const struct embedded *embedded) {
  char name[] = "redis-check-aof", fix[] = "--fix", manifest[] = "appendonlydir/appendonly.aof.manifest";
  char *const arguments[] = {name, fix, manifest, NULL};
  struct stat status;
  int answer[2];
  if (fstatat(embedded->dir_fd, manifest, &status, 0) || pipe2(answer, O_CLOEXEC))
    return;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, embedded->dir);
  posix_spawn_file_actions_adddup2(&actions, answer[0], 0);
  posix_spawn_file_actions_addopen(&actions, 1, "redis.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  pid_t pid = 0;
  int ended = -1;
  bool asked = write(answer[1], "y\n", 2) == 2; /* it asks before it cuts */
  if (asked && posix_spawn(&pid, embedded->program, &actions, NULL, arguments, environ) == 0)
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR)
      ;
  posix_spawn_file_actions_destroy(&actions);
  close(answer[0]);
  close(answer[1]);
  log_event(LOG_WARN, "the append-only file was checked", log_text("dir", embedded->dir),
            log_number("exit_status", WIFEXITED(ended) ? WEXITSTATUS(ended) : -1));
}

/* False once a process that is not our child is gone, or only waits to be reaped by its parent. */
static bool process_exists(pid_t pid) {
  char path[64], stat[512];
  if (kill(pid, 0) && errno == ESRCH)
    return false;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  read_line(AT_FDCWD, path, stat, sizeof stat);
  const char *after_name = strrchr(stat, ')');
  return after_name && strncmp(after_name, ") Z", 3) && strncmp(after_name, ") X", 3);
}

/* True when it has ended; *status is 0 for an adopted one. */
static bool has_ended(struct embedded *embedded, int *status) {
  *status = 0;
  if (embedded->adopted)
    return !process_exists(embedded->pid);
  pid_t pid;
  do
    pid = waitpid(embedded->pid, status, WNOHANG);
  while (pid < 0 && errno == EINTR);
  return pid < 0 ? !process_exists(embedded->pid) : pid > 0;
}

static bool wait_for_end(struct embedded *embedded, int timeout_ms) {
  int status;
  for (int64_t end_ms = now_ms() + timeout_ms; !has_ended(embedded, &status); sleep_ms(TURN_MS))
    if (now_ms() >= end_ms)
      return false;
  embedded->pid = 0;
  return true;
}

static void end_process(struct embedded *embedded) {
  if (!embedded->pid)
    return;
  kill(embedded->pid, SIGTERM);
  if (wait_for_end(embedded, STOP_TIMEOUT_MS))
    return;
  log_event(LOG_WARN, "the embedded redis did not end in time and is killed", log_number("pid", embedded->pid));
  kill(embedded->pid, SIGKILL);
  wait_for_end(embedded, STOP_TIMEOUT_MS);
}

/* --- adopting --- */

/* The server that an earlier owner left behind, by its pid file: a redis or valkey that runs in this directory. 0:
 * none. */
static pid_t find_survivor(const struct embedded *embedded) {
  char line[32], path[64], name[32], dir[PATH_BYTES];
  read_line(embedded->dir_fd, "redis.pid", line, sizeof line);
  pid_t pid = (pid_t)strtol(line, NULL, 10);
  if (pid <= 1 || !process_exists(pid))
    return 0;
  snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
  read_line(AT_FDCWD, path, name, sizeof name);
  snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
  ssize_t length = readlink(path, dir, sizeof dir - 1);
  dir[length > 0 ? length : 0] = 0;
  bool is_redis = !strncmp(name, "redis", 5) || !strncmp(name, "valkey", 6);
  return is_redis && !strcmp(dir, embedded->dir) ? pid : 0;
}

static void take_pong(void *context, const struct redis_value *reply) {
  /* LOADING is a sign of life too. */
  *(bool *)context = redis_kind(reply) == REDIS_TEXT || !strncmp(redis_text(reply, NULL), "LOADING", 7);
}

static void ignore_reply(void *context, const struct redis_value *reply) {
  (void)context;
  (void)reply;
}

/* Waits until it answers, unless it ends first. */
static bool wait_for_answer(struct embedded *embedded, int timeout_ms) {
  static const char *const ping[] = {"PING"};
  const char *const fsync_policy[] = {"CONFIG", "SET", "appendfsync", embedded->appendfsync};
  const char *reason;
  bool alive = false;
  int status;
  struct redis_connection *connection = redis_connection_create_plain(&embedded->target);
  for (int64_t end_ms = now_ms() + timeout_ms; !alive && now_ms() < end_ms;) {
    redis_ask(connection, 200, ping, 1, take_pong, &alive, &reason);
    if (!alive && has_ended(embedded, &status)) {
      embedded->pid = 0;
      break;
    }
  }
  if (alive && embedded->adopted)
    redis_ask(connection, 1000, fsync_policy, 4, ignore_reply, NULL, &reason);
  redis_connection_destroy(connection);
  return alive;
}

/* A survivor that does not answer is ended, since two servers must never write to one file. */
static void adopt_survivor(struct embedded *embedded) {
  embedded->pid = find_survivor(embedded);
  if (!embedded->pid)
    return;
  embedded->adopted = true;
  embedded->started_ms = now_ms();
  if (wait_for_answer(embedded, ADOPT_TIMEOUT_MS)) {
    embedded->ours_before = true;
    log_event(LOG_INFO, "embedded redis adopted", log_text("dir", embedded->dir), log_number("pid", embedded->pid));
    return;
  }
  if (embedded->pid) {
    log_event(LOG_WARN, "the redis left in the data directory does not answer and is killed",
              log_number("pid", embedded->pid));
    kill(embedded->pid, SIGKILL);
    wait_for_end(embedded, STOP_TIMEOUT_MS);
  }
}

/* --- the life of it --- */

static bool start_process(struct embedded *embedded, char *error, size_t error_size) {
  bool answers = false, repaired = false;
  do {
    int failed = spawn(embedded);
    if (failed) {
      snprintf(error, error_size, "cannot start %s: %s", embedded->program, strerror(failed));
      return false;
    }
    answers = wait_for_answer(embedded, ANSWER_TIMEOUT_MS);
    if (answers || embedded->pid || repaired || !found_cut_off(embedded))
      break;
    repair(embedded);
    repaired = true;
  } while (true);
  if (!answers) {
    snprintf(error, error_size, "the embedded redis %s; see %s/redis.log",
             embedded->pid ? "does not answer" : "ended right after its start", embedded->dir);
    return false;
  }
  log_event(LOG_INFO, "embedded redis started", log_text("program", embedded->program), log_text("dir", embedded->dir),
            log_text("appendfsync", embedded->appendfsync), log_number("pid", embedded->pid));
  return true;
}

static void release(struct embedded *embedded) {
  if (embedded->lock_fd >= 0)
    close(embedded->lock_fd);
  if (embedded->dir_fd >= 0)
    close(embedded->dir_fd);
  redis_target_clear(&embedded->target);
  free(embedded->dir);
  free(embedded->program);
  free(embedded->appendfsync);
  free(embedded);
}

struct embedded *embedded_start(const struct embedded_options *options, char *error, size_t error_size) {
  struct embedded *embedded = calloc(1, sizeof *embedded);
  if (!embedded)
    abort();
  embedded->dir_fd = embedded->lock_fd = -1;
  embedded->appendfsync = must_copy(options->appendfsync ? options->appendfsync : "always");
  if (!choose_program(embedded, options->program, error, error_size) ||
      !open_directory(embedded, options->data_dir, error, error_size) || !take_lock(embedded, error, error_size))
    goto failed;
  set_target(embedded);
  adopt_survivor(embedded);
  if (embedded->pid || start_process(embedded, error, error_size))
    return embedded;
  end_process(embedded);
failed:
  release(embedded);
  return NULL;
}

const struct redis_target *embedded_target(const struct embedded *embedded) {
  return &embedded->target;
}

pid_t embedded_pid(const struct embedded *embedded) {
  return embedded->pid;
}

bool embedded_was_adopted(const struct embedded *embedded) {
  return embedded->ours_before;
}

uint64_t embedded_restarts(const struct embedded *embedded) {
  return embedded->restarts;
}

static void plan_restart(struct embedded *embedded, int status) {
  int64_t now = now_ms();
  bool first = !embedded->backoff_ms || now - embedded->started_ms >= STEADY_MS;
  int64_t delay_ms = first ? 0 : embedded->backoff_ms;
  embedded->backoff_ms = first ? BACKOFF_MIN_MS : 2 * embedded->backoff_ms;
  if (embedded->backoff_ms > BACKOFF_MAX_MS)
    embedded->backoff_ms = BACKOFF_MAX_MS;
  embedded->restart_ms = now + delay_ms;
  embedded->repair = found_cut_off(embedded);
  log_event(LOG_ERROR, "the embedded redis died", log_number("pid", embedded->pid),
            log_number("exit_status", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
            log_number("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0), log_number("restart_in_ms", delay_ms));
  embedded->pid = 0;
}

void embedded_check(struct embedded *embedded) {
  int status;
  if (embedded->pid && has_ended(embedded, &status))
    plan_restart(embedded, status);
  if (embedded->pid || now_ms() < embedded->restart_ms)
    return;
  if (embedded->repair)
    repair(embedded);
  embedded->repair = false;
  int error = spawn(embedded);
  embedded->started_ms = now_ms();
  embedded->restarts++;
  if (error) {
    log_event(LOG_ERROR, "the embedded redis cannot be started", log_text("error", strerror(error)));
    embedded->restart_ms = now_ms() + embedded->backoff_ms;
  } else {
    log_event(LOG_INFO, "embedded redis started again", log_number("pid", embedded->pid));
  }
}

void embedded_stop(struct embedded *embedded) {
  if (!embedded)
    return;
  end_process(embedded);
  if (!embedded->pid) {
    unlinkat(embedded->dir_fd, "redis.sock", 0);
    unlinkat(embedded->dir_fd, "redis.pid", 0);
  }
  release(embedded);
}
