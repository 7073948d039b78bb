/* Runs receiver.py beside a test program: group set-up and tear-down for cmocka. */
#ifndef RINGBACK_TESTS_RECEIVER_H
#define RINGBACK_TESTS_RECEIVER_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
  pid_t pid;
  int in;
  FILE *out;                    /* open as long as it runs: it may still be writing */
  int http, https, mutual, dns; /* ports; `mutual` asks for the certificate client.pem, beside ca */
  char ca[256];
} receiver;

static inline void receiver_run(int in, int out) {
  dup2(in, 0);
  dup2(out, 1);
  for (int fd = 3; fd < 64; fd++)
    close(fd);
  const char *root = getenv("PROJECT_ROOT");
  char path[512];
  snprintf(path, sizeof(path), "%s/tests/unit/receiver.py", root ? root : ".");
  execl("/usr/bin/python3", "python3", path, (char *)0);
  _exit(127);
}

static inline int start_receiver(void **state) {
  (void)state;
  int in[2], out[2];
  if (pipe(in) || pipe(out))
    return -1;
  receiver.pid = fork();
  if (receiver.pid == 0)
    receiver_run(in[0], out[1]);
  close(in[0]);
  close(out[1]);
  receiver.in = in[1];
  receiver.out = fdopen(out[0], "r");
  int read = fscanf(receiver.out, "http=%d https=%d mutual=%d dns=%d ca=%255s", &receiver.http, &receiver.https,
                    &receiver.mutual, &receiver.dns, receiver.ca);
  return read == 5 ? 0 : -1;
}

static inline int stop_receiver(void **state) {
  (void)state;
  close(receiver.in);
  waitpid(receiver.pid, 0, 0);
  fclose(receiver.out);
  return 0;
}

#endif
