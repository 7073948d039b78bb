"""Random operations on a queue against a plain model of it: every answer, every order, every count must agree."""
import random
import time

import pytest

from harness import bucket_of, duration, lease_of, state_name, timestamp

LIMIT = 60
CONCURRENT = 12


class Model:
    """A queue as a dictionary of jobs; `place` is the order within a priority."""

    def __init__(self):
        self.jobs, self.clock, self.paused = {}, 0, False

    def tick(self):
        self.clock += 1
        return self.clock

    def of(self, *states):
        return [j for j in self.jobs if self.jobs[j]["state"] in states]

    def line(self):
        return sorted(self.of("waiting"), key=lambda j: (-self.jobs[j]["priority"], self.jobs[j]["place"], j))

    def room(self):
        return LIMIT - len(self.of("waiting", "delayed"))

    def counts(self):
        return tuple(len(self.of(state)) for state in ("waiting", "delayed", "running", "success", "failed", "cancel"))

    def read_state(self, job):
        state = self.jobs[job]["state"]
        if state in ("waiting", "delayed"):
            return "PAUSE" if self.paused else "SUBMITTED"
        return state.upper()


class Play:
    def __init__(self, api, queue, seed):
        self.api, self.queue, self.bucket = api, queue, bucket_of(queue)
        self.chance, self.model, self.old = random.Random(seed), Model(), []

    def submit(self):
        count, model = self.chance.choice((1, 1, 3, 8)), self.model
        late = self.chance.random() < 0.15
        specs = [dict(tag="T", priority=self.chance.randint(0, 3), max_attempts=2, **(
            dict(not_before=timestamp(time.time() + 9999)) if late else {})) for _ in range(count)]
        import grpc
        try:
            results = self.api.job.SubmitJobs(queue=self.queue, jobs=specs).results
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and count > model.room()
            return
        assert count <= model.room()
        for spec, result in zip(specs, results):
            assert result.job_id not in model.jobs
            model.jobs[result.job_id] = dict(state="delayed" if late else "waiting", priority=spec["priority"], place=model.tick(), attempts=0)

    def lease(self):
        model, count = self.model, self.chance.choice((1, 2, 6))
        wanted = [] if model.paused else model.line()[:max(0, min(count, CONCURRENT - len(model.of("running"))))]
        leased = self.api.lease(self.queue, count)
        assert [l.job.id for l in leased] == wanted
        for item in leased:
            job = model.jobs[item.job.id]
            job.update(state="running", lease=item, attempts=job["attempts"] + 1)
            assert item.job.attempts == job["attempts"] and item.job.spec.priority == job["priority"]

    def some(self, *states):
        jobs = self.model.of(*states)
        return self.chance.choice(jobs) if jobs else None

    def finish(self):
        name = self.some("running")
        if not name:
            return
        job, kind = self.model.jobs[name], self.chance.choice(("success", "never", "later"))
        outcome = dict(success={}) if kind == "success" else dict(failure=dict(never=True) if kind == "never" else dict(after=duration(9999)))
        result = self.api.finish(job["lease"], **outcome)
        assert result.status.code == 0
        final = kind == "success" or kind == "never" or job["attempts"] >= 2
        job["state"] = {"success": "success"}.get(kind, "failed") if final else "delayed"
        assert state_name(result.state) == self.model.read_state(name)
        self.old.append(job["lease"])

    def finish_with_an_old_token(self):
        if self.old:
            item = self.chance.choice(self.old)
            before = self.model.jobs[item.job.id]
            if before.get("lease") is item and before["state"] in ("success", "failed", "delayed"):
                return  # its own last finish: repeating it is OK by contract
            assert self.api.finish(item).status.code == 9

    def release(self):
        name = self.some("running")
        if name:
            job = self.model.jobs[name]
            assert self.api.worker.ReleaseJobs(bucket=self.bucket, leases=[lease_of(job["lease"])]).results[0].code == 0
            job.update(state="waiting", attempts=job["attempts"] - 1)
            self.old.append(job["lease"])

    def cancel(self):
        name = self.some("waiting", "delayed", "running", "success", "failed", "cancel")
        if name:
            job = self.model.jobs[name]
            code = self.api.job.CancelJobs(bucket=self.bucket, job_ids=[name]).results[0].code
            assert code == (9 if job["state"] in ("success", "failed") else 0)
            if job["state"] == "running":
                self.old.append(job["lease"])
            if code == 0:
                job["state"] = "cancel"

    def retry(self):
        name = self.some("waiting", "running", "success", "failed", "cancel")
        if name:
            job = self.model.jobs[name]
            time.sleep(0.003)  # the order within one millisecond is by id
            code = self.api.job.RetryJobs(bucket=self.bucket, job_ids=[name]).results[0].code
            time.sleep(0.003)
            if job["state"] in ("waiting", "running"):
                assert code == 9
            elif self.model.room() < 1:
                assert code == 8
            else:
                assert code == 0
                job.update(state="waiting", attempts=0, place=self.model.tick())

    def change_priority(self):
        name = self.some("waiting", "delayed")
        if name:
            priority = self.chance.randint(0, 3)
            self.api.job.ChangePriority(bucket=self.bucket, job_id=name, priority=priority)
            self.model.jobs[name]["priority"] = priority

    def pause_or_resume(self):
        self.model.paused = not self.model.paused
        (self.api.queue.PauseQueue if self.model.paused else self.api.queue.ResumeQueue)(name=self.queue)

    def look(self):
        counts = self.api.queue.GetQueue(name=self.queue).queue.counts
        assert (counts.waiting, counts.delayed, counts.running, counts.success, counts.failed, counts.cancel) == self.model.counts()
        names = self.chance.sample(sorted(self.model.jobs), min(20, len(self.model.jobs)))
        if names:
            jobs = self.api.job.GetJobs(bucket=self.bucket, job_ids=names).jobs
            assert [(j.id, state_name(j.state)) for j in jobs] == [(n, self.model.read_state(n)) for n in names]
        line = self.model.line()
        if line:
            place = self.chance.randrange(len(line))
            answer = self.api.job.ExplainJob(bucket=self.bucket, job_id=line[place])
            assert (answer.position, answer.waiting_count, answer.running_count) == (place + 1, len(line), len(self.model.of("running")))


@pytest.mark.parametrize("seed", range(6))
def test_random_operations_agree_with_a_plain_model(api, bucket, seed):
    queue = api.make_queue(bucket, max_size=LIMIT, max_concurrent=CONCURRENT, default_lease=duration(3600))
    play = Play(api, queue, seed)
    actions = [play.submit] * 5 + [play.lease] * 5 + [play.finish] * 5 + [play.release, play.cancel, play.retry, play.change_priority,
                                                                       play.finish_with_an_old_token, play.look] * 2 + [play.pause_or_resume]
    done = []
    for _ in range(500):
        action = play.chance.choice(actions)
        done.append(action.__name__)
        try:
            action()
        except AssertionError as error:
            raise AssertionError(f"after {len(done)} operations, the last {done[-8:]}") from error
    play.look()
