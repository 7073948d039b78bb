"""What happens when processes die or hang under load. The seeds are in the tests' names: a failure can be run again."""
import random
import signal
import threading
import time
import os

import grpc
import pytest

from harness import PATIENCE, SLOW, Api, bucket_of, duration, eventually, lease_of, processes_of, rejects
from invariants import check

RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN,
           grpc.StatusCode.INTERNAL)


class Load:
    """Producers that keep the ids they were promised, and workers that keep what was accepted from them."""

    def __init__(self, target, queue, seed):
        self.target, self.queue, self.stopped = target, queue, threading.Event()
        self.acknowledged, self.accepted, self.errors = [], {}, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.guard, args=(run, seed * 100 + n)) for n, run in enumerate(
            [self.produce] * 3 + [self.work] * 2)]
        for thread in self.threads:
            thread.start()

    def guard(self, run, seed):
        api, chance = Api(self.target() if callable(self.target) else self.target), random.Random(seed)
        try:
            while not self.stopped.is_set():
                try:
                    run(api, chance)
                except grpc.RpcError as error:
                    if error.code() not in RETRIED:
                        raise
                    time.sleep(0.05)
        except BaseException as error:  # handed on to the test
            self.errors.append(error)
        finally:
            api.close()

    def produce(self, api, chance):
        answer = api.job.SubmitJobs(queue=self.queue, jobs=[dict(tag="T", priority=chance.randint(0, 3))] * chance.choice((1, 5, 20)), timeout=3)
        with self.lock:
            self.acknowledged += [r.job_id for r in answer.results]

    def work(self, api, chance):
        for item in api.lease(self.queue, chance.choice((1, 4)), wait=0.2, timeout=3):
            result = api.worker.FinishJobs(bucket=bucket_of(self.queue), jobs=[dict(lease=lease_of(item), success={})], timeout=3).results[0]
            if result.status.code == 0:
                with self.lock:
                    self.accepted.setdefault(item.job.id, []).append(item.fencing_token)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def nothing_is_lost(server, queue, load):
    """Every acknowledged job is there, what was accepted as finished is finished, and all that the store holds belongs together."""
    api = server.api
    check(server.store())
    for start in range(0, len(load.acknowledged), 250):
        ids = load.acknowledged[start:start + 250]
        answer = api.job.GetJobs(bucket=bucket_of(queue), job_ids=ids)
        assert not answer.non_exist_job_ids, f"lost: {list(answer.non_exist_job_ids)[:5]} of {len(load.acknowledged)}"
        for job in answer.jobs:
            assert job.id not in load.accepted or job.state == 3, f"{job.id} was accepted as finished and reads as {job.state}"
    assert all(len(set(tokens)) == 1 for tokens in load.accepted.values()), "two runs of a job were accepted"
    # Whatever was in flight ends too.
    end = time.monotonic() + 60 * PATIENCE
    while time.monotonic() < end:
        counts = api.queue.GetQueue(name=queue).queue.counts
        if counts.waiting + counts.running + counts.delayed == 0:
            break
        leased = api.lease(queue, 250, wait=0.5)
        if leased:
            api.worker.FinishJobs(bucket=bucket_of(queue), jobs=[dict(lease=lease_of(item), success={}) for item in leased])
    assert counts.waiting + counts.running + counts.delayed == 0, counts
    assert counts.success >= len(set(load.acknowledged))
    check(server.store())


def ready(server, queue, seconds=30):
    """Waits until calls go through to Redis again."""
    def answers():
        try:
            return server.api.queue.GetQueue(name=queue, timeout=3)
        except grpc.RpcError as error:
            assert error.code() in RETRIED, error
            return None
    return eventually(answers, seconds)


