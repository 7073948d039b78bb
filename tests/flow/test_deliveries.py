"""What is known of callbacks' deliveries, sending them again, new secrets, and the forms of the body."""
import base64
import hashlib
import hmac
import json
import re
import threading
import time

from harness import NO_JOB, bucket_of, duration, eventually, rejects, timestamp
from test_callbacks import deliveries, parse, run


# --- what is known of a delivery ------------------------------------------------------------------------------------------------------------

def get_delivery(api, queue, id_):
    return api.callback.GetDelivery(bucket=bucket_of(queue), id=id_).delivery


def microseconds(value):
    return value.seconds * 1000000 + value.nanos // 1000


def test_a_delivery_tells_of_every_attempt(api, queue, receiver):
    receiver.answers = [500]
    api.set_callback(queue, receiver.url())
    job = run(api, queue)
    receiver.wait(2, seconds=15)
    listed, = eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))
    assert not listed.attempt_log, "lists stay short"
    found = get_delivery(api, queue, listed.id)
    assert (found.job_id, found.queue, found.attempts) == (job, queue, 2)
    first, second = found.attempt_log
    assert (first.number, first.http_status, first.error_class, bool(first.error_message)) == (1, 500, "status_5xx", True)
    assert (second.number, second.http_status, second.error_class, second.error_message) == (2, 200, "", "")
    reasons = api.callback.messages.NextAttemptReason
    assert first.next_attempt_reason == reasons.Value("NEXT_ATTEMPT_REASON_SCHEDULE") and not second.next_attempt_reason
    assert 3 < first.next_attempt_time.ToDatetime().timestamp() - first.start_time.ToDatetime().timestamp() < 30
    assert not second.HasField("next_attempt_time")
    assert first.start_time.ToDatetime() < second.start_time.ToDatetime()
    for attempt in (first, second):
        assert attempt.address == "127.0.0.1"
        assert not attempt.HasField("dns_duration"), "an address is not looked up"
        assert not attempt.HasField("tls_duration")
        assert 0 < microseconds(attempt.first_byte_duration) <= microseconds(attempt.total_duration) < 60000000
    assert first.HasField("connect_duration")


def test_the_reason_of_a_wait_is_told(api, queue, receiver):
    reasons = api.callback.messages.NextAttemptReason
    for seconds, reason in (("100", "RETRY_AFTER"), ("900000", "AGE_LIMIT")):
        receiver.answers = [(429, {"Retry-After": seconds})]
        api.set_callback(queue, receiver.url())
        job = run(api, queue)
        found, = eventually(lambda: [d for d in deliveries(api, queue, job_id=job) if d.attempts])
        attempt, = get_delivery(api, queue, found.id).attempt_log
        assert reasons.Name(attempt.next_attempt_reason) == "NEXT_ATTEMPT_REASON_" + reason
        assert attempt.next_attempt_time == found.next_attempt_time


def test_a_test_callback_answers_with_its_attempt(api, queue, receiver):
    receiver.status = 404
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, url=receiver.url()), update_mask=dict(paths=["url"]))
    delivery = api.callback.SendTestCallback(queue=queue).delivery
    attempt, = delivery.attempt_log
    assert (attempt.number, attempt.http_status, attempt.error_class) == (1, 404, "status_4xx")
    assert attempt.HasField("total_duration") and not attempt.HasField("next_attempt_time")


