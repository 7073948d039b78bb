"""What the store holds belongs together at every moment: Redis is killed in the midst of everything, and what is left of its append-only
file, cut off at any byte, still satisfies invariants.py. So the repair has nothing to do, unless Redis came back with something else."""
import contextlib
import random
import shutil
import threading
import time

import grpc
import pytest

import harness
from harness import Api, bucket_of, duration, eventually, lease_of, timestamp
from invariants import PENDING, check, violations

# --- the checker notices ---------------------------------------------------------------------------------------------------------


def store_of_everything(server, bucket, receiver):
    """Deliveries that wait, are under way and have ended; jobs that wait, run, are put off, expire and have ended."""
    api = server.api
    queue = api.make_queue(bucket, default_lease=duration(600))
    api.set_callback(queue, receiver.url(), concurrency=2, timeout=duration(60))
    api.submit(queue, 3)
    for leased in api.lease(queue, 3):
        api.finish(leased)
    receiver.wait(3)
    eventually(lambda: not [d for d in api.callback.ListDeliveries(queue=queue).deliveries if d.state != 3], what="three are delivered")
    receiver.status = 500
    api.submit(queue, callback=dict(url=receiver.url("/own")))
    api.finish(*api.lease(queue))
    eventually(lambda: [d for d in api.callback.ListDeliveries(queue=queue).deliveries if d.attempts and d.state == 1], what="it will be tried again")
    held = threading.Event()
    receiver.answers = [lambda _: held.wait(300)] * 2
    api.submit(queue, 5)
    for leased in api.lease(queue, 5):
        api.finish(leased)
    receiver.wait(6)
    api.submit(queue, 2)
    api.lease(queue, 1)
    api.submit(queue, 1, not_before=timestamp(time.time() + 600))
    api.submit(queue, 1, expire_time=timestamp(time.time() + 600))
    server.kill()
    held.set()


# What is done to which key, and a part of what must be said of it.
SABOTAGE = [
    ("due", lambda r, key: r.delete(key), "no dispatcher will look"),
    ("outbox:*", lambda r, key: r.zpopmin(key), "it waits: False"),
    ("claims:*", lambda r, key: r.zpopmin(key), "is claimed: False"),
    ("d:*", lambda r, key: r.delete(key), "has no record"),
    ("body:*", lambda r, key: r.delete(key), "has no body"),
    ("dl:*", lambda r, key: r.zpopmin(key), "not in its queue's list"),
    ("dended:*", lambda r, key: r.zpopmin(key), "has ended: False"),
    ("ready:*", lambda r, key: r.zpopmin(key), "is in set()"),
    ("delayed:*", lambda r, key: r.zpopmin(key), "is in set()"),
    ("ended:*", lambda r, key: r.delete(key), "and is in set()"),
    ("list:*", lambda r, key: r.xdel(key, r.xrange(key, count=1)[0][0]), "not in its queue's list"),
    ("j:*", lambda r, key: r.delete(key), "jobs as gone from its list"),
    ("state:*", lambda r, key: r.delete(key), "running jobs of 0"),
    *(("timers", lambda r, key, kind=kind: r.zrem(key, *[m for m in r.zrange(key, 0, -1) if (m[1:2] if m[:1] == b"." else b"L") == kind]), said) for kind, said in (
        (b"C", "the timer C"), (b"T", "ended deliveries and no timer"), (b"L", "no lease timer"), (b"D", "the timer D"), (b"R", "no timer to forget"),
        (b"E", "no timer for it"))),
]


def test_the_invariants_notice_whatever_is_taken_from_the_store(start_redis, start_server, bucket, receiver):
    redis = start_redis("--appendfsync", "no")
    store_of_everything(start_server(redis=redis.url), bucket, receiver)
    client = redis.client()
    check(client)
    for pattern, harm, said in SABOTAGE:
        keys = sorted(client.scan_iter("{p*}" + pattern, count=1000))
        assert keys, f"there is no {pattern}"
        kept = client.dump(keys[0])
        assert harm(client, keys[0]), pattern
        found = violations(client)
        assert any(said in what for what in found), f"{pattern}: {found}"
        client.restore(keys[0], 0, kept, replace=True)
    check(client)


# --- the repair puts callbacks back ----------------------------------------------------------------------------------------------

