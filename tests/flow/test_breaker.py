"""The breaker of an endpoint: first the function library on a clock of the test's own, then the service."""
import time

import pytest

from harness import bucket_of, duration, eventually
from invariants import check
from outbox_model import DEAD, DELIVERED, PENDING, Outbox, freeze, pack_job, settle
from store_model import OK, claims_of
from test_callbacks import deliveries, run
from test_deliveries import get_delivery, update_rule
from test_store_model import library  # noqa: F401  (a fixture)
from test_tool import tool  # noqa: F401  (a fixture)

RETRY_AFTER = 2
OPENED, CLOSED = 1, 2


class Endpoint:
    """A rule's endpoint with deliveries that wait for it."""

    def __init__(self, library, count=60):  # noqa: F811
        self.library, self.outbox = library, Outbox(library, 1)
        library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/", "to", 1000)
        answer = library.call("submit", "a", "q", 1, "", b"0" * 8, *[pack_job(0, 0)] * count)
        ids = [bytes([64]) + answer[6].to_bytes(5, "big") + answer[7].to_bytes(6, "big") + (answer[8] + k).to_bytes(4, "big") for k in range(count)]
        for k in range(0, count, 50):
            library.call("cancel", "a", "i", *ids[k:k + 50])

    def claim(self, count=1):
        """Ids and tokens; a group that had its turn has the next one a little later."""
        self.library.advance(1)
        return [(claim.id, claim.token) for claim in claims_of(self.library.call("claim", count, 2000))]

    def settle(self, claim, class_="", state=None, wait=3600000, reason=1):
        state = state or (PENDING if class_ else DELIVERED)
        next_ = self.library.now + wait if state == PENDING else 0
        answer = settle(self.library, *claim, state, 0, class_, "", next_, reason=reason)
        assert answer[0] == OK
        return answer[1]

    def attempt(self, class_="", **settings):
        claim, = self.claim()
        return self.settle(claim, class_, **settings)

    def open_for(self):
        """Milliseconds; 0: closed."""
        until = self.library.call("rule_get", "a", "q")[18]
        return until and until - self.library.now

    def opened(self):
        """Opened by five failures in a row."""
        assert [self.attempt("timeout") for _ in range(5)] == [0, 0, 0, 0, OPENED]
        return self


def test_five_failures_in_a_row_open_it_and_four_do_not(library):  # noqa: F811
    endpoint = Endpoint(library)
    for _ in range(3):
        assert [endpoint.attempt(class_) for class_ in ("timeout", "status_5xx", "dns", "status_429", "")] == [0] * 5
    library.advance(70000)
    endpoint.opened()
    assert endpoint.open_for() == 30000 and endpoint.claim(10) == []


def test_half_of_twenty_results_within_a_minute_open_it(library):  # noqa: F811
    endpoint = Endpoint(library, 120)
    for _ in range(30):
        endpoint.attempt()
    results = [endpoint.attempt(class_) for _ in range(10) for class_ in ("reset", "")]
    assert results == [0] * 20 and endpoint.open_for() == 0
    assert endpoint.attempt("reset") == OPENED and endpoint.open_for() == 30000
    library.call("rule_update", "a", "q", "", "on", 0)
    library.call("rule_update", "a", "q", "", "on", 1)
    for _ in range(4):
        assert [endpoint.attempt(class_) for _ in range(4) for class_ in ("reset", "")] == [0] * 8, "what is older than a minute does not count"
        library.advance(61000)


def test_it_is_open_for_twice_as_long_after_each_failed_probe_up_to_fifteen_minutes(library):  # noqa: F811
    endpoint = Endpoint(library).opened()
    for seconds in (60, 120, 240, 480, 900, 900):
        library.advance(endpoint.open_for() - 10)
        assert endpoint.claim(10) == []
        library.advance(10)
        claim, = endpoint.claim(10)
        assert endpoint.claim(10) == [], "there is one probe"
        assert endpoint.settle(claim, "connect_refused") == OPENED
        assert endpoint.open_for() == seconds * 1000
    library.advance(900000)
    probe, = endpoint.claim(10)
    assert endpoint.settle(probe) == CLOSED
    assert endpoint.open_for() == 0 and len(endpoint.claim(10)) > 1
    library.advance(5000)
    while library.call("sweep")[1]:
        pass
    assert endpoint.opened().open_for() == 30000, "it begins anew"


