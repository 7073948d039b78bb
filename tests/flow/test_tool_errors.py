"""What the command-line tool says of errors, and what it never lets through, against the real server."""
import json
import re
import socket
import subprocess

import pytest

from harness import PATIENCE
from test_tool import FAILED, NOT_FOUND, TOOL, UNAVAILABLE, USAGE, Tool, q, tool  # noqa: F401 (two are fixtures)


def test_a_server_that_cannot_be_reached_is_told_in_few_words(tool):
    assert tool("queue", "list", "--server", "127.0.0.1:1", "--timeout", "600ms", expect=UNAVAILABLE).err == \
        "ringback: cannot reach 127.0.0.1:1: connection refused\n"


@pytest.mark.parametrize("address", ["foo", "foo:", ":7080", "foo:port", "foo:70800", "foo:0", "::1", "::1:7080", "dns:///foo"])
def test_a_server_without_a_port_is_wrong_usage(tool, address):
    assert "is not HOST:PORT" in tool("queue", "list", "--server", address, expect=USAGE).err


def test_a_command_waits_for_a_server_that_is_starting(start_server):
    server = start_server()
    server.stop()
    waiting = Tool(server.target, "b").start("activate")
    assert "; trying on for " in waiting.stderr.readline()
    server.start()
    out, err = waiting.communicate(timeout=40 * PATIENCE)
    assert waiting.returncode == 0 and "queue-1" in out, err


def test_a_server_that_says_nothing_is_told_with_how_long_it_was_waited_for(tool):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        assert tool("queue", "list", "--timeout", "300ms", "--server", server, expect=UNAVAILABLE).err == \
            f"ringback: {server} did not answer within 300ms; --timeout says how long to wait\n"


@pytest.mark.parametrize("line,words", [
    ("callback set q --header X-A:b --no-headers", "--header and --no-headers exclude each other"),
    ("callback set q --secret whsec_YQ== --no-secrets", "--secret and --no-secrets exclude each other"),
    ("callback set q --store-response --no-store-response", "--store-response and --no-store-response exclude each other"),
    ("callback set q --allow 10.0.0.0/8 --no-allow", "--allow and --no-allow exclude each other"),
    ("listen --drop --status 500", "--drop and --status exclude each other"),
    ("job retry -q q --failed --state cancel", "--failed and --state exclude each other"),
    ("job retry j1 --failed", "give ids of jobs, or --queue and what else selects them"),
    ("job list queue-1 -q other", 'the operand "queue-1" and --queue exclude each other'),
    ("job submit -q q -t T --content-type text/plain", "--content-type is given without --data"),
    ("job submit -q q -t T --wait-timeout 1s", "--wait-timeout is given without --wait"),
    ("job submit -q q -t T --request-id=", "--request-id is empty: give one, or leave it out for a random one"),
    ("job watch -q q --wait-timeout 1s", "--wait-timeout goes with ids only"),
    ("job watch j1 --cursor c", "--cursor goes without ids only"),
    ("job priority j1", "missing: PRIORITY"),
    ("listen --address foo", '--address: "foo" is no IPv4 address'),
    ("callback set q --header X-A", '--header: "X-A" is not NAME:VALUE'),
    ("callback set q" + " --header X:b" * 20 + " --header Y:c", '--header: "Y:c" is one too many: at most 20'),
    ("queue create r --feature sound", '--feature: "sound" is none of media, speech, document'),
])
def test_what_could_have_no_effect_or_makes_no_sense_is_wrong_usage_that_names_it(tool, line, words):
    assert tool(*line.split(), expect=USAGE).err == f"ringback: {words}\n"


def test_a_worker_s_wrong_queue_is_told_once(tool, q):
    told = tool("worker", "-q", f"{q},buckets/another/queues/q", "-e", "true", expect=USAGE).err
    assert len(told.splitlines()) == 1 and "bucket" in told, told


