/*
 * Running a worker's command; see worker_process.h.
 *
 * The worker has threads, so nothing may happen between fork and exec but what posix_spawn does: the process group, the
 * signal mask and the descriptors are all its attributes. The input is an unlinked memory file, so that a command that
 * does not read it cannot block anybody. The leader's exit is looked at without reaping it, so that its process group's
 * id is still ours when the rest of the group is killed.
 */
#include "client/tool/worker_process.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often the command's end is looked for while its pipes are quiet. */
#define POLL_MS 100
/* Once the command has closed its pipes its end is near. */
#define POLL_CLOSED_MS 5
/* What may still be read of a command that has ended: a pipe's content and then some. */
#define READS_AFTER_END_MAX 4096

static int memory_file(const void *input, size_t bytes) {
  int fd = memfd_create("ringback-job", MFD_CLOEXEC);
  if (fd < 0) {
    return -1;
  }
  const char *position = input;
  while (bytes > 0) {
    ssize_t written = write(fd, position, bytes);
    if (written < 0) {
      close(fd);
      return -1;
    }
    position += written;
    bytes -= (size_t)written;
  }
  if (lseek(fd, 0, SEEK_SET) < 0) {
    close(fd);
    return -1;
  }
  return fd;
}

static void close_all(int *fds, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (fds[i] >= 0) {
      close(fds[i]);
      fds[i] = -1;
    }
  }
}

static int spawn(pid_t *pid, const char *command, char *const environment[], int in, int out, int err, int notes) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, defaults;
  sigemptyset(&none);
  sigfillset(&defaults);
  sigdelset(&defaults, SIGKILL);
  sigdelset(&defaults, SIGSTOP);
  int error = posix_spawn_file_actions_init(&actions);
  if (error != 0) {
    return error;
  }
  error = posix_spawnattr_init(&attributes);
  if (error != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return error;
  }
  const char *const argv[] = {"sh", "-c", command, NULL};
  if ((error = posix_spawn_file_actions_adddup2(&actions, in, 0)) == 0 &&
      (error = posix_spawn_file_actions_adddup2(&actions, out, 1)) == 0 &&
      (error = posix_spawn_file_actions_adddup2(&actions, err, 2)) == 0 &&
      (error = posix_spawn_file_actions_adddup2(&actions, notes, 3)) == 0 &&
      (error = posix_spawn_file_actions_addclosefrom_np(&actions, 4)) == 0 &&
      (error = posix_spawnattr_setpgroup(&attributes, 0)) == 0 &&
      (error = posix_spawnattr_setsigmask(&attributes, &none)) == 0 &&
      (error = posix_spawnattr_setsigdefault(&attributes, &defaults)) == 0 &&
      (error = posix_spawnattr_setflags(&attributes,
                                        POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF)) == 0) {
    error = posix_spawn(pid, "/bin/sh", &actions, &attributes, (char *const *)argv, environment);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

int process_start(struct process *process, const char *command, char *const environment[], const void *input,
                  size_t input_bytes) {
  memset(process, 0, sizeof *process);
  /* input, then the reading and writing ends for output, errors and notes */
  int fds[7] = {-1, -1, -1, -1, -1, -1, -1};
  int error = 0;
  fds[0] = memory_file(input, input_bytes);
  if (fds[0] < 0 || pipe2(&fds[1], O_CLOEXEC) != 0 || pipe2(&fds[3], O_CLOEXEC) != 0 ||
      pipe2(&fds[5], O_CLOEXEC) != 0) {
    error = errno;
  } else {
    error = spawn(&process->pid, command, environment, fds[0], fds[2], fds[4], fds[6]);
  }
  if (error != 0) {
    close_all(fds, 7);
    return error;
  }
  process->output_fd = fds[1];
  process->errors_fd = fds[3];
  process->notes_fd = fds[5];
  fds[1] = fds[3] = fds[5] = -1;
  close_all(fds, 7);
  for (int i = 0; i < 3; i++) {
    int fd = i == 0 ? process->output_fd : i == 1 ? process->errors_fd : process->notes_fd;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  return 0;
}

static void keep_output(struct process *process, const char *bytes, size_t length) {
  size_t room = PROCESS_OUTPUT_BYTES_MAX - process->output_length;
  if (length > room) {
    process->output_cut = true;
    length = room;
  }
  if (process->output_length + length > process->output_size) {
    size_t size = process->output_size == 0 ? 4096 : process->output_size;
    while (size < process->output_length + length) {
      size *= 2;
    }
    char *larger = realloc(process->output, size);
    if (larger == NULL) {
      process->output_cut = true;
      return;
    }
    process->output = larger;
    process->output_size = size;
  }
  if (length > 0) {
    memcpy(process->output + process->output_length, bytes, length);
    process->output_length += length;
  }
}

static void keep_errors(struct process *process, const char *bytes, size_t length) {
  if (length > sizeof process->errors) {
    bytes += length - sizeof process->errors;
    length = sizeof process->errors;
  }
  size_t kept = process->errors_length;
  if (kept + length > sizeof process->errors) {
    size_t dropped = kept + length - sizeof process->errors;
    memmove(process->errors, process->errors + dropped, kept - dropped);
    kept -= dropped;
  }
  memcpy(process->errors + kept, bytes, length);
  process->errors_length = kept + length;
}

static bool is_code(const char *text) {
  size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
  return length > 0 && length <= PROCESS_CODE_BYTES_MAX && text[length] == '\0';
}

static void take_note(struct process *process, char *line) {
  char *value = strchr(line, ' ');
  if (value == NULL) {
    return;
  }
  *value++ = '\0';
  if (strcmp(line, "progress") == 0) {
    char *end;
    double number = strtod(value, &end);
    if (end != value && number >= 0 && number <= 100) {
      process->progress = (int)number;
    }
  } else if (strcmp(line, "code") == 0 && is_code(value)) {
    memcpy(process->code, value, strlen(value) + 1);
  } else if (strcmp(line, "message") == 0) {
    size_t length = strnlen(value, sizeof process->message - 1);
    memcpy(process->message, value, length);
    process->message[length] = '\0';
    process_clean_text(process->message, length);
  }
}

static void keep_notes(struct process *process, const char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (bytes[i] == '\n') {
      process->note[process->note_length] = '\0';
      process->note_length = 0;
      take_note(process, process->note);
    } else if (bytes[i] != '\0' && bytes[i] != '\r' && process->note_length < sizeof process->note - 1) {
      process->note[process->note_length++] = bytes[i];
    }
  }
}

/* Reads once; true when there may be more at once. */
static bool read_some(struct process *process, int *fd, void (*keep)(struct process *, const char *, size_t)) {
  if (*fd < 0) {
    return false;
  }
  char buffer[16384];
  ssize_t length = read(*fd, buffer, sizeof buffer);
  if (length > 0) {
    keep(process, buffer, (size_t)length);
    return true;
  }
  if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
    close(*fd);
    *fd = -1;
  }
  return false;
}

