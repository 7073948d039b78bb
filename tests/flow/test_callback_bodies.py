"""A callback's body as its receiver reads it, in every state of an end and every shape: each element of the contract, by expat and Python's json."""
import json
import time

import pytest

from harness import eventually
from test_callbacks import parse

FORMATS = ("XML_SEED", "XML_CURRENT", "JSON")
OPERATION = '<TemplateId>t1</TemplateId><Output a="1"><Object>&lt;o&gt; &amp; 字.mp4</Object></Output>'
RESULT = "<MediaInfo><Format>mp4</Format><Stream>1</Stream><Stream>2</Stream></MediaInfo>"
USER_DATA = "x<y>&\"' ]]>"


def local(moment):
    """As the contract writes a time; "-" while it is unset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment.seconds)) if moment.seconds else "-"


def members(element):
    """The natural mapping of an element: its text, or what it holds by name; those of the same name as a list."""
    if not element.children and not element.attributes:
        return element.text
    assert not element.text.strip(), element.text
    found = {"@" + name: value for name, value in element.attributes.items()}
    for child in element.children:
        value = members(child)
        if child.name in found:
            found[child.name] = [*(found[child.name] if isinstance(found[child.name], list) else [found[child.name]]), value]
        else:
            found[child.name] = value
    return found


def read(request, format_):
    """The body without its envelope, which is checked here."""
    if format_ == "JSON":
        assert request.headers["Content-Type"] == "application/json"
        body = json.loads(request.body.decode())
        assert list(body) == ["EventName", "JobsDetail"] and body["EventName"] == "TaskFinish"
        detail, = body["JobsDetail"]
        assert type(detail["Progress"]) is int and type(detail["Operation"]["JobLevel"]) is int, "all others are texts"
        detail["Progress"], detail["Operation"]["JobLevel"] = str(detail["Progress"]), str(detail["Operation"]["JobLevel"])
    else:
        assert request.headers["Content-Type"] == "application/xml"
        assert request.body.startswith(b"<Response>"), "no declaration, no white space"
        response = parse(request.body)
        names = ["JobsDetail", "NonExistJobIds"] if format_ == "XML_SEED" else ["EventName", "JobsDetail"]
        assert (response.name, response.names(), response.attributes, response.text) == ("Response", names, {}, "")
        assert response["NonExistJobIds" if format_ == "XML_SEED" else "EventName"].text == ("" if format_ == "XML_SEED" else "TaskFinish")
        assert format_ != "XML_SEED" or request.body.endswith(b"<NonExistJobIds></NonExistJobIds></Response>")
        detail = members(response["JobsDetail"])
    return detail


def expected(api, queue, job, operation, **changed):
    now = api.get(job, queue)
    return dict(dict(Code="Success", Message="", JobId=job, Tag="Transcode", Progress="0", CreationTime=local(now.create_time),
                     StartTime=local(now.start_time), EndTime=local(now.end_time), QueueId=api.queue.GetQueue(name=queue).queue.queue_id,
                     Operation=operation), **changed)


@pytest.fixture(params=FORMATS)
def format_(request):
    return request.param


@pytest.fixture
def rule(api, queue, receiver, format_):
    return api.set_callback(queue, receiver.url(), format="CALLBACK_FORMAT_" + format_)


def test_a_success_has_its_input_blocks_results_and_times(api, queue, receiver, rule, format_):
    job = api.job.SubmitJob(queue=queue, job=dict(tag="Transcode", input=dict(object=dict(bucket="in-1", object="a/b & c.mp4", region="ap-2")),
                                                  operation=dict(xml=OPERATION), user_data=USER_DATA, priority=200)).job.id
    api.finish(api.lease(queue)[0], success=dict(result=dict(xml=RESULT), message="not shown"))
    blocks = dict(TemplateId="t1", Output={"@a": "1", "Object": "<o> & 字.mp4"}, MediaInfo=dict(Format="mp4", Stream=["1", "2"]), UserData=USER_DATA,
                  JobLevel="200")
    wanted = expected(api, queue, job, blocks, State="Success", Progress="100",
                      Input=dict(BucketId="in-1", Object="a/b & c.mp4", Region="ap-2"))
    assert "-" not in (wanted["StartTime"], wanted["EndTime"])
    assert read(receiver.wait(1)[0], format_) == wanted


def test_a_failure_says_why_and_carries_the_worker_s_bytes(api, queue, receiver, rule, format_):
    job = api.job.SubmitJob(queue=queue, job=dict(tag="Transcode", input=dict(url="https://example.com/?a=1&b=2"),
                                                  operation=dict(opaque=dict(data=b"\x00\x01\xff")))).job.id
    leased, = api.lease(queue)
    api.worker.RenewLeases(bucket=queue.split("/queues/")[0], renewals=[
        dict(lease=dict(job_id=job, fencing_token=leased.fencing_token), progress=40)])
    api.finish(leased, failure=dict(code="InvalidInput", message="no <video>: \x1b[0m", never=True,
                                    result=dict(opaque=dict(data=b"log", content_type="text/plain"))))
    blocks = {"Opaque": {"@ContentType": "application/octet-stream", "#text": "AAH/"},
              "OpaqueResult": {"@ContentType": "text/plain", "#text": "bG9n"}, "UserData": "", "JobLevel": "0"}
    if format_ != "JSON":  # XML has the text in its place
        opaque = {c.name: c for c in parse(receiver.wait(1)[0].body)["JobsDetail"]["Operation"].children}
        for name in ("Opaque", "OpaqueResult"):
            assert {"@ContentType": opaque[name].attributes["ContentType"], "#text": opaque[name].text} == blocks.pop(name)
        request = receiver.requests[0]
        start, end = request.body.index(b"<Opaque"), request.body.index(b"<UserData")
        request.body = request.body[:start] + request.body[end:]
    wanted = expected(api, queue, job, blocks, Code="InvalidInput", Message="no <video>: \ufffd[0m", State="Failed", Progress="40",
                      Input=dict(Url="https://example.com/?a=1&b=2"))
    assert read(receiver.wait(1)[0], format_) == wanted


def test_a_job_cancelled_before_it_started_has_no_start(api, queue, receiver, bucket, rule, format_):
    job = api.job.SubmitJob(queue=queue, job=dict(tag="Transcode", input=dict(object=dict(object="o")), user_data=USER_DATA)).job.id
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    wanted = expected(api, queue, job, dict(UserData=USER_DATA, JobLevel="0"), State="Cancel", Input=dict(BucketId=bucket, Object="o", Region=""))
    assert wanted["StartTime"] == "-" and wanted["EndTime"] != "-"
    assert read(receiver.wait(1)[0], format_) == wanted


def test_a_job_cancelled_while_it_ran_has_its_start_and_progress(api, queue, receiver, bucket, rule, format_):
    job, = api.submit(queue, tag="Transcode")
    leased, = api.lease(queue)
    api.worker.RenewLeases(bucket=f"buckets/{bucket}", renewals=[dict(lease=dict(job_id=job, fencing_token=leased.fencing_token), progress=7)])
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    eventually(lambda: api.state(job, queue) == "CANCEL")
    wanted = expected(api, queue, job, dict(UserData="", JobLevel="0"), State="Cancel", Progress="7", Input=dict(BucketId=bucket, Object="", Region=""))
    assert wanted["StartTime"] != "-"
    assert read(receiver.wait(1)[0], format_) == wanted
