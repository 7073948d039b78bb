/*
 * The commands that read jobs, and the one that changes a single job's priority.
 */
#include "client/tool/job.h"
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/messages.h"
#include "client/tool/output.h"
#include "client/tool/safe.h"
#include "client/tool/values.h"
#include <string.h>

#define LIST_LIMIT_DEFAULT 50
#define LIST_PAGE 100

const struct option_row job_get_options[] = {
    {.name = "brief", .kind = OPTION_FLAG, .help = "without operation, user data and result"},
    {.name = NULL},
};

const struct option_row job_list_options[] = {
    {.name = "queue", .letter = 'q', .kind = OPTION_QUEUE, .value = "QUEUE", .help = "the queue"},
    FILTER_OPTIONS,
    {.name = "oldest-first", .kind = OPTION_FLAG, .help = "in the order of submission"},
    {.name = "limit",
     .letter = 'n',
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "at most so many (50); 0 for all",
     .high = 1000000000},
    {.name = "full", .kind = OPTION_FLAG, .help = "with operation, user data and result (shows with --json)"},
    {.name = NULL},
};

const struct option_row job_explain_options[] = {{.name = NULL}};
const struct option_row job_priority_options[] = {{.name = NULL}};

const char *job_state_word(const struct tool *tool, Ringback__V1__JobState state) {
  return output_state(tool, output_word(&ringback__v1__job_state__descriptor, (int)state));
}

static void show_payload(struct tool *tool, const char *name, const Ringback__V1__Payload *payload) {
  if (payload == NULL)
    return;
  if (payload->form_case == RINGBACK__V1__PAYLOAD__FORM_XML) {
    output_field(tool, name, "%s", payload->xml);
  } else if (payload->form_case == RINGBACK__V1__PAYLOAD__FORM_OPAQUE) {
    const Ringback__V1__OpaquePayload *opaque = payload->opaque;
    const char *type = opaque->content_type[0] != '\0' ? opaque->content_type : "application/octet-stream";
    bool text = strncmp(type, "text/", 5) == 0 || strcmp(type, "application/json") == 0;
    if (text)
      output_field(tool, name, "%s: %.*s", type, (int)opaque->data.len, (const char *)opaque->data.data);
    else
      output_field(tool, name, "%s, %zu bytes", type, opaque->data.len);
  }
}

static void show_spec(struct tool *tool, const Ringback__V1__JobSpec *spec) {
  const Ringback__V1__JobInput *input = spec->input;
  output_field(tool, "Tag", "%s", spec->tag);
  output_field(tool, "Priority", "%d", spec->priority);
  if (input != NULL && input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_URL)
    output_field(tool, "Input", "%s", input->url);
  else if (input != NULL && input->source_case == RINGBACK__V1__JOB_INPUT__SOURCE_OBJECT)
    output_field(tool, "Input", "%s%s%s", input->object->bucket, input->object->bucket[0] != '\0' ? "/" : "",
                 input->object->object);
  show_payload(tool, "Operation", spec->operation);
  if (spec->user_data[0] != '\0')
    output_field(tool, "User data", "%s", spec->user_data);
  if (spec->not_before != NULL)
    output_field(tool, "Not before", "%s", message_show_time(spec->not_before));
  if (spec->expire_time != NULL)
    output_field(tool, "Expires", "%s", message_show_time(spec->expire_time));
  if (spec->lease != NULL)
    output_field(tool, "Lease", "%s", message_show_duration(spec->lease));
  if (spec->run_timeout != NULL)
    output_field(tool, "Run timeout", "%s", message_show_duration(spec->run_timeout));
  if (spec->max_attempts != 0)
    output_field(tool, "Max attempts", "%d", spec->max_attempts);
  if (spec->callback != NULL)
    output_field(tool, "Callback", "%s",
                 spec->callback->target_case == RINGBACK__V1__CALLBACK_OVERRIDE__TARGET_URL ? spec->callback->url
                                                                                            : "none");
}

