"""`ringback bench` against the real server: small runs of every command, what they count, what they leave and what they refuse."""
import json
import signal
import subprocess
import time

import pytest

from harness import BUILD, PATIENCE, eventually
from test_tool import FAILED, NOT_FOUND, UNAVAILABLE, USAGE, Tool

SPANS = ("mean", "min", "p50", "p75", "p90", "p95", "p99", "p999", "p9999", "max")


@pytest.fixture
def tool(server, api, bucket):
    return Tool(server.target, bucket)


def check_spans(spans, count):
    assert spans["count"] == count
    assert sum(row["count"] for row in spans["histogram"]) == count
    values = [spans[name] for name in SPANS[1:]]
    assert values == sorted(values) and values[0] > 0, spans


def test_submit_counts_what_it_submits_and_leaves_nothing(tool):
    answer = tool("bench", "submit", "--duration", "10m", "--count", 500, "--in-flight", 16, "--json").json
    assert answer["jobs"] == answer["calls"] == 500 and answer["failedCalls"] == 0 and answer["end"] == "count"
    assert answer["requestBytes"] > 300 and answer["perSecond"] > 0
    check_spans(answer["callMs"], 500)
    assert answer["submitToWorkerMs"] is None and answer["ledger"] is None
    tool("queue", "show", answer["queue"], expect=NOT_FOUND)


def test_a_batch_and_its_rest_are_counted_by_job(tool):
    answer = tool("bench", "submit", "--duration", "10m", "--count", 1050, "--batch", 100, "--in-flight", 2, "--json").json
    assert answer["jobs"] == 1050 and answer["calls"] == 11


def test_work_finishes_what_was_submitted(tool):
    answer = tool("bench", "work", "--duration", "10m", "--count", 2000, "--workers", 3, "--credit", 50, "--threads", 2, "--json").json
    assert answer["jobs"] == 2000 and answer["calls"] == 0
    assert answer["ledger"] | {"accepted": 2000, "finished": 2000, "lost": 0, "finishedTwice": 0, "exactlyOnce": True} == answer["ledger"]
    check_spans(answer["submitToWorkerMs"], 2000)


@pytest.mark.parametrize("options", [[], ["--batch", 1, "--in-flight", 8, "--request-ids", "--priorities", 3, "--threads", 2], ["--backlog", 100]])
def test_a_cycle_finishes_every_job_exactly_once(tool, options):
    answer = tool("bench", "cycle", "--duration", "10m", "--count", 1000, *options, "--json").json
    assert answer["jobs"] == 1000 and answer["ledger"]["exactlyOnce"] and answer["ledger"]["finished"] == 1000
    check_spans(answer["submitToWorkerMs"], 1000)


@pytest.mark.faults
def test_a_cycle_may_finish_more_than_its_queue_keeps(tool):
    answer = tool("bench", "cycle", "--duration", "10m", "--count", 102_000, "--batch", 100, "--in-flight", 4, "--workers", 4, "--payload-bytes", 24, "--json").json
    assert answer["ledger"]["finished"] == 102_000 and answer["ledger"]["lost"] == 0


def test_a_cycle_waits_for_its_callbacks_and_tells_which_did_not_end(tool, receiver):
    answer = tool("bench", "cycle", "--duration", "10m", "--count", 500, "--callback-url", receiver.url(), "--json").json
    assert len(receiver.requests) == 500
    assert answer["callbacks"]["ended"] and answer["callbacks"]["undelivered"] == 0 and 0 <= answer["callbacks"]["seconds"] < 30 * PATIENCE
    assert "the last one ended" in tool("bench", "cycle", "--duration", "10m", "--count", 10, "--callback-url", receiver.url()).out
    assert tool("bench", "cycle", "--duration", "10m", "--count", 10, "--callback-url", receiver.url(), "--callback-wait", "0s", "--json").json["callbacks"] is None
    receiver.status = 500
    done = tool("bench", "cycle", "--duration", "10m", "--count", 10, "--callback-url", receiver.url(), "--callback-wait", "300ms", "--json", expect=FAILED)
    assert not done.json["callbacks"]["ended"] and done.json["ledger"]["exactlyOnce"] and "have not ended within 0." in done.err
    tool("queue", "show", done.json["queue"], expect=NOT_FOUND)
    receiver.status = 410
    done = tool("bench", "cycle", "--duration", "10m", "--count", 1, "--callback-url", receiver.url(), "--json", expect=FAILED)
    assert done.json["callbacks"] == dict(ended=True, seconds=done.json["callbacks"]["seconds"], undelivered=1) and "1 of the latest" in done.err


def test_a_cycle_by_time_measures_after_its_warm_up(tool):
    begun = time.monotonic()
    answer = tool("bench", "cycle", "--duration", "6s", "--warm-up", "1s", "--json").json
    assert answer["end"] == "time" and 5.99 < answer["seconds"] < time.monotonic() - begun - 0.99
    assert 0 < answer["jobs"] < answer["ledger"]["finished"] and answer["ledger"]["exactlyOnce"]


