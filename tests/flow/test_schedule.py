"""The schedule of callbacks, lived through in a minute: ringbackd and its Redis live in one clock (shift_clock.c), which the tests set forward
to shortly before the next attempt is due. What a receiver sees decides, not what the server says of itself."""
import email.utils
import time

import pytest

from harness import SLOW, bucket_of, duration, eventually
from test_callbacks import deliveries, delivery_state, run

pytestmark = pytest.mark.long
HOUR = 3600
WAITS = (5, 30, 2 * 60, 10 * 60, 30 * 60, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, 16 * HOUR, 24 * HOUR)
LEAD_S = 2.5  # real seconds between a jump and what it waits for: the dispatcher looks at the clock once a second
STEP_S = 0.1  # between the clocks of two processes


@pytest.fixture
def server(clock, start_server):
    return start_server(env=clock.env)


@pytest.fixture
def api(server):
    return server.api


def seconds(time_or_span):
    return time_or_span.seconds + time_or_span.nanos / 1e9


class Follower:
    """Follows the only delivery of a queue from attempt to attempt."""

    def __init__(self, api, clock, queue, receiver):
        self.api, self.clock, self.queue, self.receiver = api, clock, queue, receiver
        run(api, queue)
        self.seen = []  # when each request came, in the clock's time
        self.look()

    def look(self):
        """Waits for one more request and for its attempt to be written down."""
        count = len(self.seen) + 1
        self.receiver.wait(count, 20)
        self.seen += [r.time + self.clock.offset for r in self.receiver.requests[len(self.seen):]]
        assert len(self.seen) == count, "one request more"
        found, = eventually(lambda: [d for d in deliveries(self.api, self.queue) if d.attempts == count and delivery_state(self.api, d.state) != "SENDING"])
        self.delivery = self.api.callback.GetDelivery(bucket=self.queue.split("/queues/")[0], id=found.id).delivery
        self.state = delivery_state(self.api, self.delivery.state)
        self.due = seconds(self.delivery.next_attempt_time)

    def follow(self):
        """Goes to the next attempt; answers with how long after the one before it came and how late it was."""
        before, due = self.seen[-1], self.due
        self.clock.advance_to(due - LEAD_S * SLOW)
        self.look()
        return self.seen[-1] - before, self.seen[-1] - due


def in_time(late, wait):
    return -STEP_S <= late <= max(1, wait / 100) * SLOW


def test_every_wait_of_the_schedule_is_kept_until_the_delivery_is_72_hours_old(api, clock, queue, receiver):
    receiver.status = 500
    one = Follower(api, clock, queue, receiver)
    begun = one.seen[0]
    for wait in WAITS:
        if one.state == "DEAD":
            break
        took, late = one.follow()
        assert in_time(late, wait), f"{late:.2f} s late after a wait of {wait} s"
        assert 0.8 * wait - STEP_S <= took <= 1.2 * wait + max(1, wait / 100) * SLOW, f"{took:.2f} s instead of {wait} s give or take a fifth"
    assert one.state == "DEAD" and one.delivery.error_class == "too_old", one.delivery
    # The waits add up to 67.7 hours, give or take: the last may lie beyond 72.
    assert len(one.seen) in (len(WAITS), len(WAITS) + 1)
    assert one.seen[-1] - begun <= 72 * HOUR
    clock.advance_to(begun + 200 * HOUR)
    time.sleep(LEAD_S)
    assert len(receiver.requests) == len(one.seen), "dead is dead"


def errors(server, class_):
    return server.metrics()[f'ringback_callbacks_errors_total{{class="{class_}"}}']


def test_a_rule_s_own_wait_of_a_day_is_kept_to_the_end_of_its_age(api, server, clock, bucket, receiver):
    receiver.status = 503
    queue = api.make_queue(bucket)
    api.set_callback(queue, receiver.url(), schedule=[duration(24 * HOUR)], max_age=duration(60 * HOUR))
    one = Follower(api, clock, queue, receiver)
    while one.state != "DEAD":
        took, late = one.follow()
        assert in_time(late, 24 * HOUR), f"{late:.2f} s late"
        assert 19.2 * HOUR - STEP_S <= took <= 28.8 * HOUR + 864
    assert one.delivery.error_class == "too_old" and len(one.seen) in (3, 4)
    assert one.delivery.error_message.startswith(f"given up at its maximum age, after {len(one.seen)} attempts; the last one: ")
    # The attempt keeps its own class, and the delivery is found by either.
    assert {attempt.error_class for attempt in one.delivery.attempt_log} == {"status_5xx"}
    for class_, found in (("too_old", 1), ("status_5xx", 1), ("timeout", 0)):
        assert len(deliveries(api, queue, error_classes=[class_], states=["DELIVERY_STATE_DEAD"])) == found
    assert (errors(server, "too_old"), errors(server, "status_5xx")) == (1, len(one.seen))
    receiver.status = 200
    again = dict(bucket=bucket_of(queue), filter=dict(queue=queue, error_classes=["status_5xx"]))
    assert api.callback.RedeliverCallbacks(**again).redelivered_count == 1
    eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))


def test_what_waits_behind_an_open_breaker_is_given_up_at_its_age(api, server, clock, bucket, receiver):
    receiver.status = 503
    queue = api.make_queue(bucket)
    api.set_callback(queue, receiver.url(), max_age=duration(10 * HOUR), concurrency=1)
    for _ in range(20):
        run(api, queue)
    eventually(lambda: api.callback.GetCallbackRule(queue=queue).rule.HasField("breaker_open_until"))
    tried = len(receiver.requests)
    clock.advance(11 * HOUR)
    dead = eventually(lambda: (lambda found: len(found) >= 13 and found)(deliveries(api, queue, error_classes=["too_old"])), 30)
    assert {delivery_state(api, one.state) for one in dead} == {"DEAD"} and len(receiver.requests) - tried <= 5
    assert 0 in {one.attempts for one in dead}
    eventually(lambda: errors(server, "too_old") >= 13)


@pytest.mark.parametrize("status", (429, 503))
@pytest.mark.parametrize("form", ("seconds", "date"))
def test_a_retry_after_of_an_hour_waits_at_least_that(api, clock, queue, receiver, status, form):
    until = int(clock.now()) + HOUR + 60
    receiver.answers = [(status, {"Retry-After": "3600" if form == "seconds" else email.utils.formatdate(until, usegmt=True)})]
    one = Follower(api, clock, queue, receiver)
    asked = one.seen[0] + HOUR if form == "seconds" else until
    assert one.due >= asked - STEP_S
    _, late = one.follow()
    assert one.seen[-1] >= asked - STEP_S and in_time(late, HOUR)
    assert one.seen[-1] - asked <= HOUR / 100 * SLOW
    assert one.state == "DELIVERED"


@pytest.fixture
def queue(api, bucket, receiver):
    """One that calls back by the default schedule."""
    path = api.make_queue(bucket)
    api.set_callback(path, receiver.url())
    return path
