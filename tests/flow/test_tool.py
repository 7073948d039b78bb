"""The command-line tool, every command of it, against the real server."""
import base64
import json
import os
import pty
import re
import select
import shlex
import subprocess
import time

import pytest

from harness import BUILD, PATIENCE, SLOW, eventually

TOOL = BUILD / "bin" / "ringback"
OK, FAILED, USAGE, NOT_FOUND, UNAVAILABLE = range(5)


class Done:
    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return self.out.splitlines()


class Tool:
    def __init__(self, target, bucket=None):
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RINGBACK_")} | {"RINGBACK_SERVER": target}
        if bucket:
            self.environment["RINGBACK_BUCKET"] = bucket

    def __call__(self, *arguments, expect=OK, input=None, seconds=30):
        done = Done(subprocess.run([TOOL, *map(str, arguments)], env=self.environment, input=input, capture_output=True, text=True,
                                   stdin=subprocess.DEVNULL if input is None else None, timeout=seconds * PATIENCE))
        assert done.status == expect, f"{arguments}: {done.status} instead of {expect}\n{done.out}\n{done.err}"
        assert "Sanitizer" not in done.err, done.err
        return done

    def start(self, *arguments, **options):
        return subprocess.Popen([TOOL, *map(str, arguments)], env=self.environment, stdin=subprocess.DEVNULL, text=True,
                                **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options))


@pytest.fixture
def tool(server, api, bucket):
    return Tool(server.target, bucket)


@pytest.fixture
def q(tool):
    tool("queue", "create", "q")
    return "q"


# --- the command line itself ---------------------------------------------------------------------------------------------------

def test_help_stands_at_every_level_and_names_the_exit_statuses(tool):
    for arguments in ([], ["queue"], ["job", "submit"], ["listen"]):
        out = tool(*arguments, "--help").out
        assert out.startswith("Usage: ringback")
    assert "Exit status: 0 success" in tool("--help").out
    assert "--operation" in tool("job", "submit", "--help").out


def test_every_command_in_the_help_has_a_help_of_its_own(tool):
    commands = re.findall(r"^  ([a-z]+)( \.\.\.)?", tool("--help").out.split("Commands:")[1].split("Options")[0], re.M)
    assert len(commands) >= 9
    for name, group in commands:
        names = re.findall(r"^  ([a-z-]+)", tool(name, "--help").out.split("Commands:")[1], re.M) if group else [None]
        for second in names:
            assert tool(*filter(None, (name, second)), "--help").out.startswith(f"Usage: ringback {name}")


@pytest.mark.parametrize("line", ["", "queue", "fly", "queue show", "queue show a b", "job list q --state lost", "queue list --colour",
                                  "job submit --tag", "job submit", "job submit --tag T --priority 300", "job retry -q q",
                                  "job submit --tag T --object a --url http://b", "job cancel", "job submit --tag T --expire soon"])
def test_wrong_usage_is_exit_status_2_and_one_line(tool, line):
    done = tool(*line.split(), expect=USAGE)
    assert done.err.startswith("ringback: ") and done.out == ""


def test_a_plain_queue_name_needs_a_bucket_and_a_full_name_does_not(server, api, bucket):
    tool = Tool(server.target)
    assert "--bucket" in tool("queue", "create", "q", expect=USAGE).err
    tool("queue", "create", f"buckets/{bucket}/queues/q")
    tool("queue", "show", "q", "--bucket", bucket)
    tool("-b", f"buckets/{bucket}", "queue", "show", "q")


def test_a_server_that_is_not_there_is_exit_status_4(tool):
    begun = time.monotonic()
    assert tool("queue", "list", "--server", "127.0.0.1:1", "--timeout", "600ms", expect=UNAVAILABLE).err.startswith("ringback: ")
    assert time.monotonic() - begun < 60 * SLOW


