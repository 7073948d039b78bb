"""`ringback listen`, the receiver to look at callbacks with, and the callback commands beside it, against the real server."""
import base64
import hashlib
import hmac
import json
import re
import time
import urllib.error
import urllib.request

import pytest

from harness import PATIENCE, eventually
from test_tool import FAILED, NOT_FOUND, OK, USAGE, q, tool  # noqa: F401 (two are fixtures)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def listen(tool):
    """listen(options...) starts a receiver; answers with its process, its URL and a function that ends it and gives its lines."""
    started = []

    def start(*options):
        process = tool.start("listen", "--port", "0", "--json", *options)
        started.append(process)
        first = json.loads(process.stdout.readline())

        def finish(wait=False):
            if not wait:
                process.terminate()
            out, err = process.communicate(timeout=20 * PATIENCE)
            return [json.loads(line) for line in out.splitlines()], process.returncode, err

        return process, first["listening"], finish

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_the_callback_commands(tool, api, bucket, q, listen):
    _, url, finish = listen("--secret", SECRET)
    tool("callback", "test", q, expect=FAILED)
    rule = tool("callback", "set", q, "--url", url, "--secret", SECRET, "--callback-timeout", "3s", "--json").json["rule"]
    assert (rule["state"], rule["url"], rule["secretCount"], rule["timeout"]) == ("CALLBACK_RULE_STATE_ON", url, 1, "3s")
    assert re.search(r"Secrets +1", tool("callback", "show", q).out) and re.search(r"Format +seed", tool("callback", "show", q).out)
    tool("callback", "test", q)
    job = api.submit(f"buckets/{bucket}/queues/q")[0]
    tool("job", "cancel", job)
    eventually(lambda: [d["state"] for d in tool("callback", "deliveries", q, "--job", job, "--json").json["deliveries"]] ==
               ["DELIVERY_STATE_DELIVERED"])
    assert "Delivered" in tool("callback", "deliveries", q, "--state", "delivered").out
    assert tool("callback", "deliveries", q, "--state", "dead", "--json").json["deliveries"] == []
    assert tool("callback", "deliveries", q, "--error-class", "dns", "--json").json["deliveries"] == []
    assert tool("callback", "deliveries", q, "--since", "2100-01-01T00:00:00Z", "--json").json["deliveries"] == []
    delivery, = tool("callback", "deliveries", q, "--job", job, "--json").json["deliveries"]
    shown = tool("callback", "show-delivery", delivery["id"]).out
    assert re.search(r"Job +" + job, shown) and re.search(r"^ +1 .* 127\.0\.0\.1 +200 ", shown, re.M), shown
    attempt, = tool("callback", "show-delivery", delivery["id"], "--json").json["delivery"]["attemptLog"]
    assert attempt["number"] == 1 and attempt["totalDuration"]
    tool("callback", "show-delivery", "cb_j" + "0" * 32 + "_TaskFinish_0", expect=NOT_FOUND)
    assert "1 put back" in tool("callback", "redeliver", delivery["id"]).out
    eventually(lambda: len(tool("callback", "show-delivery", delivery["id"], "--json").json["delivery"]["attemptLog"]) == 2)
    assert tool("callback", "redeliver", "--queue", q, "--error-class", "gone", "--json").json["redeliveredCount"] == 0
    tool("callback", "redeliver", "cb_j" + "0" * 32 + "_TaskFinish_0", expect=NOT_FOUND)
    tool("callback", "redeliver", expect=USAGE)
    secret = tool("callback", "rotate-secret", q, "--overlap", "1h").out.strip()
    assert secret.startswith("whsec_") and re.search(r"Secrets +2; the old ones sign until \S", tool("callback", "show", q).out)
    assert tool("callback", "set", q, "--format", "json", "--json").json["rule"]["format"] == "CALLBACK_FORMAT_JSON"
    tool("callback", "set", q, "--schedule", "1s,1m", "--max-age", "2h", "--concurrency", "3", "--header", "X-A: b")
    shown = tool("callback", "show", q).out
    assert re.search(r"Concurrency +3\b", shown) and re.search(r"Header +X-A\b", shown) and re.search(r"Schedule +1\S*s", shown), shown
    tool("callback", "set", q, "--header", "nothing", expect=USAGE)
    assert re.search(r"State +Off", tool("callback", "off", q).out)
    assert tool("callback", "show", q, "--json").json["rule"]["url"] == url
    tool("callback", "off", q, "--delete")
    assert tool("callback", "show", q, "--json").json["rule"]["url"] == ""
    tool("callback", "show", "none", expect=NOT_FOUND)
    lines, status, _ = finish()
    assert status == OK and [line["signature"] for line in lines] == ["valid"] * 3
    assert lines[1]["jobId"] == lines[2]["jobId"] == job and lines[1]["state"] == "Cancel" and "<JobId>" in lines[1]["body"]


