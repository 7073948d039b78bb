"""What the function library promises, as plain Python: dictionaries, sorting, and a clock that the test sets. And a client that calls the
real library, whose one reading of the time is pointed at a key, so that both see the same clock."""
import itertools
import re
import struct

SUBMITTED, RUNNING, SUCCESS, FAILED, PAUSE, CANCEL = 1, 2, 3, 4, 5, 6
OK, NOT_FOUND, ALREADY_EXISTS, FULL, TOO_MANY, CONFLICT, PRECONDITION, INTERNAL = 0, 1, 2, 3, 4, 5, 6, 11
STRICT = 2 ** 44
SETTINGS = ["head_start", "max_size", "max_concurrent", "lease", "max_attempts", "min_backoff", "max_backoff", "keep_ms",
            "keep_count", "idempotency"]
HEAD, STATE = 2, 53
NO_CALLBACK, LIMITS, NOT_BEFORE, EXPIRES = 1, 4, 8, 16

def number(data, at, size):
    return int.from_bytes(data[at:at + size], "big")


def pack_settings(settings):
    return struct.pack(">10d", *(settings[name] for name in SETTINGS))


def pack_spec(job):
    """As a JobSpec begins: its first field is the tag."""
    return (b"\x0a" + bytes([len(job["tag"])]) + job["tag"] if job["tag"] else b"") + job["spec"]


def pack_record(job):
    """A job's record as redis/record.c makes it, but for its own endpoint."""
    limits = job["max_attempts"] or job["expire"] or job["lease"] or job["run_timeout"]
    flags = (NO_CALLBACK * bool(job.get("no_callback")) | LIMITS * bool(limits) | NOT_BEFORE * bool(job["not_before"]) |
             EXPIRES * bool(job["expire"]))
    record = bytes([3 << 5 | flags, job["priority"]])
    if limits:
        record += struct.pack(">H", job["max_attempts"]) + job["expire"].to_bytes(6, "big") + struct.pack(">II", job["lease"], job["run_timeout"])
    if job["not_before"]:
        record += job["not_before"].to_bytes(6, "big")
    return record + pack_spec(job)


def read_record(id_, record, state):
    """What a reader sees of a record and a state."""
    flags, at, due = record[0] & 31, HEAD, number(id_, 6, 6)
    if flags & LIMITS:
        at += 16
    if flags & NOT_BEFORE:
        due = max(due, number(record, at, 6))
        at += 6
    seen = {"priority": record[1], "due": due, "spec": record[at:], "run": 0, "attempts": 0, "progress": 0, "token": 0,
            "last": 0, "start": 0, "stop": 0, "worker": b"", "code": b"", "message": b"", "result": b""}
    if state:
        assert state[1] == flags
        seen |= {"run": number(state, 2, 2), "attempts": number(state, 4, 2), "progress": state[6], "token": number(state, 7, 7),
                 "last": number(state, 14, 7), "start": number(state, 21, 6), "stop": number(state, 27, 6),
                 "due": number(state, 33, 6) or due}
        at = STATE
        for name, size in (("worker", state[49]), ("code", state[50]), ("message", number(state, 51, 2))):
            seen[name] = state[at:at + size]
            at += size
        seen["result"] = state[at:]
    return seen


def pack_lease(lease):
    """A job and its fencing token as a worker's call names them."""
    id_, token = lease
    return id_ + token.to_bytes(7, "big")


def pack_renewal(lease, progress, extension):
    return pack_lease(lease) + bytes([progress]) + extension.to_bytes(6, "big")


def pack_result(lease, outcome, after, code, message, result):
    return (pack_lease(lease) + outcome.encode() + after.to_bytes(6, "big") + struct.pack(">BH", len(code), len(message)) +
            code + message + result)


def delivery_id(job, run):
    """Of a job's callback."""
    return job + bytes([1]) + run.to_bytes(2, "big")


def pack_attempt(token, state, status=200, class_="", message="", start=0, next_=0, reason=1, url="http://x/", address="127.0.0.1:80",
                 phases=(0, 100, 0, 900, 5000)):
    """An attempt as settle takes it; the phases' microseconds are DNS, connect, TLS, first byte and all of it."""
    texts = [text.encode() for text in (address, class_, message, url)]
    return (struct.pack(">BHB", state, status, reason) + token.to_bytes(7, "big") + start.to_bytes(6, "big") + next_.to_bytes(6, "big") +
            struct.pack(">5I", *phases) + struct.pack(">BBHH", *map(len, texts)) + b"".join(texts))


