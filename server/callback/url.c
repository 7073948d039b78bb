/* See url.h. The rules that libcurl's parser is too kind about (missing slashes, spaces, empty hosts, zones) are
 * checked here before or after it.
 */
#include "server/callback/url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool only_printable_ascii(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] >= 0x7f)
      return false;
  return true;
}

/* libcurl takes http:host and http:///host too; an absolute URL has exactly two slashes before its host. */
static bool has_http_scheme(const char *text, bool *https) {
  size_t scheme = 0;
  if (!strncasecmp(text, "http://", 7))
    scheme = 7;
  else if (!strncasecmp(text, "https://", 8))
    scheme = 8;
  *https = scheme == 8;
  return scheme && text[scheme] != '/' && text[scheme] != '\\';
}

bool url_host_to_address(const char *host, uint16_t port, struct sockaddr_storage *address) {
  memset(address, 0, sizeof(*address));
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
  if (strchr(host, ':') && inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    return true;
  }
  char plain[URL_HOST_SIZE];
  size_t length = strlen(host);
  if (length == 0 || length >= sizeof(plain))
    return false;
  memcpy(plain, host, length + 1);
  if (plain[length - 1] == '.')
    plain[length - 1] = 0;
  memset(address, 0, sizeof(*address));
  struct sockaddr_in *four = (struct sockaddr_in *)address;
  /* The first takes the usual form alone, in a tenth of the other's time. */
  if (inet_pton(AF_INET, plain, &four->sin_addr) != 1 && !inet_aton(plain, &four->sin_addr))
    return false;
  four->sin_family = AF_INET;
  four->sin_port = htons(port);
  return true;
}

static const char *take_host(CURLU *parsed, struct callback_url *url) {
  char *host = 0;
  if (curl_url_get(parsed, CURLUPART_HOST, &host, 0) != CURLUE_OK)
    return "has no host";
  size_t length = strlen(host);
  const char *start = host;
  if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
    start++;
    length -= 2;
  }
  const char *error = 0;
  if (length == 0 || (length == 1 && *start == '.'))
    error = "has no host";
  else if (length > 253 || !only_printable_ascii(start, length))
    error = "has a host name that is not a valid one";
  else {
    for (size_t i = 0; i < length; i++)
      url->host[i] = (char)(start[i] >= 'A' && start[i] <= 'Z' ? start[i] + 32 : start[i]);
    url->host[length] = 0;
  }
  curl_free(host);
  return error;
}

static const char *take_port(CURLU *parsed, struct callback_url *url) {
  char *port = 0;
  if (curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK)
    return "has no valid port";
  long number = strtol(port, 0, 10);
  curl_free(port);
  if (number < 1 || number > 65535)
    return "has no valid port";
  url->port = (uint16_t)number;
  return 0;
}

static bool has_part(CURLU *parsed, CURLUPart part) {
  char *text = 0;
  bool found = curl_url_get(parsed, part, &text, 0) == CURLUE_OK;
  curl_free(text);
  return found;
}

static const char *take_parts(CURLU *parsed, struct callback_url *url) {
  if (has_part(parsed, CURLUPART_USER) || has_part(parsed, CURLUPART_PASSWORD))
    return "must not carry user information";
  if (has_part(parsed, CURLUPART_ZONEID))
    return "must not name an IPv6 zone";
  const char *error = take_host(parsed, url);
  if (!error)
    error = take_port(parsed, url);
  if (!error)
    url->is_address = url_host_to_address(url->host, url->port, &url->address);
  return error;
}

const char *url_parse_for_curl(const char *text, size_t length, struct callback_url *url, CURLU **parsed) {
  *parsed = 0;
  memset(url, 0, sizeof(*url));
  if (length == 0)
    return "is empty";
  if (length > URL_BYTES_MAX)
    return "is longer than 2048 bytes";
  if (!only_printable_ascii(text, length))
    return "must be printable ASCII without spaces; percent-encode the rest";
  char copy[URL_BYTES_MAX + 1];
  memcpy(copy, text, length);
  copy[length] = 0;
  if (!has_http_scheme(copy, &url->https))
    return "must be an absolute http or https URL";

  CURLU *handle = curl_url();
  if (!handle)
    abort();
  const char *error = 0;
  CURLUcode code = curl_url_set(handle, CURLUPART_URL, copy, CURLU_DISALLOW_USER);
  if (code == CURLUE_USER_NOT_ALLOWED)
    error = "must not carry user information";
  else if (code == CURLUE_BAD_PORT_NUMBER)
    error = "has no valid port";
  else if (code != CURLUE_OK)
    error = "is not a valid URL";
  else
    error = take_parts(handle, url);
  if (error)
    curl_url_cleanup(handle);
  else
    *parsed = handle;
  return error;
}

const char *url_parse(const char *text, size_t length, struct callback_url *url) {
  CURLU *parsed;
  const char *error = url_parse_for_curl(text, length, url, &parsed);
  curl_url_cleanup(parsed);
  return error;
}
