"""The RPC layer, under the echo service of tests/rpc: call shapes, limits, errors, parking, drain, health, reflection.

Environment: RINGBACK_BUILD (default build/), RINGBACK_ECHO_WRAP (a command put before echo-server, such as valgrind)."""
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RINGBACK_BUILD") or ROOT / "build").resolve()
WRAP = shlex.split(os.environ.get("RINGBACK_ECHO_WRAP", ""))
SLOW = (10 if WRAP else 1) * float(os.environ.get("RINGBACK_SLOW", "1"))
PATIENCE = 6 * SLOW  # tests/flow/harness.py says what this is
REQUEST_BYTES_MAX = 65536
HEADER_BYTES_MAX = 8192

Code = grpc.StatusCode


@pytest.fixture(scope="session")
def pb(stubs, tmp_path_factory):
    """The echo service's messages and stub, and the modules of errors, health and reflection."""
    directory = tmp_path_factory.mktemp("echo")
    subprocess.run(["protoc", "-I", ROOT / "tests/rpc", f"--python_out={directory}", f"--grpc_python_out={directory}",
                    f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}", "echo.proto"], check=True)
    sys.path.insert(0, str(directory))
    import echo_pb2
    import echo_pb2_grpc
    echo_pb2.EchoStub = echo_pb2_grpc.EchoStub
    return echo_pb2


class EchoServer:
    def __init__(self, threads=1, calls_max=0, parked_max=0, grace_ms=1500, listen="127.0.0.1:0"):
        self.process = subprocess.Popen([*WRAP, BUILD / "bin/echo-server", listen, *map(str, (threads, calls_max, parked_max, grace_ms))],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(line) if line else None
        self.channels = []

    def channel(self, *options):
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1), *options])
        self.channels.append(channel)
        return channel

    def stop(self):
        """Drains; the exit status."""
        for channel in self.channels:
            channel.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30 * PATIENCE)


@pytest.fixture
def start(pb):
    servers = []

    def start(**options):
        server = EchoServer(**options)
        servers.append(server)
        server.stub = pb.EchoStub(server.channel())
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            assert server.stop() == 0


@pytest.fixture
def echo(start):
    return start().stub


def error_of(function):
    with pytest.raises(grpc.RpcError) as caught:
        function()
    return caught.value


def details_of(error):
    """The google.rpc details by their type's last name."""
    from google.rpc import error_details_pb2, status_pb2
    raw = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    if raw is None:
        return {}
    found = {}
    for any_detail in status_pb2.Status.FromString(raw).details:
        name = any_detail.type_url.rsplit(".", 1)[1]
        found[name] = getattr(error_details_pb2, name).FromString(any_detail.value)
    return found


def until(condition, seconds=5):
    end = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def stats(pb, echo):
    return echo.Stats(pb.Nothing())


def silence(pb, echo, seconds=600):
    """The server's store answers nothing for so long; 0 ends it."""
    echo.Block(pb.BlockRequest(ms=int(seconds * 1000)))


def under_way(pb, echo, **park):
    """A Park call whose question is decided, while the store is silent."""
    tries = stats(pb, echo).tries
    silence(pb, echo)
    call = echo.Park.future(pb.ParkRequest(**park))
    until(lambda: stats(pb, echo).tries == tries + 1)
    return call


# --- shapes ---


def test_a_unary_call_is_echoed(pb, echo):
    answer = echo.Unary(pb.EchoRequest(text="héllo", payload=b"\x00\xff"))
    assert (answer.text, answer.payload) == ("héllo", b"\x00\xff")


def test_client_streaming_collects_until_the_half_close(pb, echo):
    answer = echo.Collect(pb.EchoRequest(text=t) for t in "abc")
    assert (answer.text, answer.index) == ("abc", 3)
    assert echo.Collect(iter([])).index == 0


def test_client_streaming_may_be_ended_by_the_server_first(pb, echo):
    done = threading.Event()

    def requests():
        yield pb.EchoRequest(text="stop")
        done.wait(60)
    error = error_of(lambda: echo.Collect(requests()))
    done.set()
    assert error.code() == Code.ABORTED


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_server_streaming_sends_every_message_in_order(pb, echo, count):
    answers = list(echo.Expand(pb.EchoRequest(text="x", payload=b"p" * 3000, count=count)))
    assert [a.index for a in answers] == list(range(count))


