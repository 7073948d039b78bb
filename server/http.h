/* The HTTP side port: /metrics in Prometheus's text format and /healthz. The only module of the daemon that knows
 * libmicrohttpd.
 *
 * One thread of the library's own; GET and HEAD only; at most HTTP_CONNECTIONS_MAX connections.
 */
#ifndef RINGBACK_SERVER_HTTP_H
#define RINGBACK_SERVER_HTTP_H

#include <stdbool.h>
#include <stdio.h>

#define HTTP_CONNECTIONS_MAX 64

struct http;

/* Both run on the side port's thread. */
struct http_sources {
  void *context;
  void (*write_metrics)(void *context, FILE *file);
  bool (*is_healthy)(void *context);
};

/* address: HOST:PORT, port 0 for any. NULL after logging why not. */
struct http *http_create(const char *address, const struct http_sources *sources);
int http_port(const struct http *http);
void http_destroy(struct http *http);

#endif
