/* How long to wait before a call is made again, and the ids that make repeating safe. */
#ifndef RINGBACK_CLIENT_LIB_RETRY_H
#define RINGBACK_CLIENT_LIB_RETRY_H

#include <stdint.h>

#define RETRY_FIRST_MS 100
#define RETRY_LONGEST_MS 10000
#define RETRY_ATTEMPTS_DEFAULT 5
#define REQUEST_ID_BYTES 37

/* The wait after the failed attempt number `attempt` (1 is the first): twice as long each time, between half and all of
 * it as `random` has it. server_delay_ms, where it is not negative, is the least. */
int64_t retry_wait_ms(int attempt, int64_t server_delay_ms, uint64_t random);

uint64_t retry_random(void);
/* A random UUID (RFC 9562, version 4), with its NUL. */
void retry_request_id(char id[REQUEST_ID_BYTES]);

#endif
