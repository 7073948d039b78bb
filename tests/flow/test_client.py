"""libringback: the stubs that protoc-c generates over it, and its repetitions, seen from a server that fails on purpose."""
import concurrent.futures
import importlib
import os
import re
import subprocess
import time

import grpc
import pytest

from harness import BUILD, PATIENCE, SLOW

TOOL = BUILD / "bin" / "ringback"
STUB_CLIENT = BUILD / "tests" / "stub_client"


def test_generated_stubs_work_over_the_library_from_many_threads(server, api, bucket):
    done = subprocess.run([STUB_CLIENT, server.target, bucket], capture_output=True, text=True, timeout=60 * PATIENCE)
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    assert len(set(ids)) == 100
    assert {job.id for job in api.job.GetJobs(bucket=f"buckets/{bucket}", job_ids=ids).jobs} == set(ids)


class Failing:
    """A server that answers calls of a service with the given errors first, and remembers what it was asked and when."""

    def __init__(self, file, service, method, response, errors):
        self.requests, self.times, self.errors, self.response = [], [], list(errors), response
        messages = importlib.import_module(f"ringback.v1.{file}_pb2")
        services = importlib.import_module(f"ringback.v1.{file}_pb2_grpc")
        servicer = type("Servicer", (getattr(services, service + "Servicer"),), {method: lambda _, *call: self.answer(*call)})
        self.messages = messages
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        getattr(services, f"add_{service}Servicer_to_server")(servicer(), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def answer(self, request, context):
        self.requests.append(request)
        self.times.append(time.monotonic())
        if self.errors:
            code, delay = self.errors.pop(0)
            if delay is not None:
                context.set_trailing_metadata([("grpc-status-details-bin", status_with_delay(code, delay))])
            context.abort(code, "failing on purpose")
        return self.response(self.messages)


def status_with_delay(code, seconds):
    status = importlib.import_module("google.rpc.status_pb2").Status(code=code.value[0], message="failing on purpose")
    retry = importlib.import_module("google.rpc.error_details_pb2").RetryInfo()
    retry.retry_delay.FromNanoseconds(int(seconds * 1e9))
    status.details.add().Pack(retry)
    return status.SerializeToString()


@pytest.fixture
def failing(stubs):
    started = []

    def start(*arguments):
        started.append(Failing(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.server.stop(None)


def run(failing_server, *arguments, expect=0):
    done = subprocess.run([TOOL, "--server", f"127.0.0.1:{failing_server.port}", "--bucket", "b", *arguments], capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if not k.startswith("RINGBACK_")}, timeout=60 * PATIENCE)
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done


UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, None)


def submitted(messages):
    return messages.SubmitJobResponse(job=dict(id="j" + "0" * 32))


def test_a_submit_is_repeated_with_the_same_request_id(failing):
    server = failing("job", "JobService", "SubmitJob", submitted, [UNAVAILABLE] * 3)
    run(server, "job", "submit", "-q", "q", "-t", "T")
    ids = [request.request_id for request in server.requests]
    assert len(ids) == 4 and len(set(ids)) == 1 and len(ids[0]) == 36
    waits = [b - a for a, b in zip(server.times, server.times[1:])]
    assert waits[0] >= 0.045 and waits[2] >= 0.19


def test_two_submits_have_different_request_ids(failing):
    server = failing("job", "JobService", "SubmitJob", submitted, [])
    run(server, "job", "submit", "-q", "q", "-t", "T")
    run(server, "job", "submit", "-q", "q", "-t", "T")
    assert server.requests[0].request_id != server.requests[1].request_id


def test_the_user_s_request_id_stays(failing):
    server = failing("job", "JobService", "SubmitJob", submitted, [UNAVAILABLE])
    run(server, "job", "submit", "-q", "q", "-t", "T", "--request-id", "mine")
    assert [request.request_id for request in server.requests] == ["mine", "mine"]


def test_the_server_s_retry_delay_is_kept(failing):
    server = failing("job", "JobService", "SubmitJob", submitted, [(grpc.StatusCode.UNAVAILABLE, 0.8)])
    run(server, "job", "submit", "-q", "q", "-t", "T")
    assert 0.79 <= server.times[1] - server.times[0]


def test_repeating_ends(failing):
    server = failing("job", "JobService", "SubmitJob", submitted, [UNAVAILABLE] * 100)
    done = run(server, "job", "submit", "-q", "q", "-t", "T", "--timeout", "4s", expect=4)
    told = done.stderr.splitlines()
    assert len(told) == 2 and re.fullmatch("ringback: failing on purpose; trying on for [123] s", told[0]) and \
        told[1] == "ringback: failing on purpose"
    assert 4 <= len(server.requests) < 100 and server.times[-1] - server.times[0] > 2
    server = failing("job", "JobService", "SubmitJob", submitted, [UNAVAILABLE] * 100)
    assert len(run(server, "job", "submit", "-q", "q", "-t", "T", "--timeout", "3s", "--json", expect=4).stderr.splitlines()) == 1


def test_a_call_is_repeated_until_its_time_is_up(failing):
    """More often than the library does of itself."""
    server = failing("job", "JobService", "SubmitJob", submitted, [UNAVAILABLE] * 6)
    run(server, "job", "submit", "-q", "q", "-t", "T")
    assert len(server.requests) == 7


def test_what_is_not_safe_is_not_repeated(failing):
    server = failing("queue", "QueueService", "CreateQueue", lambda m: m.CreateQueueResponse(), [UNAVAILABLE])
    run(server, "queue", "create", "q", expect=4)
    assert len(server.requests) == 1


def test_an_update_with_an_etag_is_not_repeated(failing):
    def response(messages):
        return messages.UpdateQueueResponse(queue=dict(name="buckets/b/queues/q"))
    server = failing("queue", "QueueService", "UpdateQueue", response, [UNAVAILABLE])
    run(server, "queue", "update", "q", "--max-size", "5", "--etag", "e", expect=4)
    assert len(server.requests) == 1
    server = failing("queue", "QueueService", "UpdateQueue", response, [UNAVAILABLE])
    run(server, "queue", "update", "q", "--max-size", "5")
    assert len(server.requests) == 2


def test_other_errors_are_not_repeated(failing):
    for code, status in ((grpc.StatusCode.RESOURCE_EXHAUSTED, 1), (grpc.StatusCode.NOT_FOUND, 3), (grpc.StatusCode.INTERNAL, 1)):
        server = failing("job", "JobService", "SubmitJob", submitted, [(code, None)])
        run(server, "job", "submit", "-q", "q", "-t", "T", expect=status)
        assert len(server.requests) == 1


def test_a_timeout_is_for_the_call_with_its_repetitions(failing):
    server = failing("job", "JobService", "SubmitJob", submitted, [(grpc.StatusCode.UNAVAILABLE, 30)] * 5)
    begun = time.monotonic()
    run(server, "job", "submit", "-q", "q", "-t", "T", "--timeout", "7s", expect=4)
    assert time.monotonic() - begun < 25 * SLOW and len(server.requests) == 1


@pytest.mark.parametrize("later,shown", [(600, True), (-600, False)])
def test_a_breaker_is_open_only_until_its_time(failing, later, shown):
    def response(messages):
        return messages.GetCallbackRuleResponse(rule=dict(queue="buckets/b/queues/q", breaker_open_until=dict(seconds=int(time.time()) + later)))
    server = failing("callback", "CallbackService", "GetCallbackRule", response, [])
    assert ("Breaker" in run(server, "callback", "show", "q").stdout) == shown
