"""QueueService: queues come into being, keep their settings, pause, empty and go."""
import re

import pytest

from harness import SLOW, bucket_of, duration, eventually, rejects, state_name, timestamp
import time

DEFAULTS = {"FEATURE_MEDIA": ("queue-1", "j"), "FEATURE_SPEECH": ("queue-speech-1", "s"), "FEATURE_DOCUMENT": ("queue-doc-process-1", "d")}


def test_activating_a_bucket_makes_the_default_queue_of_each_feature(api, bucket):
    queues = api.queue.ActivateFeatures(bucket=f"buckets/{bucket}").queues
    assert [q.name.split("/")[-1] for q in queues] == [name for name, _ in DEFAULTS.values()]
    assert all(q.feature_default and q.state == 1 for q in queues)
    assert all(re.fullmatch("p[0-9a-f]{32}", q.queue_id) for q in queues)
    assert len({q.queue_id for q in queues}) == 3


def test_activating_again_answers_with_the_same_queues(api, bucket):
    first = api.queue.ActivateFeatures(bucket=f"buckets/{bucket}", features=["FEATURE_SPEECH"]).queues
    assert [q.name.split("/")[-1] for q in first] == ["queue-speech-1"]
    again = api.queue.ActivateFeatures(bucket=f"buckets/{bucket}", features=["FEATURE_DOCUMENT", "FEATURE_SPEECH"]).queues
    assert [q.name.split("/")[-1] for q in again] == ["queue-doc-process-1", "queue-speech-1"]
    assert again[1].queue_id == first[0].queue_id and again[1].etag == first[0].etag


def test_activating_answers_with_the_feature_s_default_even_when_it_was_made_by_hand(api, bucket):
    name = api.make_queue(bucket, "mine", "FEATURE_MEDIA")
    answer = api.queue.ActivateFeatures(bucket=f"buckets/{bucket}", features=["FEATURE_MEDIA"]).queues
    assert len(answer) == 1
    assert api.queue.GetQueue(name=name).queue.feature_default == (answer[0].name == name)


@pytest.mark.parametrize("feature", DEFAULTS)
def test_a_job_that_names_only_its_feature_goes_to_the_default_queue(api, bucket, feature):
    api.queue.ActivateFeatures(bucket=f"buckets/{bucket}")
    job = api.job.SubmitJob(default_queue=dict(bucket=f"buckets/{bucket}", feature=feature), job=dict(tag="T")).job
    name, letter = DEFAULTS[feature]
    assert job.queue == f"buckets/{bucket}/queues/{name}"
    assert re.fullmatch(letter + "[0-9a-f]{32}", job.id)


def test_a_feature_that_is_not_activated_has_no_default_queue(api, bucket):
    with rejects("NOT_FOUND"):
        api.job.SubmitJob(default_queue=dict(bucket=f"buckets/{bucket}", feature="FEATURE_MEDIA"), job=dict(tag="T"))


def test_a_new_queue_has_the_defaults_that_the_contract_says(api, bucket):
    name = f"buckets/{bucket}/queues/q"
    before = time.time()
    queue = api.queue.CreateQueue(queue=dict(name=name, feature="FEATURE_MEDIA")).queue
    assert queue.name == name and queue.state == 1 and queue.feature == 1
    assert queue.max_size == 1_000_000 and queue.max_concurrent == 10_000
    assert queue.default_lease.seconds == 60
    assert queue.retry_policy.max_attempts == 5
    assert queue.retry_policy.min_backoff.seconds == 5 and queue.retry_policy.max_backoff.seconds == 600
    assert queue.retention.max_age.seconds == 3 * 86400 and queue.retention.max_count == 100_000
    assert queue.idempotency_window.seconds == 600
    assert not queue.ordering.HasField("head_start")
    assert before - 2 < queue.create_time.seconds < before + 5
    assert queue.etag and queue.feature_default
    counts = queue.counts
    assert (counts.waiting, counts.delayed, counts.running, counts.success, counts.failed, counts.cancel) == (0,) * 6
    assert not counts.HasField("oldest_waiting_age")


