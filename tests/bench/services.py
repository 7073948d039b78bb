"""The servers that the rows measure: Ringback, a Redis for BullMQ with the same settings, beanstalkd, the echo of the RPC layer.

Each is a context manager over real processes in a directory of its own; they listen on loopback or Unix sockets and end with the block.
Also what their processes cost. No row's figures are computed here.
"""
import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import harness

HERE = pathlib.Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")


@functools.lru_cache
def stubs():
    directory = harness.BUILD / "bench" / "stubs"
    done = directory / "done"
    newest = max(path.stat().st_mtime for path in (HERE.parents[1] / "proto").rglob("*.proto"))
    if not done.exists() or done.stat().st_mtime < newest:
        directory.mkdir(parents=True, exist_ok=True)
        harness.make_stubs(directory)
        done.touch()
    harness.import_stubs(directory)


def cpu_seconds(pid):
    """User and system time of a process until now."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def redis_cpu_seconds(client):
    """Of Redis itself; children that rewrite the append-only file are not in it."""
    cpu = client.info("cpu")
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"]


@contextlib.contextmanager
def ringback(directory, *options, appendfsync="everysec", redis_url=None):
    """A ringbackd with its own Redis: a harness.Server with `redis_client` beside."""
    stubs()
    server = harness.Server(directory, *(() if redis_url else ("--appendfsync", appendfsync)), *options, redis=redis_url)
    try:
        server.start()
        server.redis_client = server.store()
        yield server
        server.stop()
    finally:
        server.kill()
        harness.end_processes_of(server.directory)


@contextlib.contextmanager
def bare_redis(directory, appendfsync="everysec", *options):
    """A redis-server set up as ringbackd sets up its own; `socket` is its path, `client()` a connection."""
    server = harness.Redis(directory, "--appendfsync", appendfsync, "--maxmemory-policy", "noeviction", *options)
    try:
        yield server.start()
    finally:
        server.kill()


@contextlib.contextmanager
def program(command, ready=None, **more):
    """A process that ends with the block; `ready` waits for its first line of output and answers it."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
    try:
        process.first_line = process.stdout.readline().strip() if ready else ""
        if ready and not process.first_line:
            raise RuntimeError(f"{command[0]} said nothing and ended with {process.wait()}")
        yield process
    finally:
        process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def echo(threads=1):
    """The RPC layer with nothing behind it; answers host:port."""
    with program([harness.BUILD / "bin" / "echo-server", "127.0.0.1:0", threads], ready=True, stderr=subprocess.DEVNULL) as process:
        yield f"127.0.0.1:{process.first_line}"


@contextlib.contextmanager
def beanstalkd(directory, fsync_ms=None):
    """fsync_ms: how often its binlog is brought to the disk; None for no binlog. Answers (port, process)."""
    directory.mkdir(parents=True, exist_ok=True)
    port = harness.free_port()
    binlog = [] if fsync_ms is None else ["-b", directory, "-f", fsync_ms]
    with program(["beanstalkd", "-l", "127.0.0.1", "-p", port, *binlog], stderr=subprocess.DEVNULL) as process:
        harness.eventually(lambda: listens(port), 10, what="beanstalkd listens")
        yield port, process


def listens(port):
    import socket
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True


def load(target, command, *options):
    """`ringback bench` against a server; answers with what it measured. Every job is checked by it, and a call that failed is an error."""
    return measured_by(harness.BUILD / "bin" / "ringback", "bench", command, "--json", "--server", target, *options)


def echo_load(target, *options):
    """The same load for the echo, with the options of `ringback bench submit` and requests of the same size."""
    return measured_by(harness.BUILD / "tests" / "echo_load", "--json", "--server", target, *options)


def measured_by(*words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    return json.loads(output_of(*words, env=environment))


def beanstalk_load(port, what, connections, pipeline, payload_bytes, warm_up_ms, duration_ms):
    """The numbers that peers/beanstalk_load.c prints."""
    words = [harness.BUILD / "tests" / "beanstalk_load", port, what, connections, pipeline, payload_bytes, warm_up_ms, duration_ms]
    return [float(word) for word in output_of(*words).split()]


def output_of(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **more)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, words))} ended with {done.returncode}:\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


def node(script, **parameters):
    """Runs a script of peers/ with its parameters as JSON; answers with the JSON of its last line."""
    modules = harness.BUILD / "bench" / "npm" / "node_modules"
    out = output_of("node", HERE / "peers" / script, json.dumps(parameters), env=os.environ | {"NODE_PATH": str(modules), "NODE_ENV": "production"})
    return json.loads(out.strip().splitlines()[-1])


def settle(client):
    """Waits until Redis rewrites no file, so that no round pays for the one before."""
    time.sleep(0.2)
    harness.eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 60, every=0.2, what="the rewrite ends")


def versions():
    def first(*command):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[0]
    lock = json.loads((HERE / "package-lock.json").read_text())["packages"]
    return ", ".join((
        "Redis " + re.search(r"v=(\S+)", first("redis-server", "--version"))[1], first("beanstalkd", "-v"),
        f"BullMQ {lock['node_modules/bullmq']['version']} with ioredis {lock['node_modules/ioredis']['version']} on Node {first('node', '--version')}"))
