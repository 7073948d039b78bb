"""The Work stream: credit, order, batches, acknowledgements, stop requests, streams that die or are deaf, drains, and what is refused."""
import queue as queues
import threading
import time

import grpc
import pytest
from harness import PATIENCE, SLOW, bucket_of, duration, eventually, lease_of, module, rejects, state_name


class Stream:
    """A worker's stream: `send` says something, `read` takes the next message; `take` collects jobs, acknowledging them."""

    def __init__(self, server_api, names=None, credit=0, timeout=600, **open_fields):
        self.messages = module("worker")
        stub = __import__("importlib").import_module("ringback.v1.worker_pb2_grpc").WorkerServiceStub(server_api.channel)
        self.up, self.down = queues.Queue(), queues.Queue()
        self.sequence, self.error = 0, None
        self.call = stub.Work(iter(self.up.get, None), timeout=timeout * SLOW)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if names is not None:
            names = [names] if isinstance(names, str) else names
            self.send(open=dict(queues=names, worker=open_fields.pop("worker", "w"), **open_fields), credit=credit)

    def _read(self):
        try:
            for message in self.call:
                self.down.put(message)
        except grpc.RpcError as error:
            self.error = error
        self.down.put(None)

    def send(self, **fields):
        self.up.put(self.messages.WorkRequest(**fields))

    def read(self, seconds=10):
        """The next message; None at the end of the stream. Raises the stream's error."""
        message = self.down.get(timeout=seconds * PATIENCE)
        if message is None:
            self.down.put(None)
            if self.error is not None:
                raise self.error
        return message

    def silent(self, seconds=0.4):
        try:
            message = self.down.get(timeout=seconds)
        except queues.Empty:
            return True
        raise AssertionError(f"came unexpectedly: {message or self.error}")

    def read_until(self, wanted, seconds=10):
        """The first message for which `wanted(message)` is true."""
        while True:
            message = self.read(seconds)
            assert message is not None, "the stream ended"
            if wanted(message):
                return message

    def jobs(self, count, acknowledge=True, seconds=10):
        found = []
        while len(found) < count:
            message = self.read(seconds)
            assert message is not None, f"the stream ended after {len(found)} of {count} jobs"
            found += message.jobs
            if message.jobs:
                self.sequence += 1
                assert message.sequence == self.sequence
                if acknowledge:
                    self.send(acknowledged_sequence=message.sequence)
        return found

    def finish(self, *leased, **more):
        self.send(finished=[dict(lease=lease_of(job), success={}) for job in leased], **more)

    def finished(self, count, seconds=10):
        results = []
        while len(results) < count:
            message = self.read(seconds)
            assert message is not None
            results += message.finished
        return results

    def end(self):
        """Half-closes and reads to the end; the messages that were still to come."""
        self.up.put(None)
        rest = []
        while True:
            message = self.read()
            if message is None:
                return rest
            rest.append(message)

    def cancel(self):
        self.call.cancel()
        self.up.put(None)


@pytest.fixture
def work(api):
    """work(queues, credit=..., open's fields...) opens a stream on the shared server."""
    opened = []

    def start(names=None, credit=0, on=None, **fields):
        opened.append(Stream(on or api, names, credit, **fields))
        return opened[-1]

    yield start
    for stream in opened:
        stream.cancel()


def ids_of(leased):
    return [each.job.id for each in leased]


def test_jobs_come_as_far_as_the_credit_goes(api, queue, work):
    ids = api.submit(queue, 10)
    stream = work(queue, credit=3)
    assert ids_of(stream.jobs(3)) == ids[:3]
    assert stream.silent()
    assert state_name(api.get(ids[3], queue).state) == "SUBMITTED"
    stream.send(credit=4)
    assert ids_of(stream.jobs(4)) == ids[3:7]
    assert stream.silent()