def test_health_and_version(tool):
    assert tool("health").out == "serving\n"
    assert tool("health", "--json").json["status"] == "SERVING"
    assert tool("health", "--service", "ringback.v1.JobService").out == "serving\n"
    tool("health", "--service", "no.Such", expect=FAILED)
    tool("health", "--server", "127.0.0.1:1", expect=FAILED)
    assert re.fullmatch(r"ringback \d+\.\d+\.\d+\n", tool("version").out)
    assert tool("--version").out == tool("version").out == tool("job", "submit", "--version").out
    assert tool("--json", "--version").json == tool("version", "--json").json


# --- queues -----------------------------------------------------------------------------------------------------------------------

def test_activate_makes_the_default_queues(tool):
    assert [line.split()[0] for line in tool("activate").lines[1:]] == ["queue-1", "queue-speech-1", "queue-doc-process-1"]
    assert [queue["feature"] for queue in tool("activate", "speech", "--json").json["queues"]] == ["FEATURE_SPEECH"]
    tool("activate", "flying", expect=USAGE)


def test_a_queue_s_whole_life(tool):
    tool("queue", "create", "hot", "--feature", "speech", "--max-size", "10", "--max-concurrent", "3", "--lease", "30s", "--max-attempts", "2",
         "--min-backoff", "1s", "--max-backoff", "1m", "--retention-age", "1d", "--retention-count", "7", "--idempotency-window", "1h",
         "--head-start", "90s")
    queue = tool("queue", "show", "hot", "--json").json["queue"]
    assert (queue["feature"], queue["maxSize"], queue["maxConcurrent"], queue["defaultLease"]) == ("FEATURE_SPEECH", "10", "3", "30s")
    assert queue["retryPolicy"] == dict(maxAttempts=2, minBackoff="1s", maxBackoff="60s")
    assert queue["retention"] == dict(maxAge="86400s", maxCount="7")
    assert queue["idempotencyWindow"] == "3600s" and queue["ordering"] == dict(headStart="90s")
    assert "already" in tool("queue", "create", "hot", expect=FAILED).err

    etag = tool("queue", "update", "hot", "--max-concurrent", "4", "--max-attempts", "9", "--json").json["queue"]["etag"]
    queue = tool("queue", "show", "hot", "--json").json["queue"]
    assert queue["maxConcurrent"] == "4" and queue["retryPolicy"] == dict(maxAttempts=9, minBackoff="1s", maxBackoff="60s")
    tool("queue", "update", "hot", "--max-size", "11", "--etag", "stale", expect=FAILED)
    tool("queue", "update", "hot", "--max-size", "11", "--etag", etag)
    tool("queue", "update", "hot", expect=USAGE)

    tool("queue", "pause", "hot")
    assert re.search(r"State +Paused", tool("queue", "show", "hot").out)
    tool("queue", "resume", "hot")
    assert re.search(r"State +Active", tool("queue", "show", "hot").out)
    for _ in range(3):
        tool("job", "submit", "-q", "hot", "-t", "T")
    assert tool("queue", "list", "--json").json["queues"][0]["counts"]["waiting"] == "3"
    tool("queue", "delete", "hot", expect=FAILED)
    assert tool("queue", "purge", "hot", "--json").json["purgedCount"] == "3"
    tool("queue", "delete", "hot", "--force")
    tool("queue", "show", "hot", expect=NOT_FOUND)


def test_queues_are_listed_beyond_one_page(tool, api, bucket):
    for i in range(103):
        api.queue.CreateQueue(queue=dict(name=f"buckets/{bucket}/queues/q{i:03}", feature="FEATURE_MEDIA"))
    names = [f"q{i:03}" for i in range(103)]
    assert tool("queue", "list", "--names").lines == names
    assert [line.split()[0] for line in tool("queue", "list").lines[1:]] == names
    assert len(tool("queue", "list", "--json").json["queues"]) == 103


# --- submitting ---------------------------------------------------------------------------------------------------------------------