def submitted(server, queue):
    """A job's id by itself in a list; None while Redis is away."""
    try:
        return server.api.submit(queue)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        return None


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_no_acknowledged_job_is_lost_when_the_server_or_its_redis_is_killed(start_server, bucket, seed):
    chance = random.Random(seed)
    server = start_server()
    queue = server.api.make_queue(bucket, default_lease=duration(2), retry_policy=dict(max_attempts=100, min_backoff=duration(0)),
                                  retention=dict(max_count=1_000_000))
    load = Load(server.target, queue, seed)
    try:
        for _ in range(3):
            time.sleep(chance.uniform(0.3, 1.2))
            victim = chance.choice(("server", "redis", "both"))
            if victim in ("redis", "both"):
                for pid in processes_of(server.directory):
                    os.kill(pid, signal.SIGKILL)
            if victim in ("server", "both"):
                server.kill()
                time.sleep(chance.uniform(0, 0.3))
                server.start()
            ready(server, queue)
        time.sleep(0.5)
        eventually(lambda: load.errors or len(load.acknowledged) > 50, 60, what="there was load")
    finally:
        load.stop()
    nothing_is_lost(server, queue, load)


@pytest.mark.faults
def test_a_survivor_of_a_killed_server_is_adopted(start_server, bucket):
    server = start_server()
    queue = server.api.make_queue(bucket)
    ids = server.api.submit(queue, 100)
    before = processes_of(server.directory)
    assert len(before) == 1
    server.kill()
    assert processes_of(server.directory) == before
    server.start()
    ready(server, queue)
    assert [l.job.id for l in server.api.lease(queue, 100)] == ids
    eventually(lambda: len(processes_of(server.directory)) == 1)
    server.stop()
    eventually(lambda: not processes_of(server.directory))


def test_a_killed_embedded_redis_is_started_again(start_server, bucket):
    server = start_server()
    queue = server.api.make_queue(bucket)
    ids = server.api.submit(queue, 50)
    pid, = processes_of(server.directory)
    os.kill(pid, signal.SIGKILL)

    def leases():
        try:
            return [l.job.id for l in server.api.lease(queue, 100)]
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return None

    assert eventually(leases, 20) == ids
    new, = processes_of(server.directory)
    assert new != pid


def test_a_hung_redis_leaves_health_answering_and_calls_refused_soon(start_redis, start_server, bucket):
    redis = start_redis()
    server = start_server("--redis-wait", "1s", redis=redis.url)
    queue = server.api.make_queue(bucket)
    health = Api(server.target)
    health.health()
    redis.freeze()
    try:
        calls = [server.api.job.SubmitJob.begin(queue=queue, job=dict(tag="T"), request_id=f"r{n}", timeout=60) for n in range(20)]
        took = []
        for _ in range(30):
            begun = time.monotonic()
            health.health()
            took.append(time.monotonic() - begun)
            time.sleep(0.05)
        assert sorted(took)[20] < 0.5 * SLOW, f"health took {took} s"
        begun = time.monotonic()
        for call in calls:
            with rejects("UNAVAILABLE") as seen:
                call.result()
            assert "RetryInfo" in seen.details
        assert time.monotonic() - begun < 30 * SLOW
        took = []
        for _ in range(5):
            begun = time.monotonic()
            with rejects("UNAVAILABLE"):
                server.api.submit(queue)
            took.append(time.monotonic() - begun)
        assert min(took) < 0.9, "while Redis is sick calls are refused at once, not each after the second that people wait"
    finally:
        redis.thaw()
        health.close()

    def works():
        try:
            return server.api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="after").job.id
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return None

    assert eventually(works, 20)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("how", ["hangs", "is gone"])