def test_latency_of_one_job_at_a_time_and_at_a_rate(tool):
    idle = tool("bench", "latency", "--duration", "10m", "--count", 50, "--json").json
    assert idle["jobs"] == 50 and idle["messages"] == 50 and idle["settings"]["inFlight"] == 1
    check_spans(idle["submitToWorkerMs"], 50)
    paced = tool("bench", "latency", "--rate", 200, "--duration", "10m", "--count", 100, "--json").json
    assert paced["jobs"] == 100 and paced["seconds"] > 0.45
    check_spans(paced["submitToWorkerMs"], 100)


def test_a_named_queue_is_used_and_left(tool, api, bucket):
    queue = api.make_queue(bucket, "mine")
    tool("bench", "submit", "--queue", "mine", "--duration", "10m", "--count", 20)
    assert api.queue.GetQueue(name=queue).queue.counts.waiting == 20
    refused = tool("bench", "cycle", "--queue", "mine", "--duration", "10m", "--count", 20, expect=USAGE)
    assert "20 waiting" in refused.err and "must be empty" in refused.err
    assert api.queue.GetQueue(name=queue).queue.counts.waiting == 20
    api.queue.PurgeQueue(name=queue)
    tool("bench", "cycle", "--queue", "mine", "--duration", "10m", "--count", 20)
    assert api.queue.GetQueue(name=queue).queue.counts.success == 20


def test_jobs_of_others_end_the_run_untouched(tool, api, bucket):
    queue = api.make_queue(bucket, "mine")
    running = tool.start("bench", "latency", "--queue", "mine", "--rate", 20, "--duration", "60s")
    eventually(lambda: api.queue.GetQueue(name=queue).queue.counts.success > 0, 20)
    job = api.submit(queue)[0]
    out, err = running.communicate(timeout=30 * PATIENCE)
    assert running.returncode == FAILED and "not of this run" in err, (out, err)
    eventually(lambda: api.state(job, queue) == "SUBMITTED", 20)


@pytest.mark.parametrize("command", ["submit", "cycle"])
def test_ctrl_c_shows_the_results_and_removes_the_queue(server, tool, command):
    def ended():
        return sum(value for name, value in server.metrics().items() if name.startswith("ringback_calls_ended_total"))

    before = ended()
    running = tool.start("bench", command, "--duration", "60s", "--warm-up", "0s", "--json", "--rate", 50)
    eventually(lambda: ended() > before + 100, what="it is under way")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30 * PATIENCE)
    answer = json.loads(out)
    assert running.returncode == FAILED and answer["end"] == "interrupted" and answer["jobs"] > 0, err
    assert answer["seconds"] < 60
    tool("queue", "show", answer["queue"], expect=NOT_FOUND)


def test_people_see_what_will_be_done_and_a_table(tool):
    done = tool("bench", "cycle", "--duration", "10m", "--count", 300)
    assert "deleted at the end" in done.err and "Work streams" in done.err
    assert "exactly once" in done.out and "P99.9" in done.out and "submit to worker" in done.out and "up to" in done.out


def test_what_it_refuses(tool):
    assert "--in-flight: 0" in tool("bench", "submit", "--in-flight", 0, expect=USAGE).err
    assert "--payload-bytes: 10" in tool("bench", "submit", "--payload-bytes", 10, expect=USAGE).err
    tool("bench", "submit", "--queue", "none", expect=NOT_FOUND)
    assert "--callback-wait" in tool("bench", "cycle", "--callback-wait", "1s", expect=USAGE).err
    assert "--callback-url" in tool("bench", "cycle", "--queue", "q", "--callback-url", "http://127.0.0.1:1/", expect=USAGE).err
    tool("bench", "submit", "--server", "127.0.0.1:1", expect=UNAVAILABLE)


def test_errors_of_calls_are_counted_and_told(tool, api, bucket):
    api.make_queue(bucket, "small", max_size=10)
    answer = tool("bench", "submit", "--queue", "small", "--duration", "6s", "--rate", 50, "--warm-up", "0s", "--json", expect=FAILED).json
    assert answer["jobs"] == 10 and answer["errors"]["RESOURCE_EXHAUSTED"] == answer["failedCalls"] > 0


def test_the_echo_is_loaded_with_requests_of_the_same_size(tool):
    echo = subprocess.Popen([BUILD / "bin" / "echo-server", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        target = f"127.0.0.1:{int(echo.stdout.readline())}"
        words = [BUILD / "tests" / "echo_load", "--server", target, "--json", "--count", "300", "--payload-bytes", "500", "--duration", "10m"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30 * PATIENCE)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
    finally:
        echo.terminate()
        echo.wait(20 * PATIENCE)
    ours = tool("bench", "submit", "--duration", "10m", "--count", 10, "--payload-bytes", 500, "--json").json
    assert answer["calls"] == 300 and answer["failedCalls"] == 0
    assert answer["requestBytes"] == answer["responseBytes"] == ours["requestBytes"]
    check_spans(answer["callMs"], 300)
