"""`ringback worker`, which leases jobs and runs a command for each, against the real server."""
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import BUILD, PATIENCE, eventually, state_name

TOOL = BUILD / "bin" / "ringback"


class Worker:
    """A running `ringback worker`, whose events are read as they come."""

    def __init__(self, server, queue, command, *options):
        self.process = subprocess.Popen(
            [TOOL, "--server", server.target, "worker", "--json", "--queue", queue, "--exec", command, *map(str, options)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events = []
        self.errors = ""
        self.readers = [threading.Thread(target=self._read_events, daemon=True), threading.Thread(target=self._read_errors, daemon=True)]
        for reader in self.readers:
            reader.start()

    def _read_events(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def _read_errors(self):
        self.errors = self.process.stderr.read()

    def of(self, event):
        return [e for e in self.events if e["event"] == event]

    def wait(self, event, count=1, seconds=15):
        return eventually(lambda: len(self.of(event)) >= count and self.of(event), seconds, what=f"{count} {event}")

    def end(self, seconds=20):
        status = self.process.wait(seconds * PATIENCE)
        for reader in self.readers:
            reader.join(5 * PATIENCE)
        return status


def end_all(workers):
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def work(server, api):
    started = []

    def start(queue, command, *options):
        started.append(Worker(server, queue, command, *options))
        return started[-1]

    yield start
    end_all(started)


def pending(pid, number):
    with open(f"/proc/{pid}/status") as file:
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> number - 1 & 1 for mask in masks)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_job_reaches_its_command_and_the_result_comes_back(api, queue, bucket, work):
    job, = api.submit(queue, tag="Echo", input=dict(object=dict(object="a b/c.mp4")), user_data="mine", priority=7,
                      operation=dict(xml="<A>é</A>"), traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    worker = work(queue, 'python3 -c "import json,os,sys; j=json.load(sys.stdin); print(json.dumps([j, dict(os.environ)]))"', "--count", 1)
    assert worker.end() == 0, worker.errors
    ended = api.get(job, queue)
    assert api.state(job, queue) == "SUCCESS" and ended.result.opaque.content_type.startswith("text/plain"), ended
    seen, environment = json.loads(ended.result.opaque.data)
    assert seen["id"] == job and seen["spec"]["operation"]["xml"] == "<A>é</A>" and seen["spec"]["input"]["object"]["object"] == "a b/c.mp4"
    expected = dict(RINGBACK_JOB_ID=job, RINGBACK_BUCKET=bucket, RINGBACK_QUEUE="q", RINGBACK_TAG="Echo", RINGBACK_OBJECT="a b/c.mp4",
                    RINGBACK_INPUT_BUCKET=bucket, RINGBACK_USER_DATA="mine", RINGBACK_PRIORITY="7", RINGBACK_ATTEMPT="1",
                    RINGBACK_PROGRESS_FD="3", TRACEPARENT="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert {k: environment.get(k) for k in expected} == expected
    assert "RINGBACK_INPUT_URL" not in environment


def test_what_begins_like_xml_is_an_xml_result(api, queue, work):
    job, = api.submit(queue)
    assert work(queue, "echo; echo '<Out>1 &amp; 2</Out>'", "--count", 1).end() == 0
    assert api.get(job, queue).result.xml == "<Out>1 &amp; 2</Out>"


def test_what_only_begins_like_xml_is_kept_as_it_is(api, queue, work):
    job, = api.submit(queue)
    assert work(queue, "echo '<Out>'", "--count", 1).end() == 0
    assert api.get(job, queue).result.opaque.data == b"<Out>"


@pytest.mark.parametrize("size, code", [(70000, "InvalidResult"), (2000000, "ResultTooLarge")])
def test_a_result_that_the_server_does_not_take_fails_the_job_for_good(api, queue, work, size, code):
    job, = api.submit(queue, max_attempts=5)
    assert work(queue, f"head -c {size} /dev/zero | tr '\\0' x", "--count", 1).end() == 0
    assert (api.state(job, queue), api.get(job, queue).code) == ("FAILED", code)


@pytest.mark.parametrize("command, state, code, message", [
    ("echo why >&2; exit 65", "FAILED", "ExitStatus65", "why"),
    ("echo first >&2; echo last >&2; exit 3", "SUBMITTED", None, "first\nlast"),
    ("exit 75", "SUBMITTED", None, ""),
    ("echo code Odd >&3; echo 'message in words' >&3; echo noise >&2; exit 65", "FAILED", "Odd", "in words"),
])
def test_the_exit_status_says_whether_to_try_again(api, queue, work, command, state, code, message):
    job, = api.submit(queue, max_attempts=3)
    assert work(queue, command, "--count", 1).end() == 0
    seen = api.get(job, queue)
    assert (api.state(job, queue), seen.message) == (state, message)
    assert code is None or seen.code == code


def test_a_command_that_dies_of_a_signal_fails(api, queue, work):
    job, = api.submit(queue, max_attempts=1)
    assert work(queue, "kill -9 $$", "--count", 1).end() == 0
    assert (api.state(job, queue), api.get(job, queue).code) == ("FAILED", "Signal9")


def test_progress_reaches_the_job_while_it_runs(api, queue, work, tmp_path):
    job, = api.submit(queue)
    work(queue, f"echo progress 42 >&3; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", "--count", 1)
    eventually(lambda: api.get(job, queue).progress == 42, what="progress 42")
    (tmp_path / "go").touch()
    eventually(lambda: api.state(job, queue) == "SUCCESS")
    assert api.get(job, queue).progress == 100


def test_the_lease_is_renewed_while_the_command_runs(api, queue, work):
    job, = api.submit(queue, max_attempts=1)
    worker = work(queue, "sleep 12", "--count", 1, "--lease", "9s")
    assert worker.end() == 0
    assert (api.state(job, queue), api.get(job, queue).attempts) == ("SUCCESS", 1), worker.events


def test_cancelling_kills_the_command_s_whole_process_group(api, queue, bucket, work, tmp_path):
    job, = api.submit(queue)
    worker = work(queue, f"(trap '' TERM; echo $$ >{tmp_path}/shell; sleep 300) & sleep 300 & echo $! >{tmp_path}/child; wait", "--count", 1,
                  "--lease", "9s", "--grace", "300ms")
    eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    child = int((tmp_path / "child").read_text())
    group = os.getpgid(child)
    assert group != os.getpgid(worker.process.pid)
    assert api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job]).results[0].code == 0
    assert worker.end() == 0
    assert worker.of("stopped")[0]["reason"] == "cancelled" and api.state(job, queue) == "CANCEL"

    def gone():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return not alive(child)
    eventually(gone, 3)


def test_a_command_whose_lease_was_lost_is_killed_and_reports_nothing(api, queue, work):
    job, = api.submit(queue, max_attempts=3)
    worker = work(queue, "sleep 300", "--count", 1, "--lease", "7s", "--grace", "200ms")
    worker.wait("leased")
    # The worker is frozen for longer than its lease; the job goes to another.
    os.kill(worker.process.pid, signal.SIGSTOP)
    leased = eventually(lambda: api.lease(queue, worker="other"), 20)[0]
    os.kill(worker.process.pid, signal.SIGCONT)
    assert worker.end() == 0
    assert worker.of("stopped")[0]["reason"] == "lease lost"
    assert api.finish(leased, success={}).status.code == 0 and api.state(job, queue) == "SUCCESS"


def test_sigterm_finishes_what_runs_and_leases_no_more(api, queue, work, tmp_path):
    first, = api.submit(queue)
    worker = work(queue, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    worker.wait("leased")
    second, = api.submit(queue)
    worker.process.terminate()
    time.sleep(0.5)
    assert worker.process.poll() is None and api.state(first, queue) == "RUNNING"
    (tmp_path / "go").touch()
    assert worker.end() == 0
    assert api.state(first, queue) == "SUCCESS" and api.state(second, queue) == "SUBMITTED"


def test_a_second_sigterm_gives_the_job_back_uncounted(api, queue, work):
    job, = api.submit(queue, max_attempts=1)
    worker = work(queue, "sleep 300", "--grace", "300ms")
    worker.wait("leased")
    worker.process.terminate()
    eventually(lambda: not pending(worker.process.pid, signal.SIGTERM), what="the first is taken")
    time.sleep(1)  # what comes within 300 ms of the first is taken for the same
    worker.process.terminate()
    assert worker.end() == 0
    assert worker.of("released")
    seen = api.get(job, queue)
    assert (api.state(job, queue), seen.attempts) == ("SUBMITTED", 0)


def test_an_idle_worker_ends_at_once(queue, work):
    worker = work(queue, "true")
    time.sleep(0.7)
    worker.process.terminate()
    assert worker.end(2.5) == 0


def test_concurrency_runs_jobs_side_by_side(api, queue, work, tmp_path):
    api.submit(queue, 3)
    # Each waits until all three are there.
    worker = work(queue, f"mkdir {tmp_path}/$RINGBACK_JOB_ID; while [ $(ls {tmp_path} | wc -l) -lt 3 ]; do sleep 0.05; done", "--concurrency", 3,
                  "--until-empty")
    assert worker.end() == 0
    assert len(worker.of("succeeded")) == 3


def test_one_worker_takes_jobs_in_order_and_ends_when_there_are_none(api, queue, work):
    low = api.submit(queue, 2, priority=1)
    high = api.submit(queue, 2, priority=9)
    worker = work(queue, "true", "--until-empty")
    assert worker.end() == 0
    assert [e["job"] for e in worker.of("leased")] == high + low


def test_a_worker_of_an_unknown_queue_says_so(bucket, work):
    worker = work(f"buckets/{bucket}/queues/none", "true")
    assert worker.end() == 3, worker.errors
    assert "none" in worker.errors or "queue" in worker.errors


def test_a_worker_waits_for_a_server_that_comes_back(start_server, stubs):
    server = start_server()
    queue = server.api.make_queue("b")
    worker = Worker(server, queue, "true", "--count", 1)
    try:
        time.sleep(0.5)
        assert server.stop() == 0
        server.start()
        job, = server.api.submit(queue)
        assert worker.end(40) == 0
        assert server.api.state(job, queue) == "SUCCESS"
    finally:
        end_all([worker])


@pytest.fixture
def lonely(start_server):
    """Starts a worker with a job whose server has died."""
    started = []

    def start(command, *options):
        server = start_server()
        queue = server.api.make_queue("b")
        worker = Worker(server, queue, command, *options)
        started.append(worker)
        server.api.submit(queue)
        worker.wait("leased")
        time.sleep(0.3)
        server.kill()
        return worker

    yield start
    end_all(started)


def test_a_worker_whose_result_nobody_takes_can_be_ended(lonely, tmp_path):
    worker = lonely(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", "--lease", "7s")
    (tmp_path / "go").touch()
    worker.wait("refused", seconds=60)
    worker.process.terminate()
    assert worker.end() == 0, worker.errors


def test_a_draining_worker_ends_when_its_result_is_lost(lonely, tmp_path):
    worker = lonely(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", "--lease", "7s")
    worker.process.terminate()
    (tmp_path / "go").touch()
    assert worker.end(60) == 0 and worker.of("refused"), worker.errors


def test_the_third_signal_ends_a_worker_whatever_it_waits_for(lonely, tmp_path):
    worker = lonely(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", "--lease", "3600s")
    (tmp_path / "go").touch()  # the result would be told for an hour
    time.sleep(1)
    for _ in range(2):
        worker.process.terminate()
        eventually(lambda: not pending(worker.process.pid, signal.SIGTERM), what="it is taken")
        time.sleep(1)
    assert worker.process.poll() is None
    worker.process.terminate()
    assert worker.end(15) == 0 and worker.of("refused"), (worker.events, worker.errors)


def test_the_third_signal_ends_a_command_that_heeds_none_too(lonely):
    worker = lonely("trap '' TERM; while :; do sleep 1; done", "--grace", "1h", "--lease", "3600s")
    for _ in range(3):
        worker.process.terminate()
        eventually(lambda: worker.process.poll() is not None or not pending(worker.process.pid, signal.SIGTERM), what="it is taken")
        time.sleep(1)
    assert worker.end(15) == 0 and worker.of("released"), (worker.events, worker.errors)


def test_a_killed_worker_s_job_comes_back_at_once_and_uncounted(api, queue, work):
    [job] = api.submit(queue)
    worker = work(queue, "exec sleep 60")
    worker.wait("leased")
    eventually(lambda: api.state(job, queue) == "RUNNING")
    time.sleep(0.3)
    worker.process.kill()
    [leased] = api.lease(queue, wait=30)
    assert leased.job.id == job and leased.job.attempts == 1


def test_a_command_outlives_the_server_and_its_result_reaches_the_next_one(start_server, start_redis, tmp_path):
    redis = start_redis()
    server = start_server(redis=redis.url)
    queue = server.api.make_queue("b")
    worker = Worker(server, queue, f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo done", "--count", 1, "--lease", "60s")
    try:
        [job] = server.api.submit(queue)
        worker.wait("leased")
        time.sleep(0.3)
        server.kill()
        server.api.close()
        server.api_ = None
        server.start()
        (tmp_path / "go").touch()
        assert worker.end(40) == 0
        found = server.api.get(job, queue)
        assert state_name(found.state) == "SUCCESS" and found.attempts == 1
    finally:
        end_all([worker])


def test_a_polling_worker_does_the_same_by_single_calls(api, queue, work):
    ids = api.submit(queue, 2)
    worker = work(queue, "echo 'progress 50' >&3; sleep 1.5; echo done", "--poll", "--count", 2, "--concurrency", 2)
    assert worker.end() == 0
    assert len(worker.of("succeeded")) == 2 and worker.of("progress")
    assert {api.state(job, queue) for job in ids} == {"SUCCESS"}
