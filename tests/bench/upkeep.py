"""How long upkeep holds Redis: whatever time, purges and deletions bring about by the hundred thousand goes in slices."""
import concurrent.futures
import contextlib
import itertools
import time

import frame

LIMIT_MS = 5
SLOWER_THAN_US = 100  # what Redis notes; a slice of anything takes longer
SETTLE_S = 300
BATCH = 250
PARTITIONS = 64
SPIN_S = 10


class Stock:
    """A server whose queues get many jobs at a time, all in one bucket and so in one partition."""

    def __init__(self, server):
        import harness
        self.harness, self.server, self.api = harness, server, server.api
        self.apis = [harness.Api(server.target) for _ in range(4)]
        self.numbers = itertools.count()

    def batches(self, count, call):
        """call(api) as often as `count` takes in batches, from four connections."""
        with concurrent.futures.ThreadPoolExecutor(len(self.apis)) as pool:
            list(pool.map(lambda k: call(self.apis[k % len(self.apis)]), range(-(-count // BATCH))))

    def queue(self, count=0, **spec):
        """A new queue with jobs; `spec` is theirs."""
        queue = self.api.make_queue("upkeep", f"q{next(self.numbers)}", max_size=10_000_000, max_concurrent=1_000_000,
                                    retention=dict(max_count=10_000_000), retry_policy=dict(max_attempts=10, min_backoff=self.harness.duration(0)))
        self.batches(count, lambda api: api.job.SubmitJobs(queue=queue, jobs=[dict(tag="Upkeep", **spec)] * BATCH))
        return queue

    def cancel(self, queue):
        token = ""
        while True:
            answer = self.api.job.CancelJobs(bucket="buckets/upkeep", filter=dict(queue=queue), page_token=token, timeout=60)
            token = answer.next_page_token
            if not token:
                return

    def wait(self):
        """Until no timer is due and nothing is in the trash."""
        client = self.server.redis_client

        def is_busy(prefix):
            return client.zcount(prefix + "timers", "-inf", time.time() * 1000) or client.exists(prefix + "trash")

        def is_done():
            return not any(is_busy(f"{{p{partition:02}}}") for partition in range(PARTITIONS))
        self.harness.eventually(is_done, SETTLE_S, every=0.2, what="the sweep has caught up")

    def close(self):
        for api in self.apis:
            api.close()


# Each makes its stock and answers with what sets it off, to be called when everything is there; `at` is when whatever has a time is due.

def leases_run_out(stock, count, at):
    queue = stock.queue(count)
    stock.batches(count, lambda api: api.lease(queue, BATCH, lease=stock.harness.duration(max(1, at - time.time()))))


def jobs_expire(stock, count, at):
    stock.queue(count, expire_time=stock.harness.timestamp(at))


def delays_end(stock, count, at):
    stock.queue(count, not_before=stock.harness.timestamp(at))


def retention(stock, count, at):
    queue = stock.queue(count)
    stock.cancel(queue)
    return lambda: stock.api.queue.UpdateQueue(queue=dict(name=queue, retention=dict(max_count=1)), update_mask=dict(paths=["retention.max_count"]))


def purge(stock, count, at):
    queue = stock.queue(count)
    return lambda: stock.api.queue.PurgeQueue(name=queue)


def deletion(stock, count, at):
    queue = stock.queue(count)
    stock.api.set_callback(queue, "http://127.0.0.1:9/")
    stock.cancel(queue)  # jobs and deliveries
    return lambda: stock.api.queue.DeleteQueue(name=queue, force=True)


def rule_deletion(stock, count, at):
    queue = stock.queue(count)
    stock.api.set_callback(queue, "http://127.0.0.1:9/")  # refused five times, then its breaker is open and the rest waits
    stock.cancel(queue)
    return lambda: stock.api.callback.DeleteCallbackRule(queue=queue)


def past_deliveries(stock, count, at):
    queue = stock.queue(count)
    stock.api.callback.UpdateCallbackRule(rule=dict(queue=queue, url="http://127.0.0.1:9/"), update_mask=dict(paths=["url"]))  # off: recorded only
    stock.cancel(queue)


KINDS = (leases_run_out, jobs_expire, delays_end, retention, purge, deletion, rule_deletion, past_deliveries)


def longest_pause_ms():
    """What this machine takes from a program that does nothing but look at the clock: no slice can be sure to be shorter."""
    longest, last, end = 0, time.monotonic(), time.monotonic() + SPIN_S
    while last < end:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest * 1000


def sweep_longest_ms(context):
    """Milliseconds that the longest slice of upkeep holds Redis, with 200,000 of each kind to do and with all kinds at once"""
    import services
    count, span = context.pick((200_000, 25), (20_000, 3))
    longest, figures, all_slices, pause = 0, [], [], longest_pause_ms()
    with services.ringback(context.directory("s"), appendfsync="everysec") as server, contextlib.closing(Stock(server)) as stock:
        client = server.redis_client
        client.config_set("slowlog-max-len", 1_000_000)
        client.config_set("slowlog-log-slower-than", SLOWER_THAN_US)
        for kinds, each in [*(((kind,), count) for kind in KINDS), (KINDS, count // len(KINDS))]:
            client.slowlog_reset()
            at = time.time() + span
            triggers = [trigger for trigger in [kind(stock, each, at) for kind in kinds] if trigger]
            time.sleep(max(1, at - time.time()) + 0.5)  # a lease is a second at least
            for trigger in triggers:
                trigger()
            stock.wait()
            slices = [entry["duration"] / 1000 for entry in client.slowlog_get(1_000_000) if entry["command"].startswith(b"FCALL sweep_")]
            assert len(slices) * 250 >= each, f"{len(slices)} slices cannot have done {each:,}"
            longest = max(longest, max(slices))
            all_slices += slices
            name = kinds[0].__name__.replace("_", " ") if len(kinds) == 1 else "all at once"
            figures.append(f"{name} {max(slices):.1f} and {frame.percentile(slices, 99):.1f}")
    context.note(f"`sweep-longest-ms`: the longest and the 99th percentile of the slices in ms, by Redis's own slow log, {count:,} of each: " + ", ".join(figures) +
                 f"; {sum(slice > LIMIT_MS for slice in all_slices)} of {len(all_slices):,} took longer than {LIMIT_MS} ms. A loop that only looked at "
                 f"the clock, before all this, was held up for {pause:.1f} ms at most in {SPIN_S} s.")
    return dict(ours=longest, other=LIMIT_MS, other_name="what is wanted at most", ratio=longest / LIMIT_MS, unit="ms", rounds=1, better="less",
                target=("ours", "<=", LIMIT_MS))


ROWS = {}
MORE = {"sweep-longest-ms": sweep_longest_ms}
