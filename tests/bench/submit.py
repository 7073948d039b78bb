"""Submitting one job a call: against the echo of our own RPC layer, which costs everything but the work, and against BullMQ's add."""
import frame


def connections(in_flight):
    return min(4, in_flight)


def load_options(context, in_flight):
    return ["--in-flight", in_flight, "--connections", connections(in_flight), "--payload-bytes", frame.PAYLOAD_BYTES,
            "--warm-up", context.pick("1s", "200ms"), "--duration", context.pick("3s", "700ms")]


def ours(context, in_flight):
    import services
    with services.ringback(context.directory("s")) as server:
        return services.load(server.target, "submit", *load_options(context, in_flight))


def echo(context, in_flight):
    import services
    with services.echo() as target:
        return services.echo_load(target, *load_options(context, in_flight))


def beside_echo(context, in_flight):
    """What both measured, a list of each: (ours, the echo's). Rates and latencies of one number in flight are of the same rounds."""
    return context.once(("submit", in_flight), lambda: frame.alternate(
        context.rounds, lambda: ours(context, in_flight), lambda: echo(context, in_flight)))


def rates_beside_echo(in_flight, target=None):
    def row(context):
        of = [[figures["callsPerSecond"] for figures in side] for side in beside_echo(context, in_flight)]
        return frame.compared(*of, "gRPC echo", "calls/s", target=target)
    row.__doc__ = f"SubmitJob with {in_flight} in flight, through to Redis, against an echo of the same bytes in the same RPC layer"
    return row


def submit_1_p50_vs_echo(context):
    """SubmitJob alone, median latency, against the echo's"""
    of = [[figures["callMs"]["p50"] for figures in side] for side in beside_echo(context, 1)]
    return frame.compared(*of, "gRPC echo", "ms", better="less", target=("ratio", "<=", 1.6))


def submit_64_vs_bullmq(context):
    """SubmitJob with 64 in flight against BullMQ's add with as many"""
    import services

    def theirs():
        with services.bare_redis(context.directory("b")) as redis:
            return services.node("bullmq.js", what="add", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES, clients=connections(64),
                                 inFlight=64, batch=1, warmUp=context.pick(1, 0.3), seconds=context.pick(3, 0.7))["rate"]

    return frame.measured(context, lambda: ours(context, 64)["callsPerSecond"], theirs, "BullMQ add", "jobs/s")


ROWS = {
    "submit-64-vs-echo": rates_beside_echo(64, ("ratio", ">=", 0.75)),
    "submit-1-p50-vs-echo": submit_1_p50_vs_echo,
}
MORE = {
    "submit-1-vs-echo": rates_beside_echo(1),
    "submit-16-vs-echo": rates_beside_echo(16),
    "submit-256-vs-echo": rates_beside_echo(256),
    "submit-64-vs-bullmq": submit_64_vs_bullmq,
}