def test_bidirectional_streaming_answers_each_message(pb, echo):
    sent = [f"m{i}" for i in range(300)]
    assert [a.text for a in echo.Talk(pb.EchoRequest(text=t) for t in sent)] == sent


def test_many_threads_and_clients_get_their_own_answers(pb, start):
    server = start(threads=3)
    failures = []

    def client(number):
        stub = pb.EchoStub(server.channel())
        calls = [stub.Unary.future(pb.EchoRequest(text=f"{number}-{i}")) for i in range(300)]
        failures.extend(i for i, call in enumerate(calls) if call.result().text != f"{number}-{i}")
    clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    [c.start() for c in clients]
    [c.join() for c in clients]
    assert failures == []
    until(lambda: stats(pb, server.stub).in_hand == 1)
    now = stats(pb, server.stub)
    assert now.started > 1200
    assert now.batches < now.batch_events


def test_the_context_tells_deadline_peer_method_and_headers(pb, echo):
    before = time.time()
    answer = echo.Context(pb.Nothing(), timeout=20, metadata=[("x-test", "yes")])
    assert before + 20 - 2 < answer.deadline_ms / 1000 < time.time() + 20 + 2
    assert answer.peer.startswith("ipv4:127.0.0.1:")
    assert (answer.caller, answer.method, answer.header) == ("anonymous", "/ringback.test.v1.Echo/Context", "yes")
    answer = echo.Context(pb.Nothing())
    assert (answer.deadline_ms, answer.header) == (2**63 - 1, "(none)")


# --- methods that are not there ---


@pytest.mark.parametrize("path", ["/ringback.test.v1.Echo/Unserved", "/ringback.test.v1.Echo/Nope", "/no.such.Service/M", "/x"])
def test_an_unknown_method_is_unimplemented(pb, start, path):
    channel = start().channel()
    for call in (channel.unary_unary(path), channel.unary_stream(path)):
        error = error_of(lambda: list(call(b"", timeout=60) or []))
        assert error.code() == Code.UNIMPLEMENTED
        assert path in error.details()
    error = error_of(lambda: list(channel.stream_stream(path)(iter([b"a"]), timeout=60)))
    assert error.code() == Code.UNIMPLEMENTED


# --- deadlines and cancellation ---


def test_a_deadline_ends_the_call_on_both_sides(pb, echo):
    assert stats(pb, echo).closed == 0  # connected, so that the call gets there
    error = error_of(lambda: echo.Park(pb.ParkRequest(keys=[7]), timeout=6))
    assert error.code() == Code.DEADLINE_EXCEEDED
    until(lambda: stats(pb, echo).closed == 1)
    until(lambda: (stats(pb, echo).parked, stats(pb, echo).in_hand) == (0, 1))


def test_cancelling_a_parked_call_unparks_it(pb, echo):
    call = echo.Park.future(pb.ParkRequest(keys=[7]))
    until(lambda: stats(pb, echo).parked == 1)
    call.cancel()
    until(lambda: stats(pb, echo).parked == 0)
    until(lambda: stats(pb, echo).closed == 1)


def test_a_client_that_vanishes_closes_its_calls(pb, start):
    server = start()
    channel = server.channel()
    stub = pb.EchoStub(channel)
    calls = [stub.Park.future(pb.ParkRequest(keys=[i])) for i in range(10)]
    until(lambda: stats(pb, server.stub).parked == 10)
    channel.close()
    until(lambda: stats(pb, server.stub).closed == 10)
    assert all(c.done() for c in calls)
    until(lambda: stats(pb, server.stub).in_hand == 1)


def test_a_cancelled_upload_is_not_taken_for_a_finished_one(pb, echo):
    for _ in range(50):
        more = threading.Event()

        def requests():
            yield pb.EchoRequest(text="a")
            more.wait(60)
        call = echo.Collect.future(requests())
        time.sleep(0.005)
        call.cancel()
        more.set()
        until(lambda: stats(pb, echo).in_hand == 1)
    assert stats(pb, echo).half_closed == 0


def test_a_cancelled_call_stays_until_its_question_is_answered(pb, start):
    """The server asserts that it is not closed before."""
    server = start()
    for tokens in (0, 1):
        server.stub.Wake(pb.WakeRequest(key=1, tokens=tokens))
        before = stats(pb, server.stub)
        call = under_way(pb, server.stub, keys=[1])
        call.cancel()
        assert stats(pb, server.stub).in_hand == 2
        silence(pb, server.stub, 0)
        until(lambda: stats(pb, server.stub).in_hand == 1)
        assert stats(pb, server.stub).closed == before.closed + 1
    assert server.stub.Park(pb.ParkRequest(keys=[1]), timeout=60).why == "token"  # it was given back


