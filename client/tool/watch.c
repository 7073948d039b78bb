/*
 * Following jobs. With ids: until all have ended, with a bar for each on a terminal. Without: every change of a queue
 * or bucket, until the user ends it.
 *
 * Nothing is missed: the stream is open (its first message says so) before the jobs are read, and when it breaks both
 * are done again.
 */
#include "client/tool/commands.h"
#include "client/tool/job.h"
#include "client/tool/output.h"
#include "client/tool/safe.h"
#include "client/tool/values.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BAR_WIDTH 24
#define BARS_MAX 16
#define REOPEN_WAIT_MS 500
#define REOPEN_MAX 40 /* without a message in between */
#define BAR_STEP_MS 100

const struct option_row job_watch_options[] = {
    {.name = "queue", .letter = 'q', .kind = OPTION_QUEUE, .value = "QUEUE", .help = "follow this queue's jobs"},
    {.name = "wait-timeout",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "with ids: give up after so long (exit status 4)"},
    {.name = "cursor", .kind = OPTION_TEXT, .value = "CURSOR", .help = "without ids: start there instead of now"},
    {.name = NULL},
};

struct watched {
  const char *id;
  Ringback__V1__JobState state; /* unspecified before it is known */
  int32_t progress;
};

struct watch {
  struct tool *tool;
  const char *bucket;
  struct watched *jobs; /* sorted by id */
  size_t count, ended, failed, missing;
  int bars;            /* lines drawn that the next drawing replaces */
  int64_t deadline_ms; /* on the monotonic clock; 0: none */
  int64_t drawn_ms;
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(int64_t ms) {
  struct timespec span = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&span, NULL);
}

static int compare_watched(const void *a, const void *b) {
  return strcmp(((const struct watched *)a)->id, ((const struct watched *)b)->id);
}

static struct watched *find_watched(const struct watch *watch, const char *id) {
  struct watched key = {.id = id};
  return bsearch(&key, watch->jobs, watch->count, sizeof key, compare_watched);
}

static void erase_bars(struct watch *watch) {
  if (watch->bars > 0)
    fprintf(stderr, "\033[%dA\033[J", watch->bars);
  watch->bars = 0;
}

static void draw_bars(struct watch *watch) {
  if (!watch->tool->live || watch->tool->json)
    return;
  erase_bars(watch);
  for (size_t i = 0; i < watch->count && watch->bars < BARS_MAX; i++) {
    const struct watched *job = &watch->jobs[i];
    char bar[BAR_WIDTH + 16];
    if (message_has_ended(job->state) || job->state == RINGBACK__V1__JOB_STATE__JOB_STATE_UNSPECIFIED)
      continue;
    output_bar(job->progress, BAR_WIDTH, bar, sizeof bar);
    fprintf(stderr, "%s  %s  %s\n", safe_text(job->id), bar,
            output_word(&ringback__v1__job_state__descriptor, (int)job->state));
    watch->bars++;
  }
  if (watch->count > 1) {
    fprintf(stderr, "%zu of %zu have ended\n", watch->ended, watch->count);
    watch->bars++;
  }
  watch->drawn_ms = now_ms();
}

/* One change as a line: a JSON object was printed already where that is asked for. */
static void print_change(struct watch *watch, const struct watched *job) {
  const struct tool *tool = watch->tool;
  if (tool->json || (tool->live && !message_has_ended(job->state)))
    return; /* the bars show it */
  erase_bars(watch);
  if (job->progress > 0 && !message_has_ended(job->state))
    printf("%s  %s %d%%\n", safe_text(job->id), job_state_word(tool, job->state), job->progress);
  else
    printf("%s  %s\n", safe_text(job->id), job_state_word(tool, job->state));
  fflush(stdout);
}

static void take_change(struct watch *watch, const char *id, Ringback__V1__JobState state, int32_t progress) {
  struct watched *job = find_watched(watch, id);
  if (job == NULL || message_has_ended(job->state) || (job->state == state && job->progress == progress))
    return;
  job->state = state;
  job->progress = progress;
  if (message_has_ended(state)) {
    watch->ended++;
    watch->failed += state != RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS;
  }
  print_change(watch, job);
}

static void take_events(struct watch *watch, const Ringback__V1__WatchJobsResponse *response) {
  for (size_t i = 0; i < response->n_events; i++) {
    const Ringback__V1__JobEvent *event = response->events[i];
    const struct watched *job = find_watched(watch, event->job_id);
    if (job == NULL || message_has_ended(job->state)) /* its end was read before the events up to it came */
      continue;
    if (watch->tool->json)
      tool_print_json_line(&event->base);
    take_change(watch, event->job_id, event->state, event->progress);
  }
  if (watch->ended == watch->count || now_ms() - watch->drawn_ms >= BAR_STEP_MS)
    draw_bars(watch);
}

