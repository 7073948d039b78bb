/* INFO says the version and the memory policy; CONFIG GET, where it is allowed, the durability. */
#include "redis/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis/ask.h"
#include "server/base/log.h"

enum { VERSION_LEAST = 7, VALUE_BYTES = 64 };

struct policy {
  char version[VALUE_BYTES];
  char software[VALUE_BYTES]; /* "valkey" where it says so */
  char appendonly[VALUE_BYTES], appendfsync[VALUE_BYTES], save[VALUE_BYTES];
  char maxmemory[VALUE_BYTES], eviction[VALUE_BYTES];
  bool config_forbidden;
};

static void copy(char *out, const char *text, size_t length) {
  snprintf(out, VALUE_BYTES, "%.*s", (int)(length < VALUE_BYTES ? length : VALUE_BYTES - 1), text);
}

/* The value of a line "name:value" of INFO. */
static void info_value(const char *info, const char *name, char *out) {
  size_t length = strlen(name);
  for (const char *line = info; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    if (!strncmp(line, name, length) && line[length] == ':') {
      copy(out, line + length + 1, strcspn(line + length + 1, "\r\n"));
      return;
    }
  }
}

static void take_info(void *context, const struct redis_value *reply) {
  struct policy *policy = context;
  const char *info = redis_text(reply, NULL);
  if (redis_kind(reply) == REDIS_ERROR)
    return;
  info_value(info, "redis_version", policy->version);
  info_value(info, "server_name", policy->software);
  info_value(info, "maxmemory_policy", policy->eviction);
  info_value(info, "maxmemory", policy->maxmemory);
  char aof[VALUE_BYTES] = "";
  info_value(info, "aof_enabled", aof);
  if (*aof)
    copy(policy->appendonly, *aof == '1' ? "yes" : "no", 3);
}

static void take_config(void *context, const struct redis_value *reply) {
  struct policy *policy = context;
  policy->config_forbidden = redis_kind(reply) == REDIS_ERROR;
  for (size_t i = 0; i + 1 < redis_count(reply); i += 2) {
    const char *name = redis_text(redis_at(reply, i), NULL);
    size_t length;
    const char *value = redis_text(redis_at(reply, i + 1), &length);
    char *out = !strcmp(name, "appendonly")         ? policy->appendonly
                : !strcmp(name, "appendfsync")      ? policy->appendfsync
                : !strcmp(name, "save")             ? policy->save
                : !strcmp(name, "maxmemory")        ? policy->maxmemory
                : !strcmp(name, "maxmemory-policy") ? policy->eviction
                                                    : NULL;
    if (out)
      copy(out, value, length);
  }
}

static bool ask_all(struct redis_connection *connection, int timeout_ms, struct policy *policy, const char **reason) {
  static const char *const info[] = {"INFO"};
  static const char *const config[] = {"CONFIG", "GET",       "appendonly",      "appendfsync",
                                       "save",   "maxmemory", "maxmemory-policy"};
  if (!redis_ask(connection, timeout_ms, info, 1, take_info, policy, reason))
    return false;
  /* Before 7 CONFIG GET took one name only, and the version is refused anyway. */
  return strtol(policy->version, NULL, 10) < VERSION_LEAST ||
         redis_ask(connection, timeout_ms, config, sizeof config / sizeof *config, take_config, policy, reason);
}

static const char *known(const char *value) {
  return *value ? value : "unknown";
}

static void report(const struct redis_target *target, const struct policy *policy) {
  char where[512];
  redis_target_describe(target, where, sizeof where);
  log_event(LOG_INFO, "redis", log_text("target", where),
            log_text("server", *policy->software ? policy->software : "redis"),
            log_text("version", known(policy->version)), log_text("appendonly", known(policy->appendonly)),
            log_text("appendfsync", known(policy->appendfsync)), log_text("save", policy->save),
            log_text("maxmemory", known(policy->maxmemory)), log_text("maxmemory_policy", known(policy->eviction)));
  if (policy->config_forbidden)
    log_event(LOG_WARN, "redis does not tell its configuration: durability and memory policy are not known for certain",
              log_text("target", where));
  else if (strcmp(policy->appendonly, "yes"))
    log_event(LOG_WARN, "redis keeps no append-only file: acknowledged jobs are lost when it ends unexpectedly",
              log_text("target", where));
  else if (strcmp(policy->appendfsync, "always"))
    log_event(LOG_WARN, "redis does not sync each write: the last acknowledged jobs are lost when its machine fails",
              log_text("appendfsync", policy->appendfsync));
}

enum policy_result redis_policy_check(const struct redis_target *target, int timeout_ms, char *text, size_t size) {
  struct policy policy = {0};
  const char *reason;
  struct redis_connection *connection = redis_connection_create_plain(target);
  enum policy_result result = POLICY_OK;
  text[0] = 0;
  if (!ask_all(connection, timeout_ms, &policy, &reason)) {
    snprintf(text, size, "%s", reason);
    result = POLICY_UNREACHABLE;
  } else if (!*policy.version) {
    snprintf(text, size, "Redis does not tell its version: its user needs the INFO command");
    result = POLICY_REFUSED;
  } else if (strtol(policy.version, NULL, 10) < VERSION_LEAST) {
    snprintf(text, size, "Redis %s is too old: version %d or later is needed, or Valkey", policy.version,
             VERSION_LEAST);
    result = POLICY_REFUSED;
  } else if (*policy.eviction && strcmp(policy.eviction, "noeviction")) {
    snprintf(text, size,
             "Redis has maxmemory-policy %s and would throw jobs away when memory is short: set it to noeviction",
             policy.eviction);
    result = POLICY_REFUSED;
  } else {
    report(target, &policy);
  }
  redis_connection_destroy(connection);
  return result;
}
