/* A redis-server of the test's own, on a Unix socket in a temporary directory. Skips the program (exit 77) where there
 * is none. */
#ifndef RINGBACK_TESTS_REDIS_SERVER_H
#define RINGBACK_TESTS_REDIS_SERVER_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct redis_server {
  char dir[64];
  char socket[96];
  pid_t pid;
};

static inline void pause_ms(int ms) {
  struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
  nanosleep(&time, NULL);
}

/* extra: further arguments, NULL-terminated, or NULL. */
static inline void redis_server_run(struct redis_server *server, const char *const *extra) {
  const char *arguments[32] = {"redis-server", "--port",     "0",      "--unixsocket", server->socket, "--dir",
                               server->dir,    "--save",     "",       "--appendonly", "yes",          "--appendfsync",
                               "always",       "--loglevel", "warning"};
  size_t count = 15;
  while (extra && *extra && count < 31)
    arguments[count++] = *extra++;
  unlink(server->socket);
  server->pid = fork();
  if (server->pid == 0) {
    if (!freopen("/dev/null", "w", stdout))
      _exit(1);
    execvp("redis-server", (char **)(size_t)arguments);
    _exit(127);
  }
  struct stat status;
  for (int turn = 0; turn < 3000 && stat(server->socket, &status); turn++)
    pause_ms(10);
}

static inline void redis_server_start(struct redis_server *server, const char *const *extra) {
  snprintf(server->dir, sizeof server->dir, "/tmp/ringback-test-XXXXXX");
  if (!mkdtemp(server->dir))
    abort();
  snprintf(server->socket, sizeof server->socket, "%s/redis.sock", server->dir);
  redis_server_run(server, extra);
}

static inline void redis_server_kill(struct redis_server *server) {
  if (server->pid <= 0)
    return;
  kill(server->pid, SIGKILL);
  waitpid(server->pid, NULL, 0);
  server->pid = 0;
}

static inline void remove_tree(const char *dir) {
  pid_t pid = fork();
  if (pid == 0) {
    execlp("rm", "rm", "-rf", dir, (char *)NULL);
    _exit(127);
  }
  waitpid(pid, NULL, 0);
}

static inline void redis_server_remove(struct redis_server *server) {
  redis_server_kill(server);
  remove_tree(server->dir);
}

#endif
