"""What a waiting job takes of Redis's memory beyond its payload."""
import frame


def used_memory(client):
    return client.info("memory")["used_memory"]


def overhead_bytes(context):
    """Bytes of Redis's memory a waiting job beyond its payload (header, listing, idempotency), against BullMQ's"""
    import services
    count, count_theirs = context.pick((1_000_000, 100_000), (200_000, 20_000))

    def ours():
        with services.ringback(context.directory("s")) as server:
            queue = server.api.make_queue("bench", "memory", max_size=100_000_000)
            before = used_memory(server.redis_client)
            services.load(server.target, "submit", "--queue", queue, "--batch", 100, "--in-flight", 8, "--request-ids", "--count", count,
                          "--duration", "250s", "--payload-bytes", frame.PAYLOAD_BYTES)
            return (used_memory(server.redis_client) - before) / count - frame.PAYLOAD_BYTES

    def theirs():
        with services.bare_redis(context.directory("b")) as redis:
            return services.node("bullmq.js", what="memory", socket=str(redis.socket), bytes=frame.PAYLOAD_BYTES,
                                 count=count_theirs)["bytes"] - frame.PAYLOAD_BYTES

    context.note(f"`overhead-bytes`: Redis's used_memory with {count:,} waiting jobs ({count_theirs:,} of BullMQ's), by their number and less the payload; "
                 "ours in batches of 100 with a request_id a call. One round: memory does not vary.")
    return frame.compared([ours()], [theirs()], "BullMQ", "bytes", better="less", target=("ours", "<=", 320))


ROWS = {"overhead-bytes": overhead_bytes}
