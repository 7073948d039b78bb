"""A callback's body as its receiver reads it, in every state of an end and every shape: each element of the contract, by expat and Python's json."""
import base64
import json
import re
import time

import pytest

from harness import eventually, rejects
from test_callbacks import parse, run

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


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"


def test_a_callback_has_every_element_of_the_contract(api, queue, receiver, bucket):
    api.set_callback(queue, receiver.url())
    job = run(api, queue, outcome=dict(success=dict(result=dict(xml="<MediaInfo><Format>mp4</Format></MediaInfo>"), message="ignored")),
              input=dict(object=dict(bucket="in-1", object="a/b & c.mp4", region="ap-2")), user_data="x<y>&\"'", priority=3,
              operation=dict(xml='<TemplateId>t1</TemplateId><Output a="1"><Object>o.mp4</Object></Output>'))
    request, = receiver.wait(1)
    assert request.method == "POST" and request.path == "/callback"
    assert request.headers["Content-Type"].split(";")[0].strip() == "application/xml"
    assert int(request.headers["Content-Length"]) == len(request.body)
    request.body.decode("utf-8")
    response = parse(request.body)
    assert response.name == "Response" and response.names() == ["JobsDetail", "NonExistJobIds"]
    assert response["NonExistJobIds"].text == "" and response["NonExistJobIds"].children == []
    assert b"<NonExistJobIds></NonExistJobIds>" in request.body
    detail = response["JobsDetail"]
    assert detail.names() == ["Code", "Message", "JobId", "Tag", "State", "Progress", "CreationTime", "StartTime", "EndTime", "QueueId",
                              "Input", "Operation"]
    assert detail["Code"].text == "Success"
    assert detail["JobId"].text == job and re.fullmatch("j[0-9a-f]{32}", job)
    assert detail["Tag"].text == "Transcode" and detail["State"].text == "Success" and detail["Progress"].text == "100"
    for name in ("CreationTime", "StartTime", "EndTime"):
        assert re.fullmatch(TIME, detail[name].text), name
    times = [time.mktime(time.strptime(detail[n].text, "%Y-%m-%dT%H:%M:%S%z")) for n in ("CreationTime", "StartTime", "EndTime")]
    assert times == sorted(times)
    assert detail["QueueId"].text == api.queue.GetQueue(name=queue).queue.queue_id
    assert [(c.name, c.text) for c in detail["Input"].children] == [("BucketId", "in-1"), ("Object", "a/b & c.mp4"), ("Region", "ap-2")]
    operation = detail["Operation"]
    assert operation["TemplateId"].text == "t1"
    assert operation["Output"].attributes == {"a": "1"} and operation["Output"]["Object"].text == "o.mp4"
    assert operation["MediaInfo"]["Format"].text == "mp4"
    assert operation["UserData"].text == "x<y>&\"'" and operation["JobLevel"].text == "3"


def test_an_input_without_a_bucket_is_in_its_queue_s(api, queue, receiver, bucket):
    api.set_callback(queue, receiver.url())
    run(api, queue, input=dict(object=dict(object="o")))
    assert parse(receiver.wait(1)[0].body)["JobsDetail"]["Input"]["BucketId"].text == bucket


def test_a_failed_job_s_callback_says_why(api, bucket, receiver):
    queue = api.make_queue(bucket, retry_policy=dict(max_attempts=1))
    api.set_callback(queue, receiver.url())
    run(api, queue, outcome=dict(failure=dict(code="InvalidInput", message="no <video> in it")))
    detail = parse(receiver.wait(1)[0].body)["JobsDetail"]
    assert (detail["Code"].text, detail["Message"].text, detail["State"].text) == ("InvalidInput", "no <video> in it", "Failed")


def test_a_job_that_never_started_has_dashes_for_times(api, queue, receiver, bucket):
    api.set_callback(queue, receiver.url())
    job, = api.submit(queue)
    api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job])
    detail = parse(receiver.wait(1)[0].body)["JobsDetail"]
    assert detail["State"].text == "Cancel" and detail["StartTime"].text == "-"
    assert re.fullmatch(TIME, detail["EndTime"].text) and detail["JobId"].text == job


