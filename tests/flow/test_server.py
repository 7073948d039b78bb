"""ringbackd itself: health, reflection, the side port, options, start and end."""
import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import time

import grpc
import pytest

from harness import PATIENCE, SERVER, Api, bucket_of, duration, eventually, free_port, rejects

SERVING, NOT_SERVING = 1, 2


def test_health_answers_for_the_server_and_each_service(api):
    for service in ("", "ringback.v1.QueueService", "ringback.v1.JobService", "ringback.v1.WorkerService", "ringback.v1.CallbackService"):
        assert api.health(service).status == SERVING
    with pytest.raises(grpc.RpcError) as error:
        api.health("no.such.Service")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services_and_gives_their_files(api, version):
    pb = importlib.import_module(f"grpc.reflection.{version}.reflection_pb2")
    stub = importlib.import_module(f"grpc.reflection.{version}.reflection_pb2_grpc").ServerReflectionStub(api.channel)
    asked = [pb.ServerReflectionRequest(list_services=""), pb.ServerReflectionRequest(file_containing_symbol="ringback.v1.JobService"),
             pb.ServerReflectionRequest(file_by_filename="ringback/v1/common.proto"),
             pb.ServerReflectionRequest(file_containing_symbol="ringback.v1.JobService.SubmitJob"),
             pb.ServerReflectionRequest(file_containing_symbol="no.such.thing")]
    answers = list(stub.ServerReflectionInfo(iter(asked), timeout=10))
    assert len(answers) == len(asked)
    names = {s.name for s in answers[0].list_services_response.service}
    assert {"ringback.v1.QueueService", "ringback.v1.JobService", "ringback.v1.WorkerService", "ringback.v1.CallbackService",
            "grpc.health.v1.Health"} <= names
    from google.protobuf import descriptor_pb2
    for answer, name in ((answers[1], "ringback/v1/job.proto"), (answers[2], "ringback/v1/common.proto"), (answers[3], "ringback/v1/job.proto")):
        files = [descriptor_pb2.FileDescriptorProto.FromString(d) for d in answer.file_descriptor_response.file_descriptor_proto]
        assert name in [f.name for f in files]
    assert answers[4].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_an_unknown_method_is_unimplemented(api):
    for method in ("/ringback.v1.JobService/NoSuchMethod", "/no.such.Service/Method", "/x", "//", "/ringback.v1.JobService/submitjob"):
        with pytest.raises(grpc.RpcError) as error:
            api.channel.unary_unary(method)(b"", timeout=30)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED, method


def test_a_deadline_that_has_passed_ends_a_call(api, queue):
    stream = api.job.WatchJobs(bucket=bucket_of(queue), timeout=6)
    assert next(stream).cursor
    with pytest.raises(grpc.RpcError) as error:
        next(stream)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_side_port_tells_metrics_and_health(server, api, queue):
    api.submit(queue)
    assert server.http("/healthz")[0] == 200
    status, text = server.http("/metrics")
    assert status == 200 and "# TYPE" in text
    assert all(name.startswith("ringback_") for name in server.metrics())
    assert server.http("/no/such/page")[0] == 404


def test_many_calls_at_once_are_all_answered_and_merged(server, api, queue):
    calls = [api.job.SubmitJob.begin(queue=queue, job=dict(tag="T")) for _ in range(64 * 8)]
    assert len({c.result().job.id for c in calls}) == 512
    text = server.http("/metrics")[1]
    assert "batch" in text or "merged" in text, "a metric shows the sizes of merged batches"


def test_help_names_every_option_and_its_variable():
    text = subprocess.run([SERVER, "--help"], capture_output=True, text=True, check=True, timeout=120).stdout
    for option in ("--listen", "--http", "--data", "--redis", "--callback-allow", "--rpc-threads", "--log-format", "--log-level",
                   "--ports-file", "--payload-bytes-max"):
        assert option in text, option
    assert "RINGBACK_LISTEN" in text


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--listen"], ["--listen", "nonsense"], ["--rpc-threads", "0"], ["--rpc-threads", "x"],
                                       ["--log-level", "loud"], ["--callback-allow", "300.0.0.0/8"], ["--redis", "http://x"],
                                       ["--payload-bytes-max", "2000000"], ["stray"]])
