/* Host names to addresses, asynchronously, with c-ares; its sockets go into the caller's poll. Belongs to one thread.
 *
 * Look-ups of the same name share one query. Answers are kept for their TTL, 1 s to 60 s, at most 1,024 names; failures
 * are not kept. The resolver judges nothing: whoever dials vets the addresses.
 */
#ifndef RINGBACK_SERVER_CALLBACK_RESOLVER_H
#define RINGBACK_SERVER_CALLBACK_RESOLVER_H

#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define RESOLVER_ADDRESSES_MAX 16
#define RESOLVER_FDS_MAX 64

struct resolver;

/* error NULL: 1 to RESOLVER_ADDRESSES_MAX addresses, without ports, that live until the function returns; else what
 * went wrong. A name with more addresses than that is an error too, because all of them must be vetted. It must not
 * begin a look-up. */
typedef void resolver_done(void *context, const struct sockaddr_storage *addresses, size_t count, const char *error);

/* servers: `address[:port],...`, or NULL for the system's. NULL when c-ares cannot be set up. */
struct resolver *resolver_create(const char *servers, int timeout_ms);
/* Look-ups that wait are forgotten: their done never runs. */
void resolver_destroy(struct resolver *resolver);

/* done runs once, from resolver_process, or right here when the answer is known. */
void resolver_lookup(struct resolver *resolver, const char *host, int64_t now_us, resolver_done *done, void *context);

/* What to poll for, at most RESOLVER_FDS_MAX; returns how many. */
size_t resolver_poll_fds(const struct resolver *resolver, struct pollfd *fds);
/* How long a poll may last; at most limit_ms. */
int resolver_timeout_ms(const struct resolver *resolver, int64_t now_us, int limit_ms);
void resolver_process(struct resolver *resolver, const struct pollfd *fds, size_t count, int64_t now_us);

#endif
