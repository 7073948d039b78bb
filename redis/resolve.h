/* Host names looked up without blocking: by a thread of their own, which says through a descriptor that it is done. */
#ifndef RINGBACK_REDIS_RESOLVE_H
#define RINGBACK_REDIS_RESOLVE_H

#include <netdb.h>
#include <stdbool.h>

struct resolution;

/* Addresses written as numbers are done at once. NULL: no thread could be started. */
struct resolution *resolution_start(const char *host, int port);
/* Readable when it is done. */
int resolution_fd(const struct resolution *resolution);
/* False: not yet. *error is getaddrinfo's; the addresses live until resolution_release. */
bool resolution_result(struct resolution *resolution, const struct addrinfo **addresses, int *error);
/* At any time; a look-up under way ends by itself later. NULL is ignored. */
void resolution_release(struct resolution *resolution);

#endif