def test_a_wrong_option_is_refused_with_a_message(arguments, own_directory):
    done = subprocess.run([SERVER, "--data", own_directory / "d", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode not in (0, -11, -6) and done.stderr


@pytest.mark.parametrize("option,value,said", [("--redis", "foo", '"foo"'), ("--callback-allow", "10.0.0.0/8,,", "empty range"),
                                               ("--callback-allow", ",10.0.0.0/8", "empty range")])
def test_a_wrong_option_is_told_with_its_value_and_the_reason(option, value, said):
    done = subprocess.run([SERVER, option, value], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and option in done.stderr and value in done.stderr and said in done.stderr, done.stderr


def test_what_may_be_a_password_is_not_shown():
    done = subprocess.run([SERVER, "--redis", "me:secret@host"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "--redis" in done.stderr and "secret" not in done.stderr


def test_options_can_come_from_the_environment(start_server):
    server = start_server(env={"RINGBACK_LOG_FORMAT": "json", "RINGBACK_RPC_THREADS": "2"})
    assert server.api.health().status == SERVING
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert lines and all({"time", "level", "event"} <= line.keys() for line in lines)


def test_a_port_that_is_taken_is_refused(server, start_server, api):
    other = start_server(started_up=False)
    other.allow_errors = True
    other.ports = dict(grpc=server.ports["grpc"])
    other.spawn()
    assert other.process.wait(30 * PATIENCE) != 0
    assert api.health().status == SERVING
    assert "cannot listen" in other.log() and "Address already in use" in other.log()
    assert max(map(len, other.log().splitlines())) < 300, other.log()


def test_sigterm_ends_parked_calls_cleanly_and_the_process_with_0(start_server, bucket):
    server = start_server()
    queue = server.api.make_queue(bucket)
    waiting = server.api.worker.LeaseJobs.begin(queues=[queue], wait=duration(50), timeout=55)
    time.sleep(0.3)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    try:
        assert list(waiting.result().jobs) == []
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(20 * PATIENCE) == 0
    assert time.monotonic() - begun < 30


def test_sigint_ends_the_process_with_0(start_server):
    server = start_server()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20 * PATIENCE) == 0


def test_jobs_queues_and_rules_outlive_a_restart(start_server, bucket, receiver):
    server = start_server()
    queue = server.api.make_queue(bucket, max_size=777)
    server.api.set_callback(queue, receiver.url())
    ids = server.api.submit(queue, 300, operation=dict(xml="<A>1</A>"))
    leased, = server.api.lease(queue)
    assert server.stop() == 0
    server.start()
    api = server.api
    assert api.queue.GetQueue(name=queue).queue.max_size == 777
    assert api.state(leased.job.id, queue) == "RUNNING"
    assert api.finish(leased).status.code == 0
    receiver.wait(1)
    assert [l.job.id for l in api.lease(queue, 250)] == ids[1:251]


def test_two_servers_cannot_have_one_data_directory(start_server):
    server = start_server()
    other = start_server(started_up=False, data=server.data)
    other.allow_errors = True
    other.spawn()
    assert other.process.wait(30 * PATIENCE) != 0
    assert server.api.health().status == SERVING


def test_a_redis_that_evicts_is_refused(start_redis, start_server):
    redis = start_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    server = start_server(started_up=False, redis=redis.url)
    server.allow_errors = True
    server.spawn()
    assert server.process.wait(30 * PATIENCE) != 0
    assert "noeviction" in server.log() or "maxmemory" in server.log()


@pytest.mark.parametrize("options,facts,warning", [
    ([], ["appendonly=yes", "appendfsync=always", "maxmemory_policy=noeviction"], None),
    (["--appendfsync", "everysec"], ["appendonly=yes", "appendfsync=everysec"], "does not sync each write"),
    (["--appendonly", "no"], ["appendonly=no"], "keeps no append-only file")])
def test_a_server_says_at_start_how_durable_its_redis_is(start_redis, start_server, options, facts, warning):
    log = start_server(redis=start_redis(*options).url).log()
    line = next(line for line in log.splitlines() if "maxmemory_policy=" in line)
    assert all(fact in line for fact in facts), line
    assert ("acknowledged jobs are lost" in log) == bool(warning)
    assert not warning or warning in log


def test_a_full_redis_refuses_submits_and_lets_the_rest_go_on(start_redis, start_server, bucket):
    redis = start_redis("--maxmemory", "12mb", "--maxmemory-policy", "noeviction")
    server = start_server(redis=redis.url)
    api = server.api
    queue = api.make_queue(bucket)
    with rejects("RESOURCE_EXHAUSTED") as seen:
        for _ in range(400):
            api.submit(queue, 50, operation=dict(opaque=dict(data=b"z" * 4000)))
    assert "RetryInfo" in seen.details
    leased, other = api.lease(queue, 2)
    assert api.finish(leased).status.code == 0
    assert api.worker.ReleaseJobs(bucket=f"buckets/{bucket}", leases=[dict(job_id=other.job.id, fencing_token=other.fencing_token)]).results[0].code == 0
    assert api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[other.job.id]).cancelled_count == 1


def test_a_redis_with_a_password_and_a_database_is_used(start_redis, start_server, bucket):
    redis = start_redis()
    client = redis.client()
    client.execute_command("ACL", "SETUSER", "ringback", "on", ">s3cret", "allkeys", "allchannels", "+@all")
    server = start_server(redis=f"redis://ringback:s3cret@127.0.0.1:{redis.port}/3")
    queue = server.api.make_queue(bucket)
    server.api.submit(queue)
    assert client.dbsize() == 0
    client.select(3)
    assert client.dbsize() > 0
    assert "s3cret" not in server.log()


def test_a_redis_on_a_unix_socket_is_used(start_redis, start_server, bucket):
    redis = start_redis()
    server = start_server(redis=f"unix://{redis.socket}")
    queue = server.api.make_queue(bucket)
    assert len(server.api.submit(queue, 10)) == 10


def test_the_embedded_redis_ends_with_its_server(start_server):
    from harness import processes_of
    server = start_server()
    assert processes_of(server.directory)
    server.stop()
    eventually(lambda: not processes_of(server.directory), 10)


def test_a_server_without_its_redis_does_not_start(start_server):
    server = start_server(started_up=False, redis=f"redis://127.0.0.1:{free_port()}")
    server.allow_errors = True
    server.spawn()
    try:
        assert server.process.wait(20) != 0
    except subprocess.TimeoutExpired:  # waiting for it, and saying so, is as good
        assert not (server.directory / "ports").exists() or Api(server.target).health().status == NOT_SERVING
        server.kill()


def test_the_version_is_told():
    assert subprocess.run([SERVER, "--version"], capture_output=True, text=True, timeout=120, env=dict(os.environ)).returncode == 0


@pytest.mark.parametrize("turn", range(5))
def test_a_drain_in_the_midst_of_streams_parked_calls_and_load_is_clean(start_redis, start_server, bucket, turn):
    redis = start_redis()
    server = start_server("--rpc-threads", str(1 + turn % 2), redis=redis.url)
    queue = server.api.make_queue(bucket)
    watches = [server.api.job.WatchJobs(bucket=f"buckets/{bucket}", timeout=60) for _ in range(5)]
    for watch in watches:
        next(watch)
    waiting = [server.api.worker.LeaseJobs.begin(queues=[queue], timeout=50) for _ in range(5)]
    calls = [server.api.job.SubmitJob.begin(queue=queue, job=dict(tag="T"), timeout=120) for _ in range(50)]
    server.process.send_signal(signal.SIGTERM)
    calls += [server.api.job.SubmitJob.begin(queue=queue, job=dict(tag="T"), timeout=120) for _ in range(50)]
    assert server.process.wait(30 * PATIENCE) == 0
    for call in waiting + calls:
        assert call.exception(timeout=30 * PATIENCE) is None or call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), call.code()
    for watch in watches:
        with pytest.raises(grpc.RpcError) as error:
            for _ in watch:
                pass
        assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_a_second_signal_ends_the_process_at_once_with_1(start_server, start_redis, bucket):
    redis = start_redis()
    server = start_server(redis=redis.url)
    server.allow_errors = True
    queue = server.api.make_queue(bucket)
    redis.freeze()
    server.api.queue.GetQueue.begin(name=queue)  # a call that the drain waits for
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5 * PATIENCE) == 1
    redis.thaw()


def test_sigterm_ends_a_server_that_still_waits_for_its_redis(start_server):
    server = start_server(started_up=False, redis=f"redis://127.0.0.1:{free_port()}")
    server.spawn()
    eventually(lambda: "waiting for redis" in server.log())
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10 * PATIENCE) == 0


def test_more_callbacks_at_once_than_files_may_be_open_are_refused(own_directory):
    done = subprocess.run(["sh", "-c", 'ulimit -n 1000 && exec "$0" --callback-concurrency 900', SERVER], cwd=own_directory,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "--callback-concurrency 900 needs 1156 open files, and at most 1000" in done.stderr, done.stderr


def test_the_side_port_answers_beyond_1024_descriptors(start_server):
    server = start_server()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with contextlib.ExitStack() as connections:
        for _ in range(1100):
            connections.enter_context(socket.create_connection(("127.0.0.1", server.ports["grpc"])))
        eventually(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) > 1100, what="the server has taken them")
        assert server.http("/healthz")[0] == 200
        assert server.metrics()["ringback_redis_up"] == 1
