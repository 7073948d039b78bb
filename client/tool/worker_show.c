/*
 * What `ringback worker` shows: a line an event on standard output, and on a terminal one progress bar a running job
 * below them, on standard error. Everything is written under show_lock, with the bars taken away first.
 */
#include "client/tool/json.h"
#include "client/tool/safe.h"
#include "client/tool/values.h"
#include "client/tool/worker.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define BAR_CELLS 30
#define ID_END_LENGTH 12

static void clear_bars(struct worker *worker) {
  if (worker->bars_shown > 0) {
    fprintf(stderr, "\033[%dA\r\033[J", worker->bars_shown);
    worker->bars_shown = 0;
  }
}

static void draw_bars(struct worker *worker) {
  for (size_t i = 0; i < worker->slot_count; i++) {
    const struct worker_slot *slot = &worker->slots[i];
    if (slot->busy) {
      char bar[BAR_CELLS + 1];
      memset(bar, '.', BAR_CELLS);
      memset(bar, '#', (size_t)(slot->progress * BAR_CELLS / 100));
      bar[BAR_CELLS] = '\0';
      /* An id's end is what tells jobs of one queue apart. */
      size_t length = strlen(slot->job_id);
      const char *end = slot->job_id + (length > ID_END_LENGTH ? length - ID_END_LENGTH : 0);
      fprintf(stderr, "...%s  %-18.18s [%s] %3d%%\n", end, slot->tag, bar, slot->progress);
      worker->bars_shown++;
    }
  }
  fflush(stderr);
}

void worker_show_bars(struct worker *worker) {
  if (worker->tool->live) {
    pthread_mutex_lock(&worker->show_lock);
    clear_bars(worker);
    draw_bars(worker);
    pthread_mutex_unlock(&worker->show_lock);
  }
}

void worker_clear_bars(struct worker *worker) {
  pthread_mutex_lock(&worker->show_lock);
  clear_bars(worker);
  fflush(stderr);
  pthread_mutex_unlock(&worker->show_lock);
}

static void print_json(const Ringback__V1__Job *job, const char *event, json_t *more) {
  struct timespec now;
  char time_text[VALUE_TEXT_BYTES];
  clock_gettime(CLOCK_REALTIME, &now);
  value_format_time(now.tv_sec, (int32_t)(now.tv_nsec / 1000000 * 1000000), time_text);
  json_t *line =
      json_pack("{ss ss ss ss ss si si}", "event", event, "time", time_text, "job", job->id, "queue", job->queue, "tag",
                job->spec->tag, "priority", job->spec->priority, "attempt", job->attempts);
  if (line != NULL) {
    json_object_update(line, more);
    json_print_line(line);
  }
}

static void print_text(const Ringback__V1__Job *job, const char *event, json_t *more) {
  char clock_text[16];
  struct tm parts;
  time_t now = time(NULL);
  localtime_r(&now, &parts);
  strftime(clock_text, sizeof clock_text, "%H:%M:%S", &parts);
  printf("%s  %s  %-18s %s", clock_text, safe_text(job->id), safe_text(job->spec->tag), event);
  const char *name;
  json_t *value;
  json_object_foreach(more, name, value) {
    if (json_is_integer(value)) {
      printf("  %s %lld", name, (long long)json_integer_value(value));
    } else if (json_is_string(value) && json_string_length(value) > 0) {
      printf("  %s %s", name, safe_text(json_string_value(value)));
    }
  }
  putchar('\n');
}

void worker_show_event(struct worker_slot *slot, const Ringback__V1__Job *job, const char *event, json_t *more) {
  struct worker *worker = slot->worker;
  pthread_mutex_lock(&worker->show_lock);
  clear_bars(worker);
  if (worker->tool->json) {
    print_json(job, event, more);
  } else if (!worker->tool->live || strcmp(event, "progress") != 0) { /* bars show progress better */
    print_text(job, event, more);
  }
  fflush(stdout);
  if (worker->tool->live) {
    draw_bars(worker);
  }
  pthread_mutex_unlock(&worker->show_lock);
  json_decref(more);
}

void worker_warn(struct worker *worker, const char *format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  pthread_mutex_lock(&worker->show_lock);
  clear_bars(worker);
  tool_error("%s", text);
  pthread_mutex_unlock(&worker->show_lock);
}
