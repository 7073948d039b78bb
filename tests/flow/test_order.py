"""Order, and races between workers and servers."""
import random
import threading
import time

import pytest

from harness import PATIENCE, SLOW, Api, bucket_of, duration, eventually, lease_of


def in_threads(*functions):
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # handed on to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_larger_priorities_are_leased_first_and_equals_in_the_order_of_submission(api, queue):
    priorities = [0, 255, 3, 3, 0, 128, 255, 1]
    ids = [api.submit(queue, priority=p)[0] for p in priorities]
    wanted = [i for _, i in sorted(zip(priorities, ids), key=lambda pair: (-pair[0], pair[1]))]
    assert [l.job.id for l in api.lease(queue, 20)] == wanted


def submit_ten_thousand(targets, queue):
    """Eight clients submit jobs of random priorities in calls of several sizes; answers with (priority, id) in each client's order."""
    sent = [[] for _ in range(8)]

    def client(number):
        own, chance = Api(targets[number % len(targets)]), random.Random(1000 + number)
        left = 1250
        while left:
            count = min(left, chance.choice((1, 7, 50, 250)))
            priorities = [chance.randint(0, 255) for _ in range(count)]
            results = own.job.SubmitJobs(queue=queue, jobs=[dict(tag="T", priority=p) for p in priorities], timeout=60).results
            sent[number] += [(p, r.job_id) for p, r in zip(priorities, results)]
            left -= count
        own.close()

    in_threads(*(lambda n=n: client(n) for n in range(8)))
    assert sum(map(len, sent)) == 10_000
    return sent


def test_ten_thousand_jobs_of_eight_clients_are_leased_in_exact_order(server, api, bucket):
    queue = api.make_queue(bucket)
    api.queue.PauseQueue(name=queue)
    sent = submit_ten_thousand([server.target], queue)
    api.queue.ResumeQueue(name=queue)
    order = []
    while len(order) < 10_000:
        leased = api.lease(queue, 250)
        assert leased, f"only {len(order)} jobs came"
        order += [(l.job.spec.priority, l.job.id) for l in leased]
    place = {job: n for n, (_, job) in enumerate(order)}
    assert len(place) == 10_000
    assert [p for p, _ in order] == sorted((p for p, _ in order), reverse=True)
    assert [job for _, job in order] == [job for _, job in sorted(order, key=lambda pair: (-pair[0], pair[1]))]
    for jobs in sent:
        for priority in range(256):
            places = [place[job] for p, job in jobs if p == priority]
            assert places == sorted(places), "a client's order of acknowledgement within a priority"


def test_with_head_start_a_low_priority_overtakes_after_waiting_long_enough(api, bucket):
    queue = api.make_queue(bucket, ordering=dict(head_start=duration(7)))
    old, = api.submit(queue, priority=0)
    soon, = api.submit(queue, priority=2)
    time.sleep(14.5)
    late, = api.submit(queue, priority=2)
    assert [l.job.id for l in api.lease(queue, 3)] == [soon, old, late]


class Race:
    """Workers lease and finish until every job has ended, but some give jobs back, and some finish them only after the lease has run out."""

    def __init__(self, targets, queue, count):
        self.queue, self.count, self.lock = queue, count, threading.Lock()
        self.accepted, self.tokens, self.fenced = {}, [], 0
        self.end = time.monotonic() + 240 * PATIENCE
        in_threads(*(lambda n=n: self.work(n, Api(targets[n % len(targets)])) for n in range(8)))

    def done(self):
        with self.lock:
            return len(self.accepted) == self.count

    def work(self, number, api):
        chance, late = random.Random(number), []
        while not self.done() and time.monotonic() < self.end:
            leased = api.lease(self.queue, chance.choice((1, 10, 100)), wait=0.3, worker=f"w{number}")
            with self.lock:
                self.tokens += [l.fencing_token for l in leased]
            finished, released, begun = [], [], time.monotonic()
            for item in leased:
                action = chance.random()
                if action < 0.05:
                    released.append(lease_of(item))
                elif action < 0.08:
                    late.append((begun + 1.5, item))
                else:
                    finished.append(item)
            if released:
                api.worker.ReleaseJobs(bucket=bucket_of(self.queue), leases=released)
            while late and late[0][0] < begun:
                finished.append(late.pop(0)[1])
            self.finish(number, api, finished)
        api.close()

    def finish(self, number, api, items):
        for at in range(0, len(items), 100):
            part = items[at:at + 100]
            results = api.worker.FinishJobs(bucket=bucket_of(self.queue), jobs=[
                dict(lease=lease_of(i), success=dict(message=f"{number} {i.fencing_token}")) for i in part]).results
            with self.lock:
                for item, result in zip(part, results):
                    if result.status.code == 0:
                        self.accepted.setdefault(item.job.id, []).append(f"{number} {item.fencing_token}")
                    else:
                        self.fenced += 1


def test_eight_workers_on_two_servers_never_have_two_results_accepted_for_one_run(start_redis, start_server, bucket):
    redis = start_redis()
    one, two = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = one.api.make_queue(bucket, default_lease=duration(1), retry_policy=dict(max_attempts=100, min_backoff=duration(0)))
    sent = submit_ten_thousand([one.target, two.target], queue)
    race = Race([one.target, two.target], queue, 10_000)
    assert sorted(race.accepted) == sorted(job for jobs in sent for _, job in jobs)
    assert all(len(results) == 1 for results in race.accepted.values())
    assert len(set(race.tokens)) == len(race.tokens), "a fencing token was granted twice"
    assert race.fenced, "no result came too late, so nothing was shown"
    for job in list(race.accepted)[::50]:
        assert two.api.get(job, queue).message == race.accepted[job][0]
    counts = two.api.queue.GetQueue(name=queue).queue.counts
    assert (counts.success, counts.waiting, counts.running) == (10_000, 0, 0)


def test_a_lease_that_waits_on_one_server_gets_the_job_submitted_on_another(start_redis, start_server, bucket):
    redis = start_redis()
    one, two = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = one.api.make_queue(bucket)
    took = []
    for _ in range(5):
        call = two.api.worker.LeaseJobs.begin(queues=[queue], timeout=60)
        time.sleep(0.2)
        begun = time.monotonic()
        job, = one.api.submit(queue)
        assert [l.job.id for l in call.result().jobs] == [job]
        took.append(time.monotonic() - begun)
    assert sorted(took)[2] < 1.5 * SLOW, "only the look every ten seconds found it"


def test_two_servers_share_queues_and_send_each_callback_once(start_redis, start_server, bucket, receiver):
    redis = start_redis()
    one, two = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = one.api.make_queue(bucket)
    one.api.set_callback(queue, receiver.url())
    assert two.api.queue.GetQueue(name=queue).queue.name == queue
    one.api.submit(queue, 200)
    for api in (two.api, one.api):
        for item in api.lease(queue, 100):
            api.finish(item)
    receiver.wait(200, seconds=20)
    time.sleep(1)
    assert len({r.headers["webhook-id"] for r in receiver.requests}) == len(receiver.requests) == 200


@pytest.mark.long
def test_a_thousand_waiting_leases_share_the_jobs_that_come(server, api, bucket):
    queue = api.make_queue(bucket)
    calls = [api.worker.LeaseJobs.begin(queues=[queue], timeout=600, wait=duration(60)) for _ in range(1000)]
    time.sleep(2)
    ids = []
    for _ in range(10):
        ids += api.submit(queue, 100)
    eventually(lambda: all(c.done() for c in calls), 25)
    assert sorted(j.job.id for c in calls for j in c.result().jobs) == sorted(ids)
