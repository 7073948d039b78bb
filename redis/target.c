/* Where Redis is: the URL of --redis taken apart. Knows no socket. The password leaves this struct only to AUTH and is
 * never part of a text for people. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis/connection.h"

enum { URL_BYTES_MAX = 2048, DATABASE_MAX = 65535, DEFAULT_PORT = 6379 };

static int hex_value(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c = (char)tolower((unsigned char)c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A percent-decoded copy; NULL where the escapes are wrong or decode to NUL. */
static char *decode(const char *text, size_t length) {
  char *copy = malloc(length + 1);
  if (!copy)
    abort();
  size_t out = 0;
  for (size_t i = 0; i < length; i++) {
    int value = (unsigned char)text[i];
    if (text[i] == '%') {
      int high = i + 2 < length ? hex_value(text[i + 1]) : -1;
      int low = i + 2 < length ? hex_value(text[i + 2]) : -1;
      value = high < 0 || low < 0 ? 0 : high << 4 | low;
      i += 2;
    }
    if (value == 0) {
      free(copy);
      return NULL;
    }
    copy[out++] = (char)value;
  }
  copy[out] = 0;
  return copy;
}

/* A whole number from 0 to max and nothing else. */
static bool parse_number(const char *text, size_t length, int max, int *number) {
  int value = 0;
  if (length == 0 || length > 6)
    return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9')
      return false;
    value = value * 10 + (text[i] - '0');
  }
  *number = value;
  return value <= max;
}

static const char *parse_user(const char *text, size_t length, struct redis_target *target) {
  const char *colon = memchr(text, ':', length);
  if (!colon)
    return "a user needs a password: redis://user:password@host (a password alone is redis://:password@host)";
  size_t user_length = (size_t)(colon - text);
  if (user_length) {
    target->user = decode(text, user_length);
    if (!target->user)
      return "the user name has a wrong % escape";
  }
  target->password = decode(colon + 1, length - user_length - 1);
  if (!target->password)
    return "the password has a wrong % escape";
  return *target->password ? NULL : "the password is empty";
}

static const char *parse_address(const char *text, size_t length, struct redis_target *target) {
  const char *end = text + length;
  const char *host = text;
  const char *host_end;
  if (length && *text == '[') {
    host = text + 1;
    host_end = memchr(host, ']', length - 1);
    if (!host_end)
      return "the IPv6 address has no closing bracket";
    text = host_end + 1;
  } else {
    host_end = memchr(text, ':', length);
    if (!host_end)
      host_end = end;
    text = host_end;
  }
  if (text != end &&
      (*text != ':' || !parse_number(text + 1, (size_t)(end - text - 1), 65535, &target->port) || !target->port))
    return "the port is not a number from 1 to 65535";
  target->host = host == host_end ? strdup("127.0.0.1") : decode(host, (size_t)(host_end - host));
  return target->host ? NULL : "the host has a wrong % escape";
}

static const char *parse_tcp(const char *text, struct redis_target *target) {
  size_t authority = strcspn(text, "/?#");
  const char *rest = text + authority;
  const char *at = memrchr(text, '@', authority);
  target->port = DEFAULT_PORT;
  if (at) {
    const char *wrong = parse_user(text, (size_t)(at - text), target);
    if (wrong)
      return wrong;
    authority -= (size_t)(at + 1 - text);
    text = at + 1;
  }
  const char *wrong = parse_address(text, authority, target);
  if (wrong)
    return wrong;
  if (*rest == '/')
    rest++;
  if (*rest && !parse_number(rest, strlen(rest), DATABASE_MAX, &target->database))
    return "after the address only /N with the number of the database is understood";
  return NULL;
}

static const char *parse_unix(const char *text, struct redis_target *target) {
  size_t before_path = strcspn(text, "/");
  if (before_path) {
    if (text[before_path - 1] != '@')
      return "a Unix socket needs an absolute path: unix:///path/to/socket";
    const char *wrong = parse_user(text, before_path - 1, target);
    if (wrong)
      return wrong;
    text += before_path;
  }
  size_t path = strcspn(text, "?#");
  target->unix_path = decode(text, path);
  if (!target->unix_path)
    return "the path has a wrong % escape";
  if (path < 2)
    return "a Unix socket needs an absolute path: unix:///path/to/socket";
  const char *query = text + path;
  if (*query &&
      (strncmp(query, "?db=", 4) || !parse_number(query + 4, strlen(query + 4), DATABASE_MAX, &target->database)))
    return "after the path only ?db=N with the number of the database is understood";
  return NULL;
}

static const char *parse(const char *url, struct redis_target *target) {
  if (strlen(url) > URL_BYTES_MAX)
    return "the URL is too long";
  if (!strncasecmp(url, "redis://", 8))
    return parse_tcp(url + 8, target);
  if (!strncasecmp(url, "unix://", 7))
    return parse_unix(url + 7, target);
  if (!strncasecmp(url, "redis+unix://", 13))
    return parse_unix(url + 13, target);
  if (!strncasecmp(url, "rediss://", 9))
    return "Redis over TLS is not supported by this build; use redis:// within a trusted network or a tunnel";
  return "a Redis URL begins with redis:// or unix://";
}

bool redis_target_parse(const char *url, struct redis_target *target, const char **reason) {
  memset(target, 0, sizeof *target);
  *reason = parse(url, target);
  if (*reason)
    redis_target_clear(target);
  return !*reason;
}

void redis_target_clear(struct redis_target *target) {
  if (target->password)
    explicit_bzero(target->password, strlen(target->password));
  free(target->unix_path);
  free(target->host);
  free(target->user);
  free(target->password);
  memset(target, 0, sizeof *target);
}

void redis_target_describe(const struct redis_target *target, char *text, size_t size) {
  const char *user = target->user ? target->user : "";
  const char *at = target->user ? "@" : "";
  if (target->unix_path)
    snprintf(text, size, target->database ? "unix://%s%s%s?db=%d" : "unix://%s%s%s", user, at, target->unix_path,
             target->database);
  else
    snprintf(text, size, strchr(target->host, ':') ? "redis://%s%s[%s]:%d/%d" : "redis://%s%s%s:%d/%d", user, at,
             target->host, target->port, target->database);
}