# Of what was done above, what leaves enough to tell where a callback belongs.
REPAIRED = ["due", "outbox:*", "claims:*", "d:*", "dended:*", "timers"]


def test_the_repair_puts_callbacks_back_to_where_they_belong(start_redis, start_server, bucket, receiver):
    redis = start_redis("--appendfsync", "no")
    store_of_everything(start_server(redis=redis.url), bucket, receiver)
    client = redis.client()
    functions, = (library[library.index(b"functions") + 1] for library in client.function_list())
    repair, = (function[1].decode() for function in functions if function[1].startswith(b"repair"))

    def repair_all():
        done = 0
        for tag in {key[:5] for key in client.scan_iter("{p*}*", count=1000)}:
            at = [0, b""]
            while True:
                [[code, *at, repaired]] = client.fcall(repair, 1, tag, 2, *at)
                assert code == 0
                done += repaired
                if at == [0, b""]:
                    break
        return done

    assert repair_all() == 0
    kept = {key: client.dump(key) for key in client.scan_iter("{p*}*", count=1000)}
    for pattern, harm, said in SABOTAGE:
        if pattern not in REPAIRED or pattern == "timers" and "timer C" not in said and "ended deliveries" not in said:
            continue
        harm(client, sorted(client.scan_iter("{p*}" + pattern, count=1000))[0])
        assert violations(client), pattern
        assert repair_all() > 0, pattern
        assert not violations(client), (pattern, violations(client))
        assert repair_all() == 0, pattern
        client.delete(*client.scan_iter("{p*}*", count=1000))
        for key, value in kept.items():
            client.restore(key, 0, value)


def test_a_callback_that_redis_lost_from_the_outbox_is_sent(start_redis, start_server, bucket, receiver):
    redis = start_redis("--appendfsync", "no")
    server = start_server(redis=redis.url)
    queue = server.api.make_queue(bucket)
    receiver.status = 500
    server.api.submit(queue, 3, callback=dict(url=receiver.url("/own")))
    for leased in server.api.lease(queue, 3):
        server.api.finish(leased)
    receiver.wait(3)
    eventually(lambda: {d.state for d in server.api.callback.ListDeliveries(queue=queue).deliveries} == {PENDING}, what="all wait for another attempt")
    server.kill()
    client = redis.client()
    outbox, = client.scan_iter("{p*}outbox:*", count=1000)
    client.delete(outbox)
    client.delete(outbox[:5] + b"due")
    receiver.status = 200
    server = start_server(redis=redis.url)
    receiver.wait(6, 60)
    eventually(lambda: not server.api.callback.ListDeliveries(queue=queue, states=["DELIVERY_STATE_PENDING", "DELIVERY_STATE_SENDING"]).deliveries, what="all are delivered")
    assert server.metrics()["ringback_callbacks_repaired_total"] == 3
    check(client)


# --- and has nothing to notice ---------------------------------------------------------------------------------------------------