def test_a_delivery_of_another_bucket_or_none_is_not_found(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    run(api, queue)
    found, = eventually(lambda: deliveries(api, queue))
    with rejects("NOT_FOUND"):
        api.callback.GetDelivery(bucket="buckets/another", id=found.id)
    with rejects("NOT_FOUND"):
        get_delivery(api, queue, "cb_" + NO_JOB + "_TaskFinish_0")
    for bad in ("", "x", NO_JOB, "cb_" + "x" * 200):
        with rejects("INVALID_ARGUMENT", "id"):
            get_delivery(api, queue, bad)


def test_deliveries_are_filtered_by_error_class_and_time(api, queue, receiver):
    api.set_callback(queue, receiver.url(), schedule=[duration(600)])
    receiver.answers = [503, (429, {"Retry-After": "100"})]
    first = run(api, queue)
    eventually(lambda: [d for d in deliveries(api, queue, job_id=first) if d.attempts])
    between = time.time()
    second = run(api, queue)
    eventually(lambda: [d for d in deliveries(api, queue, job_id=second) if d.attempts])

    def jobs(**filters):
        return [d.job_id for d in deliveries(api, queue, **filters)]

    assert jobs(error_classes=["status_429"]) == [second] and jobs(error_classes=["status_5xx"]) == [first]
    assert jobs(error_classes=["status_5xx", "status_429"]) == [second, first] and jobs(error_classes=["dns"]) == []
    assert jobs(start_create_time=timestamp(between)) == [second] and jobs(end_create_time=timestamp(between)) == [first]
    with rejects("INVALID_ARGUMENT", "error_classes[0]"):
        jobs(error_classes=["status"])


# --- sending again, and new secrets ---------------------------------------------------------------------------------------------------------

def dead_delivery(api, queue, receiver, status=410):
    receiver.answers = [status]
    job = run(api, queue)
    found, = eventually(lambda: deliveries(api, queue, job_id=job, states=["DELIVERY_STATE_DEAD"]))
    return found


def test_a_dead_callback_is_sent_again_with_the_same_id_and_bytes(api, queue, receiver):
    api.set_callback(queue, receiver.url("/old"))
    dead = dead_delivery(api, queue, receiver)
    api.set_callback(queue, receiver.url("/new"))
    answer = api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[dead.id, "cb_none", dead.id])
    assert answer.redelivered_count == 1 and [r.code for r in answer.results] == [0, 5, 0] and answer.next_page_token == ""
    first, second = receiver.wait(2)
    assert (first.path, second.path) == ("/old", "/new") and first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == dead.id
    done, = eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))
    assert done.attempts == 2 and [a.number for a in get_delivery(api, queue, done.id).attempt_log] == [1, 2]


def test_a_delivered_callback_is_sent_again_by_id_and_a_waiting_one_at_once(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    run(api, queue)
    done, = eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))
    assert api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[done.id]).redelivered_count == 1
    receiver.wait(2)
    receiver.answers = [(429, {"Retry-After": "1000"})]
    job = run(api, queue)
    waiting, = eventually(lambda: [d for d in deliveries(api, queue, job_id=job) if d.attempts])
    assert api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[waiting.id]).redelivered_count == 1
    eventually(lambda: deliveries(api, queue, job_id=job, states=["DELIVERY_STATE_DELIVERED"]))


def test_the_schedule_begins_anew_for_what_is_sent_again(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    dead = dead_delivery(api, queue, receiver)
    receiver.answers = [500]
    api.set_callback(queue, receiver.url(), schedule=[duration(600), duration(3600)])
    api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[dead.id])
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts == 2])
    assert 400 < found.next_attempt_time.ToDatetime().timestamp() - found.last_attempt_time.ToDatetime().timestamp() < 800


def test_all_dead_callbacks_of_a_queue_are_sent_again_in_bounded_steps(api, queue, receiver):
    receiver.status = 410
    api.submit(queue, 300, callback=dict(url=receiver.url()))
    for _ in range(2):
        leased = api.lease(queue, 150)
        api.worker.FinishJobs(bucket=bucket_of(queue), jobs=[dict(lease=dict(job_id=l.job.id, fencing_token=l.fencing_token), success={})
                                                             for l in leased])
    receiver.wait(300, seconds=30)
    eventually(lambda: not deliveries(api, queue, states=["DELIVERY_STATE_SENDING", "DELIVERY_STATE_PENDING"]))
    receiver.status = 200
    api.set_callback(queue, receiver.url())
    filter_ = dict(queue=queue, error_classes=["gone"])
    assert api.callback.RedeliverCallbacks(bucket=bucket_of(queue), filter=dict(filter_, end_create_time=timestamp(1000))).redelivered_count == 0
    assert api.callback.RedeliverCallbacks(bucket=bucket_of(queue), filter=dict(queue=queue, error_classes=["dns"])).redelivered_count == 0
    first = api.callback.RedeliverCallbacks(bucket=bucket_of(queue), filter=filter_)
    assert first.redelivered_count == 100 and first.next_page_token
    counts, token = [], first.next_page_token
    while token:
        step = api.callback.RedeliverCallbacks(bucket=bucket_of(queue), filter=filter_, page_token=token)
        counts, token = counts + [step.redelivered_count], step.next_page_token
    assert sum(counts) == 200 and max(counts) <= 100
    receiver.wait(600, seconds=30)
    eventually(lambda: not deliveries(api, queue, states=["DELIVERY_STATE_SENDING", "DELIVERY_STATE_PENDING", "DELIVERY_STATE_DEAD"]))
    with rejects("INVALID_ARGUMENT", "page_token"):
        api.callback.RedeliverCallbacks(bucket=bucket_of(queue), filter=dict(queue=queue), page_token=first.next_page_token)


