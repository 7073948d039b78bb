/* What curl's transfers wait for: their sockets in one epoll and their earliest timer. A turn costs what is ready, not
 * what is in flight. Belongs to sender.c.
 */
#ifndef RINGBACK_SERVER_CALLBACK_SENDER_LOOP_H
#define RINGBACK_SERVER_CALLBACK_SENDER_LOOP_H

#include <curl/curl.h>
#include <stddef.h>
#include <stdint.h>

struct sender_loop;

/* Attaches itself to the multi handle, which must be detached or cleaned up before the loop is destroyed. NULL when the
 * kernel gives no epoll. */
struct sender_loop *sender_loop_create(CURLM *multi);
void sender_loop_destroy(struct sender_loop *loop);

/* Readable when a socket is ready. */
int sender_loop_fd(const struct sender_loop *loop);

/* How long there is nothing to do unless a socket is ready; at most limit_ms. */
int sender_loop_timeout_ms(const struct sender_loop *loop, int64_t now_us, int limit_ms);

/* Runs what is due: new transfers and those whose time is up. */
void sender_loop_run_timers(struct sender_loop *loop, int64_t now_us);

/* Moves along the transfers whose sockets are ready, a bounded number of them. */
void sender_loop_run_sockets(struct sender_loop *loop);

/* Must be told of every socket that is opened for a transfer. */
void sender_loop_opened(struct sender_loop *loop, int fd);

#endif