class Crowd:
    """Threads that do all that can be done to jobs, queues, rules and deliveries, at random."""

    def __init__(self, servers, bucket, receiver, seed):
        self.bucket, self.receiver, self.stopped, self.errors, self.calls = bucket, receiver, threading.Event(), [], 0
        self.threads = [threading.Thread(target=self.run, args=(servers[n % len(servers)].target, random.Random(seed * 100 + n))) for n in range(6)]
        for thread in self.threads:
            thread.start()

    def run(self, target, chance):
        api, ids = Api(target), []
        try:
            while not self.stopped.is_set():
                try:
                    self.act(api, chance, f"buckets/{self.bucket}/queues/q{chance.choice('aaabbc')}", ids)
                    self.calls += 1
                except grpc.RpcError as error:
                    if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT):
                        raise
        except BaseException as error:  # handed on to the test
            self.errors.append(error)
        finally:
            api.close()

    def act(self, api, chance, queue, ids):
        one = chance.random()
        if one < 0.35:
            more = chance.choice([{}, {}, dict(callback=dict(url=self.receiver.url("/own"))), dict(not_before=timestamp(time.time() + 0.5)),
                                  dict(expire_time=timestamp(time.time() + chance.choice([0.3, 60])))])
            try:
                answer = api.job.SubmitJobs(queue=queue, jobs=[dict(tag="T", priority=chance.randint(0, 3), **more)] * chance.choice([1, 5, 40]), timeout=5)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT and "expire_time" in more and "expire_time" in error.details():
                    return  # it had passed when the server read it
                raise
            ids += [result.job_id for result in answer.results if result.job_id]
            del ids[:-500]
        elif one < 0.75:
            self.work(api, chance, queue)
        elif one < 0.8:
            call = api.job.CancelJobs if chance.random() < 0.5 else api.job.RetryJobs
            call(bucket=bucket_of(queue), job_ids=chance.sample(ids, min(len(ids), 10)) or [harness.NO_JOB], timeout=5)
        elif one < 0.85:
            state = chance.choice(["ON", "ON", "OFF"])
            api.callback.UpdateCallbackRule(rule=dict(queue=queue, url=self.receiver.url(), concurrency=chance.choice([1, 8]), state="CALLBACK_RULE_STATE_" + state),
                                            update_mask=dict(paths=["url", "concurrency", "state"]), timeout=5)
        elif one < 0.88:
            chance.choice([api.queue.PauseQueue, api.queue.ResumeQueue, api.queue.ResumeQueue])(name=queue, timeout=5)
        elif one < 0.91:
            found = api.callback.ListDeliveries(queue=queue, page_size=20, timeout=5).deliveries
            api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[d.id for d in found] or ["cb_none"], timeout=5)
        elif one < 0.93:
            self.receiver.status = chance.choice([200, 200, 200, 500, 410])
        elif one < 0.94:
            api.queue.PurgeQueue(name=queue, timeout=5)
        elif one < 0.95:
            api.callback.DeleteCallbackRule(queue=queue, timeout=5)
        elif one < 0.96:
            api.queue.DeleteQueue(name=queue, force=True, timeout=5)
        else:
            with contextlib.suppress(grpc.RpcError):  # it is there
                api.make_queue(self.bucket, queue.rsplit("/", 1)[1], default_lease=duration(1), max_concurrent=200,
                               retention=dict(max_count=chance.choice([50, 1000])), retry_policy=dict(max_attempts=2, min_backoff=duration(0.2)))

    def work(self, api, chance, queue):
        leased = api.lease(queue, chance.choice([1, 10, 50]), timeout=5, wait=0)
        fate = chance.random()
        if not leased or fate < 0.1:
            return  # these leases run out
        leases = [lease_of(one) for one in leased]
        if fate < 0.2:
            api.worker.ReleaseJobs(bucket=bucket_of(queue), leases=leases, timeout=5)
        else:
            outcome = dict(failure=dict(code="Bad", message="it failed")) if fate < 0.35 else dict(success={})
            api.worker.FinishJobs(bucket=bucket_of(queue), jobs=[dict(lease=lease, **outcome) for lease in leases], timeout=5)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def remains(redis, directory, size=None):
    """A Redis of a copy of what a killed one has left, its append-only file cut off at `size`."""
    shutil.copytree(redis.directory / "appendonlydir", directory / "appendonlydir")
    if size is not None:
        file, = (directory / "appendonlydir").glob("*.incr.aof")
        with open(file, "r+b") as opened:
            opened.truncate(size)
    return harness.Redis(directory, "--appendfsync", "no").start()


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_killed_redis_loses_what_it_has_left_belongs_together(start_redis, start_server, own_directory, bucket, receiver, seed):
    redis = start_redis("--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")
    servers = [start_server(redis=redis.url) for _ in range(2)]
    crowd = Crowd(servers, bucket, receiver, seed)
    try:
        for _ in range(4):
            time.sleep(1)
            check(redis.client())
        eventually(lambda: crowd.errors or crowd.calls > 200 and len(receiver.requests) > 50, 60, what="there is load")
        assert {server.metrics()["ringback_callbacks_repaired_total"] for server in servers} == {0}
        redis.kill()
    finally:
        for server in servers:
            server.allow_errors = True
            server.kill()
        crowd.stop()
    whole = max((redis.directory / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_size).stat().st_size
    chance = random.Random(seed)
    for cut, size in enumerate([None, *(chance.randrange(whole // 20, whole) for _ in range(20))]):
        left = remains(redis, own_directory / f"left{cut}", size)
        try:
            found = violations(left.client())
            assert not found, f"cut off at {size} of {whole}: {len(found)} invariants do not hold:\n" + "\n".join(found[:10])
        finally:
            left.kill()
        shutil.rmtree(left.directory)