def test_a_queue_keeps_the_settings_it_is_created_with(api, bucket):
    settings = dict(max_size=7, max_concurrent=3, default_lease=duration(2.5), retry_policy=dict(
        max_attempts=9, min_backoff=duration(0.25), max_backoff=duration(8)), retention=dict(max_age=duration(77), max_count=5),
        idempotency_window=duration(90), ordering=dict(head_start=duration(1.5)))
    name = api.make_queue(bucket, "settings", "FEATURE_SPEECH", **settings)
    wanted = api.queue.messages.Queue(**settings)
    queue = api.queue.GetQueue(name=name).queue
    for field in settings:
        assert getattr(queue, field) == getattr(wanted, field), field


def test_the_first_queue_of_a_feature_is_its_default_and_the_second_is_not(api, bucket):
    first, second = api.make_queue(bucket, "a"), api.make_queue(bucket, "b")
    assert api.queue.GetQueue(name=first).queue.feature_default
    assert not api.queue.GetQueue(name=second).queue.feature_default


def test_creating_a_queue_twice_is_refused(api, queue):
    with rejects("ALREADY_EXISTS") as seen:
        api.queue.CreateQueue(queue=dict(name=queue, feature="FEATURE_MEDIA"))
    assert seen.details["ErrorInfo"].domain == "ringback.v1"


def test_max_backoff_follows_a_longer_min_backoff(api, bucket):
    name = api.make_queue(bucket, retry_policy=dict(min_backoff=duration(1000)))
    assert api.queue.GetQueue(name=name).queue.retry_policy.max_backoff.seconds == 1000


def test_an_unknown_queue_is_not_found(api, bucket):
    name = f"buckets/{bucket}/queues/nothing"
    for call in (api.queue.GetQueue, api.queue.PauseQueue, api.queue.ResumeQueue, api.queue.PurgeQueue, api.queue.DeleteQueue):
        with rejects("NOT_FOUND") as seen:
            call(name=name)
        assert seen.details["ErrorInfo"].domain == "ringback.v1"
    with rejects("NOT_FOUND"):
        api.queue.UpdateQueue(queue=dict(name=name, max_size=5), update_mask=dict(paths=["max_size"]))
    with rejects("NOT_FOUND"):
        api.submit(name)


def test_queues_are_listed_by_name_page_after_page(api, bucket):
    names = [f"q{n:02}" for n in range(23)]
    for name in reversed(names):
        api.make_queue(bucket, name)
    seen, token, pages = [], "", 0
    while True:
        answer = api.queue.ListQueues(bucket=f"buckets/{bucket}", page_size=7, page_token=token)
        assert len(answer.queues) <= 7
        seen += [q.name.split("/")[-1] for q in answer.queues]
        token, pages = answer.next_page_token, pages + 1
        if not token:
            break
    assert seen == names and pages == 4
    assert len(api.queue.ListQueues(bucket=f"buckets/{bucket}").queues) == 10


def test_a_bucket_without_queues_is_an_empty_list(api, bucket):
    answer = api.queue.ListQueues(bucket=f"buckets/{bucket}")
    assert not answer.queues and not answer.next_page_token


def test_a_page_token_that_nobody_gave_is_refused(api, bucket):
    with rejects("INVALID_ARGUMENT", "page_token"):
        api.queue.ListQueues(bucket=f"buckets/{bucket}", page_token="made up \x01")


def test_an_update_changes_what_its_mask_names_and_nothing_else(api, bucket):
    name = api.make_queue(bucket, max_size=10, max_concurrent=20, default_lease=duration(30))
    before = api.queue.GetQueue(name=name).queue
    after = api.queue.UpdateQueue(queue=dict(name=name, max_size=11, max_concurrent=99), update_mask=dict(paths=["max_size"])).queue
    assert (after.max_size, after.max_concurrent, after.default_lease.seconds) == (11, 20, 30)
    assert after.etag != before.etag
    assert api.queue.GetQueue(name=name).queue.etag == after.etag


