"""Callbacks as their receiver sees them. The XML is read with expat, which shares nothing with the writer."""
import base64
import hashlib
import hmac
import threading
import time
import xml.parsers.expat

import pytest

from harness import NO_JOB, bucket_of, duration, eventually, rejects, timestamp


class Element:
    def __init__(self, name, attributes):
        self.name, self.attributes, self.children, self.text = name, attributes, [], ""

    def __getitem__(self, name):
        found = [c for c in self.children if c.name == name]
        assert len(found) == 1, f"{len(found)} elements {name} in {self.name}"
        return found[0]

    def get(self, name):
        return next((c for c in self.children if c.name == name), None)

    def names(self):
        return [c.name for c in self.children]


def parse(body):
    parser = xml.parsers.expat.ParserCreate("UTF-8")
    top = Element("", {})
    stack = [top]

    def start(name, attributes):
        element = Element(name, attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def refuse(*_):
        raise AssertionError("a DOCTYPE in a callback")

    parser.StartElementHandler, parser.EndElementHandler = start, lambda name: stack.pop()
    parser.CharacterDataHandler = lambda text: setattr(stack[-1], "text", stack[-1].text + text)
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(body, True)
    return top.children[0]


def run(api, queue, outcome=None, **spec):
    """One job from submit to end; answers with its id."""
    job = api.job.SubmitJob(queue=queue, job=dict(dict(tag="Transcode"), **spec)).job.id
    leased, = api.lease(queue)
    assert leased.job.id == job
    assert api.finish(leased, **(outcome or {})).status.code == 0
    return job


def deliveries(api, queue, **filters):
    return list(api.callback.ListDeliveries(queue=queue, page_size=100, **filters).deliveries)


def delivery_state(api, value):
    return api.callback.messages.DeliveryState.Name(value).replace("DELIVERY_STATE_", "")


def test_every_state_of_an_end_calls_back_once(api, bucket, receiver):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1))
    api.set_callback(queue, receiver.url())
    ids = api.submit(queue, 3)
    good, bad, cancelled = api.lease(queue, 3)
    api.finish(good)
    api.finish(good)
    api.finish(bad, failure={})
    for _ in range(2):
        api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[cancelled.job.id])
    seen = [parse(r.body)["JobsDetail"] for r in receiver.wait(3)]
    assert {d["JobId"].text: d["State"].text for d in seen} == dict(zip(ids, ("Success", "Failed", "Cancel")))
    time.sleep(0.5)
    assert len(receiver.requests) == 3


def test_a_retried_job_calls_back_again_under_another_delivery(api, bucket, receiver):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1))
    api.set_callback(queue, receiver.url())
    job = run(api, queue, outcome=dict(failure={}))
    receiver.wait(1)
    eventually(lambda: api.job.RetryJobs(bucket=f"buckets/{bucket}", job_ids=[job]).results[0].code == 0)
    api.finish(api.lease(queue)[0])
    first, second = receiver.wait(2)
    assert [parse(r.body)["JobsDetail"]["State"].text for r in (first, second)] == ["Failed", "Success"]
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    assert all(r.headers["webhook-id"].startswith(f"cb_{job}_") for r in (first, second))


def test_a_rule_that_is_off_sends_nothing_and_records_the_event_as_suppressed(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, state="CALLBACK_RULE_STATE_OFF"), update_mask=dict(paths=["state"]))
    job = run(api, queue)
    found, = eventually(lambda: deliveries(api, queue))
    assert found.job_id == job and delivery_state(api, found.state) == "SUPPRESSED" and found.attempts == 0
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, state="CALLBACK_RULE_STATE_ON"), update_mask=dict(paths=["state"]))
    later = run(api, queue)
    assert parse(receiver.wait(1)[0].body)["JobsDetail"]["JobId"].text == later
    time.sleep(0.3)
    assert len(receiver.requests) == 1


def test_a_job_s_own_url_is_called_instead_and_unsigned_even_when_the_rule_is_off(api, queue, receiver):
    api.set_callback(queue, receiver.url("/rule"), secrets=["whsec_" + base64.b64encode(b"s" * 32).decode()])
    own = dict(url=receiver.url("/own"))
    run(api, queue, callback=own)
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, state="CALLBACK_RULE_STATE_OFF"), update_mask=dict(paths=["state"]))
    run(api, queue, callback=own)
    requests = receiver.wait(2)
    assert [r.path for r in requests] == ["/own", "/own"]
    assert all("webhook-signature" not in r.headers for r in requests)


