"""Callbacks: how fast they leave, that a bad receiver slows no other, and that neither a backlog nor what is in flight costs much."""
import concurrent.futures
import contextlib
import math
import pathlib
import socket
import statistics
import subprocess
import sys
import time

import frame

HERE = pathlib.Path(__file__).resolve().parent
BODY_BYTES, IN_FLIGHT, BATCH = 2048, 64, 250
GOOD, BAD = 97, ("hang", "drip", "endless")


# --- callbacks that are due ------------------------------------------------------------------------------------------------------------

def end_jobs(server, queues, count, payload_bytes=16, threads=3):
    """Submits, leases and finishes so many jobs in each queue, which leaves as many callbacks."""
    import harness
    spec = dict(tag="Bench", operation=dict(xml="<Note>" + "x" * payload_bytes + "</Note>"))
    apis = [harness.Api(server.target) for _ in range(threads)]
    work = [(queue, min(BATCH, count - done)) for done in range(0, count, BATCH) for queue in queues]

    def end(k):
        api = apis[k]
        for queue, size in work[k::threads]:
            answer = api.job.SubmitJobs(queue=queue, jobs=[spec] * size, timeout=60)
            assert all(result.status.code == 0 for result in answer.results)
            while size:
                leased = api.lease(queue, size, wait=5)
                ended = api.worker.FinishJobs(bucket=harness.bucket_of(queue), timeout=60,
                                              jobs=[dict(lease=harness.lease_of(job), success={}) for job in leased])
                assert all(result.status.code == 0 for result in ended.results)
                size -= len(leased)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(end, range(threads)))
    for api in apis:
        api.close()


def make_queue(server, name, url, **rule):
    queue = server.api.make_queue("bench", name, max_size=1_000_000, retention=dict(max_count=1_000_000))
    server.api.set_callback(queue, url, **rule)
    return queue


def switch(server, queue, on):
    state = "CALLBACK_RULE_STATE_" + ("ON" if on else "OFF")
    server.api.callback.UpdateCallbackRule(rule=dict(queue=queue, state=state), update_mask=dict(paths=["state"]))


def delivered(server):
    return server.metrics()["ringback_callbacks_delivered_total"]


def wait_delivered(server, count, seconds=120):
    """Samples of (time, deliveries since the start) until there are `count`."""
    samples, end = [], time.monotonic() + seconds
    while not samples or samples[-1][1] < count:
        samples.append((time.monotonic(), delivered(server)))
        assert time.monotonic() < end, f"{samples[-1][1]:.0f} of {count} delivered within {seconds} s"
        time.sleep(0.01)
    return samples


