"""What must not depend on how much is waiting: leases from a deep queue, life cycles among many queues, consuming what has piled up."""
import concurrent.futures
import statistics
import time

import frame
import lifecycle

BATCH = 100
FEW = 1000


def lease_depth_1m_vs_1k(context):
    """Jobs a second by LeaseJobs(100), a million waiting, against a thousand waiting"""
    import harness
    import services
    many, leases = context.pick((1_000_000, 100), (100_000, 30))
    if context.quick:
        context.note(f"`lease-depth-1m-vs-1k` with --quick: {many:,} waiting instead of a million.")
    with services.ringback(context.directory("s")) as server:
        queues = [server.api.make_queue("depth", name, max_size=10_000_000, max_concurrent=1_000_000) for name in ("many", "few")]
        for queue, count in zip(queues, (many, FEW)):
            services.load(server.target, "submit", "--queue", queue, "--batch", 250, "--in-flight", 8, "--count", count, "--duration", "300s",
                          "--payload-bytes", frame.PAYLOAD_BYTES, "--priorities", 3)
        services.settle(server.redis_client)
        commands = [[], []]

        def side(k):
            spans = []
            for _ in range(leases):
                before = command_us(server.redis_client)
                begun = time.perf_counter()
                leased = server.api.lease(queues[k], BATCH)
                spans.append(time.perf_counter() - begun)
                commands[k].append(command_us(server.redis_client) - before)
                assert len(leased) == BATCH
                results = server.api.worker.ReleaseJobs(bucket="buckets/depth", leases=[harness.lease_of(one) for one in leased]).results
                assert not any(result.code for result in results)
            return BATCH / statistics.median(spans)

        row = frame.measured(context, lambda: side(0), lambda: side(1), "a thousand waiting", "jobs/s", target=("ratio", ">=", 0.75))
        context.note("`lease-depth-1m-vs-1k`: from one Python client; Redis itself works {:.0f} µs on a lease of {} with many waiting and {:.0f} µs "
                     "with a thousand.".format(statistics.median(commands[0]), BATCH, statistics.median(commands[1])))
        return row


def command_us(client):
    """µs that Redis has spent in functions."""
    return client.info("commandstats").get("cmdstat_fcall", {"usec": 0})["usec"]


def breadth_10k_vs_1(context):
    """Life cycles a second in one queue beside 10,000 others with a job each, against one queue alone"""
    import harness
    import services
    many = context.pick(10_000, 1000)
    if context.quick:
        context.note(f"`breadth-10k-vs-1` with --quick: {many:,} other queues instead of 10,000.")

    def cycles(server):
        return services.load(server.target, "cycle", *lifecycle.cycle_options(), "--warm-up", context.pick("1s", "300ms"),
                             "--duration", context.pick("3s", "700ms"))["perSecond"]

    def crowd(server):
        apis = [harness.Api(server.target) for _ in range(4)]

        def make(k):
            queue = apis[k % 4].make_queue("crowd", f"q{k}")
            apis[k % 4].job.SubmitJob(queue=queue, job=dict(tag="Idle"))

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(make, range(many)))
        for api in apis:
            api.close()

    with services.ringback(context.directory("w")) as wide, services.ringback(context.directory("n")) as narrow:
        crowd(wide)
        return frame.measured(context, lambda: cycles(wide), lambda: cycles(narrow), "one queue alone", "jobs/s", target=("ratio", ">=", 0.75))


def consume_vs_bullmq(context):
    """Jobs a second that four workers take and finish from a queue filled before, against BullMQ's four Workers"""
    import services
    ours, theirs = context.pick((200_000, 30_000), (20_000, 3000))

    def consume():
        with services.ringback(context.directory("s")) as server:
            return services.load(server.target, "work", "--workers", lifecycle.CLIENTS, "--count", ours, "--connections", lifecycle.CLIENTS,
                                 "--payload-bytes", frame.PAYLOAD_BYTES)["perSecond"]

    def process():
        with services.bare_redis(context.directory("b")) as redis:
            return services.node("bullmq.js", what="consume", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES, workers=lifecycle.CLIENTS,
                                 concurrency=lifecycle.CONCURRENCY, count=theirs)["rate"]

    return frame.measured(context, consume, process, "BullMQ", "jobs/s")


ROWS = {
    "lease-depth-1m-vs-1k": lease_depth_1m_vs_1k,
    "breadth-10k-vs-1": breadth_10k_vs_1,
}
MORE = {
    "consume-vs-bullmq": consume_vs_bullmq,
}
