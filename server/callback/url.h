/* Callback URLs: what is accepted, and what host they name.
 *
 * Accepted is an absolute http or https URL of at most 2,048 bytes of printable ASCII (RFC 3986; other characters
 * percent-encoded, other host names in their IDNA form), without user information. The parser is libcurl's own, so that
 * what is checked here is what the sender dials. Pure: no look-ups, no state.
 */
#ifndef RINGBACK_SERVER_CALLBACK_URL_H
#define RINGBACK_SERVER_CALLBACK_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define URL_BYTES_MAX 2048
#define URL_HOST_SIZE 256

struct callback_url {
  bool https;
  char host[URL_HOST_SIZE]; /* lower case, an IPv6 address without its brackets */
  uint16_t port;
  bool is_address; /* the host is an address, in whatever form it was written (127.1, 0x7f.1, 2130706433) */
  struct sockaddr_storage address; /* only when is_address, with the port */
};

/* NULL, or what is wrong with the text, to follow the field's name ("must not carry user information"; static).
 * *url is only valid after NULL. */
const char *url_parse(const char *text, size_t length, struct callback_url *url);

struct Curl_URL;

/* The same, and hands over libcurl's parse of it (a CURLU, to be cleaned up), so that it need not parse it again;
 * *parsed is NULL after an error. */
const char *url_parse_for_curl(const char *text, size_t length, struct callback_url *url, struct Curl_URL **parsed);

/* Reads an address in any form that inet_aton or inet_pton takes, with one trailing dot allowed. */
bool url_host_to_address(const char *host, uint16_t port, struct sockaddr_storage *address);

#endif