def test_credit_without_jobs_waits_for_them(api, queue, work):
    stream = work(queue, credit=2)
    assert stream.silent()
    for _ in range(2):
        [job_id] = api.submit(queue)
        [leased] = stream.jobs(1)
        assert leased.job.id == job_id and leased.job.worker == "w" and state_name(leased.job.state) == "RUNNING"
        assert leased.fencing_token > 0 and leased.lease_expire_time.seconds > time.time()
    api.submit(queue)
    assert stream.silent()


def test_the_more_important_queue_comes_first_and_priority_within_it(api, bucket, work):
    first, second = api.make_queue(bucket, "first"), api.make_queue(bucket, "second")
    expected = []
    for name in (second, first):
        low, high = api.submit(name, priority=1)[0], api.submit(name, priority=9)[0]
        expected = [high, low] + expected
    stream = work([first, second], credit=10)
    assert ids_of(stream.jobs(4)) == expected


def test_a_batch_of_outcomes_is_answered_in_one_message_and_in_order(api, queue, work):
    ids = api.submit(queue, 120)
    stream = work(queue, credit=120)
    leased = stream.jobs(120)
    assert ids_of(leased) == ids
    finished = [dict(lease=lease_of(each), success={}) for each in leased]
    finished[7] = dict(lease=lease_of(leased[7]), failure=dict(code="Broken", never=True))
    finished[8] = dict(lease=lease_of(leased[8]))
    finished[9] = dict(lease=dict(job_id=ids[9], fencing_token=1), success={})
    stream.send(finished=finished)
    message = stream.read_until(lambda m: m.finished)
    assert [each.job_id for each in message.finished] == ids
    codes = {i: each.result.status.code for i, each in enumerate(message.finished) if each.result.status.code}
    assert codes == {8: 3, 9: 9}
    assert state_name(message.finished[7].result.state) == "FAILED"
    assert {state_name(message.finished[i].result.state) for i in range(7)} == {"SUCCESS"}
    assert api.state(ids[7], queue) == "FAILED" and api.state(ids[8], queue) == "RUNNING"


def test_outcome_and_credit_in_one_message_bring_the_result_and_the_next_job(api, queue, work):
    ids = api.submit(queue, 3)
    stream = work(queue, credit=1)
    [leased] = stream.jobs(1)
    for expected in ids[1:]:
        stream.finish(leased, credit=1)
        message = stream.read()
        assert state_name(message.finished[0].result.state) == "SUCCESS"
        assert ids_of(message.jobs) == [expected]
        leased = message.jobs[0]


def test_a_renewal_extends_the_lease_and_shows_progress(api, queue, work):
    api.submit(queue)
    stream = work(queue, credit=1, lease=duration(20))
    [leased] = stream.jobs(1)
    stream.send(renewals=[dict(lease=lease_of(leased), progress=42, extension=duration(100))])
    [renewal] = stream.read_until(lambda m: m.renewals).renewals
    assert renewal.job_id == leased.job.id and renewal.result.status.code == 0 and renewal.result.stop_reason == 0
    assert renewal.result.lease_expire_time.seconds - leased.lease_expire_time.seconds >= 75
    assert api.get(leased.job.id, queue).progress == 42


def test_a_released_job_comes_back_and_its_attempt_does_not_count(api, queue, work):
    [job_id] = api.submit(queue)
    stream = work(queue, credit=1)
    [leased] = stream.jobs(1)
    stream.send(released=[lease_of(leased)])
    [released] = stream.read_until(lambda m: m.released).released
    assert released.job_id == job_id and released.status.code == 0
    stream.send(credit=1)
    [again] = stream.jobs(1)
    assert again.job.id == job_id and again.job.attempts == 1 and again.fencing_token > leased.fencing_token


