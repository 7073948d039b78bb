/*
 * The commands about a queue's callback rule.
 */
#include "client/tool/commands.h"
#include "client/tool/files.h"
#include "client/tool/json.h"
#include "client/tool/messages.h"
#include "client/tool/output.h"
#include "client/tool/values.h"
#include "ringback/v1/callback.pb-c.h"
#include <stdlib.h>
#include <string.h>

#define SECRETS_MAX 5
#define HEADERS_MAX 20
#define HEADER_NAME_SIZE 128
#define WAITS_MAX 20
#define RANGES_MAX 16
#define RULE_PATHS_MAX 20
/* No attempt outlasts it. */
#define DRAIN_MAX_MS 120000
#define CALL_MS 10000

#define EVENTS_MAX 8

/* In the order of the enum, which begins at 1. */
static const char *const events[] = {"task_finish", NULL};
/* In the order of the enum, which begins at 1. */
const char *const callback_formats[] = {"seed", "current", "json", NULL};

const struct option_row callback_set_options[] = {
    {.name = "url", .letter = 'u', .kind = OPTION_TEXT, .value = "URL", .help = "where to call back: http or https"},
    {.name = "secret",
     .letter = 's',
     .kind = OPTION_TEXT,
     .repeatable = true,
     .value = "whsec_...",
     .help = "sign with this; several: newest first, every one signs"},
    {.name = "no-secrets", .kind = OPTION_FLAG, .help = "sign no more"},
    {.name = "callback-timeout",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "how long one attempt may take (15s)"},
    {.name = "format",
     .kind = OPTION_CHOICE,
     .value = "FORMAT",
     .help = "the body: XML as the original first sent it (seed, the default) or sends it today (current), or JSON",
     .choices = callback_formats},
    {.name = "event",
     .kind = OPTION_CHOICE,
     .repeatable = true,
     .value = "EVENT",
     .help = "call back for this only; without it for all that there are",
     .choices = events},
    {.name = "concurrency",
     .kind = OPTION_INTEGER,
     .value = "N",
     .help = "at most so many under way at once (32)",
     .low = 1,
     .high = 256},
    {.name = "header",
     .kind = OPTION_TEXT,
     .repeatable = true,
     .value = "NAME:VALUE",
     .help = "send this header along; replaces those that were set"},
    {.name = "no-headers", .kind = OPTION_FLAG, .help = "send no headers along"},
    {.name = "schedule",
     .kind = OPTION_TEXT,
     .value = "5s,30s,...",
     .help = "waits after each failed attempt, the last one repeating; `default`"},
    {.name = "max-age", .kind = OPTION_DURATION, .value = "DURATION", .help = "give a callback up after this (72h)"},
    {.name = "allow",
     .kind = OPTION_TEXT,
     .repeatable = true,
     .value = "CIDR",
     .help = "of the private addresses that the server allows, only these; replaces those that were set"},
    {.name = "no-allow", .kind = OPTION_FLAG, .help = "all the private addresses that the server allows"},
    {.name = "store-response", .kind = OPTION_FLAG, .help = "keep the beginning of answers, for show-delivery"},
    {.name = "no-store-response", .kind = OPTION_FLAG, .help = "keep no answers"},
    {.name = "ca",
     .kind = OPTION_FILE,
     .value = "FILE",
     .help = "trust receivers with a certificate from these issuers only (PEM); \"\": those of the server's system"},
    {.name = "client-cert",
     .kind = OPTION_FILE,
     .value = "FILE",
     .help = "show receivers this certificate (PEM, its issuers after it); \"\": none"},
    {.name = "client-key", .kind = OPTION_FILE, .value = "FILE", .help = "the key of --client-cert (PEM)"},
    {.name = "off",
     .kind = OPTION_FLAG,
     .help = "switch the rule off, also one that is on; without this it is switched on"},
    {.name = "etag", .kind = OPTION_TEXT, .value = "ETAG", .help = "change nothing unless this is the current one"},
    {.name = NULL},
};

const struct option_row callback_rotate_options[] = {
    {.name = "overlap",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "how long the old secrets go on to sign (24h)"},
    {.name = NULL},
};

