"""What must hold between the keys of the store at every moment, whatever was killed: `check(redis client)` fails with what does not.

How keys and records are laid out is known to facts.lua alone, which reads a partition in one step, so servers may go on meanwhile. What is
told here is only how the facts belong together.
"""
import json

import harness

SUBMITTED, RUNNING, SUCCESS, FAILED, CANCEL = 1, 2, 3, 4, 6
PENDING, SENDING, DELIVERED = 1, 2, 3


def facts_of(client):
    """Of every partition that has a key: number -> what facts.lua tells."""
    source = (harness.BUILD / "redis" / "ringback.lua").read_text()
    name = source.split("name=", 1)[1].split("\n", 1)[0]
    suffix = name.removeprefix("ringback")
    source = source.replace(f"name={name}", "name=facts", 1).replace(f"SUFFIX = '{suffix}'", "SUFFIX = '_of_test'", 1)
    client.function_load(source + (harness.ROOT / "tests" / "flow" / "facts.lua").read_text(), replace=True)
    try:
        tags = {key[:5].decode() for key in client.scan_iter("{p[0-9][0-9]}*", count=10000)}
        return {int(tag[2:4]): json.loads(client.fcall("facts_of_test", 1, tag).decode("latin-1")) for tag in sorted(tags)}
    finally:
        client.function_delete("facts")