def test_a_cancelled_job_is_to_be_stopped_and_its_late_result_is_refused(api, queue, work):
    [job_id] = api.submit(queue)
    stream = work(queue, credit=1)
    [leased] = stream.jobs(1)
    api.job.CancelJobs(bucket=bucket_of(queue), job_ids=[job_id])
    stream.send(renewals=[dict(lease=lease_of(leased))])
    [renewal] = stream.read_until(lambda m: m.renewals).renewals
    assert renewal.result.stop_reason == module("worker").STOP_REASON_CANCELLED and renewal.result.status.code == 9
    stream.finish(leased)
    assert stream.finished(1)[0].result.status.code == 9
    assert api.state(job_id, queue) == "CANCEL"


def test_the_same_outcome_twice_is_ok(api, queue, work):
    api.submit(queue)
    stream = work(queue, credit=1)
    [leased] = stream.jobs(1)
    stream.finish(leased)
    stream.finish(leased)
    assert [each.result.status.code for each in stream.finished(2)] == [0, 0]


# --- streams that die ------------------------------------------------------------------------------------------------------------

def test_what_a_dead_stream_held_comes_back_at_once_and_uncounted(api, queue, work):
    ids = api.submit(queue, 300)
    stream = work(queue, credit=300)
    leased = stream.jobs(300)
    stream.finish(leased[0])
    stream.finished(1)
    other = work(queue, credit=1000)
    assert other.silent()
    began = time.monotonic()
    stream.cancel()
    again = other.jobs(299)
    assert time.monotonic() - began < 20 * SLOW, "not when their leases ran out"
    assert sorted(ids_of(again)) == sorted(ids[1:])
    assert {each.job.attempts for each in again} == {1}


def test_a_worker_that_is_killed_with_its_connection_leaves_nothing_leased(server, api, queue, work):
    import harness
    other = harness.Api(server.target)
    api.submit(queue, 5)
    stream = Stream(other, queue, credit=5)
    leased = stream.jobs(5, acknowledge=False)
    other.close()
    assert sorted(ids_of(work(queue, credit=5).jobs(5))) == sorted(ids_of(leased))


def test_with_keep_leases_only_what_was_not_acknowledged_comes_back(api, queue, work):
    ids = api.submit(queue, 4)
    stream = work(queue, credit=2, keep_leases=True, lease=duration(60))
    kept = stream.jobs(2)
    stream.send(credit=2)
    stream.jobs(2, acknowledge=False)
    stream.cancel()
    other = work(queue, credit=4)
    assert sorted(ids_of(other.jobs(2))) == ids[2:]
    assert other.silent()
    other.send(renewals=[dict(lease=lease_of(each), progress=1) for each in kept])
    assert [each.result.status.code for each in other.read_until(lambda m: m.renewals).renewals] == [0, 0]
    other.finish(*kept)
    assert [each.result.status.code for each in other.finished(2)] == [0, 0]


def test_a_renewal_takes_the_job_over_to_its_stream(api, queue, work):
    [job_id] = api.submit(queue)
    [leased] = api.lease(queue)
    stream = work(queue)
    stream.send(renewals=[dict(lease=lease_of(leased))])
    stream.read_until(lambda m: m.renewals)
    stream.cancel()
    assert ids_of(work(queue, credit=1).jobs(1)) == [job_id]


def test_a_half_closed_stream_ends_well_and_gives_back_what_it_held(api, queue, work):
    ids = api.submit(queue, 2)
    stream = work(queue, credit=2)
    leased = stream.jobs(2)
    stream.finish(leased[0])
    rest = stream.end()
    assert [each.result.status.code for message in rest for each in message.finished] == [0]
    assert ids_of(work(queue, credit=1).jobs(1)) == ids[1:]


def test_a_worker_that_acknowledges_nothing_is_deaf_and_holds_nothing(api, queue, work):
    [job_id] = api.submit(queue)
    stream = work(queue, credit=1, acknowledge_within=duration(1))
    stream.jobs(1, acknowledge=False)
    other = work(queue, credit=1)
    assert ids_of(other.jobs(1)) == [job_id]
    with rejects("ABORTED"):
        stream.read()


