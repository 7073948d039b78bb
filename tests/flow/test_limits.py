"""Every field at, below and beyond its limit, from one table a message.

A row is (field as BadRequest names it, fields that set it, values that are taken, values that are refused). A field path is set with
dots; `<...>` in a name is an index in a repeated field.
"""
import base64
import re
import time

import grpc
import pytest

from harness import NO_JOB, duration, lease_of, rejects, timestamp

HOUR, DAY = 3600, 86400
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def put(target, path, value):
    """Sets a dotted path in nested dicts."""
    *way, last = path.split(".")
    for part in way:
        target = target.setdefault(part, {})
    target[last] = value
    return target


def cases(table):
    for path, good, bad in table:
        for value in good:
            yield pytest.param(path, value, True, id=f"{path} takes {str(value)[:40]}")
        for value in bad:
            yield pytest.param(path, value, False, id=f"{path} refuses {str(value)[:40]}")


def span(least, most):
    """Durations at the limits and just beyond them."""
    return ([duration(least), duration(most)], [duration(least - 0.001), duration(most + 0.001), dict(seconds=-1), dict(seconds=most, nanos=-1),
                                                dict(seconds=int(least) + 1, nanos=1_000_000_000), dict(seconds=315_576_000_001)])


QUEUE = [
    ("max_size", [1, 100_000_000, 0], [-1, 100_000_001, -2**63]),
    ("max_concurrent", [1, 1_000_000, 0], [-1, 1_000_001, 2**63 - 1]),
    ("default_lease", *span(1, 12 * HOUR)),
    ("retry_policy.max_attempts", [0, 1, 100], [-1, 101]),
    ("retry_policy.min_backoff", *span(0, DAY)),
    ("retention.max_age", *span(1, 366 * DAY)),
    ("retention.max_count", [0, 1, 100_000_000], [-1, 100_000_001]),
    ("idempotency_window", *span(60, DAY)),
    ("ordering.head_start", *span(0.001, 30 * DAY)),
    ("feature", ["FEATURE_MEDIA", "FEATURE_DOCUMENT"], [0, 4, -1]),
]


@pytest.mark.parametrize("path,value,good", cases(QUEUE))
def test_a_queue_s_settings_are_limited(api, bucket, path, value, good):
    settings = dict(name=f"buckets/{bucket}/queues/q", feature="FEATURE_MEDIA")
    put(settings, path, value)
    if good:
        queue = api.queue.CreateQueue(queue=settings).queue
        if path != "feature":
            api.queue.UpdateQueue(queue=settings, update_mask=dict(paths=[path])) if path != "ordering.head_start" else None
        assert queue.name == settings["name"]
        return
    with rejects("INVALID_ARGUMENT", f"queue.{path}"):
        api.queue.CreateQueue(queue=settings)
    with rejects("NOT_FOUND"):
        api.queue.GetQueue(name=settings["name"])
    if path not in ("feature", "ordering.head_start"):
        name = api.make_queue(bucket, "there")
        with rejects("INVALID_ARGUMENT", f"queue.{path}"):
            api.queue.UpdateQueue(queue=dict(settings, name=name), update_mask=dict(paths=[path]))


def test_max_backoff_lies_between_min_backoff_and_a_day(api, bucket):
    for number, (least, most, good) in enumerate([(5, 5, True), (5, DAY, True), (5, 4.999, False), (5, DAY + 0.001, False), (0, 0, True)]):
        queue = dict(name=f"buckets/{bucket}/queues/q{number}", feature="FEATURE_MEDIA",
                     retry_policy=dict(min_backoff=duration(least), max_backoff=duration(most)))
        if good:
            api.queue.CreateQueue(queue=queue)
        else:
            with rejects("INVALID_ARGUMENT", "queue.retry_policy.max_backoff"):
                api.queue.CreateQueue(queue=queue)