def test_a_part_of_the_retry_policy_can_be_updated_alone(api, bucket):
    name = api.make_queue(bucket, retry_policy=dict(max_attempts=3, min_backoff=duration(2), max_backoff=duration(4)))
    policy = api.queue.UpdateQueue(queue=dict(name=name, retry_policy=dict(max_attempts=8)),
                                   update_mask=dict(paths=["retry_policy.max_attempts"])).queue.retry_policy
    assert (policy.max_attempts, policy.min_backoff.seconds, policy.max_backoff.seconds) == (8, 2, 4)


def test_a_named_field_that_is_absent_gets_its_default(api, bucket):
    name = api.make_queue(bucket, max_size=10, default_lease=duration(5), retention=dict(max_count=3))
    queue = api.queue.UpdateQueue(queue=dict(name=name), update_mask=dict(paths=["max_size", "default_lease", "retention"])).queue
    assert (queue.max_size, queue.default_lease.seconds, queue.retention.max_count) == (1_000_000, 60, 100_000)


def test_an_old_etag_aborts_an_update(api, queue):
    old = api.queue.GetQueue(name=queue).queue.etag
    new = api.queue.UpdateQueue(queue=dict(name=queue, max_size=5, etag=old), update_mask=dict(paths=["max_size"])).queue.etag
    with rejects("ABORTED"):
        api.queue.UpdateQueue(queue=dict(name=queue, max_size=6, etag=old), update_mask=dict(paths=["max_size"]))
    assert api.queue.UpdateQueue(queue=dict(name=queue, max_size=7, etag=new), update_mask=dict(paths=["max_size"])).queue.max_size == 7


@pytest.mark.parametrize("path", ["name", "feature", "state", "ordering", "counts", "nonsense", "retry_policy.nonsense", ""])
def test_a_mask_that_names_what_cannot_change_is_refused(api, queue, path):
    with rejects("INVALID_ARGUMENT"):
        api.queue.UpdateQueue(queue=dict(name=queue), update_mask=dict(paths=[path]))


def test_an_update_needs_a_mask(api, queue):
    with rejects("INVALID_ARGUMENT", "update_mask"):
        api.queue.UpdateQueue(queue=dict(name=queue, max_size=5))


def test_a_paused_queue_hands_out_nothing_and_its_waiting_jobs_read_as_pause(api, queue):
    waiting, = api.submit(queue)
    assert api.queue.PauseQueue(name=queue).queue.state == 2
    later, = api.submit(queue)
    assert api.lease(queue, 10) == []
    assert [api.state(job, queue) for job in (waiting, later)] == ["PAUSE", "PAUSE"]
    assert api.queue.PauseQueue(name=queue).queue.state == 2
    assert api.queue.ResumeQueue(name=queue).queue.state == 1
    assert api.queue.ResumeQueue(name=queue).queue.state == 1
    assert [api.state(job, queue) for job in (waiting, later)] == ["SUBMITTED", "SUBMITTED"]
    assert [l.job.id for l in api.lease(queue, 10)] == [waiting, later]


def test_a_job_that_runs_when_its_queue_is_paused_finishes(api, queue):
    api.submit(queue)
    leased, = api.lease(queue)
    api.queue.PauseQueue(name=queue)
    assert api.state(leased.job.id, queue) == "RUNNING"
    assert api.finish(leased).status.code == 0
    assert api.state(leased.job.id, queue) == "SUCCESS"


def test_a_waiting_lease_is_answered_when_the_queue_is_resumed(api, queue):
    api.queue.PauseQueue(name=queue)
    job, = api.submit(queue)
    call = api.worker.LeaseJobs.begin(queues=[queue], timeout=60)
    time.sleep(0.3)
    assert not call.done()
    api.queue.ResumeQueue(name=queue)
    begun = time.monotonic()
    assert [l.job.id for l in call.result().jobs] == [job]
    assert time.monotonic() - begun < 8 * SLOW, "only the look every ten seconds found it"


