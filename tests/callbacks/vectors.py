"""What `addresses` tries: URLs, what their names resolve to, and what must come of each. Written from the specification, not from the server.

A vector's expectation is one of
  refused    no URL for a callback at all, whatever the operator allows
  denied     an address that is never dialled: refused where it is set, and blocked where it is dialled
  name       the same behind a name: taken where it is set, and blocked where it is dialled
  allowed    delivered, at the address named
  narrowed   the operator allows it and the rule's own ranges do not: blocked by that rule
  range      ranges that a rule may not have
  redirect   the answer of an allowed receiver points to a denied address; never followed
  steps      one attempt after another, each with its own outcome (a name that changes)
"""
import collections
import ipaddress
import itertools

Vector = collections.namedtuple("Vector", "expect url address outcomes note ranges", defaults=("", (), "", ()))  # ranges: the rule's allowed_cidrs

# The wires that the test owns: the server's address and the world's, both as public as an address can look.
SERVER4, WORLD4, SERVER6, WORLD6 = "45.45.45.2", "45.45.45.1", "2a0a:45::2", "2a0a:45::1"
PUBLIC4, PUBLIC6, REDIRECTOR, PROXY = "93.184.216.34", "2606:2800:220:1::1", "9.9.9.9", "10.9.9.9"