def pack_body(body, content_type="text/xml", traceparent="", url="http://x/"):
    """A body as freeze takes it."""
    texts = [text.encode() for text in (content_type, traceparent, url)]
    return bytes([1]) + struct.pack(">BBH", *map(len, texts)) + b"".join(texts) + body


class Claim:
    """One of a claim's answer."""

    def __init__(self, group, values):
        purge, self.group, self.kind, self.expiry = group[1], group[2].decode(), group[3], group[7]
        self.id, self.token, self.attempts, self.since, self.number, self.body, seen, record, state = values
        self.rule = group[9:]  # URL, secrets, ...; nothing for a job's own endpoint
        self.job = [self.id[:16], seen, purge, record, state] if record else None

    frozen = property(lambda self: bool(self.body))


def claims_of(answer):
    """What a claim gave: those of all its groups."""
    return [Claim(group, group[0][at:at + 9]) for group in answer[2] for at in range(0, len(group[0]), 9)]


class Library:
    """The real library, with the clock of the test."""

    def __init__(self, redis, path):
        source = path.read_text()
        assert source.count("call('TIME')") == 1, "the library reads the time in one place"
        source = source.replace("call('TIME')", "redis.call('MGET', 'test:seconds', 'test:microseconds')")
        self.redis = redis
        self.suffix = re.search(r"local SUFFIX = '(\w+)'", source)[1]
        redis.function_load(source)
        self.now_us = 1_700_000_000_000_000
        self.advance(0)

    now = property(lambda self: self.now_us // 1000)

    def advance(self, ms):
        self.now_us += ms * 1000 + 7
        self.redis.mset({"test:seconds": self.now_us // 1_000_000, "test:microseconds": self.now_us % 1_000_000})

    def calls(self, name, many, partition=0):
        """Calls of one function merged into one command; their answers."""
        values = []
        for arguments in many:
            values += [len(arguments), *arguments]
        return self.redis.fcall(name + self.suffix, 1, "{p%02d}" % partition, *values)

    def call(self, name, *arguments, partition=0):
        return self.calls(name, [arguments], partition)[0]


class Job:
    def __init__(self, id_, queue, new, now):
        self.id, self.queue, self.new = id_, queue, new
        self.priority, self.expire = new["priority"], new["expire"]
        self.due = max(new["not_before"], now)
        self.state, self.place = SUBMITTED, None  # place: ready, delayed, running, purged, ended
        self.attempts = self.run = self.progress = self.start = self.finish = self.token = 0
        self.worker = self.code = self.message = self.result = b""
        self.lease = None
        self.requeued_by = None  # the token of a failure or release that put it back
        self.ending = self.listed = 0  # its place and time among the ended
        self.purge = (0, 0)  # the queue's purge that ended it, and which of its sets it was in

    def score(self):
        boost = self.queue.settings["head_start"] or STRICT
        return self.due - self.priority * boost


class Queue:
    def __init__(self, bucket, name, number_, settings):
        self.bucket, self.name, self.number, self.settings = bucket, name, number_, dict(settings)
        self.paused, self.token, self.purge_ms, self.purges = False, 0, 0, 0
        self.jobs = {}
        self.last = (0, 0)
        self.requests, self.rotate_at, self.current = [{}, {}], 0, 0

    def at(self, *places):
        return [job for job in self.jobs.values() if job.place in places]


class Model:
    """Every method takes what the function takes and returns what it must answer."""

    def __init__(self, clock):
        self.clock = clock
        self.queues = {}
        self.endings = itertools.count()

    now = property(lambda self: self.clock.now)

    def view(self, job):
        if job.place == "running":
            return RUNNING
        if job.place == "purged":
            return CANCEL
        if job.place == "ended":
            return job.state
        return PAUSE if job.queue.paused else SUBMITTED

    def enqueue(self, job):
        job.place = "delayed" if job.due > self.now else "ready"

    def end(self, job, state, code, message=b"", result=b""):
        if job.lease:
            lease = job.lease
            job.start, job.token, job.worker, job.attempts = lease["start"], lease["token"], lease["worker"], lease["attempt"]
            job.progress = lease["progress"]
            job.lease = None
        job.place, job.state, job.finish, job.code, job.message, job.result = "ended", state, self.now, code, message, result
        if state == SUCCESS:
            job.progress = 100
        job.ending, job.listed = next(self.endings), self.now

    def end_attempt(self, job, code, message, result, after, by_worker):
        lease = job.lease
        limit = job.new["max_attempts"] or job.queue.settings["max_attempts"]
        if after is False or lease["attempt"] >= limit:
            self.end(job, FAILED, code, message, result)
            return FAILED
        if after is None:
            s = job.queue.settings
            after = min(s["max_backoff"], s["min_backoff"] * 2 ** min(40, lease["attempt"] - 1))
        job.attempts, job.start, job.worker, job.progress = lease["attempt"], lease["start"], lease["worker"], 0
        job.message, job.due, job.lease = message, self.now + after, None
        job.requeued_by = lease["token"] if by_worker else None
        self.enqueue(job)
        return SUBMITTED

    def submit(self, queue, request_id, digest, news):
        requests = None
        if request_id:
            if self.now >= queue.rotate_at:
                queue.current = 1 - queue.current
                queue.requests[queue.current] = {}
                if self.now >= queue.rotate_at + queue.settings["idempotency"]:
                    queue.requests[1 - queue.current] = {}
                queue.rotate_at = self.now + queue.settings["idempotency"]
            requests = queue.requests[queue.current]
            known = requests.get(request_id) or queue.requests[1 - queue.current].get(request_id)
            if known:
                return (OK, known[1]) if known[0] == digest else (ALREADY_EXISTS, None)
        if len(queue.at("ready", "delayed")) + len(news) > queue.settings["max_size"]:
            return FULL, None
        ms = max(self.now, queue.last[0])
        first = queue.last[1] + 1 if ms == queue.last[0] else 0
        ids = []
        for sequence, new in enumerate(news, first):
            id_ = bytes([1 << 6]) + queue.number.to_bytes(5, "big") + ms.to_bytes(6, "big") + sequence.to_bytes(4, "big")
            job = queue.jobs[id_] = Job(id_, queue, new, ms)
            job.place = "delayed" if job.due > ms else "ready"
            ids.append(id_)
        queue.last = (ms, first + len(news) - 1)
        if requests is not None:
            requests[request_id] = (digest, ids)
        return OK, ids

    def lease(self, queues, want, worker, lease_ms):
        granted = []
        for queue in queues:
            settings = queue.settings
            for job in sorted(queue.at("ready"), key=lambda job: (job.score(), job.id)) if not queue.paused else []:
                if len(granted) >= want or len(queue.at("running")) >= settings["max_concurrent"]:
                    break
                if 0 < job.expire <= self.now:
                    self.end(job, FAILED, b"Expired", b"expire_time has passed")
                    continue
                queue.token = max(self.clock.now_us, queue.token + 1)
                length = lease_ms or job.new["lease"] or settings["lease"]
                hard = self.now + job.new["run_timeout"] if job.new["run_timeout"] else 0
                expiry = min(self.now + length, hard or 1 << 60)
                job.place = "running"
                job.lease = {"token": queue.token, "start": self.now, "hard": hard, "length": length, "expiry": expiry, "progress": 0,
                             "attempt": job.attempts + 1, "worker": worker}
                granted.append((queue.token, expiry, job))
        return granted

    def held(self, job, token):
        return job is not None and job.lease is not None and job.lease["token"] == token

    def renew(self, job, token, progress, extension):
        if job is None:
            return NOT_FOUND, 4
        if not self.held(job, token):
            timed_out = job.state == FAILED and job.code in (b"Expired", b"RunTimeout")
            if job.place in ("ended", "ready", "delayed", "purged"):
                return PRECONDITION, 1 if job.place == "ended" and job.state == CANCEL else 3 if job.place == "ended" and timed_out else 2
            return PRECONDITION, 2
        lease = job.lease
        if 0 < lease["hard"] <= self.now:
            return PRECONDITION, 3
        lease["length"] = extension or lease["length"]
        lease["progress"] = progress
        lease["expiry"] = min(self.now + lease["length"], lease["hard"] or 1 << 60)
        return OK, lease["expiry"]

    def finish(self, job, token, outcome, after, code, message, result):
        if job is None:
            return NOT_FOUND, None
        if self.held(job, token):
            if outcome == "s":
                self.end(job, SUCCESS, b"Success", message, result)
                return OK, SUCCESS
            state = self.end_attempt(job, code, message, result, {"d": None, "n": False, "a": after}[outcome], True)
            return OK, PAUSE if state == SUBMITTED and job.queue.paused else state
        if job.lease is None and job.place == "ended" and job.token == token and job.code == code and job.state in (SUCCESS, FAILED):
            return OK, job.state
        if job.place != "ended" and job.requeued_by == token and outcome != "s":
            return OK, self.view(job)
        return PRECONDITION, None

    def release(self, job, token):
        if job is None:
            return NOT_FOUND
        if self.held(job, token):
            job.worker, job.requeued_by, job.lease = job.lease["worker"], token, None
            job.start = job.progress = 0
            self.enqueue(job)
            return OK
        return OK if job.place in ("ready", "delayed") and job.requeued_by == token else PRECONDITION

    def cancel(self, job):
        if job is None:
            return NOT_FOUND, False
        state = self.view(job)
        if state == CANCEL:
            return OK, False
        if state in (SUCCESS, FAILED):
            return PRECONDITION, False
        self.end(job, CANCEL, b"Cancel")
        return OK, True

    def retry(self, job):
        if job is None:
            return NOT_FOUND, False
        queue = job.queue
        if self.view(job) not in (SUCCESS, FAILED, CANCEL) or 0 < job.expire <= self.now:
            return PRECONDITION, False
        if len(queue.at("ready", "delayed")) >= queue.settings["max_size"]:
            return FULL, False
        job.state, job.run, job.due = SUBMITTED, job.run + 1, self.now
        job.attempts = job.progress = job.start = job.finish = job.token = 0
        job.worker = job.code = job.message = job.result = b""
        job.requeued_by = None
        self.enqueue(job)
        return OK, True

    def prioritise(self, job, priority):
        if job is None:
            return NOT_FOUND
        if self.view(job) not in (SUBMITTED, PAUSE):
            return PRECONDITION
        job.priority = priority
        return OK

    def purge(self, queue):
        waiting = queue.at("ready", "delayed")
        for job in waiting:
            job.purge = (queue.purges, job.place == "delayed")
            job.place = "purged"
        if waiting:
            queue.purge_ms = self.now
            queue.purges += 1
            queue.last = (max(self.now, queue.last[0]) + 1, 0)
        return len(waiting)

    def position(self, job):
        line = sorted(job.queue.at("ready"), key=lambda other: (other.score(), other.id))
        return line.index(job) + 1 if job in line else 0

    def sweep(self):
        """Everything that is due by now, until nothing is."""
        for queue in self.queues.values():
            jobs = list(queue.jobs.values())
            timers = [(job.lease["expiry"], b"L" + job.id, job) for job in jobs if job.lease]
            timers += [(job.expire, b"E" + job.id, job) for job in jobs if job.expire and job.place != "ended"]
            for at, member, job in sorted(timers, key=lambda timer: timer[:2]):
                if at > self.now:
                    continue
                if member[:1] == b"L" and job.lease:
                    code = b"RunTimeout" if 0 < job.lease["hard"] <= self.now else b"LeaseExpired"
                    text = b"run_timeout has passed" if code == b"RunTimeout" else b"the lease ran out without being renewed"
                    self.end_attempt(job, code, text, b"", None, False)
                elif member[:1] == b"E" and job.place in ("ready", "delayed", "running"):
                    self.end(job, FAILED, b"Expired", b"expire_time has passed")
            for job in jobs:
                if job.place == "delayed" and job.due <= self.now:
                    job.place = "ready"
            for job in sorted(queue.at("purged"), key=lambda job: (job.purge, job.due if job.purge[1] else job.score(), job.id)):
                job.place, job.state, job.finish = "ended", CANCEL, queue.purge_ms
                job.code, job.message = b"Cancel", b"the queue was purged"
                job.ending, job.listed = next(self.endings), self.now
            ended = sorted(queue.at("ended"), key=lambda job: job.ending)
            for job, older in zip(ended, itertools.count()):
                kept = len(ended) - older <= queue.settings["keep_count"] and job.listed > self.now - queue.settings["keep_ms"]
                if not kept:
                    del queue.jobs[job.id]
