"""Whom a rule trusts and as whom it goes: its own certificate authorities, and the certificate that it shows to receivers that ask."""
import ssl
import subprocess

import pytest

from harness import Receiver, eventually, rejects
from test_callbacks import deliveries, run
from test_deliveries import microseconds, update_rule
from test_tool import tool  # noqa: F401  (a fixture)

# In TLS 1.3 the handshake is over when a receiver breaks off for want of a certificate, so its alert may be lost with the connection.
REFUSED = ("tls", "reset")
TRUST = ("ca_certificates", "client_certificate", "client_key")


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A directory of PEM files: an authority (ca), which signed a receiver's certificate and a client's, a second client of nobody's, the
    client's key encrypted, a weak key, and the client's chain."""
    directory = tmp_path_factory.mktemp("pki")

    def request(name, *more, key=("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")):
        openssl("req", "-new", "-newkey", *key, "-nodes", "-subj", f"/O=Tests/CN={name}", "-keyout", directory / f"{name}.key", "-days", 3, *more)

    for name in ("ca", "stranger"):
        request(name, "-x509", "-out", directory / f"{name}.pem")
    request("weak", "-x509", "-out", directory / "weak.pem", key=("rsa:1024",))
    for name, extension in (("receiver", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        request(name, "-out", directory / f"{name}.csr")
        (directory / "extensions").write_text(extension)
        openssl("x509", "-req", "-in", directory / f"{name}.csr", "-CA", directory / "ca.pem", "-CAkey", directory / "ca.key", "-CAcreateserial",
                "-days", 3, "-extfile", directory / "extensions", "-out", directory / f"{name}.pem")
    openssl("pkey", "-in", directory / "client.key", "-aes256", "-passout", "pass:secret", "-out", directory / "encrypted.key")
    (directory / "chain.pem").write_text((directory / "client.pem").read_text() + (directory / "ca.pem").read_text())
    return directory


@pytest.fixture
def pem(pki):
    return lambda name: (pki / name).read_text()


@pytest.fixture
def secure(pki):
    """secure(asks) starts an HTTPS receiver; one that asks takes only those who show a certificate of the authority."""
    started = []

    def start(asks):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "receiver.pem", pki / "receiver.key")
        context.load_verify_locations(pki / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
        receiver = Receiver(context)
        started.append(receiver)
        return receiver

    yield start
    for receiver in started:
        receiver.close()


def last_error(api, queue):
    return api.callback.SendTestCallback(queue=queue).delivery.error_class


def test_a_rule_s_own_authority_is_trusted_instead_of_the_system_s(api, queue, pem, secure):
    receiver = secure(asks=False)
    api.set_callback(queue, receiver.url())
    assert last_error(api, queue) == "tls"
    rule = update_rule(api, queue, ca_certificates=pem("stranger.pem"))
    assert (rule.ca_certificates, rule.ca_certificate_count) == (pem("stranger.pem"), 1)
    assert last_error(api, queue) == "tls"
    assert update_rule(api, queue, ca_certificates=pem("stranger.pem") + "a comment\n" + pem("ca.pem")).ca_certificate_count == 2
    assert last_error(api, queue) == ""
    job = run(api, queue)
    eventually(lambda: deliveries(api, queue, job_id=job, states=["DELIVERY_STATE_DELIVERED"]))
    # The connection is kept, but not for a rule that trusts the system's authorities.
    assert update_rule(api, queue, ca_certificates="").ca_certificate_count == 0
    assert last_error(api, queue) == "tls"


def test_an_attempt_that_ends_in_the_handshake_tells_how_long_it_took_until_then(start_server, bucket, secure):
    api = start_server("--callback-allow", "127.0.0.0/8,::1").api
    queue, receiver = api.make_queue(bucket), secure(asks=False)
    api.set_callback(queue, f"https://localhost:{receiver.server.server_port}/")
    attempt, = api.callback.SendTestCallback(queue=queue).delivery.attempt_log
    assert attempt.error_class == "tls"
    parts = [microseconds(part) for part in (attempt.dns_duration, attempt.connect_duration)]
    assert all(parts) and sum(parts) < microseconds(attempt.total_duration)
    assert not attempt.HasField("tls_duration") and not attempt.HasField("first_byte_duration")


def test_a_receiver_that_asks_who_calls_is_shown_the_rule_s_certificate_and_nobody_else_s(api, bucket, pem, secure):
    receiver = secure(asks=True)
    first, second = api.make_queue(bucket, "first"), api.make_queue(bucket, "second")
    schedule = [dict(seconds=1)]
    rule = api.set_callback(first, receiver.url("/rule"), schedule=schedule, ca_certificates=pem("ca.pem"), client_certificate=pem("chain.pem"),
                            client_key=pem("client.key"))
    assert rule.client_certificate == pem("chain.pem") and not rule.client_key
    assert rule.client_certificate_subject == "CN=client,O=Tests"
    assert 2 * 86400 < rule.client_certificate_expire_time.seconds - rule.update_time.seconds < 4 * 86400
    assert not api.callback.GetCallbackRule(queue=first).rule.client_key
    api.set_callback(second, receiver.url("/other"), schedule=schedule, ca_certificates=pem("ca.pem"))
    for _ in range(3):
        run(api, first)
        run(api, second)
    receiver.wait(3, path="/rule")
    refused = eventually(lambda: [d for d in deliveries(api, second) if d.attempts > 0])
    assert refused[0].error_class in REFUSED and not [r for r in receiver.requests if r.path == "/other"]
    # A job's own URL inherits nothing: neither the certificate nor the authority.
    own = run(api, first, callback=dict(url=receiver.url("/own")))
    found, = eventually(lambda: [d for d in deliveries(api, first, job_id=own) if d.attempts > 0])
    assert found.error_class == "tls" and not [r for r in receiver.requests if r.path == "/own"]
    # What is changed applies to the next attempt of what waits.
    update_rule(api, second, client_certificate=pem("client.pem"), client_key=pem("client.key"))
    receiver.wait(3, seconds=30, path="/other")
    # One of nobody's is refused; without any the rule goes as nobody again.
    update_rule(api, first, client_certificate=pem("stranger.pem"), client_key=pem("stranger.key"))
    assert last_error(api, first) in REFUSED
    rule = update_rule(api, first, client_certificate="", client_key="")
    assert not rule.client_certificate and not rule.client_certificate_subject and not rule.HasField("client_certificate_expire_time")
    assert rule.ca_certificate_count == 1
    assert last_error(api, first) in REFUSED


def test_what_cannot_be_used_is_refused_with_its_field_and_never_quoted(api, queue, pem):
    api.set_callback(queue, "https://127.0.0.1:9/")
    good = dict(client_certificate=pem("client.pem"), client_key=pem("client.key"))
    broken = pem("client.pem").replace("MII", "M!I", 1)
    long = pem("ca.pem") * (65536 // len(pem("ca.pem")) + 1)
    for field, fields, told in (
            ("ca_certificates", dict(ca_certificates="nothing"), "no certificate"),
            ("ca_certificates", dict(ca_certificates=broken), "well-formed"),
            ("ca_certificates", dict(ca_certificates=pem("ca.pem") + pem("ca.key")), "nothing else"),
            ("ca_certificates", dict(ca_certificates=pem("ca.pem") + " " + pem("ca.key")), "well-formed"),
            ("ca_certificates", dict(ca_certificates=pem("ca.pem").rsplit("-----END", 1)[0]), "well-formed"),
            ("ca_certificates", dict(ca_certificates="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "X.509"),
            ("ca_certificates", dict(ca_certificates=long), f"{len(long)} bytes"),
            ("client_certificate", dict(good, client_certificate=pem("client.pem") * 40), "16384"),
            ("client_certificate", dict(good, client_certificate=broken), "well-formed"),
            ("client_certificate", dict(good, client_certificate=pem("client.pem") + pem("client.key")), "nothing else"),
            ("client_certificate", dict(good, client_certificate=""), "client_key"),
            ("client_key", dict(good, client_key=""), "client_certificate"),
            ("client_key", dict(good, client_key="x" * 16385), "16385 bytes"),
            ("client_key", dict(good, client_key=pem("client.pem")), "no private key"),
            ("client_key", dict(good, client_key=pem("stranger.key")), "client_certificate"),
            ("client_key", dict(good, client_certificate=pem("chain.pem"), client_key=pem("ca.key")), "client_certificate"),
            ("client_key", dict(good, client_key=pem("encrypted.key")), "passphrase"),
            ("client_key", dict(client_certificate=pem("weak.pem"), client_key=pem("weak.key")), "2048")):
        with rejects("INVALID_ARGUMENT", f"rule.{field}") as seen:
            update_rule(api, queue, **fields)
        assert told in seen.message, (told, seen.message)
        assert not any(line in seen.message for line in "".join(fields.values()).splitlines() if len(line) > 40)
    for one in good:
        with rejects("INVALID_ARGUMENT", "update_mask"):
            update_rule(api, queue, **{one: good[one]})
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert not any(getattr(rule, field) for field in TRUST)


def test_the_longest_that_is_allowed_is_taken(api, queue, pem, secure):
    receiver = secure(asks=True)
    fill = dict(ca_certificates=(pem("ca.pem"), 65536), client_certificate=(pem("client.pem"), 16384), client_key=(pem("client.key"), 16384))
    longest = {field: text + "#" * (size - len(text)) for field, (text, size) in fill.items()}
    rule = api.set_callback(queue, receiver.url(), **longest)
    assert rule.ca_certificates == longest["ca_certificates"]
    jobs = [run(api, queue) for _ in range(10)]
    receiver.wait(len(jobs))


def test_keys_are_gone_with_their_rule_and_with_their_queue(start_server, start_redis, bucket, pem):
    redis = start_redis()
    api = start_server(redis=redis.url).api
    client = redis.client()
    kept, deleted = api.make_queue(bucket, "kept"), api.make_queue(bucket, "deleted")
    for queue in (kept, deleted):
        api.set_callback(queue, "https://127.0.0.1:9/", client_certificate=pem("client.pem"), client_key=pem("client.key"))
    assert len(client.keys("*trust:*")) == 2
    rule = update_rule(api, kept, timeout=dict(seconds=2))
    assert rule.client_certificate == pem("client.pem"), "other fields leave it alone"
    api.callback.DeleteCallbackRule(queue=kept)
    assert len(client.keys("*trust:*")) == 1
    assert not api.callback.GetCallbackRule(queue=kept).rule.client_certificate
    api.queue.DeleteQueue(name=deleted, force=True)
    eventually(lambda: not client.keys("*trust:*"), 20)


def test_the_tool_sets_shows_and_removes_them(tool, api, queue, pki, tmp_path, secure):  # noqa: F811
    name, receiver = queue.rsplit("/", 1)[1], secure(asks=True)
    rule = tool("callback", "set", name, "--url", receiver.url(), "--ca", pki / "ca.pem", "--client-cert", pki / "chain.pem", "--client-key",
                pki / "client.key", "--json").json["rule"]
    assert rule["clientCertificateSubject"] == "CN=client,O=Tests" and not rule.get("clientKey")
    shown = tool("callback", "show", name).out
    assert "1 certificate\n" in shown and "CN=client,O=Tests" in shown and "Valid until" in shown and "PRIVATE" not in shown
    tool("callback", "test", name)
    receiver.wait(1)
    binary = tmp_path / "binary"
    binary.write_bytes(b"0\x00\x01")
    for arguments in (["--client-cert", pki / "client.pem"], ["--client-key", pki / "client.key"], ["--ca", pki / "nowhere.pem"], ["--ca", binary],
                      ["--client-cert", pki / "client.pem", "--client-key", pki / "encrypted.key"]):
        tool("callback", "set", name, *arguments, expect=2)
    assert api.callback.GetCallbackRule(queue=queue).rule.client_certificate
    tool("callback", "set", name, "--ca", "", "--client-cert", "", "--client-key", "")
    rule = api.callback.GetCallbackRule(queue=queue).rule
    assert not any(getattr(rule, field) for field in TRUST)
    assert "CN=client" not in tool("callback", "show", name).out