BUCKETS = (["a", "a" * 63, "0", "a.b-c", "a1"], ["", "a" * 64, "A", "a_b", "-a", "a-", ".a", "a.", "a/b", "ä", "a b", "a\n"])
QUEUES = (["q", "Q" * 128, "_", ".", "-", "a_B.c-9"], ["", "q" * 129, "q/r", "q r", "ä", "q\n", "q:"])


@pytest.mark.parametrize("name,good", [(f"buckets/{b}/queues/q", True) for b in BUCKETS[0]] +
                         [(f"buckets/{b}/queues/q", False) for b in BUCKETS[1]] +
                         [(f"buckets/b/queues/{q}", True) for q in QUEUES[0]] + [(f"buckets/b/queues/{q}", False) for q in QUEUES[1]] +
                         [(n, False) for n in ("", "q", "queues/q", "buckets/b", "buckets/b/queues", "buckets/b/queues/q/", "/buckets/b/queues/q",
                                               "Buckets/b/queues/q", "buckets/b/queues/q/x")])
def test_names_are_checked(api, name, good):
    if good:
        try:
            api.queue.GetQueue(name=name)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
        return
    with rejects("INVALID_ARGUMENT", "name"):
        api.queue.GetQueue(name=name)
    with rejects("INVALID_ARGUMENT", "queue.name"):
        api.queue.CreateQueue(queue=dict(name=name, feature="FEATURE_MEDIA"))
    with rejects("INVALID_ARGUMENT", "queue"):
        api.job.SubmitJob(queue=name, job=dict(tag="T"))
    with rejects("INVALID_ARGUMENT"):
        api.worker.LeaseJobs(queues=[name], wait=duration(0))


@pytest.mark.parametrize("bucket_name", [f"buckets/{b}" for b in BUCKETS[1]] + ["", "b", "buckets", "buckets/b/"])
def test_bucket_names_are_checked_everywhere(api, bucket_name):
    for call, fields in ((api.queue.ActivateFeatures, {}), (api.queue.ListQueues, {}), (api.job.GetJobs, dict(job_ids=[NO_JOB])),
                         (api.job.CancelJobs, dict(job_ids=[NO_JOB])), (api.job.ExplainJob, dict(job_id=NO_JOB)),
                         (api.worker.ReleaseJobs, dict(leases=[dict(job_id=NO_JOB, fencing_token=1)]))):
        with rejects("INVALID_ARGUMENT", "bucket"):
            call(bucket=bucket_name, **fields)


def soon(seconds):
    return timestamp(time.time() + seconds)


def deep(levels):
    return "<A>" * levels + "</A>" * levels