def test_a_worker_that_heartbeats_but_reads_nothing_holds_nothing(api, queue, bucket, server):
    """Its renewals arrive, but the stream's window is full: it never asks for a message."""
    import importlib
    payload = dict(opaque=dict(data=b"x" * 60000, content_type="application/octet-stream"))
    ids = api.submit(queue, 40, operation=payload)
    up = queues.Queue()
    stub = importlib.import_module("ringback.v1.worker_pb2_grpc").WorkerServiceStub(api.channel)
    request = module("worker").WorkRequest
    [held] = api.lease(queue)
    up.put(request(open=dict(queues=[queue], acknowledge_within=duration(10)), credit=39))
    call = stub.Work(iter(up.get, None), timeout=300 * SLOW)
    eventually(lambda: api.queue.GetQueue(name=queue).queue.counts.running == 40, what="all are leased")

    def given_back():
        up.put(request(renewals=[dict(lease=lease_of(held), progress=1)]))
        return api.queue.GetQueue(name=queue).queue.counts.running < 40

    eventually(given_back, 30, every=0.2, what="it is taken for deaf")
    up.put(None)
    leased = []
    while len(leased) < 40:
        more = api.lease(queue, 250, wait=30)
        assert more
        leased += more
    assert sorted(ids_of(leased)) == sorted(ids)
    call.cancel()


# --- drains --------------------------------------------------------------------------------------------------------------------

def test_a_drained_stream_gets_no_more_jobs_and_finishes_what_it_has(api, queue, work):
    api.submit(queue, 3)
    stream = work(queue, credit=1)
    [leased] = stream.jobs(1)
    stream.send(drain=True, credit=5)
    assert stream.read().draining == module("worker").DRAIN_REASON_REQUESTED
    assert stream.silent()
    stream.send(credit=5)
    stream.finish(leased)
    assert stream.finished(1)[0].result.status.code == 0
    assert stream.end() == []
    assert api.queue.GetQueue(name=queue).queue.counts.running == 0


def test_a_server_that_goes_tells_its_streams_and_lets_them_finish(start_server):
    server = start_server()
    api = server.api
    name = api.make_queue("b-drain")
    api.submit(name, 2)
    stream, idle = Stream(api, name, credit=1), Stream(api, name)
    [leased] = stream.jobs(1)
    idle.send(released=[dict(job_id=leased.job.id, fencing_token=leased.fencing_token + 1)])
    assert idle.read().released[0].status.code != 0  # the answer says that the stream is open
    server.process.terminate()
    shutting = module("worker").DRAIN_REASON_SHUTTING_DOWN
    assert stream.read().draining == shutting
    assert idle.read().draining == shutting
    assert idle.read() is None
    stream.finish(leased, credit=3)
    assert stream.finished(1)[0].result.status.code == 0
    assert stream.read() is None
    assert server.process.wait(20 * PATIENCE) == 0


def test_acknowledged_jobs_survive_the_server_that_sent_them(start_server, start_redis):
    redis = start_redis()
    first, second = start_server(redis=redis.url), start_server(redis=redis.url)
    name = second.api.make_queue("b-two")
    ids = second.api.submit(name, 3)
    stream = Stream(first.api, name, credit=2, lease=duration(60))
    leased = stream.jobs(2)
    first.kill()
    other = Stream(second.api, name, credit=3)
    assert ids_of(other.jobs(1)) == ids[2:]
    other.send(renewals=[dict(lease=lease_of(each)) for each in leased])
    assert [each.result.status.code for each in other.read_until(lambda m: m.renewals).renewals] == [0, 0]
    other.finish(*leased)
    assert [each.result.status.code for each in other.finished(2)] == [0, 0]
    other.cancel()


def test_a_stream_outlives_its_store(start_server, start_redis):
    redis = start_redis()
    api = start_server(redis=redis.url).api
    name = api.make_queue("b-sick")
    ids = api.submit(name, 2)
    stream = Stream(api, name, credit=1, lease=duration(60))
    [leased] = stream.jobs(1)
    redis.kill()
    stream.finish(leased, credit=1)
    assert stream.finished(1)[0].result.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    redis.start()
    assert ids_of(stream.jobs(1, seconds=15)) == ids[1:]
    stream.finish(leased)
    assert stream.finished(1)[0].result.status.code == 0
    stream.cancel()


