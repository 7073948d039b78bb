/* See resolver.h. A hash table of names; a name either has an answer or has waiters and a query under way. A query that
 * outlives its time is cut loose: its waiters get their error, and its memory is freed when c-ares gives up by itself.
 */
#include "server/callback/resolver.h"

#include <ares.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define NAMES_MAX 1024
#define BUCKETS 256
#define TTL_MIN_S 1
#define TTL_MAX_S 60
#define TRY_TIMEOUT_MS 1000
#define TRIES 3

struct waiter {
  struct waiter *next;
  resolver_done *done;
  void *context;
};

struct name {
  struct name *next;         /* in its bucket */
  struct name *next_pending; /* in the list of queries */
  struct resolver *resolver; /* NULL: cut loose */
  struct waiter *waiters;
  bool known;
  int64_t until_us; /* known: when the answer expires; else when the query has taken too long */
  size_t count;
  struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
  char host[];
};

struct resolver {
  ares_channel channel;
  char *servers;
  int timeout_ms;
  struct timespec configured; /* resolv.conf's time when the channel was made */
  size_t queries;             /* that c-ares has, cut loose or not */
  size_t fd_count;
  struct pollfd fds[RESOLVER_FDS_MAX];
  size_t name_count;
  struct name *pending;
  struct name *buckets[BUCKETS];
};

/* --- the channel --- */

static void watch_socket(void *context, ares_socket_t fd, int readable, int writable) {
  struct resolver *resolver = context;
  short events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
  for (size_t i = 0; i < resolver->fd_count; i++) {
    if (resolver->fds[i].fd != fd)
      continue;
    if (events)
      resolver->fds[i].events = events;
    else
      resolver->fds[i] = resolver->fds[--resolver->fd_count];
    return;
  }
  /* A socket beyond the limit is not watched: its queries time out. */
  if (events && resolver->fd_count < RESOLVER_FDS_MAX)
    resolver->fds[resolver->fd_count++] = (struct pollfd){.fd = fd, .events = events};
}

static struct timespec configuration_time(void) {
  struct stat status;
  return stat("/etc/resolv.conf", &status) == 0 ? status.st_mtim : (struct timespec){0};
}

static bool channel_open(struct resolver *resolver) {
  struct ares_options options = {
      .timeout = TRY_TIMEOUT_MS, .tries = TRIES, .sock_state_cb = watch_socket, .sock_state_cb_data = resolver};
  int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
#ifdef ARES_OPT_QUERY_CACHE
  /* Answers are kept here, for a minute at most. */
  options.qcache_max_ttl = 0;
  mask |= ARES_OPT_QUERY_CACHE;
#endif
  resolver->configured = configuration_time();
  if (ares_init_options(&resolver->channel, &options, mask) != ARES_SUCCESS)
    return false;
  if (resolver->servers && ares_set_servers_ports_csv(resolver->channel, resolver->servers) != ARES_SUCCESS) {
    ares_destroy(resolver->channel);
    return false;
  }
  return true;
}

/* A network that changed rewrites resolv.conf; c-ares before 1.22 reads it only once. */
static void channel_refresh(struct resolver *resolver) {
  struct timespec time = configuration_time();
  if (resolver->queries || (time.tv_sec == resolver->configured.tv_sec && time.tv_nsec == resolver->configured.tv_nsec))
    return;
  ares_channel old = resolver->channel;
  if (channel_open(resolver))
    ares_destroy(old);
  else
    resolver->channel = old;
}

struct resolver *resolver_create(const char *servers, int timeout_ms) {
  if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
    return 0;
  struct resolver *resolver = calloc(1, sizeof(*resolver));
  if (!resolver)
    abort();
  resolver->timeout_ms = timeout_ms;
  resolver->servers = servers ? strdup(servers) : 0;
  if (channel_open(resolver))
    return resolver;
  free(resolver->servers);
  free(resolver);
  ares_library_cleanup();
  return 0;
}

/* --- names --- */

