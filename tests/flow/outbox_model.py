"""The outbox as it should be, beside the one inside the function library: the same operations at random on both, and what must be the same then."""
import random

import pytest

from invariants import check
from store_model import OK, PRECONDITION, SUCCESS, claims_of, delivery_id, number, pack_attempt, pack_body, pack_result, pack_settings
from test_store_model import PARTITION

PENDING, SENDING, DELIVERED, DEAD, SUPPRESSED = 1, 2, 3, 4, 5
CONCURRENCY = 32
OWN_URL, NO_CALLBACK = 2, 1
KEEP_MS, KEEP_MS_DELIVERIES = 1500, 3 * 86400 * 1000


def pack_job(flags, endpoint, spec=b"spec"):
    return bytes([3 << 5 | flags, 0]) + (endpoint.to_bytes(4, "big") if flags & OWN_URL else b"") + b"\x0a\x01T" + spec


def results_of(jobs):
    """What a worker says of the jobs that a lease has answered with: they are done."""
    return [pack_result((jobs[k], number(jobs[k + 2], 7, 7)), "s", 0, b"", b"", b"r") for k in range(0, len(jobs), 3)]


def code_of(item):
    """Of what became of one job or delivery: a number, or {code, reason, number}."""
    return item[0] if isinstance(item, list) else OK


def settle(library, id_, token, state, status=200, class_="", message="", next_=0, answer=(), **more):
    return library.call("settle", id_, pack_attempt(token, state, status, class_, message, library.now, next_, **more), *answer)


def freeze(library, id_, token, body=b"<xml/>", **more):
    return library.call("freeze", id_, token, pack_body(body, **more))


class Delivery:
    def __init__(self, id_, group, state, now):
        self.id, self.group, self.state, self.next = id_, group, state, now if state == PENDING else 0
        self.attempts = self.before = self.abandoned = self.token = self.expiry = 0
        self.frozen, self.trashed, self.ended = False, False, now if state == SUPPRESSED else 0


