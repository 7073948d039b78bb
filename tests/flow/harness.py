"""What the flow tests stand on: the real ringbackd, a real Redis, stubs made from proto/ by stock tools, a real HTTP receiver.

Nothing here knows the server's inside. Every process is started by this module, is remembered by its process id and is ended by it.
Environment: RINGBACK_BUILD (the build directory, default build/), RINGBACK_WRAP (a command put before ringbackd, such as valgrind),
RINGBACK_SLOW (a factor on every time limit, for sanitizers and valgrind). What a test waits for may take PATIENCE times as long as it
says: a limit ends a test that waits in vain, and says nothing of how fast the machine is.
"""
import contextlib
import importlib
import itertools
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RINGBACK_BUILD") or ROOT / "build").resolve()
SERVER = BUILD / "bin" / "ringbackd"
WRAP = shlex.split(os.environ.get("RINGBACK_WRAP", ""))
SLOW = float(os.environ.get("RINGBACK_SLOW", "1"))
PATIENCE = 6 * SLOW
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|ERROR SUMMARY: [1-9]|Assertion .* failed")

SERVICES = {"queue": ("queue", "QueueService"), "job": ("job", "JobService"), "worker": ("worker", "WorkerService"),
            "callback": ("callback", "CallbackService")}


NO_JOB = "j40000000010000000000000000000000"  # has the form of an id that a job could have


# --- stubs ---------------------------------------------------------------------------------------------------------------------

