"""Whole life cycles: a job is submitted, taken by a worker and finished. Producers and workers run at once, four clients of each."""
import statistics

import frame

CLIENTS = 4
BATCH = 100
CONCURRENCY = 50  # jobs that a Worker of BullMQ processes at once
PIPELINE = 64     # commands that a connection to beanstalkd has under way
CLOSED_PORT = 1
BACKLOG = 10_000  # jobs that are not yet finished: then producers wait
BULLMQ_BACKLOG = 1_000  # the same for BullMQ, which was faster so


def cycle_options(in_flight=CLIENTS, batch=BATCH):
    return ["--in-flight", in_flight, "--connections", CLIENTS, "--batch", batch, "--workers", CLIENTS, "--backlog", BACKLOG,
            "--payload-bytes", frame.PAYLOAD_BYTES]


def ours(context, *more, **settings):
    """Jobs a second through submits and Work streams."""
    import services
    with services.ringback(context.directory("s")) as server:
        return services.load(server.target, "cycle", *cycle_options(**settings), *more, "--warm-up", context.pick("1s", "300ms"),
                             "--duration", context.pick("4s", "1s"))["perSecond"]


def our_costs(context):
    """What a life cycle costs, in µs of a processor: Redis, server, load client. Counted over whole runs of so many jobs."""
    import services
    count = context.pick(100_000, 20_000)
    with services.ringback(context.directory("s")) as server:
        queue = server.api.make_queue("bench", "cpu", max_size=100_000_000, max_concurrent=1_000_000)
        redis, pid = services.redis_cpu_seconds(server.redis_client), services.cpu_seconds(server.process.pid)
        done = services.load(server.target, "cycle", "--queue", queue, "--count", count, *cycle_options())
        assert done["jobs"] == count, done
        return dict(redis=(services.redis_cpu_seconds(server.redis_client) - redis) / count * 1e6,
                    server=(services.cpu_seconds(server.process.pid) - pid) / count * 1e6, client=done["cpuSeconds"] / count * 1e6)


def bullmq(context, in_flight=CLIENTS, batch=BATCH):
    """BullMQ's rate, and the µs that Redis and its own processes pay for a job."""
    import services
    with services.bare_redis(context.directory("b")) as redis:
        return services.node("bullmq.js", what="lifecycle", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES, clients=CLIENTS,
                             inFlight=in_flight, batch=batch, workers=CLIENTS, concurrency=CONCURRENCY, backlog=BULLMQ_BACKLOG,
                             warmUp=context.pick(1.5, 0.7), seconds=context.pick(4, 1))


def all_of_bullmq(context):
    context.note(f"BullMQ: {CLIENTS} queues' connections add in bulk ({BATCH} a call) in one Node process while {CLIENTS} Workers, {CONCURRENCY} jobs "
                 "at a time each, process in another; the last 1,000 completed jobs are kept.")
    return context.once("bullmq", lambda: frame.alternate(
        context.rounds, lambda: ours(context), lambda: bullmq(context), lambda: our_costs(context)))


def lifecycle_vs_bullmq(context):
    """Life cycles a second through SubmitJobs and Work streams, against BullMQ's add and process"""
    rates, theirs, _ = all_of_bullmq(context)
    return frame.compared(rates, [one["rate"] for one in theirs], "BullMQ", "jobs/s", target=("ratio", ">=", 4))


def redis_cpu_vs_bullmq(context):
    """Redis's CPU for a life cycle, against BullMQ's"""
    _, theirs, costs = all_of_bullmq(context)
    return frame.compared([one["redis"] for one in costs], [one["redisCpuUs"] for one in theirs], "BullMQ", "µs/job", better="less",
                          target=("ratio", "<=", 0.3))


def cpu_vs_bullmq(context):
    """CPU of everything (clients, server, Redis) for a life cycle, against BullMQ's clients and Redis"""
    _, theirs, costs = all_of_bullmq(context)
    parts = {name: statistics.median(one[name] for one in costs) for name in ("server", "redis", "client")}
    context.note("A life cycle costs {server:.1f} µs of ringbackd, {redis:.1f} µs of Redis and {client:.1f} µs of the load client.".format(**parts))
    return frame.compared([sum(one.values()) for one in costs], [one["redisCpuUs"] + one["clientCpuUs"] for one in theirs], "BullMQ", "µs/job",
                          better="less")


def beanstalkd(context, what, fsync_ms):
    import services
    with services.beanstalkd(context.directory("k"), fsync_ms) as (port, _):
        return services.beanstalk_load(port, what, CLIENTS, PIPELINE, frame.PAYLOAD_BYTES, *context.pick((1000, 4000), (300, 1000)))[0]


def beside_beanstalkd(fsync_ms, name, target=None):
    def row(context):
        context.note(f"beanstalkd: four connections put and four reserve and delete, each with {PIPELINE} commands pipelined, from one C program.")
        return frame.measured(context, lambda: ours(context), lambda: beanstalkd(context, "lifecycle", fsync_ms), name, "jobs/s", target=target)
    row.__doc__ = f"Life cycles a second, against put, reserve and delete of {name}"
    return row


def lifecycle_callback_vs_plain(context):
    """Life cycles a second in a queue with a callback rule, each end enqueuing its callback, against a queue without"""
    context.note("`lifecycle-callback-vs-plain`: nobody listens at the URL, so that the row shows what enqueuing costs and not what a receiver does.")
    to_nobody = ["--callback-url", f"http://127.0.0.1:{CLOSED_PORT}/", "--callback-wait", "0s"]
    return frame.measured(context, lambda: ours(context, *to_nobody), lambda: ours(context), "without a callback", "jobs/s")


ROWS = {
    "lifecycle-vs-bullmq": lifecycle_vs_bullmq,
    "lifecycle-vs-beanstalkd": beside_beanstalkd(50, "beanstalkd, binlog synced each 50 ms", ("ratio", ">=", 1.3)),
    "redis-cpu-vs-bullmq": redis_cpu_vs_bullmq,
}
MORE = {
    "lifecycle-vs-beanstalkd-memory": beside_beanstalkd(None, "beanstalkd, no binlog"),
    "lifecycle-callback-vs-plain": lifecycle_callback_vs_plain,
    "cpu-vs-bullmq": cpu_vs_bullmq,
}
