/* See address.h. Two tables of ranges and one walk over them. */
#include "server/callback/address.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

struct denied_range {
  unsigned char bytes[16];
  unsigned prefix_bits;
  const char *why;
};

/* The IANA IPv4 special-purpose address registry, with multicast and class E. */
static const struct denied_range denied_four[] = {
    {{0}, 8, "this network (0.0.0.0/8)"},
    {{10}, 8, "private (10.0.0.0/8)"},
    {{100, 64}, 10, "shared address space (100.64.0.0/10)"},
    {{127}, 8, "loopback (127.0.0.0/8)"},
    {{169, 254}, 16, "link-local (169.254.0.0/16)"},
    {{172, 16}, 12, "private (172.16.0.0/12)"},
    {{192, 0, 0}, 24, "IETF protocol assignments (192.0.0.0/24)"},
    {{192, 0, 2}, 24, "documentation (192.0.2.0/24)"},
    {{192, 31, 196}, 24, "AS112 (192.31.196.0/24)"},
    {{192, 52, 193}, 24, "AMT (192.52.193.0/24)"},
    {{192, 88, 99}, 24, "6to4 relays (192.88.99.0/24)"},
    {{192, 168}, 16, "private (192.168.0.0/16)"},
    {{192, 175, 48}, 24, "AS112 (192.175.48.0/24)"},
    {{198, 18}, 15, "benchmarking (198.18.0.0/15)"},
    {{198, 51, 100}, 24, "documentation (198.51.100.0/24)"},
    {{203, 0, 113}, 24, "documentation (203.0.113.0/24)"},
    {{224}, 4, "multicast (224.0.0.0/4)"},
    {{240}, 4, "reserved (240.0.0.0/4)"},
};

/* Within 2000::/3; everything outside it is denied anyway. */
static const struct denied_range denied_six[] = {
    {{0x20, 0x01, 0x00}, 23, "IETF protocol assignments (2001::/23)"},
    {{0x20, 0x01, 0x0d, 0xb8}, 32, "documentation (2001:db8::/32)"},
    {{0x20, 0x02}, 16, "6to4 (2002::/16)"},
    {{0x3f, 0xff, 0x00}, 20, "documentation (3fff::/20)"},
};

/* Where an IPv6 address carries an IPv4 one. */
struct embedding {
  unsigned char bytes[16];
  unsigned prefix_bits;
  unsigned offset;
  unsigned char mask; /* Teredo writes the client's address inverted */
};
static const struct embedding embeddings[] = {
    {{0}, 96, 12, 0},
    {{0, 0x64, 0xff, 0x9b}, 96, 12, 0},
    {{0x20, 0x02}, 16, 2, 0},
    {{0x20, 0x01, 0, 0}, 32, 4, 0},
    {{0x20, 0x01, 0, 0}, 32, 12, 0xff},
};
static const unsigned char mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool prefix_matches(const unsigned char *address, const unsigned char *range, unsigned bits) {
  unsigned whole = bits / 8, rest = bits % 8;
  if (memcmp(address, range, whole) != 0)
    return false;
  if (!rest)
    return true;
  unsigned char mask = (unsigned char)(0xff00u >> rest);
  return ((address[whole] ^ range[whole]) & mask) == 0;
}

static bool operator_allows(const struct address_set *set, int family, const unsigned char *bytes) {
  for (size_t i = 0; set && i < set->count; i++)
    if (set->ranges[i].family == family && prefix_matches(bytes, set->ranges[i].bytes, set->ranges[i].prefix_bits))
      return true;
  return false;
}

static const char *find_denied(const struct denied_range *ranges, size_t count, const unsigned char *bytes) {
  for (size_t i = 0; i < count; i++)
    if (prefix_matches(bytes, ranges[i].bytes, ranges[i].prefix_bits))
      return ranges[i].why;
  return 0;
}

static const char *why_four_is_denied(const struct address_set *set, const unsigned char *bytes) {
  if (operator_allows(set, AF_INET, bytes))
    return 0;
  return find_denied(denied_four, COUNT(denied_four), bytes);
}

