"""The outbox inside the function library, under random operations and a clock of the test's own: every end of a job makes exactly one delivery,
no delivery is claimed twice at a time or forgotten, and nothing is left when the queue is deleted."""
import pytest

from outbox_model import CONCURRENCY, DEAD, DELIVERED, KEEP_MS, KEEP_MS_DELIVERIES, PENDING, SENDING, Outbox, pack_job, settle
from store_model import NOT_FOUND, OK, PRECONDITION, claims_of
from test_store_model import LUA_MS_MAX, PARTITION, SEEDS, library, slowest_ms  # noqa: F401  (a fixture)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_ends_claims_and_settlements(library, seed):  # noqa: F811
    outbox = Outbox(library, seed)
    outbox.change_rule()
    for step in range(300):
        operation = outbox.pick.choice(Outbox.OPERATIONS)
        try:
            operation(outbox)
            if step % 10 == 0:
                outbox.compare()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {step}, {operation.__name__}: {error}") from error
    outbox.finish_all()
    outbox.compare()
    # What retention takes: first the jobs, days later the deliveries.
    library.advance(KEEP_MS + 61000)
    outbox.sweep()
    assert all(not job[3] for job in outbox.jobs.values())
    library.advance(KEEP_MS_DELIVERIES + 1)
    outbox.sweep()
    assert library.call("delivery_list", "a", "q", 0, "", "", 0, 0, 100, "")[2] == []
    assert not list(library.redis.scan_iter(f"{PARTITION}d:*", count=10000))

    outbox.deliveries.clear()
    for _ in range(3):
        outbox.submit()
        outbox.end()
    outbox.claim()
    assert library.call("queue_delete", "a", "q", 0)[0] == PRECONDITION or not outbox.deliveries
    library.call("queue_delete", "a", "q", 1)
    for delivery in outbox.deliveries.values():
        assert settle(library, delivery.id, delivery.token, DELIVERED)[0] == NOT_FOUND
    library.advance(100000)
    while library.call("sweep")[1]:
        pass
    left = {key.decode() for key in library.redis.scan_iter(f"{PARTITION}*", count=10000)}
    left -= {PARTITION + key for key in ("seq", "log:a", "hungry")}
    left -= {key for key in left if library.redis.pttl(key) > 0}
    assert not left, "keys that nothing will ever remove"
    slowest, command = slowest_ms(library.redis)
    assert slowest < LUA_MS_MAX, command


def test_a_failing_endpoint_at_its_limit_holds_nothing_back(library):  # noqa: F811
    outbox = Outbox(library, 1)
    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/")
    outbox.rule = {"on": True, "url": "http://x/"}
    for _ in range(3):
        answer = library.call("submit", "a", "q", 1, "", b"0" * 8, *[pack_job(0, 0)] * 20)
        ids = [bytes([64]) + answer[6].to_bytes(5, "big") + answer[7].to_bytes(6, "big") + (answer[8] + k).to_bytes(4, "big") for k in range(20)]
        outbox.jobs |= {id_: [0, 0, 0, 0] for id_ in ids}
        assert library.call("cancel", "a", "i", *ids)[1] == 20
        for id_ in ids:
            outbox.ended(id_)
    outbox.claim_all()
    first = [delivery for delivery in outbox.deliveries.values() if delivery.state == SENDING]
    assert len(first) == CONCURRENCY
    for delivery in first:
        # Refused by us, which says nothing of the endpoint: the breaker stays closed.
        assert settle(library, delivery.id, delivery.token, PENDING, 0, "cancelled", "no", library.now + 60000)[0] == OK
        delivery.attempts, delivery.state, delivery.next = 1, PENDING, library.now + 60000
    outbox.claim_all()
    assert sum(delivery.state == SENDING for delivery in outbox.deliveries.values()) == 60 - CONCURRENCY


HOUR = 3600 * 1000


def end_job(library):  # noqa: F811
    answer = library.call("submit", "a", "q", 1, "", b"0" * 8, pack_job(0, 0))
    library.call("cancel", "a", "i", bytes([64]) + answer[6].to_bytes(5, "big") + answer[7].to_bytes(6, "big") + answer[8].to_bytes(4, "big"))


def end_one_of(library):  # noqa: F811
    """A rule's delivery, ended and claimed; its id and token."""
    end_job(library)
    (claim,) = claims_of(library.call("claim", 1, 2000))
    return claim.id, claim.token


def end_one(outbox):
    return end_one_of(outbox.library)


def test_a_rule_that_only_fails_is_switched_off_after_120_hours_and_20_failures(library):  # noqa: F811
    outbox = Outbox(library, 1)

    def end_with(state):
        library.redis.delete(f"{PARTITION}breaker:{outbox.number}")  # which would have us wait
        id_, token = end_one(outbox)
        next_ = library.now + 10 ** 9 if state == PENDING else 0
        assert settle(library, id_, token, state, 500, "status_5xx", "no", next_)[0] == OK

    def rule():
        return library.call("rule_get", "a", "q")

    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/")
    for _ in range(30):
        end_with(PENDING)
    library.advance(119 * HOUR)
    end_with(PENDING)
    assert rule()[1] == 1
    end_with(DELIVERED)
    library.advance(2 * HOUR)
    end_with(PENDING)
    assert rule()[1] == 1, "a success begins the count anew"
    library.advance(121 * HOUR)
    for _ in range(18):
        end_with(PENDING)
    assert rule()[1] == 1, "19 failures are too few"
    end_with(PENDING)
    assert rule()[1] == 0 and b"120 hours" in rule()[9]
    library.call("rule_update", "a", "q", "", "on", 1)
    assert rule()[1] == 1 and rule()[9] == b""
    end_with(PENDING)
    assert rule()[1] == 1