class Breaker:
    """What an endpoint's results say, told from all of them."""

    def __init__(self):
        self.results, self.in_a_row, self.opened, self.until, self.probe, self.probe_ends = [], 0, 0, 0, None, 0

    def lets(self, now):
        """How many deliveries may be claimed now; None: any number."""
        if not self.until:
            return None
        return 0 if now < max(self.until, self.probe_ends) else 1

    def settled(self, now, token, good, cancelled=False):
        if cancelled:  # it says nothing of the endpoint, but the next probe may go
            if self.until and token == self.probe:
                self.probe, self.probe_ends = None, 0
            return
        if good:
            if self.until:
                self.__init__()
                return
            self.in_a_row = 0
        elif self.until and token != self.probe:
            return
        slots = [(slot, bad) for slot, bad in self.results if slot > now // 10000 - 6]
        self.results = slots + [(now // 10000, not good)] if slots or not good else []
        if not any(bad for _, bad in self.results):
            self.results = []
        if good:
            return
        self.in_a_row += 1
        bad = sum(bad for _, bad in self.results)
        if self.until or self.in_a_row >= 5 or (len(self.results) >= 20 and 2 * bad >= len(self.results)):
            self.until, self.opened = now + min(900000, 30000 * 2 ** self.opened), self.opened + 1
            self.probe, self.probe_ends, self.results = None, 0, []


class Outbox:
    def __init__(self, library, seed):
        self.library, self.pick = library, random.Random(seed)
        settings = {"head_start": 0, "max_size": 100000, "max_concurrent": 100000, "lease": 10 ** 8, "max_attempts": 3, "min_backoff": 1,
                    "max_backoff": 1, "keep_ms": KEEP_MS, "keep_count": 100000, "idempotency": 1000}
        self.number = library.call("queue_create", "a", "q", 1, pack_settings(settings))[1][1]
        self.rule = {"on": False, "url": ""}
        self.deliveries, self.jobs = {}, {}  # jobs: id -> [flags, endpoint, run, finish or 0]
        self.tokens = []
        self.breakers = {}
        self.luck = 4

    now = property(lambda self: self.library.now)

    def waiting(self):
        return [id_ for id_, job in self.jobs.items() if not job[3]]

    def breaker(self, group):
        return self.breakers.setdefault(group, Breaker())

    def submit(self):
        kinds = [(self.pick.choice([0, 0, OWN_URL, NO_CALLBACK]), self.pick.choice([1, 2])) for _ in range(self.pick.choice([1, 5, 40]))]
        answer = self.library.call("submit", "a", "q", 1, "", b"0" * 8, *[pack_job(*kind) for kind in kinds])
        assert answer[0] == OK and answer[9] == len(kinds)
        for k, (flags, endpoint) in enumerate(kinds):
            id_ = bytes([64]) + answer[6].to_bytes(5, "big") + answer[7].to_bytes(6, "big") + (answer[8] + k).to_bytes(4, "big")
            self.jobs[id_] = [flags, endpoint, 0, 0]

    def ended(self, id_):
        job = self.jobs[id_]
        flags, endpoint, run, _ = job
        job[3] = self.now
        name = delivery_id(id_, run)
        assert name not in self.deliveries
        if flags & NO_CALLBACK:
            return
        if flags & OWN_URL:
            self.deliveries[name] = Delivery(name, f"{self.number}:{endpoint:08x}", PENDING, self.now)
        elif self.rule["url"]:
            self.deliveries[name] = Delivery(name, str(self.number), PENDING if self.rule["on"] else SUPPRESSED, self.now)

    def end(self):
        if self.pick.random() < 0.3:
            ids = self.pick.sample(self.waiting(), min(len(self.waiting()), 30))
            if ids:
                assert self.library.call("cancel", "a", "i", *ids)[1] == len(ids)
        else:
            jobs = self.library.call("lease", "a", self.pick.choice([1, 30, 100]), "w", 0, "q")[2]
            ids = jobs[::3]
            answer = self.library.call("finish", "a", *results_of(jobs))
            assert answer[3:] == [SUCCESS] * len(ids)
        for id_ in ids:
            self.ended(id_)

    def last_delivery(self, id_):
        return self.deliveries.get(delivery_id(id_, self.jobs[id_][2]))

    def needed(self, id_):
        """Whether a delivery has yet to be rendered from the job's record."""
        delivery = self.last_delivery(id_)
        return bool(delivery) and delivery.state in (PENDING, SENDING) and not delivery.frozen

    def retry(self):
        ids = [id_ for id_, job in self.jobs.items() if job[3]]
        for id_ in self.pick.sample(ids, min(len(ids), 3)):
            answer = self.library.call("retry", "a", "i", id_)
            if self.needed(id_):
                assert code_of(answer[3]) == PRECONDITION
            else:
                assert answer[3] == OK
                self.jobs[id_][2:] = [self.jobs[id_][2] + 1, 0]

    def change_rule(self):
        kind = self.pick.choice(["on", "on", "on", "off", "delete"])
        if kind == "delete":
            assert self.library.call("rule_delete", "a", "q")[0] == OK
            self.rule = {"on": False, "url": ""}
            self.breakers.pop(str(self.number), None)
            for delivery in self.deliveries.values():
                if delivery.group == str(self.number) and delivery.state == PENDING:
                    delivery.trashed = True
            return
        on = kind == "on"
        assert self.library.call("rule_update", "a", "q", "", "on", int(on), "url", "http://x/", "to", 1000)[0] == OK
        if self.rule != {"on": on, "url": "http://x/"}:
            self.breakers.pop(str(self.number), None)
        self.rule = {"on": on, "url": "http://x/"}

    def sendable(self, delivery):
        return (delivery.state == PENDING and not delivery.trashed and delivery.next <= self.now and
                (self.rule["on"] or ":" in delivery.group) and self.under_way(delivery.group) < CONCURRENCY and
                self.breaker(delivery.group).lets(self.now) != 0)

    def under_way(self, group):
        return sum(delivery.group == group and delivery.state == SENDING for delivery in self.deliveries.values())

    def claim(self):
        count = self.pick.choice([1, 5, 64])
        answer = self.library.call("claim", count, 2000)
        claims = claims_of(answer)
        assert answer[0] == OK and len(claims) <= count
        for claim in claims:
            delivery = self.deliveries[claim.id]
            assert self.sendable(delivery), vars(delivery)
            assert claim.group == delivery.group and claim.attempts == delivery.attempts - delivery.before
            assert claim.token not in self.tokens
            assert claim.frozen == delivery.frozen and (delivery.frozen or claim.job[0] == claim.id[:16])
            delivery.state, delivery.token, delivery.expiry = SENDING, claim.token, claim.expiry
            self.tokens.append(claim.token)
            if self.breaker(delivery.group).until:
                self.breaker(delivery.group).probe, self.breaker(delivery.group).probe_ends = claim.token, claim.expiry
        return len(claims)

    def claim_all(self):
        """Whatever could be sent has been claimed when claiming brings no more, several times."""
        idle = 0
        while idle < 3:
            self.library.advance(1)  # a group that had its turn has the next one later
            idle = 0 if self.claim() else idle + 1
        left = [(delivery.id, delivery.group, delivery.next) for delivery in self.deliveries.values() if self.sendable(delivery)]
        assert not left, (left[:3], self.now, self.library.redis.zrange(f"{PARTITION}due", 0, -1, withscores=True))

    def settle(self):
        claimed = [delivery for delivery in self.deliveries.values() if delivery.state == SENDING]
        for delivery in self.pick.sample(claimed, min(len(claimed), self.pick.choice([1, 10, 40]))):
            if not delivery.frozen:
                answer = freeze(self.library, delivery.id, delivery.token)
                assert answer[0] == OK
                delivery.frozen = True
            state, next_ = self.pick.choice([(DELIVERED, 0)] * self.luck + [(PENDING, self.now + self.pick.choice([10, 900])), (DEAD, 0)])
            class_ = "" if state == DELIVERED else "timeout"
            was_open = self.breaker(delivery.group).until
            answer = settle(self.library, delivery.id, delivery.token, state, 200, class_, "", next_)
            rule_gone = state == PENDING and ":" not in delivery.group and not self.rule["url"]
            self.breaker(delivery.group).settled(self.now, delivery.token, state == DELIVERED, rule_gone)
            is_open = self.breaker(delivery.group).until
            assert answer == [OK, 0 if is_open == was_open else 1 if is_open else 2]
            delivery.attempts += 1
            delivery.abandoned = 0
            if rule_gone:
                state = DEAD
            delivery.state, delivery.next = state, next_ if state == PENDING else 0
            delivery.ended = 0 if state == PENDING else self.now

    def settle_stale(self):
        """Only a success counts when the claim is no longer current."""
        stale = [delivery for delivery in self.deliveries.values()
                 if delivery.token and delivery.frozen and delivery.state != SENDING and not delivery.trashed]
        for delivery in self.pick.sample(stale, min(len(stale), 2)):
            assert freeze(self.library, delivery.id, delivery.token, b"b")[0] == PRECONDITION
            answer = settle(self.library, delivery.id, delivery.token, PENDING, 500, "", "", self.now)
            assert answer[0] == PRECONDITION
            answer = settle(self.library, delivery.id, delivery.token, DELIVERED, 200, "", "", 0)
            assert answer[0] == OK
            if delivery.state != DELIVERED:
                self.breaker(delivery.group).settled(self.now, delivery.token, True)
            if delivery.state != DELIVERED:
                delivery.attempts += 1
                delivery.abandoned = 0
                delivery.state, delivery.next, delivery.ended = DELIVERED, 0, self.now

    def redeliver(self):
        """By id whatever may be, or the dead ones."""
        known = list(self.deliveries.values())
        if self.pick.random() < 0.3:
            chosen = [delivery for delivery in known if delivery.state == DEAD and self.may_redeliver(delivery)]
            count, position = 0, b""
            while True:
                answer = self.library.call("redeliver_dead", "a", "q", "", 0, 0, position)
                assert answer[0] == OK and answer[1] <= 100
                count, position = count + answer[1], answer[2]
                if not position:
                    break
            assert count == len(chosen)
        else:
            picked = self.pick.sample(known, min(len(known), 5))
            if not picked:
                return
            answer = self.library.call("redeliver", "a", *[delivery.id for delivery in picked], picked[0].id)
            chosen = [delivery for delivery in picked if self.may_redeliver(delivery)]
            assert [code_of(one) for one in answer[3:]] == [OK if self.may_redeliver(delivery) else PRECONDITION for delivery in [*picked, picked[0]]]
            assert answer[1] == len(chosen)
        for delivery in chosen:
            delivery.state, delivery.next, delivery.ended, delivery.before = PENDING, self.now, 0, delivery.attempts
            delivery.abandoned, delivery.trashed = 0, False

    def may_redeliver(self, delivery):
        if delivery.state not in (PENDING, DELIVERED, DEAD) or (":" not in delivery.group and not self.rule["url"]):
            return False
        job, run = delivery.id[:16], int.from_bytes(delivery.id[17:], "big")
        return delivery.frozen or (job in self.jobs and self.jobs[job][2] == run and bool(self.jobs[job][3]))

    def sweep(self):
        while self.library.call("sweep")[1]:
            pass
        for delivery in self.deliveries.values():
            if delivery.trashed and delivery.state == PENDING:
                delivery.state, delivery.next, delivery.ended = DEAD, 0, self.now
            delivery.trashed = False
            if delivery.state == SENDING and delivery.expiry <= self.now:
                delivery.abandoned += 1
                delivery.state, delivery.next = (PENDING, self.now) if delivery.abandoned < 5 else (DEAD, 0)
                delivery.ended = 0 if delivery.next else self.now
        # Jobs that a delivery still needs stay; of the others the library may keep some a while, for it looks at them again in a minute.
        gone = self.library.call("get", "a", *self.jobs)[2] if self.jobs else []
        for id_ in gone:
            job = self.jobs.pop(id_)
            assert job[3] and job[3] <= self.now - KEEP_MS
            assert not self.needed_by(id_, job)

    def needed_by(self, id_, job):
        delivery = self.deliveries.get(delivery_id(id_, job[2]))
        return bool(delivery) and delivery.state in (PENDING, SENDING) and not delivery.frozen

    def advance(self):
        self.library.advance(self.pick.choice([1, 20, 300, 1000, 4000, 40000]))
        self.luck = self.pick.choice([1, 4, 20])
        if self.pick.random() < 0.7:
            self.sweep()

    def repair(self):
        """There is nothing to repair: whatever happens leaves everything in its place."""
        at = [0, b""]
        while True:
            code, *after, repaired = self.library.call("repair", *at)
            assert (code, repaired) == (OK, 0)
            if after in ([0, b""], at):  # all was seen, or there is trash
                return
            at = after

    OPERATIONS = [submit] * 4 + [end] * 5 + [retry, change_rule] + [claim] * 3 + [claim_all] + [settle] * 5 + [settle_stale, redeliver, repair] + [advance] * 4

    def compare(self):
        found, position = {}, b""
        while True:
            answer = self.library.call("delivery_list", "a", "q", 0, "", "", 0, 0, 100, position)
            found |= {values[0]: values for values in answer[2]}
            position = answer[1]
            if not position:
                break
        assert set(found) == set(self.deliveries)
        for name, values in found.items():
            delivery = self.deliveries[name]
            assert (values[2], values[4]) == (delivery.state, delivery.attempts), vars(delivery)
            if delivery.state == PENDING and not delivery.trashed:
                assert values[11] == delivery.next
        groups = {delivery.group for delivery in self.deliveries.values()}
        for group in groups:
            claims = set(self.library.redis.zrange(f"{PARTITION}claims:{group}", 0, -1))
            assert claims == {d.id for d in self.deliveries.values() if d.group == group and d.state == SENDING}
            outbox = set(self.library.redis.zrange(f"{PARTITION}outbox:{group}", 0, -1))
            assert outbox == {d.id for d in self.deliveries.values() if d.group == group and d.state == PENDING and not d.trashed}
        assert self.library.call("rule_get", "a", "q")[18] == self.breaker(str(self.number)).until
        check(self.library.redis)

    def finish_all(self):
        """A dispatcher that is always accepted empties the outbox, however little it is told."""
        self.library.call("rule_update", "a", "q", "", "on", 1, "url", "http://x/")
        if self.rule != {"on": True, "url": "http://x/"}:
            self.breakers.pop(str(self.number), None)
        self.rule = {"on": True, "url": "http://x/"}
        for _ in range(4000):
            if not any(delivery.state in (PENDING, SENDING) for delivery in self.deliveries.values()):
                return
            self.claim()
            for delivery in self.deliveries.values():
                if delivery.state == SENDING:
                    assert delivery.frozen or freeze(self.library, delivery.id, delivery.token) == [OK]
                    assert settle(self.library, delivery.id, delivery.token, DELIVERED, 200, "", "", 0)[0] == OK
                    self.breaker(delivery.group).settled(self.now, delivery.token, True)
                    delivery.attempts += 1
                    delivery.state, delivery.next, delivery.ended = DELIVERED, 0, self.now
            self.library.advance(1000)
            self.sweep()
        pytest.fail("deliveries are never claimed: %s" % [vars(d) for d in self.deliveries.values() if d.state == PENDING][:3])