def post(url, body=b"<a/>", **headers):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/xml"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=10 * PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def signed(body=b"<a/>", secret=SECRET, time_=None, id="msg_1"):
    stamp = str(int(time_ or time.time()))
    digest = hmac.new(base64.b64decode(secret[6:]), id.encode() + b"." + stamp.encode() + b"." + body, hashlib.sha256).digest()
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": "v1," + base64.b64encode(digest).decode()}


def test_listen_refuses_what_is_not_signed_well(listen):
    other = "whsec_" + base64.b64encode(b"k" * 32).decode()
    _, url, finish = listen("--secret", SECRET, "--secret", other)
    assert post(url, **signed()) == 200
    assert post(url, **signed(secret=other)) == 200
    assert post(url, body=b"<b/>", **signed()) == 401
    assert post(url, **signed(time_=time.time() - 1000)) == 401
    assert post(url) == 401
    lines, status, _ = finish()
    assert [line["signature"] for line in lines] == ["valid", "valid", "wrong", "stale", "missing"]
    assert status == FAILED


def test_listen_fails_on_demand_and_ends_after_a_count(listen):
    _, url, finish = listen("--fail", "2", "--count", "3")
    assert [post(url) for _ in range(3)] == [503, 503, 200]
    lines, status, _ = finish(wait=True)
    assert [line["status"] for line in lines] == [503, 503, 200] and status == OK
    _, url, finish = listen("--status", "410")
    assert [post(url), post(url)] == [410, 410]
    finish()


def test_listen_drops_and_delays_on_demand(listen):
    import http.client
    _, url, finish = listen("--drop", "--fail", "1", "--delay", "300ms")
    begun = time.monotonic()
    with pytest.raises((http.client.HTTPException, OSError)):
        post(url)
    assert post(url) == 200
    assert time.monotonic() - begun >= 0.6
    assert [line["status"] for line in finish()[0]] == [0, 200]


def test_listen_stores_bodies_under_safe_names(listen, tmp_path):
    _, url, finish = listen("--out", tmp_path / "out")
    body = "<a>ü</a>".encode()
    post(url, body, **{"webhook-id": "cb_1"})
    post(url, body, **{"webhook-id": "../../evil"})
    post(url, b'{"a":1}', **{"Content-Type": "application/json", "webhook-id": "cb_2"})
    finish()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "callback-000002.json", "callback-000002.xml", "cb_1.json", "cb_1.xml", "cb_2.body.json", "cb_2.json"]
    assert (tmp_path / "out" / "cb_1.xml").read_bytes() == body
    assert json.loads((tmp_path / "out" / "cb_1.json").read_text())["webhook-id"] == "cb_1"


def test_listen_prints_for_people(tool):
    process = tool.start("listen", "--port", "0", "--count", "1")
    url = process.stdout.readline().split()[-1]
    assert post(url, b"<Response><JobsDetail><JobId>j1</JobId><State>Success</State></JobsDetail></Response>") == 200
    out, _ = process.communicate(timeout=10 * PATIENCE)
    assert "j1" in out and "State Success" in out and "answered 200" in out and "signature unchecked" in out