static bool read_all_once(struct process *process) {
  bool output = read_some(process, &process->output_fd, keep_output);
  bool errors = read_some(process, &process->errors_fd, keep_errors);
  bool notes = read_some(process, &process->notes_fd, keep_notes);
  return output || errors || notes;
}

static bool has_exited(const struct process *process) {
  siginfo_t information = {0};
  return waitid(P_PID, (id_t)process->pid, &information, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         information.si_pid == process->pid;
}

static void reap(struct process *process) {
  kill(-process->pid, SIGKILL);
  for (int reads = 0; reads < READS_AFTER_END_MAX && read_all_once(process); reads++) {
  }
  if (process->note_length > 0) {
    keep_notes(process, "\n", 1);
  }
  while (waitpid(process->pid, &process->wait_status, 0) < 0 && errno == EINTR) {
  }
  process->ended = true;
}

bool process_wait(struct process *process, int timeout_ms) {
  if (process->ended) {
    return true;
  }
  if (has_exited(process)) {
    reap(process);
    return true;
  }
  bool closed = process->output_fd < 0 && process->errors_fd < 0;
  int longest_ms = closed ? POLL_CLOSED_MS : POLL_MS;
  struct pollfd fds[3] = {
      {.fd = process->output_fd, .events = POLLIN},
      {.fd = process->errors_fd, .events = POLLIN},
      {.fd = process->notes_fd, .events = POLLIN},
  };
  if (poll(fds, 3, timeout_ms < longest_ms ? timeout_ms : longest_ms) > 0) {
    read_all_once(process);
  }
  if (has_exited(process)) {
    reap(process);
  }
  return process->ended;
}

void process_signal(const struct process *process, int signal_number) {
  if (!process->ended && process->pid > 0) {
    kill(-process->pid, signal_number);
  }
}

void process_close(struct process *process) {
  if (!process->ended && process->pid > 0) {
    reap(process);
  }
  int fds[3] = {process->output_fd, process->errors_fd, process->notes_fd};
  close_all(fds, 3);
  process->output_fd = process->errors_fd = process->notes_fd = -1;
  free(process->output);
  process->output = NULL;
}

/* The length of the valid UTF-8 character at text, or 0. Overlong forms, surrogates and what lies beyond are not valid.
 */
static size_t character_length(const unsigned char *text, size_t length) {
  static const struct {
    unsigned char low, high, second_low, second_high, bytes;
  } forms[] = {
      {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
      {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
      {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
  };
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (text[0] < forms[i].low || text[0] > forms[i].high) {
      continue;
    }
    if (length < forms[i].bytes ||
        (forms[i].bytes > 1 && (text[1] < forms[i].second_low || text[1] > forms[i].second_high))) {
      return 0;
    }
    for (size_t k = 2; k < forms[i].bytes; k++) {
      if (text[k] < 0x80 || text[k] > 0xbf) {
        return 0;
      }
    }
    return forms[i].bytes;
  }
  return 0;
}

bool process_is_text(const char *bytes, size_t length) {
  for (size_t i = 0; i < length;) {
    size_t step = character_length((const unsigned char *)bytes + i, length - i);
    if (step == 0) {
      return false;
    }
    i += step;
  }
  return true;
}

void process_clean_text(char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    size_t step = character_length((unsigned char *)text + i, length - i);
    unsigned char first = (unsigned char)text[i];
    if (step == 0 || first == 0x7f || (first < 0x20 && first != '\n' && first != '\t')) {
      text[i] = '?';
      step = 1;
    }
    i += step;
  }
}

void process_last_lines(const struct process *process, char *text, size_t size) {
  const char *begin = process->errors, *end = process->errors + process->errors_length;
  while (end > begin && strchr(" \t\r\n", end[-1]) != NULL) {
    end--;
  }
  if ((size_t)(end - begin) > size - 1) {
    begin = end - (size - 1);
    const char *line = memchr(begin, '\n', (size_t)(end - begin));
    begin = line != NULL ? line + 1 : begin;
  }
  size_t length = (size_t)(end - begin);
  memcpy(text, begin, length);
  text[length] = '\0';
  process_clean_text(text, length);
}
