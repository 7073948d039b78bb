"""WatchJobs: following what changes."""
import queue as queues
import threading
import time

import grpc
import pytest

from harness import PATIENCE, bucket_of, lease_of, rejects, state_name


class Watch:
    """A stream read by a thread of its own."""

    def __init__(self, api, timeout=300, **fields):
        self.call = api.job.WatchJobs(timeout=timeout, **fields)
        self.items, self.events, self.cursor, self.error = queues.Queue(), [], None, None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for message in self.call:
                self.items.put(message)
        except grpc.RpcError as error:
            self.error = error
        self.items.put(None)

    def next(self, seconds=10 * PATIENCE):
        message = self.items.get(timeout=seconds)
        assert message is not None, f"the stream ended: {self.error}"
        self.cursor = message.cursor
        self.events += message.events
        return message

    def until(self, check, seconds=10 * PATIENCE):
        end = time.monotonic() + seconds
        while not check(self.events):
            self.next(max(0.01, end - time.monotonic()))
        return self.events

    def end(self):
        self.call.cancel()


@pytest.fixture
def watch(api):
    begun = []

    def begin(**fields):
        begun.append(Watch(api, **fields))
        begun[-1].next()
        return begun[-1]

    yield begin
    for item in begun:
        item.end()


def story(events, job):
    return [state_name(e.state) for e in events if e.job_id == job]


def test_the_first_message_comes_at_once_and_has_a_cursor(watch, bucket, queue):
    assert watch(bucket=f"buckets/{bucket}").cursor


def test_a_watch_sees_a_job_s_whole_life(api, watch, queue, bucket):
    seen = watch(bucket=f"buckets/{bucket}")
    job, = api.submit(queue)
    leased, = api.lease(queue)
    api.worker.RenewLeases(bucket=f"buckets/{bucket}", renewals=[dict(lease=lease_of(leased), progress=40)])
    api.finish(leased)
    events = seen.until(lambda events: "SUCCESS" in story(events, job))
    states = story(events, job)
    assert states[0] == "SUBMITTED" and states[-1] == "SUCCESS" and "RUNNING" in states
    assert all(e.queue == queue and e.HasField("time") for e in events)
    assert events[-1].progress == 100


def test_a_watch_goes_on_from_a_cursor_without_a_gap(api, watch, queue, bucket):
    first = watch(bucket=f"buckets/{bucket}")
    a = api.submit(queue, 10)
    first.until(lambda events: len(events) >= 10)
    first.end()
    b = api.submit(queue, 10)
    again = watch(bucket=f"buckets/{bucket}", cursor=first.cursor)
    c = api.submit(queue, 10)
    again.until(lambda events: len(events) >= 20)
    assert [e.job_id for e in first.events] == a
    assert [e.job_id for e in again.events] == b + c


def test_a_list_s_cursor_misses_nothing_after_the_list(api, watch, queue, bucket):
    api.submit(queue, 3)
    listed = api.job.ListJobs(filter=dict(queue=queue))
    job, = api.submit(queue)
    seen = watch(bucket=f"buckets/{bucket}", cursor=listed.watch_cursor)
    assert story(seen.until(lambda events: story(events, job)), job) == ["SUBMITTED"]
    assert not {j.id for j in listed.jobs} & {e.job_id for e in seen.events}


def test_a_watch_can_be_limited_to_a_queue_or_to_jobs(api, watch, queue, bucket):
    other = api.make_queue(bucket, "other")
    of_queue = watch(bucket=f"buckets/{bucket}", queue=other)
    mine, = api.submit(queue)
    of_job = watch(bucket=f"buckets/{bucket}", job_ids=[mine])
    theirs, = api.submit(other)
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[theirs, mine])
    of_queue.until(lambda events: "CANCEL" in story(events, theirs))
    of_job.until(lambda events: "CANCEL" in story(events, mine))
    assert {e.job_id for e in of_queue.events} == {theirs}
    assert {e.job_id for e in of_job.events} == {mine}


def test_a_watch_of_a_queue_that_does_not_exist_is_not_found(api, queue, bucket):
    for cursor in ("", api.job.ListJobs(filter=dict(queue=queue)).watch_cursor):
        with rejects("NOT_FOUND") as refused:
            next(api.job.WatchJobs(bucket=f"buckets/{bucket}", queue=f"buckets/{bucket}/queues/nope", cursor=cursor, timeout=60))
        assert f"buckets/{bucket}/queues/nope" in refused.message


def test_progress_alone_is_reported_at_most_once_a_second(api, watch, queue, bucket):
    seen = watch(bucket=f"buckets/{bucket}")
    job, = api.submit(queue)
    leased, = api.lease(queue)
    begun = time.monotonic()
    for percent in range(0, 60):
        api.worker.RenewLeases(bucket=f"buckets/{bucket}", renewals=[dict(lease=lease_of(leased), progress=percent)])
        time.sleep(0.03)
    api.finish(leased)
    events = seen.until(lambda events: "SUCCESS" in story(events, job))
    assert story(events, job).count("RUNNING") <= 3 + time.monotonic() - begun


def test_a_cursor_that_nobody_gave_is_refused(api, queue, bucket):
    with rejects("INVALID_ARGUMENT", "cursor"):
        next(api.job.WatchJobs(bucket=f"buckets/{bucket}", cursor="made up"))


@pytest.mark.long
def test_a_cursor_that_the_log_no_longer_reaches_is_out_of_range_and_a_new_list_goes_on(api, watch, queue, bucket):
    job, = api.submit(queue)
    cursor = api.job.ListJobs(filter=dict(queue=queue)).watch_cursor
    for _ in range(1200):
        api.submit(queue, 100, tag="Filler")
    with rejects("OUT_OF_RANGE"):
        next(api.job.WatchJobs(bucket=f"buckets/{bucket}", cursor=cursor, timeout=60))
    listed = api.job.ListJobs(filter=dict(queue=queue), page_size=1)
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    seen = watch(bucket=f"buckets/{bucket}", cursor=listed.watch_cursor)
    assert story(seen.until(lambda events: story(events, job)), job) == ["CANCEL"]


def test_a_job_cancelled_on_another_stream_of_the_bucket_is_seen_by_every_watch(api, watch, queue, bucket):
    watches = [watch(bucket=f"buckets/{bucket}") for _ in range(8)]
    ids = api.submit(queue, 300)
    for item in watches:
        item.until(lambda events: len(events) >= 300)
        assert [e.job_id for e in item.events] == ids


def test_a_drain_ends_a_watch_with_unavailable_and_another_server_goes_on(start_redis, start_server, bucket):
    redis = start_redis()
    one, two = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = one.api.make_queue(bucket)
    seen = Watch(one.api, bucket=bucket_of(queue))
    seen.next()
    before, = one.api.submit(queue)
    seen.until(lambda events: story(events, before))
    one.process.terminate()
    end = time.monotonic() + 20 * PATIENCE
    while seen.error is None and time.monotonic() < end:
        time.sleep(0.05)
    assert seen.error.code() == grpc.StatusCode.UNAVAILABLE
    after, = two.api.submit(queue)
    again = Watch(two.api, bucket=bucket_of(queue), cursor=seen.cursor)
    events = again.until(lambda events: story(events, after))
    assert not story(events, before)
    again.end()
