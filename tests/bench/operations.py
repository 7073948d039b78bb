"""What each operation costs Redis with little and with much in its way: a thousand and a million jobs waiting, one queue and 10,000."""
import concurrent.futures
import contextlib
import statistics

import frame

FEW = 1000
SLACK = 1.25
PAGE = 50


class Place:
    """A queue of a server, and the operations on it, each leaving it as it was."""

    def __init__(self, server, name):
        self.api, self.client = server.api, server.redis_client
        self.queue = f"buckets/depth/queues/{name}"
        self.bucket = "buckets/depth"
        self.some = self.api.job.ListJobs(filter=dict(queue=self.queue), page_size=PAGE).jobs[PAGE // 2].id
        self.last = self.leased = None

    def redis_us(self, call):
        """That Redis worked on it."""
        before = self.spent()
        call()
        return self.spent() - before

    def spent(self):
        # The server's own threads ask as well, but seldom: medians do not see it.
        return self.client.info("commandstats").get("cmdstat_fcall", {"usec": 0})["usec"]

    def operations(self):
        """name -> what comes before, the call that is measured, and what puts all back; None: nothing."""
        import harness
        api, bucket, queue = self.api, self.bucket, self.queue
        job = dict(tag="Depth", operation=dict(opaque=dict(data=b"x" * frame.PAYLOAD_BYTES, content_type="a/b")))

        def cancel():
            return api.job.CancelJobs(bucket=bucket, job_ids=[self.last])

        def submit():
            self.last = api.job.SubmitJob(queue=queue, job=job).job.id

        def lease():
            self.leased = api.lease(queue)

        def release():
            api.worker.ReleaseJobs(bucket=bucket, leases=[harness.lease_of(one) for one in self.leased])

        def renew():
            assert api.worker.RenewLeases(bucket=bucket, renewals=[dict(lease=harness.lease_of(self.leased[0]), progress=5)]).results[0].status.code == 0

        def finish():
            assert api.finish(self.leased[0]).status.code == 0

        return {
            "submit": (None, submit, cancel), "lease": (None, lease, release), "renew": (lease, renew, release), "finish": (lease, finish, submit),
            "cancel": (submit, cancel, None), "get": (None, lambda: api.get(self.some, queue), None),
            "list": (None, lambda: api.job.ListJobs(filter=dict(queue=queue), page_size=PAGE), None),
            "explain": (None, lambda: api.job.ExplainJob(bucket=bucket, job_id=self.some), None),
            "change priority": (None, lambda: api.job.ChangePriority(bucket=bucket, job_id=self.some, priority=0), None),
            "pause and resume": (None, lambda: (api.queue.PauseQueue(name=queue), api.queue.ResumeQueue(name=queue)), None),
            "get queue": (None, lambda: api.queue.GetQueue(name=queue), None),
            "list queues": (None, lambda: api.queue.ListQueues(bucket=bucket, page_size=PAGE), None),
        }

    def cost(self, operation):
        before, measured, after = self.operations()[operation]
        if before:
            before()
        us = self.redis_us(measured)
        if after:
            after()
        return us


def operations_in(context, few, many, rounds):
    """The medians of both, an operation a pair."""
    costs = {}
    for operation in few.operations():
        ours, other = frame.alternate(rounds, lambda: many.cost(operation), lambda: few.cost(operation))
        costs[operation] = statistics.median(ours), statistics.median(other)
    return costs


def told(context, row, costs, more, less):
    context.note(f"`{row}`: µs of Redis a call, {more} and {less}: " + ", ".join(
        f"{name} {ours:.0f} and {other:.0f}" + (" (beyond a quarter more)" if ours > SLACK * other else "") for name, (ours, other) in costs.items()) + ".")
    worst = max(costs, key=lambda name: costs[name][0] / costs[name][1])
    ours, other = costs[worst]
    return dict(ours=ours, other=other, other_name=f"{worst} {less}", ratio=ours / other, unit="µs of Redis", better="less", target=("ratio", "<=", SLACK))


def operations_depth(context):
    """µs of Redis a call with a million jobs waiting against a thousand: the operation that differs most, and a note with all of them"""
    import services
    many, rounds = context.pick((1_000_000, 200), (100_000, 60))
    with services.ringback(context.directory("s")) as server:
        for name, count in (("many", many), ("few", FEW)):
            queue = server.api.make_queue("depth", name, max_size=10_000_000, max_concurrent=1_000_000)
            services.load(server.target, "submit", "--queue", queue, "--batch", 250, "--in-flight", 8, "--count", count, "--duration", "300s",
                          "--payload-bytes", frame.PAYLOAD_BYTES)
        services.settle(server.redis_client)
        costs = operations_in(context, Place(server, "few"), Place(server, "many"), rounds)
    return told(context, "operations-depth", costs, f"with {many:,} waiting", "with 1,000") | dict(rounds=rounds)


def operations_breadth(context):
    """µs of Redis a call among 10,000 queues against one: the operation that differs most, and a note with all of them"""
    import harness
    import services
    many, rounds = context.pick((10_000, 200), (1000, 60))
    with services.ringback(context.directory("w")) as wide, services.ringback(context.directory("n")) as narrow:
        for server, count in ((wide, many), (narrow, PAGE)):  # a page of queues is listed on both
            apis = [harness.Api(server.target) for _ in range(4)]
            with concurrent.futures.ThreadPoolExecutor(4) as pool, contextlib.ExitStack() as stack:
                for api in apis:
                    stack.callback(api.close)
                list(pool.map(lambda k: apis[k % 4].make_queue("depth", f"q{k}"), range(count)))
                queue = "buckets/depth/queues/q0"
                apis[0].submit(queue, FEW)
            services.settle(server.redis_client)
        costs = operations_in(context, Place(narrow, "q0"), Place(wide, "q0"), rounds)
    return told(context, "operations-breadth", costs, f"among {many:,} queues", f"among {PAGE}") | dict(rounds=rounds)


ROWS = {}
MORE = {"operations-depth": operations_depth, "operations-breadth": operations_breadth}
