"""Fixtures of the flow tests. One server with its own Redis serves a whole pytest worker, each test in a bucket of its own; a test that
hurts servers starts its own with `start_server` and `start_redis`."""
import fcntl
import pathlib
import shutil
import tempfile

import pytest

import harness

pytest.register_assert_rewrite("outbox_model")  # so that its assertions tell their values


def _own_directory():
    # Short: a Unix socket's path has at most 107 bytes.
    return pathlib.Path(tempfile.mkdtemp(prefix="rb-"))


@pytest.fixture(scope="session", autouse=True)
def stubs(tmp_path_factory):
    """Made once for all pytest workers of a run."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base
    directory = base / "stubs"
    with open(base / "stubs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "done").exists():
            directory.mkdir(exist_ok=True)
            harness.make_stubs(directory)
            (directory / "done").touch()
    harness.import_stubs(directory)


@pytest.fixture(scope="session")
def server(stubs):
    """The server that tests share."""
    directory = _own_directory()
    running = harness.Server(directory)
    try:
        running.start()
        yield running
        running.clean_up()
    finally:
        running.kill()
        harness.end_processes_of(directory)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def api(server, request):
    request.node.ringback_logs = [(server, len(server.log()))]
    yield server.api
    assert server.running(), f"the server died:\n{server.log()[-8000:]}"


@pytest.fixture
def bucket():
    return harness.unique()


@pytest.fixture
def queue(api, bucket):
    return api.make_queue(bucket)


@pytest.fixture
def receiver():
    running = harness.Receiver()
    yield running
    running.close()


@pytest.fixture
def own_directory():
    directory = _own_directory()
    yield directory
    harness.end_processes_of(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def clock(own_directory):
    """A time that the test sets forward, for servers that are started with `env=clock.env`."""
    made = harness.Clock(own_directory)
    yield made
    made.close()


@pytest.fixture
def start_redis(own_directory):
    """start_redis(options...) starts a redis-server of the test's own."""
    started = []

    def start(*options):
        redis = harness.Redis(own_directory / f"redis{len(started)}", *options)
        started.append(redis)
        return redis.start()

    yield start
    for redis in started:
        redis.kill()


@pytest.fixture
def start_server(own_directory, request, stubs):
    """start_server(options..., redis=URL, data=DIR, env={...}) starts a ringbackd of the test's own."""
    started = []
    request.node.ringback_logs = getattr(request.node, "ringback_logs", [])

    def start(*options, started_up=True, **settings):
        server = harness.Server(own_directory / f"server{len(started)}", *options, **settings)
        started.append(server)
        request.node.ringback_logs.append((server, 0))
        return server.start() if started_up else server

    yield start
    errors = []
    for server in started:
        try:
            server.clean_up()
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for server, start in getattr(item, "ringback_logs", []):
            report.sections.append((f"log of the server on port {server.ports.get('grpc')}", server.log()[start:][-6000:]))