def test_submit_carries_every_option(tool, q, tmp_path):
    (tmp_path / "operation.xml").write_text("<Format>mp4</Format>")
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    job = tool("job", "submit", "-q", q, "-t", "Transcode", "--object", "in/a.mp4", "--input-bucket", "other", "--region", "north", "--operation",
               f"@{tmp_path}/operation.xml", "--user-data", "mine", "--priority", "9", "--not-before", "2026-01-01T00:00:00Z", "--expire", "1h",
               "--lease", "20s", "--run-timeout", "5m", "--max-attempts", "3", "--callback", "http://127.0.0.1:9/x", "--callback-format", "json",
               "--traceparent", trace, "--request-id", "r1").out.strip()
    spec = tool("job", "get", job, "--json").json["jobs"][0]["spec"]
    expire = spec.pop("expireTime")
    assert spec == dict(tag="Transcode", input=dict(object=dict(bucket="other", object="in/a.mp4", region="north")),
                        operation=dict(xml="<Format>mp4</Format>"), userData="mine", priority=9, notBefore="2026-01-01T00:00:00Z", lease="20s",
                        runTimeout="300s", maxAttempts=3, callback=dict(url="http://127.0.0.1:9/x", format="CALLBACK_FORMAT_JSON"),
                        traceparent=trace)
    assert 3500 < time.mktime(time.strptime(expire[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - time.time() < 3700
    shown = tool("job", "get", job).out
    for text in ("other/in/a.mp4", "<Format>mp4</Format>", "mine", "http://127.0.0.1:9/x"):
        assert text in shown


def test_operations_come_from_standard_input_and_as_bytes(tool, q, tmp_path):
    job = tool("job", "submit", "-q", q, "-t", "T", "--operation", "-", input="<A>1</A>").out.strip()
    assert tool("job", "get", job, "--json").json["jobs"][0]["spec"]["operation"] == dict(xml="<A>1</A>")
    (tmp_path / "data").write_bytes(bytes(range(256)))
    job = tool("job", "submit", "-q", q, "-t", "T", "--data", tmp_path / "data", "--content-type", "application/x-y", "--url", "http://example.com/a",
               "--callback", "none").out.strip()
    spec = tool("job", "get", job, "--json").json["jobs"][0]["spec"]
    assert base64.b64decode(spec["operation"]["opaque"]["data"]) == bytes(range(256))
    assert spec["operation"]["opaque"]["contentType"] == "application/x-y"
    assert spec["input"] == dict(url="http://example.com/a") and spec["callback"]["none"] is True
    assert "no-such-file" in tool("job", "submit", "-q", q, "-t", "T", "--data", tmp_path / "no-such-file", expect=USAGE).err


def test_a_job_goes_to_its_feature_s_default_queue(tool):
    tool("activate")
    assert tool("job", "submit", "-f", "speech", "-t", "T").out[0] == "s"
    assert tool("job", "submit", "-f", "document", "-t", "T").out[0] == "d"
    assert tool("job", "submit", "-t", "T").out[0] == "j"


def test_the_same_request_id_is_the_same_job(tool, q):
    first = tool("job", "submit", "-q", q, "-t", "T", "--request-id", "r").out
    assert tool("job", "submit", "-q", q, "-t", "T", "--request-id", "r").out == first
    assert tool("job", "submit", "-q", q, "-t", "T", "--request-id", "r", "--json").json["repeatedRequest"] is True
    tool("job", "submit", "-q", q, "-t", "Other", "--request-id", "r", expect=FAILED)


def test_a_refused_field_is_named_on_a_line_of_its_own(tool, q):
    err = tool("job", "submit", "-q", q, "-t", "bad tag", "--operation", "<a>", expect=USAGE).err.splitlines()
    assert err[0].startswith("ringback: ")
    assert any(line.startswith("  job.tag: ") for line in err) and any(line.startswith("  job.operation") for line in err)


def test_many_jobs_from_lines_of_json(tool, q, tmp_path):
    lines = [json.dumps(dict(tag="A", priority=i % 200, userData=str(i))) for i in range(600)]
    (tmp_path / "jobs").write_text("\n".join(lines) + "\n\n")
    ids = tool("job", "submit", "-q", q, "--jsonl", tmp_path / "jobs", "--max-attempts", "2").lines
    assert len(set(ids)) == 600
    jobs = tool("job", "list", q, "--limit", "0", "--oldest-first", "--full", "--json").json["jobs"]
    assert [job["id"] for job in jobs] == ids
    assert [job["spec"]["userData"] for job in jobs] == [str(i) for i in range(600)]
    assert {job["spec"]["maxAttempts"] for job in jobs} == {2}


def test_lines_that_are_wrong_are_named_and_the_rest_go_through(tool, q):
    done = tool("job", "submit", "-q", q, "-t", "Default", "--jsonl", "-", input='{}\n{"tag":"bad tag"}\n{"tag":"Own"}\n', expect=FAILED)
    assert "ringback: line 2: " in done.err and len(done.lines) == 2
    done = tool("job", "submit", "-q", q, "--jsonl", "-", input='{"tag":"T"}\n{"tagg":"T"}\n{"tag":"T"}\nno\n', expect=FAILED)
    assert "line 2: tagg: no such field" in done.err and "line 4: " in done.err and len(done.lines) == 2
    tool("job", "submit", "-q", q, "--jsonl", "-", input='{"tagg":"T"}\n', expect=FAILED)
    for nothing in ("", "\n \n"):
        assert "no job" in tool("job", "submit", "-q", q, "--jsonl", "-", input=nothing, expect=USAGE).err
    results = tool("job", "submit", "-q", q, "--json", "--jsonl", "-", input='{"tag":"T"}\n').json["results"]
    assert results[0]["jobId"] and results[0]["status"]["code"] == 0


# --- waiting and watching --------------------------------------------------------------------------------------------------------------

def run_jobs(api, queue, outcomes):
    """A worker that ends leased jobs as told by their tag."""
    for _ in range(len(outcomes)):
        leased = api.lease(queue, wait=10)[0]
        api.finish(leased, **outcomes[leased.job.spec.tag])


def test_wait_follows_a_job_to_its_end(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    waiting = tool.start("job", "submit", "-q", q, "-t", "Good", "--wait")
    run_jobs(api, queue, dict(Good=dict(success={})))
    out, err = waiting.communicate(timeout=20 * PATIENCE)
    assert waiting.returncode == OK and out.splitlines()[-1].endswith("Success"), (out, err)

    waiting = tool.start("job", "submit", "-q", q, "-t", "Bad", "--wait", "--json")
    run_jobs(api, queue, dict(Bad=dict(failure=dict(code="Broken", message="it broke", never=True))))
    out, err = waiting.communicate(timeout=20 * PATIENCE)
    assert waiting.returncode == FAILED
    last = json.loads(out.splitlines()[-1])
    assert (last["state"], last["code"], last["message"]) == ("JOB_STATE_FAILED", "Broken", "it broke")


def test_waiting_gives_up_in_time(tool, q):
    done = tool("job", "submit", "-q", q, "-t", "T", "--wait", "--wait-timeout", "300ms", expect=UNAVAILABLE)
    assert "in time" in done.err


def test_watch_ends_with_the_last_of_its_jobs(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    ids = api.submit(queue, 3)
    watching = tool.start("job", "watch", *ids, ids[0], "--json")
    for _ in range(3):
        api.finish(api.lease(queue)[0])
    out, err = watching.communicate(timeout=20 * PATIENCE)
    assert watching.returncode == OK, err
    ended = [json.loads(line)["jobId"] for line in out.splitlines() if json.loads(line)["state"] == "JOB_STATE_SUCCESS"]
    assert sorted(ended) == sorted(ids)
    tool("job", "watch", *ids)
    tool("job", "watch", ids[0], ids[0][:-4] + "ffff", expect=NOT_FOUND)


def test_watch_follows_hundreds_of_jobs(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    ids = api.submit(queue, 300)
    watching = tool.start("job", "watch", *ids)
    done = 0
    while done < 300:
        leased = api.lease(queue, count=100)
        api.worker.FinishJobs(bucket=f"buckets/{bucket}", jobs=[
            dict(lease=dict(job_id=one.job.id, fencing_token=one.fencing_token), success={}) for one in leased])
        done += len(leased)
    out, err = watching.communicate(timeout=30 * PATIENCE)
    assert watching.returncode == OK and out.count("Success") == 300, err


def test_watch_follows_a_queue_until_it_is_ended(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    assert "nope" in tool("job", "watch", "-q", "nope", expect=NOT_FOUND).err
    watching = tool.start("job", "watch", "-q", q, "--json")
    try:
        def seen():
            api.submit(queue)
            return select.select([watching.stdout], [], [], 0.2)[0]
        eventually(seen)
        assert json.loads(watching.stdout.readline())["queue"] == queue
    finally:
        watching.terminate()  # not SIGINT, which a shell's background jobs ignore
        watching.communicate(timeout=10 * PATIENCE)


def test_bars_are_drawn_on_a_terminal_only(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    job = api.submit(queue)[0]
    ours, theirs = pty.openpty()
    tool.environment["TERM"] = "xterm"
    watching = tool.start("job", "watch", job, stdout=theirs, stderr=theirs)
    os.close(theirs)
    leased = api.lease(queue)[0]
    api.worker.RenewLeases(bucket=f"buckets/{bucket}", renewals=[
        dict(lease=dict(job_id=job, fencing_token=leased.fencing_token), progress=50)])
    text = b""

    def read(until):
        nonlocal text
        if select.select([ours], [], [], 0.1)[0]:
            try:
                text += os.read(ours, 65536)
            except OSError:  # the other side is closed
                return True
        return until in text
    eventually(lambda: read(b"]  50%"), what="the bar")
    api.finish(leased)
    eventually(lambda: read(b"Success"), what="the end")
    assert watching.wait(10 * PATIENCE) == OK
    os.close(ours)
    assert b"\033[32m" in text and b"[############------------]" in text


# --- reading and changing -----------------------------------------------------------------------------------------------------------------

def test_get_names_what_does_not_exist(tool, api, bucket, q):
    ids = api.submit(f"buckets/{bucket}/queues/q", 2)
    other = ids[0][:-4] + "ffff"
    done = tool("job", "get", *ids, other, expect=NOT_FOUND)
    assert other in done.err and all(job in done.out for job in ids)
    answer = tool("job", "get", *ids, other, "--json", expect=NOT_FOUND).json
    assert [job["id"] for job in answer["jobs"]] == ids and answer["nonExistJobIds"] == [other]


def test_get_asks_again_for_what_does_not_fit(tool, api, bucket, q):
    ids = [api.submit(f"buckets/{bucket}/queues/q", operation=dict(opaque=dict(data=b"x" * 60000)))[0] for _ in range(60)]
    assert [job["id"] for job in tool("job", "get", *ids, "--json").json["jobs"]] == ids


def test_list_filters_and_limits(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    a, b = api.submit(queue, 3, tag="A"), api.submit(queue, 2, tag="B")
    tool("job", "cancel", a[0])
    jobs = lambda *options: [job["id"] for job in tool("job", "list", q, "--json", *options).json["jobs"]]
    assert jobs() == (a + b)[::-1]
    assert jobs("--oldest-first", "--limit", "2") == a[:2]
    assert jobs("--tag", "B") == b[::-1]
    assert jobs("--state", "cancel") == a[:1]
    assert jobs("--state", "submitted", "--state", "cancel", "--tag", "A") == a[::-1]
    assert jobs("--since", str(int(time.time()) + 100)) == []
    assert len(tool("job", "list", q).lines) == 6
    tool("job", "list", "none", expect=NOT_FOUND)
    tool("job", "list", expect=USAGE)


def test_explain_and_priority(tool, api, bucket, q):
    first, second = api.submit(f"buckets/{bucket}/queues/q", 2)
    assert "1 of 2" in tool("job", "explain", first).out
    tool("job", "priority", second, "7")
    answer = tool("job", "explain", second, "--json").json
    assert (answer["position"], answer["reason"], answer["job"]["spec"]["priority"]) == ("1", "WAIT_REASON_TURN", 7)
    tool("job", "priority", second, "256", expect=USAGE)
    tool("job", "explain", first[:-4] + "ffff", expect=NOT_FOUND)


def test_cancel_and_retry_by_id(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    ids = api.submit(queue, 3)
    assert tool("job", "cancel", *ids[:2]).out == "2 cancelled\n"
    assert api.state(ids[0], queue) == "CANCEL" and api.state(ids[2], queue) == "SUBMITTED"
    done = tool("job", "cancel", ids[0], ids[0][:-4] + "ffff", "--json", expect=NOT_FOUND).json
    assert [row["code"] for row in done["results"]] == [0, 5]
    assert tool("job", "cancel", ids[0]).out == "0 cancelled, 1 earlier\n"
    assert tool("job", "retry", ids[0]).out == "1 put back\n"
    assert api.state(ids[0], queue) == "SUBMITTED"
    assert ids[2] in tool("job", "retry", ids[2], expect=FAILED).err


def test_cancel_and_retry_by_filter_go_on_to_the_end(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    api.submit(queue, 700, tag="A")
    kept = api.submit(queue, 5, tag="B")
    assert tool("job", "cancel", "-q", q, "--tag", "A").out == "700 cancelled\n"
    assert tool("job", "retry", "-q", q, "--state", "cancel", "--json").json["retriedCount"] == 700
    assert [job["id"] for job in tool("job", "list", q, "--tag", "B", "--state", "submitted", "--oldest-first", "--json").json["jobs"]] == kept


def test_retry_failed_puts_only_the_failed_back(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    ids = api.submit(queue, 3)
    for leased in api.lease(queue, count=2):
        api.finish(leased, failure=dict(never=True))
    api.finish(api.lease(queue)[0])
    assert tool("job", "retry", "--failed", "-q", q).out == "2 put back\n"
    assert [api.state(job, queue) for job in ids] == ["SUBMITTED", "SUBMITTED", "SUCCESS"]


# --- completion -------------------------------------------------------------------------------------------------------------------------------

def complete(tool, line):
    """What bash offers at the end of a line."""
    words = [part for word in shlex.split(line) for part in re.split("(=)", word)] + ([""] if line.endswith(" ") else [])
    script = (f"PATH={shlex.quote(str(TOOL.parent))}:$PATH; source <(ringback completion bash); compopt() {{ :; }}; "
              f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; _ringback; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    done = subprocess.run(["bash", "-c", script], env=tool.environment, capture_output=True, text=True, timeout=20 * PATIENCE)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_values_and_queues(tool):
    tool("activate")
    queues = ["queue-1", "queue-doc-process-1", "queue-speech-1"]
    assert {"queue", "job", "callback", "worker", "listen"} <= set(complete(tool, "ringback "))
    assert complete(tool, "ringback ca") == ["callback"]
    assert complete(tool, "ringback job ca") == ["cancel"]
    assert complete(tool, "ringback -b x job pr") == ["priority"]
    assert complete(tool, "ringback job submit --request") == ["--request-id"]
    assert complete(tool, "ringback job submit --json --feature ") == ["media", "speech", "document"]
    assert complete(tool, "ringback job submit --feature=s") == ["speech"]
    assert complete(tool, "ringback job submit -q ") == queues
    assert complete(tool, "ringback queue show queue-s") == ["queue-speech-1"]
    assert complete(tool, "ringback callback set ") == queues
    assert complete(tool, "ringback completion ") == ["bash"]
    assert complete(tool, "ringback job submit --tag ") == []
    assert "--server" in complete(tool, "ringback queue list --")
    tool("completion", "fish", expect=USAGE)