def test_cancelling_a_stream_stops_it(pb, echo):
    call = echo.Expand(pb.EchoRequest(payload=b"x" * 10000, count=1000000))
    next(call)
    call.cancel()
    until(lambda: stats(pb, echo).closed == 1)
    until(lambda: stats(pb, echo).in_hand == 1)


def test_an_answer_that_finds_nobody_is_reported(pb, start):
    """The caller gives up while the thread that will answer is busy."""
    server = start()
    other = pb.EchoStub(server.channel())
    for attempt in range(20):
        silence(pb, other)
        call = server.stub.Park.future(pb.ParkRequest(keys=[1]))
        server.stub.Wake(pb.WakeRequest(key=1, tokens=1))
        silence(pb, other, 0)
        call.cancel()
    until(lambda: stats(pb, server.stub).in_hand == 1)
    now = stats(pb, server.stub)
    assert now.closed + now.undelivered <= 20


# --- limits ---


def test_a_message_at_the_limit_passes_and_one_beyond_is_refused(pb, echo):
    overhead = len(pb.EchoRequest(payload=b"x" * 60000).SerializeToString()) - 60000
    assert len(echo.Unary(pb.EchoRequest(payload=b"x" * (REQUEST_BYTES_MAX - overhead))).payload) == REQUEST_BYTES_MAX - overhead
    too_much = pb.EchoRequest(payload=b"x" * (REQUEST_BYTES_MAX - overhead + 1))
    assert error_of(lambda: echo.Unary(too_much)).code() == Code.RESOURCE_EXHAUSTED
    assert error_of(lambda: list(echo.Expand(too_much))).code() == Code.RESOURCE_EXHAUSTED
    assert error_of(lambda: echo.Collect(iter([too_much]))).code() == Code.RESOURCE_EXHAUSTED
    assert error_of(lambda: list(echo.Talk(iter([too_much])))).code() == Code.RESOURCE_EXHAUSTED
    until(lambda: stats(pb, echo).in_hand == 1)


def test_headers_beyond_the_limit_are_refused(pb, start):
    server = start()
    echo = server.stub
    assert echo.Context(pb.Nothing(), metadata=[("x-test", "v" * 4000)]).header == "v" * 4000
    error = error_of(lambda: echo.Context(pb.Nothing(), metadata=[("x-test", "v" * (HEADER_BYTES_MAX + 1))], timeout=60))
    assert error.code() == Code.RESOURCE_EXHAUSTED
    # gRPC closes the connection, too; a new one is as good.
    assert pb.EchoStub(server.channel()).Unary(pb.EchoRequest(text="again")).text == "again"


def test_a_compressed_request_is_refused(pb, echo):
    error = error_of(lambda: echo.Unary(pb.EchoRequest(text="a" * 1000), compression=grpc.Compression.Gzip, timeout=60))
    assert error.code() == Code.UNIMPLEMENTED


def test_beyond_the_calls_in_hand_a_call_is_refused_with_retry_info(pb, start):
    server = start(calls_max=5)
    calls = [server.stub.Park.future(pb.ParkRequest(keys=[3])) for _ in range(4)]
    until(lambda: stats(pb, server.stub).parked == 4)
    fifth = server.stub.Park.future(pb.ParkRequest(keys=[3]))
    error = error_of(lambda: [stats(pb, server.stub) for _ in range(100)])
    assert error.code() == Code.RESOURCE_EXHAUSTED
    assert details_of(error)["RetryInfo"].retry_delay.seconds == 1
    assert details_of(error)["ErrorInfo"].reason == "RESOURCE_EXHAUSTED"
    [call.cancel() for call in [*calls, fifth]]

    def accepted():
        try:
            return stats(pb, server.stub).refused >= 1
        except grpc.RpcError:
            return False
    until(accepted)


def test_beyond_the_parked_limit_parking_is_refused(pb, start):
    server = start(parked_max=2)
    calls = [server.stub.Park.future(pb.ParkRequest(keys=[3])) for _ in range(2)]
    until(lambda: stats(pb, server.stub).parked == 2)
    assert error_of(lambda: server.stub.Park(pb.ParkRequest(keys=[3]))).code() == Code.RESOURCE_EXHAUSTED
    server.stub.Wake(pb.WakeRequest(key=3, tokens=2))
    assert [c.result().why for c in calls] == ["token", "token"]


