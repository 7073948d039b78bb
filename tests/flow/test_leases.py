"""WorkerService: leases, fencing, renewal, failure and its retries, waiting."""
import time

from harness import NO_JOB, SLOW, bucket_of, duration, eventually, lease_of, rejects, state_name


def renew(api, leased, **fields):
    return api.worker.RenewLeases(bucket=bucket_of(leased.job.queue), renewals=[dict(lease=lease_of(leased), **fields)]).results[0]


def seconds(stamp):
    return stamp.seconds + stamp.nanos / 1e9


def test_a_leased_job_runs_under_its_worker_s_name(api, queue):
    api.submit(queue, user_data="u", operation=dict(xml="<A>1</A>"))
    before = time.time()
    leased, = api.lease(queue, worker="worker-7")
    assert leased.job.spec.user_data == "u" and leased.job.spec.operation.xml == "<A>1</A>", "leases carry the view FULL"
    assert leased.fencing_token > 0
    assert before + 58 < seconds(leased.lease_expire_time) < time.time() + 62
    job = api.get(leased.job.id, queue)
    assert (state_name(job.state), job.worker, job.attempts) == ("RUNNING", "worker-7", 1)
    assert before - 2 < seconds(job.start_time) < time.time() + 2
    assert state_name(leased.job.state) == "RUNNING" and leased.job.attempts == 1


def test_a_finished_job_carries_its_result(api, queue):
    job, = api.submit(queue)
    leased, = api.lease(queue)
    result = api.finish(leased, success=dict(result=dict(xml="<Out>é&amp;</Out>"), message="all well"))
    assert result.status.code == 0 and state_name(result.state) == "SUCCESS"
    ended = api.get(job, queue)
    assert (state_name(ended.state), ended.code, ended.message, ended.progress) == ("SUCCESS", "Success", "all well", 100)
    assert ended.result.xml == "<Out>é&amp;</Out>"
    assert seconds(ended.end_time) >= seconds(ended.start_time) >= seconds(ended.create_time)
    assert not api.get(job, queue, "JOB_VIEW_BASIC").HasField("result")


def test_finishing_again_with_the_same_token_is_ok_and_changes_nothing(api, queue):
    api.submit(queue)
    leased, = api.lease(queue)
    assert api.finish(leased, success=dict(message="first")).status.code == 0
    assert api.finish(leased, success=dict(message="second")).status.code == 0
    assert api.get(leased.job.id, queue).message == "first"
    assert api.queue.GetQueue(name=queue).queue.counts.success == 1


def test_a_made_up_token_finishes_renews_and_releases_nothing(api, queue, bucket):
    api.submit(queue)
    leased, = api.lease(queue)
    for token in (leased.fencing_token + 1, leased.fencing_token - 1, 0, -1, 2**63 - 1):
        lease = dict(job_id=leased.job.id, fencing_token=token)
        where = f"buckets/{bucket}"
        for code in (api.worker.FinishJobs(bucket=where, jobs=[dict(lease=lease, success={})]).results[0].status.code,
                     api.worker.ReleaseJobs(bucket=where, leases=[lease]).results[0].code,
                     api.worker.RenewLeases(bucket=where, renewals=[dict(lease=lease)]).results[0].status.code):
            assert code in (3, 9), token
    assert api.state(leased.job.id, queue) == "RUNNING"
    unknown = dict(job_id=NO_JOB, fencing_token=1)
    assert api.worker.FinishJobs(bucket=where, jobs=[dict(lease=unknown, success={})]).results[0].status.code == 5
    assert api.worker.ReleaseJobs(bucket=where, leases=[unknown]).results[0].code == 5
    assert api.finish(leased).status.code == 0


def test_a_lease_that_runs_out_gives_the_job_to_another_and_fences_the_first(api, bucket):
    queue = api.make_queue(bucket, default_lease=duration(1), retry_policy=dict(min_backoff=duration(0)))
    job, = api.submit(queue)
    first, = api.lease(queue, worker="late")
    second, = api.lease(queue, wait=30, worker="next", lease=duration(60))
    assert second.job.id == job and second.job.attempts == 2
    assert second.fencing_token > first.fencing_token
    assert api.finish(first).status.code == 9
    lost = renew(api, first)
    assert lost.status.code == 9 and lost.stop_reason == api.worker.messages.STOP_REASON_LEASE_LOST
    assert api.finish(second).status.code == 0
    assert api.get(job, queue).worker == "next"


