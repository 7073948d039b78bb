"""JobService: submitting, reading, listing, cancelling, retrying, explaining."""
import time

import pytest

from harness import NO_JOB, SLOW, bucket_of, duration, eventually, lease_of, rejects, state_name, timestamp

FULL = dict(
    tag="Transcode", input=dict(object=dict(bucket="media", object="in/ä b.mp4", region="ap-1")),
    operation=dict(xml='<TemplateId>t1</TemplateId><Output a="1"><Object>out.mp4</Object></Output>'), user_data="user ~ data",
    priority=7, max_attempts=3, lease=duration(30), run_timeout=duration(600), traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")


def test_a_submitted_job_reads_as_it_was_sent(api, queue):
    before = time.time()
    sent = api.job.SubmitJob(queue=queue, job=FULL).job
    assert sent.queue == queue and state_name(sent.state) == "SUBMITTED"
    job = api.get(sent.id, queue)
    spec = api.job.messages.SubmitJobRequest(job=FULL).job
    for field in ("tag", "input", "user_data", "priority", "max_attempts", "lease", "run_timeout", "traceparent"):
        assert getattr(job.spec, field) == getattr(spec, field), field
    assert job.spec.operation.xml == spec.operation.xml
    assert (job.progress, job.code, job.attempts, job.worker) == (0, "", 0, "")
    assert not job.HasField("start_time") and not job.HasField("end_time") and not job.HasField("result")
    assert before - 2 < job.create_time.seconds <= time.time() + 2
    assert job.queue_id == api.queue.GetQueue(name=queue).queue.queue_id


def test_an_opaque_operation_comes_back_byte_for_byte(api, queue):
    data = bytes(range(256)) * 4
    sent = api.job.SubmitJob(queue=queue, job=dict(tag="T", operation=dict(opaque=dict(data=data, content_type="application/x-test")))).job
    opaque = api.get(sent.id, queue).spec.operation.opaque
    assert opaque.data == data and opaque.content_type == "application/x-test"
    leased, = api.lease(queue)
    assert leased.job.spec.operation.opaque.data == data


def test_the_basic_view_leaves_out_what_is_large(api, queue):
    job = api.job.SubmitJob(queue=queue, job=FULL).job
    for view in ("JOB_VIEW_UNSPECIFIED", "JOB_VIEW_BASIC"):
        basic = api.get(job.id, queue, view)
        assert not basic.spec.HasField("operation") and basic.spec.user_data == "" and basic.spec.tag == "Transcode"
        assert basic.spec.input.object.object == "in/ä b.mp4"


def test_a_batch_answers_item_by_item_and_takes_the_valid_ones(api, queue):
    answer = api.job.SubmitJobs(queue=queue, jobs=[dict(tag="A"), dict(tag=""), dict(tag="B", priority=256), dict(tag="C")])
    assert [r.status.code for r in answer.results] == [0, 3, 3, 0]
    assert [bool(r.job_id) for r in answer.results] == [True, False, False, True]
    assert [l.job.spec.tag for l in api.lease(queue, 10)] == ["A", "C"]


def test_ids_of_a_queue_sort_in_the_order_of_submission(api, queue):
    ids = api.submit(queue, 600) + [api.job.SubmitJob(queue=queue, job=dict(tag="T")).job.id for _ in range(20)]
    assert ids == sorted(ids) and len(set(ids)) == 620


def test_unknown_ids_come_back_as_such(api, queue, bucket):
    job, = api.submit(queue)
    unknown = [NO_JOB, "j" + "0" * 32, "j" + "f" * 32]
    answer = api.job.GetJobs(bucket=f"buckets/{bucket}", job_ids=[unknown[0], job, *unknown[1:]])
    assert [j.id for j in answer.jobs] == [job]
    assert list(answer.non_exist_job_ids) == unknown


def test_a_job_of_another_bucket_does_not_exist_in_this_one(api, queue):
    job, = api.submit(queue)
    other = api.make_queue("other-" + bucket_of(queue)[8:20])
    for target in (bucket_of(other), "buckets/no-such-bucket"):
        answer = api.job.GetJobs(bucket=target, job_ids=[job])
        assert not answer.jobs and list(answer.non_exist_job_ids) == [job]
    assert api.job.CancelJobs(bucket=bucket_of(other), job_ids=[job]).results[0].code == 5
    assert api.state(job, queue) == "SUBMITTED"


@pytest.mark.parametrize("job_id", ["", "x", "j123", "J" + "0" * 32, "j" + "0" * 33, "j" + "G" * 32, "j" + "0" * 31 + "\n"])
def test_what_is_no_job_id_is_either_refused_or_does_not_exist(api, bucket, job_id):
    import grpc
    try:
        answer = api.job.GetJobs(bucket=f"buckets/{bucket}", job_ids=[job_id])
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    else:
        assert list(answer.non_exist_job_ids) == [job_id]


def test_large_jobs_are_answered_in_parts_of_at_most_three_mebibytes(api, queue, bucket):
    payload = dict(opaque=dict(data=b"x" * 60_000))
    ids = api.submit(queue, 40, operation=payload) + api.submit(queue, 40, operation=payload)
    wanted, seen, calls = list(ids), [], 0
    while wanted:
        answer = api.job.GetJobs(bucket=f"buckets/{bucket}", job_ids=wanted, view="JOB_VIEW_FULL")
        assert answer.ByteSize() <= 3 << 20 and answer.jobs
        seen += [j.id for j in answer.jobs]
        wanted, calls = list(answer.remaining_job_ids), calls + 1
    assert seen == ids and calls == 2
    leased = []
    while len(leased) < 80:
        answer = api.worker.LeaseJobs(queues=[queue], max_jobs=250, wait=duration(0))
        assert answer.jobs and answer.ByteSize() <= 3 << 20
        leased += answer.jobs
    assert [l.job.id for l in leased] == ids


# --- lists -----------------------------------------------------------------------------------------------------------------------

def list_all(api, queue, page_size=7, order="LIST_ORDER_DESC", view="JOB_VIEW_BASIC", **filters):
    ids, token = [], ""
    for _ in range(2000):
        page = api.job.ListJobs(filter=dict(queue=queue, **filters), order=order, page_size=page_size, page_token=token, view=view)
        assert len(page.jobs) <= page_size
        ids += [j.id for j in page.jobs]
        token = page.next_page_token
        if not token:
            return ids
    raise AssertionError("the list has no end")


def test_jobs_are_listed_newest_first_or_oldest_first(api, queue):
    ids = api.submit(queue, 25)
    assert list_all(api, queue) == ids[::-1]
    assert list_all(api, queue, order="LIST_ORDER_ASC") == ids
    assert len(api.job.ListJobs(filter=dict(queue=queue)).jobs) == 10


def test_a_list_filters_by_tag_state_and_time(api, queue):
    a = api.submit(queue, 5, tag="A")
    time.sleep(0.05)
    middle = time.time()
    time.sleep(0.05)
    b = api.submit(queue, 5, tag="B")
    leased = api.lease(queue, 2)
    assert list_all(api, queue, tag="A") == a[::-1]
    assert list_all(api, queue, tag="None") == []
    assert list_all(api, queue, states=["JOB_STATE_RUNNING"], order="LIST_ORDER_ASC") == [l.job.id for l in leased]
    assert list_all(api, queue, states=["JOB_STATE_SUBMITTED"], tag="A", order="LIST_ORDER_ASC") == a[2:]
    assert list_all(api, queue, states=["JOB_STATE_PAUSE", "JOB_STATE_RUNNING"]) == (a + b)[::-1]
    assert list_all(api, queue, start_create_time=timestamp(middle)) == b[::-1]
    assert list_all(api, queue, end_create_time=timestamp(middle)) == a[::-1]
    assert list_all(api, queue, start_create_time=timestamp(middle), end_create_time=timestamp(middle)) == []


def test_a_list_of_many_jobs_with_few_that_match_ends_and_finds_them(api, queue):
    few = api.submit(queue, 2, tag="Few")
    api.submit(queue, 2500, tag="Many")
    more = api.submit(queue, 1, tag="Few")
    assert list_all(api, queue, tag="Few", page_size=100) == (few + more)[::-1]


def test_a_token_stays_valid_while_jobs_come_and_go(api, queue):
    ids = api.submit(queue, 20)
    page = api.job.ListJobs(filter=dict(queue=queue), page_size=5)
    api.submit(queue, 7)
    api.job.CancelJobs(bucket=bucket_of(queue), job_ids=ids[10:13])
    rest, token = [], page.next_page_token
    while token:
        answer = api.job.ListJobs(filter=dict(queue=queue), page_size=5, page_token=token)
        rest, token = rest + [j.id for j in answer.jobs], answer.next_page_token
    assert [j.id for j in page.jobs] + rest == ids[::-1]


def test_a_token_of_another_filter_order_or_queue_is_refused(api, queue, bucket):
    api.submit(queue, 20)
    token = api.job.ListJobs(filter=dict(queue=queue), page_size=5).next_page_token
    assert token
    other = api.make_queue(bucket, "other")
    for fields in (dict(filter=dict(queue=queue, tag="T")), dict(filter=dict(queue=other)),
                   dict(filter=dict(queue=queue), order="LIST_ORDER_ASC"),
                   dict(filter=dict(queue=queue, states=["JOB_STATE_FAILED"]))):
        with rejects("INVALID_ARGUMENT", "page_token"):
            api.job.ListJobs(page_size=5, page_token=token, **fields)
    with rejects("INVALID_ARGUMENT", "page_token"):
        api.job.ListJobs(filter=dict(queue=queue), page_token="nonsense")


def test_a_full_list_of_large_jobs_stops_at_three_mebibytes(api, queue):
    ids = [job for _ in range(2) for job in api.submit(queue, 35, operation=dict(opaque=dict(data=b"y" * 60_000)))]
    page = api.job.ListJobs(filter=dict(queue=queue), page_size=100, view="JOB_VIEW_FULL")
    assert page.ByteSize() <= 3 << 20 and page.next_page_token
    assert list_all(api, queue, page_size=100, view="JOB_VIEW_FULL") == ids[::-1]


# --- cancel and retry --------------------------------------------------------------------------------------------------------------

def test_a_waiting_job_is_cancelled_at_once_and_cancelling_again_is_fine(api, queue, bucket):
    job, delayed = api.submit(queue) + api.submit(queue, not_before=timestamp(time.time() + 999))
    answer = api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job, NO_JOB, delayed])
    assert [r.code for r in answer.results] == [0, 5, 0] and answer.cancelled_count == 2
    assert [api.state(j, queue) for j in (job, delayed)] == ["CANCEL", "CANCEL"]
    again = api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    assert again.results[0].code == 0 and again.cancelled_count == 0
    assert api.lease(queue, 5) == []
    assert api.get(job, queue).HasField("end_time")