# --- what requests may carry ---


def raw(start, path="Unary"):
    return start().channel().unary_unary(f"/ringback.test.v1.Echo/{path}")


def field(number, data):
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


@pytest.mark.parametrize("request_bytes, path, words", [
    (field(1, b"\xff"), "text", "UTF-8"),
    (field(1, b"\xc0\x80"), "text", "UTF-8"),
    (field(1, b"\xed\xa0\x80"), "text", "UTF-8"),
    (field(1, b"a\0b"), "text", "NUL"),
    (field(3, b"") * 3 + field(3, field(1, b"a\0")), "items[3].tag", "NUL"),
    (field(4, field(1, field(1, field(2, b"\xff")))), "node.child.child.name", "UTF-8"),
    (field(6, field(1, b"k") + field(2, b"v")) + field(6, field(1, b"k") + field(2, b"\xfe")), "labels[1].value", "UTF-8"),
    (b"\x0a\x05ab", "", "not a valid"),
    (field(3, b"\x0a\x05ab"), "items[0]", "not a valid"),
    (b"\xff\xff\xff", "", "not a valid"),
    (b"\x0b\x0c", "", "not a valid"),
])
def test_bad_text_and_malformed_messages_name_the_field(start, request_bytes, path, words):
    error = error_of(lambda: raw(start)(request_bytes, timeout=60))
    assert error.code() == Code.INVALID_ARGUMENT
    violations = details_of(error)["BadRequest"].field_violations
    assert [v.field for v in violations] == [path]
    assert words in violations[0].description
    assert error.details().startswith(f"{path}: " if path else "the request is ")


def test_bad_text_in_a_stream_ends_it(start):
    call = start().channel().stream_stream("/ringback.test.v1.Echo/Talk")
    error = error_of(lambda: list(call(iter([field(1, b"ok"), field(3, field(1, b"\xff"))]), timeout=60)))
    assert error.code() == Code.INVALID_ARGUMENT
    assert details_of(error)["BadRequest"].field_violations[0].field == "items[0].tag"


def test_messages_nest_64_deep_and_no_deeper(pb, echo):
    def nested(depth):
        request = pb.EchoRequest()
        node = request.node
        for _ in range(depth - 2):
            node = node.child
        node.name = "x"
        return request
    echo.Unary(nested(64))
    error = error_of(lambda: echo.Unary(nested(65)))
    assert error.code() == Code.INVALID_ARGUMENT
    assert "deep" in error.details()


@pytest.mark.parametrize("code", [c for c in Code if c != Code.OK])
def test_every_error_arrives_with_its_details(pb, start, echo, code):
    error = error_of(lambda: echo.Fail(pb.FailRequest(code=code.value[0], message="why: ünïcode\n" + "x" * 2000)))
    assert error.code() == code
    assert error.details().startswith("why: ünïcode\nxxx") and len(error.details()) <= 512
    details = details_of(error)
    if code == Code.INVALID_ARGUMENT:
        assert details == {}
    else:
        assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == (code.name, "ringback.v1")
    assert ("RetryInfo" in details) == (code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED))


# --- parking ---


def park_in_order(pb, echo, count, **request):
    calls = []
    for i in range(count):
        calls.append(echo.Park.future(pb.ParkRequest(**request)))
        until(lambda: stats(pb, echo).parked == i + 1)
    return calls


def test_exclusive_waiters_are_tried_in_order_while_each_is_answered(pb, echo):
    calls = park_in_order(pb, echo, 6, keys=[5])
    tries = stats(pb, echo).tries
    echo.Wake(pb.WakeRequest(key=5, tokens=2))
    assert [c.result().turn for c in calls[:2]] == [0, 1]
    until(lambda: stats(pb, echo).parked == 4)
    until(lambda: stats(pb, echo).tries >= tries + 3)
    assert stats(pb, echo).tries == tries + 3  # the third found nothing, and the fourth was not asked
    echo.Wake(pb.WakeRequest(key=5, tokens=4))
    assert [c.result().turn for c in calls] == list(range(6))  # the third kept its place in line


def test_a_key_that_is_woken_while_the_question_is_under_way_is_not_lost(pb, start):
    server = start()
    call = under_way(pb, server.stub, keys=[1])  # decided: there is no token
    server.stub.Wake(pb.WakeRequest(key=1, tokens=1))
    silence(pb, server.stub, 0)
    assert call.result(timeout=60).why == "token"


