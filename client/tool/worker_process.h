/*
 * One run of a worker's command: a process group of its own, started by `/bin/sh -c`, with the job on standard input
 * and three pipes back:
 *
 *   standard output  the result, kept up to PROCESS_OUTPUT_BYTES_MAX
 *   standard error   its end is kept, for the message of a failure
 *   descriptor 3     lines for the worker: `progress N`, `code NAME`, `message TEXT`; others are ignored
 *
 * It knows nothing of jobs or servers. One thread uses one process; any thread may call process_signal while it runs.
 */
#ifndef RINGBACK_CLIENT_TOOL_WORKER_PROCESS_H
#define RINGBACK_CLIENT_TOOL_WORKER_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_OUTPUT_BYTES_MAX (1024 * 1024) /* the largest payload that any server takes */
#define PROCESS_ERRORS_BYTES_KEPT 2048
#define PROCESS_NOTE_BYTES_MAX 1100
#define PROCESS_CODE_BYTES_MAX 64
#define PROCESS_MESSAGE_BYTES_MAX 1024

struct process {
  pid_t pid;                          /* also its process group's id; valid from process_start to process_close */
  int output_fd, errors_fd, notes_fd; /* -1 after their end */
  char *output;                       /* output_length bytes, owned */
  size_t output_length, output_size;
  bool output_cut; /* there was more than PROCESS_OUTPUT_BYTES_MAX */
  char errors[PROCESS_ERRORS_BYTES_KEPT];
  size_t errors_length;
  char note[PROCESS_NOTE_BYTES_MAX]; /* a line of descriptor 3 that has not ended */
  size_t note_length;
  int progress;                            /* 0 to 100, as last reported */
  char code[PROCESS_CODE_BYTES_MAX + 1];   /* "" while none was reported */
  char message[PROCESS_MESSAGE_BYTES_MAX]; /* likewise */
  bool ended;
  int wait_status; /* as waitpid gives it, once ended */
};

/* Starts `command` with `input` to read and the environment given. 0, or an errno after which nothing is left to close.
 */
int process_start(struct process *process, const char *command, char *const environment[], const void *input,
                  size_t input_bytes);
/* Reads what has come and waits up to timeout_ms for something to happen. True once the command has ended; then what is
 * left of its process group has been killed and everything it wrote has been read. */
bool process_wait(struct process *process, int timeout_ms);
/* Signals the whole process group, if it has not ended. */
void process_signal(const struct process *process, int signal_number);
/* Frees everything; a command that has not ended is killed. */
void process_close(struct process *process);

/* The end of standard error as one message: the last lines, at most `size` bytes with the final NUL. */
void process_last_lines(const struct process *process, char *text, size_t size);
/* Makes bytes valid UTF-8 without NUL or control characters, in place: what is not becomes '?'. */
void process_clean_text(char *text, size_t length);
/* Whether the bytes are UTF-8 without NUL. */
bool process_is_text(const char *bytes, size_t length);

#endif
