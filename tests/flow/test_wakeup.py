"""How many waiting workers a change wakes, and by which way: as many as there is work for, and not all of them."""
import threading
import time

import pytest

from harness import SLOW, Api, duration, eventually
from test_work_stream import Stream

WAITERS, JOBS = 1000, 10


def asked(servers):
    """Calls that the servers' RPC threads have asked of Redis, merged ones each by itself."""
    return sum(server.metrics()["ringback_store_merged_calls_sum"] for server in servers)


class Crowd:
    """A thousand long polls of one queue, shared out among the servers."""

    def __init__(self, servers, queue):
        self.apis = [Api(server.target) for server in servers]
        self.calls = [self.apis[k % len(servers)].worker.LeaseJobs.begin(queues=[queue], timeout=600, wait=duration(60)) for k in range(WAITERS)]
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
    took = resumed(servers, queue, api)
    # A lease for each job, one in vain a server, the resume; twice that for tries that cross on the way.
    assert JOBS < took <= 2 * (JOBS + count + 1), f"{took} calls for {JOBS} jobs"


def test_a_listener_that_comes_back_tries_one_of_a_thousand_waiters_and_then_as_many_as_there_are_jobs(start_redis, start_server, bucket):
    redis = start_redis("--appendfsync", "no")
    server = start_server(redis=redis.url)
    client, queue = redis.client(), server.api.make_queue(bucket)
    crowd = Crowd([server], queue)
    try:
        for jobs in (0, JOBS):
            before, known = asked([server]), len(crowd.jobs())
            client.config_set("maxclients", 1)  # the listener stays away until the jobs are there
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            time.sleep(0.3)
            if jobs:  # as another server would put them in line, the notification being lost
                server.api.submit(queue, jobs)
            client.config_set("maxclients", 1000)
            eventually(lambda: client.pubsub_numsub("ringback:wake")[0][1] == 1, 20, what="the listener is back")
            eventually(lambda: len(crowd.jobs()) == known + jobs, 20, what="the jobs are leased")
            time.sleep(0.3)
            took = asked([server]) - before
            assert jobs < took <= 2 * (jobs + 3), f"{took} calls for {jobs} jobs"
    finally:
        crowd.go()


class Seen:
    """What Redis is asked, in order: the names of functions, and `subscribe`."""

    def __init__(self, client):
        self.client, self.words, self.enough = client, [], False
        self.monitor = client.monitor()
        self.monitor.__enter__()
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for command in self.monitor.listen():
            if self.enough:
                return
            words = command["command"].split(" ", 2)
            self.words.append(words[1].split("_")[0] if words[0] == "FCALL" else words[0].lower())

    def stop(self):
        self.enough = True
        self.client.ping()  # something to hear
        self.thread.join()
        self.monitor.__exit__(None, None, None)


def test_a_job_reaches_a_worker_that_waits_on_the_same_thread_without_a_notification(start_redis, start_server, bucket):
    redis = start_redis("--appendfsync", "no")
    server = start_server(redis=redis.url)
    client = redis.client()
    queue = server.api.make_queue(bucket)
    deaf = []
    for _ in range(100):  # the submit may come too late, or cross a lease that was in vain just before
        eventually(lambda: client.pubsub_numsub("ringback:wake")[0][1] == 1, 10, what="the listener is there")
        call = server.api.worker.LeaseJobs.begin(queues=[queue], timeout=60, wait=duration(30))
        eventually(lambda: server.metrics()["ringback_calls_parked"] == 1, 10, what="the call waits")
        seen = Seen(client)
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # the listener is back in 100 ms, and then wakes everybody
        job, = server.api.submit(queue, 1)
        assert [leased.job.id for leased in call.result().jobs] == [job]
        eventually(lambda: "subscribe" in seen.words, 10, what="the listener is back")
        seen.stop()
        deaf = seen.words[:seen.words.index("subscribe")]
        if "submit" in deaf and "lease" in deaf[deaf.index("submit"):]:
            return
    raise AssertionError(f"each time the job went only when the listener was back; before: {deaf}")


def test_jobs_submitted_here_and_on_another_server_at_once_all_reach_the_waiting_worker_at_once(start_redis, start_server, bucket):
    redis = start_redis("--appendfsync", "no")
    here, there = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = here.api.make_queue(bucket)
    worker = Stream(here.api, queue, credit=400)
    for _ in range(100):
        eventually(lambda: here.metrics()["ringback_calls_parked"] == 1, 10, what="the worker waits")
        calls = [server.api.job.SubmitJob.begin(queue=queue, job=dict(tag="T")) for server in (here, there)]
        begun = time.monotonic()
        jobs = worker.jobs(2)
        assert time.monotonic() - begun < 8 * SLOW, "only the look every ten seconds found it"
        assert sorted(leased.job.id for leased in jobs) == sorted(call.result().job.id for call in calls)
        worker.finish(*jobs)
        worker.finished(2)