@contextlib.contextmanager
def sink(temper, *addresses):
    """Ports of a sinks.py."""
    process = subprocess.Popen([sys.executable, HERE / "sinks.py", temper, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


# --- against wrk -----------------------------------------------------------------------------------------------------------------------

def backlog_rate(server, name, url, count, **rule):
    """Deliveries a second of one rule's backlog, between its first and its last twentieth. It is piled up behind a receiver that takes one
    connection and does not answer; then the rule gets the real one."""
    import harness
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:
        queue = make_queue(server, name, f"http://127.0.0.1:{hole.getsockname()[1]}/", concurrency=1, timeout=harness.duration(60))
        end_jobs(server, [queue], count, BODY_BYTES - 750)
        base = delivered(server)
        server.api.set_callback(queue, url, concurrency=IN_FLIGHT, timeout=harness.duration(60), **rule)
        samples = wait_delivered(server, base + count - 1)
    (begun, first), (ended, last) = [next(s for s in samples if s[1] - base >= count * part) for part in (0.05, 0.95)]
    return (last - first) / (ended - begun)


def dispatcher_row(scheme, target):
    def row(context):
        import services
        from nginx import Nginx
        seconds, count = context.pick((4, 20000), (2, 6000))
        nginx = Nginx(context.directory("n"))
        try:
            with services.ringback(context.directory("s")) as server:
                rule = dict(ca_certificates=nginx.authority()) if scheme == "https" else {}
                names = iter(range(1000))

                def ours():
                    return backlog_rate(server, f"q{next(names)}", nginx.url(scheme), count, **rule)

                return frame.measured(context, ours, lambda: nginx.wrk(scheme, IN_FLIGHT, seconds, BODY_BYTES), "wrk", "posts/s",
                                      target=("ratio", ">=", target))
        finally:
            nginx.stop()
    row.__doc__ = f"Callbacks a second over {scheme.upper()} from outbox to settlement, 2 KB, 64 under way, against wrk with 64 connections"
    return row


def sender_rows(scheme, target):
    def rows(context):
        from nginx import Nginx
        seconds = context.pick(4, 2)
        nginx = Nginx(context.directory("n"))

        def posts(program):
            words = [context.build / "tests" / program, nginx.url(scheme), BODY_BYTES, IN_FLIGHT, seconds, nginx.ca]
            posts, took = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout.split()
            return int(posts) / float(took)

        try:
            wrk, sender, bare = frame.alternate(context.rounds, lambda: nginx.wrk(scheme, IN_FLIGHT, seconds, BODY_BYTES),
                                                lambda: posts("sender_load"), lambda: posts("curl_load"))
        finally:
            nginx.stop()
        return [frame.compared(sender, wrk, "wrk", "posts/s", name=f"callback-sender-{scheme}-vs-wrk", target=("ratio", ">=", target)),
                frame.compared(bare, wrk, "wrk", "posts/s", name=f"callback-libcurl-{scheme}-vs-wrk")]
    rows.__doc__ = f"The same over {scheme.upper()} by the sender alone, without outbox and Redis; and by a bare loop over libcurl, which is the most it can reach"
    return rows


# --- from an end to the first byte -----------------------------------------------------------------------------------------------------

def first_byte(context):
    """ms from FinishJobs's answer to the callback's arrival, idle, p50, against the FinishJobs call itself"""
    import harness
    import services
    arrivals = []

    def receive(listener):
        with contextlib.suppress(OSError):  # when it is shut down
            while True:
                connection, _ = listener.accept()
                with connection:
                    while data := connection.recv(65536):
                        arrivals.append(time.perf_counter())
                        while b"</Response>" not in data:
                            data += connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    times = context.pick(300, 100)
    with socket.create_server(("127.0.0.1", 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(receive, listener)
        rows = {}
        for appendfsync in ("always", "everysec"):
            with services.ringback(context.directory("s"), appendfsync=appendfsync) as server:
                queue = make_queue(server, "q", f"http://127.0.0.1:{listener.getsockname()[1]}/")
                waits, calls = [], []
                for _ in range(times):
                    server.api.submit(queue)
                    leased, = server.api.lease(queue, wait=5)
                    arrivals.clear()
                    begun = time.perf_counter()
                    server.api.finish(leased)
                    answered = time.perf_counter()
                    harness.eventually(lambda: arrivals, 10, every=0.001, what="the callback arrives")
                    waits.append(1000 * max(arrivals[0] - answered, 1e-5))
                    calls.append(1000 * (answered - begun))
                    time.sleep(0.01)
                rows[appendfsync] = waits, calls
        listener.shutdown(socket.SHUT_RDWR)
    waits, calls = rows["always"]
    context.note("`callback-first-byte`: with appendfsync always, over {} jobs one after the other; p99 {:.1f} ms; with everysec p50 {:.2f} ms.".format(
        times, frame.percentile(waits, 99), statistics.median(rows["everysec"][0])))
    return frame.compared(waits, calls, "the FinishJobs call", "ms", better="less", target=("ours", "<=", 5)) | dict(rounds=1)


# --- bad neighbours --------------------------------------------------------------------------------------------------------------------

def delivery_ms(server, queues, since):
    """From each delivery's creation to its receiver's answer."""
    found = []
    for queue in queues:
        for delivery in server.api.callback.ListDeliveries(queue=queue, page_size=100, start_create_time=since).deliveries:
            ended = delivery.last_attempt_time.ToNanoseconds() + delivery.last_attempt_duration.ToNanoseconds()
            found.append((ended - delivery.create_time.ToNanoseconds()) / 1e6)
    return found


def isolation(context):
    """Callbacks a second of 97 endpoints beside three that hang, drip and never end, each with a backlog, against the same 97 alone"""
    import harness
    import services
    from nginx import Nginx
    backlog, each, paced = context.pick((100_000, 60, 10), (3_000, 20, 4))
    nginx = Nginx(context.directory("n"))
    try:
        with contextlib.ExitStack() as stack:
            ports = [stack.enter_context(sink(temper, "127.0.0.1"))[0] for temper in BAD]
            server = stack.enter_context(services.ringback(context.directory("s")))
            bad = [make_queue(server, temper, f"http://127.0.0.1:{port}/") for temper, port in zip(BAD, ports)]
            good = [make_queue(server, f"good{k}", nginx.url("http") + str(k)) for k in range(GOOD)]
            end_jobs(server, bad, backlog)
            latencies = [[], []]

            def side(with_bad):
                for queue in bad:
                    switch(server, queue, with_bad)
                time.sleep(1)
                begun, base = time.monotonic(), delivered(server)
                end_jobs(server, good, each)
                rate = GOOD * each / (wait_delivered(server, base + GOOD * each)[-1][0] - begun)
                since, base = harness.timestamp(time.time()), delivered(server)
                for _ in range(paced):  # at a fraction of what it can do: here latency counts
                    for k in range(0, GOOD, 10):
                        end_jobs(server, good[k:k + 10], 1)
                        time.sleep(0.05)
                wait_delivered(server, base + GOOD * paced)
                latencies[with_bad] += delivery_ms(server, good, since)
                return rate

            row = frame.measured(context, lambda: side(True), lambda: side(False), "the 97 alone", "callbacks/s", target=("ratio", ">=", 0.95))
            p99 = [frame.percentile(values, 99) for values in latencies]
            context.note("`callback-isolation`: {:,} waiting at each of the three; p99 from an end to the receiver's answer {:.0f} ms beside them, {:.0f} ms "
                         "alone ({:.2f}×; wanted below 2); {}.".format(backlog, p99[True], p99[False], p99[True] / p99[False], turns(server)))
            return row
    finally:
        nginx.stop()


# --- many ------------------------------------------------------------------------------------------------------------------------------

def in_flight_10k(context):
    """MB that the server takes with 10,000 callbacks under way to slow receivers, against the 300 MB allowed"""
    import harness
    import services
    wanted, seconds = context.pick((10_000, 20), (2_000, 8))
    rules = math.ceil(wanted / 250)
    addresses = [f"127.0.{1 + k // 250}.{1 + k % 250}" for k in range(rules)]
    with sink(f"slow:{seconds}", *addresses) as ports, services.ringback(
            context.directory("s"), "--callback-concurrency", str(wanted)) as server:
        queues = [make_queue(server, f"q{k}", f"http://{address}:{port}/", concurrency=256, timeout=harness.duration(60))
                  for k, (address, port) in enumerate(zip(addresses, ports))]
        before = resident_mb(server.process.pid)
        end_jobs(server, queues, 250, BODY_BYTES - 750)
        base = server.metrics()
        most = at_most = 0
        end = time.monotonic() + 6 * seconds + 60
        while delivered(server) < wanted:
            metrics = server.metrics()
            most = max(most, metrics["ringback_callbacks_in_hand"])
            at_most = max(at_most, resident_mb(server.process.pid))
            assert time.monotonic() < end, f"{delivered(server)} of {wanted} within the time; {most:.0f} under way at most"
            time.sleep(0.05)
        metrics, told = server.metrics(), turns(server)
    context.note("`callback-10k-in-flight`: {:,.0f} under way at once, bodies of 2 KB, {} rules; the server had {:.0f} MB before; {}; "
                 "{:.0f} failed attempts.".format(
                     most, rules, before, told, metrics["ringback_callbacks_retried_total"] - base["ringback_callbacks_retried_total"]))
    return frame.compared([at_most], [300], "the limit", "MB", better="less", target=("ours", "<=", 300))


def turns(server):
    """What the dispatcher's loop was like, since the server's start."""
    metrics = server.metrics()
    return ("the dispatcher's longest turn was {:.1f} ms, {:.1f} ms of them its own processor time; {:,.0f} of {:,.0f} took longer than 50 ms".format(
        metrics["ringback_callbacks_loop_turn_us_max"] / 1000, metrics["ringback_callbacks_loop_turn_cpu_us_max"] / 1000,
        metrics["ringback_callbacks_loop_stalls_total"], metrics["ringback_callbacks_loop_turns_total"]))


def resident_mb(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


CLAIM = 64


def claim_depth(context):
    """Deliveries a second by claims of 64 in Redis, a million due, against a thousand due"""
    import services
    many = context.pick(1_000_000, 100_000)
    if context.quick:
        context.note(f"`callback-claim-1m-vs-1k` with --quick: {many:,} due instead of a million.")
    with services.bare_redis(context.directory("r")) as redis:
        import store_model
        client = redis.client()
        library = store_model.Library(client, context.build / "redis" / "ringback.lua")
        sides = [Due(library, partition, count) for partition, count in enumerate((many, 1000))]
        services.settle(client)
        return frame.measured(context, lambda: sides[0].rate(), lambda: sides[1].rate(), "a thousand due", "deliveries/s", target=("ratio", ">=", 0.8))


class Due:
    """Deliveries that are due in a partition, in ten groups."""

    def __init__(self, library, partition, count, groups=10):
        import store_model
        self.store_model = store_model
        self.library, self.client, self.partition = library, library.redis, partition
        settings = dict(head_start=0, max_size=10_000_000, max_concurrent=10_000_000, lease=10 ** 8, max_attempts=3, min_backoff=1, max_backoff=1,
                        keep_ms=10 ** 9, keep_count=10 ** 7, idempotency=1000)
        spec = b"s" * frame.PAYLOAD_BYTES
        job = store_model.pack_record(dict(tag=b"T", spec=spec, priority=0, max_attempts=0, expire=0, lease=0, run_timeout=0, not_before=0))
        for k in range(groups):
            self.call("queue_create", "a", f"q{k}", 1, store_model.pack_settings(settings))
            self.call("rule_update", "a", f"q{k}", "", "on", 1, "url", "http://127.0.0.1:9/", "cc", 256)
            left = count // groups
            while left:
                size = min(200, left)
                self.call("submit", "a", f"q{k}", 1, "", b"0" * 8, *[job] * size)
                jobs = self.call("lease", "a", size, "w", 0, f"q{k}")[2]
                leases = [(jobs[j], store_model.number(jobs[j + 2], 7, 7)) for j in range(0, len(jobs), 3)]
                self.call("finish", "a", *[store_model.pack_result(lease, "s", 0, b"Success", b"", b"") for lease in leases])
                left -= size

    def call(self, name, *arguments):
        return self.library.call(name, *arguments, partition=self.partition)

    def rate(self, times=100):
        """Of what Redis itself spends on a claim. What was claimed is put back, due at once, without having been sent."""
        spent = []
        for _ in range(times):
            self.library.advance(2)
            before = self.client.info("commandstats")["cmdstat_fcall"]["usec"]
            answer = self.call("claim", CLAIM, 21000)
            spent.append(self.client.info("commandstats")["cmdstat_fcall"]["usec"] - before)
            claims = self.store_model.claims_of(answer)
            assert len(claims) == CLAIM, len(claims)
            self.library.calls("settle", [[c.id, self.store_model.pack_attempt(c.token, 1, 0, "cancelled", "", self.library.now, self.library.now)]
                                          for c in claims], partition=self.partition)
        return CLAIM / statistics.median(spent) * 1e6


ROWS = {
    "callback-http-vs-wrk": dispatcher_row("http", 0.45),
    "callback-https-vs-wrk": dispatcher_row("https", 0.4),
    "callback-isolation": isolation,
    "callback-claim-1m-vs-1k": claim_depth,
}

MORE = {
    "callback-sender-http-vs-wrk": sender_rows("http", 0.45),
    "callback-sender-https-vs-wrk": sender_rows("https", 0.4),
    "callback-first-byte": first_byte,
    "callback-10k-in-flight": in_flight_10k,
}
