"""Receivers of every temper for test_sender and test_dispatcher: HTTP and HTTPS on loopback, and a DNS server for names under .test.

Prints `http=PORT`, `https=PORT`, `mutual=PORT` (HTTPS for whoever has client.pem, which lies beside ca), `dns=PORT`, `ca=FILE`, one a line and an empty line, then serves until its standard input ends.
What the HTTP path does stands in `answer`; what a name resolves to in NAMES.
"""
import base64
import email.utils
import gzip
import hashlib
import hmac
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

NAMES = {
    "ok.test": (["127.0.0.1"], []),
    "localhost": (["127.0.0.1"], ["::1"]),
    "other.test": (["127.0.0.1"], []),
    "public-and-private.test": (["127.0.0.1", "10.0.0.1"], []),
    "private-second-family.test": (["127.0.0.1"], ["fd00::1"]),
    "private.test": (["192.168.7.7"], []),
    "metadata.test": (["169.254.169.254"], []),
    "nat64.test": ([], ["64:ff9b::7f00:1"]),
    "many.test": (["127.0.0.%d" % i for i in range(1, 21)], []),
    "expired.test": (["127.0.0.1"], []),
    "unknown-issuer.test": (["127.0.0.1"], []),
    "slow-tls.test": (["127.0.0.1"], []),
}
GZIP_BOMB = gzip.compress(bytes(40 << 20))  # 40 KB of it
rebind_count = 0
SECRET = b"s" * 32
seen_bodies = {}
seen_lock = threading.Lock()


def read_request(stream):
    line = stream.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while True:
        line = stream.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            break
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return method, path, headers, body