def test_a_running_job_is_cancelled_its_worker_is_told_and_its_result_refused(api, queue, bucket):
    job, = api.submit(queue)
    leased, = api.lease(queue)
    assert api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job]).cancelled_count == 1
    assert api.state(job, queue) == "CANCEL"
    renewal = api.worker.RenewLeases(bucket=f"buckets/{bucket}", renewals=[dict(lease=lease_of(leased), progress=50)]).results[0]
    assert renewal.status.code in (5, 9) and renewal.stop_reason == api.worker.messages.STOP_REASON_CANCELLED
    assert api.finish(leased).status.code == 9
    assert api.state(job, queue) == "CANCEL"


def test_a_job_that_has_ended_otherwise_cannot_be_cancelled(api, queue, bucket):
    job, = api.submit(queue)
    api.finish(api.lease(queue)[0])
    answer = api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    assert answer.results[0].code == 9 and answer.cancelled_count == 0
    assert api.state(job, queue) == "SUCCESS"


def test_cancelling_by_filter_goes_on_until_all_are_done(api, queue, bucket):
    keep = api.submit(queue, 3, tag="Keep")
    gone = api.submit(queue, 600, tag="Gone")
    api.lease(queue, 10)  # three Keep and seven Gone run now
    total, token, calls = 0, "", 0
    while True:
        answer = api.job.CancelJobs(bucket=f"buckets/{bucket}", filter=dict(queue=queue, tag="Gone"), page_token=token)
        assert answer.cancelled_count <= 250
        total, token, calls = total + answer.cancelled_count, answer.next_page_token, calls + 1
        assert calls < 20
        if not token:
            break
    assert total == 600
    assert all(api.state(j, queue) == "CANCEL" for j in (gone[0], gone[299], gone[-1]))
    assert [api.state(j, queue) for j in keep] == ["RUNNING"] * 3