def test_an_opaque_operation_and_result_are_carried_as_base64(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    data, result = bytes(range(256)), b"\x00\xff result"
    run(api, queue, operation=dict(opaque=dict(data=data, content_type="application/json")),
        outcome=dict(success=dict(result=dict(opaque=dict(data=result)))))
    body = receiver.wait(1)[0].body
    parse(body)
    text = body.decode()
    assert base64.b64encode(data).decode() in text and base64.b64encode(result).decode() in text


@pytest.mark.parametrize("text", ["a\x01b", "\x1b[31mred", "a\ufffeb", "a\uffffb", "\x7f\x08"])
def test_a_worker_s_text_that_xml_cannot_carry_is_replaced_and_the_callback_arrives(api, bucket, receiver, text):
    queue = api.make_queue(bucket)
    api.set_callback(queue, receiver.url())
    job = run(api, queue, outcome=dict(failure=dict(message=text, never=True, result=dict(xml=f"<Log>{text}</Log>"))))
    detail = parse(receiver.wait(1)[0].body)["JobsDetail"]
    assert "\ufffd" in detail["Message"].text and "\ufffd" in detail["Operation"]["Log"].text
    assert "\ufffd" in api.get(job, queue).message


def test_a_worker_s_result_that_is_no_xml_is_kept_as_bytes_and_the_callback_arrives(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    job = run(api, queue, outcome=dict(success=dict(result=dict(xml="<Open>"))))
    assert api.get(job, queue).result.opaque.data == b"<Open>"
    assert base64.b64encode(b"<Open>") in receiver.wait(1)[0].body


NOT_UTF8 = {"bad": b"a\xc3(b", "cut": b"ab\xe2\x82", "surrogate": b"a\xed\xa0\x80b", "overlong": b"\xc0\x80", "too far": b"\xf4\x90\x80\x80"}


@pytest.mark.parametrize("kind", NOT_UTF8)
def test_a_client_s_text_that_is_not_utf8_is_refused_with_its_field(api, queue, kind):
    mark = "@" * len(NOT_UTF8[kind])
    for spec, field in ((dict(tag="T", input=dict(object=dict(object=mark))), "job.input.object.object"),
                        (dict(tag="T", operation=dict(xml=f"<A>{mark}</A>")), "job.operation.xml")):
        request = api.job.messages.SubmitJobRequest(queue=queue, job=spec)
        data = request.SerializeToString().replace(mark.encode(), NOT_UTF8[kind])
        call = api.channel.unary_unary("/ringback.v1.JobService/SubmitJob", response_deserializer=lambda data: data)
        with rejects("INVALID_ARGUMENT", field):
            call(data, timeout=10)


@pytest.mark.parametrize("text", ["a\x01b", "\x1b", "a\ufffeb", "a\uffffb", "a\x00b"])
def test_a_client_s_text_that_xml_cannot_carry_is_refused_where_a_callback_would_carry_it(api, queue, text):
    with rejects("INVALID_ARGUMENT", "job.input.object.object"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T", input=dict(object=dict(object=text))))
    with rejects("INVALID_ARGUMENT", "job.operation.xml"):
        api.job.SubmitJob(queue=queue, job=dict(tag="T", operation=dict(xml=f"<A>{text}</A>")))


def test_markup_in_texts_stays_text(api, queue, receiver):
    api.set_callback(queue, receiver.url())
    nasty = "]]><JobId>evil</JobId>&amp;<!--"
    run(api, queue, user_data=nasty, input=dict(object=dict(object=nasty)), outcome=dict(failure=dict(message=nasty, never=True)))
    detail = parse(receiver.wait(1)[0].body)["JobsDetail"]
    assert detail["Input"]["Object"].text == detail["Message"].text == detail["Operation"]["UserData"].text == nasty