TABLE4 = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24
192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4""".split()
TABLE6 = "2001::/23 2001:db8::/32 2002::/16 3fff::/20".split()
GLOBAL6 = ipaddress.ip_network("2000::/3")
RANGES4 = [ipaddress.ip_network(text) for text in TABLE4]
RANGES6 = [ipaddress.ip_network(text) for text in TABLE6]


def is_denied(address, allowed=()):
    """Whether a packet to this address would be a hole in the guard. What IPv6 addresses carry inside is not dialled by them."""
    address = ipaddress.ip_address(address)
    if any(address.version == net.version and address in net for net in allowed):
        return False
    if address.version == 4:
        return any(address in net for net in RANGES4)
    if address.ipv4_mapped:
        return is_denied(address.ipv4_mapped, allowed)
    return address not in GLOBAL6 or any(address in net for net in RANGES6)


def host(address):
    return f"[{address}]" if ":" in str(address) else str(address)


def on_the_wire(address):
    """Where the packets of a call to this address go: a mapped one is that of IPv4, and the unspecified one is loopback."""
    address = ipaddress.ip_address(address)
    address = getattr(address, "ipv4_mapped", None) or address
    return str(address) if int(address) else "127.0.0.1" if address.version == 4 else "::1"


def denied(text, address=None, note=""):
    return Vector("denied", f"http://{text}/", on_the_wire(address or text.strip("[]")), note=note)


# --- every range, first and last, and what lies beside it --------------------------------------------------------------------------------------

def at_the_ends_of_ranges():
    for net in RANGES4 + RANGES6:
        for address in (net[0], net[-1]):
            yield denied(host(address), note=f"an end of {net}")
    for text in ("::", "::1", "::2", "100::1", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5f00::1", "64:ff9b:1::1", "a000::1", "fbff::1",
                 "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
                 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
        yield denied(host(text), note="outside 2000::/3")


def beside_ranges():
    for net in RANGES4 + RANGES6 + [GLOBAL6]:
        inside = net is GLOBAL6
        for number in ((int(net[0]), int(net[-1])) if inside else (int(net[0]) - 1, int(net[-1]) + 1)):
            if 0 <= number < 1 << (32 if net.version == 4 else 128):
                address = ipaddress.ip_address(number) if net.version == 4 else ipaddress.IPv6Address(number)
                if not is_denied(address):
                    yield Vector("allowed", f"http://{host(address)}/", str(address), note=f"beside {net}")


INNER = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1"]


def embeddings(inner):
    """IPv6 addresses that carry an IPv4 address."""
    bits = int(ipaddress.ip_address(inner))
    return {"mapped": 0xffff << 32 | bits, "compatible": bits, "NAT64": 0x64ff9b << 96 | bits, "local NAT64": 0x64ff9b0001 << 80 | bits,
            "6to4": 0x2002 << 112 | bits << 80 | 1, "Teredo, its server": 0x20010000 << 96 | bits << 64,
            "Teredo, its client": 0x20010000 << 96 | (bits ^ 0xffffffff), "SIIT": 0xffff << 48 | bits}


def inside_six():
    for inner in INNER:
        for kind, number in embeddings(inner).items():
            yield denied(f"[{ipaddress.IPv6Address(number)}]", note=f"{inner} {kind}")
    yield denied("[64:ff9b::5db8:d822]", note="a public address by NAT64, which the operator did not allow")
    yield Vector("allowed", "http://[::ffff:93.184.216.34]/", PUBLIC4, note="a mapped public address is that address")


# --- spellings ---------------------------------------------------------------------------------------------------------------------------------

def spellings():
    loop = ["127.1", "127.0.1", "0x7f.1", "0x7f.0x0.0x0.0x1", "0x7f000001", "0X7F000001", "2130706433", "017700000001", "0177.0.0.1", "0177.0.0.01",
            "127.0.0.1.", "127.1.", "2130706433.", "0x7f.1.", "127.000.000.001", "127.0x1", "00000000000177.1", "%31%32%37.0.0.1", "127%2e0%2e0%2e1"]
    loop6 = ["[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0001]", "[0::1]", "[::0.0.0.1]"]
    mapped = ["[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[0000:0000:0000:0000:0000:ffff:7f00:0001]"]
    for text in loop + mapped:
        yield denied(text, "127.0.0.1", note="a spelling of loopback")
    for text in loop6:
        yield denied(text, "::1", note="a spelling of loopback")
    for text, address in (("2852039166", "169.254.169.254"), ("0xa9fea9fe", "169.254.169.254"), ("0xa9.0xfe.0xa9.0xfe", "169.254.169.254"),
                          ("169.16689662", "169.254.169.254"), ("0251.0376.0251.0376", "169.254.169.254"), ("169.254.43518", "169.254.169.254"),
                          ("10.1", "10.0.0.1"), ("012.1", "10.0.0.1"), ("167772161", "10.0.0.1"), ("192.168.257", "192.168.1.1"),
                          ("3232235777", "192.168.1.1"), ("0", "0.0.0.0"), ("0x0", "0.0.0.0"), ("0.", "0.0.0.0"), ("4294967295", "255.255.255.255"),
                          ("100.100.100.200", "100.100.100.200"), ("169.254.170.2", "169.254.170.2"), ("192.0.0.192", "192.0.0.192"),
                          ("[fd00:ec2::254]", "fd00:ec2::254"), ("[0:0:0:0:0:ffff:a9fe:a9fe]", "169.254.169.254")):
        yield denied(text, address, note="a spelling, or a cloud's metadata service")
    yield Vector("denied", "HTTP://127.0.0.1/", "127.0.0.1")
    yield Vector("denied", "https://127.0.0.1/", "127.0.0.1")
    yield Vector("denied", "https://[::1]/", "::1")
    yield Vector("denied", "https://169.254.169.254/latest/meta-data/iam/", "169.254.169.254")
    yield Vector("denied", "http://127.0.0.1?x=http://93.184.216.34/", "127.0.0.1")
    yield Vector("denied", "http://127.0.0.1#@93.184.216.34/", "127.0.0.1")
    for port in (22, 25, 2375, 2379, 3306, 5432, 5672, 6379, 7080, 7081, 8500, 9200, 10250, 11211, 27017, 65535):
        yield Vector("denied", f"http://127.0.0.1:{port}/", "127.0.0.1", note="a port of an internal service")
        yield Vector("denied", f"http://[::ffff:10.0.0.5]:{port}/", "10.0.0.5", note="a port of an internal service")


def no_urls():
    for url in ("http://user@127.0.0.1/", "http://user:word@127.0.0.1/", "http://93.184.216.34@127.0.0.1/", "http://127.0.0.1@93.184.216.34/",
                "http://93.184.216.34:80@127.0.0.1:80/", "http://@127.0.0.1/", "http://[::1%25lo]/", "http://[fe80::1%25eth0]/", "http://[::1]x/",
                "http://[127.0.0.1]/", "http://127.0.0.1:80:80/", "http://127.0.0.1:0x50/", "http://127.0.0.1:0/", "http://127.0.0.1:65536/",
                "http:///127.0.0.1/", "http:127.0.0.1/", "http:/127.0.0.1/", "//127.0.0.1/", "127.0.0.1", "http://", "http://./", "http://:80/",
                "http://\\127.0.0.1/", "http:\\\\127.0.0.1/", "http://127.0.0.1 /", "http:// 127.0.0.1/", "http://127.0.0.1\t/", "http://127.0.0.1\r\nHost: x/",
                "http://127.0.0.1\x00.example/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://ⓛocalhost/",
                "http://127.0.0.1%00.example/", "http://127.0.0.1%2f@93.184.216.34/", "http://93.184.216.34%40127.0.0.1/", "http://a%20b/", "file:///etc/passwd",
                "gopher://127.0.0.1:6379/_FLUSHALL", "dict://127.0.0.1:6379/", "ftp://127.0.0.1/", "ldap://127.0.0.1/", "unix:///run/x.sock",
                "ws://127.0.0.1/", "javascript:alert(1)", "data:,x", "http+unix://%2frun%2fx.sock/"):
        yield Vector("refused", url)


# --- names -------------------------------------------------------------------------------------------------------------------------------------

# name → (IPv4 addresses, IPv6 addresses), or the name that it is another name for. Any other name is answered with 127.0.0.1.
NAMES = {
    "loop.evil": (["127.0.0.1"], []), "ten.evil": (["10.0.0.1"], []), "meta.evil": (["169.254.169.254"], []), "zero.evil": (["0.0.0.0"], []),
    "shared.evil": (["100.64.7.7"], []), "documentation.evil": (["203.0.113.9"], []), "many.evil": (["127.0.0.1"] * 17, []),
    "multicast.evil": (["239.1.1.1"], []), "broadcast.evil": (["255.255.255.255"], []), "own.evil": (["127.45.45.45"], []),
    "loop6.evil": ([], ["::1"]), "any6.evil": ([], ["::"]), "mapped6.evil": ([], ["::ffff:127.0.0.1"]), "mapped10.evil": ([], ["::ffff:10.0.0.1"]),
    "compatible.evil": ([], ["::7f00:1"]), "nat64.evil": ([], ["64:ff9b::a00:1"]), "sixtofour.evil": ([], ["2002:a00:1::1"]),
    "teredo.evil": ([], ["2001:0:a00:1::1"]), "unique.evil": ([], ["fd00::1"]), "link.evil": ([], ["fe80::1"]), "site.evil": ([], ["fec0::1"]),
    "both.evil": (["127.0.0.1"], ["::1"]),
    "public-private.evil": ([PUBLIC4, "10.0.0.1"], []), "private-public.evil": (["10.0.0.1", PUBLIC4], []),
    "public-loop6.evil": ([PUBLIC4], ["::1"]), "private-public6.evil": (["127.0.0.1"], [PUBLIC6]), "public66.evil": ([], [PUBLIC6, "fd00::1"]),
    "last-of-16.evil": ([f"93.184.216.{i}" for i in range(1, 16)] + ["10.0.0.1"], []),
    "seventeen.evil": ([f"93.184.216.{i}" for i in range(1, 17)] + ["10.0.0.1"], []),
    "alias-loop.evil": "loop.evil", "alias-localhost.evil": "localhost", "alias-of-alias.evil": "alias-loop.evil", "alias-meta.evil": "meta.evil",
    "alias-public-private.evil": "public-private.evil", "metadata.google.internal": (["169.254.169.254"], []),
    "127.0.0.1.nip.evil": (["127.0.0.1"], []), "intranet.corp.evil": (["10.0.0.7"], []), "a.b.c.corp.evil": (["10.0.0.8"], []),
    "public.good": ([PUBLIC4], []), "public6.good": ([], [PUBLIC6]), "dual.good": ([PUBLIC4], [PUBLIC6]), "alias.good": "public.good",
    "mapped.good": ([], ["::ffff:" + PUBLIC4]), "two.good": ([PUBLIC4, "93.184.216.35"], []), "elsewhere.good": (["93.184.216.36"], []),
}
HOSTS = {"pinned.evil": "10.0.0.9", "localhost.localdomain": "127.0.0.1", "ip6-localhost": "::1"}  # of /etc/hosts, besides localhost

# Names whose answers change, one entry a question for IPv4; the last one stays. The TTL is the second's least that is kept, or a long one.
CHANGING = {
    "rebind.evil": ([[PUBLIC4], ["127.0.0.1"]], 0), "rebind-metadata.evil": ([[PUBLIC4], ["169.254.169.254"]], 1),
    "rebind-mixed.evil": ([[PUBLIC4], [PUBLIC4, "10.0.0.1"]], 0), "unbind.evil": ([["127.0.0.1"], [PUBLIC4]], 0),
    "there-and-back.evil": ([[PUBLIC4], ["10.0.0.1"], [PUBLIC4], ["192.168.0.1"]], 0), "kept.evil": ([[PUBLIC4], ["127.0.0.1"]], 3600),
}


def names():
    for name, answer in NAMES.items():
        target = answer
        while isinstance(target, str):
            target = NAMES.get(target) or (["127.0.0.1"], ["::1"])
        addresses = target[0] + target[1]
        if name.endswith(".good"):
            yield Vector("allowed", f"http://{name}/", on_the_wire(addresses[0]))
        else:
            bad = [a for a in addresses if is_denied(a)]
            only = len(bad) == len(addresses)
            yield Vector("name", f"http://{name}/", on_the_wire(bad[0]) if only else "", ("dns",) if len(addresses) > 16 else ())
    for name, address in HOSTS.items():
        yield Vector("name", f"http://{name}/", address, note="in /etc/hosts")
    for name in ("localhost", "localhost.", "LOCALHOST", "LocalHost.", "sub.localhost", "LOOP.evil", "loop.evil.", "Ten.EVIL.", "unknown.test", "localtest.me",
                 "127.0.0.1.5", "256.256.256.256", "4294967296", "0x100000000", "08.0.0.1", "127.0.0.1.xip.io", "-", "_", "a..b", "0x7f.1.example",
                 "l%6fcalhost", "%6c%6f%63%61%6c%68%6f%73%74", "xn--localhost", "intranet", "a.b.c"):
        yield Vector("name", f"http://{name}/", "", ("dns",), "resolved to loopback, or to nothing")
    yield Vector("name", "http://loop.evil:6379/", "127.0.0.1")
    yield Vector("name", "https://loop.evil/", "127.0.0.1")
    yield Vector("name", "https://meta.evil:8443/latest", "169.254.169.254")
    for name in ("public.good.", "PUBLIC.good", "Alias.Good."):
        yield Vector("allowed", f"http://{name}/", PUBLIC4)
    for address in (PUBLIC4, PUBLIC6):
        yield Vector("allowed", f"http://{host(address)}:8080/a?b=c", address)


def redirects():
    targets = ["http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://loop.evil/",
               "//10.0.0.1/", "https://10.0.0.1/", "http://2130706433/"]
    for status, target in itertools.product((301, 302, 303, 307, 308), targets):
        yield Vector("redirect", f"http://{REDIRECTOR}/{status}?{target}", REDIRECTOR)
    for status in (300, 304, 305, 306):
        yield Vector("redirect", f"http://{REDIRECTOR}/{status}?http://127.0.0.1/", REDIRECTOR)
    for status in (200, 201, 204):
        yield Vector("allowed", f"http://{REDIRECTOR}/{status}?http://127.0.0.1/", REDIRECTOR, note="Location, Refresh and Alt-Svc of a success")


def steps():
    """Attempts 1.3 s apart, each a new job's."""
    good, bad = "delivered", "blocked_address"
    for name, outcomes in (("rebind.evil", (good, bad)), ("rebind-metadata.evil", (good, bad)), ("rebind-mixed.evil", (good, bad)),
                           ("unbind.evil", (bad, good)), ("there-and-back.evil", (good, bad, good, bad)), ("kept.evil", (good, good))):
        yield Vector("steps", f"http://{name}/", "", outcomes, "a name whose answer changes")


