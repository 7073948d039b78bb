"""What a waiting job takes of Redis's memory beyond its payload."""
import frame


def used_memory(client):
    return client.info("memory")["used_memory"]


def overhead_bytes(context):
    """Bytes of Redis's memory a waiting job beyond its payload (header, listing, idempotency), against BullMQ's"""
    import services
    first, count = context.pick((100_000, 200_000), (10_000, 20_000))

    def ours():
        with services.ringback(context.directory("s")) as server:
            queue = server.api.make_queue("bench", "memory", max_size=100_000_000)

            def fill(jobs):
                services.load(server.target, "submit", "--queue", queue, "--batch", 100, "--in-flight", 8, "--request-ids", "--count", jobs,
                              "--duration", "120s", "--payload-bytes", frame.PAYLOAD_BYTES)

            fill(first)  # the log of changes has reached its bound then, and what costs once is paid
            before = used_memory(server.redis_client)
            fill(count)
            return (used_memory(server.redis_client) - before) / count - frame.PAYLOAD_BYTES

    def theirs():
        with services.bare_redis(context.directory("b")) as redis:
            return services.node("bullmq.js", what="memory", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES,
                                 count=context.pick(50_000, 5000))["bytes"] - frame.PAYLOAD_BYTES

    context.note("`overhead-bytes`: Redis's used_memory a job less its payload, jobs in batches of 100 with a request_id each call.")
    return frame.measured(context, ours, theirs, "BullMQ", "bytes", better="less", target=("ours", "<=", 320))


ROWS = {"overhead-bytes": overhead_bytes}