def test_a_job_that_wants_no_callback_gets_none(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    run(api, queue, callback=dict(none=True))
    run(api, queue)
    receiver.wait(1)
    time.sleep(0.3)
    assert len(receiver.requests) == 1
    with rejects("INVALID_ARGUMENT"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T", callback=dict(none=False)))


def test_a_rule_with_secrets_signs_as_standard_webhooks_say(api, queue, receiver):
    secrets = [bytes([n]) * 32 for n in (1, 2)]
    rule = api.set_callback(queue, receiver.url(), secrets=["whsec_" + base64.b64encode(s).decode() for s in secrets])
    assert rule.secret_count == 2 and not rule.secrets
    assert not api.callback.GetCallbackRule(queue=queue).rule.secrets
    run(api, queue)
    request, = receiver.wait(1)
    headers = request.headers
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    wanted = {"v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets}
    assert set(headers["webhook-signature"].split(" ")) == wanted


def test_an_attempt_that_fails_is_repeated_with_the_same_id_and_the_same_bytes(api, queue, receiver):
    receiver.answers = [500]
    api.set_callback(queue, receiver.url(), schedule=[duration(8)])
    run(api, queue)
    receiver.wait(1)
    pending, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts == 1])
    assert delivery_state(api, pending.state) == "PENDING" and pending.http_status == 500 and pending.error_class == "status_5xx"
    assert pending.error_message and pending.HasField("next_attempt_time")
    first, second = receiver.wait(2, seconds=15)
    assert first.body == second.body and first.headers["webhook-id"] == second.headers["webhook-id"] == pending.id
    assert 6 < second.time - first.time < 30, "8 s, give or take a fifth"
    done, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts == 2])
    assert delivery_state(api, done.state) == "DELIVERED" and done.http_status == 200 and done.error_class == ""
    assert not done.HasField("next_attempt_time")


def test_the_delivery_of_a_callback_can_be_read(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    job = run(api, queue)
    found, = eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))
    assert (found.job_id, found.queue, found.url, found.attempts) == (job, queue, receiver.url(), 1)
    assert found.id == receiver.requests[0].headers["webhook-id"]
    assert found.HasField("create_time") and found.HasField("last_attempt_time") and found.HasField("last_attempt_duration")
    assert deliveries(api, queue, job_id=job) == [found]
    assert deliveries(api, queue, job_id=NO_JOB) == []
    assert deliveries(api, queue, states=["DELIVERY_STATE_DEAD"]) == []


