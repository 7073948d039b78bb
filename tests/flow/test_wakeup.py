"""How many waiting workers a change wakes: as many as there is work for, and not all of them."""
import time

import pytest

from harness import Api, duration, eventually

WAITERS, JOBS = 1000, 10


def asked(servers):
    """Calls that the servers' RPC threads have asked of Redis, merged ones each by itself."""
    return sum(server.metrics()["ringback_store_merged_calls_sum"] for server in servers)


class Crowd:
    """A thousand long polls of one queue, shared out among the servers."""

    def __init__(self, servers, queue):
        self.apis = [Api(server.target) for server in servers]
        self.calls = [self.apis[k % len(servers)].worker.LeaseJobs.begin(queues=[queue], timeout=60, wait=duration(50)) for k in range(WAITERS)]
        eventually(lambda: sum(server.metrics()["ringback_calls_parked"] for server in servers) == WAITERS, 30, what="all wait")

    def jobs(self):
        return [leased.job.id for call in self.calls if call.done() for leased in call.result().jobs]

    def go(self):
        for call in self.calls:
            call.cancel()
        for api in self.apis:
            api.close()


def resumed(servers, queue, api):
    """Lets ten jobs loose before a crowd; how many calls that took, and how many of the crowd had tried by then."""
    crowd = Crowd(servers, queue)
    try:
        ids = api.submit(queue, JOBS)
        before = asked(servers)
        api.queue.ResumeQueue(name=queue)
        eventually(lambda: len(crowd.jobs()) == JOBS, 20, what="the jobs are leased")
        time.sleep(0.3)  # whoever else was woken has tried by then
        took = asked(servers) - before
        assert sorted(crowd.jobs()) == sorted(ids) and sum(call.done() for call in crowd.calls) == JOBS
        return took
    finally:
        api.queue.PauseQueue(name=queue)
        crowd.go()


@pytest.mark.parametrize("count", [1, 2])
def test_a_queue_that_is_resumed_wakes_as_many_of_a_thousand_waiters_as_it_has_jobs(start_redis, start_server, bucket, count):
    redis = start_redis("--appendfsync", "no")
    servers = [start_server(redis=redis.url) for _ in range(count)]
    api = servers[0].api
    queue = api.make_queue(bucket)
    api.queue.PauseQueue(name=queue)
    # Every ten seconds a server tries everybody, in case a notification was lost: not in each of three turns.
    took = min(resumed(servers, queue, api) for _ in range(3))
    # A lease for each job, one in vain a server, the resume; twice that for tries that cross on the way.
    assert JOBS < took <= 2 * (JOBS + count + 1), f"{took} calls for {JOBS} jobs"