def make_stubs(directory):
    """Compiles proto/ with protoc and grpc_python_plugin and makes the modules importable."""
    proto = ROOT / "proto"
    include = next(p for p in ("/usr/include", "/usr/local/include") if os.path.exists(p + "/google/protobuf/any.proto"))
    ours = sorted((proto / "ringback" / "v1").glob("*.proto"))
    others = [proto / "google/rpc/status.proto", proto / "google/rpc/error_details.proto", proto / "grpc/health/v1/health.proto",
              proto / "grpc/reflection/v1/reflection.proto", proto / "grpc/reflection/v1alpha/reflection.proto"]
    subprocess.run(["protoc", "-I", proto, "-I", include, f"--python_out={directory}", f"--grpc_python_out={directory}",
                    f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}", *ours, *others], check=True)


def import_stubs(directory):
    sys.path.insert(0, str(directory))
    for name in ("google", "grpc"):  # both are packages of others already: ours are added to them
        importlib.import_module(name).__path__.append(str(pathlib.Path(directory) / name))
    if "google.rpc" in sys.modules:
        sys.modules["google.rpc"].__path__.insert(0, str(pathlib.Path(directory) / "google" / "rpc"))
    return importlib.import_module("google.rpc.status_pb2")


def module(name):
    return importlib.import_module(f"ringback.v1.{name}_pb2")


class Service:
    """One service: methods take the request's fields as keywords (dicts for messages, names for enum values)."""

    def __init__(self, channel, file, service):
        self.messages = module(file)
        descriptor = self.messages.DESCRIPTOR.services_by_name[service]
        stub = getattr(importlib.import_module(f"ringback.v1.{file}_pb2_grpc"), service + "Stub")(channel)
        for method in descriptor.methods:
            setattr(self, method.name, self._caller(getattr(stub, method.name), getattr(self.messages, method.input_type.name)))

    @staticmethod
    def _caller(call, request_type):
        def caller(request=None, *, timeout=120, metadata=None, **fields):
            return call(request_type(**fields) if request is None else request, timeout=timeout * SLOW, metadata=metadata)

        def begin(timeout=120, metadata=None, **fields):
            return call.future(request_type(**fields), timeout=timeout * SLOW, metadata=metadata)

        caller.begin = begin
        return caller


class Api:
    def __init__(self, target):
        # A channel of its own: gRPC shares connections between channels of a process otherwise.
        self.channel = grpc.insecure_channel(target, options=[
            ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20),
            ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", int(5000 * SLOW)), ("grpc.max_reconnect_backoff_ms", 200)])
        for name, (file, service) in SERVICES.items():
            setattr(self, name, Service(self.channel, file, service))

    def health(self, service="", timeout=5):
        pb = importlib.import_module("grpc.health.v1.health_pb2")
        stub = importlib.import_module("grpc.health.v1.health_pb2_grpc").HealthStub(self.channel)
        return stub.Check(pb.HealthCheckRequest(service=service), timeout=timeout * PATIENCE)

    def close(self):
        self.channel.close()

    # what many tests need
    def make_queue(self, bucket, name="q", feature="FEATURE_MEDIA", **settings):
        path = f"buckets/{bucket}/queues/{name}"
        self.queue.CreateQueue(queue=dict(name=path, feature=feature, **settings))
        return path

    def submit(self, queue, count=1, tag="Test", **spec):
        """Ids of `count` equal jobs."""
        ids = []
        while count > 0:
            n = min(count, 250)
            answer = self.job.SubmitJobs(queue=queue, jobs=[dict(tag=tag, **spec)] * n)
            assert all(r.status.code == 0 for r in answer.results), answer
            ids += [r.job_id for r in answer.results]
            count -= n
        return ids

    def lease(self, queues, count=1, wait=None, timeout=120, **fields):
        wait = dict(seconds=0) if wait is None else duration(wait)
        queues = [queues] if isinstance(queues, str) else queues
        return list(self.worker.LeaseJobs(queues=queues, max_jobs=count, wait=wait, timeout=timeout, worker=fields.pop("worker", "w"),
                                          **fields).jobs)

    def finish(self, leased, **outcome):
        """Ends one leased job, as a success unless told otherwise; answers with its result."""
        outcome = outcome or dict(success={})
        return self.worker.FinishJobs(bucket=bucket_of(leased.job.queue), jobs=[dict(lease=lease_of(leased), **outcome)]).results[0]

    def get(self, job_id, queue, view="JOB_VIEW_FULL"):
        jobs = self.job.GetJobs(bucket=bucket_of(queue), job_ids=[job_id], view=view).jobs
        return jobs[0] if jobs else None

    def state(self, job_id, queue):
        job = self.get(job_id, queue)
        return job and state_name(job.state)

    def set_callback(self, queue, url, **fields):
        """A rule that is on. Its attempts take up to a minute, unless told otherwise: none is given up for a slow moment."""
        fields.setdefault("timeout", duration(60))
        return self.callback.UpdateCallbackRule(
            rule=dict(queue=queue, url=url, state="CALLBACK_RULE_STATE_ON", **fields),
            update_mask=dict(paths=["url", "state", *fields])).rule


def bucket_of(queue):
    return queue.split("/queues/")[0]


def lease_of(leased):
    return dict(job_id=leased.job.id, fencing_token=leased.fencing_token)


def state_name(value):
    return module("common").JobState.Name(value).replace("JOB_STATE_", "")


def duration(seconds):
    return dict(seconds=int(seconds), nanos=round((seconds - int(seconds)) * 1e9))


def timestamp(seconds):
    """Unix seconds, possibly with a fraction."""
    return dict(seconds=int(seconds), nanos=round((seconds - int(seconds)) * 1e6) * 1000)


# --- errors --------------------------------------------------------------------------------------------------------------------

class Rejection:
    code = message = None
    details = {}

    @property
    def fields(self):
        bad = self.details.get("BadRequest")
        return [violation.field for violation in bad.field_violations] if bad else []


def details_of(error):
    status_pb2 = importlib.import_module("google.rpc.status_pb2")
    details_pb2 = importlib.import_module("google.rpc.error_details_pb2")
    found = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for any_message in status.details:
                name = any_message.type_url.rsplit(".", 1)[1]
                message = getattr(details_pb2, name)()
                assert any_message.Unpack(message), any_message
                found[name] = message
    return found


@contextlib.contextmanager
def rejects(code, field=None):
    """The block's call must fail with this code (a name such as NOT_FOUND) and, for a field, name it in its BadRequest."""
    seen = Rejection()
    try:
        yield seen
    except grpc.RpcError as error:
        seen.code, seen.message, seen.details = error.code().name, error.details(), details_of(error)
        assert seen.code == code, f"{seen.code} ({seen.message}) instead of {code}"
        if code == "INVALID_ARGUMENT":
            assert "BadRequest" in seen.details, f"no BadRequest in {seen.details}"
            assert seen.message
        if field is not None:
            assert field in seen.fields, f"{field} is not among {seen.fields}: {seen.message}"
    else:
        raise AssertionError(f"the call went through; {code} was expected")


def eventually(check, seconds=10, every=0.03, what=""):
    """The check's first true value; fails after the time."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds * PATIENCE:g} s: {what or check}; last value {value!r}")
        time.sleep(every)


# --- processes -----------------------------------------------------------------------------------------------------------------

def processes_of(directory):
    """Process ids of Redis servers that work in a directory."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd").startswith(str(directory)):
                    with open(f"/proc/{entry}/stat") as file:
                        line = file.read()
                    if "(redis-server)" in line and line.rsplit(")", 1)[1].split()[0] != "Z":
                        found.append(int(entry))
    return found


def end_processes_of(directory):
    for pid in processes_of(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)


class Server:
    """One ringbackd. With `redis` (an URL) it uses that one, otherwise its own in `data`."""

    def __init__(self, directory, *options, data=None, redis=None, env=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data = pathlib.Path(data) if data else self.directory / "data"
        self.options, self.redis, self.env = options, redis, env or {}
        self.log_path = self.directory / "log"
        self.process, self.api_, self.ports = None, None, {}
        self.allow_errors = False

    def command(self):
        ports = self.directory / "ports"
        ports.unlink(missing_ok=True)
        command = [*WRAP, SERVER, "--listen", f"127.0.0.1:{self.ports.get('grpc') or free_port()}", "--http", "127.0.0.1:0", "--ports-file", ports,
                   "--callback-allow", "127.0.0.0/8"]
        command += ["--redis", self.redis] if self.redis else ["--data", self.data]
        if "--redis-wait" not in self.options:  # a busy disk may hold an fsync for longer than the second that people would wait
            command += ["--redis-wait", "15s"]
        return [str(part) for part in (*command, *self.options)]

    def spawn(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RINGBACK_")} | self.env
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                            cwd=self.directory, start_new_session=True)

    def start(self, seconds=20):
        self.spawn()
        path = self.directory / "ports"
        eventually(lambda: path.exists() or self.process.poll() is not None, seconds, what="ringbackd starts")
        assert path.exists(), f"ringbackd exited with {self.process.returncode}:\n{self.log()[-3000:]}"
        self.ports = {name: int(port) for name, port in (line.split("=") for line in path.read_text().split())}
        return self

    @property
    def target(self):
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def api(self):
        if self.api_ is None:
            self.api_ = Api(self.target)
        return self.api_

    def store(self):
        """A client of its Redis."""
        import redis
        return redis.Redis.from_url(self.redis, socket_timeout=20 * PATIENCE) if self.redis else redis.Redis(
            unix_socket_path=str(self.data / "redis.sock"), socket_timeout=20 * PATIENCE)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def metrics(self):
        """The side port's metrics: name with labels -> value."""
        text = self.http("/metrics")[1]
        return {name: float(value) for name, value in re.findall(r"^([a-z]\S*(?:\{.*\})?) (\S+)$", text, re.M)}

    def http(self, path):
        import urllib.error
        import urllib.request
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['http']}{path}", timeout=5 * PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9, the embedded Redis left alone."""
        if self.running():
            self.process.kill()
            self.process.wait()

    def stop(self, seconds=25):
        """SIGTERM; answers with the exit status."""
        if self.api_:
            self.api_.close()
            self.api_ = None
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(seconds * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"ringbackd did not end within {seconds * PATIENCE:g} s of SIGTERM:\n{self.log()[-3000:]}")
        return self.process.returncode if self.process else None

    def clean_up(self):
        try:
            if self.running():
                status = self.stop()
                assert self.allow_errors or status == 0, f"ringbackd ended with {status}:\n{self.log()[-4000:]}"
        finally:
            if self.api_:
                self.api_.close()
                self.api_ = None
            if self.process:
                self.kill()
            end_processes_of(self.directory)
        found = SANITIZER.search(self.log())
        assert not found, self.log()[max(0, found.start() - 200):found.start() + 8000]


class Redis:
    """A redis-server of the test's own."""

    def __init__(self, directory, *options, port=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.port = port or free_port()
        self.socket = self.directory / "sock"
        self.process = None

    url = property(lambda self: f"redis://127.0.0.1:{self.port}")

    def start(self):
        with open(self.directory / "log", "ab") as log:
            # A transaction that a kill left half written must go as a whole (redis/embedded.c says why).
            manifest = self.directory / "appendonlydir" / "appendonly.aof.manifest"
            if manifest.exists():
                subprocess.run(["redis-check-aof", "--fix", manifest], input=b"y\n", stdout=log, stderr=log)
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir",
                 str(self.directory), "--appendonly", "yes", "--appendfsync", "always", "--save", "", *map(str, self.options)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        eventually(self.answers, 20, what="redis-server answers")
        return self

    def client(self):
        import redis
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=20 * PATIENCE)

    def answers(self):
        import redis
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        try:
            return self.client().ping()
        except (redis.exceptions.ConnectionError, FileNotFoundError):
            return False

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Clock:
    """The time of servers that are started with its `env`: their own Redis lives in it too. It can only be set forward."""

    def __init__(self, directory):
        self.offset = 0  # whole seconds
        path = directory / "clock"
        path.write_bytes(bytes(8))
        self.file = open(path, "r+b", buffering=0)
        self.env = dict(LD_PRELOAD=str(BUILD / "tests" / "shift_clock.so"), SHIFT_CLOCK_FILE=str(path))

    def now(self):
        return time.time() + self.offset

    def advance(self, seconds):
        self.offset += max(0, int(seconds))
        self.file.seek(0)
        self.file.write((self.offset * 10**9).to_bytes(8, sys.byteorder))

    def advance_to(self, moment):
        self.advance(moment - self.now())

    def close(self):
        self.file.close()


def ports_of_this_process():
    """Ports that no connection takes for its own end, so that one is still free when a server comes back to it; a range for each process."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        ephemeral = int(file.read().split()[0])
    first, size = (10000, 100) if ephemeral > 20000 else (1024, 100) if ephemeral > 10000 else (40000, 100)
    ranges = max(1, ((ephemeral if ephemeral > 10000 else 60000) - first) // size)
    return itertools.cycle(range(first + os.getpid() % ranges * size, first + os.getpid() % ranges * size + size))


own_ports = ports_of_this_process()


def free_port():
    import socket
    for _ in range(100):
        port = next(own_ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


# --- a receiver of callbacks -----------------------------------------------------------------------------------------------------

class Received:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body, self.time = method, path, headers, body, time.time()


class Receiver:
    """A real HTTP server. `answers` is what the next requests get, each a status, (status, headers), (status, headers, body) or a
    function of the handler that does everything itself; afterwards `status`. With `tls` (an SSLContext) it is one of HTTPS."""

    def __init__(self, tls=None):
        self.requests, self.answers, self.status, self.scheme = [], [], 200, "https" if tls else "http"
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with receiver.arrived:
                    receiver.requests.append(Received(self.command, self.path, self.headers, body))
                    answer = receiver.answers.pop(0) if receiver.answers else receiver.status
                    receiver.arrived.notify_all()
                if callable(answer):
                    answer(self)
                    return
                status, headers, payload = (answer, {}, b"") if isinstance(answer, int) else (*answer, b"")[:3]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = handle_any

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def finish_request(self, request, client_address):
                if tls:
                    with tls.wrap_socket(request, server_side=True) as secured:
                        super().finish_request(secured, client_address)
                else:
                    super().finish_request(request, client_address)

            def handle_error(self, *_):  # a sender that goes away is no news
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs=dict(poll_interval=0.05), daemon=True)
        self.thread.start()

    def url(self, path="/callback"):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}{path}"

    def wait(self, count=1, seconds=10, path=None):
        """The requests once there are at least `count` (of that path)."""
        def matching():
            return [r for r in self.requests if path is None or r.path == path]
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(matching()) >= count, seconds * PATIENCE), \
                f"{len(matching())} of {count} requests within {seconds * PATIENCE:g} s"
            return matching()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def unique(prefix="b"):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"