def ranges_of_another_day():
    """Rules whose own ranges were set while the operator allowed them, and that he no longer does."""
    for text, ranges in (("127.0.0.1", ["127.0.0.0/8"]), ("10.1.2.3", ["10.0.0.0/8"]), ("169.254.169.254", ["169.254.169.254"]), ("[::1]", ["::1"]),
                         ("192.168.7.7", ["0.0.0.0/0", "::/0"]), ("[fd00:ec2::254]", ["fd00::/8"]), ("[::ffff:10.1.2.3]", ["10.0.0.0/8", "::/0"]),
                         ("[64:ff9b::a9fe:a9fe]", ["64:ff9b::/96", "169.254.0.0/16"]), ("2130706433", ["127.0.0.0/8", "10.0.0.0/8"])):
        yield denied(text, str(ipaddress.ip_address(int(text))) if text.isdigit() else None, "within the rule's own ranges")._replace(ranges=tuple(ranges))
    for name, ranges in (("loop.evil", ["127.0.0.0/8"]), ("meta.evil", ["0.0.0.0/0"]), ("public-private.evil", ["10.0.0.0/8"])):
        yield Vector("name", f"http://{name}/", "" if "-" in name else NAMES[name][0][0], (), "within the rule's own ranges", tuple(ranges))