static const char *why_six_is_denied(const struct address_set *set, const unsigned char *bytes) {
  /* A mapped address dials the IPv4 one and nothing else, so that one alone decides. */
  if (memcmp(bytes, mapped_prefix, sizeof(mapped_prefix)) == 0)
    return why_four_is_denied(set, bytes + 12);
  if (!operator_allows(set, AF_INET6, bytes)) {
    static const unsigned char global[16] = {0x20};
    if (!prefix_matches(bytes, global, 3))
      return "not a global unicast address (2000::/3)";
    const char *why = find_denied(denied_six, COUNT(denied_six), bytes);
    if (why)
      return why;
  }
  /* ::1 and :: are no embedding: an operator who allows them means them. */
  static const unsigned char zeros[15] = {0};
  if (memcmp(bytes, zeros, sizeof(zeros)) == 0 && bytes[15] <= 1)
    return 0;
  for (size_t i = 0; i < COUNT(embeddings); i++) {
    if (!prefix_matches(bytes, embeddings[i].bytes, embeddings[i].prefix_bits))
      continue;
    unsigned char inner[4];
    for (unsigned k = 0; k < 4; k++)
      inner[k] = bytes[embeddings[i].offset + k] ^ embeddings[i].mask;
    const char *why = why_four_is_denied(set, inner);
    if (why)
      return why;
  }
  return 0;
}

bool address_is_allowed(const struct address_set *set, const struct sockaddr *address, const char **why) {
  const char *reason;
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)address;
    unsigned char bytes[4];
    memcpy(bytes, &four->sin_addr, sizeof(bytes));
    reason = why_four_is_denied(set, bytes);
  } else if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
    reason = why_six_is_denied(set, six->sin6_addr.s6_addr);
  } else {
    reason = "neither IPv4 nor IPv6";
  }
  if (why)
    *why = reason;
  return !reason;
}

static bool range_contains(const struct address_range *outer, const struct address_range *inner) {
  return outer->family == inner->family && outer->prefix_bits <= inner->prefix_bits &&
         prefix_matches(inner->bytes, outer->bytes, outer->prefix_bits);
}

bool address_set_contains(const struct address_set *outer, const struct address_set *inner, size_t *stray) {
  for (size_t i = 0; i < inner->count; i++) {
    size_t k = 0;
    while (k < outer->count && !range_contains(&outer->ranges[k], &inner->ranges[i]))
      k++;
    if (k < outer->count)
      continue;
    if (stray)
      *stray = i;
    return false;
  }
  return true;
}

static const char *parse_range(char *text, struct address_range *range) {
  unsigned bits_max, bits;
  char *slash = strchr(text, '/');
  if (slash)
    *slash = 0;
  if (inet_pton(AF_INET, text, range->bytes) == 1) {
    range->family = AF_INET;
    bits_max = 32;
  } else if (inet_pton(AF_INET6, text, range->bytes) == 1) {
    range->family = AF_INET6;
    bits_max = 128;
  } else {
    return "is not a list of CIDR ranges such as 127.0.0.0/8,fd00::/8";
  }
  bits = bits_max;
  if (slash) {
    size_t digits = strspn(slash + 1, "0123456789");
    if (!digits || digits > 3 || slash[1 + digits])
      return "has a prefix length that is not a number";
    bits = (unsigned)strtoul(slash + 1, 0, 10);
    if (bits > bits_max)
      return "has a prefix length beyond the address";
  }
  /* A bit set beyond the length is most often a slip of the pen that would open more than was meant. */
  for (unsigned i = bits; i < bits_max; i++)
    if (range->bytes[i / 8] & (0x80u >> (i % 8)))
      return "has a range whose address has bits set beyond its prefix length";
  range->prefix_bits = bits;
  return 0;
}

const char *address_set_parse(const char *list, struct address_set *set) {
  memset(set, 0, sizeof(*set));
  for (bool more = *list != 0; more;) {
    size_t length = strcspn(list, ",");
    const char *start = list;
    more = list[length] == ',';
    list += length + more;
    while (length && *start == ' ') {
      start++;
      length--;
    }
    while (length && start[length - 1] == ' ')
      length--;
    if (!length)
      return "has an empty range";
    char text[64];
    if (length >= sizeof(text))
      return "is not a list of CIDR ranges such as 127.0.0.0/8,fd00::/8";
    if (set->count == ADDRESS_RANGES_MAX)
      return "has more than 64 ranges";
    memcpy(text, start, length);
    text[length] = 0;
    const char *error = parse_range(text, &set->ranges[set->count]);
    if (error)
      return error;
    set->count++;
  }
  return 0;
}

void address_print(const struct sockaddr *address, char text[ADDRESS_TEXT_SIZE]) {
  const void *bytes = 0;
  if (address->sa_family == AF_INET)
    bytes = &((const struct sockaddr_in *)(const void *)address)->sin_addr;
  else if (address->sa_family == AF_INET6)
    bytes = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
  if (!bytes || !inet_ntop(address->sa_family, bytes, text, ADDRESS_TEXT_SIZE))
    memcpy(text, "?", 2);
}