const struct option_row callback_off_options[] = {
    {.name = "delete", .kind = OPTION_FLAG, .help = "forget the URL and secrets too, and drop what waits"},
    {.name = "wait",
     .kind = OPTION_FLAG,
     .help = "wait until no attempt is under way any more and nothing more is sent"},
    {.name = "wait-timeout",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "stop waiting after so long (2m; exit status 4)",
     .low = 1,
     .high = DRAIN_MAX_MS},
    {.name = NULL},
};

static void show_rule(struct tool *tool, const ProtobufCMessage *response, const Ringback__V1__CallbackRule *rule) {
  if (tool->json) {
    tool_print_json(response);
    return;
  }
  if (rule == NULL)
    return;
  output_field(tool, "Queue", "%s", rule->queue);
  output_field(tool, "State", "%s",
               output_state(tool, output_word(&ringback__v1__callback_rule_state__descriptor, (int)rule->state)));
  output_field(tool, "Reason", "%s", rule->off_reason);
  output_field(tool, "URL", "%s", rule->url[0] != '\0' ? rule->url : "-");
  if (rule->format >= 1 && rule->format <= 3)
    output_field(tool, "Format", "%s", callback_formats[rule->format - 1]);
  for (size_t i = 0; i < rule->n_events; i++)
    output_field(tool, i == 0 ? "Events" : " ", "%s",
                 output_word(&ringback__v1__callback_event__descriptor, (int)rule->events[i]));
  bool rotated = rule->old_secrets_expire_time != NULL;
  output_field(tool, "Secrets", "%d%s%s", rule->secret_count, rotated ? "; the old ones sign until " : "",
               rotated ? message_show_time(rule->old_secrets_expire_time) : "");
  output_field(tool, "Timeout", "%s", message_show_duration(rule->timeout));
  output_field(tool, "Concurrency", "%d", rule->concurrency);
  for (size_t i = 0; i < rule->n_headers; i++)
    output_field(tool, "Header", "%s", rule->headers[i]->name);
  for (size_t i = 0; i < rule->n_schedule; i++)
    output_field(tool, i == 0 ? "Schedule" : " ", "%s", message_show_duration(rule->schedule[i]));
  for (size_t i = 0; i < rule->n_allowed_cidrs; i++)
    output_field(tool, i == 0 ? "Allowed" : " ", "%s", rule->allowed_cidrs[i]);
  if (rule->store_response)
    output_field(tool, "Answers", "kept");
  if (rule->ca_certificate_count > 0)
    output_field(tool, "Own CA", rule->ca_certificate_count == 1 ? "%d certificate" : "%d certificates",
                 rule->ca_certificate_count);
  output_field(tool, "Goes as", "%s", rule->client_certificate_subject);
  if (rule->client_certificate_expire_time != NULL)
    output_field(tool, "Valid until", "%s", message_show_time(rule->client_certificate_expire_time));
  if (rule->max_age != NULL)
    output_field(tool, "Max age", "%s", message_show_duration(rule->max_age));
  if (message_is_to_come(rule->breaker_open_until))
    output_field(tool, "Breaker", "open until %s", message_show_time(rule->breaker_open_until));
  output_field(tool, "In flight", "%d", rule->in_flight_count);
  output_field(tool, "Epoch", "%lld", (long long)rule->epoch);
  output_field(tool, "Updated", "%s", message_show_time(rule->update_time));
  output_field(tool, "Etag", "%s", rule->etag);
}

/* wait: until the rule is drained; NULL: not at all. */
static int update_rule(struct tool *tool, Ringback__V1__CallbackRule *rule, char **paths, size_t path_count,
                       Google__Protobuf__Duration *wait) {
  Ringback__V1__UpdateCallbackRuleRequest request = RINGBACK__V1__UPDATE_CALLBACK_RULE_REQUEST__INIT;
  Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
  mask.paths = paths;
  mask.n_paths = path_count;
  request.rule = rule;
  request.update_mask = &mask;
  request.wait_drained = wait;
  int status = TOOL_OK;
  Ringback__V1__UpdateCallbackRuleResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/UpdateCallbackRule", &request.base, &status);
  if (response == NULL)
    return status;
  show_rule(tool, &response->base, response->rule);
  int32_t in_flight = response->rule == NULL ? 0 : response->rule->in_flight_count;
  ringback_free(&response->base);
  if (wait == NULL || in_flight == 0)
    return TOOL_OK;
  tool_error("%d of the queue's callbacks %s not ended in time and may still arrive", in_flight,
             in_flight == 1 ? "has" : "have");
  return TOOL_UNAVAILABLE;
}

