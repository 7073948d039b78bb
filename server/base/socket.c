/* See socket.h. */
#include "server/base/socket.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOST_SIZE = 256 };

/* A listening socket, or -1 with errno. Without SO_REUSEPORT, so that a taken port is noticed. */
static int listen_on(const struct addrinfo *address) {
  const int yes = 1;
  int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, 128) != 0) {
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
  }
  return fd;
}

int socket_listen(const char *address, const char **why) {
  char host[HOST_SIZE] = "";
  const char *colon = strrchr(address, ':');
  size_t length = colon ? (size_t)(colon - address) : 0;
  *why = "is no HOST:PORT";
  if (!colon || length == 0 || length >= sizeof host)
    return -1;
  memcpy(host, address, length);
  host[length] = 0;
  char *name = host;
  if (host[0] == '[' && host[length - 1] == ']') {
    host[length - 1] = 0;
    name = host + 1;
  }
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  struct addrinfo *addresses;
  int error = getaddrinfo(name, colon + 1, &hints, &addresses);
  if (error) {
    *why = gai_strerror(error);
    return -1;
  }
  int fd = listen_on(addresses);
  *why = fd < 0 ? strerror(errno) : "";
  freeaddrinfo(addresses);
  return fd;
}
