"""From the moment a job is submitted to its arrival at a waiting worker: idle, and at half of what each can do."""
import frame
import lifecycle


def ours(context, rate=None):
    """Over a Work stream: one job at a time, or so many a second, then counted from when the submit was due."""
    import services
    with services.ringback(context.directory("s")) as server:
        done = services.load(server.target, "latency", *(["--rate", rate] if rate else []), "--workers", 1, "--connections", 1,
                             "--payload-bytes", frame.PAYLOAD_BYTES, "--warm-up", context.pick("1s", "300ms"),
                             "--duration", context.pick("4s", "1s"))
        return done["submitToWorkerMs"]


def bullmq(context, rate=0):
    """From just before add to the processor's start, in one process: one job at a time, or so many a second."""
    import services
    with services.bare_redis(context.directory("b")) as redis:
        count = int(rate * context.pick(5, 1.3)) if rate else context.pick(2000, 500)
        done = services.node("bullmq.js", what="latency", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES, rate=rate, count=count,
                             concurrency=lifecycle.CONCURRENCY if rate else 1)
        return {name: done[name] / 1000 for name in ("p50", "p99")}


def beanstalkd(context):
    import services
    with services.beanstalkd(context.directory("k"), fsync_ms=50) as (port, _):
        return services.beanstalk_load(port, "latency", 1, 1, frame.PAYLOAD_BYTES, 0, context.pick(4000, 1500))[0] / 1000


def idle(context):
    return context.once("idle latency", lambda: frame.alternate(
        context.rounds, lambda: ours(context), lambda: bullmq(context)))


def latency_vs_bullmq(context):
    """Submit to worker, one job at a time, median, against BullMQ's add to processor"""
    of = [[one["p50"] for one in side] for side in idle(context)]
    return frame.compared(*of, "BullMQ", "ms", better="less", target=("ratio", "<=", 0.4))


def latency_p99_vs_bullmq(context):
    """The same, percentile 99"""
    of = [[one["p99"] for one in side] for side in idle(context)]
    return frame.compared(*of, "BullMQ", "ms", better="less")


def latency_vs_beanstalkd(context):
    """The same median against beanstalkd's put to reserve"""
    return frame.measured(context, lambda: ours(context)["p50"], lambda: beanstalkd(context), "beanstalkd, binlog",
                          "ms", better="less")


def latency_half_load_vs_bullmq(context):
    """Submit to worker, median, each side at half of the single jobs a second that it can do"""
    def half(rate):
        return max(1, int(rate / 2))

    most = context.once("single rates", lambda: (lifecycle.ours(context, in_flight=64, batch=1), lifecycle.bullmq(context, in_flight=64, batch=1)["rate"]))
    rates = [half(rate) for rate in most]
    context.note("`latency-half-load-vs-bullmq`: Ringback at {:,} jobs a second, BullMQ at {:,}; ours counts from when a submit was due, "
                 "BullMQ's from its call.".format(*rates))
    return frame.measured(context, lambda: ours(context, rates[0])["p50"], lambda: bullmq(context, rates[1])["p50"], "BullMQ", "ms", better="less")


ROWS = {
    "latency-vs-bullmq": latency_vs_bullmq,
}
MORE = {
    "latency-p99-vs-bullmq": latency_p99_vs_bullmq,
    "latency-vs-beanstalkd": latency_vs_beanstalkd,
    "latency-half-load-vs-bullmq": latency_half_load_vs_bullmq,
}