/* What the options of `callback set` describe, with the storage that the rule points into. */
struct rule_storage {
  Ringback__V1__CallbackHeader headers[HEADERS_MAX], *header_list[HEADERS_MAX];
  Google__Protobuf__Duration waits[WAITS_MAX], *wait_list[WAITS_MAX], timeout, max_age;
  char names[HEADERS_MAX][HEADER_NAME_SIZE];
  Ringback__V1__CallbackEvent events[EVENTS_MAX];
  char *ranges[RANGES_MAX];
};

static bool read_headers(struct tool *tool, Ringback__V1__CallbackRule *rule, struct rule_storage *storage) {
  size_t position = 0;
  rule->headers = storage->header_list;
  for (const char *text; (text = tool_next_text(tool, "header", &position)) != NULL;) {
    size_t name = strcspn(text, ":");
    if (text[name] == '\0') {
      tool_error("--header: \"%s\" is not NAME:VALUE", text);
      return false;
    }
    if (name >= HEADER_NAME_SIZE) {
      tool_error("--header: the name of \"%s\" is longer than %d characters", text, HEADER_NAME_SIZE - 1);
      return false;
    }
    if (rule->n_headers == HEADERS_MAX) {
      tool_error("--header: \"%s\" is one too many: at most %d", text, HEADERS_MAX);
      return false;
    }
    Ringback__V1__CallbackHeader *header = &storage->headers[rule->n_headers];
    ringback__v1__callback_header__init(header);
    snprintf(storage->names[rule->n_headers], HEADER_NAME_SIZE, "%.*s", (int)name, text);
    header->name = storage->names[rule->n_headers];
    header->value = (char *)text + name + 1 + strspn(text + name + 1, " ");
    storage->header_list[rule->n_headers++] = header;
  }
  return true;
}

static bool read_schedule(struct tool *tool, Ringback__V1__CallbackRule *rule, struct rule_storage *storage) {
  const char *text = tool_text(tool, "schedule", "default");
  rule->schedule = storage->wait_list;
  if (strcmp(text, "default") == 0)
    return true;
  for (const char *rest = text; rest != NULL;) {
    char part[32];
    int64_t ms;
    size_t length = strcspn(rest, ",");
    snprintf(part, sizeof part, "%.*s", (int)(length < sizeof part ? length : sizeof part - 1), rest);
    rest = rest[length] == ',' ? rest + length + 1 : NULL;
    if (!value_parse_duration(part, &ms)) {
      tool_error("--schedule: \"%s\" has \"%s\" where a duration must be; give waits of 1s to 24h with commas "
                 "between them, such as 5s,30s,2m, or `default`",
                 text, part);
      return false;
    }
    if (rule->n_schedule == WAITS_MAX) {
      tool_error("--schedule: \"%s\" has more than %d waits", text, WAITS_MAX);
      return false;
    }
    Google__Protobuf__Duration *wait = &storage->waits[rule->n_schedule];
    google__protobuf__duration__init(wait);
    wait->seconds = ms / 1000;
    wait->nanos = (int32_t)(ms % 1000 * 1000000);
    storage->wait_list[rule->n_schedule++] = wait;
  }
  return true;
}

static void read_events(struct tool *tool, Ringback__V1__CallbackRule *rule, struct rule_storage *storage, char **paths,
                        size_t *path_count) {
  size_t position = 0;
  rule->events = storage->events;
  for (const char *event; rule->n_events < EVENTS_MAX && (event = tool_next_text(tool, "event", &position)) != NULL;)
    for (int i = 0; events[i] != NULL; i++)
      if (strcmp(events[i], event) == 0)
        storage->events[rule->n_events++] = (Ringback__V1__CallbackEvent)(i + 1);
  if (rule->n_events > 0)
    paths[(*path_count)++] = (char *)"events";
}