def test_a_job_whose_last_lease_runs_out_fails_as_lease_expired(api, bucket):
    queue = api.make_queue(bucket, default_lease=duration(1), retry_policy=dict(max_attempts=1))
    job, = api.submit(queue)
    api.lease(queue)
    eventually(lambda: api.state(job, queue) == "FAILED", 8)
    assert api.get(job, queue).code == "LeaseExpired"


def test_renewing_keeps_the_lease_and_shows_the_progress(api, bucket):
    queue = api.make_queue(bucket, default_lease=duration(9))
    job, = api.submit(queue)
    leased, = api.lease(queue)
    for step in range(1, 6):
        time.sleep(2.2)
        result = renew(api, leased, progress=step * 10)
        assert result.status.code == 0 and result.stop_reason == 0
        assert time.time() < seconds(result.lease_expire_time) < time.time() + 9.5
        assert api.get(job, queue).progress == step * 10
    assert api.state(job, queue) == "RUNNING"
    assert api.get(job, queue).attempts == 1
    before = time.time()
    long = renew(api, leased, extension=duration(100), progress=60)
    assert before + 99 < seconds(long.lease_expire_time) < time.time() + 101
    assert api.finish(leased).status.code == 0


def test_the_caller_s_lease_goes_before_the_job_s_and_that_before_the_queue_s(api, bucket):
    queue = api.make_queue(bucket, default_lease=duration(100))
    api.submit(queue)
    api.submit(queue, 2, lease=duration(200))
    spans = [seconds(leased.lease_expire_time) - time.time() for leased in
             api.lease(queue) + api.lease(queue) + api.lease(queue, lease=duration(300))]
    assert [round(span / 100) for span in spans] == [1, 2, 3]


def test_a_job_that_runs_longer_than_its_run_timeout_ends_however_it_is_renewed(api, queue):
    job, = api.submit(queue, run_timeout=duration(1.5), max_attempts=1)
    leased, = api.lease(queue)
    end = time.monotonic() + 60
    result = renew(api, leased, progress=5)
    while result.status.code == 0 and time.monotonic() < end:
        time.sleep(0.2)
        result = renew(api, leased, progress=5)
    assert result.status.code in (5, 9) and result.stop_reason == api.worker.messages.STOP_REASON_TIMED_OUT
    eventually(lambda: api.state(job, queue) == "FAILED", 5)
    assert api.get(job, queue).code == "RunTimeout"
    assert api.finish(leased).status.code == 9


def test_a_failure_is_tried_again_after_the_backoff_and_ends_with_the_last_attempt(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=3, min_backoff=duration(0.4), max_backoff=duration(10)))
    job, = api.submit(queue)
    failed = None
    for attempt in (1, 2):
        leased, = api.lease(queue, wait=30)
        assert leased.job.attempts == attempt and (not failed or time.monotonic() - failed >= 0.3)
        failed = time.monotonic()
        result = api.finish(leased, failure=dict(code="Oops", message=f"try {attempt}"))
        assert state_name(result.state) == "SUBMITTED"
        waiting = api.get(job, queue)
        assert state_name(waiting.state) == "SUBMITTED" and waiting.message == f"try {attempt}"
    leased, = api.lease(queue, wait=30)
    assert time.monotonic() - failed >= 0.6
    result = api.finish(leased, failure=dict(code="Oops", message="last"))
    assert state_name(result.state) == "FAILED"
    ended = api.get(job, queue)
    assert (ended.code, ended.message, ended.attempts) == ("Oops", "last", 3)


def test_the_backoff_doubles_with_each_attempt(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=5, min_backoff=duration(100), max_backoff=duration(1000)))
    for attempts in (1, 2, 3):
        job, = api.submit(queue)
        for _ in range(attempts - 1):
            api.finish(api.lease(queue, wait=30)[0], failure=dict(after=duration(0)))
        leased, = api.lease(queue, wait=30)
        assert (leased.job.id, leased.job.attempts) == (job, attempts)
        before = time.time()
        api.finish(leased, failure={})
        due, backoff = seconds(api.get(job, queue).due_time), 100 * 2 ** (attempts - 1)
        assert due - before >= 0.75 * backoff and due - time.time() <= 1.25 * backoff