def test_ids_and_filter_together_or_neither_are_refused(api, queue, bucket):
    job, = api.submit(queue)
    for call in (api.job.CancelJobs, api.job.RetryJobs):
        with rejects("INVALID_ARGUMENT"):
            call(bucket=f"buckets/{bucket}", job_ids=[job], filter=dict(queue=queue))
        with rejects("INVALID_ARGUMENT"):
            call(bucket=f"buckets/{bucket}")
        with rejects("INVALID_ARGUMENT"):
            call(bucket=f"buckets/{bucket}", filter=dict(queue="buckets/another/queues/q"))
        with rejects("NOT_FOUND"):
            call(bucket=f"buckets/{bucket}", filter=dict(queue=f"buckets/{bucket}/queues/none"))


def test_a_retried_job_waits_again_with_its_attempts_counted_anew(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1))
    job, = api.submit(queue)
    first, = api.lease(queue)
    api.finish(first, failure=dict(code="Broken", message="it broke", result=dict(xml="<Why>x</Why>")))
    failed = api.get(job, queue)
    assert (state_name(failed.state), failed.code, failed.message, failed.attempts) == ("FAILED", "Broken", "it broke", 1)
    assert failed.result.xml == "<Why>x</Why>"
    answer = api.job.RetryJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    assert answer.results[0].code == 0 and answer.retried_count == 1
    waiting = api.get(job, queue)
    assert (state_name(waiting.state), waiting.attempts, waiting.code) == ("SUBMITTED", 0, "")
    assert not waiting.HasField("end_time") and not waiting.HasField("result")
    assert api.job.RetryJobs(bucket=f"buckets/{bucket}", job_ids=[job]).results[0].code == 9
    second, = api.lease(queue)
    assert second.job.id == job and second.job.attempts == 1 and second.fencing_token > first.fencing_token
    assert api.finish(first).status.code == 9
    assert api.finish(second).status.code == 0
    assert api.state(job, queue) == "SUCCESS"


