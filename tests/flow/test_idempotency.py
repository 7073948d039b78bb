"""Repeating a submit with a request_id."""
import threading
import time

import pytest

from harness import Api, duration, rejects


def count(api, queue):
    return api.queue.GetQueue(name=queue).queue.counts.waiting


def test_a_repeated_request_answers_with_the_same_job(api, queue):
    first = api.job.SubmitJob(queue=queue, job=dict(tag="T", priority=3, user_data="x"), request_id="r1")
    again = api.job.SubmitJob(queue=queue, job=dict(tag="T", priority=3, user_data="x"), request_id="r1")
    assert again.job.id == first.job.id and again.repeated_request and not first.repeated_request
    assert count(api, queue) == 1


def test_a_repeated_batch_answers_with_the_same_jobs(api, queue):
    jobs = [dict(tag=f"T{n}") for n in range(250)]
    first = api.job.SubmitJobs(queue=queue, jobs=jobs, request_id="batch")
    again = api.job.SubmitJobs(queue=queue, jobs=jobs, request_id="batch")
    assert [r.job_id for r in again.results] == [r.job_id for r in first.results] and again.repeated_request
    assert count(api, queue) == 250


def test_a_repeated_batch_with_a_refused_item_answers_the_same(api, queue):
    jobs = [dict(tag="A"), dict(tag="not a tag"), dict(tag="B")]
    first, again = (api.job.SubmitJobs(queue=queue, jobs=jobs, request_id="r") for _ in range(2))
    assert [(r.status.code, r.job_id) for r in again.results] == [(r.status.code, r.job_id) for r in first.results]
    assert [r.status.code for r in first.results] == [0, 3, 0] and count(api, queue) == 2


@pytest.mark.parametrize("other", [dict(tag="U"), dict(tag="T", priority=1), dict(tag="T", operation=dict(xml="<A/>")),
                                   dict(tag="T", user_data="y"), dict(tag="T", callback=dict(none=True))])
def test_the_same_id_with_another_content_is_refused(api, queue, other):
    api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r")
    with rejects("ALREADY_EXISTS"):
        api.job.SubmitJob(queue=queue, job=other, request_id="r")
    assert count(api, queue) == 1


def test_a_request_id_counts_within_its_queue_only(api, queue, bucket):
    other = api.make_queue(bucket, "other")
    first = api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id
    assert api.job.SubmitJob(queue=other, job=dict(tag="T"), request_id="r").job.id != first


def test_without_a_request_id_each_submit_adds_a_job(api, queue):
    assert len({api.job.SubmitJob(queue=queue, job=dict(tag="T")).job.id for _ in range(5)}) == 5


def test_a_repetition_after_the_job_has_ended_is_still_the_same_job(api, queue):
    job = api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id
    api.finish(api.lease(queue)[0])
    again = api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r")
    assert again.job.id == job and again.repeated_request and count(api, queue) == 0


def test_a_repetition_goes_through_a_full_queue(api, bucket):
    queue = api.make_queue(bucket, max_size=1)
    job = api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id
    assert api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id == job


def test_many_at_once_with_one_id_make_one_job(server, api, queue):
    calls = [api.job.SubmitJob.begin(queue=queue, job=dict(tag="T"), request_id="same") for _ in range(64)]
    assert len({c.result().job.id for c in calls}) == 1 and count(api, queue) == 1
    assert sum(not c.result().repeated_request for c in calls) == 1


def test_one_id_sent_to_two_servers_makes_one_job(start_redis, start_server, bucket):
    redis = start_redis()
    servers = [start_server(redis=redis.url) for _ in range(2)]
    queue = servers[0].api.make_queue(bucket)
    for number in range(20):
        found = []
        threads = [threading.Thread(target=lambda s=s, n=number: found.append(
            s.api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id=f"r{n}").job.id)) for s in servers * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4 and len(set(found)) == 1
    assert count(servers[0].api, queue) == 20


@pytest.mark.long
def test_a_request_id_is_remembered_for_the_window_and_forgotten_after_two(api, bucket):
    queue = api.make_queue(bucket, idempotency_window=duration(60))
    job = api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id
    time.sleep(45)
    assert api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id == job
    time.sleep(85)
    assert api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id != job


def test_a_client_that_sees_another_server_repeats_safely(start_redis, start_server, bucket):
    redis = start_redis()
    one, two = start_server(redis=redis.url), start_server(redis=redis.url)
    queue = one.api.make_queue(bucket)
    job = one.api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id
    one.kill()
    other = Api(two.target)
    assert other.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r").job.id == job
    other.close()
