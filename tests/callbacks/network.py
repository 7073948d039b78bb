"""A network of the test's own, and eyes on it: namespaces, a wire to the world outside, and every packet that passes.

Works as root and, where the kernel lets everybody make user namespaces, as anybody. All of it is gone when the processes are.
"""
import collections
import contextlib
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import vectors

Packet = collections.namedtuple("Packet", "time protocol destination port")
INSIDE = "RINGBACK_ADDRESSES_INSIDE"
TCP, UDP, ICMP6 = 6, 17, 58
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6  # Python has no names for them


def enter():
    """Goes on in a network and mount namespace of its own: runs this program again. None, or why it cannot be done."""
    if os.environ.get(INSIDE):
        return None
    missing = [name for name in ("unshare", "ip", "mount") if not shutil.which(name)]
    if missing:
        return f"no network namespace can be made here: there is no {missing[0]}"
    command = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    probe = subprocess.run([*command, "ip", "link", "add", "world", "type", "veth"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"no network namespace can be made here: {(probe.stderr.strip() or 'unshare failed').splitlines()[-1]}"
    os.execvpe(command[0], [*command, sys.executable, *sys.argv], dict(os.environ, **{INSIDE: "1"}))


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def world(directory):
    """The wire and what is at its other end; names are resolved there."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "wire", "type", "veth", "peer", "name", "world")
    here = os.path.dirname(os.path.abspath(__file__))
    outside = subprocess.Popen(["unshare", "--net", sys.executable, os.path.join(here, "world.py")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        assert outside.stdout.readline() == "ready\n"
        ip("link", "set", "world", "netns", str(outside.pid))
        ip("address", "add", f"{vectors.SERVER4}/30", "dev", "wire")
        ip("-6", "address", "add", f"{vectors.SERVER6}/64", "dev", "wire", "nodad")
        ip("link", "set", "wire", "up")
        outside.stdin.write("go\n")
        outside.stdin.flush()
        assert outside.stdout.readline() == "up\n", "the world does not come up"
        ip("route", "add", "default", "via", vectors.WORLD4)
        ip("-6", "route", "add", "default", "via", vectors.WORLD6)
        for path, text in (("/etc/resolv.conf", f"nameserver {vectors.WORLD4}\nsearch corp.evil\noptions ndots:1\n"),
                           ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n" + "".join(f"{a} {n}\n" for n, a in vectors.HOSTS.items()))):
            ours = os.path.join(directory, os.path.basename(path))
            with open(ours, "w") as file:
                file.write(text)
            subprocess.run(["mount", "--bind", ours, path], check=True)
        yield
    finally:
        outside.stdin.close()
        outside.wait(10)


class Loopback:
    """Something answers on loopback too: a call that got there would succeed."""

    def __init__(self):
        self.sockets = []
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = socket.socket(family)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, 80))
            listener.listen(256)
            self.sockets.append(listener)
            threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

    @staticmethod
    def serve(listener):
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            connection.close()


class Capture:
    """Every IP packet of the namespace, on every interface, loopback too, taken by a raw socket. What the kernel says by itself to keep a
    wire going (ARP, neighbour discovery, group membership) is left out."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        with contextlib.suppress(PermissionError):  # in a user namespace the default must do
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.packets = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            data, (_, protocol, *_) = self.socket.recvfrom(256)
            packet = self.parse(data, protocol)
            if packet:
                self.packets.append(packet)

    @staticmethod
    def parse(data, protocol):
        if protocol == 0x0800:
            kind, destination, rest = data[9], data[16:20], data[(data[0] & 15) * 4:]
        elif protocol == 0x86dd:
            kind, destination, rest = data[6], data[24:40], data[40:]
            if kind == 0:  # hop-by-hop options: those of group membership
                kind, rest = rest[0], rest[8 * (rest[1] + 1):]
            if kind == ICMP6 and (130 <= rest[0] <= 137 or rest[0] == 143):
                return None
        else:
            return None
        if kind == 2:  # IGMP
            return None
        port = struct.unpack("!H", rest[2:4])[0] if kind in (TCP, UDP) and len(rest) >= 4 else 0
        return Packet(time.monotonic(), kind, ipaddress.ip_address(destination), port)

    def drops(self):
        """Packets that the socket had no room for since the last question."""
        return struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]

    def settle(self):
        """Until it has been quiet for a while."""
        while True:
            count = len(self.packets)
            time.sleep(0.3)
            if len(self.packets) == count:
                return


def can_be_routed(address, port=80):
    """Whether the kernel sends anything there at all; it refuses groups and broadcasts over TCP. Sends one packet if so."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setblocking(False)
        return probe.connect_ex((address, port)) in (0, 115)  # EINPROGRESS


def connections_to_denied():
    """TCP connections of the namespace to denied addresses that may still send by themselves: all but those in TIME_WAIT."""
    found = []
    for path, size in (("/proc/net/tcp", 4), ("/proc/net/tcp6", 16)):
        with open(path) as file:
            for line in file.readlines()[1:]:
                _, _, remote, state = line.split()[:4]
                words = bytes.fromhex(remote.split(":")[0])
                address = ipaddress.ip_address(b"".join(words[i:i + 4][::-1] for i in range(0, size, 4)))
                if state not in ("06", "0A") and vectors.is_denied(str(address)):
                    found.append((str(address), state))
    return found