def response(status, headers=(), body=b""):
    lines = ["HTTP/1.1 %d Status" % status, "Content-Length: %d" % len(body), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def forever(connection, first, piece, pause=0.0):
    connection.sendall(first)
    while True:
        connection.sendall(piece)
        if pause:
            time.sleep(pause)


def as_expected(method, headers, body):
    return (method == "POST" and body == b"<Response/>" and headers.get("content-type") == "application/xml"
            and headers.get("x-test") == "1" and "expect" not in headers and "accept-encoding" not in headers
            and headers.get("host", "").startswith("127.0.0.1:"))


def is_signed(headers, body):
    signed = "{webhook-id}.{webhook-timestamp}.".format(**headers).encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    return wanted in headers["webhook-signature"].split(" ")


def times_seen(headers, body):
    """How often this delivery came before; its bytes must be the same each time."""
    with seen_lock:
        bodies = seen_bodies.setdefault(headers["webhook-id"], [])
        bodies.append(body)
        return len(bodies) - 1 if bodies[0] == body else 99


def answer(connection, request, served):
    """False closes the connection."""
    method, path, headers, body = request
    if path.startswith("/status/"):
        connection.sendall(response(int(path[8:]), ["Location: http://127.0.0.1:1/"]))
    elif path == "/expected":
        connection.sendall(response(200 if as_expected(method, headers, body) else 400))
    elif path == "/served":
        connection.sendall(response(200 + min(served, 99)))
    elif path == "/once":
        connection.sendall(response(409 if times_seen(headers, body) else 200))
    elif path == "/flaky":
        connection.sendall(response({0: 500, 1: 200}.get(times_seen(headers, body), 410)))
    elif path == "/slow-once":
        times = times_seen(headers, body)
        time.sleep(1.5)
        connection.sendall(response(409 if times else 200))
    elif path == "/signed":
        connection.sendall(response(200 if is_signed(headers, body) else 410))
    elif path == "/unsigned":
        connection.sendall(response(410 if "webhook-signature" in headers or "webhook-timestamp" in headers else 200))
    elif path == "/traced":
        connection.sendall(response(200 if headers.get("traceparent", "").startswith("00-") else 410))
    elif path == "/body":
        connection.sendall(response(200, body=b"x" * 60000))
    elif path == "/gzip":
        connection.sendall(response(200, ["Content-Encoding: gzip"], b"not gzip at all"))
    elif path == "/gzip-bomb":
        connection.sendall(response(200, ["Content-Encoding: gzip"], GZIP_BOMB))
    elif path.startswith("/retry-after/seconds/"):
        connection.sendall(response(int(path[21:]), ["Retry-After: 120"]))
    elif path.startswith("/retry-after/date/"):
        connection.sendall(response(int(path[18:]), ["retry-after: " + email.utils.formatdate(time.time() + 600, usegmt=True)]))
    elif path == "/hang":
        time.sleep(60)
    elif path == "/drip":
        forever(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x", 0.05)
    elif path == "/drip-headers":
        forever(connection, b"HTTP/1.1 200 OK\r\nX-Filler: ", b"y", 0.05)
    elif path == "/endless-chunks":
        forever(connection, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 500)
    elif path == "/endless-trailers":
        forever(connection, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Filler: yyyyyyyyyyyyyyyyyyyyyyy\r\n" * 50)
    elif path == "/endless-continue":
        forever(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50)
    elif path == "/endless-body":
        forever(connection, b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096)
    elif path == "/claims-much":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        forever(connection, b"", b"x" * 4096)
    elif path == "/endless-headers":
        forever(connection, b"HTTP/1.1 200 OK\r\n", b"X-Filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 50)
    elif path == "/endless-header":
        forever(connection, b"HTTP/1.1 200 OK\r\nX-Filler: ", b"y" * 4096)
    elif path == "/cut":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        return False
    elif path == "/garbage":
        connection.sendall(b"this is no HTTP\r\n\r\n")
        return False
    elif path == "/silent-close":
        return False
    elif path == "/reset-after-headers":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        time.sleep(0.1)  # or they would be thrown away with the rest
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    elif path == "/closes-on-reuse":
        if served:
            return False
        connection.sendall(response(200))
    elif path == "/reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    elif path == "/close-later":
        connection.sendall(response(200))
        return False
    else:
        connection.sendall(response(404))
    return True


def serve_connection(connection, context):
    try:
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        stream = connection.makefile("rb")
        served = 0
        while True:
            request = read_request(stream)
            if request is None or not answer(connection, request, served):
                break
            served += 1
        stream.close()
    except (OSError, ValueError):
        pass
    finally:
        connection.close()


def serve(listener, context=None):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_connection, args=(connection, context), daemon=True).start()


def addresses_of(name):
    global rebind_count
    if name == "rebind.test":
        rebind_count += 1
        return (["127.0.0.1"], []) if rebind_count <= 2 else (["10.0.0.1"], [])
    return NAMES.get(name)


def dns_answer(question):
    end, labels = 12, []
    while question[end]:
        labels.append(question[end + 1:end + 1 + question[end]].decode("latin-1"))
        end += question[end] + 1
    kind = struct.unpack("!H", question[end + 1:end + 3])[0]
    name = ".".join(labels).lower()
    if name == "silent.test":
        return None
    found = addresses_of(name)
    records = []
    if found and kind in (1, 28):
        family = socket.AF_INET if kind == 1 else socket.AF_INET6
        for address in found[0 if kind == 1 else 1]:
            data = socket.inet_pton(family, address)
            records.append(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(data)) + data)
    flags = 0x8180 if found else 0x8183
    header = question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
    return header + question[12:end + 5] + b"".join(records)


def serve_dns(server):
    while True:
        question, peer = server.recvfrom(512)
        reply = dns_answer(question)
        if reply:
            server.sendto(reply, peer)


def listener_on_loopback():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def self_signed(directory, name, expired=False):
    """Paths of a certificate that signs itself, and of its key."""
    certificate, key, request = (os.path.join(directory, name + end) for end in (".pem", ".key", ".request"))
    openssl("req", "-x509" if not expired else "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            *(() if expired else ("-days", "2")), "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:" + name, "-keyout", key,
            "-out", request if expired else certificate)
    if expired:  # `req` makes none that ended before it began
        configuration = os.path.join(directory, "ca.conf")
        with open(configuration, "w") as file:
            file.write("[ca]\ndefault_ca=own\n[own]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=any\n"
                       "copy_extensions=copy\n[any]\ncommonName=supplied\n" % (directory, directory, directory))
        with open(os.path.join(directory, "index"), "w"), open(os.path.join(directory, "serial"), "w") as file:
            file.write("01")
        openssl("ca", "-batch", "-selfsign", "-notext", "-config", configuration, "-startdate", "20200101000000Z",
                "-enddate", "20200102000000Z", "-keyfile", key, "-in", request, "-out", certificate)
    return certificate, key


def tls_context(directory):
    """A context that shows the certificate of ok.test unless a name has its own, one that asks for client.pem, and the file of those to be trusted."""
    certificates = {name: self_signed(directory, name, name == "expired.test") for name in ("ok.test", "expired.test", "unknown-issuer.test")}
    contexts = {}
    for name, (certificate, key) in certificates.items():
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(certificate, key)

    def choose(connection, name, _):
        if name == "slow-tls.test":
            time.sleep(60)
        connection.context = contexts.get(name, contexts["ok.test"])

    mutual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mutual.load_cert_chain(*certificates["ok.test"])
    mutual.load_verify_locations(self_signed(directory, "client")[0])
    mutual.verify_mode = ssl.CERT_REQUIRED
    contexts["ok.test"].sni_callback = choose
    trusted = os.path.join(directory, "trusted.pem")
    with open(trusted, "w") as out:
        for name in ("ok.test", "expired.test"):
            with open(certificates[name][0]) as file:
                out.write(file.read())
    return contexts["ok.test"], mutual, trusted


def main():
    with tempfile.TemporaryDirectory() as directory:
        context, mutual_context, certificate = tls_context(directory)
        plain, secure, mutual = (listener_on_loopback() for _ in range(3))
        dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        dns.bind(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(plain,), daemon=True).start()
        threading.Thread(target=serve, args=(secure, context), daemon=True).start()
        threading.Thread(target=serve, args=(mutual, mutual_context), daemon=True).start()
        threading.Thread(target=serve_dns, args=(dns,), daemon=True).start()
        print("http=%d\nhttps=%d\nmutual=%d\ndns=%d\nca=%s\n" % (*(s.getsockname()[1] for s in (plain, secure, mutual, dns)), certificate),
              flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