def test_retrying_by_filter_takes_the_failed_ones_unless_told_otherwise(api, bucket):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1))
    api.submit(queue, 6)
    leased = api.lease(queue, 6)
    for item in leased[:3]:
        api.finish(item, failure=dict())
    for item in leased[3:5]:
        api.finish(item)
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[leased[5].job.id])
    assert api.job.RetryJobs(bucket=f"buckets/{bucket}", filter=dict(queue=queue)).retried_count == 3
    assert [l.job.id for l in api.lease(queue, 9)] == [l.job.id for l in leased[:3]]
    both = dict(queue=queue, states=["JOB_STATE_SUCCESS", "JOB_STATE_CANCEL"])
    assert api.job.RetryJobs(bucket=f"buckets/{bucket}", filter=both).retried_count == 3


def test_a_retry_into_a_full_queue_is_refused(api, bucket):
    queue = api.make_queue(bucket, max_size=1, retry_policy=dict(max_attempts=1))
    job, = api.submit(queue)
    api.finish(api.lease(queue)[0], failure=dict())
    api.submit(queue)
    assert api.job.RetryJobs(bucket=f"buckets/{bucket}", job_ids=[job]).results[0].code == 8
    assert api.state(job, queue) == "FAILED"


# --- priority, explain, times -------------------------------------------------------------------------------------------------------

def test_a_changed_priority_moves_a_job_among_its_new_equals_by_submission(api, queue, bucket):
    a, b, c = api.submit(queue, 3, priority=5)
    job = api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=c, priority=9).job
    assert job.id == c and job.spec.priority == 9
    low, = api.submit(queue, priority=5)
    api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=a, priority=1)
    api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=a, priority=5)
    assert [l.job.id for l in api.lease(queue, 5)] == [c, a, b, low]


def test_a_priority_cannot_change_once_the_job_runs_or_has_ended(api, queue, bucket):
    job, = api.submit(queue)
    leased, = api.lease(queue)
    with rejects("FAILED_PRECONDITION"):
        api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=job, priority=9)
    api.finish(leased)
    with rejects("FAILED_PRECONDITION"):
        api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=job, priority=9)
    with rejects("NOT_FOUND"):
        api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=NO_JOB, priority=9)


def test_a_delayed_job_keeps_its_changed_priority(api, queue, bucket):
    job, = api.submit(queue, not_before=timestamp(time.time() + 1.2))
    api.job.ChangePriority(bucket=f"buckets/{bucket}", job_id=job, priority=9)
    api.submit(queue, 2, priority=5)
    time.sleep(1.2)
    eventually(lambda: api.get(job, queue).HasField("due_time") is False, 5)
    assert api.lease(queue)[0].job.id == job


