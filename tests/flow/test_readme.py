"""What the README shows works: its producer and worker run as they stand there, and its table has every option."""
import base64
import hmac
import http.client
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

import harness

README = (harness.ROOT / "README.md").read_text()


def block(name):
    return next(text for text in re.findall(r"```\w+\n(.*?)```", README, re.S) if re.match(rf"(#|//) {re.escape(name)}\b", text))


def run(tmp_path, name, target):
    (tmp_path / name).write_text(block(name))
    stubs = next(path for path in sys.path if (pathlib.Path(path) / "ringback" / "v1" / "job_pb2.py").exists())
    return subprocess.Popen([sys.executable, tmp_path / name, target], stdout=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(stubs)})


def test_the_producer_and_the_worker_of_the_readme_run(start_server, tmp_path):
    server = start_server()
    producer = run(tmp_path, "producer.py", server.target)
    job = producer.communicate(timeout=30 * harness.PATIENCE)[0].strip()
    assert producer.returncode == 0 and re.fullmatch("j[0-9a-f]{32}", job)
    worker = run(tmp_path, "worker.py", server.target)
    try:
        assert worker.stdout.readline().strip() == f"{job} done"
        done = server.api.get(job, "buckets/demo/queues/queue-1")
        assert harness.state_name(done.state) == "SUCCESS" and done.result.xml == "<Output><Object>output/demo.mp4</Object></Output>"
    finally:
        worker.kill()
        worker.wait()


def test_what_the_readme_says_of_running_it_can_be_pasted_as_a_whole(tmp_path):
    text = next(text for text in re.findall(r"```sh\n(.*?)```", README, re.S) if "build/bin/ringback activate" in text)
    grpc, http, receiver = harness.free_port(), harness.free_port(), harness.free_port()
    text = text.replace(text.splitlines()[0] + "\n", "").replace("build/bin", str(harness.BUILD / "bin")).replace("9000", str(receiver))
    assert "docker/packages" not in text and text.count(" &") >= 3
    script = f"trap 'kill $(jobs -p); wait' EXIT\n{text}\necho ended $?\n"
    try:
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120 * harness.PATIENCE,
                              env=os.environ | dict(RINGBACK_SERVER=f"127.0.0.1:{grpc}", RINGBACK_LISTEN=f"127.0.0.1:{grpc}",
                                                    RINGBACK_HTTP=f"127.0.0.1:{http}"))
    finally:
        harness.end_processes_of(tmp_path)
    assert "queue-1" in done.stdout and "ended 0" in done.stdout, (done.stdout, done.stderr)


def test_the_readme_lists_every_option_of_the_server():
    options = re.findall(r"^\s+--([a-z-]+)", subprocess.run([harness.SERVER, "--help"], capture_output=True, text=True).stdout, re.M)
    missing = [name for name in options if name not in ("help", "version") and f"`--{name}" not in README]
    assert options and not missing


def built(tmp_path, *command):
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300 * harness.PATIENCE,
                          env={**os.environ, "GOCACHE": str(tmp_path / "go-cache"), "GOFLAGS": "-mod=mod"})
    assert done.returncode == 0, done.stderr
    return [tmp_path / "receiver"]


def python_receiver(tmp_path):
    return [sys.executable, tmp_path / "receiver.py"]


def c_receiver(tmp_path):
    return built(tmp_path, os.environ.get("CC", "cc"), "-Wall", "-Werror", "receiver.c", "-o", "receiver", "-lmicrohttpd", "-lcrypto")


def go_receiver(tmp_path):
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    return built(tmp_path, "go", "build", "-o", "receiver", "receiver.go")


def post_signed(port, secret, sent, signature=None):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    right = "v1," + base64.b64encode(hmac.digest(key, f"cb_1.{sent}.<Response/>".encode(), "sha256")).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30 * harness.PATIENCE)
    connection.request("POST", "/", "<Response/>", {"webhook-id": "cb_1", "webhook-timestamp": sent, "webhook-signature": signature or right})
    status = connection.getresponse().status
    connection.close()
    return status


# Node's is run by tests/node.
@pytest.mark.parametrize("name,make", [("receiver.py", python_receiver), ("receiver.c", c_receiver), ("receiver.go", go_receiver)],
                         ids=["python", "c", "go"])
def test_the_receiver_takes_what_is_signed_and_nothing_else(api, queue, tmp_path, name, make):
    port = harness.free_port()
    (tmp_path / name).write_text(block(name))
    command = make(tmp_path)
    secret = api.callback.RotateSigningSecret(queue=queue).secret
    with open(tmp_path / "out", "w") as out:
        receiver = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, "SECRET": secret, "PORT": str(port)})
    try:
        api.callback.UpdateCallbackRule(rule=dict(queue=queue, url=f"http://127.0.0.1:{port}/"), update_mask=dict(paths=["url"]))
        harness.eventually(lambda: api.callback.SendTestCallback(queue=queue).delivery.http_status == 204)
        text = (tmp_path / "out").read_text()
        assert re.match(r"cb_test_\w+ <Response>.*</Response>\n", text, re.S), text
        assert post_signed(port, secret, str(int(time.time()))) == 204
        for sent in ("abc", "", "-1", "1e9", str(int(time.time()) - 600)):
            assert post_signed(port, secret, sent) == 401, f"the timestamp {sent!r}"
        assert post_signed(port, secret, str(int(time.time())), signature="v1,\xe9") == 401
        # Two secrets while one is rotated out; then only one that the receiver does not know.
        api.callback.RotateSigningSecret(queue=queue, overlap=harness.duration(60))
        assert api.callback.SendTestCallback(queue=queue).delivery.http_status == 204
        api.callback.RotateSigningSecret(queue=queue, overlap=harness.duration(0))
        assert api.callback.SendTestCallback(queue=queue).delivery.http_status == 401
        api.callback.UpdateCallbackRule(rule=dict(queue=queue), update_mask=dict(paths=["secrets"]))
        assert api.callback.SendTestCallback(queue=queue).delivery.http_status == 401, "unsigned"
    finally:
        receiver.kill()
        receiver.wait()