def test_a_server_whose_redis_is_away_waits_and_does_not_spin(start_redis, start_server, bucket, how):
    redis = start_redis()
    server = start_server("--redis-wait", "1s", redis=redis.url)
    queue = server.api.make_queue(bucket)
    waiting = [server.api.worker.LeaseJobs.begin(queues=[queue], timeout=50, wait=duration(40)) for _ in range(20)]
    eventually(lambda: server.metrics()["ringback_calls_parked"] == len(waiting), 20, what="all wait")
    # What a call costs here, by which what refused ones cost is judged.
    before = cpu_seconds(server.process.pid)
    for _ in range(300):
        server.api.queue.GetQueue(name=queue)
    a_call = (cpu_seconds(server.process.pid) - before) / 300
    redis.freeze() if how == "hangs" else redis.kill()
    try:
        begun, before, refused = time.monotonic(), cpu_seconds(server.process.pid), 0
        while time.monotonic() - begun < 3:
            with rejects("UNAVAILABLE"):
                server.api.submit(queue)
            refused += 1
            time.sleep(0.01)
        took, elapsed = cpu_seconds(server.process.pid) - before, time.monotonic() - begun
    finally:
        if how == "hangs":
            redis.thaw()
    assert took < 0.4 * elapsed + 3 * a_call * refused, f"{took:.2f} s of processor time in {elapsed:.2f} s, for {refused} calls; others cost {a_call:.4f} s"


def test_a_lease_that_waits_outlives_a_restart_of_redis(start_redis, start_server, bucket):
    redis = start_redis()
    server = start_server(redis=redis.url)
    queue = server.api.make_queue(bucket)
    call = server.api.worker.LeaseJobs.begin(queues=[queue], timeout=50)
    time.sleep(0.3)
    redis.kill()
    time.sleep(0.5)
    redis.start()

    job, = eventually(lambda: submitted(server, queue), 20)
    try:
        assert [l.job.id for l in call.result().jobs] == [job]
    except grpc.RpcError as error:  # it may have been told that Redis was away; then the worker asks again
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert [l.job.id for l in server.api.lease(queue, wait=15)] == [job]


def test_a_redis_that_lost_the_function_library_gets_it_again(start_redis, start_server, bucket):
    redis = start_redis()
    server = start_server(redis=redis.url)
    queue = server.api.make_queue(bucket)
    client = redis.client()  # not FUNCTION FLUSH: Redis 8.0.2 crashes in it when a function has run
    client.function_delete(client.function_list()[0][1].decode())

    assert eventually(lambda: submitted(server, queue), 15)


def test_callbacks_outlive_a_killed_server(start_redis, start_server, bucket, receiver):
    redis = start_redis()
    server = start_server(redis=redis.url)
    queue = server.api.make_queue(bucket)
    server.api.set_callback(queue, receiver.url(), timeout=duration(5))
    receiver.status = 500
    server.api.submit(queue, 20)
    for item in server.api.lease(queue, 20):
        server.api.finish(item)
    receiver.wait(1)
    server.kill()
    receiver.status = 200
    server.start()
    ready(server, queue)
    eventually(lambda: len(server.api.callback.ListDeliveries(
        queue=queue, page_size=100, states=["DELIVERY_STATE_DELIVERED"]).deliveries) == 20, 60)
    bodies = {}
    for request in receiver.requests:
        bodies.setdefault(request.headers["webhook-id"], set()).add(request.body)
    assert len(bodies) == 20 and all(len(b) == 1 for b in bodies.values()), "the same bytes on every attempt"