def test_a_probe_whose_dispatcher_is_gone_is_followed_by_another(library):  # noqa: F811
    endpoint = Endpoint(library).opened()
    library.advance(30000)
    first, = endpoint.claim(10)
    library.advance(2900)
    assert endpoint.claim(10) == []
    library.advance(200)
    while library.call("sweep")[1]:
        pass
    second, = endpoint.claim(10)
    assert second[1] != first[1] and endpoint.claim(10) == []
    assert endpoint.settle(second, "timeout") == OPENED and endpoint.open_for() == 60000


def test_what_was_under_way_when_it_opened_counts_only_if_it_arrives(library):  # noqa: F811
    endpoint = Endpoint(library)
    claims = endpoint.claim(8)
    assert [endpoint.settle(claim, "timeout") for claim in claims[:7]] == [0, 0, 0, 0, OPENED, 0, 0]
    assert endpoint.open_for() == 30000
    assert endpoint.settle(claims[7]) == CLOSED and endpoint.open_for() == 0


def test_what_is_not_the_endpoint_s_fault_does_not_count(library):  # noqa: F811
    endpoint = Endpoint(library)
    for class_ in ("cancelled", "blocked_address"):
        assert [endpoint.attempt(class_, state=DEAD) for _ in range(10)] == [0] * 10
    endpoint.opened()
    library.advance(30000)
    assert endpoint.attempt("cancelled") == 0
    assert endpoint.attempt("timeout") == OPENED, "another probe comes at once where nothing was sent"


def test_retry_after_lengthens_it(library):  # noqa: F811
    for wait, seconds in ((100000, 100), (10000, 30), (7200000, 900)):
        endpoint = Endpoint(library) if wait == 100000 else endpoint
        library.call("rule_update", "a", "q", "", "on", 0)
        library.call("rule_update", "a", "q", "", "on", 1)
        for _ in range(4):
            endpoint.attempt("status_429", wait=wait, reason=RETRY_AFTER)
        assert endpoint.open_for() == 0
        assert endpoint.attempt("status_429", wait=wait, reason=RETRY_AFTER) == OPENED
        assert endpoint.open_for() == seconds * 1000


@pytest.mark.parametrize("change", [("on", 0), ("url", "http://y/")])
def test_switching_the_rule_or_another_url_closes_it(library, change):  # noqa: F811
    endpoint = Endpoint(library).opened()
    library.call("rule_update", "a", "q", "", *change)
    library.call("rule_update", "a", "q", "", "on", 1)
    assert endpoint.open_for() == 0 and len(endpoint.claim(5)) == 5


# --- the service ----------------------------------------------------------------------------------------------------------------------------

def states(library, *classes):  # noqa: F811
    """State, class and message of the rule's deliveries, the latest first."""
    found, position = [], b""
    while True:
        answer = library.call("delivery_list", "a", "q", 0, "", "".join(f" {class_} " for class_ in classes), 0, 0, 100, position)
        found, position = found + [(values[2], values[6].decode(), values[7].decode()) for values in answer[2]], answer[1]
        if not position:
            return found


def test_what_gets_past_its_age_behind_an_open_breaker_is_given_up_without_an_attempt(library):  # noqa: F811
    endpoint = Endpoint(library, 130)
    library.call("rule_update", "a", "q", "", "ma", 60000)
    endpoint.opened()
    library.advance(30000)
    probe, = endpoint.claim(10)
    endpoint.settle(probe, "timeout", wait=5000)
    assert not [one for one in states(library) if one[0] == DEAD] and endpoint.open_for() == 60000
    due = library.call("claim", 10, 2000)[1]
    assert 29000 <= due - library.now <= 30001, "it looks again when the first gets past its age"
    library.advance(due - library.now)
    ended = [library.call("claim", 10, 2000)[3]]
    while ended[-1]:
        library.advance(1)
        answer = library.call("claim", 10, 2000)
        assert answer[2] == []
        ended.append(answer[3])
    # Five wait for an hour, each of them having been tried; the sixth, the probe, has been due and is as old as the others.
    assert ended == [50, 50, 25, 0] and endpoint.open_for() > 0
    dead = [one for one in states(library) if one[0] == DEAD]
    assert len(dead) == 125 and {class_ for _, class_, _ in dead} == {"too_old"}
    assert {message for _, _, message in dead} == {
        f"given up at its maximum age, after {tried} attempts; the breaker of its endpoint let no other through" for tried in (0, 1)}
    assert len(states(library, "too_old")) == 125 and len(states(library, "timeout")) == 6
    check(library.redis)