/* Where it may call, and whether answers are kept. */
static bool read_more(struct tool *tool, Ringback__V1__CallbackRule *rule, struct rule_storage *storage, char **paths,
                      size_t *path_count) {
  size_t position = 0;
  rule->allowed_cidrs = storage->ranges;
  for (const char *range; (range = tool_next_text(tool, "allow", &position)) != NULL;) {
    if (rule->n_allowed_cidrs == RANGES_MAX) {
      tool_error("--allow: at most %d", RANGES_MAX);
      return false;
    }
    storage->ranges[rule->n_allowed_cidrs++] = (char *)range;
  }
  if (rule->n_allowed_cidrs > 0 || tool_given(tool, "no-allow"))
    paths[(*path_count)++] = (char *)"allowed_cidrs";
  rule->store_response = tool_given(tool, "store-response");
  if (rule->store_response || tool_given(tool, "no-store-response"))
    paths[(*path_count)++] = (char *)"store_response";
  return true;
}

/* The text of the file that an option names: "" where it names none, NULL after printing what is wrong. */
static char *read_pem(struct tool *tool, const char *option) {
  const char *path = tool_text(tool, option, "");
  size_t byte_count;
  char *pem = path[0] == '\0' ? calloc(1, 1) : file_read(path, &byte_count);
  if (pem != NULL && path[0] != '\0' && strlen(pem) != byte_count) {
    tool_error("--%s: %s is not PEM", option, path);
    free(pem);
    pem = NULL;
  }
  return pem;
}

/* Whom the rule trusts and as whom it goes; the texts are freed by free_trust, whatever is returned. */
static bool read_trust(struct tool *tool, Ringback__V1__CallbackRule *rule, char **paths, size_t *path_count) {
  rule->ca_certificates = read_pem(tool, "ca");
  rule->client_certificate = read_pem(tool, "client-cert");
  rule->client_key = read_pem(tool, "client-key");
  if (tool_given(tool, "ca"))
    paths[(*path_count)++] = (char *)"ca_certificates";
  if (tool_given(tool, "client-cert") || tool_given(tool, "client-key")) {
    paths[(*path_count)++] = (char *)"client_certificate";
    paths[(*path_count)++] = (char *)"client_key";
  }
  return rule->ca_certificates != NULL && rule->client_certificate != NULL && rule->client_key != NULL;
}

static void free_trust(Ringback__V1__CallbackRule *rule) {
  free(rule->ca_certificates);
  free(rule->client_certificate);
  free(rule->client_key);
}

int command_callback_set(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__CallbackRule rule = RINGBACK__V1__CALLBACK_RULE__INIT;
  struct rule_storage storage;
  char *paths[RULE_PATHS_MAX], *secrets[SECRETS_MAX];
  size_t path_count = 0, position = 0;
  rule.queue = tool_queue_name(tool, argv[0]);
  rule.etag = (char *)tool_text(tool, "etag", "");
  rule.secrets = secrets;
  for (const char *secret; (secret = tool_next_text(tool, "secret", &position)) != NULL;) {
    if (rule.n_secrets == SECRETS_MAX) {
      tool_error("--secret: at most %d", SECRETS_MAX);
      return TOOL_USAGE;
    }
    secrets[rule.n_secrets++] = (char *)secret;
  }
  if (rule.queue == NULL || !tool_exclude(tool, "secret", "no-secrets") ||
      !tool_exclude(tool, "header", "no-headers") || !tool_exclude(tool, "allow", "no-allow") ||
      !tool_exclude(tool, "store-response", "no-store-response"))
    return TOOL_USAGE;
  rule.state = tool_given(tool, "off") ? RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF
                                       : RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_ON;
  paths[path_count++] = (char *)"state";
  if (tool_given(tool, "url")) {
    rule.url = (char *)tool_text(tool, "url", "");
    paths[path_count++] = (char *)"url";
  }
  if (rule.n_secrets > 0 || tool_given(tool, "no-secrets"))
    paths[path_count++] = (char *)"secrets";
  for (int i = 0; tool_given(tool, "format") && callback_formats[i] != NULL; i++)
    if (strcmp(callback_formats[i], tool_text(tool, "format", "")) == 0)
      rule.format = (Ringback__V1__CallbackFormat)(i + 1);
  if (tool_given(tool, "format"))
    paths[path_count++] = (char *)"format";
  if (!read_headers(tool, &rule, &storage) || !read_schedule(tool, &rule, &storage))
    return TOOL_USAGE;
  if (rule.n_headers > 0 || tool_given(tool, "no-headers"))
    paths[path_count++] = (char *)"headers";
  if (tool_given(tool, "schedule"))
    paths[path_count++] = (char *)"schedule";
  read_events(tool, &rule, &storage, paths, &path_count);
  rule.concurrency = (int32_t)tool_number(tool, "concurrency", 0);
  if (tool_given(tool, "concurrency"))
    paths[path_count++] = (char *)"concurrency";
  rule.max_age = message_duration(tool, "max-age", &storage.max_age);
  if (rule.max_age != NULL)
    paths[path_count++] = (char *)"max_age";
  if (!read_more(tool, &rule, &storage, paths, &path_count))
    return TOOL_USAGE;
  rule.timeout = message_duration(tool, "callback-timeout", &storage.timeout);
  if (rule.timeout != NULL)
    paths[path_count++] = (char *)"timeout";
  bool readable = read_trust(tool, &rule, paths, &path_count);
  int status = readable ? update_rule(tool, &rule, paths, path_count, NULL) : TOOL_USAGE;
  free_trust(&rule);
  return status;
}