def test_a_waiter_that_is_tried_for_long_does_not_stop_the_next(pb, start):
    server = start()
    calls = park_in_order(pb, server.stub, 2, keys=[1])
    silence(pb, server.stub)
    server.stub.Wake(pb.WakeRequest(key=1, tokens=1))
    until(lambda: stats(pb, server.stub).tries == 3)
    server.stub.Wake(pb.WakeRequest(key=1, tokens=1))
    silence(pb, server.stub, 0)
    assert [call.result(timeout=60).why for call in calls] == ["token", "token"]


def test_a_waiter_of_many_keys_is_woken_by_any(pb, echo):
    calls = park_in_order(pb, echo, 1, keys=range(1, 51))
    echo.Wake(pb.WakeRequest(key=60, tokens=1))
    assert stats(pb, echo).parked == 1
    echo.Wake(pb.WakeRequest(key=33, tokens=1))
    assert calls[0].result().why == "token"


def test_shared_waiters_are_all_woken(pb, echo):
    calls = park_in_order(pb, echo, 5, keys=[9], shared=True)
    echo.Wake(pb.WakeRequest(key=9))
    assert [c.result().why for c in calls] == ["woken"] * 5


def test_key_zero_tries_the_first_of_every_key(pb, echo):
    calls = park_in_order(pb, echo, 3, keys=[4])
    other = echo.Park.future(pb.ParkRequest(keys=[6]))
    until(lambda: stats(pb, echo).parked == 4)
    tries = stats(pb, echo).tries
    echo.Wake(pb.WakeRequest(key=0))
    until(lambda: stats(pb, echo).tries == tries + 2)
    until(lambda: stats(pb, echo).parked == 4)
    echo.Wake(pb.WakeRequest(key=6, tokens=1))
    echo.Wake(pb.WakeRequest(key=4, tokens=3))
    assert sorted(c.result().turn for c in [*calls, other]) == [0, 1, 2, 3]


def test_a_parked_call_is_woken_at_its_time(pb, echo):
    began = time.monotonic()
    calls = [echo.Park.future(pb.ParkRequest(keys=[1], wait_ms=ms)) for ms in (400, 100, 250)]
    assert [c.result().why for c in calls] == ["deadline"] * 3
    assert 0.35 < time.monotonic() - began < 20 * SLOW


def test_waiters_on_all_threads_are_woken(pb, start):
    server = start(threads=4)
    stubs = [pb.EchoStub(server.channel()) for _ in range(8)]
    calls = [stub.Park.future(pb.ParkRequest(keys=[2])) for stub in stubs for _ in range(5)]
    until(lambda: stats(pb, server.stub).parked == 40)
    server.stub.Wake(pb.WakeRequest(key=2, tokens=40))
    assert sorted(c.result(timeout=60).turn for c in calls) == list(range(40))


# --- drain ---


def test_drain_ends_parked_calls_finishes_running_ones_and_exits(pb, start):
    server = start(grace_ms=60000)
    parked = park_in_order(pb, server.stub, 3, keys=[1])
    server.stub.Wake(pb.WakeRequest(key=2, tokens=1))
    running = under_way(pb, server.stub, keys=[2])
    silence(pb, server.stub, 0.5)
    server.process.send_signal(signal.SIGTERM)
    assert [c.result(timeout=60).why for c in parked] == ["drain"] * 3
    assert running.result(timeout=60).why == "token"
    assert server.process.wait(20 * PATIENCE) == 0


def test_drain_cancels_what_outlives_the_grace(pb, start):
    server = start()
    more = threading.Event()

    def requests():
        yield pb.EchoRequest(text="a")
        more.wait(120)
    talk = server.stub.Talk(requests())
    assert next(talk).text == "a"
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20 * PATIENCE) == 0
    more.set()
    assert 1.4 < time.monotonic() - began < 40 * SLOW


def test_drain_does_not_wait_for_idle_clients(pb, start):
    took = []
    for _ in range(3):
        server = start()
        server.stub.Unary(pb.EchoRequest())
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20 * PATIENCE) == 0
        took.append(time.monotonic() - began)
    assert min(took) < 1.3, "each time the grace of 1.5 s was used up"


def test_a_second_server_cannot_take_the_same_port(start):
    first = start()
    second = EchoServer(listen=f"127.0.0.1:{first.port}")
    assert second.port is None
    assert second.process.wait(20 * PATIENCE) == 1


