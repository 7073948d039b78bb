/* Page tokens: opaque text that carries a position and fits only the filter it was made for. Pure.
 *
 * A token is the base64url (RFC 4648, 5, without padding) of an 8-byte hash of filter and position and the position
 * itself. The hash tells a token of another filter or a damaged one; it is no protection against forging, and a
 * position gives access to nothing that the filter would not.
 */
#ifndef RINGBACK_SERVER_SERVICES_PAGE_TOKEN_H
#define RINGBACK_SERVER_SERVICES_PAGE_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "server/base/arena.h"

enum { POSITION_BYTES_MAX = 512 };

/* A hash to begin with, and to mix in what makes up a filter, one part after another (FNV-1a; parts cannot run into
 * each other). */
#define HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t hash_bytes(uint64_t hash, const void *data, size_t length);
uint64_t hash_text(uint64_t hash, const char *text);
uint64_t hash_number(uint64_t hash, int64_t number);

/* "" for the position "" (the end). */
char *page_token_write(struct arena *arena, uint64_t filter, const char *position);
/* The position; "" for the token "" (the beginning). NULL: not a token of this filter. */
const char *page_token_read(struct arena *arena, uint64_t filter, const char *token);

#endif