/* A job read instead of followed, as an event in JSON. */
static void print_read_job(const struct watch *watch, Ringback__V1__Job *job) {
  const struct watched *known = find_watched(watch, job->id);
  if (!watch->tool->json || known == NULL || (known->state == job->state && known->progress == job->progress))
    return;
  Ringback__V1__JobEvent event = RINGBACK__V1__JOB_EVENT__INIT;
  event.job_id = job->id;
  event.queue = job->queue;
  event.state = job->state;
  event.progress = job->progress;
  event.time = job->end_time != NULL ? job->end_time : job->start_time != NULL ? job->start_time : job->create_time;
  tool_print_json_line(&event.base);
}

/* Takes one answer; how many of the ids asked for it covers. */
static size_t take_jobs(struct watch *watch, Ringback__V1__GetJobsResponse *response, size_t asked) {
  for (size_t i = 0; i < response->n_jobs; i++) {
    Ringback__V1__Job *job = response->jobs[i];
    print_read_job(watch, job);
    take_change(watch, job->id, job->state, job->progress);
  }
  for (size_t i = 0; i < response->n_non_exist_job_ids; i++) {
    struct watched *job = find_watched(watch, response->non_exist_job_ids[i]);
    if (job == NULL || message_has_ended(job->state))
      continue;
    erase_bars(watch);
    tool_error("there is no job %s", job->id);
    job->state = RINGBACK__V1__JOB_STATE__JOB_STATE_CANCEL; /* nothing more will come of it */
    watch->ended++;
    watch->missing++;
  }
  return asked - response->n_remaining_job_ids;
}

/* Reads the jobs that have not ended. */
static bool read_jobs(struct watch *watch, int *status) {
  for (size_t next = 0; next < watch->count;) {
    char *ids[JOBS_PER_CALL];
    size_t places[JOBS_PER_CALL], count = 0, i = next;
    for (; i < watch->count && count < JOBS_PER_CALL; i++)
      if (!message_has_ended(watch->jobs[i].state)) {
        places[count] = i;
        ids[count++] = (char *)watch->jobs[i].id;
      }
    if (count == 0)
      return true;
    Ringback__V1__GetJobsRequest request = RINGBACK__V1__GET_JOBS_REQUEST__INIT;
    request.bucket = (char *)watch->bucket;
    request.job_ids = ids;
    request.n_job_ids = count;
    Ringback__V1__GetJobsResponse *response =
        tool_call(watch->tool, "/ringback.v1.JobService/GetJobs", &request.base, status);
    if (response == NULL)
      return false;
    size_t taken = take_jobs(watch, response, count);
    ringback_free(&response->base);
    next = taken < count && taken > 0 ? places[taken] : i;
  }
  draw_bars(watch);
  return true;
}

static struct ringback_stream *open_stream(struct watch *watch, struct ringback_error *error) {
  Ringback__V1__WatchJobsRequest request = RINGBACK__V1__WATCH_JOBS_REQUEST__INIT;
  char *ids[JOBS_PER_CALL];
  request.bucket = (char *)watch->bucket;
  /* More than one request can name: everything of the bucket is followed, and what is not watched passed over. */
  for (size_t i = 0; watch->count <= JOBS_PER_CALL && i < watch->count; i++)
    ids[request.n_job_ids++] = (char *)watch->jobs[i].id;
  request.job_ids = ids;
  return ringback_stream_open(tool_client(watch->tool), "/ringback.v1.JobService/WatchJobs", &request.base, NULL,
                              error);
}

enum follow { FOLLOW_DONE, FOLLOW_BROKEN, FOLLOW_FAILED };

static int64_t time_left(const struct watch *watch) {
  if (watch->deadline_ms == 0)
    return -1;
  int64_t left = watch->deadline_ms - now_ms();
  return left > 0 ? left : 0;
}

/* One stream from its opening to its end. */
static enum follow follow_once(struct watch *watch, int *status, int *failures) {
  struct ringback_error error;
  struct ringback_stream *stream = open_stream(watch, &error);
  ProtobufCMessage *message = NULL;
  enum follow follow = FOLLOW_DONE;
  bool read = false;
  while (stream != NULL && watch->ended < watch->count) {
    enum ringback_stream_status next = ringback_stream_next(stream, time_left(watch), &message, &error);
    if (next == RINGBACK_STREAM_TIMEOUT) {
      erase_bars(watch);
      tool_error("%zu of %zu jobs have not ended in time", watch->count - watch->ended, watch->count);
      *status = TOOL_UNAVAILABLE;
      follow = FOLLOW_FAILED;
      break;
    }
    if (next == RINGBACK_STREAM_END) {
      follow = FOLLOW_BROKEN;
      break;
    }
    *failures = 0;
    take_events(watch, (Ringback__V1__WatchJobsResponse *)message);
    ringback_free(message);
    if (!read && !read_jobs(watch, status)) {
      follow = FOLLOW_FAILED;
      break;
    }
    read = true;
  }
  ringback_stream_close(stream);
  if (follow != FOLLOW_BROKEN && stream != NULL)
    return follow;
  bool passing = error.code == RINGBACK_UNAVAILABLE || error.code == RINGBACK_OUT_OF_RANGE || error.code == RINGBACK_OK;
  if (passing && ++*failures <= REOPEN_MAX && time_left(watch) != 0)
    return FOLLOW_BROKEN;
  erase_bars(watch);
  *status = tool_call_failed(&error);
  return FOLLOW_FAILED;
}

