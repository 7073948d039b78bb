"""A rule that is switched off: how many attempts were still under way, waiting for them, and that nothing is sent afterwards."""
import threading
import time

from harness import SLOW, bucket_of, duration, eventually, rejects
from test_callbacks import deliveries, run
from test_tool import tool  # noqa: F401  (a fixture)

OFF = "CALLBACK_RULE_STATE_OFF"


def switch(api, queue, state=OFF, **fields):
    return api.callback.UpdateCallbackRule(rule=dict(queue=queue, state=state), update_mask=dict(paths=["state"]), **fields).rule


class Gate:
    """An answer that is given when the gate is opened."""

    def __init__(self):
        self.open = threading.Event()

    def __call__(self, handler):
        self.open.wait(120)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


def hold(api, queue, receiver, **fields):
    """A callback that is under way until the gate is opened."""
    gate, before = Gate(), len(receiver.requests)
    receiver.answers = [gate]
    api.set_callback(queue, receiver.url(), **fields)
    run(api, queue)
    receiver.wait(before + 1)
    return gate


def test_switching_off_answers_with_what_is_under_way_and_waits_for_it_on_request(api, queue, receiver):
    gate = hold(api, queue, receiver)
    rule = switch(api, queue)
    assert (rule.state, rule.in_flight_count) == (2, 1)
    assert api.callback.GetCallbackRule(queue=queue).rule.in_flight_count == 1
    took = []
    for _ in range(3):  # a slow moment of the machine is not to be taken for the look
        answers = []
        waiting = threading.Thread(target=lambda: answers.append((switch(api, queue, wait_drained=duration(60), timeout=120), time.monotonic())))
        waiting.start()
        time.sleep(0.5)
        assert not answers
        opened = time.monotonic()
        gate.open.set()
        waiting.join()
        (rule, answered), = answers
        assert (rule.state, rule.in_flight_count) == (2, 0)
        took.append(answered - opened)
        assert deliveries(api, queue)[0].state == 3
        gate = hold(api, queue, receiver)
    gate.open.set()
    assert min(took) < 1.3, "it is woken, not found by the look every two seconds"


def test_waiting_ends_with_its_time_the_caller_s_deadline_or_a_new_epoch(api, queue, receiver):
    gate = hold(api, queue, receiver)
    for limits in (dict(wait_drained=duration(1)), dict(wait_drained=duration(60), timeout=8)):
        began = time.monotonic()
        assert switch(api, queue, **limits).in_flight_count == 1
        assert 0.7 < time.monotonic() - began < 30 * SLOW
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(switch(api, queue, wait_drained=duration(60), timeout=120)))
    waiting.start()
    time.sleep(0.3)
    epoch = switch(api, queue, "CALLBACK_RULE_STATE_ON").epoch
    waiting.join()
    assert answers[0].state == 1 and answers[0].epoch == epoch and answers[0].in_flight_count == 1
    gate.open.set()


def test_nothing_waits_where_nothing_is_under_way_or_the_rule_is_not_switched_off(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    began = time.monotonic()
    assert switch(api, queue, wait_drained=duration(100), timeout=60).in_flight_count == 0
    assert time.monotonic() - began < 40
    for bad in (lambda: switch(api, queue, "CALLBACK_RULE_STATE_ON", wait_drained=duration(1)),
                lambda: switch(api, queue, wait_drained=duration(121)),
                lambda: api.callback.UpdateCallbackRule(rule=dict(queue=queue, url=receiver.url()), update_mask=dict(paths=["url"]),
                                                        wait_drained=duration(1))):
        with rejects("INVALID_ARGUMENT", "wait_drained"):
            bad()


def test_no_request_begins_after_the_rule_was_reported_drained(api, queue, receiver):
    """Jobs end all the time while the rule is switched off and on."""
    url = receiver.url()
    api.set_callback(queue, url)
    stop, ended = threading.Event(), []

    def end_jobs():
        while not stop.is_set():
            ids = api.submit(queue, 5)
            api.job.CancelJobs(bucket=bucket_of(queue), job_ids=ids)
            ended.extend(ids)

    worker = threading.Thread(target=end_jobs)
    worker.start()
    try:
        for _ in range(60):
            rule = switch(api, queue, wait_drained=duration(30), timeout=60)
            assert (rule.state, rule.in_flight_count) == (2, 0)
            before = len(receiver.requests)
            time.sleep(0.03)
            assert len(receiver.requests) == before
            switch(api, queue, "CALLBACK_RULE_STATE_ON")
            time.sleep(0.02)
    finally:
        stop.set()
        worker.join()
    eventually(lambda: not deliveries(api, queue, states=["DELIVERY_STATE_SENDING", "DELIVERY_STATE_PENDING"]), seconds=30)
    sent = [request.headers["webhook-id"] for request in receiver.requests]
    assert len(sent) == len(set(sent)) and 0 < len(sent) < len(ended)


def test_the_tool_waits_for_it(tool, api, bucket, queue, receiver):  # noqa: F811
    gate = hold(api, queue, receiver)
    name = queue.rsplit("/", 1)[1]
    shown = tool("callback", "show", name).out
    assert "In flight" in shown and "Epoch" in shown
    assert tool("callback", "off", name, "--json").json["rule"]["inFlightCount"] == 1
    tool("callback", "off", name, "--wait", "--wait-timeout", "500ms", expect=4)
    threading.Timer(0.5, gate.open.set).start()
    assert tool("callback", "off", name, "--wait", "--json").json["rule"].get("inFlightCount", 0) == 0
    tool("callback", "off", name, "--wait-timeout", "1s", expect=2)
    tool("callback", "off", name, "--wait", "--delete", expect=2)
