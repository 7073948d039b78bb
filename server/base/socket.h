/* A listening TCP socket from an address as people write it. */
#ifndef RINGBACK_SERVER_BASE_SOCKET_H
#define RINGBACK_SERVER_BASE_SOCKET_H

/* Listens at HOST:PORT or [HOST]:PORT, at the first address of a name. The descriptor, or -1, and then *why says what
 * is wrong (text that lives at least until the thread's next error). */
int socket_listen(const char *address, const char **why);

#endif
