"""A receiver of callbacks that is fast enough for a load: a process of its own that writes down when each request began and its
`webhook-id`, and verifies signatures where it is told secrets."""
import asyncio
import base64
import hashlib
import hmac
import multiprocessing
import re
import time

FLUSH_S = 0.02
ID, LENGTH = re.compile(rb"\nwebhook-id: ([^\r]*)", re.I), re.compile(rb"\ncontent-length: (\d+)", re.I)
SENT, SIGNATURES = re.compile(rb"\nwebhook-timestamp: ([^\r]*)", re.I), re.compile(rb"\nwebhook-signature: ([^\r]*)", re.I)
SEQUENCE = re.compile(rb"\nringback-sequence: (\d+)", re.I)
STATUS = {code: b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % code for code in (200, 401, 500)}


class Receiver:
    """Accepts what is well signed, or everything while it knows no secret; refuses one request in `refuse_one_in` with 500. Answers at once,
    or, if it is `slow`, every 20 ms all that has come.

    A request is (when it began in ns of time.monotonic, id, status, Ringback-Sequence or 0)."""

    def __init__(self, directory, refuse_one_in=0, slow=False):
        context = multiprocessing.get_context("spawn")
        path = directory / "requests"
        self.file, self.rest = open(path, "wb+", buffering=0), b""
        self.control, control = context.Pipe()
        self.process = context.Process(target=serve, args=(str(path), control, refuse_one_in, slow), daemon=True)
        self.process.start()
        self.port = self.control.recv()
        self.url = f"http://127.0.0.1:{self.port}/"

    def read(self):
        """The requests that were written down since."""
        *lines, self.rest = (self.rest + self.file.read()).split(b"\n")
        for line in lines:
            start, id_, status, sequence = line.split(b" ")
            yield int(start), id_, int(status), int(sequence)

    def learn(self, secret, seconds):
        """From now on this secret is good, and the others for so long still. Returns when the receiver knows."""
        self.control.send((secret, seconds))
        self.control.recv()

    def close(self):
        self.process.terminate()
        self.process.join(20)
        self.file.close()


class Secrets:
    def __init__(self):
        self.keys = []  # newest first, each with when it ceases to be good

    def learn(self, secret, seconds):
        ceases = time.monotonic() + seconds
        self.keys = [(key, min(until, ceases)) for key, until in self.keys if until > time.monotonic()]
        self.keys.insert(0, (base64.b64decode(secret.removeprefix("whsec_")), float("inf")))

    def accept(self, id_, head, body):
        sent, given = SENT.search(head), SIGNATURES.search(head)
        if not sent or not given or abs(time.time() - int(sent[1])) > 300:
            return False
        signed, given, now = b"%s.%s.%s" % (id_, sent[1], body), given[1].split(b" "), time.monotonic()
        return any(until > now and b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) in given
                   for key, until in self.keys)


class Connection(asyncio.Protocol):
    def __init__(self, owner):
        self.owner, self.data, self.start = owner, b"", 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        now = time.monotonic_ns()
        if not self.data:
            self.start = now
        self.data += data
        while True:
            end = self.data.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = self.data[:end]
            length = LENGTH.search(head)
            after = end + (int(length[1]) if length else 0)
            if len(self.data) < after:
                return
            body, self.data = self.data[end:after], self.data[after:]
            found, sequence = ID.search(head), SEQUENCE.search(head)
            id_ = found[1] if found else b"-"
            status = self.owner.judge(id_, head, body)
            self.owner.file.write(b"%d %s %d %s\n" % (self.start, id_, status, sequence[1] if sequence else b"0"))
            self.owner.answer(self.transport, STATUS[status])
            self.start = now


class Owner:
    def __init__(self, path, refuse_one_in, slow):
        self.file, self.secrets = open(path, "ab"), Secrets()
        self.refuse_one_in, self.count = refuse_one_in, 0
        self.answers = [] if slow else None

    def judge(self, id_, head, body):
        if self.secrets.keys and not self.secrets.accept(id_, head, body):
            return 401
        self.count += 1
        return 500 if self.refuse_one_in and self.count % self.refuse_one_in == 0 else 200

    def answer(self, transport, data):
        if self.answers is None:
            transport.write(data)
        else:
            self.answers.append((transport, data))

    async def run(self, control):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=1024)

        def on_control():
            self.secrets.learn(*control.recv())
            control.send(True)

        loop.add_reader(control.fileno(), on_control)
        control.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.sleep(FLUSH_S)
            self.file.flush()
            if self.answers:
                for transport, data in self.answers:
                    transport.write(data)
                self.answers.clear()


def serve(path, control, refuse_one_in, slow):
    asyncio.run(Owner(path, refuse_one_in, slow).run(control))