# --- health ---


@pytest.fixture
def health(start):
    from grpc.health.v1 import health_pb2, health_pb2_grpc
    server = start()
    server.health = health_pb2_grpc.HealthStub(server.channel())
    server.ask = health_pb2.HealthCheckRequest
    return server


SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def test_health_knows_the_services(health):
    for name in ("", "ringback.test.v1.Echo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"):
        assert health.health.Check(health.ask(service=name)).status == SERVING
    assert error_of(lambda: health.health.Check(health.ask(service="nope"))).code() == Code.NOT_FOUND


def test_health_watch_tells_of_the_shutdown(health):
    watch = health.health.Watch(health.ask())
    unknown = health.health.Watch(health.ask(service="nope"))
    assert next(watch).status == SERVING
    assert next(unknown).status == SERVICE_UNKNOWN
    health.process.send_signal(signal.SIGTERM)
    assert next(watch).status == NOT_SERVING
    assert error_of(lambda: next(watch)).code() == Code.UNAVAILABLE
    assert health.process.wait(20 * PATIENCE) == 0


def test_health_and_other_calls_are_answered_while_the_store_is_silent(pb, health):
    health.stub.Wake(pb.WakeRequest(key=1, tokens=1))
    waiting = under_way(pb, health.stub, keys=[1])
    for _ in range(20):
        assert health.health.Check(health.ask(), timeout=60).status == SERVING
        assert health.stub.Unary(pb.EchoRequest(text="x"), timeout=60).text == "x"
    assert not waiting.done()
    silence(pb, health.stub, 0)
    assert waiting.result(timeout=60).why == "token"


# --- reflection ---


@pytest.fixture(params=["v1", "v1alpha"])
def reflect(request, start):
    """Asks one question a stream; answers come as the response message."""
    import importlib
    messages = importlib.import_module(f"grpc.reflection.{request.param}.reflection_pb2")
    stubs = importlib.import_module(f"grpc.reflection.{request.param}.reflection_pb2_grpc")
    stub = stubs.ServerReflectionStub(start().channel())

    def ask(*questions):
        return list(stub.ServerReflectionInfo(iter(messages.ServerReflectionRequest(**q) for q in questions), timeout=20))
    return ask


def file_names(answer):
    from google.protobuf import descriptor_pb2
    return [descriptor_pb2.FileDescriptorProto.FromString(raw).name for raw in answer.file_descriptor_response.file_descriptor_proto]


def test_reflection_lists_services(reflect):
    answer, = reflect({"list_services": "*"})
    assert {s.name for s in answer.list_services_response.service} == {
        "ringback.test.v1.Echo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection"}


def test_reflection_finds_files_and_symbols_with_their_imports(reflect):
    questions = [{"file_by_filename": "echo.proto"}, {"file_containing_symbol": "ringback.test.v1.Echo"},
                 {"file_containing_symbol": "ringback.test.v1.Echo.Park"}, {"file_containing_symbol": "ringback.test.v1.Item.tag"},
                 {"file_containing_symbol": "ringback.test.v1.EchoRequest.LabelsEntry"},
                 {"file_containing_symbol": "grpc.health.v1.HealthCheckResponse.ServingStatus"},
                 {"file_containing_symbol": "google.rpc.RetryInfo"}]
    answers = reflect(*questions)
    assert [file_names(a) for a in answers] == [
        ["echo.proto"], ["echo.proto"], ["echo.proto"], ["echo.proto"], ["echo.proto"], ["grpc/health/v1/health.proto"],
        ["google/rpc/error_details.proto", "google/protobuf/duration.proto"]]
    assert answers[1].original_request.file_containing_symbol == "ringback.test.v1.Echo"


def test_reflection_says_what_it_does_not_know(reflect):
    answers = reflect({"file_by_filename": "nope.proto"}, {"file_containing_symbol": "ringback.test.v1.Ech"},
                      {"file_containing_symbol": "ringback.test.v1"}, {"all_extension_numbers_of_type": "nope"},
                      {"file_containing_extension": {"containing_type": "ringback.test.v1.Item", "extension_number": 1}}, {})
    assert [a.error_response.error_code for a in answers] == [5, 5, 5, 5, 5, 3]
    answer, = reflect({"all_extension_numbers_of_type": "ringback.test.v1.Item"})
    assert answer.all_extension_numbers_response.base_type_name == "ringback.test.v1.Item"