Ringback__V1__GetCallbackRuleResponse *callback_get_rule(struct tool *tool, char *queue, int *status) {
  Ringback__V1__GetCallbackRuleRequest request = RINGBACK__V1__GET_CALLBACK_RULE_REQUEST__INIT;
  request.queue = queue;
  return tool_call(tool, "/ringback.v1.CallbackService/GetCallbackRule", &request.base, status);
}

int command_callback_show(struct tool *tool, int argc, char **argv) {
  (void)argc;
  char *queue = tool_queue_name(tool, argv[0]);
  if (queue == NULL)
    return TOOL_USAGE;
  int status = TOOL_OK;
  Ringback__V1__GetCallbackRuleResponse *response = callback_get_rule(tool, queue, &status);
  if (response == NULL)
    return status;
  show_rule(tool, &response->base, response->rule);
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_callback_rotate(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__RotateSigningSecretRequest request = RINGBACK__V1__ROTATE_SIGNING_SECRET_REQUEST__INIT;
  Google__Protobuf__Duration overlap;
  request.queue = tool_queue_name(tool, argv[0]);
  if (request.queue == NULL)
    return TOOL_USAGE;
  request.overlap = message_duration(tool, "overlap", &overlap);
  int status = TOOL_OK;
  Ringback__V1__RotateSigningSecretResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/RotateSigningSecret", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s\n", response->secret);
  ringback_free(&response->base);
  return TOOL_OK;
}

static int delete_rule(struct tool *tool, char *queue) {
  Ringback__V1__DeleteCallbackRuleRequest request = RINGBACK__V1__DELETE_CALLBACK_RULE_REQUEST__INIT;
  request.queue = queue;
  int status = TOOL_OK;
  Ringback__V1__DeleteCallbackRuleResponse *response =
      tool_call(tool, "/ringback.v1.CallbackService/DeleteCallbackRule", &request.base, &status);
  if (response == NULL)
    return status;
  if (tool->json)
    tool_print_json(&response->base);
  else
    printf("%s calls nobody back\n", message_queue_short(queue));
  ringback_free(&response->base);
  return TOOL_OK;
}

int command_callback_off(struct tool *tool, int argc, char **argv) {
  (void)argc;
  Ringback__V1__CallbackRule rule = RINGBACK__V1__CALLBACK_RULE__INIT;
  char *paths[] = {(char *)"state"};
  rule.queue = tool_queue_name(tool, argv[0]);
  rule.state = RINGBACK__V1__CALLBACK_RULE_STATE__CALLBACK_RULE_STATE_OFF;
  if (rule.queue == NULL || !tool_needs(tool, "wait-timeout", "wait") || !tool_exclude(tool, "delete", "wait"))
    return TOOL_USAGE;
  if (tool_given(tool, "delete"))
    return delete_rule(tool, rule.queue);
  Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;
  int64_t wait_ms = tool_number(tool, "wait-timeout", DRAIN_MAX_MS);
  wait.seconds = wait_ms / 1000;
  wait.nanos = (int32_t)(wait_ms % 1000 * 1000000);
  if (tool_given(tool, "wait"))
    tool->timeout_ms = wait_ms + CALL_MS;
  return update_rule(tool, &rule, paths, 1, tool_given(tool, "wait") ? &wait : NULL);
}
