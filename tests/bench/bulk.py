"""Submitting in batches: against Redis alone, against BullMQ, and with every batch on the disk before it is acknowledged."""
import re
import socket
import threading
import time

import frame

BATCH = 100
IN_FLIGHT, CONNECTIONS = 16, 4
PIPELINED_BYTES = 1 << 20  # of one write to Redis


def ours(context, **settings):
    import services
    with services.ringback(context.directory("s"), **settings) as server:
        figures = services.load(server.target, "submit", "--batch", BATCH, "--in-flight", IN_FLIGHT, "--connections", CONNECTIONS,
                                "--payload-bytes", frame.PAYLOAD_BYTES, "--warm-up", context.pick("1s", "300ms"),
                                "--duration", context.pick("3s", "700ms"))
    return figures["perSecond"]


# --- the bare function --------------------------------------------------------------------------------------------------------------

ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b'"': b'"', b"\\": b"\\"}


def monitored(line):
    """The words of a command as MONITOR shows it."""
    def plain(match):
        return bytes([int(match[1], 16)]) if match[1] else ESCAPES[match[2]]
    return [re.sub(rb'\\(?:x([0-9a-f]{2})|(.))', plain, word, flags=re.S) for word in re.findall(rb'"((?:[^"\\]|\\.)*)"', line)]


def recorded_call(server):
    """The very call that the server makes for one batch: the load client submits one, and MONITOR shows it."""
    import services
    seen = bytearray()
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(server.data / "redis.sock"))
        monitor.sendall(b"MONITOR\r\n")

        def listen():
            while (got := monitor.recv(1 << 20)):
                seen.extend(got)

        listener = threading.Thread(target=listen)
        listener.start()
        queue = server.api.make_queue("bench", "recorded", max_size=100_000_000)
        services.load(server.target, "submit", "--queue", queue, "--batch", BATCH, "--count", BATCH, "--payload-bytes", frame.PAYLOAD_BYTES)
        time.sleep(0.3)
        monitor.shutdown(socket.SHUT_RDWR)
        listener.join()
    calls = [monitored(line) for line in bytes(seen).split(b"\r\n") if b'"FCALL"' in line and b'"submit' in line]
    assert len(calls) == 1, f"{len(calls)} calls of the function instead of one"
    return calls[0]


def as_command(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def bare_function(context):
    """Jobs a second that Redis takes when this call is all that it gets, pipelined without a pause from one connection."""
    import services
    with services.ringback(context.directory("f")) as server:
        call = as_command(recorded_call(server))
        several = max(1, PIPELINED_BYTES // len(call))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.data / "redis.sock"))
            pipelined(client, call * several, context.pick(1, 0.3))
            return BATCH * several * pipelined(client, call * several, context.pick(3, 0.7))


def pipelined(client, block, seconds):
    """Blocks a second: written while a thread reads the answers; the last is answered when the time ends."""
    mark = b"$11\r\nend-of-load\r\n"
    answers = bytearray()

    def read():
        while not answers.endswith(mark):
            got = client.recv(1 << 20)
            assert got, "Redis closed the connection"
            answers.extend(got)

    reader = threading.Thread(target=read)
    reader.start()
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        client.sendall(block)
        count += 1
    client.sendall(b"*2\r\n$4\r\nECHO\r\n" + mark)
    reader.join()
    took = time.perf_counter() - begun
    assert b"\n-" not in answers, bytes(answers[:200])
    return count / took


# --- rows ---------------------------------------------------------------------------------------------------------------------------

def bulk_vs_function(context):
    """SubmitJobs(100) over gRPC, against the Redis function that it calls with the same batches and nothing around it"""
    context.note(f"`bulk-vs-function`: {IN_FLIGHT} calls in flight over {CONNECTIONS} connections; the bare function is the server's own FCALL "
                 "as recorded, pipelined over one Unix socket by a client that costs next to nothing: all that Redis can take.")
    return frame.measured(context, lambda: ours(context), lambda: bare_function(context), "bare Redis function", "jobs/s",
                          target=("ratio", ">=", 0.8))


def bulk_vs_bullmq(context):
    """SubmitJobs(100) against BullMQ's addBulk of 100"""
    import services

    def theirs():
        with services.bare_redis(context.directory("b")) as redis:
            return services.node("bullmq.js", what="add", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES, clients=CONNECTIONS,
                                 inFlight=IN_FLIGHT, batch=BATCH, warmUp=context.pick(1, 0.3), seconds=context.pick(3, 0.7))["rate"]

    return frame.measured(context, lambda: ours(context), theirs, "BullMQ addBulk", "jobs/s")


def aof_always_vs_none(context):
    """SubmitJobs(100) with every batch fsynced before it is acknowledged, against no append-only file at all"""
    def on(*settings):
        import services
        with services.bare_redis(context.directory("r"), *settings) as redis:
            return ours(context, redis_url=f"unix://{redis.socket}")

    return frame.measured(context, lambda: on("always"), lambda: on("everysec", "--appendonly", "no"), "no append-only file", "jobs/s",
                          target=("ratio", ">=", 0.45))


ROWS = {"bulk-vs-function": bulk_vs_function, "aof-always-vs-none": aof_always_vs_none}
MORE = {"bulk-vs-bullmq": bulk_vs_bullmq}