int job_watch_until_ended(struct tool *tool, const char *bucket, char *const *ids, size_t id_count,
                          int64_t give_up_ms) {
  struct watch watch = {.tool = tool, .bucket = bucket, .deadline_ms = give_up_ms > 0 ? now_ms() + give_up_ms : 0};
  watch.jobs = calloc(id_count + 1, sizeof *watch.jobs);
  if (watch.jobs == NULL)
    return TOOL_FAILED;
  for (size_t i = 0; i < id_count; i++)
    watch.jobs[i].id = ids[i];
  qsort(watch.jobs, id_count, sizeof *watch.jobs, compare_watched);
  for (size_t i = 0; i < id_count; i++)
    if (i == 0 || strcmp(watch.jobs[i].id, watch.jobs[watch.count - 1].id) != 0)
      watch.jobs[watch.count++] = watch.jobs[i];
  int status = TOOL_OK, failures = 0;
  while (follow_once(&watch, &status, &failures) == FOLLOW_BROKEN)
    sleep_ms(REOPEN_WAIT_MS);
  erase_bars(&watch);
  if (status == TOOL_OK)
    status = watch.missing > 0 ? TOOL_NOT_FOUND : watch.failed > 0 ? TOOL_FAILED : TOOL_OK;
  free(watch.jobs);
  return status;
}

static void print_event(struct tool *tool, const Ringback__V1__JobEvent *event) {
  if (tool->json) {
    tool_print_json_line(&event->base);
    return;
  }
  char bar[BAR_WIDTH + 16] = "";
  if (event->state == RINGBACK__V1__JOB_STATE__JOB_STATE_RUNNING) {
    if (tool->color)
      output_bar(event->progress, BAR_WIDTH, bar, sizeof bar);
    else
      snprintf(bar, sizeof bar, "%d%%", event->progress);
  }
  printf("%s  %s  %s  %s  %s\n", message_show_time(event->time), safe_text(message_queue_short(event->queue)),
         safe_text(event->job_id), job_state_word(tool, event->state), bar);
  fflush(stdout);
}

/* Prints what comes and keeps the cursor, until the stream ends. True when anything came. */
static bool print_stream(struct tool *tool, struct ringback_stream *stream, char **cursor,
                         struct ringback_error *error) {
  ProtobufCMessage *message;
  bool any = false;
  while (ringback_stream_next(stream, -1, &message, error) == RINGBACK_STREAM_MESSAGE) {
    const Ringback__V1__WatchJobsResponse *response = (const Ringback__V1__WatchJobsResponse *)message;
    any = true;
    for (size_t i = 0; i < response->n_events; i++)
      print_event(tool, response->events[i]);
    if (response->cursor[0] != '\0') {
      free(*cursor);
      *cursor = strdup(response->cursor);
    }
    ringback_free(message);
  }
  return any;
}

/* Follows a queue or a bucket for good. */
static int watch_all(struct tool *tool, const char *queue) {
  Ringback__V1__WatchJobsRequest request = RINGBACK__V1__WATCH_JOBS_REQUEST__INIT;
  request.bucket = tool_bucket_name(tool, queue);
  if (request.bucket == NULL)
    return TOOL_USAGE;
  if (queue != NULL && (request.queue = tool_queue_name(tool, queue)) == NULL)
    return TOOL_USAGE;
  char *cursor = strdup(tool_text(tool, "cursor", ""));
  struct ringback_error error;
  for (int failures = 0; failures <= REOPEN_MAX; failures++) {
    request.cursor = cursor;
    struct ringback_stream *stream =
        ringback_stream_open(tool_client(tool), "/ringback.v1.JobService/WatchJobs", &request.base, NULL, &error);
    if (stream == NULL)
      break;
    if (print_stream(tool, stream, &cursor, &error))
      failures = 0;
    ringback_stream_close(stream);
    if (error.code == RINGBACK_OUT_OF_RANGE) {
      tool_error("%s; going on from now", error.message);
      cursor[0] = '\0';
    } else if (error.code != RINGBACK_UNAVAILABLE && error.code != RINGBACK_OK) {
      break;
    }
    sleep_ms(REOPEN_WAIT_MS);
  }
  free(cursor);
  return tool_call_failed(&error);
}

int command_job_watch(struct tool *tool, int argc, char **argv) {
  const char *queue = tool_text(tool, "queue", NULL);
  if (argc == 0 && tool_given(tool, "wait-timeout")) {
    tool_error("--wait-timeout goes with ids only");
    return TOOL_USAGE;
  }
  if (argc > 0 && tool_given(tool, "cursor")) {
    tool_error("--cursor goes without ids only");
    return TOOL_USAGE;
  }
  if (argc == 0)
    return watch_all(tool, queue);
  if (queue != NULL && strncmp(queue, "buckets/", 8) != 0)
    queue = NULL; /* ids say enough */
  const char *bucket = tool_bucket_name(tool, queue);
  if (bucket == NULL)
    return TOOL_USAGE;
  return job_watch_until_ended(tool, bucket, argv, (size_t)argc, tool_number(tool, "wait-timeout", 0));
}
