"""What waiting workers cost while nothing happens: memory of the server a Work stream, processor time of it and of Redis with a thousand of
long polls."""
import contextlib
import subprocess
import time

import frame

CONNECTIONS = 100  # of the streams: what one takes besides its streams is shared out among them
STREAM_BYTES_MAX = 32 * 1024
GIVEN_BACK_S = 13
WAITERS = 1000
IDLE_CORE_MAX = 0.01  # of a processor


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))


def parked(server):
    return server.metrics()["ringback_calls_parked"]


@contextlib.contextmanager
def waiting_streams(server, queue, count, connections):
    """So many Work streams that wait, of `ringback bench`; one job a second goes to one of them."""
    import harness
    command = [harness.BUILD / "bin" / "ringback", "bench", "latency", "--server", server.target, "--queue", queue, "--workers", count, "--rate", 1,
               "--connections", connections, "--duration", "10m", "--json"]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            harness.eventually(lambda: parked(server) >= count - 1 or process.poll() is not None, 120, every=0.5, what="all streams wait")
            assert process.poll() is None, f"the streams' client ended with {process.returncode}"
            yield
        finally:
            process.kill()


def idle_stream_bytes(context):
    """Bytes of ringbackd's resident memory a waiting Work stream, 10,000 of them over 100 connections, and what is left of that afterwards"""
    import harness
    import services
    count = context.pick(10_000, 2000)
    with services.ringback(context.directory("s"), "--calls-max", 20_000, "--parked-max", 20_000) as server:
        queue = server.api.make_queue("bench", "idle")

        def resident():
            return resident_bytes(server.process.pid)

        def round_of(connections):
            """With the streams, and when they are gone and their memory has been given back."""
            with waiting_streams(server, queue, count, connections):
                time.sleep(2)
                most = resident()
            harness.eventually(lambda: server.metrics()["ringback_calls_in_hand"] == 0, 60, every=0.5, what="the streams have ended")
            time.sleep(GIVEN_BACK_S)
            return most, resident()

        start = resident()
        rounds = [round_of(connections) for connections in (CONNECTIONS, CONNECTIONS, CONNECTIONS, 1)]
    most, left = rounds[0]
    context.note("`idle-stream-bytes`: {:,} streams, each waiting for a job, of which one a second comes; the server has {:.0f} MB before them, {:.0f} with them and {:.0f}, "
                 "{} s after they are gone; the third time {:.0f} and {:.0f}, and over a single connection {:.0f} and {:.0f}.".format(
                     count, start / 1e6, most / 1e6, left / 1e6, GIVEN_BACK_S, *(size / 1e6 for each in rounds[2:] for size in each)))
    bytes_a_stream = (most - start) / count
    return [dict(name="idle-stream-bytes", ours=bytes_a_stream, other=STREAM_BYTES_MAX, other_name="32 KiB", ratio=bytes_a_stream / STREAM_BYTES_MAX, unit="bytes",
                 rounds=1, better="less", target=("ratio", "<=", 1)),
            dict(name="idle-stream-bytes-left", ours=max(1, (rounds[2][1] - start) / count), other=bytes_a_stream, other_name="while they wait",
                 ratio=max(1, rounds[2][1] - start) / (most - start), unit="bytes", rounds=1, better="less", target=("ratio", "<=", 0.25))]


def idle_waiters_cpu(context):
    """Processor time of ringbackd and Redis with a thousand long polls that wait on one queue, against none"""
    import harness
    import services
    span = context.pick(40, 12)  # every 10 s or so a server tries them, in case it was not told
    with services.ringback(context.directory("s")) as server:
        queue = server.api.make_queue("bench", "idle")
        api = harness.Api(server.target)

        def cores():
            begun, before = time.monotonic(), used()
            time.sleep(span)
            return [(after - then) / (time.monotonic() - begun) for after, then in zip(used(), before)]

        def used():
            return services.cpu_seconds(server.process.pid), services.redis_cpu_seconds(server.redis_client)

        services.settle(server.redis_client)
        alone = cores()
        calls = [api.worker.LeaseJobs.begin(queues=[queue], timeout=120, wait=dict(seconds=60)) for _ in range(WAITERS)]
        harness.eventually(lambda: parked(server) == WAITERS, 30, what="all wait")
        crowded = cores()
        assert parked(server) == WAITERS
        for call in calls:
            call.cancel()
        api.close()
    context.note("`idle-waiters-cpu`: over {} s ringbackd used {:.2f} % of a processor with none and {:.2f} % with {:,}, Redis {:.2f} % and {:.2f} %.".format(
        span, 100 * alone[0], 100 * crowded[0], WAITERS, 100 * alone[1], 100 * crowded[1]))
    return dict(ours=100 * sum(crowded), other=100 * sum(alone), other_name="no waiters", ratio=sum(crowded) / sum(alone), unit="% of a processor", rounds=1,
                better="less", target=("ours", "<=", 100 * (sum(alone) + IDLE_CORE_MAX)))


ROWS = {}
MORE = {
    "idle-stream-bytes": idle_stream_bytes,
    "idle-waiters-cpu": idle_waiters_cpu,
}