URL = "http://127.0.0.1:9/"
JOB = [
    ("tag", ["T", "T" * 64, "a-Z_0.9"], ["", "T" * 65, "T t", "T/", "ä", "T\n"]),
    ("priority", [0, 255], [-1, 256, 2**31 - 1, -2**31]),
    ("user_data", ["", "x" * 1024, " ~"], ["x" * 1025, "é", "a\nb", "\x7f", "\t"]),
    ("max_attempts", [0, 1, 100], [-1, 101]),
    ("lease", *span(1, 12 * HOUR)),
    ("run_timeout", *span(1, 30 * DAY)),
    ("traceparent", ["", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"], ["x", "a" * 54, "a" * 56]),
    ("input.url", [URL, URL + "x" * (2048 - len(URL)), "https://example.com/a?b=c#d"],
     ["", URL + "x" * (2049 - len(URL)), "ftp://x/", "http://u@x/", "x", "http://x/ y"]),
    ("input.object.object", ["o", "o" * 1024, "ä" * 512], ["", "o" * 1025, "ä" * 512 + "o", "a\x01b"]),
    ("input.object.region", ["r" * 64], ["r" * 65, "é", "\n"]),
    ("operation.xml", ["<A/>", "text", "<A>1</A>t<B b='2'/>", deep(32), "&amp;&#10;&lt;", "<A xml:lang='de'/>", "<A>" + "x" * 65_000 + "</A>", "ä"],
     ["<A>", "</A>", "<A></B>", deep(33), "<!DOCTYPE a>", "<!DOCTYPE a [<!ENTITY b 'c'>]><A>&b;</A>", "<?pi x?>", "<?xml version='1.0'?><A/>",
      "&unknown;", "<A a='1' a='2'/>", "<A a=1/>", "a & b", "<A>" + "x" * 70_000 + "</A>", "]]>", "&#0;", "&#x1F;", "<A/", "<p:A/>", "<1/>"]),
    ("operation.opaque.data", [b"", b"x" * 65_000, b"\x00\xff"], [b"x" * 70_000]),
    ("operation.opaque.content_type", ["", "a/b", "t/" + "x" * 125], ["t/" + "x" * 126, "é", "a/b\n"]),
    ("callback.url", [URL], ["", "ftp://x/", "http://u:p@x/", URL + "x" * (2049 - len(URL))]),
]


@pytest.mark.parametrize("path,value,good", cases(JOB))
def test_a_job_s_fields_are_limited(api, queue, path, value, good):
    spec = dict(tag="T")
    put(spec, path, value)
    if path == "input.object.region":
        spec["input"]["object"]["object"] = "o"
    if good:
        job = api.job.SubmitJob(queue=queue, job=spec).job
        assert api.get(job.id, queue).spec.tag == spec["tag"]
        assert [l.job.id for l in api.lease(queue, 5)] == [job.id]
        return
    with rejects("INVALID_ARGUMENT") as seen:
        api.job.SubmitJob(queue=queue, job=spec)
    assert any(f"job.{path}".startswith(field) and field.startswith("job.") for field in seen.fields), seen.fields
    result, = api.job.SubmitJobs(queue=queue, jobs=[spec]).results
    assert result.status.code == 3 and result.status.message and not result.job_id
    assert api.queue.GetQueue(name=queue).queue.counts.waiting == 0


def test_an_input_s_bucket_is_limited(api, queue):
    api.job.SubmitJob(queue=queue, job=dict(tag="T", input=dict(object=dict(bucket="b" * 63, object="o"))))
    with rejects("INVALID_ARGUMENT", "job.input.object.bucket"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T", input=dict(object=dict(bucket="b" * 64, object="o"))))


@pytest.mark.parametrize("fields,good", [
    (lambda: dict(not_before=soon(366 * DAY - 60)), True), (lambda: dict(not_before=soon(366 * DAY + 60)), False),
    (lambda: dict(not_before=soon(-1000)), True), (lambda: dict(not_before=dict(seconds=0)), True),
    (lambda: dict(not_before=dict(seconds=1, nanos=1_000_000_000)), False), (lambda: dict(not_before=dict(seconds=1, nanos=-1)), False),
    (lambda: dict(not_before=dict(seconds=253_402_300_800)), False),
    (lambda: dict(expire_time=soon(366 * DAY - 60)), True), (lambda: dict(expire_time=soon(366 * DAY + 60)), False),
    (lambda: dict(expire_time=soon(-5)), False), (lambda: dict(not_before=soon(100), expire_time=soon(99)), False),
    (lambda: dict(not_before=soon(100), expire_time=soon(101)), True), (lambda: dict(expire_time=dict(seconds=2**62)), False)])
def test_a_job_s_times_are_limited(api, queue, fields, good):
    if good:
        api.job.SubmitJob(queue=queue, job=dict(tag="T", **fields()))
    else:
        with rejects("INVALID_ARGUMENT"):
            api.job.SubmitJob(queue=queue, job=dict(tag="T", **fields()))


@pytest.mark.parametrize("fields,said", [
    (dict(not_before=timestamp(253_402_300_799)), "not_before: is 9999-12-31T23:59:59Z, which is more than 366 days ahead"),
    (dict(expire_time=timestamp(253_402_300_799)), "expire_time: is 9999-12-31T23:59:59Z, which is more than 366 days ahead"),
    (dict(expire_time=timestamp(1_000_000_000)), "expire_time: is 2001-09-09T01:46:40Z, which is in the past"),
    (dict(expire_time=dict(seconds=-62_135_596_800)), "expire_time: is 0001-01-01T00:00:00Z, which is in the past")])
def test_a_time_that_is_refused_is_shown(api, queue, fields, said):
    with rejects("INVALID_ARGUMENT") as seen:
        api.job.SubmitJob(queue=queue, job=dict(tag="T", **fields))
    assert seen.message == f"job.{said}"


def test_an_expiry_before_its_job_s_time_is_shown_with_it(api, queue):
    with rejects("INVALID_ARGUMENT") as seen:
        api.job.SubmitJob(queue=queue, job=dict(tag="T", not_before=soon(100), expire_time=soon(99)))
    assert re.fullmatch(r"job\.expire_time: is [-0-9T:]{19}Z, which is not after not_before, [-0-9T:]{19}Z", seen.message), seen.message


def test_what_is_refused_is_told_whole_with_its_value(api, queue, bucket):
    for long in (f"buckets/{bucket}/queues/" + "q" * 129, "q" * 5000, "\x01" * 300):
        with rejects("INVALID_ARGUMENT", "name") as seen:
            api.queue.GetQueue(name=long)
        assert long[:20].replace("\x01", "?") in seen.message and seen.message.endswith("1 to 128 of A-Z a-z 0-9 _ . and -"), seen.message
        violation, = seen.details["BadRequest"].field_violations
        assert f"name: {violation.description}" == seen.message
    with rejects("INVALID_ARGUMENT", "features[1]") as seen:
        api.queue.ActivateFeatures(bucket=f"buckets/{bucket}", features=["FEATURE_MEDIA", "FEATURE_MEDIA"])
    assert "(media) a second time" in seen.message
    with rejects("INVALID_ARGUMENT", "rule.headers[0].name") as seen:
        api.callback.UpdateCallbackRule(rule=dict(queue=queue, headers=[dict(name="a b", value="c")]), update_mask=dict(paths=["headers"]))
    assert '"a b"' in seen.message and "1 to 64 characters" in seen.message


def test_request_ids_are_limited(api, queue):
    api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id="r" * 64)
    for bad in ("r" * 65, "é", "a\nb"):
        with rejects("INVALID_ARGUMENT", "request_id"):
            api.job.SubmitJob(queue=queue, job=dict(tag="T"), request_id=bad)
        with rejects("INVALID_ARGUMENT", "request_id"):
            api.job.SubmitJobs(queue=queue, jobs=[dict(tag="T")], request_id=bad)


def test_a_submit_needs_a_target_and_a_job(api, queue, bucket):
    with rejects("INVALID_ARGUMENT"):
        api.job.SubmitJob(job=dict(tag="T"))
    with rejects("INVALID_ARGUMENT"):
        api.job.SubmitJob(queue=queue)
    with rejects("INVALID_ARGUMENT"):
        api.job.SubmitJob(default_queue=dict(bucket=f"buckets/{bucket}"), job=dict(tag="T"))
    with rejects("INVALID_ARGUMENT"):
        api.job.SubmitJob(default_queue=dict(bucket="B", feature=1), job=dict(tag="T"))


def test_batches_hold_one_to_250_items(api, queue, bucket):
    where, ids = f"buckets/{bucket}", [NO_JOB] * 251
    lease = dict(job_id=ids[0], fencing_token=1)
    for call, field, item, extra in (
            (api.job.SubmitJobs, "jobs", dict(tag="T"), dict(queue=queue)), (api.job.GetJobs, "job_ids", ids, dict(bucket=where)),
            (api.job.CancelJobs, "job_ids", ids, dict(bucket=where)), (api.job.RetryJobs, "job_ids", ids, dict(bucket=where)),
            (api.worker.RenewLeases, "renewals", dict(lease=lease), dict(bucket=where)),
            (api.worker.FinishJobs, "jobs", dict(lease=lease, success={}), dict(bucket=where)),
            (api.worker.ReleaseJobs, "leases", lease, dict(bucket=where))):
        items = item if isinstance(item, list) else [item] * 251
        call(**{field: items[:250]}, **extra)
        with rejects("INVALID_ARGUMENT", field):
            call(**{field: items}, **extra)
        if call not in (api.job.CancelJobs, api.job.RetryJobs):
            with rejects("INVALID_ARGUMENT", field):
                call(**{field: []}, **extra)


def test_page_sizes_are_limited(api, queue, bucket):
    for call, fields in ((api.queue.ListQueues, dict(bucket=f"buckets/{bucket}")), (api.job.ListJobs, dict(filter=dict(queue=queue))),
                         (api.callback.ListDeliveries, dict(queue=queue))):
        for size in (0, 1, 100):
            call(page_size=size, **fields)
        for size in (-1, 101, 2**31 - 1):
            with rejects("INVALID_ARGUMENT", "page_size"):
                call(page_size=size, **fields)


def test_unknown_enum_values_are_refused(api, queue, bucket):
    with rejects("INVALID_ARGUMENT"):
        api.queue.ActivateFeatures(bucket=f"buckets/{bucket}", features=[9])
    with rejects("INVALID_ARGUMENT"):
        api.job.ListJobs(filter=dict(queue=queue, states=[77]))
    with rejects("INVALID_ARGUMENT"):
        api.job.ListJobs(filter=dict(queue=queue), order=9)
    with rejects("INVALID_ARGUMENT"):
        api.callback.ListDeliveries(queue=queue, states=[77])
    with rejects("INVALID_ARGUMENT"):
        api.callback.UpdateCallbackRule(rule=dict(queue=queue, state=9), update_mask=dict(paths=["state"]))


def test_a_filter_needs_its_queue(api, bucket):
    with rejects("INVALID_ARGUMENT", "filter"):
        api.job.ListJobs()
    with rejects("INVALID_ARGUMENT", "filter.queue"):
        api.job.ListJobs(filter=dict(tag="T"))


LEASE = [
    ("max_jobs", [0, 1, 250], [-1, 251]),
    ("worker", ["", "w" * 128], ["w" * 129, "é", "\n"]),
    ("lease", *span(1, 12 * HOUR)),
    ("wait", [duration(0)], [dict(seconds=-1), dict(nanos=-1)]),
]


@pytest.mark.parametrize("path,value,good", cases(LEASE))
def test_a_lease_s_fields_are_limited(api, queue, path, value, good):
    request = dict(queues=[queue], wait=duration(0)) | {path: value}
    if good:
        api.worker.LeaseJobs(**request)
    else:
        with rejects("INVALID_ARGUMENT", path):
            api.worker.LeaseJobs(**request)


def test_a_lease_names_one_to_a_hundred_queues(api, bucket):
    queues = [api.make_queue(bucket, f"q{n}") for n in range(101)]
    api.worker.LeaseJobs(queues=queues[:100], wait=duration(0))
    with rejects("INVALID_ARGUMENT", "queues"):
        api.worker.LeaseJobs(queues=queues, wait=duration(0))
    with rejects("INVALID_ARGUMENT", "queues"):
        api.worker.LeaseJobs(queues=[], wait=duration(0))


@pytest.mark.parametrize("fields,good", [(dict(progress=0), True), (dict(progress=100), True), (dict(progress=-1), False),
                                         (dict(progress=101), False), (dict(extension=duration(1)), True),
                                         (dict(extension=duration(12 * HOUR)), True), (dict(extension=duration(0.999)), False),
                                         (dict(extension=duration(12 * HOUR + 1)), False)])
def test_a_renewal_s_fields_are_limited(api, queue, bucket, fields, good):
    api.submit(queue)
    leased, = api.lease(queue)
    try:
        code = api.worker.RenewLeases(bucket=f"buckets/{bucket}", renewals=[dict(lease=lease_of(leased), **fields)]).results[0].status.code
    except grpc.RpcError as error:
        code = error.code().value[0]
    assert code == (0 if good else 3)


@pytest.mark.parametrize("outcome,good", [
    (dict(failure=dict(code="C" * 64)), True), (dict(failure=dict(code="C" * 65)), False), (dict(failure=dict(code="a b")), False),
    (dict(failure=dict(after=duration(DAY))), True), (dict(failure=dict(after=duration(DAY + 1))), False),
    (dict(failure=dict(after=dict(seconds=-1))), False), (dict(success=dict(result=dict(xml=deep(32)))), True), (dict(success=dict(result=dict(xml="<A>" + "x" * 70_000 + "</A>"))), False),
    (dict(success=dict(result=dict(opaque=dict(data=b"x" * 70_000)))), False)])
def test_an_outcome_s_fields_are_limited(api, queue, outcome, good):
    api.submit(queue)
    leased, = api.lease(queue)
    try:
        code = api.finish(leased, **outcome).status.code
    except grpc.RpcError as error:
        code = error.code().value[0]
    assert code == (0 if good else 3)
    if not good:
        assert api.state(leased.job.id, queue) == "RUNNING"
        assert api.finish(leased).status.code == 0


def test_a_long_message_is_cut_at_a_character(api, queue):
    api.submit(queue, 2)
    for message in ("m" * 5000, "é" * 5000):
        leased, = api.lease(queue)
        assert api.finish(leased, success=dict(message=message)).status.code == 0
        kept = api.get(leased.job.id, queue).message
        assert message.startswith(kept) and 1020 <= len(kept.encode()) <= 1024


RULE = [
    ("url", ["http://127.0.0.1/", "http://127.0.0.1/" + "x" * (2048 - 17)], ["http://127.0.0.1/" + "x" * (2049 - 17), "ftp://x/"]),
    ("timeout", *span(1, 60)),
    ("secrets", [[], [SECRET] * 5], [[SECRET] * 6, [""]]),
    ("events", [[], [1]], [[0], [9]]),
]


@pytest.mark.parametrize("path,value,good", cases(RULE))
def test_a_rule_s_fields_are_limited(api, queue, path, value, good):
    call = dict(rule={"queue": queue, path: value}, update_mask=dict(paths=[path]))
    if good:
        api.callback.UpdateCallbackRule(**call)
    else:
        with rejects("INVALID_ARGUMENT"):
            api.callback.UpdateCallbackRule(**call)


@pytest.mark.parametrize("paths", [[], ["queue"], ["secret_count"], ["etag"], ["nonsense"]])
def test_a_rule_s_mask_names_what_can_change(api, queue, paths):
    with rejects("INVALID_ARGUMENT"):
        api.callback.UpdateCallbackRule(rule=dict(queue=queue), update_mask=dict(paths=paths))


def test_a_watch_names_at_most_250_jobs(api, bucket):
    with rejects("INVALID_ARGUMENT", "job_ids"):
        next(api.job.WatchJobs(bucket=f"buckets/{bucket}", job_ids=[NO_JOB] * 251))


def test_a_message_that_is_no_protobuf_is_refused(api):
    for data in (b"\xff\xff\xff\xff", b"\x0a\xff", b"\x0a\x05abc"):
        call = api.channel.unary_unary("/ringback.v1.QueueService/GetQueue")
        with pytest.raises(grpc.RpcError) as error:
            call(data, timeout=5)
        assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


def test_a_text_with_nul_is_refused_with_its_field(api, queue):
    with rejects("INVALID_ARGUMENT", "job.tag"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T\0x"))
    with rejects("INVALID_ARGUMENT", "name"):
        api.queue.GetQueue(name=queue + "\0x")


def test_a_message_larger_than_the_server_takes_is_refused_and_the_next_one_served(api, queue):
    with pytest.raises(grpc.RpcError) as error:
        api.job.SubmitJobs(queue=queue, jobs=[dict(tag="T", operation=dict(opaque=dict(data=b"x" * 60_000)))] * 250)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    api.submit(queue)