def test_a_worker_can_say_never_again_or_when(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=5, min_backoff=duration(100)))
    never, later, zero = api.submit(queue, 3)
    leased = api.lease(queue, 3)
    assert state_name(api.finish(leased[0], failure=dict(never=True)).state) == "FAILED"
    assert api.get(never, queue).code == "Failed"
    now = time.time()
    assert state_name(api.finish(leased[1], failure=dict(after=duration(50))).state) == "SUBMITTED"
    due = seconds(api.get(later, queue).due_time)
    assert due - now > 48 and due - time.time() < 53
    assert state_name(api.finish(leased[2], failure=dict(after=duration(0))).state) == "SUBMITTED"
    again, = api.lease(queue, wait=30)
    assert again.job.id == zero and again.job.attempts == 2


def test_never_false_means_the_queue_s_backoff(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=5, min_backoff=duration(100)))
    api.submit(queue)
    leased, = api.lease(queue)
    assert state_name(api.finish(leased, failure=dict(never=False)).state) == "SUBMITTED"


def test_a_job_s_own_max_attempts_goes_before_the_queue_s(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1, min_backoff=duration(0)))
    api.submit(queue, max_attempts=2)
    assert state_name(api.finish(api.lease(queue)[0], failure={}).state) == "SUBMITTED"
    assert state_name(api.finish(api.lease(queue, wait=30)[0], failure={}).state) == "FAILED"


def test_a_released_job_is_leased_again_at_once_and_the_attempt_does_not_count(api, queue, bucket):
    first, second = api.submit(queue, 2)
    leased, = api.lease(queue)
    for _ in range(2):
        assert api.worker.ReleaseJobs(bucket=f"buckets/{bucket}", leases=[lease_of(leased)]).results[0].code == 0
    job = api.get(first, queue)
    assert state_name(job.state) == "SUBMITTED" and job.attempts == 0
    again, = api.lease(queue)
    assert again.job.id == first and again.job.attempts == 1, "it keeps its place in line"
    assert again.fencing_token > leased.fencing_token
    assert api.finish(leased).status.code == 9


def test_a_waiting_lease_gets_the_job_that_is_submitted(api, queue):
    call = api.worker.LeaseJobs.begin(queues=[queue], max_jobs=5, timeout=60)
    time.sleep(0.3)
    assert not call.done()
    begun = time.monotonic()
    job, = api.submit(queue)
    assert [l.job.id for l in call.result().jobs] == [job]
    assert time.monotonic() - begun < 8 * SLOW, "only the look every ten seconds found it"


def test_as_many_waiting_leases_are_answered_as_there_are_jobs(api, queue):
    calls = [api.worker.LeaseJobs.begin(queues=[queue], timeout=120, wait=duration(60)) for _ in range(10)]
    time.sleep(0.5)
    ids = api.submit(queue, 6)
    got = eventually(lambda: [c for c in calls if c.done()] if sum(c.done() for c in calls) >= 6 else None, 5)
    assert sorted(j.job.id for c in got for j in c.result().jobs) == sorted(ids)
    ids += api.submit(queue, 4)
    assert sorted(j.job.id for c in calls for j in c.result().jobs) == sorted(ids)


def test_a_waiting_lease_ends_empty_and_ok_before_its_deadline(api, queue):
    begun = time.monotonic()
    assert list(api.worker.LeaseJobs(queues=[queue], timeout=2).jobs) == []
    assert 1.2 * SLOW < time.monotonic() - begun
    begun = time.monotonic()
    assert list(api.worker.LeaseJobs(queues=[queue], wait=duration(0.7)).jobs) == []
    assert 0.6 < time.monotonic() - begun < 30
    begun = time.monotonic()
    assert list(api.worker.LeaseJobs(queues=[queue], wait=duration(0)).jobs) == []
    assert time.monotonic() - begun < 30