def test_what_cannot_be_sent_again_says_why(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, state="CALLBACK_RULE_STATE_OFF"), update_mask=dict(paths=["state"]))
    run(api, queue)
    suppressed, = eventually(lambda: deliveries(api, queue))
    test = api.callback.SendTestCallback(queue=queue).delivery
    answer = api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[suppressed.id, test.id])
    assert [r.code for r in answer.results] == [9, 9] and "suppressed" in answer.results[0].message and "test" in answer.results[1].message
    for bad, field in ((dict(), "ids"), (dict(ids=["x"]), "ids[0]"), (dict(ids=[test.id], filter=dict(queue=queue)), "filter"),
                       (dict(filter=dict(queue="buckets/other/queues/q")), "filter.queue")):
        with rejects("INVALID_ARGUMENT", field):
            api.callback.RedeliverCallbacks(bucket=bucket_of(queue), **bad)


def signers(request, secrets):
    """Which of the secrets have signed, in the order of the header."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    by_signature = {"v1," + base64.b64encode(hmac.new(base64.b64decode(s[6:]), signed, hashlib.sha256).digest()).decode(): s for s in secrets}
    return [by_signature[signature] for signature in request.headers["webhook-signature"].split(" ")]


def test_a_rotated_secret_signs_along_until_its_overlap_ends(api, queue, receiver):
    old = "whsec_" + base64.b64encode(b"o" * 32).decode()
    api.set_callback(queue, receiver.url(), secrets=[old])
    before = time.time()
    answer = api.callback.RotateSigningSecret(queue=queue, overlap=duration(8))
    new = answer.secret
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", new) and answer.rule.secret_count == 2 and not answer.rule.secrets
    assert before + 8 - 1 <= answer.rule.old_secrets_expire_time.ToSeconds() <= time.time() + 8 + 1
    run(api, queue)
    assert signers(receiver.wait(1)[0], [old, new]) == [new, old]
    eventually(lambda: time.time() > answer.rule.old_secrets_expire_time.ToNanoseconds() / 1e9, what="the overlap ends")
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert rule.secret_count == 1 and not rule.HasField("old_secrets_expire_time")
    run(api, queue)
    assert signers(receiver.wait(2)[1], [old, new]) == [new]
    newest = api.callback.RotateSigningSecret(queue=queue, overlap=duration(0)).secret
    assert newest != new
    run(api, queue)
    assert signers(receiver.wait(3)[2], [old, new, newest]) == [newest]


def test_a_rotation_that_would_make_more_than_five_secrets_is_refused_and_changes_nothing(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    secrets = [api.callback.RotateSigningSecret(queue=queue, overlap=duration(3600)).secret for _ in range(5)]
    before = api.callback.GetCallbackRule(queue=queue).rule
    assert len(set(secrets)) == 5 and before.secret_count == 5
    for overlap in (3600, 1):
        with rejects("FAILED_PRECONDITION") as seen:
            api.callback.RotateSigningSecret(queue=queue, overlap=duration(overlap))
        assert re.search(r"5 secrets sign.* ceases in 3[56]\d\d s.* overlap of 0 ", seen.message), seen.message
    assert api.callback.GetCallbackRule(queue=queue).rule == before
    run(api, queue)
    assert signers(receiver.wait(1)[0], secrets) == secrets[::-1]
    last = api.callback.RotateSigningSecret(queue=queue, overlap=duration(0)).secret
    run(api, queue)
    assert signers(receiver.wait(2)[1], [*secrets, last]) == [last]


def test_five_secrets_that_were_set_leave_no_room_until_an_overlap_of_0_ends_them(api, queue, receiver):
    api.set_callback(queue, receiver.url(), secrets=["whsec_" + base64.b64encode(bytes([k]) * 32).decode() for k in range(5)])
    with rejects("FAILED_PRECONDITION") as seen:
        api.callback.RotateSigningSecret(queue=queue)
    assert "5 secrets sign" in seen.message and "none of them ceases by itself" in seen.message
    assert api.callback.RotateSigningSecret(queue=queue, overlap=duration(0)).rule.secret_count == 1


def test_a_shorter_overlap_shortens_those_before_it_and_so_makes_room(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    for overlap in (3600, 3600, 3600, 3600, 1):
        if overlap == 1:
            assert api.callback.GetCallbackRule(queue=queue).rule.secret_count == 4
        api.callback.RotateSigningSecret(queue=queue, overlap=duration(overlap))
    eventually(lambda: api.callback.GetCallbackRule(queue=queue).rule.secret_count == 1)
    assert api.callback.RotateSigningSecret(queue=queue).rule.secret_count == 2


def test_rotation_names_what_is_wrong(api, queue):
    with rejects("INVALID_ARGUMENT", "overlap"):
        api.callback.RotateSigningSecret(queue=queue, overlap=duration(31 * 86400))
    with rejects("NOT_FOUND"):
        api.callback.RotateSigningSecret(queue=queue + "-none")


# --- the forms of the body ------------------------------------------------------------------------------------------------------------------

def set_format(api, queue, format_):
    rule = api.callback.UpdateCallbackRule(rule=dict(queue=queue, format=format_), update_mask=dict(paths=["format"])).rule
    assert api.callback.GetCallbackRule(queue=queue).rule.format == rule.format
    return rule


def test_a_rule_s_format_decides_the_body_and_its_type(api, queue, receiver):
    rule = api.set_callback(queue, receiver.url())
    assert rule.format == 1
    set_format(api, queue, "CALLBACK_FORMAT_XML_CURRENT")
    job = run(api, queue)
    request, = receiver.wait(1)
    assert request.headers["Content-Type"] == "application/xml"
    response = parse(request.body)
    assert response.names() == ["EventName", "JobsDetail"] and response["EventName"].text == "TaskFinish"
    assert response["JobsDetail"]["JobId"].text == job
    set_format(api, queue, "CALLBACK_FORMAT_JSON")
    job = run(api, queue, operation=dict(xml="<Output><Object>o.mp4</Object></Output>"), priority=3)
    request = receiver.wait(2)[1]
    assert request.headers["Content-Type"] == "application/json"
    body = json.loads(request.body)
    detail, = body["JobsDetail"]
    assert (body["EventName"], detail["JobId"], detail["State"], detail["Progress"]) == ("TaskFinish", job, "Success", 100)
    assert detail["Operation"] == dict(Output=dict(Object="o.mp4"), UserData="", JobLevel=3)
    api.callback.DeleteCallbackRule(queue=queue)
    assert api.callback.GetCallbackRule(queue=queue).rule.format == 1
    with rejects("INVALID_ARGUMENT", "rule.format"):
        set_format(api, queue, 9)


def test_a_job_s_own_callback_has_its_own_format(api, queue, receiver):
    api.set_callback(queue, receiver.url("/rule"))
    set_format(api, queue, "CALLBACK_FORMAT_XML_CURRENT")
    run(api, queue, callback=dict(url=receiver.url("/own")))
    assert parse(receiver.wait(1)[0].body).names() == ["JobsDetail", "NonExistJobIds"]
    run(api, queue, callback=dict(url=receiver.url("/own"), format="CALLBACK_FORMAT_JSON"))
    assert json.loads(receiver.wait(2)[1].body)["EventName"] == "TaskFinish"
    with rejects("INVALID_ARGUMENT", "job.callback.format"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T", callback=dict(none=True, format="CALLBACK_FORMAT_JSON")))


def test_the_sequence_counts_what_the_rule_sends_and_nothing_else(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    run(api, queue)
    run(api, queue, callback=dict(url=receiver.url("/own")))
    api.callback.SendTestCallback(queue=queue)
    state = lambda name: api.callback.UpdateCallbackRule(rule=dict(queue=queue, state=name), update_mask=dict(paths=["state"]))  # noqa: E731
    state("CALLBACK_RULE_STATE_OFF")
    run(api, queue)
    state("CALLBACK_RULE_STATE_ON")
    receiver.wait(3)
    receiver.answers = [500]
    run(api, queue)
    requests = receiver.wait(5, seconds=15)
    assert [r.headers.get("Ringback-Sequence") for r in sorted(requests, key=lambda r: r.time)] == ["1", None, None, "2", "2"]


# --- what a rule decides --------------------------------------------------------------------------------------------------------------------

def update_rule(api, queue, **fields):
    return api.callback.UpdateCallbackRule(rule=dict(queue=queue, **fields), update_mask=dict(paths=list(fields))).rule


def test_gone_switches_the_rule_off_and_says_why_and_what_waits_goes_on_when_it_is_on_again(api, queue, receiver):
    receiver.answers = [410]
    api.set_callback(queue, receiver.url())
    run(api, queue)
    rule = eventually(lambda: [r for r in [api.callback.GetCallbackRule(queue=queue).rule] if r.state == 2])[0]
    assert "410" in rule.off_reason
    run(api, queue)
    time.sleep(0.3)
    assert len(receiver.requests) == 1
    rule = update_rule(api, queue, state="CALLBACK_RULE_STATE_ON")
    assert rule.state == 1 and rule.off_reason == ""
    run(api, queue)
    receiver.wait(2)
    # A job's own URL that is gone says nothing of the rule.
    receiver.answers = [410]
    run(api, queue, callback=dict(url=receiver.url("/own")))
    eventually(lambda: len(deliveries(api, queue, states=["DELIVERY_STATE_DEAD"])) == 2)
    assert api.callback.GetCallbackRule(queue=queue).rule.state == 1


def test_waiting_deliveries_are_parked_while_the_rule_is_off(api, queue, receiver):
    receiver.answers = [500]
    api.set_callback(queue, receiver.url(), schedule=[duration(7)])
    run(api, queue)
    eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    update_rule(api, queue, state="CALLBACK_RULE_STATE_OFF")
    time.sleep(9)
    assert len(receiver.requests) == 1
    update_rule(api, queue, state="CALLBACK_RULE_STATE_ON")
    receiver.wait(2)
    eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))


def test_a_rule_has_its_own_schedule_and_age(api, queue, receiver):
    receiver.status = 500
    assert api.set_callback(queue, receiver.url()).max_age.seconds == 72 * 3600
    rule = api.set_callback(queue, receiver.url(), schedule=[duration(1), duration(9)], max_age=duration(60))
    assert [w.seconds for w in rule.schedule] == [1, 9] and rule.max_age.seconds == 60
    run(api, queue)
    first, second, third, fourth = receiver.wait(4, seconds=25)
    waits = [b.time - a.time for a, b in ((first, second), (second, third), (third, fourth))]
    assert 0.7 < waits[0] < 7 < min(waits[1:]) and max(waits[1:]) < 20, waits
    assert not update_rule(api, queue, schedule=[]).schedule
    receiver.answers = [(429, {"Retry-After": "7000"})]
    job = run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue, job_id=job) if d.attempts])
    assert 50 < found.next_attempt_time.ToDatetime().timestamp() - found.create_time.ToDatetime().timestamp() <= 60.1
    for bad, field in ((dict(schedule=[duration(0)]), "rule.schedule[0]"), (dict(schedule=[duration(1)] * 21), "rule.schedule"),
                       (dict(max_age=duration(1)), "rule.max_age"), (dict(concurrency=257), "rule.concurrency")):
        with rejects("INVALID_ARGUMENT", field):
            update_rule(api, queue, **bad)


def test_a_rule_s_headers_are_sent_along_and_their_values_not_shown(api, queue, receiver):
    headers = [dict(name="Authorization", value="Bearer s3cret"), dict(name="X-One", value="1")]
    rule = api.set_callback(queue, receiver.url(), headers=headers)
    assert [(h.name, h.value) for h in rule.headers] == [("Authorization", ""), ("X-One", "")]
    run(api, queue)
    request, = receiver.wait(1)
    assert (request.headers["Authorization"], request.headers["X-One"]) == ("Bearer s3cret", "1")
    run(api, queue, callback=dict(url=receiver.url("/own")))
    assert "Authorization" not in receiver.wait(2)[1].headers, "a job's own URL inherits nothing"
    for name in ("", "a b", "x" * 65, "a:b", "Host", "CONTENT-TYPE", "webhook-id", "Ringback-Sequence", "transfer-encoding", "Proxy-Authorization"):
        with rejects("INVALID_ARGUMENT", "rule.headers[0].name"):
            update_rule(api, queue, headers=[dict(name=name, value="v")])
    for value in ("", "a\nb", "a\r\nX: y", "\x00", "\x7f", "\t", "v" * 1025):
        with rejects("INVALID_ARGUMENT", "rule.headers[0].value"):
            update_rule(api, queue, headers=[dict(name="X", value=value)])
    with rejects("INVALID_ARGUMENT", "rule.headers[1].name"):
        update_rule(api, queue, headers=[dict(name="X", value="1"), dict(name="x", value="2")])


def test_a_rule_s_concurrency_is_kept(api, queue, receiver):
    state = dict(now=0, most=0)
    lock = threading.Lock()

    def slow(handler):
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        time.sleep(0.05)
        with lock:
            state["now"] -= 1
        handler.send_response(204)
        handler.end_headers()

    receiver.status = slow
    assert api.set_callback(queue, receiver.url(), concurrency=2).concurrency == 2
    for _ in range(2):
        api.submit(queue, 15)
        for leased in api.lease(queue, 15):
            api.finish(leased)
    receiver.wait(30, seconds=20)
    assert state["most"] == 2
    assert update_rule(api, queue, concurrency=0).concurrency == 32