def test_deliveries_are_listed_newest_first_page_after_page(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    ids = api.submit(queue, 25)
    for leased in api.lease(queue, 25):
        api.finish(leased)
    receiver.wait(25)
    seen, token = [], ""
    while True:
        page = api.callback.ListDeliveries(queue=queue, page_size=4, page_token=token)
        seen, token = seen + [d.job_id for d in page.deliveries], page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(ids) and len(seen) == 25
    assert seen[0] == ids[-1] and seen[-1] == ids[0]


@pytest.mark.parametrize("status,error_class", [(410, "gone"), (301, "redirect"), (302, "redirect"), (404, "status_4xx"), (429, "status_429"),
                                                (503, "status_5xx")])
def test_a_receiver_s_refusal_is_told_by_its_class(api, queue, receiver, status, error_class):
    receiver.status = (status, {"Location": receiver.url("/elsewhere")})
    api.set_callback(queue, receiver.url(), schedule=[duration(600)])
    run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    assert (found.error_class, found.http_status) == (error_class, status)
    assert delivery_state(api, found.state) == ("DEAD" if status == 410 else "PENDING")
    assert all(r.path == "/callback" for r in receiver.requests), "a redirect is never followed"


def test_every_2xx_is_a_success(api, queue, receiver):
    receiver.answers = [201, 202, 204, 299]
    api.set_callback(queue, receiver.url())
    for _ in range(4):
        run(api, queue)
    eventually(lambda: len(deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"])) == 4)


def test_a_receiver_that_hangs_times_out_and_holds_nobody_else_up(api, bucket, receiver):
    slow, quick = api.make_queue(bucket, "slow"), api.make_queue(bucket, "quick")
    api.set_callback(slow, receiver.url("/slow"), timeout=duration(60))
    api.set_callback(quick, receiver.url("/quick"))
    released = threading.Event()

    def hang(handler):
        released.wait(300)
        handler.close_connection = True

    receiver.answers = [hang]
    run(api, slow)
    receiver.wait(1, path="/slow")
    run(api, quick)
    receiver.wait(1, path="/quick", seconds=5)
    assert [d.attempts for d in deliveries(api, slow)] == [0], "the first one hangs still"
    api.set_callback(slow, receiver.url("/slow"), timeout=duration(1), schedule=[duration(600)])
    receiver.answers = [hang]
    job = run(api, slow)
    found, = eventually(lambda: [d for d in deliveries(api, slow, job_id=job) if d.attempts])
    assert found.error_class == "timeout" and found.http_status == 0
    released.set()


def test_a_receiver_that_is_not_there_is_told_and_tried_again(api, queue, receiver):
    from harness import free_port
    api.set_callback(queue, f"http://127.0.0.1:{free_port()}/", schedule=[duration(600)])
    run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    assert found.error_class == "connect_refused" and delivery_state(api, found.state) == "PENDING"


def test_an_endless_answer_is_cut_off(api, queue, receiver):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x" * 65536)

    receiver.status = endless
    api.set_callback(queue, receiver.url(), schedule=[duration(600)])
    run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    assert found.error_class in ("response_too_large", "") and found.attempts == 1


def test_retry_after_is_honoured(api, queue, receiver):
    receiver.answers = [(429, {"Retry-After": "100"})]
    api.set_callback(queue, receiver.url())
    run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    assert 60 < found.next_attempt_time.seconds - time.time() < 130


@pytest.mark.parametrize("url", [
    "http://10.0.0.1/", "http://192.168.1.1:8080/x", "http://169.254.169.254/latest", "http://0x0a.1/", "http://[::1]:80/", "http://[fe80::1]/",
    "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::a00:1]/", "http://167772161/", "http://0/", "http://224.0.0.1/"])
def test_a_rule_for_an_address_that_is_not_allowed_is_refused(api, queue, url):
    with rejects("INVALID_ARGUMENT", "rule.url"):
        api.set_callback(queue, url)


@pytest.mark.parametrize("url", ["", "ftp://example.com/", "http://", "//example.com/", "example.com", "http://user@example.com/",
                                 "http://user:pass@127.0.0.1/", "http://exa mple.com/", "http://127.0.0.1:99999/", "http://127.0.0.1/\r\nX: y",
                                 "file:///etc/passwd", "http://127.0.0.1:0x50/"])
def test_what_is_no_url_is_refused(api, queue, url):
    with rejects("INVALID_ARGUMENT" if url else "FAILED_PRECONDITION"):
        api.set_callback(queue, url)
    if url:
        with rejects("INVALID_ARGUMENT", "job.callback.url"):
            api.job.SubmitJob(queue=queue, job=dict(tag="T", callback=dict(url=url)))


def test_without_leave_loopback_is_never_dialled(start_server, receiver, bucket):
    server = start_server("--callback-allow", "198.51.100.0/24")
    api = server.api
    queue = api.make_queue(bucket)
    with rejects("INVALID_ARGUMENT", "rule.url"):
        api.set_callback(queue, receiver.url())
    # A name is judged when it is dialled.
    api.set_callback(queue, receiver.url().replace("127.0.0.1", "localhost"))
    run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    assert found.error_class == "blocked_address" and delivery_state(api, found.state) == "DEAD"
    assert receiver.requests == []


def test_a_test_callback_is_sent_once_and_tells_what_came_of_it(api, queue, receiver):
    with rejects("FAILED_PRECONDITION"):
        api.callback.SendTestCallback(queue=queue)
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, url=receiver.url()), update_mask=dict(paths=["url"]))
    delivery = api.callback.SendTestCallback(queue=queue).delivery
    assert delivery_state(api, delivery.state) == "DELIVERED" and delivery.http_status == 200 and delivery.attempts == 1
    detail = parse(receiver.wait(1)[0].body)["JobsDetail"]
    assert detail["State"].text == "Success"
    receiver.status = 500
    delivery = api.callback.SendTestCallback(queue=queue).delivery
    assert delivery_state(api, delivery.state) == "DEAD" and delivery.http_status == 500
    time.sleep(0.3)
    assert len(receiver.requests) == 2


def test_a_new_rule_is_off_and_empty_and_deleting_it_makes_it_so_again(api, queue, receiver):
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert rule.queue == queue and rule.url == "" and rule.state == 2 and not rule.HasField("update_time") and rule.secret_count == 0
    set_rule = api.set_callback(queue, receiver.url(), timeout=duration(3))
    assert set_rule.state == 1 and set_rule.HasField("update_time") and set_rule.timeout.seconds == 3 and set_rule.etag
    assert api.callback.GetCallbackRule(queue=queue).rule == set_rule
    with rejects("ABORTED"):
        api.callback.UpdateCallbackRule(rule=dict(queue=queue, etag="old", url=receiver.url("/2")), update_mask=dict(paths=["url"]))
    for _ in range(2):
        api.callback.DeleteCallbackRule(queue=queue)
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert (rule.url, rule.state, rule.secret_count) == ("", 2, 0)
    with rejects("FAILED_PRECONDITION"):
        api.callback.UpdateCallbackRule(rule=dict(queue=queue, state="CALLBACK_RULE_STATE_ON"), update_mask=dict(paths=["state"]))


def test_rules_of_unknown_queues_are_not_found(api, bucket):
    queue = f"buckets/{bucket}/queues/none"
    for call in (api.callback.GetCallbackRule, api.callback.DeleteCallbackRule, api.callback.SendTestCallback, api.callback.ListDeliveries):
        with rejects("NOT_FOUND"):
            call(queue=queue)
    with rejects("NOT_FOUND"):
        api.set_callback(queue, "http://127.0.0.1/")


def test_a_job_that_has_ended_stays_until_its_callback_is_rendered_and_the_retry_of_an_unrendered_one_waits(api, bucket, receiver):
    queue = api.make_queue(bucket, retention=dict(max_age=duration(1)))
    api.set_callback(queue, receiver.url())
    job = run(api, queue)
    receiver.wait(1)
    eventually(lambda: api.get(job, queue) is None, 15)


def test_a_traceparent_goes_with_the_callback(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    run(api, queue, traceparent=trace)
    assert receiver.wait(1)[0].headers["traceparent"] == trace


def test_a_queue_with_an_open_delivery_is_deleted_only_by_force(api, queue, receiver):
    receiver.status = 500
    api.set_callback(queue, receiver.url(), schedule=[duration(7)])
    run(api, queue)
    eventually(lambda: [d for d in deliveries(api, queue) if d.attempts])
    with rejects("FAILED_PRECONDITION"):
        api.queue.DeleteQueue(name=queue)
    api.queue.DeleteQueue(name=queue, force=True)
    count = len(receiver.requests)
    time.sleep(9)
    assert len(receiver.requests) == count


def test_callbacks_of_many_jobs_all_arrive_once(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    ids = api.submit(queue, 500)
    for _ in range(2):
        leased = api.lease(queue, 250)
        api.worker.FinishJobs(bucket=bucket_of(queue), jobs=[dict(lease=dict(job_id=l.job.id, fencing_token=l.fencing_token), success={})
                                                             for l in leased])
    seen = [parse(r.body)["JobsDetail"]["JobId"].text for r in receiver.wait(500, seconds=30)]
    assert sorted(seen) == sorted(ids)


def test_an_expired_job_calls_back(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    api.submit(queue, expire_time=timestamp(time.time() + 7))
    detail = parse(receiver.wait(1)[0].body)["JobsDetail"]
    assert (detail["State"].text, detail["Code"].text, detail["StartTime"].text) == ("Failed", "Expired", "-")


def test_no_answer_of_the_api_carries_a_secret(api, queue):
    secret = "whsec_" + base64.b64encode(b"q" * 24).decode()
    api.callback.UpdateCallbackRule(rule=dict(queue=queue, secrets=[secret]), update_mask=dict(paths=["secrets"]))
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert secret not in str(rule) and rule.secret_count == 1
    for bad in ("", "whsec_", "nope", "whsec_" + base64.b64encode(b"q" * 23).decode(), "whsec_" + base64.b64encode(b"q" * 65).decode(), "whsec_!!!!"):
        with rejects("INVALID_ARGUMENT") as seen:
            api.callback.UpdateCallbackRule(rule=dict(queue=queue, secrets=[bad]), update_mask=dict(paths=["secrets"]))
        assert not bad or bad == "whsec_" or bad not in (seen.message or ""), "a secret is not repeated in an error"


@pytest.mark.parametrize("url", ["http://10.1.2.3/", "http://169.254.169.254/latest/", "http://[::ffff:10.0.0.1]/", "http://0x0a000001/"])
def test_a_job_s_own_url_with_a_denied_address_is_refused_at_the_submit(api, queue, url):
    with rejects("INVALID_ARGUMENT", "job.callback.url"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T", callback=dict(url=url)))
