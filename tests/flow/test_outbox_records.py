"""What the function library keeps of a delivery and how it answers a claim: turns, sizes, bodies, attempts, records that it cannot read."""
from outbox_model import DELIVERED, KEEP_MS, KEEP_MS_DELIVERIES, PENDING, freeze, pack_job, results_of, settle
from store_model import INTERNAL, OK, PRECONDITION, claims_of, pack_attempt, pack_body, pack_settings
from test_store_model import PARTITION, library  # noqa: F401  (a fixture)


def pending_callbacks(library, name, count, spec=b"spec", rule=("http://x/", 256)):
    """A queue with so many callbacks due."""
    settings = {"head_start": 0, "max_size": 100000, "max_concurrent": 100000, "lease": 10 ** 8, "max_attempts": 3, "min_backoff": 1,
                "max_backoff": 1, "keep_ms": KEEP_MS, "keep_count": 100000, "idempotency": 1000}
    library.call("queue_create", "a", name, 1, pack_settings(settings))
    library.call("rule_update", "a", name, "", "on", 1, "url", rule[0], "cc", rule[1])
    library.call("submit", "a", name, 1, "", b"0" * 8, *[pack_job(0, 0, spec)] * count)
    jobs = library.call("lease", "a", count, "w", 0, name)[2]
    library.call("finish", "a", *results_of(jobs))
    library.advance(1)


def groups_of(answer):
    counts = {}
    for claim in claims_of(answer):
        counts[claim.group] = counts.get(claim.group, 0) + 1
    return sorted(counts.values())


def test_a_claim_shares_its_turns_among_those_who_wait(library):  # noqa: F811
    pending_callbacks(library, "q1", 200)
    assert groups_of(library.call("claim", 100, 2000)) == [100]
    pending_callbacks(library, "q2", 100)
    library.advance(1000)
    assert groups_of(library.call("claim", 100, 2000)) == [50, 50]
    for k in range(30):
        pending_callbacks(library, f"other{k}", 20)
    library.advance(1000)
    assert max(groups_of(library.call("claim", 100, 2000))) == 8


def test_a_claim_answers_with_about_a_megabyte(library):  # noqa: F811
    pending_callbacks(library, "q", 50, spec=bytes(60000))
    total = 0
    for _ in range(4):
        library.advance(1)
        claims = claims_of(library.call("claim", 100, 2000))
        assert sum(len(claim.job[3]) for claim in claims) < 1024 * 1024 + 70000
        total += len(claims)
    assert total == 50


def test_a_frozen_body_comes_with_the_next_claim_and_leaves_with_its_delivery(library):  # noqa: F811
    pending_callbacks(library, "q", 1)
    (first,) = claims_of(library.call("claim", 1, 2000))
    assert first.body == b"" and first.job[0] == first.id[:16]
    assert freeze(library, first.id, first.token) == [OK]
    assert freeze(library, first.id, first.token) == [OK], "made again"
    assert settle(library, first.id, first.token, PENDING, 500, "status_5xx", "", library.now + 10)[0] == OK
    library.advance(20)
    (second,) = claims_of(library.call("claim", 1, 2000))
    assert (second.id, second.body, second.job) == (first.id, pack_body(b"<xml/>"), None)
    assert freeze(library, first.id, first.token, b"<other/>")[0] == PRECONDITION, "its claim is another's"
    assert settle(library, second.id, second.token, DELIVERED)[0] == OK
    assert library.redis.get(PARTITION.encode() + b"body:" + first.id) == pack_body(b"<xml/>")
    library.advance(KEEP_MS_DELIVERIES + 1000)
    for _ in range(5):
        library.call("sweep")
    assert not library.redis.keys("*body:*") and not library.redis.keys(f"{PARTITION}d:*")


def test_twenty_attempts_are_kept_and_the_url_of_the_last(library):  # noqa: F811
    pending_callbacks(library, "q", 1)
    for number in range(1, 24):
        library.redis.delete(f"{PARTITION}breaker:1")  # which would have us wait
        (claim,) = claims_of(library.call("claim", 1, 2000))
        url, answer = f"http://x/{number}", b"answer %d" % number
        assert settle(library, claim.id, claim.token, PENDING, 500, "status_5xx", f"no {number}", library.now + 10, [answer], url=url)[0] == OK
        library.advance(20)
        (found,) = library.call("delivery_get", "a", claim.id)[2]
        kept = min(number, 20)
        assert found[3:8] == [url.encode(), number, 500, b"status_5xx", b"no %d" % number]
        assert found[14:16] == [answer, kept]
        attempts = [pack_attempt(0, PENDING, 500, "status_5xx", f"no {k}", url=url if k == number else "")[37:]
                    for k in range(number - kept + 1, number + 1)]
        log, at = found[16], 0
        for attempt in attempts:
            assert log[at + 37:at + 37 + len(attempt)] == attempt
            at += 37 + len(attempt)
        assert at == len(log)


def test_a_record_of_another_version_is_set_aside_and_told(library):  # noqa: F811
    pending_callbacks(library, "q", 3)
    names = [claim.id for claim in claims_of(library.call("claim", 3, 2000))]
    library.advance(10 ** 6)
    while library.call("sweep")[1]:
        pass
    for name, record in zip(names, (b"\xdc\x00\x1a" + bytes(100), b"\x01" * 20)):
        library.redis.set(PARTITION.encode() + b"d:" + name, record)
    for name in names[:2]:
        assert library.call("delivery_get", "a", name)[:2] == [INTERNAL, b"the delivery was written by another version of Ringback"]
        assert settle(library, name, 1, DELIVERED)[0] == freeze(library, name, 1)[0] == library.call("redeliver", "a", name)[3][0] == INTERNAL
    assert [claim.id for claim in claims_of(library.call("claim", 3, 2000))] == names[2:], "the others go on"
    assert [values[0] for values in library.call("delivery_list", "a", "q", 0, "", "", 0, 0, 100, "")[2]] == names[2:]
    library.call("queue_delete", "a", "q", 1)
    while library.call("sweep")[1]:
        pass
    assert not library.redis.keys(f"{PARTITION}d:*") and not library.redis.keys(f"{PARTITION}outbox:*")