def test_a_cancelled_waiting_lease_takes_no_job_with_it(api, queue):
    call = api.worker.LeaseJobs.begin(queues=[queue], timeout=60)
    time.sleep(0.3)
    call.cancel()
    time.sleep(0.3)
    job, = api.submit(queue)
    leased = api.lease(queue, wait=30)
    assert [l.job.id for l in leased] == [job] and leased[0].job.attempts == 1


def test_the_more_important_queue_is_emptied_first(api, bucket):
    one, two = api.make_queue(bucket, "one"), api.make_queue(bucket, "two")
    low = api.submit(one, 3)
    high = api.submit(two, 3, priority=255)
    assert [l.job.id for l in api.lease([one, two], 4)] == low + high[:1]


def test_a_lease_waits_on_all_its_queues(api, bucket):
    queues = [api.make_queue(bucket, f"q{n}") for n in range(5)]
    for queue in (queues[4], queues[0]):
        call = api.worker.LeaseJobs.begin(queues=queues, timeout=60)
        time.sleep(0.2)
        job, = api.submit(queue)
        assert [l.job.id for l in call.result().jobs] == [job]


def test_queues_of_two_buckets_in_one_lease_are_refused(api, queue):
    with rejects("INVALID_ARGUMENT", "queues[1]"):
        api.worker.LeaseJobs(queues=[queue, "buckets/another/queues/q"], wait=duration(0))


def test_one_unknown_queue_makes_a_lease_not_found(api, queue, bucket):
    with rejects("NOT_FOUND"):
        api.worker.LeaseJobs(queues=[queue, f"buckets/{bucket}/queues/none"], wait=duration(0))


def test_a_batch_of_finishes_answers_item_by_item(api, queue, bucket):
    api.submit(queue, 4)
    leased = api.lease(queue, 4)
    wrong = dict(lease_of(leased[1]), fencing_token=leased[1].fencing_token + 5)
    results = api.worker.FinishJobs(bucket=f"buckets/{bucket}", jobs=[
        dict(lease=lease_of(leased[0]), success={}), dict(lease=wrong, success={}),
        dict(lease=dict(job_id=NO_JOB, fencing_token=5), success={}),
        dict(lease=lease_of(leased[3]), failure=dict(never=True))]).results
    assert [r.status.code for r in results] == [0, 9, 5, 0]
    assert [state_name(r.state) for r in (results[0], results[3])] == ["SUCCESS", "FAILED"]
    results = api.worker.FinishJobs(bucket=f"buckets/{bucket}", jobs=[
        dict(lease=lease_of(leased[2]), failure=dict(code="no spaces allowed")), dict(lease=lease_of(leased[1]), success={})]).results
    assert [r.status.code for r in results] == [3, 0], "an item that is not valid does not stand in the way of the others"
    assert "jobs[0].failure.code" in results[0].status.message


def test_the_same_job_twice_in_one_batch_of_finishes_ends_once(api, queue, bucket):
    api.submit(queue)
    leased, = api.lease(queue)
    results = api.worker.FinishJobs(bucket=f"buckets/{bucket}", jobs=[
        dict(lease=lease_of(leased), success=dict(message="a")), dict(lease=lease_of(leased), failure=dict(message="b"))]).results
    assert results[0].status.code == 0
    job = api.get(leased.job.id, queue)
    assert (state_name(job.state), job.message) == ("SUCCESS", "a")
    counts = api.queue.GetQueue(name=queue).queue.counts
    assert (counts.success, counts.failed, counts.running) == (1, 0, 0)


def test_a_finish_without_an_outcome_is_refused(api, queue, bucket):
    api.submit(queue)
    leased, = api.lease(queue)
    import grpc
    try:
        assert api.worker.FinishJobs(bucket=f"buckets/{bucket}", jobs=[dict(lease=lease_of(leased))]).results[0].status.code == 3
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert api.state(leased.job.id, queue) == "RUNNING"


def test_tokens_of_a_queue_only_grow(api, queue):
    api.submit(queue, 300)
    tokens = [l.fencing_token for _ in range(6) for l in api.lease(queue, 50)]
    assert len(tokens) == 300 and tokens == sorted(tokens) and len(set(tokens)) == 300
