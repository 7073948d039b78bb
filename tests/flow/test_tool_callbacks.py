"""What the command-line tool says of callbacks that are held, put back or cut short, against the real server."""
import json
import re
import threading

import pytest

from harness import eventually
from test_tool import NOT_FOUND, UNAVAILABLE, USAGE, q, tool  # noqa: F401 (two are fixtures)

NOBODY = "cb_j" + "0" * 32 + "_TaskFinish_0"


def end_jobs(tool, q, count):
    for _ in range(count):
        tool("job", "cancel", tool("job", "submit", "-q", q, "-t", "T").out.strip())


def deliveries(tool, q, *options):
    return tool("callback", "deliveries", q, "--json", *options).json["deliveries"]


def test_what_holds_a_delivery_is_shown_instead_of_a_time_that_means_nothing(tool, receiver, q):
    receiver.status = 500
    tool("callback", "set", q, "--url", receiver.url())
    end_jobs(tool, q, 5)
    eventually(lambda: "Breaker" in tool("callback", "show", q).out)
    for line in tool("callback", "deliveries", q).lines[1:]:
        assert re.search(r"breaker until \d{4}-", line), line
    id = deliveries(tool, q)[0]["id"]
    assert re.search(r"^Next +breaker until \d{4}-", tool("callback", "show-delivery", id).out, re.M)
    assert re.fullmatch(rf"1 put back\n{id} waits: breaker until \d.*\n", tool("callback", "redeliver", id).out)
    tool("callback", "off", q)
    for line in tool("callback", "deliveries", q).lines[1:]:
        assert "rule off" in line, line
    assert re.search(r"^Next +rule off$", tool("callback", "show-delivery", id).out, re.M)
    assert tool("callback", "redeliver", id).out == f"1 put back\n{id} waits: rule off\n"
    receiver.status = 200
    tool("callback", "set", q)  # alone it switches on, which closes the breaker
    eventually(lambda: next(d for d in deliveries(tool, q) if d["id"] == id)["state"] == "DELIVERY_STATE_DELIVERED")


def test_what_holds_a_delivery_is_told_by_whose_it_is_and_not_by_its_url(tool, receiver, q):
    def nexts():
        return {line.split()[0]: line for line in tool("callback", "deliveries", q).lines[1:]}

    receiver.status = 500
    tool("callback", "set", q, "--url", receiver.url("/old"), "--schedule", "1h")
    end_jobs(tool, q, 1)
    id = eventually(lambda: [d["id"] for d in deliveries(tool, q) if d.get("attempts") == 1])[0]
    tool("callback", "set", q, "--url", receiver.url("/new"), "--off")
    assert "rule off" in nexts()[id], "it was tried at the URL that the rule had"
    assert re.search(r"^Next +rule off$", tool("callback", "show-delivery", id).out, re.M)
    assert "rule off" in tool("callback", "redeliver", id).out
    # A job's own URL is not held by the rule, though it is the rule's URL too, but by a breaker of its own.
    for _ in range(5):
        job = tool("job", "submit", "-q", q, "-t", "T", "--callback", receiver.url("/new")).out.strip()
        tool("job", "cancel", job)
    own = f"cb_{job}_TaskFinish_0"
    eventually(lambda: "breaker until" in nexts()[own])
    assert next(d for d in deliveries(tool, q) if d["id"] == own)["ownUrl"] is True
    assert "rule off" in nexts()[id] and "rule off" not in nexts()[own]


@pytest.mark.parametrize("schedule, part", [("", ""), ("5s,", ""), (",5s", ""), ("5s,,30s", ""), ("5s,soon", "soon")])
def test_a_schedule_with_a_gap_is_refused_with_its_value(tool, q, schedule, part):
    done = tool("callback", "set", q, "--url", "http://127.0.0.1:9/", "--schedule", schedule, expect=USAGE)
    assert done.err.startswith(f'ringback: --schedule: "{schedule}" has "{part}" where a duration must be') and "5s,30s,2m" in done.err
    assert re.search(r"^URL +-$", tool("callback", "show", q).out, re.M), "nothing was changed"


def test_a_wait_out_of_range_and_too_many_are_told(tool, q):
    assert "schedule[1]" in tool("callback", "set", q, "--schedule", "1s,0s", expect=USAGE).err
    assert "more than 20" in tool("callback", "set", q, "--schedule", ",".join(["1s"] * 21), expect=USAGE).err


def test_what_changes_nothing_leaves_the_etag(tool, q):
    def rule(*words):
        return tool("callback", *words, "--json").json["rule"]

    set_rule = rule("set", q, "--url", "http://127.0.0.1:9/", "--schedule", "1s,1m", "--header", "X-A: b", "--secret", "whsec_" + "A" * 32)
    assert rule("set", q, "--url", "http://127.0.0.1:9/", "--schedule", "1s,1m", "--header", "X-A: b") == set_rule
    off = rule("off", q)
    assert off["etag"] != set_rule["etag"]
    assert rule("off", q) == off and rule("set", q, "--off", "--callback-timeout", "15s") == off
    assert rule("set", q, "--off", "--header", "X-A: c")["etag"] != off["etag"]