def explain(api, queue, job):
    answer = api.job.ExplainJob(bucket=bucket_of(queue), job_id=job)
    assert answer.job.id == job and answer.explanation
    return answer


def reason(api, queue, job):
    answer = explain(api, queue, job)
    return api.job.messages.WaitReason.Name(answer.reason).replace("WAIT_REASON_", "")


def test_explain_tells_a_job_s_place_in_line(api, queue):
    low = api.submit(queue, 3)
    high = api.submit(queue, 2, priority=1)
    assert [explain(api, queue, j).position for j in high + low] == [1, 2, 3, 4, 5]
    answer = explain(api, queue, low[2])
    assert (answer.waiting_count, answer.running_count, answer.max_concurrent) == (5, 0, 10_000)
    assert reason(api, queue, low[0]) == "TURN"


def test_explain_tells_what_a_job_waits_for(api, bucket):
    queue = api.make_queue(bucket, max_concurrent=1, retry_policy=dict(max_attempts=2, min_backoff=duration(100)))
    first, second = api.submit(queue, 2)
    late, = api.submit(queue, not_before=timestamp(time.time() + 3600))
    leased, = api.lease(queue)
    assert reason(api, queue, first) == "WORKER"
    assert explain(api, queue, first).HasField("lease_expire_time") and explain(api, queue, first).position == 0
    assert reason(api, queue, second) == "CONCURRENCY"
    assert reason(api, queue, late) == "NOT_BEFORE" and explain(api, queue, late).position == 0
    api.finish(leased, failure=dict())
    assert reason(api, queue, first) == "BACKOFF"
    assert reason(api, queue, second) == "TURN"
    api.queue.PauseQueue(name=queue)
    assert reason(api, queue, second) == "QUEUE_PAUSED"
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[second])
    assert reason(api, queue, second) == "ENDED"
    with rejects("NOT_FOUND"):
        api.job.ExplainJob(bucket=f"buckets/{bucket}", job_id=NO_JOB)


def test_a_delayed_job_is_leased_at_its_time_and_not_before(api, queue):
    due = time.time() + 7
    job, = api.submit(queue, not_before=timestamp(due))
    assert api.get(job, queue).HasField("due_time")
    assert api.lease(queue) == []
    leased, = api.lease(queue, wait=40)
    assert leased.job.id == job and due - 0.05 <= time.time() < due + 9 * SLOW


def test_a_job_that_is_not_done_at_its_expire_time_fails_as_expired(api, queue):
    waiting, = api.submit(queue, expire_time=timestamp(time.time() + 7), priority=0)
    running, = api.submit(queue, expire_time=timestamp(time.time() + 7), priority=9)
    leased, = api.lease(queue)
    assert leased.job.id == running
    for job in (waiting, running):
        eventually(lambda j=job: api.state(j, queue) == "FAILED", 8)
        assert api.get(job, queue).code == "Expired"
    assert api.finish(leased).status.code == 9
    assert api.job.RetryJobs(bucket=bucket_of(queue), job_ids=[waiting]).results[0].code == 9
    assert api.lease(queue) == []


def test_ended_jobs_go_when_they_are_older_than_the_retention(api, bucket):
    queue = api.make_queue(bucket, retention=dict(max_age=duration(1)))
    job, = api.submit(queue)
    api.finish(api.lease(queue)[0])
    stays, = api.submit(queue)
    eventually(lambda: api.get(job, queue) is None, 15)
    counts = api.queue.GetQueue(name=queue).queue.counts
    assert (counts.success, counts.waiting) == (0, 1)
    assert [j.id for j in api.job.ListJobs(filter=dict(queue=queue)).jobs] == [stays]


def test_no_more_ended_jobs_are_kept_than_the_retention_says_and_the_latest_stay(api, bucket):
    queue = api.make_queue(bucket, retention=dict(max_count=5))
    ids = api.submit(queue, 12)
    for leased in api.lease(queue, 12):
        api.finish(leased)
    eventually(lambda: api.queue.GetQueue(name=queue).queue.counts.success == 5, 15)
    assert [api.get(j, queue) is not None for j in ids] == [False] * 7 + [True] * 5