static struct name **bucket_of(struct resolver *resolver, const char *host) {
  uint32_t hash = 2166136261u;
  for (; *host; host++)
    hash = (hash ^ (unsigned char)*host) * 16777619u;
  return &resolver->buckets[hash % BUCKETS];
}

static struct name *name_find(struct resolver *resolver, const char *host) {
  for (struct name *name = *bucket_of(resolver, host); name; name = name->next)
    if (!strcmp(name->host, host))
      return name;
  return 0;
}

static void name_unlink(struct resolver *resolver, struct name *name) {
  struct name **link = bucket_of(resolver, name->host);
  while (*link != name)
    link = &(*link)->next;
  *link = name->next;
  resolver->name_count--;
}

static void pending_unlink(struct resolver *resolver, struct name *name) {
  struct name **link = &resolver->pending;
  while (*link != name)
    link = &(*link)->next_pending;
  *link = name->next_pending;
}

static void forget_known_names(struct resolver *resolver) {
  for (size_t i = 0; i < BUCKETS; i++) {
    for (struct name **link = &resolver->buckets[i]; *link;) {
      struct name *name = *link;
      if (!name->known) {
        link = &name->next;
        continue;
      }
      *link = name->next;
      resolver->name_count--;
      free(name);
    }
  }
}

static struct name *name_add(struct resolver *resolver, const char *host) {
  if (resolver->name_count >= NAMES_MAX)
    forget_known_names(resolver);
  size_t length = strlen(host);
  struct name *name = calloc(1, sizeof(*name) + length + 1);
  if (!name)
    abort();
  memcpy(name->host, host, length + 1);
  struct name **bucket = bucket_of(resolver, host);
  name->next = *bucket;
  *bucket = name;
  resolver->name_count++;
  return name;
}

static void waiters_answer(struct waiter *waiter, const struct name *name, const char *error) {
  while (waiter) {
    struct waiter *next = waiter->next;
    waiter->done(waiter->context, error ? 0 : name->addresses, error ? 0 : name->count, error);
    free(waiter);
    waiter = next;
  }
}

/* --- queries --- */

static const char *take_answer(struct name *name, const struct ares_addrinfo *info, int64_t *ttl_s) {
  *ttl_s = TTL_MAX_S;
  for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next) {
    if (node->ai_addrlen > sizeof(struct sockaddr_storage))
      return "an address of an unknown kind";
    if (name->count == RESOLVER_ADDRESSES_MAX)
      return "the name has more addresses than are looked at";
    memcpy(&name->addresses[name->count++], node->ai_addr, node->ai_addrlen);
    if (node->ai_ttl < *ttl_s)
      *ttl_s = node->ai_ttl;
  }
  if (*ttl_s < TTL_MIN_S)
    *ttl_s = TTL_MIN_S;
  return name->count ? 0 : "the name has no address";
}

struct query {
  struct resolver *resolver;
  struct name *name; /* whose resolver is NULL once it is cut loose */
  int64_t start_us;
};

static void query_done(void *context, int status, int timeouts, struct ares_addrinfo *info) {
  (void)timeouts;
  struct query *query = context;
  struct resolver *resolver = query->resolver;
  struct name *name = query->name;
  int64_t start_us = query->start_us;
  free(query);
  resolver->queries--;
  int64_t ttl_s = TTL_MIN_S;
  const char *error = 0;
  if (status != ARES_SUCCESS)
    error = ares_strerror(status);
  else if (name->resolver)
    error = take_answer(name, info, &ttl_s);
  ares_freeaddrinfo(info);
  if (!name->resolver) {
    free(name);
    return;
  }
  pending_unlink(resolver, name);
  struct waiter *waiters = name->waiters;
  name->waiters = 0;
  /* The TTL counts from the question, which errs on the short side. */
  name->until_us = start_us + ttl_s * 1000000;
  name->known = !error;
  if (error)
    name_unlink(resolver, name);
  waiters_answer(waiters, name, error);
  if (error)
    free(name);
}