def test_what_was_acknowledged_stays_with_a_worker_that_leaves_a_server_that_goes(start_server, start_redis):
    redis = start_redis()
    first, second = start_server(redis=redis.url), start_server(redis=redis.url)
    name = first.api.make_queue("b-leave")
    first.api.submit(name)
    stream = Stream(first.api, name, credit=1, lease=duration(60))
    [leased] = stream.jobs(1)
    first.process.terminate()
    assert stream.read().draining == module("worker").DRAIN_REASON_SHUTTING_DOWN
    assert stream.end() == []
    assert first.process.wait(20 * PATIENCE) == 0
    other = Stream(second.api, name, credit=1)
    other.finish(leased)
    assert other.finished(1)[0].result.status.code == 0
    other.cancel()


# --- what is refused ----------------------------------------------------------------------------------------------------------

OPEN = dict(queues=["buckets/b-refused/queues/q"])


@pytest.mark.parametrize("messages, field", [
    ([dict(credit=1)], "open"),
    ([dict(open=dict())], "open.queues"),
    ([dict(open=dict(queues=["nonsense"]))], "open.queues[0]"),
    ([dict(open=dict(queues=["buckets/one/queues/q", "buckets/two/queues/q"]))], "open.queues[1]"),
    ([dict(open=dict(queues=["buckets/one/queues/q"] * 101))], "open.queues"),
    ([dict(open=dict(OPEN, worker="\x7f"))], "open.worker"),
    ([dict(open=dict(OPEN, lease=dict(nanos=1)))], "open.lease"),
    ([dict(open=dict(OPEN, acknowledge_within=dict(seconds=61)))], "open.acknowledge_within"),
    ([dict(open=OPEN), dict(open=OPEN)], "open"),
    ([dict(open=OPEN, credit=-1)], "credit"),
    ([dict(open=OPEN), dict(credit=1001)], "credit"),
    ([dict(open=OPEN), dict(acknowledged_sequence=1)], "acknowledged_sequence"),
    ([dict(open=OPEN), dict(acknowledged_sequence=-1)], "acknowledged_sequence"),
    ([dict(open=OPEN), dict(renewals=[{}] * 251)], "renewals"),
    ([dict(open=OPEN), dict(finished=[{}] * 251)], "finished"),
    ([dict(open=OPEN), dict(released=[{}] * 251)], "released"),
])
def test_a_wrong_message_ends_the_stream_and_names_the_field(work, messages, field):
    stream = work()
    for message in messages:
        stream.send(**message)
    with rejects("INVALID_ARGUMENT", field):
        stream.read()


def test_a_stream_that_ends_before_it_has_begun_is_refused(work):
    stream = work()
    with rejects("INVALID_ARGUMENT", "open"):
        stream.end()


def test_bytes_that_are_no_message_end_the_stream_and_give_back_what_it_held(api, queue, work):
    [job_id] = api.submit(queue)
    up = queues.Queue()
    raw = api.channel.stream_stream("/ringback.v1.WorkerService/Work", request_serializer=lambda message: message,
                                    response_deserializer=module("worker").WorkResponse.FromString)
    call = raw(iter(up.get, None), timeout=120 * SLOW)
    up.put(module("worker").WorkRequest(open=dict(queues=[queue]), credit=1).SerializeToString())
    assert ids_of(next(call).jobs) == [job_id]
    up.put(b"\xff\xff\xff")
    with rejects("INVALID_ARGUMENT"):
        next(call)
    up.put(None)
    assert ids_of(work(queue, credit=1).jobs(1)) == [job_id]