def test_errors_are_json_where_results_are(tool, q):
    error = lambda *arguments, **options: json.loads(tool(*arguments, "--json", **options).err)["error"]
    told = error("queue", "show", "none", expect=NOT_FOUND)
    assert told["code"] == "NOT_FOUND" and told["message"] and told["violations"] == []
    told = error("job", "submit", "-q", q, "-t", "bad tag", "--operation", "<a>", expect=USAGE)
    assert told["code"] == "INVALID_ARGUMENT"
    assert {violation["field"].split(".")[1] for violation in told["violations"]} == {"tag", "operation"}
    assert error("queue", "list", "--server", "foo", expect=USAGE)["code"] == "LOCAL"
    assert error("queue", "list", "--colour", expect=USAGE) == dict(code="LOCAL", message="there is no option --colour", violations=[])
    assert error("job", "submit", "-q", q, "--jsonl", "-", input='{"tag":"bad tag"}\n', expect=FAILED)["about"] == "line 1"


@pytest.mark.parametrize("option", ["tag", "user-data", "callback", "url", "object", "region", "input-bucket", "traceparent",
                                    "content-type", "operation", "request-id"])
def test_an_option_that_is_not_utf_8_is_refused_and_never_left_out(tool, q, option):
    arguments = [TOOL, b"job", b"submit", b"-q", q, b"-t", b"T", f"--{option}", b"caf\xe9"]
    done = subprocess.run(arguments, env=tool.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=20 * PATIENCE)
    assert done.returncode == USAGE and done.stdout == b"" and done.stderr == f"ringback: --{option} is not UTF-8\n".encode()


def test_what_jobs_say_does_not_steer_the_terminal(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    evil = "a\u009b31mb\u0085c"
    id = tool("job", "submit", "-q", q, "-t", "T", "--object", evil, "--operation", f"<a>{evil}</a>").out.strip()
    leased = api.lease(queue, wait=10)[0]
    api.finish(leased, failure=dict(code="Broken", message=evil, never=True))
    text = api.submit(queue, operation=dict(opaque=dict(data=b"x\x1b[31my\x7f\x9b\xc2\x9bz", content_type="text/plain")))[0]
    shown = [tool("job", "get", id, text), tool("job", "list", q), tool("job", "submit", "-q", q, "-t", f"x{evil}", expect=USAGE),
             tool("job", "explain", text), tool("queue", "show", f"x{evil}\x1b", expect=USAGE)]
    for done in shown:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.out + done.err), (done.out, done.err)
    assert "a?31mb?c" in shown[0].out and "x?[31my???z" in shown[0].out
    assert tool("job", "get", id, "--json").json["jobs"][0]["message"] == evil


def test_cancel_tells_of_each_job_that_had_ended(tool, api, bucket, q):
    queue = f"buckets/{bucket}/queues/q"
    ended = api.submit(queue)[0]
    api.finish(api.lease(queue, wait=10)[0], success={})
    other, missing = api.submit(queue)[0], ended[:-4] + "ffff"
    done = tool("job", "cancel", ended, expect=FAILED)
    assert done.out == "" and done.err.startswith(f"ringback: job {ended}: ") and "ended" in done.err
    done = tool("job", "cancel", ended, missing, other, expect=FAILED)
    assert done.out == "1 cancelled\n" and len(done.err.splitlines()) == 2
    assert tool("job", "cancel", missing, expect=NOT_FOUND).out == ""


def test_a_server_that_does_not_answer_in_time_is_exit_status_4(tool):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tool("queue", "list", "--timeout", "300ms", "--server", f"127.0.0.1:{silent.getsockname()[1]}", expect=UNAVAILABLE)


def test_the_help_tells_the_limits_that_surprise(tool):
    submit, worker = tool("job", "submit", "--help").out, tool("worker", "--help").out
    for words in ("printable ASCII, 1,024", "64 KiB, 32 levels deep", "bounded by --wait-timeout alone", "exit status is then 1", '{"error": '):
        assert words in submit
    for words in ("at the next renewal: after a third of the lease, at most 10 s", "opaque application/xml where it is not well-formed"):
        assert words in worker


def test_a_result_that_is_not_well_formed_is_kept_as_bytes(tool, q):
    id = tool("job", "submit", "-q", q, "-t", "T").out.strip()
    tool("worker", "-q", q, "-e", "echo '<a>'", "--count", "1")
    assert tool("job", "get", id, "--json").json["jobs"][0]["result"]["opaque"]["contentType"] == "application/xml"