@pytest.mark.faults
def test_a_callback_that_ends_its_server_five_times_is_set_aside_without_an_attempt_and_others_go_on(start_server, bucket, receiver, clock):
    """The receiver stands for what is poisonous: it holds the request until the server is killed."""
    server = start_server(env=clock.env)
    queue = server.api.make_queue(bucket)
    server.api.set_callback(queue, receiver.url("/poison"), timeout=duration(60))
    held = threading.Event()
    receiver.answers = [lambda handler: held.wait(300)] * 5
    server.api.submit(queue)
    server.api.finish(server.api.lease(queue)[0])

    def delivery():
        found, = server.api.callback.ListDeliveries(queue=queue).deliveries
        return found

    for times in range(1, 6):
        receiver.wait(times, 20)
        assert delivery().state == 2 and delivery().attempts == 0, "it is being sent, and a dead process used up nothing"
        server.kill()
        clock.advance(60 + 60)  # the claim runs out
        server.start()
        ready(server, queue)
    eventually(lambda: delivery().state == 4, 30)
    assert delivery().error_class == "crash_loop" and delivery().attempts == 0
    other = server.api.make_queue(bucket, "other")
    server.api.set_callback(other, receiver.url("/good"))
    server.api.submit(other)
    server.api.finish(server.api.lease(other)[0])
    receiver.wait(1, 20, path="/good")
    assert len(receiver.requests) == 6
    # Put back by hand, it is sent again.
    assert server.api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[delivery().id]).results[0].code == 0
    eventually(lambda: delivery().state == 3 and delivery().attempts == 1, 20)
    held.set()


@pytest.mark.faults
def test_what_a_killed_server_was_sending_is_sent_again_once_and_used_up_no_attempt(start_server, bucket, receiver, clock):
    server = start_server(env=clock.env)
    queue = server.api.make_queue(bucket)
    server.api.set_callback(queue, receiver.url(), timeout=duration(60))
    held = threading.Event()
    receiver.answers = [lambda handler: held.wait(300)] * 8
    server.api.submit(queue, 8)
    for item in server.api.lease(queue, 8):
        server.api.finish(item)
    receiver.wait(8, 20)
    server.kill()
    held.set()
    clock.advance(60 + 60)
    server.start()
    ready(server, queue)
    eventually(lambda: len(server.api.callback.ListDeliveries(
        queue=queue, page_size=100, states=["DELIVERY_STATE_DELIVERED"]).deliveries) == 8, 30)
    bodies = {}
    for request in receiver.requests:
        bodies.setdefault(request.headers["webhook-id"], []).append(request.body)
    assert [len(set(copies)) for copies in bodies.values()] == [1] * 8 and {len(copies) for copies in bodies.values()} == {2}
    assert all(d.attempts == 1 for d in server.api.callback.ListDeliveries(queue=queue, page_size=100).deliveries)


@pytest.mark.faults
def test_a_server_and_workers_that_vanish_leave_nothing_running_for_ever(start_redis, start_server, bucket):
    redis = start_redis()
    one, two = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = one.api.make_queue(bucket, default_lease=duration(1), retry_policy=dict(max_attempts=2, min_backoff=duration(0)))
    ids = one.api.submit(queue, 100)
    one.api.lease(queue, 100)
    one.kill()
    got = []
    end = time.monotonic() + 30 * PATIENCE
    while len(got) < 100 and time.monotonic() < end:
        got += [l.job.id for l in two.api.lease(queue, 100, wait=1)]
    assert sorted(got) == ids


def test_a_transaction_that_a_kill_cut_off_stays_undone_for_ever(start_server, bucket):
    """Redis by itself would run its beginning at the start after the next one."""
    server = start_server()
    data, api = server.data, server.api
    queue = api.make_queue(bucket)
    api.submit(queue, 3)
    for _ in range(2):
        api.submit(queue, 5)
        redis = int((data / "redis.pid").read_text())
        server.kill()
        os.kill(redis, signal.SIGKILL)
        eventually(lambda pid=redis: not os.path.exists(f"/proc/{pid}"), what="the embedded Redis is gone")
        file = max((data / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
        content = file.read_bytes()
        file.write_bytes(content[:content.rindex(b"ZADD") + 20])  # within the command that puts the five in line
        server = start_server(data=data)
        api = server.api
        assert len(api.job.ListJobs(filter=dict(queue=queue)).jobs) in (3, 4)
        api.finish(*api.lease(queue, 1))
        api.submit(queue, 1)
        check(server.store())
    assert sorted(job.state for job in api.job.ListJobs(filter=dict(queue=queue)).jobs) == [1, 1, 1, 3, 3]