def test_the_probe_goes_before_its_age_is_looked_at_and_the_others_are_given_up(library):  # noqa: F811
    endpoint = Endpoint(library, 20)
    library.call("rule_update", "a", "q", "", "ma", 60000)
    endpoint.opened()
    library.advance(61000)
    answer = library.call("claim", 10, 2000)
    probe, = claims_of(answer)
    assert answer[3] == 14
    freeze(library, probe.id, probe.token)
    assert settle(library, probe.id, probe.token, DELIVERED)[:2] == [OK, CLOSED]
    assert sorted(one[0] for one in states(library)) == [PENDING] * 5 + [DELIVERED] + [DEAD] * 14
    check(library.redis)


def test_without_an_age_of_the_rule_s_own_it_is_72_hours(library):  # noqa: F811
    endpoint = Endpoint(library, 8).opened()
    for wait, ended in ((71 * 3600000, 0), (3600000, 7)):
        library.advance(wait)
        answer = library.call("claim", 10, 2000)
        probe, = claims_of(answer)
        assert answer[3] == ended
        endpoint.settle((probe.id, probe.token), "timeout", wait=1)


def open_it(api, queue, receiver):
    """Five jobs whose callbacks fail, and one that waits."""
    receiver.answers = [500] * 5
    for _ in range(5):
        run(api, queue)
        eventually(lambda: not deliveries(api, queue, states=["DELIVERY_STATE_SENDING"]) and
                   all(d.attempts for d in deliveries(api, queue)))
    job = run(api, queue)
    found, = eventually(lambda: deliveries(api, queue, job_id=job))
    return found


def test_a_failing_endpoint_is_left_alone_which_is_shown_and_a_probe_opens_the_way(api, server, queue, receiver, tool):  # noqa: F811
    opened = "ringback_callbacks_breakers_opened_total"
    before = server.metrics()[opened]
    api.set_callback(queue, receiver.url(), schedule=[duration(600)])
    waiting = open_it(api, queue, receiver)
    rule = api.callback.GetCallbackRule(queue=queue).rule
    left = rule.breaker_open_until.ToDatetime().timestamp() - time.time()
    assert 0 < left < 31
    found = get_delivery(api, queue, waiting.id)
    assert found.state == 1 and found.attempts == 0 and found.breaker_open_until == rule.breaker_open_until
    name = queue.rsplit("/", 1)[1]
    assert "open until" in tool("callback", "show", name).out
    assert "open until" in tool("callback", "show-delivery", waiting.id).out
    assert server.metrics()[opened] == before + 1
    # Test callbacks and jobs' own URLs go on.
    assert api.callback.SendTestCallback(queue=queue).delivery.http_status == 200
    run(api, queue, callback=dict(url=receiver.url("/own")))
    receiver.wait(1, path="/own")
    assert len(receiver.wait(6, path="/callback")) == 6
    second = run(api, queue)
    requests = receiver.wait(8, seconds=45, path="/callback")
    assert requests[6].headers["webhook-id"] == waiting.id and second in requests[7].headers["webhook-id"]
    assert requests[6].time - requests[4].time > 29
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert not rule.HasField("breaker_open_until")
    done, = eventually(lambda: deliveries(api, queue, job_id=second, states=["DELIVERY_STATE_DELIVERED"]))
    assert not get_delivery(api, queue, done.id).HasField("breaker_open_until")


def test_switching_the_rule_off_and_on_closes_it_and_what_waits_goes(api, queue, receiver):
    api.set_callback(queue, receiver.url(), schedule=[duration(600)])
    waiting = open_it(api, queue, receiver)
    time.sleep(0.5)
    assert len(receiver.requests) == 5
    update_rule(api, queue, state="CALLBACK_RULE_STATE_OFF")
    update_rule(api, queue, state="CALLBACK_RULE_STATE_ON")
    assert receiver.wait(6)[5].headers["webhook-id"] == waiting.id
    assert api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[waiting.id]).redelivered_count in (0, 1)


def test_the_own_url_of_a_job_has_a_breaker_of_its_own(api, queue, receiver):
    api.set_callback(queue, receiver.url())

    def own_fails(handler):
        handler.send_response(500 if handler.path == "/own" else 200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.status = own_fails
    for k in range(5):
        run(api, queue, callback=dict(url=receiver.url("/own")))
        receiver.wait(k + 1, path="/own")
    job = run(api, queue, callback=dict(url=receiver.url("/own")))
    found, = eventually(lambda: deliveries(api, queue, job_id=job))
    eventually(lambda: get_delivery(api, queue, found.id).HasField("breaker_open_until"))
    assert not api.callback.GetCallbackRule(queue=queue).rule.HasField("breaker_open_until")
    run(api, queue)
    receiver.wait(1, path="/callback")
    assert not [r for r in receiver.requests if job in r.headers["webhook-id"]], "it waits for the probe"