def every_vector():
    made = [*at_the_ends_of_ranges(), *beside_ranges(), *inside_six(), *spellings(), *no_urls(), *names(), *redirects(), *steps(), *ranges_of_another_day()]
    return list({(vector.url, vector.ranges): vector for vector in made}.values())


# With --callback-allow: what lies inside is delivered, what lies beside it is not.
ALLOWED = [ipaddress.ip_network("10.77.0.0/16"), ipaddress.ip_network("fd77::/16")]
NAMES |= {"inside.allowed": (["10.77.3.3"], []), "half.allowed": (["10.77.3.3", "10.78.3.3"], []), "half6.allowed": (["10.77.3.3"], ["fd78::1"])}


def with_leave():
    for url, address in (("http://10.77.0.0/", "10.77.0.0"), ("http://10.77.255.255/", "10.77.255.255"), ("http://[::ffff:10.77.1.1]/", "10.77.1.1"),
                         ("http://0x0a.77.1.2/", "10.77.1.2"), ("http://[fd77::1]/", "fd77::1"), ("http://inside.allowed/", "10.77.3.3")):
        yield Vector("allowed", url, address)
    for text in ("10.76.255.255", "10.78.0.0", "[::ffff:10.78.0.1]", "[::a4d:1]", "[64:ff9b::a4d:1]", "[2002:a4d:1::1]", "[fd76::1]", "[fd78::]", "127.0.0.1", "[::1]"):
        yield Vector("denied", f"http://{text}/", text.strip("[]"))
    for name in ("half.allowed", "half6.allowed"):
        yield Vector("name", f"http://{name}/")


