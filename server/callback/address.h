/* The address guard: which addresses a callback may be sent to. Pure; it decides on binary addresses only, never on
 * names or texts.
 *
 * Denied are all private, local, reserved and documentation ranges of the IANA special-purpose registries, and whatever
 * is not IPv4 or IPv6. Of IPv6 only 2000::/3 is open, less its special ranges. An IPv4 address inside an IPv6 one
 * (mapped, compatible, NAT64, 6to4, Teredo) must be allowed in its own right too. The operator's ranges come first:
 * what they contain is allowed.
 */
#ifndef RINGBACK_SERVER_CALLBACK_ADDRESS_H
#define RINGBACK_SERVER_CALLBACK_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define ADDRESS_RANGES_MAX 64
#define ADDRESS_TEXT_SIZE INET6_ADDRSTRLEN

struct address_range {
  int family; /* AF_INET or AF_INET6 */
  unsigned char bytes[16];
  unsigned prefix_bits;
};

/* The ranges an operator allows; all zero is the empty set. */
struct address_set {
  size_t count;
  struct address_range ranges[ADDRESS_RANGES_MAX];
};

/* Reads `CIDR[,CIDR...]`, such as `127.0.0.0/8,fd00::/8`; an address without a length is that address alone; the empty
 * text is the empty set. NULL, or what is wrong (a static string). */
const char *address_set_parse(const char *list, struct address_set *set);

/* Whether this address may be dialled. *why (may be NULL) gets a static text when not. */
bool address_is_allowed(const struct address_set *set, const struct sockaddr *address, const char **why);

/* Whether every range of `inner` lies in a range of `outer`; *stray (may be NULL) gets the place of the first that does
 * not. */
bool address_set_contains(const struct address_set *outer, const struct address_set *inner, size_t *stray);

/* The address without its port, as text; "?" for other families. */
void address_print(const struct sockaddr *address, char text[ADDRESS_TEXT_SIZE]);

#endif