def test_an_unknown_queue_is_not_found(api, bucket, work):
    with rejects("NOT_FOUND"):
        work(f"buckets/{bucket}/queues/none", credit=1).read()


def test_a_queue_deleted_under_a_waiting_stream_is_not_found(api, queue, work):
    stream = work(queue, credit=1)
    stream.silent()
    api.queue.DeleteQueue(name=queue)
    with rejects("NOT_FOUND"):
        stream.send(credit=1)
        stream.read(15)


def test_a_wrong_item_has_its_status_and_the_others_go_on(api, queue, work):
    ids = api.submit(queue, 2)
    stream = work(queue, credit=2)
    leased = stream.jobs(2)
    stream.send(renewals=[dict(lease=lease_of(leased[0]), progress=101), dict(lease=lease_of(leased[1]), progress=7), {}],
                released=[{}, dict(job_id="x" * 100, fencing_token=1)])
    message = stream.read_until(lambda m: m.renewals)
    assert [each.result.status.code for each in message.renewals] == [3, 0, 3]
    assert [each.status.code for each in message.released] == [3, 3]
    assert [each.job_id for each in message.released] == ["", "x" * 40]
    assert api.get(ids[1], queue).progress == 7


# --- many ------------------------------------------------------------------------------------------------------------------------

def test_large_jobs_come_in_messages_below_the_limit(api, queue, work):
    payload = dict(opaque=dict(data=b"x" * 60000, content_type="application/octet-stream"))
    ids = [job_id for _ in range(3) for job_id in api.submit(queue, 40, operation=payload)]
    stream = work(queue, credit=1000)
    assert ids_of(stream.jobs(120, seconds=20)) == ids
    assert stream.sequence > 1


def test_waiting_streams_take_turns(server, api, queue, work):
    streams = [work(queue, credit=100) for _ in range(3)]
    for count in range(6):
        eventually(lambda: server.metrics()["ringback_calls_parked"] == 3, what="all wait")
        api.submit(queue)
        eventually(lambda: sum(stream.down.qsize() for stream in streams) == count + 1, what="the job has come")  # noqa: B023
    assert [len(stream.jobs(2)) for stream in streams] == [2, 2, 2]


def consume(stream, total, done, order, lock):
    """Finishes whatever comes, granting new credit with each outcome, until `done` has all."""
    while len(done) < total:
        try:
            message = stream.down.get(timeout=0.2)
        except queues.Empty:
            continue
        if message is None:
            return
        with lock:
            done.update(each.job_id for each in message.finished if each.result.status.code == 0)
            order.extend(each.job.id for each in message.jobs)
        if message.jobs:
            stream.finish(*message.jobs, credit=len(message.jobs), acknowledged_sequence=message.sequence)


def test_two_replicas_on_one_redis_lose_nothing_and_keep_order(start_server, start_redis):
    redis = start_redis("--appendfsync", "no")
    servers = [start_server("--rpc-threads", "2", redis=redis.url) for _ in range(2)]
    api = servers[0].api
    name = api.make_queue("b-replicas")
    total, done, orders, lock = 1500, set(), [], threading.Lock()
    streams = [Stream(server.api, name, credit=20) for server in servers for _ in range(2)]
    threads = []
    for stream in streams:
        orders.append([])
        threads.append(threading.Thread(target=consume, args=(stream, total, done, orders[-1], lock), daemon=True))
        threads[-1].start()
    ids = []
    for i in range(0, total, 100):
        ids += servers[i // 100 % 2].api.submit(name, 100)
    eventually(lambda: len(done) == total, 60, what="all jobs are finished")
    for thread in threads:
        thread.join()
    assert done == set(ids)
    assert sum(map(len, orders)) == total, "every job was handed out once"
    for order in orders:
        assert order == sorted(order), "a stream gets jobs of one priority in the order of their submission"
    counts = api.queue.GetQueue(name=name).queue.counts
    assert (counts.success, counts.running, counts.waiting) == (total, 0, 0)
    for stream in streams:
        stream.cancel()
