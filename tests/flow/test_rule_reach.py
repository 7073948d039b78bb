"""Which private addresses a rule may call, and whether what its receiver answers is kept."""
import base64

import pytest

from harness import bucket_of, eventually, rejects
from test_callbacks import deliveries, run
from test_deliveries import get_delivery, update_rule
from test_tool import tool  # noqa: F401  (a fixture)


@pytest.fixture
def api_to_localhost(start_server):
    """Of a server whose operator allows every address that `localhost` may lead to: Debian 13's c-ares also answers with ::1."""
    return start_server("--callback-allow", "127.0.0.0/8,::1").api


def test_a_rule_s_own_ranges_narrow_what_the_operator_allows(api_to_localhost, bucket, receiver):
    api = api_to_localhost
    queue = api.make_queue(bucket)
    rule = api.set_callback(queue, receiver.url(), allowed_cidrs=["127.0.0.0/30", "127.1.0.0/16"])
    assert list(rule.allowed_cidrs) == ["127.0.0.0/30", "127.1.0.0/16"]
    run(api, queue)
    receiver.wait(1)
    # The name leads to addresses that the operator allows and the rule does not.
    update_rule(api, queue, allowed_cidrs=["127.1.0.0/16"], url=f"http://localhost:{receiver.server.server_port}/")
    job = run(api, queue)
    dead, = eventually(lambda: deliveries(api, queue, job_id=job, states=["DELIVERY_STATE_DEAD"]))
    assert dead.error_class == "blocked_address" and dead.error_message.startswith(("127.0.0.1 ", "::1 "))
    assert "not allowed by the rule's own ranges" in dead.error_message
    assert api.callback.SendTestCallback(queue=queue).delivery.error_class == "blocked_address"
    # A job's own URL inherits nothing; without ranges of its own the rule has the operator's.
    run(api, queue, callback=dict(url=receiver.url("/own")))
    receiver.wait(1, path="/own")
    assert not update_rule(api, queue, allowed_cidrs=[]).allowed_cidrs
    run(api, queue)
    assert len(receiver.wait(3)) == 3


def test_a_connection_that_is_kept_is_judged_by_each_rule_that_would_use_it(api_to_localhost, bucket, receiver):
    """The receiver keeps its connections, and the second rule may not use one to an address that only the first may call."""
    api = api_to_localhost
    url = f"http://localhost:{receiver.server.server_port}/"
    first, second = api.make_queue(bucket, "first"), api.make_queue(bucket, "second")
    api.set_callback(first, url)
    api.set_callback(second, url, allowed_cidrs=["127.1.0.0/16"])
    for _ in range(3):
        run(api, first)
        run(api, second)
    receiver.wait(3)
    eventually(lambda: len(deliveries(api, second, states=["DELIVERY_STATE_DEAD"])) == 3)
    assert len(receiver.requests) == 3


@pytest.mark.parametrize("bad", ["10.0.0.0/8", "126.0.0.0/7", "0.0.0.0/0", "::/0", "::1", "127.0.0.1/8", "127.0.0.0/33", "localhost", "",
                                 "127.0.0.1,127.0.0.2"])
def test_a_range_outside_the_operator_s_is_refused_with_its_value(api, queue, bad):
    with rejects("INVALID_ARGUMENT", "rule.allowed_cidrs[1]") as seen:
        update_rule(api, queue, allowed_cidrs=["127.0.0.1", bad])
    assert f'"{bad}"' in seen.message
    with rejects("INVALID_ARGUMENT", "rule.allowed_cidrs"):
        update_rule(api, queue, allowed_cidrs=["127.0.0.1"] * 17)


def test_an_address_that_may_not_be_called_is_refused_by_the_name_of_who_forbids_it(api, queue):
    with rejects("INVALID_ARGUMENT", "rule.url") as seen:
        update_rule(api, queue, allowed_cidrs=["127.1.0.0/16"], url="http://127.0.0.1:9/")
    assert "127.0.0.1, which the rule's allowed_cidrs do not allow" in seen.message
    for ranges in ([], ["127.1.0.0/16"]):
        with rejects("INVALID_ARGUMENT", "rule.url") as seen:
            update_rule(api, queue, allowed_cidrs=ranges, url="http://10.0.0.1:9/")
        assert "10.0.0.1, which the operator does not allow" in seen.message


def test_answers_are_kept_where_the_rule_wants_it_and_shown_with_the_delivery_alone(api, queue, receiver, tool):  # noqa: F811
    text = b"no \x00\xff\x1b[31m" + b"x" * 9000
    receiver.answers = [(500, {}, text), (200, {}, b"thanks\n"), 204]
    rule = api.set_callback(queue, receiver.url(), schedule=[dict(seconds=600)], store_response=True)
    assert rule.store_response
    run(api, queue)
    found, = eventually(lambda: [d for d in deliveries(api, queue) if d.attempts == 1])
    assert not found.response, "lists stay short"
    assert get_delivery(api, queue, found.id).response == text[:4096]
    shown = tool("callback", "show-delivery", found.id).out
    assert "no \\x00\\xff\\x1b[31mxxx" in shown
    assert api.callback.RedeliverCallbacks(bucket=bucket_of(queue), ids=[found.id]).redelivered_count == 1
    eventually(lambda: deliveries(api, queue, states=["DELIVERY_STATE_DELIVERED"]))
    assert get_delivery(api, queue, found.id).response == b"thanks\n"
    assert tool("callback", "show-delivery", found.id, "--json").json["delivery"]["response"] == base64.b64encode(b"thanks\n").decode()
    assert api.callback.SendTestCallback(queue=queue).delivery.response == b""
    assert not update_rule(api, queue, store_response=False).store_response
    receiver.answers = [(200, {}, b"thanks\n")]
    job = run(api, queue)
    done, = eventually(lambda: deliveries(api, queue, job_id=job, states=["DELIVERY_STATE_DELIVERED"]))
    assert get_delivery(api, queue, done.id).response == b""


def test_the_tool_sets_both(tool, api, queue, receiver):  # noqa: F811
    name = queue.rsplit("/", 1)[1]
    rule = tool("callback", "set", name, "--url", receiver.url(), "--allow", "127.0.0.0/30", "--allow", "127.1.0.0/16", "--store-response",
                "--json").json["rule"]
    assert rule["allowedCidrs"] == ["127.0.0.0/30", "127.1.0.0/16"] and rule["storeResponse"] is True
    shown = tool("callback", "show", name).out
    assert "127.1.0.0/16" in shown and "kept" in shown
    rule = tool("callback", "set", name, "--no-allow", "--no-store-response", "--json").json["rule"]
    assert not rule.get("allowedCidrs") and not rule.get("storeResponse")
    tool("callback", "set", name, "--allow", "10.0.0.0/8", expect=2)
    tool("callback", "set", name, "--allow", "127.0.0.1", "--no-allow", expect=2)
    tool("callback", "set", name, "--store-response", "--no-store-response", expect=2)