def test_a_delivery_that_ends_its_dispatcher_five_times_is_dead(library):  # noqa: F811
    outbox = Outbox(library, 1)
    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/", "to", 1000)
    id_, _ = end_one(outbox)
    for times in range(1, 6):
        library.advance(4000)
        while library.call("sweep")[1]:
            pass
        found, = library.call("delivery_get", "a", id_)[2]
        assert (found[2], found[4]) == (PENDING if times < 5 else DEAD, 0), "without using up attempts"
        assert len(claims_of(library.call("claim", 1, 2000))) == (1 if times < 5 else 0)
    assert found[6] == b"crash_loop"


def test_a_delivery_that_is_set_aside_frees_its_place_for_the_next(library):  # noqa: F811
    Outbox(library, 1)
    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/", "to", 1000, "cc", 1)
    for _ in range(3):
        end_job(library)
    for _ in range(3 * 5):
        claimed, = claims_of(library.call("claim", 8, 2000))
        assert claimed.attempts == 0
        library.advance(4000)
        while library.call("sweep")[1]:
            pass
    assert [values[2] for values in library.call("delivery_list", "a", "q", 0, "", "", 0, 0, 100, b"")[2]] == [DEAD] * 3


def test_a_delivery_put_back_after_its_rule_was_deleted_is_sent_by_the_new_rule(library):  # noqa: F811
    def states():
        return [values[2] for values in library.call("delivery_list", "a", "q", 0, "", "", 0, 0, 100, b"")[2]]

    Outbox(library, 1)
    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/", "to", 1000)
    for _ in range(3):
        end_job(library)
    ids = [values[0] for values in library.call("delivery_list", "a", "q", 0, "", "", 0, 0, 100, b"")[2]]
    library.call("rule_delete", "a", "q")
    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://y/", "to", 1000)
    assert library.call("redeliver", "a", ids[0])[1] == 1, "at the very time of its creation"
    library.advance(1)
    assert library.call("redeliver", "a", ids[1])[1] == 1
    claimed, = claims_of(library.call("claim", 1, 2000))
    assert claimed.id == ids[0]
    library.advance(4000)  # its claim runs out: the sweep that puts it back sees it in the trash too
    while library.call("sweep")[1]:
        pass
    assert states() == [PENDING, PENDING, DEAD]
    assert {claim.id for claim in claims_of(library.call("claim", 8, 2000))} == set(ids[:2])


def test_a_rule_s_epoch_rises_when_it_is_switched_deleted_or_gets_another_url(library):  # noqa: F811
    Outbox(library, 1)
    epochs = []

    def update(*fields):
        epochs.append(library.call("rule_update", "a", "q", "", *fields)[14])

    for fields in (("url", "http://x/"), ("on", 1), ("on", 1), ("to", 2000), ("url", "http://x/"), ("url", "http://y/", "on", 0), ("on", 1)):
        update(*fields)
    assert epochs == [1, 2, 2, 2, 2, 3, 4]
    assert library.call("rule_rotate", "a", "q", "whsec_x", 0)[14] == 4
    assert library.call("rule_delete", "a", "q")[14] == 5
    update("url", "http://x/", "on", 1)
    outbox_id, token = end_one_of(library)
    assert settle(library, outbox_id, token, DEAD, 410, "gone", "no", 0)[0] == OK
    assert library.call("rule_get", "a", "q")[1] == 0 and library.call("rule_get", "a", "q")[14] == 7


def test_the_last_claim_of_a_rule_that_is_off_is_told(library):  # noqa: F811
    outbox = Outbox(library, 1)
    library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/", "to", 1000)
    listener = library.redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("ringback:wake")

    def told():
        found = []
        library.redis.publish("ringback:wake", "the end")
        for message in listener.listen():
            if message["data"] == b"the end":
                break
            found += [message["data"]] if message["data"].startswith(b"r ") else []
        return found

    claims = [end_one(outbox) for _ in range(3)]
    assert settle(library, *claims[0], DELIVERED, 200, "", "", 0)[0] == OK
    assert library.call("rule_update", "a", "q", "", "on", 0)[15] == 2 and told() == []
    assert library.call("claim", 64, 2000)[2] == []
    assert settle(library, *claims[1], PENDING, 500, "status_5xx", "no", library.now + 1)[0] == OK
    assert library.call("rule_get", "a", "q")[15] == 1 and told() == []
    # The last one's dispatcher is gone: its claim runs out.
    library.advance(4000)
    while library.call("sweep")[1]:
        pass
    assert library.call("rule_get", "a", "q")[15] == 0
    assert told() == [b"r 0 %d" % outbox.number]
    assert library.call("claim", 64, 2000)[2] == [], "the rule is off"
