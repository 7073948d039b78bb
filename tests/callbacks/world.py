#!/usr/bin/env python3
"""The world outside: a network namespace that owns every address there is, with HTTP on every one and a name server that lies.

Started by `addresses` with `unshare --net`. Says `ready`, waits for a line on its standard input (the wire has arrived), sets up its addresses,
says `up` and serves until its standard input ends. What names resolve to stands in vectors.py.
"""
import contextlib
import http.server
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import urllib.parse

import vectors


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def own_everything():
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{vectors.WORLD4}/30", "dev", "world")
    ip("-6", "address", "add", f"{vectors.WORLD6}/64", "dev", "world", "nodad")
    ip("link", "set", "world", "up")
    # In the table of local addresses, or no answer could come from them. The way back is more specific.
    ip("route", "add", f"{vectors.SERVER4}/32", "dev", "world", "table", "local")
    ip("route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "local")
    ip("-6", "route", "add", f"{vectors.SERVER6}/128", "dev", "world", "table", "local")
    ip("-6", "route", "add", "local", "::/0", "dev", "lo", "table", "local")


class Handler(http.server.BaseHTTPRequestHandler):
    """`/STATUS?LOCATION` answers with that; anything else is 204."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, target = self.path.partition("?")
        status = int(path[1:]) if path[1:].isdigit() else 204
        self.send_response(status)
        if target and status != 204 or path[1:].isdigit():
            self.send_header("Location", urllib.parse.unquote(target))
            self.send_header("Refresh", "0; url=" + target)
            self.send_header("Alt-Svc", 'h2="10.0.0.5:80", http/1.1="10.0.0.5:80"; ma=3600')
        if status not in (204, 304):
            self.send_header("Content-Length", "0")
        self.end_headers()


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_):
        pass

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)


def serve_http(port):
    threading.Thread(target=Server(("::", port), Handler).serve_forever, daemon=True).start()


questions = {}


def addresses_of(name, kind):
    """The addresses of a family, and their TTL."""
    if name in vectors.CHANGING:
        answers, ttl = vectors.CHANGING[name]
        if kind != 1:
            return [], ttl
        number = questions[name] = questions.get(name, -1) + 1
        return answers[min(number, len(answers) - 1)], ttl
    four, six = vectors.NAMES.get(name, (["127.0.0.1"], []))
    return (four if kind == 1 else six), 1


def encoded(name):
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".")) + b"\0"


def dns_answer(question):
    end, labels = 12, []
    while question[end]:
        labels.append(question[end + 1:end + 1 + question[end]].decode("latin-1"))
        end += question[end] + 1
    kind = struct.unpack("!H", question[end + 1:end + 3])[0]
    owner, name, records = b"\xc0\x0c", ".".join(labels).lower(), []
    while isinstance(vectors.NAMES.get(name), str):
        name = vectors.NAMES[name]
        records.append(owner + struct.pack("!HHIH", 5, 1, 1, len(encoded(name))) + encoded(name))
        owner = encoded(name)
    for address, ttl in ((a, t) for found, t in [addresses_of(name, kind)] for a in found if kind in (1, 28)):
        data = socket.inet_pton(socket.AF_INET if kind == 1 else socket.AF_INET6, address)
        records.append(owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data)
    header = question[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0)
    return header + question[12:end + 5] + b"".join(records)


def serve_dns():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((vectors.WORLD4, 53))

    def serve():
        while True:
            question, peer = server.recvfrom(512)
            with contextlib.suppress(IndexError, struct.error):
                server.sendto(dns_answer(question), peer)

    threading.Thread(target=serve, daemon=True).start()


def main():
    print("ready", flush=True)
    sys.stdin.readline()
    own_everything()
    serve_dns()
    for port in (80, 8080):
        serve_http(port)
    print("up", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