def test_counts_tell_how_many_jobs_are_in_each_state(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1))
    api.submit(queue, 7)
    api.submit(queue, 2, not_before=timestamp(time.time() + 3600))
    good, bad, running = api.lease(queue, 3)
    api.finish(good)
    api.finish(bad, failure=dict(code="Broken"))
    waiting = [j.id for j in api.job.ListJobs(filter=dict(queue=queue, states=["JOB_STATE_SUBMITTED"]), order="LIST_ORDER_ASC").jobs]
    api.job.CancelJobs(bucket=bucket_of(queue), job_ids=waiting[:1])
    counts = api.queue.GetQueue(name=queue).queue.counts
    assert (counts.waiting, counts.delayed, counts.running, counts.success, counts.failed, counts.cancel) == (3, 2, 1, 1, 1, 1)


def test_counts_tell_how_long_the_oldest_job_has_waited(api, queue):
    begun = time.monotonic()
    api.submit(queue)
    time.sleep(0.5)
    api.submit(queue, 3)
    age = api.queue.GetQueue(name=queue).queue.counts.oldest_waiting_age
    assert 0.4 <= age.seconds + age.nanos / 1e9 <= time.monotonic() - begun + 0.1


def test_a_full_queue_takes_no_more_jobs_until_one_is_leased(api, bucket):
    queue = api.make_queue(bucket, max_size=3)
    api.submit(queue, 2)
    api.submit(queue, not_before=timestamp(time.time() + 3600))
    with rejects("RESOURCE_EXHAUSTED") as seen:
        api.submit(queue)
    assert "RetryInfo" in seen.details
    api.lease(queue)
    api.submit(queue)


def test_a_batch_that_does_not_fit_is_refused_as_a_whole(api, bucket):
    queue = api.make_queue(bucket, max_size=3)
    with rejects("RESOURCE_EXHAUSTED"):
        api.submit(queue, 4)
    assert api.queue.GetQueue(name=queue).queue.counts.waiting == 0
    api.submit(queue, 3)


def test_no_more_jobs_run_than_max_concurrent_allows(api, bucket):
    queue = api.make_queue(bucket, max_concurrent=2)
    api.submit(queue, 5)
    leased = api.lease(queue, 5)
    assert len(leased) == 2
    assert api.lease(queue, 5) == []
    api.finish(leased[0])
    assert len(api.lease(queue, 5)) == 1


def test_a_waiting_lease_is_answered_when_a_running_job_makes_room(api, bucket):
    queue = api.make_queue(bucket, max_concurrent=1)
    api.submit(queue, 2)
    first, = api.lease(queue)
    call = api.worker.LeaseJobs.begin(queues=[queue], timeout=60)
    time.sleep(0.2)
    api.finish(first)
    begun = time.monotonic()
    assert len(call.result().jobs) == 1
    assert time.monotonic() - begun < 8 * SLOW, "only the look every ten seconds found it"


def test_a_waiting_lease_is_answered_when_max_concurrent_is_raised(api, bucket):
    queue = api.make_queue(bucket, max_concurrent=1)
    api.submit(queue, 2)
    api.lease(queue)
    call = api.worker.LeaseJobs.begin(queues=[queue], timeout=60)
    time.sleep(0.2)
    api.queue.UpdateQueue(queue=dict(name=queue, max_concurrent=2), update_mask=dict(paths=["max_concurrent"]))
    begun = time.monotonic()
    assert len(call.result().jobs) == 1
    assert time.monotonic() - begun < 8 * SLOW, "only the look every ten seconds found it"