def test_what_ends_while_the_rule_is_off_is_never_sent_and_the_help_says_so(tool, receiver, q):
    tool("callback", "set", q, "--url", receiver.url())
    tool("callback", "set", q, "--off")
    end_jobs(tool, q, 1)
    delivery, = deliveries(tool, q)
    assert delivery["state"] == "DELIVERY_STATE_SUPPRESSED"
    assert "suppressed" in tool("callback", "redeliver", delivery["id"], expect=1).err
    tool("callback", "set", q)
    end_jobs(tool, q, 1)
    receiver.wait()
    assert [d["state"] for d in deliveries(tool, q, "--state", "suppressed")] == ["DELIVERY_STATE_SUPPRESSED"]
    for command in ("set", "off"):
        assert "Suppressed" in tool("callback", command, "--help").out and "callback set QUEUE" in " ".join(
            tool("callback", command, "--help").out.split())
    assert "callback set QUEUE" in tool("callback", "on", q, expect=USAGE).err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_off_that_is_not_drained_in_time_says_so(tool, receiver, q, options):
    release = threading.Event()

    def hang(handler):
        release.wait(120)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.answers.append(hang)
    tool("callback", "set", q, "--url", receiver.url(), "--callback-timeout", "60s")
    end_jobs(tool, q, 1)
    receiver.wait()
    try:
        done = tool("callback", "off", q, "--wait", "--wait-timeout", "300ms", *options, expect=UNAVAILABLE)
    finally:
        release.set()
    said = json.loads(done.err)["error"]["message"] if options else done.err
    assert "1 of the queue's callbacks has not ended in time" in said
    assert tool("callback", "off", q, "--wait").err == ""


def test_redeliver_says_once_what_is_wrong_and_what_it_leaves_out(tool, receiver, q):
    assert tool("callback", "redeliver", NOBODY, expect=NOT_FOUND).err == f"ringback: delivery {NOBODY}: there is no such delivery\n"
    assert tool("callback", "redeliver", "-q", "none", expect=NOT_FOUND).out == ""
    assert "exclude each other" in tool("callback", "redeliver", "-q", q, NOBODY, expect=USAGE).err
    receiver.status = 410
    tool("callback", "set", q, "--url", receiver.url())
    tool("callback", "test", q, expect=1)
    assert tool("callback", "redeliver", "-q", q, "--error-class", "tls").out == "0 put back\n"
    assert "test callbacks are not sent again" in tool("callback", "redeliver", "-q", q).out
    assert "not its test callbacks" in tool("callback", "redeliver", "--help").out


def test_what_a_410_switched_off_waits_once_it_is_put_back(tool, receiver, q):
    receiver.status = 410
    tool("callback", "set", q, "--url", receiver.url())
    end_jobs(tool, q, 1)
    eventually(lambda: re.search(r"^Reason .*410", tool("callback", "show", q).out, re.M))
    end_jobs(tool, q, 1)
    assert [d["state"] for d in deliveries(tool, q)] == ["DELIVERY_STATE_SUPPRESSED", "DELIVERY_STATE_DEAD"]
    assert tool("callback", "redeliver", "-q", q).out == "1 put back\nthey wait: rule off\n"


def test_a_list_of_deliveries_that_is_cut_says_how_to_see_the_rest(tool, receiver, q):
    tool("callback", "set", q, "--url", receiver.url(), "--event", "task_finish")
    assert re.search(r"^Events +Task finish$", tool("callback", "show", q).out, re.M)
    end_jobs(tool, q, 3)
    receiver.wait(3)
    done = tool("callback", "deliveries", q, "-n", "2")
    assert len(done.lines) == 3 and "--limit 0" in done.err
    assert tool("callback", "deliveries", q, "-n", "0").err == ""
    first = tool("callback", "deliveries", q, "-n", "2", "--json")
    assert first.err == ""
    rest = deliveries(tool, q, "--page-token", first.json["nextPageToken"])
    assert len({d["id"] for d in first.json["deliveries"] + rest}) == 3


def test_since_and_until_take_how_long_ago(tool, receiver, q):
    tool("callback", "set", q, "--url", receiver.url())
    end_jobs(tool, q, 1)
    assert len(deliveries(tool, q, "--since", "5m")) == 1 and deliveries(tool, q, "--until", "5m") == []
    assert len(tool("job", "list", q, "--since", "1h30m").lines) == 2
    assert "how long ago" in tool("job", "list", q, "--since", "soon", expect=USAGE).err
