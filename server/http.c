/* The HTTP side port: see http.h. */
#include "server/http.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/base/socket.h"

enum { IDLE_S_MAX = 10 };

struct http {
  struct MHD_Daemon *daemon;
  struct http_sources sources;
  int port;
};

/* Takes the text, which was made by malloc. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type, char *text,
                              size_t length) {
  struct MHD_Response *response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
  if (!response) {
    free(text);
    return MHD_NO;
  }
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
  enum MHD_Result result = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, const char *text) {
  char *copy = strdup(text);
  return copy ? answer(connection, status, "text/plain; charset=utf-8", copy, strlen(copy)) : MHD_NO;
}

static enum MHD_Result answer_metrics(struct http *http, struct MHD_Connection *connection) {
  char *text = NULL;
  size_t length = 0;
  FILE *file = open_memstream(&text, &length);
  if (!file)
    return MHD_NO;
  http->sources.write_metrics(http->sources.context, file);
  if (fclose(file) != 0) {
    free(text);
    return MHD_NO;
  }
  return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, length);
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *body, size_t *body_size, void **state) {
  (void)version;
  (void)body;
  (void)state;
  struct http *http = context;
  if (*body_size > 0) {
    *body_size = 0; /* a body nobody asked for is dropped */
    return MHD_YES;
  }
  if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
    return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
  if (strcmp(url, "/metrics") == 0)
    return answer_metrics(http, connection);
  if (strcmp(url, "/healthz") == 0)
    return http->sources.is_healthy(http->sources.context)
               ? answer_text(connection, MHD_HTTP_OK, "ok\n")
               : answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "Redis does not answer\n");
  return answer_text(connection, MHD_HTTP_NOT_FOUND, "there are /metrics and /healthz\n");
}

static int port_of(int fd) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address;
  memset(&address, 0, sizeof address);
  socklen_t size = sizeof address;
  if (getsockname(fd, &address.any, &size) != 0)
    return 0;
  return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

struct http *http_create(const char *address, const struct http_sources *sources) {
  const char *why;
  int fd = socket_listen(address, &why);
  if (fd < 0) {
    log_event(LOG_ERROR, "the side port cannot be opened", log_text("http", address), log_text("why", why));
    return NULL;
  }
  struct http *http = calloc(1, sizeof *http);
  if (!http)
    abort();
  http->sources = *sources;
  http->port = port_of(fd);
  http->daemon =
      MHD_start_daemon(MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, handle, http,
                       MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
                       MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S_MAX, MHD_OPTION_END);
  if (!http->daemon) {
    log_event(LOG_ERROR, "the side port cannot be served", log_text("http", address));
    close(fd);
    free(http);
    return NULL;
  }
  return http;
}

int http_port(const struct http *http) {
  return http->port;
}

void http_destroy(struct http *http) {
  MHD_stop_daemon(http->daemon);
  free(http);
}