def test_a_purge_cancels_what_waits_and_leaves_what_runs(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    ids = api.submit(queue, 600)
    delayed, = api.submit(queue, not_before=timestamp(time.time() + 3600))
    running, = api.lease(queue)
    assert api.queue.PurgeQueue(name=queue).purged_count == 600
    assert api.state(ids[-1], queue) == "CANCEL" and api.state(delayed, queue) == "CANCEL"
    assert api.state(running.job.id, queue) == "RUNNING"
    assert api.lease(queue, 10) == []
    assert api.queue.PurgeQueue(name=queue).purged_count == 0
    counts = eventually(lambda: (lambda c: c if c.cancel == 600 else None)(api.queue.GetQueue(name=queue).queue.counts), 15)
    assert (counts.waiting, counts.delayed, counts.running) == (0, 0, 1)
    new, = api.submit(queue)
    assert [l.job.id for l in api.lease(queue, 10)] == [new]
    api.finish(running)
    receiver.wait(1)
    time.sleep(0.3)
    assert len(receiver.requests) == 1, "purged jobs call nobody back"


def test_a_purged_job_can_neither_be_cancelled_into_a_callback_nor_have_its_priority_changed(api, queue):
    job, = api.submit(queue)
    api.queue.PurgeQueue(name=queue)
    assert api.job.CancelJobs(bucket=bucket_of(queue), job_ids=[job]).results[0].code == 0
    with rejects("FAILED_PRECONDITION"):
        api.job.ChangePriority(bucket=bucket_of(queue), job_id=job, priority=3)


def test_a_queue_with_jobs_is_deleted_only_by_force(api, queue):
    job, = api.submit(queue)
    with rejects("FAILED_PRECONDITION"):
        api.queue.DeleteQueue(name=queue)
    assert api.state(job, queue) == "SUBMITTED"
    api.queue.DeleteQueue(name=queue, force=True)
    with rejects("NOT_FOUND"):
        api.queue.GetQueue(name=queue)
    with rejects("NOT_FOUND"):
        api.queue.DeleteQueue(name=queue)
    with rejects("NOT_FOUND"):
        api.lease(queue)
    assert not api.queue.ListQueues(bucket=bucket_of(queue)).queues


def test_a_running_job_of_a_deleted_queue_is_gone_for_its_worker(api, queue):
    api.submit(queue)
    leased, = api.lease(queue)
    with rejects("FAILED_PRECONDITION"):
        api.queue.DeleteQueue(name=queue)
    api.queue.DeleteQueue(name=queue, force=True)
    result = api.worker.RenewLeases(bucket=bucket_of(queue), renewals=[dict(lease=dict(
        job_id=leased.job.id, fencing_token=leased.fencing_token))]).results[0]
    assert result.status.code in (5, 9) and result.stop_reason == api.worker.messages.STOP_REASON_GONE
    assert api.finish(leased).status.code in (5, 9)


def test_a_queue_of_ended_jobs_is_deleted_without_force_and_its_name_is_free_again(api, queue):
    api.submit(queue)
    leased, = api.lease(queue)
    api.finish(leased)
    old = api.queue.GetQueue(name=queue).queue.queue_id
    api.queue.DeleteQueue(name=queue)
    api.queue.CreateQueue(queue=dict(name=queue, feature="FEATURE_MEDIA"))
    new = api.queue.GetQueue(name=queue).queue
    assert new.queue_id != old and new.counts.success == 0
    assert api.get(leased.job.id, queue) is None
    assert list(api.job.ListJobs(filter=dict(queue=queue)).jobs) == []


def test_a_waiting_lease_ends_when_its_queue_is_deleted(api, queue):
    call = api.worker.LeaseJobs.begin(queues=[queue], timeout=60)
    time.sleep(0.2)
    api.queue.DeleteQueue(name=queue)
    with rejects("NOT_FOUND"):
        call.result()


def test_names_of_states_in_the_contract_are_those_of_the_original():
    assert [state_name(n) for n in range(1, 7)] == ["SUBMITTED", "RUNNING", "SUCCESS", "FAILED", "PAUSE", "CANCEL"]