# With --callback-allow and rules that have ranges of their own within it.
NARROWED = [ipaddress.ip_network(text) for text in ("10.77.0.0/16", "fd77::/16", "64:ff9b::/96", "169.254.0.0/16")]
NAMES |= {"first.narrow": (["10.77.1.3"], []), "second.narrow": (["10.77.2.3"], []), "both.narrow": (["10.77.1.3", "10.77.2.3"], []),
          "six.narrow": (["10.77.1.3"], ["fd77:2::3"]), "public.narrow": ([PUBLIC4, "10.77.2.4"], [])}


def with_ranges():
    one, six, metadata = ("10.77.1.0/24",), ("fd77:1::/32",), ("169.254.0.0/16",)
    for url, address, ranges in (("10.77.1.0", "10.77.1.0", one), ("10.77.1.255", "10.77.1.255", one), ("[::ffff:10.77.1.9]", "10.77.1.9", one),
                                 ("first.narrow", "10.77.1.3", one), ("[fd77:1::1]", "fd77:1::1", six), ("10.77.1.7", "10.77.1.7", six + one),
                                 ("169.254.169.254", "169.254.169.254", metadata), (PUBLIC4, PUBLIC4, one), (host(PUBLIC6), PUBLIC6, one),
                                 ("10.77.3.3", "10.77.3.3", ())):
        yield Vector("allowed", f"http://{url}/", address, (), f"a rule with {' '.join(ranges) or 'no ranges'}", ranges)
    for url, ranges in (("10.77.0.255", one), ("10.77.2.0", one), ("[::ffff:10.77.2.1]", one), ("0x0a.77.2.2", one), ("10.77.1.8", six), ("[fd77::1]", six),
                        ("[fd77:2::1]", six), ("[fd77:1::2]", one), ("[64:ff9b::a4d:20a]", ("64:ff9b::/96",)), ("[64:ff9b::a4d:10a]", one),
                        ("[64:ff9b::a4d:20b]", ("64:ff9b::/96",) + one), ("169.254.169.254:8080", one), ("169.254.170.2", ("169.254.169.254",))):
        yield Vector("narrowed", f"http://{url}/", on_the_wire(url.strip("[]")) if url[0] == "[" else "", (), f"a rule with {' '.join(ranges)}", ranges)
    for name, ranges in (("second.narrow", one), ("both.narrow", one), ("six.narrow", one), ("public.narrow", one), ("first.narrow", six)):
        yield Vector("narrowed", f"http://{name}/", "", (), f"a rule with {' '.join(ranges)}", ranges)
    for ranges in ("10.0.0.0/8", "10.76.0.0/15", "0.0.0.0/0", "::/0", "127.0.0.1", "::1", "fd00::/8", "fd00:ec2::254", "::ffff:0:0/96", "::ffff:10.77.1.0/120",
                   "::/96", "2002::/16", "2001::/32", "64:ff9b::/95", "100.100.100.200", "169.254.0.0/15", "224.0.0.0/4", "10.77.1.1/24", "10.77.1.0/33"):
        yield Vector("range", f"http://{PUBLIC4}/", "", (), ranges, (ranges,))
