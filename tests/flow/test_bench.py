"""The benchmark's own works: what it computes and writes is right. No figure is measured here."""
import json
import subprocess
import sys

import harness

BENCH = harness.ROOT / "tests" / "bench"
sys.path.append(str(BENCH))
import frame  # noqa: E402


def run(*words):
    return subprocess.run([BENCH / "run", *words], capture_output=True, text=True, env=None)


def row(**fields):
    return dict(name="r", ours=300, other=100, other_name="a peer", ratio=3, unit="jobs/s", rounds=5) | fields


def test_help_and_list_tell_the_rows():
    told = run("--help")
    assert told.returncode == 0 and "--quick" in told.stdout and "--json" in told.stdout
    listed = run("--list", "--build", str(harness.BUILD))
    assert listed.returncode == 0, listed.stderr
    rows = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    assert all(rows.values()), rows
    assert set(rows) >= {"submit-64-vs-echo", "submit-1-p50-vs-echo", "bulk-vs-function", "lifecycle-vs-bullmq", "lifecycle-vs-beanstalkd",
                         "redis-cpu-vs-bullmq", "latency-vs-bullmq", "aof-always-vs-none", "lease-depth-1m-vs-1k", "overhead-bytes"}


def test_a_row_that_is_not_there_is_refused_before_anything_runs():
    refused = run("--only", "no-such-row", "--no-install", "--build", str(harness.BUILD))
    assert refused.returncode == 2 and "no-such-row" in refused.stderr
    refused = run("--rounds", "0")
    assert refused.returncode == 2 and "--rounds is 0" in refused.stderr


def test_rounds_alternate_and_medians_are_compared():
    order = []
    figures = {"a": iter([10, 1000, 30]), "b": iter([5, 10, 1])}

    def side(name):
        order.append(name)
        return next(figures[name])

    context = frame.Context(harness.BUILD, False, 3, harness.BUILD)
    got = frame.measured(context, lambda: side("a"), lambda: side("b"), "b", "jobs/s", better="more")
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert (got["ours"], got["other"], got["ratio"], got["rounds"]) == (30, 5, 6, 3)
    assert frame.percentile([3, 1, 2, 4], 50) == 2 and frame.percentile(range(1, 101), 99) == 99 and frame.percentile([7], 99) == 7


def test_json_has_the_fields_that_readers_rely_on():
    rows = frame.rows_of("one", dict(row(), name="one", target=("ratio", ">=", 4))) + frame.rows_of("two", [row(name="two-a"), row(name="two-b")])
    written = json.loads(frame.as_json(rows))
    assert [one["name"] for one in written] == ["one", "two-a", "two-b"]
    assert all(list(one) == ["name", "ours", "other", "other_name", "ratio", "unit", "rounds"] for one in written)


def test_what_rows_share_is_measured_once():
    calls = []
    context = frame.Context(harness.BUILD, True, 3, harness.BUILD)
    assert [context.once("a", lambda: calls.append(1) or 7) for _ in range(2)] == [7, 7] and len(calls) == 1
    assert context.pick("full", "quick") == "quick"


def test_a_recorded_command_is_the_bytes_that_were_sent():
    import bulk
    shown = rb'1700000000.1 [0 unix:/s] "FCALL" "submit_ab" "1" "{p01}" "a\x00\xff\"q\\\r\n\t\a\b x" ""'
    assert bulk.monitored(shown) == [b"FCALL", b"submit_ab", b"1", b"{p01}", b'a\x00\xff"q\\\r\n\t\a\b x', b""]
    assert bulk.as_command([b"A", b"", b"bc"]) == b"*3\r\n$1\r\nA\r\n$0\r\n\r\n$2\r\nbc\r\n"


def test_a_row_without_a_figure_is_an_error():
    for wrong in (dict(ours=0), dict(ratio=float("nan")), dict(unit=None)):
        try:
            frame.rows_of("r", row(**wrong))
        except ValueError as error:
            assert "r" in str(error)
        else:
            raise AssertionError(wrong)


def test_the_table_says_what_is_reached_and_what_is_missed():
    rows = [one for name, fields in {
        "rate": dict(target=("ratio", ">=", 3)), "cost": dict(better="less", ratio=0.25, target=("ratio", "<=", 0.2)),
        "bytes": dict(ours=298.4, better="less", target=("ours", "<=", 320), unit="bytes"), "free": {}}.items()
        for one in frame.rows_of(name, row(name=name, **fields))]
    table = frame.as_markdown(rows).splitlines()
    assert "reached" in table[2] and "missed" in table[3] and "≤ 320 bytes" in table[4] and "298" in table[4]
    assert "reached" not in table[5] and "missed" not in table[5]
    assert len({line.count("|") for line in table}) == 1
    assert frame.times_better(rows[1], rows[1]["ratio"]) == 4
    assert [frame.figure(value) for value in (123456.7, 1234, 12.345, 1.2345, 0.012345)] == ["123,457", "1,234", "12.3", "1.23", "0.0123"]