void job_show(struct tool *tool, const Ringback__V1__Job *job) {
  output_field(tool, "Id", "%s", job->id);
  output_field(tool, "Queue", "%s", job->queue);
  output_field(tool, "State", "%s", job_state_word(tool, job->state));
  output_field(tool, "Progress", "%d%%", job->progress);
  if (job->spec != NULL)
    show_spec(tool, job->spec);
  if (job->code[0] != '\0')
    output_field(tool, "Code", "%s", job->code);
  if (job->message[0] != '\0')
    output_field(tool, "Message", "%s", job->message);
  show_payload(tool, "Result", job->result);
  output_field(tool, "Attempts", "%d", job->attempts);
  output_field(tool, "Created", "%s", message_show_time(job->create_time));
  if (job->start_time != NULL)
    output_field(tool, "Started", "%s", message_show_time(job->start_time));
  if (job->end_time != NULL)
    output_field(tool, "Ended", "%s", message_show_time(job->end_time));
  if (job->due_time != NULL)
    output_field(tool, "Due", "%s", message_show_time(job->due_time));
  if (job->worker[0] != '\0')
    output_field(tool, "Worker", "%s", job->worker);
}

/* What the calls of `job get` gather. */
struct get {
  json_t *jobs, *missing; /* only for --json */
  size_t shown;
  int status;
};

static void get_take(struct tool *tool, struct get *get, const Ringback__V1__GetJobsResponse *response) {
  for (size_t i = 0; i < response->n_jobs; i++) {
    if (tool->json) {
      json_array_append_new(get->jobs, json_of_message(&response->jobs[i]->base));
      continue;
    }
    if (get->shown++ > 0)
      putchar('\n');
    job_show(tool, response->jobs[i]);
  }
  for (size_t i = 0; i < response->n_non_exist_job_ids; i++) {
    if (tool->json)
      json_array_append_new(get->missing, json_of_text(response->non_exist_job_ids[i]));
    else
      tool_error("there is no job %s", response->non_exist_job_ids[i]);
    get->status = TOOL_NOT_FOUND;
  }
}

int command_job_get(struct tool *tool, int argc, char **argv) {
  Ringback__V1__GetJobsRequest request = RINGBACK__V1__GET_JOBS_REQUEST__INIT;
  request.bucket = tool_bucket_name(tool, NULL);
  request.view =
      tool_given(tool, "brief") ? RINGBACK__V1__JOB_VIEW__JOB_VIEW_BASIC : RINGBACK__V1__JOB_VIEW__JOB_VIEW_FULL;
  if (request.bucket == NULL)
    return TOOL_USAGE;
  struct get get = {.jobs = json_array(), .missing = json_array()};
  size_t done = 0, count = (size_t)argc;
  while (done < count) {
    request.job_ids = argv + done;
    request.n_job_ids = count - done < JOBS_PER_CALL ? count - done : JOBS_PER_CALL;
    Ringback__V1__GetJobsResponse *response =
        tool_call(tool, "/ringback.v1.JobService/GetJobs", &request.base, &get.status);
    if (response == NULL)
      break;
    get_take(tool, &get, response);
    /* What did not fit into the answer is the end of what was asked for. */
    size_t taken = request.n_job_ids - response->n_remaining_job_ids;
    ringback_free(&response->base);
    if (taken == 0)
      break;
    done += taken;
  }
  if (tool->json)
    json_print(json_pack("{s:O,s:O}", "jobs", get.jobs, "nonExistJobIds", get.missing));
  json_decref(get.jobs);
  json_decref(get.missing);
  return get.status;
}

static void list_add(struct tool *tool, struct table *table, const Ringback__V1__Job *job) {
  char progress[16] = "";
  if (job->progress > 0)
    snprintf(progress, sizeof progress, "%d%%", job->progress);
  table_add(table, job->id, job->spec == NULL ? "" : job->spec->tag, job_state_word(tool, job->state),
            output_number(job->spec == NULL ? 0 : job->spec->priority), progress, output_number(job->attempts),
            message_show_age(job->create_time), job->worker, job->message);
}