static void query_start(struct resolver *resolver, struct name *name, int64_t now_us) {
  struct query *query = malloc(sizeof(*query));
  if (!query)
    abort();
  *query = (struct query){resolver, name, now_us};
  channel_refresh(resolver);
  name->resolver = resolver;
  name->until_us = now_us + (int64_t)resolver->timeout_ms * 1000;
  name->next_pending = resolver->pending;
  resolver->pending = name;
  resolver->queries++;
  struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};
  ares_getaddrinfo(resolver->channel, name->host, 0, &hints, query_done, query);
}

void resolver_lookup(struct resolver *resolver, const char *host, int64_t now_us, resolver_done *done, void *context) {
  struct name *name = name_find(resolver, host);
  if (name && name->known && name->until_us <= now_us) {
    name_unlink(resolver, name);
    free(name);
    name = 0;
  }
  if (name && name->known) {
    done(context, name->addresses, name->count, 0);
    return;
  }
  bool is_new = !name;
  if (is_new)
    name = name_add(resolver, host);
  struct waiter *waiter = malloc(sizeof(*waiter));
  if (!waiter)
    abort();
  *waiter = (struct waiter){name->waiters, done, context};
  name->waiters = waiter;
  if (is_new)
    query_start(resolver, name, now_us);
}

static void cut_loose_the_late(struct resolver *resolver, int64_t now_us) {
  for (struct name **link = &resolver->pending; *link;) {
    struct name *name = *link;
    if (name->until_us > now_us) {
      link = &name->next_pending;
      continue;
    }
    *link = name->next_pending;
    name_unlink(resolver, name);
    name->resolver = 0;
    struct waiter *waiters = name->waiters;
    name->waiters = 0;
    waiters_answer(waiters, name, "no answer in time");
    /* A continuation may have begun another query: start over. */
    link = &resolver->pending;
  }
}

/* --- polling --- */

size_t resolver_poll_fds(const struct resolver *resolver, struct pollfd *fds) {
  memcpy(fds, resolver->fds, resolver->fd_count * sizeof(*fds));
  return resolver->fd_count;
}

int resolver_timeout_ms(const struct resolver *resolver, int64_t now_us, int limit_ms) {
  if (!resolver->queries)
    return limit_ms;
  struct timeval limit = {limit_ms / 1000, (limit_ms % 1000) * 1000}, room;
  const struct timeval *wait = ares_timeout(resolver->channel, &limit, &room);
  int wait_ms = (int)(wait->tv_sec * 1000 + (wait->tv_usec + 999) / 1000);
  for (const struct name *name = resolver->pending; name; name = name->next_pending) {
    int64_t left_ms = name->until_us > now_us ? (name->until_us - now_us + 999) / 1000 : 0;
    if (left_ms < wait_ms)
      wait_ms = (int)left_ms;
  }
  return wait_ms;
}

void resolver_process(struct resolver *resolver, const struct pollfd *fds, size_t count, int64_t now_us) {
  if (!resolver->queries)
    return;
  for (size_t i = 0; i < count; i++)
    ares_process_fd(resolver->channel, fds[i].revents & (POLLIN | POLLERR | POLLHUP) ? fds[i].fd : ARES_SOCKET_BAD,
                    fds[i].revents & POLLOUT ? fds[i].fd : ARES_SOCKET_BAD);
  /* Once more for its time-outs. */
  ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  cut_loose_the_late(resolver, now_us);
}

void resolver_destroy(struct resolver *resolver) {
  if (!resolver)
    return;
  for (struct name *name = resolver->pending; name;) {
    struct name *next = name->next_pending;
    name_unlink(resolver, name);
    name->resolver = 0;
    for (struct waiter *waiter = name->waiters; waiter;) {
      struct waiter *next_waiter = waiter->next;
      free(waiter);
      waiter = next_waiter;
    }
    name = next;
  }
  resolver->pending = 0;
  ares_destroy(resolver->channel);
  forget_known_names(resolver);
  free(resolver->servers);
  free(resolver);
  ares_library_cleanup();
}