class Partition:
    def __init__(self, facts):
        self.wrong = []
        for name in ("timers", "queues", "jobs", "deliveries", "groups"):
            setattr(self, name, facts[name] or {})  # an empty table may be a list
        self.now, self.trash, self.bodies = facts["now"], facts["trash"] or [], facts["bodies"] or []
        self.deleted = {entry["queue"] for entry in self.trash if entry["kind"] == "Q"}

    def holds(self, what, fact):
        if not fact:
            self.wrong.append(what)

    def trashed(self, kind):
        return {member for entry in self.trash if entry["kind"] == kind for member in entry["members"]}

    def timer_by(self, what, timer, moment):
        self.holds(f"{what}: the timer {timer} is at {self.timers.get(timer)}, not by {moment}", self.timers.get(timer, float("inf")) <= moment)

    def check_groups(self):
        for name, group in self.groups.items():
            outbox, claims = group["outbox"] or {}, group["claims"] or {}
            for place, state in ((outbox, PENDING), (claims, SENDING)):
                for id_ in place:
                    delivery = self.deliveries.get(id_)
                    self.holds(f"{id_} is in the sets of group {name} in state {state}; its record: {delivery}",
                               delivery and (delivery["group"], delivery["state"]) == (name, state))
            self.holds(f"group {name} has {len(claims)} claims of {group['limit']}, {len(outbox)} deliveries wait, and no dispatcher will look",
                       not outbox or not group["sends"] or group.get("due") is not None or len(claims) >= group["limit"] or
                       (group["broken"] and claims))  # the claim is a probe
            if claims and f"q{name.split(':')[0]}" in self.queues:  # a deleted queue's go with it
                self.timer_by(f"claims of {name}", "C" + name, min(claims.values()))

    def check_deliveries(self):
        lists = {name: set(queue["deliveries"] or []) for name, queue in self.queues.items()}
        past = {name: set(queue["past"] or []) for name, queue in self.queues.items()}
        trashed, still_open = self.trashed("O"), {}
        for id_, delivery in self.deliveries.items():
            name = f"q{delivery['queue']}"
            if name not in self.queues:
                self.holds(f"{id_} is of a queue that is gone, and nothing will remove it", delivery["queue"] in self.deleted)
                continue
            group = self.groups.get(delivery["group"], {})
            state = delivery["state"]
            # What lies in the trash may have been sent again since, by hand: then it is passed over there.
            waits, claimed = id_ in (group.get("outbox") or {}) or state == PENDING and id_ in trashed, id_ in (group.get("claims") or {})
            ended = id_ in past[name]
            self.holds(f"{id_} is in state {state}; it waits: {waits}, is claimed: {claimed}, has ended: {ended}",
                       (waits, claimed, ended) == (state == PENDING, state == SENDING, state not in (PENDING, SENDING)))
            self.holds(f"{id_} is not in its queue's list", id_ in lists[name])
            self.holds(f"{id_} was delivered and has no body", delivery["rendered"] or state != DELIVERED)
            if state in (PENDING, SENDING):
                still_open[name] = still_open.get(name, 0) + 1
                self.holds(f"{id_} is neither rendered nor can it be", delivery["rendered"] or delivery["renders"])
        for name, queue in self.queues.items():
            self.holds(f"{name} counts {queue['open']} open deliveries of {still_open.get(name, 0)}", queue["open"] == still_open.get(name, 0))
            for id_ in lists[name] | past[name]:
                self.holds(f"{id_} is in a list of {name} and has no record", id_ in self.deliveries)
            if past[name]:
                self.holds(f"{name} has ended deliveries and no timer to forget them", "T" + name[1:] in self.timers)
        for id_ in self.bodies:
            self.holds(f"the body of {id_} is left without it", id_ in self.deliveries)

    def check_jobs(self):
        places = {name: {place: set(queue[place] or []) for place in ("ready", "delayed", "running", "ended", "listed")}
                  for name, queue in self.queues.items()}
        purged = self.trashed("J")
        counts = {name: {SUCCESS: 0, FAILED: 0, CANCEL: 0} for name in self.queues}
        for id_, job in self.jobs.items():
            name = f"q{job['queue']}"
            if name not in self.queues:
                self.holds(f"{id_} is of a queue that is gone, and nothing will remove it", job["queue"] in self.deleted)
                continue
            at = {place for place, ids in places[name].items() if id_ in ids} - {"listed"}
            self.holds(f"{id_} is not in its queue's list", id_ in places[name]["listed"])
            if job["state"] not in (SUBMITTED, RUNNING):
                counts[name][job["state"]] += 1
                self.holds(f"{id_} has ended with {job['state']} and is in {at}", at == {"ended"})
            elif job["purged"]:
                self.holds(f"{id_} was purged and is in {at}, in the trash: {id_ in purged}", (at, id_ in purged) == (set(), True))
            else:
                self.holds(f"{id_} has not ended and is in {at}", at in ({"ready"}, {"delayed"}) if job["state"] == SUBMITTED else at == {"running"})
                self.holds(f"{id_} expires and has no timer for it", not job["expires"] or "E" + id_ in self.timers)
        for name, queue in self.queues.items():
            for place, ids in places[name].items():
                lost = ids - self.jobs.keys()
                self.holds(f"{len(lost)} of {place} of {name} have no record, such as {sorted(lost)[:1]}", not lost)
            for id_ in places[name]["running"]:
                self.holds(f"{id_} is running and has no lease timer", "L" + id_ in self.timers)
            self.holds(f"{name} counts {queue['counts']} ended jobs of {counts[name]}", queue["counts"] == list(counts[name].values()))
            self.holds(f"{name} counts {queue['runs']} running jobs of {len(places[name]['running'])}", queue["runs"] == len(places[name]["running"]))
            self.holds(f"{name} counts {queue['gone']} jobs as gone from its list of {queue['missing']}", queue["gone"] == queue["missing"])
            if places[name]["delayed"]:
                self.timer_by(f"delayed jobs of {name}", "D" + name[1:], queue["delayed_from"])
            if places[name]["ended"]:
                self.holds(f"{name} has ended jobs and no timer to forget them", "R" + name[1:] in self.timers)
            self.holds(f"{name} has jobs, workers wait, and nobody was told", not (
                queue["wanted"] and places[name]["ready"] and not queue["paused"] and len(places[name]["running"]) < queue["max_concurrent"]))
        for timer in self.timers:
            if timer[0] == "L":
                number = f"q{self.jobs[timer[1:]]['queue']}" if timer[1:] in self.jobs else None
                self.holds(f"there is a lease timer of {timer[1:]}, which does not run", number and (
                    number not in places or timer[1:] in places[number]["running"]))


def violations(client):
    """What does not hold, in words; none when all is well."""
    found = []
    for number, facts in facts_of(client).items():
        partition = Partition(facts)
        partition.check_groups()
        partition.check_deliveries()
        partition.check_jobs()
        found += [f"partition {number}: {what}" for what in partition.wrong]
    return found


def check(client):
    found = violations(client)
    assert not found, f"{len(found)} invariants do not hold:\n" + "\n".join(found[:10])