int command_job_list(struct tool *tool, int argc, char **argv) {
  static const char *const headings[] = {"JOB",       "TAG", "STATE",  ">PRIORITY", ">PROGRESS",
                                         ">ATTEMPTS", "AGE", "WORKER", "MESSAGE"};
  struct job_filter filter;
  if (argc > 0 && tool_given(tool, "queue")) {
    tool_error("the operand \"%s\" and --queue exclude each other", argv[0]);
    return TOOL_USAGE;
  }
  if (!message_job_filter(tool, argc > 0 ? argv[0] : NULL, &filter))
    return TOOL_USAGE;
  Ringback__V1__ListJobsRequest request = RINGBACK__V1__LIST_JOBS_REQUEST__INIT;
  request.filter = &filter.filter;
  request.order = tool_given(tool, "oldest-first") ? RINGBACK__V1__LIST_ORDER__LIST_ORDER_ASC
                                                   : RINGBACK__V1__LIST_ORDER__LIST_ORDER_DESC;
  request.view =
      tool_given(tool, "full") ? RINGBACK__V1__JOB_VIEW__JOB_VIEW_FULL : RINGBACK__V1__JOB_VIEW__JOB_VIEW_BASIC;
  int64_t left = tool_number(tool, "limit", LIST_LIMIT_DEFAULT);
  bool all = left == 0;
  struct table *table = tool->json ? NULL : table_create(9, headings);
  json_t *json = NULL;
  Ringback__V1__ListJobsResponse *page = NULL;
  int status = TOOL_OK;
  do {
    request.page_size = all || left > LIST_PAGE ? LIST_PAGE : (int32_t)left;
    Ringback__V1__ListJobsResponse *next = tool_call(tool, "/ringback.v1.JobService/ListJobs", &request.base, &status);
    ringback_free(page == NULL ? NULL : &page->base); /* it held the token that was just sent */
    page = next;
    if (page == NULL)
      break;
    if (tool->json)
      message_join_pages(&json, &page->base, "jobs");
    for (size_t i = 0; table != NULL && i < page->n_jobs; i++)
      list_add(tool, table, page->jobs[i]);
    left -= (int64_t)page->n_jobs;
    request.page_token = page->next_page_token;
  } while (page->next_page_token[0] != '\0' && (all || left > 0));
  if (table != NULL)
    table_print(tool, table, status == TOOL_OK);
  if (table != NULL && page != NULL && page->next_page_token[0] != '\0' && tool->live)
    fprintf(stderr, "There are more; --limit 0 lists all.\n");
  if (json != NULL)
    json_print(json);
  ringback_free(page == NULL ? NULL : &page->base);
  return status;
}

int command_job_explain(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__ExplainJobRequest request = RINGBACK__V1__EXPLAIN_JOB_REQUEST__INIT;
  request.bucket = tool_bucket_name(tool, NULL);
  request.job_id = argv[0];
  if (request.bucket == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__ExplainJobResponse *response =
      tool_call(tool, "/ringback.v1.JobService/ExplainJob", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json) {
    tool_print_json(&response->base);
  } else {
    safe_clean(response->explanation, strlen(response->explanation), true);
    puts(response->explanation);
    if (response->job != NULL)
      output_field(tool, "State", "%s", job_state_word(tool, response->job->state));
    output_field(tool, "Waits for", "%s", output_word(&ringback__v1__wait_reason__descriptor, (int)response->reason));
    if (response->position > 0)
      output_field(tool, "Position", "%lld of %lld", (long long)response->position, (long long)response->waiting_count);
    output_field(tool, "Queue runs", "%lld of %lld", (long long)response->running_count,
                 (long long)response->max_concurrent);
    if (response->lease_expire_time != NULL)
      output_field(tool, "Lease ends", "%s", message_show_time(response->lease_expire_time));
  }
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_job_priority(struct tool *tool, int argc, char **argv) {
  (void)argc;
  int64_t priority;
  if (!value_parse_integer(argv[1], &priority) || priority < 0 || priority > 255) {
    tool_error("\"%s\" is no priority: 0 to 255", argv[1]);
    return TOOL_USAGE;
  }
  Ringback__V1__ChangePriorityRequest request = RINGBACK__V1__CHANGE_PRIORITY_REQUEST__INIT;
  request.bucket = tool_bucket_name(tool, NULL);
  request.job_id = argv[0];
  request.priority = (int32_t)priority;
  if (request.bucket == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__ChangePriorityResponse *response =
      tool_call(tool, "/ringback.v1.JobService/ChangePriority", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s has priority %lld\n", argv[0], (long long)priority);
  ringback_free(&response->base);
  return TOOL_OK;
}
