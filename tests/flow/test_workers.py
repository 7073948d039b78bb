"""The three commands that do the work, on real inputs, and `ringback worker`, which runs them, against the real server."""
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree

import pytest

from harness import BUILD, PATIENCE, ROOT, eventually, state_name

COMMANDS = ROOT / "client" / "workers"
TOOL = BUILD / "bin" / "ringback"
SPEECH = pathlib.Path("/usr/share/pocketsphinx/test/data")


def needs(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


media = needs("ffmpeg", "ffprobe")
speech = needs("ffmpeg", "pocketsphinx_batch")
document = needs("soffice", "pdftoppm", "pdfinfo")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A root with a bucket of inputs."""
    root = tmp_path_factory.mktemp("root")
    bucket = root / "films"
    bucket.mkdir()
    if shutil.which("ffmpeg"):
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=2", "-f", "lavfi", "-i",
                        "sine=duration=2", "-c:v", "mpeg4", "-c:a", "aac", bucket / "in.mp4"], check=True)
    (bucket / "in.txt").write_text("One page.\n" * 5 + "\f" + "Another page.\n")
    (bucket / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (bucket / "noise.docx").write_bytes(b"PK\3\4" + bytes(range(256)) * 40)
    (bucket / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2\nfile://%s\n" % (bucket / "in.mp4"))
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "secret.mp4").write_bytes((bucket / "in.mp4").read_bytes() if (bucket / "in.mp4").exists() else b"")
    (bucket / "link.mp4").symlink_to(root.parent / "outside" / "secret.mp4")
    (bucket / "away").symlink_to(root.parent / "outside")
    (root / "elsewhere").symlink_to(root.parent / "outside")
    return root


class Ran:
    def __init__(self, done, notes):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        lines = [line.partition(" ")[::2] for line in notes.splitlines()]
        self.progress = [int(value) for key, value in lines if key == "progress"]
        self.code = dict(lines).get("code")
        self.xml = ElementTree.fromstring(f"<Operation>{self.out}</Operation>") if self.status == 0 else None


def run(name, root, tag, source, operation="", env=None):
    """One command with a job, as `ringback worker` runs it."""
    source = source if isinstance(source, dict) else dict(object=dict(object=source))
    job = dict(id="j" + "0" * 32, queue="queue-1", spec=dict(tag=tag, input=source, operation=dict(xml=operation)))
    reading, writing = os.pipe()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RINGBACK_")}
    environment |= dict(RINGBACK_ROOT=str(root), RINGBACK_BUCKET="films", RINGBACK_PROGRESS_FD=str(writing)) | (env or {})
    try:
        done = subprocess.run([COMMANDS / name], input=json.dumps(job), capture_output=True, text=True, env=environment,
                              pass_fds=[writing], timeout=120 * PATIENCE, start_new_session=True)
    finally:
        os.close(writing)
    with open(reading) as notes:
        return Ran(done, notes.read())


def output(name):
    return f"<Output><Object>{name}</Object></Output>"


def probe(path):
    done = subprocess.run(["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", path], capture_output=True, check=True)
    return json.loads(done.stdout)


# --- media ---------------------------------------------------------------------------------------------------------------------

@media
def test_a_video_is_transcoded_with_its_progress(material):
    ran = run("ringback-media", material, "Transcode", "in.mp4", "<Transcode><Container><Format>mp4</Format></Container><Video>"
              "<Codec>H.264</Codec><Width>80</Width></Video><Audio><Codec>MP3</Codec></Audio></Transcode>" + output("out/a.mp4"))
    assert ran.status == 0, ran.err
    made = probe(material / "films/out/a.mp4")
    assert [(s["codec_name"], s.get("width")) for s in made["streams"]] == [("h264", 80), ("mp3", None)]
    assert ran.progress[0] == 0 and ran.progress[-1] >= 90 and ran.progress == sorted(ran.progress)
    assert ran.xml.findtext("MediaResult/OutputFile/ObjectName") == "out/a.mp4"
    assert ran.xml.findtext("MediaResult/OutputFile/Md5Info/Size") == str((material / "films/out/a.mp4").stat().st_size)
    assert ran.xml.findtext("MediaInfo/Stream/Video/Width") == "80"
    assert float(ran.xml.findtext("MediaInfo/Format/Duration")) == pytest.approx(2, abs=0.2)
    assert not [p for p in (material / "films/out").iterdir() if p.name.startswith(".")], "nothing half-made is left"


@media
def test_frames_are_snapped(material):
    ran = run("ringback-media", material, "Snapshot", "in.mp4", "<Snapshot><Start>0.5</Start><Count>2</Count><TimeInterval>1</TimeInterval>"
              "<Width>40</Width></Snapshot>" + output("shots/${Number}.png"))
    assert ran.status == 0, ran.err
    names = [e.text for e in ran.xml.findall("MediaResult/OutputFile/ObjectName")]
    assert names == ["shots/0.png", "shots/1.png"]
    for name in names:
        assert (material / "films" / name).read_bytes().startswith(b"\x89PNG")


@media
def test_media_info_tells_about_the_input(material):
    ran = run("ringback-media", material, "MediaInfo", "in.mp4")
    assert ran.status == 0, ran.err
    assert ran.xml.findtext("MediaInfo/Stream/Audio/CodecName") == "aac"
    assert ran.xml.findtext("MediaInfo/Format/NumStream") == "2"


@media
@pytest.mark.parametrize("source", ["../outside/secret.mp4", "/etc/passwd", "a/../../x", "a//b", "./in.mp4", "link.mp4", "away/secret.mp4", ""])
def test_an_input_that_leaves_the_root_is_refused_for_good(material, source):
    ran = run("ringback-media", material, "MediaInfo", source)
    assert ran.status == 65 and ran.code in ("InvalidObject", "ObjectRefused"), (ran.status, ran.code)


@media
@pytest.mark.parametrize("bucket", ["..", "elsewhere", "a/b", ".", "UPPER"])
def test_a_bucket_that_is_none_is_refused(material, bucket):
    ran = run("ringback-media", material, "MediaInfo", dict(object=dict(bucket=bucket, object="secret.mp4")))
    assert ran.status == 65 and ran.code in ("InvalidBucket", "ObjectRefused"), (ran.status, ran.code)


@media
@pytest.mark.parametrize("name", ["../x.jpg", "away/x.jpg", "/tmp/x.jpg", "in.mp4/x.jpg", "x/../../y.jpg"])
def test_an_output_that_leaves_the_root_is_refused(material, name):
    ran = run("ringback-media", material, "Snapshot", "in.mp4", output(name))
    assert ran.status == 65 and ran.code in ("InvalidObject", "ObjectRefused"), (ran.status, ran.code)
    assert os.listdir(material.parent / "outside") == ["secret.mp4"]


@media
@pytest.mark.parametrize("source", ["noise.mp4", "list.mp4", "in.txt"])
def test_what_is_no_media_is_refused_for_good(material, source):
    ran = run("ringback-media", material, "Transcode", source, output("never.mp4"))
    assert (ran.status, ran.code) == (65, "InvalidInput"), ran.err
    assert not (material / "films/never.mp4").exists()


@media
@pytest.mark.parametrize("operation", ["<!DOCTYPE a [<!ENTITY b 'c'>]>", "<Snapshot><Count>1000000</Count></Snapshot>" + output("a.jpg"),
                                       "<Snapshot><Width>wide</Width></Snapshot>" + output("a.jpg"), "<a>", output("a.exe"), ""])
def test_an_operation_that_makes_no_sense_is_refused_for_good(material, operation):
    ran = run("ringback-media", material, "Snapshot", "in.mp4", operation)
    assert (ran.status, ran.code) == (65, "InvalidOperation"), ran.err


def test_an_unknown_tag_is_refused_for_good(material):
    ran = run("ringback-media", material, "Knit", "in.mp4")
    assert (ran.status, ran.code) == (65, "UnknownTag")


@pytest.fixture
def web(material):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(material / "films"))

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@media
def test_an_url_is_an_input_too(material, web):
    ran = run("ringback-media", material, "MediaInfo", dict(url=web + "/in.mp4"), env=dict(RINGBACK_PRIVATE_URLS="1"))
    assert ran.status == 0 and ran.xml.findtext("MediaInfo/Format/NumStream") == "2", ran.err


@media
def test_an_url_with_a_private_address_is_refused_unless_allowed(material, web):
    ran = run("ringback-media", material, "MediaInfo", dict(url=web + "/in.mp4"))
    assert (ran.status, ran.code) == (65, "InputRefused")


@media
def test_an_input_beyond_the_limit_is_refused(material, web):
    for source in ("in.mp4", dict(url=web + "/in.mp4")):
        ran = run("ringback-media", material, "MediaInfo", source, env=dict(RINGBACK_PRIVATE_URLS="1", RINGBACK_INPUT_BYTES_MAX="1000"))
        assert (ran.status, ran.code) == (65, "InputTooLarge")


# --- speech and documents --------------------------------------------------------------------------------------------------------

@speech
@pytest.mark.skipif(not SPEECH.exists(), reason="pocketsphinx-testdata is not installed")
def test_a_recording_becomes_text_with_times(material):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", SPEECH / "goforward.raw",
                    material / "films/go.wav"], check=True)
    ran = run("ringback-speech", material, "SpeechRecognition", "go.wav", output("go.txt"))
    assert ran.status == 0, ran.err
    assert ran.xml.findtext("SpeechRecognitionResult/Text") == "go forward ten meters"
    words = ran.xml.findall("SpeechRecognitionResult/FlashResult/SentenceList/WordList")
    assert [w.findtext("Word") for w in words] == ["go", "forward", "ten", "meters"]
    times = [int(w.findtext(key)) for w in words for key in ("StartTime", "EndTime")]
    assert times == sorted(times) and 300 < times[0] < 700 and 1900 < times[-1] < 2700
    assert "go forward ten meters" in (material / "films/go.txt").read_text()


@speech
def test_a_recording_without_sound_in_it_is_refused(material):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", material / "films/in.mp4", "-an", "-c", "copy", material / "films/mute.mp4"], check=True)
    ran = run("ringback-speech", material, "SpeechRecognition", "mute.mp4", output("mute.txt"))
    assert (ran.status, ran.code) == (65, "InvalidInput")


@document
def test_a_document_becomes_page_images_and_a_pdf(material):
    ran = run("ringback-document", material, "DocProcess", "in.txt", "<DocProcess><TgtType>png</TgtType></DocProcess>" + output("p/${Number}.png"))
    assert ran.status == 0, ran.err
    assert ran.xml.findtext("DocProcessResult/SuccPageCount") == ran.xml.findtext("DocProcessResult/TotalPageCount")
    for page in ran.xml.findall("DocProcessResult/PageInfo"):
        assert (material / "films" / page.findtext("TgtUri")).read_bytes().startswith(b"\x89PNG")
    assert ran.progress == sorted(ran.progress) and ran.progress[-1] == 99
    ran = run("ringback-document", material, "DocProcess", "in.txt", "<DocProcess><TgtType>pdf</TgtType></DocProcess>" + output("p.pdf"))
    assert ran.status == 0, ran.err
    subprocess.run(["pdfinfo", material / "films/p.pdf"], check=True, capture_output=True)


@document
def test_what_is_no_document_is_refused_for_good(material):
    for source, code in (("noise.docx", "InvalidInput"), ("in.mp4", "InvalidInput"), ("none.txt", "NoSuchObject")):
        ran = run("ringback-document", material, "DocProcess", source, output("n-${Number}.png"))
        assert (ran.status, ran.code) == (65, code), ran.err


# --- ringback worker -------------------------------------------------------------------------------------------------------------

class Worker:
    """A running `ringback worker`, whose events are read as they come."""

    def __init__(self, server, queue, command, *options):
        self.process = subprocess.Popen(
            [TOOL, "--server", server.target, "worker", "--json", "--queue", queue, "--exec", command, *map(str, options)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events = []
        self.errors = ""
        self.readers = [threading.Thread(target=self._read_events, daemon=True), threading.Thread(target=self._read_errors, daemon=True)]
        for reader in self.readers:
            reader.start()

    def _read_events(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def _read_errors(self):
        self.errors = self.process.stderr.read()

    def of(self, event):
        return [e for e in self.events if e["event"] == event]

    def wait(self, event, count=1, seconds=15):
        return eventually(lambda: len(self.of(event)) >= count and self.of(event), seconds, what=f"{count} {event}")

    def end(self, seconds=20):
        status = self.process.wait(seconds * PATIENCE)
        for reader in self.readers:
            reader.join(5 * PATIENCE)
        return status


def end_all(workers):
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def work(server, api):
    started = []

    def start(queue, command, *options):
        started.append(Worker(server, queue, command, *options))
        return started[-1]

    yield start
    end_all(started)


def pending(pid, number):
    with open(f"/proc/{pid}/status") as file:
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> number - 1 & 1 for mask in masks)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_job_reaches_its_command_and_the_result_comes_back(api, queue, bucket, work):
    job, = api.submit(queue, tag="Echo", input=dict(object=dict(object="a b/c.mp4")), user_data="mine", priority=7,
                      operation=dict(xml="<A>é</A>"), traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    worker = work(queue, 'python3 -c "import json,os,sys; j=json.load(sys.stdin); print(json.dumps([j, dict(os.environ)]))"', "--count", 1)
    assert worker.end() == 0, worker.errors
    ended = api.get(job, queue)
    assert api.state(job, queue) == "SUCCESS" and ended.result.opaque.content_type.startswith("text/plain"), ended
    seen, environment = json.loads(ended.result.opaque.data)
    assert seen["id"] == job and seen["spec"]["operation"]["xml"] == "<A>é</A>" and seen["spec"]["input"]["object"]["object"] == "a b/c.mp4"
    expected = dict(RINGBACK_JOB_ID=job, RINGBACK_BUCKET=bucket, RINGBACK_QUEUE="q", RINGBACK_TAG="Echo", RINGBACK_OBJECT="a b/c.mp4",
                    RINGBACK_INPUT_BUCKET=bucket, RINGBACK_USER_DATA="mine", RINGBACK_PRIORITY="7", RINGBACK_ATTEMPT="1",
                    RINGBACK_PROGRESS_FD="3", TRACEPARENT="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert {k: environment.get(k) for k in expected} == expected
    assert "RINGBACK_INPUT_URL" not in environment


def test_what_begins_like_xml_is_an_xml_result(api, queue, work):
    job, = api.submit(queue)
    assert work(queue, "echo; echo '<Out>1 &amp; 2</Out>'", "--count", 1).end() == 0
    assert api.get(job, queue).result.xml == "<Out>1 &amp; 2</Out>"


def test_what_only_begins_like_xml_is_kept_as_it_is(api, queue, work):
    job, = api.submit(queue)
    assert work(queue, "echo '<Out>'", "--count", 1).end() == 0
    assert api.get(job, queue).result.opaque.data == b"<Out>"


@pytest.mark.parametrize("size, code", [(70000, "InvalidResult"), (2000000, "ResultTooLarge")])
def test_a_result_that_the_server_does_not_take_fails_the_job_for_good(api, queue, work, size, code):
    job, = api.submit(queue, max_attempts=5)
    assert work(queue, f"head -c {size} /dev/zero | tr '\\0' x", "--count", 1).end() == 0
    assert (api.state(job, queue), api.get(job, queue).code) == ("FAILED", code)


@pytest.mark.parametrize("command, state, code, message", [
    ("echo why >&2; exit 65", "FAILED", "ExitStatus65", "why"),
    ("echo first >&2; echo last >&2; exit 3", "SUBMITTED", None, "first\nlast"),
    ("exit 75", "SUBMITTED", None, ""),
    ("echo code Odd >&3; echo 'message in words' >&3; echo noise >&2; exit 65", "FAILED", "Odd", "in words"),
])
def test_the_exit_status_says_whether_to_try_again(api, queue, work, command, state, code, message):
    job, = api.submit(queue, max_attempts=3)
    assert work(queue, command, "--count", 1).end() == 0
    seen = api.get(job, queue)
    assert (api.state(job, queue), seen.message) == (state, message)
    assert code is None or seen.code == code


def test_a_command_that_dies_of_a_signal_fails(api, queue, work):
    job, = api.submit(queue, max_attempts=1)
    assert work(queue, "kill -9 $$", "--count", 1).end() == 0
    assert (api.state(job, queue), api.get(job, queue).code) == ("FAILED", "Signal9")


def test_progress_reaches_the_job_while_it_runs(api, queue, work, tmp_path):
    job, = api.submit(queue)
    work(queue, f"echo progress 42 >&3; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", "--count", 1)
    eventually(lambda: api.get(job, queue).progress == 42, what="progress 42")
    (tmp_path / "go").touch()
    eventually(lambda: api.state(job, queue) == "SUCCESS")
    assert api.get(job, queue).progress == 100


def test_the_lease_is_renewed_while_the_command_runs(api, queue, work):
    job, = api.submit(queue, max_attempts=1)
    worker = work(queue, "sleep 12", "--count", 1, "--lease", "9s")
    assert worker.end() == 0
    assert (api.state(job, queue), api.get(job, queue).attempts) == ("SUCCESS", 1), worker.events


def test_cancelling_kills_the_command_s_whole_process_group(api, queue, bucket, work, tmp_path):
    job, = api.submit(queue)
    worker = work(queue, f"(trap '' TERM; echo $$ >{tmp_path}/shell; sleep 300) & sleep 300 & echo $! >{tmp_path}/child; wait", "--count", 1,
                  "--lease", "9s", "--grace", "300ms")
    eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    child = int((tmp_path / "child").read_text())
    group = os.getpgid(child)
    assert group != os.getpgid(worker.process.pid)
    assert api.job.CancelJobs(bucket=f"buckets/{bucket}", job_ids=[job]).results[0].code == 0
    assert worker.end() == 0
    assert worker.of("stopped")[0]["reason"] == "cancelled" and api.state(job, queue) == "CANCEL"

    def gone():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return not alive(child)
    eventually(gone, 3)


def test_a_command_whose_lease_was_lost_is_killed_and_reports_nothing(api, queue, work):
    job, = api.submit(queue, max_attempts=3)
    worker = work(queue, "sleep 300", "--count", 1, "--lease", "7s", "--grace", "200ms")
    worker.wait("leased")
    # The worker is frozen for longer than its lease; the job goes to another.
    os.kill(worker.process.pid, signal.SIGSTOP)
    leased = eventually(lambda: api.lease(queue, worker="other"), 20)[0]
    os.kill(worker.process.pid, signal.SIGCONT)
    assert worker.end() == 0
    assert worker.of("stopped")[0]["reason"] == "lease lost"
    assert api.finish(leased, success={}).status.code == 0 and api.state(job, queue) == "SUCCESS"


def test_sigterm_finishes_what_runs_and_leases_no_more(api, queue, work, tmp_path):
    first, = api.submit(queue)
    worker = work(queue, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    worker.wait("leased")
    second, = api.submit(queue)
    worker.process.terminate()
    time.sleep(0.5)
    assert worker.process.poll() is None and api.state(first, queue) == "RUNNING"
    (tmp_path / "go").touch()
    assert worker.end() == 0
    assert api.state(first, queue) == "SUCCESS" and api.state(second, queue) == "SUBMITTED"


def test_a_second_sigterm_gives_the_job_back_uncounted(api, queue, work):
    job, = api.submit(queue, max_attempts=1)
    worker = work(queue, "sleep 300", "--grace", "300ms")
    worker.wait("leased")
    worker.process.terminate()
    eventually(lambda: not pending(worker.process.pid, signal.SIGTERM), what="the first is taken")
    time.sleep(1)  # what comes within 300 ms of the first is taken for the same
    worker.process.terminate()
    assert worker.end() == 0
    assert worker.of("released")
    seen = api.get(job, queue)
    assert (api.state(job, queue), seen.attempts) == ("SUBMITTED", 0)


def test_an_idle_worker_ends_at_once(queue, work):
    worker = work(queue, "true")
    time.sleep(0.7)
    worker.process.terminate()
    assert worker.end(2.5) == 0


def test_concurrency_runs_jobs_side_by_side(api, queue, work, tmp_path):
    api.submit(queue, 3)
    # Each waits until all three are there.
    worker = work(queue, f"mkdir {tmp_path}/$RINGBACK_JOB_ID; while [ $(ls {tmp_path} | wc -l) -lt 3 ]; do sleep 0.05; done", "--concurrency", 3,
                  "--until-empty")
    assert worker.end() == 0
    assert len(worker.of("succeeded")) == 3


def test_one_worker_takes_jobs_in_order_and_ends_when_there_are_none(api, queue, work):
    low = api.submit(queue, 2, priority=1)
    high = api.submit(queue, 2, priority=9)
    worker = work(queue, "true", "--until-empty")
    assert worker.end() == 0
    assert [e["job"] for e in worker.of("leased")] == high + low


def test_a_worker_of_an_unknown_queue_says_so(bucket, work):
    worker = work(f"buckets/{bucket}/queues/none", "true")
    assert worker.end() == 3, worker.errors
    assert "none" in worker.errors or "queue" in worker.errors


def test_a_worker_waits_for_a_server_that_comes_back(start_server, stubs):
    server = start_server()
    queue = server.api.make_queue("b")
    worker = Worker(server, queue, "true", "--count", 1)
    try:
        time.sleep(0.5)
        assert server.stop() == 0
        server.start()
        job, = server.api.submit(queue)
        assert worker.end(40) == 0
        assert server.api.state(job, queue) == "SUCCESS"
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def lonely(start_server):
    """Starts a worker with a job whose server has died."""
    started = []

    def start(command, *options):
        server = start_server()
        queue = server.api.make_queue("b")
        worker = Worker(server, queue, command, *options)
        started.append(worker)
        server.api.submit(queue)
        worker.wait("leased")
        time.sleep(0.3)
        server.kill()
        return worker

    yield start
    end_all(started)


def test_a_worker_whose_result_nobody_takes_can_be_ended(lonely, tmp_path):
    worker = lonely(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", "--lease", "7s")
    (tmp_path / "go").touch()
    worker.wait("refused", seconds=60)
    worker.process.terminate()
    assert worker.end() == 0, worker.errors


def test_a_draining_worker_ends_when_its_result_is_lost(lonely, tmp_path):
    worker = lonely(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", "--lease", "7s")
    worker.process.terminate()
    (tmp_path / "go").touch()
    assert worker.end(60) == 0 and worker.of("refused"), worker.errors


def test_the_third_signal_ends_a_worker_whatever_it_waits_for(lonely, tmp_path):
    worker = lonely(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", "--lease", "3600s")
    (tmp_path / "go").touch()  # the result would be told for an hour
    time.sleep(1)
    for _ in range(2):
        worker.process.terminate()
        eventually(lambda: not pending(worker.process.pid, signal.SIGTERM), what="it is taken")
        time.sleep(1)
    assert worker.process.poll() is None
    worker.process.terminate()
    assert worker.end(15) == 0 and worker.of("refused"), (worker.events, worker.errors)


def test_the_third_signal_ends_a_command_that_heeds_none_too(lonely):
    worker = lonely("trap '' TERM; while :; do sleep 1; done", "--grace", "1h", "--lease", "3600s")
    for _ in range(3):
        worker.process.terminate()
        eventually(lambda: worker.process.poll() is not None or not pending(worker.process.pid, signal.SIGTERM), what="it is taken")
        time.sleep(1)
    assert worker.end(15) == 0 and worker.of("released"), (worker.events, worker.errors)


def test_a_killed_worker_s_job_comes_back_at_once_and_uncounted(api, queue, work):
    [job] = api.submit(queue)
    worker = work(queue, "exec sleep 60")
    worker.wait("leased")
    eventually(lambda: api.state(job, queue) == "RUNNING")
    time.sleep(0.3)
    worker.process.kill()
    [leased] = api.lease(queue, wait=30)
    assert leased.job.id == job and leased.job.attempts == 1


def test_a_command_outlives_the_server_and_its_result_reaches_the_next_one(start_server, start_redis, tmp_path):
    redis = start_redis()
    server = start_server(redis=redis.url)
    queue = server.api.make_queue("b")
    worker = Worker(server, queue, f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo done", "--count", 1, "--lease", "60s")
    try:
        [job] = server.api.submit(queue)
        worker.wait("leased")
        time.sleep(0.3)
        server.kill()
        server.api.close()
        server.api_ = None
        server.start()
        (tmp_path / "go").touch()
        assert worker.end(40) == 0
        found = server.api.get(job, queue)
        assert state_name(found.state) == "SUCCESS" and found.attempts == 1
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def test_a_polling_worker_does_the_same_by_single_calls(api, queue, work):
    ids = api.submit(queue, 2)
    worker = work(queue, "echo 'progress 50' >&3; sleep 1.5; echo done", "--poll", "--count", 2, "--concurrency", 2)
    assert worker.end() == 0
    assert len(worker.of("succeeded")) == 2 and worker.of("progress")
    assert {api.state(job, queue) for job in ids} == {"SUCCESS"}


@media
def test_a_video_goes_through_the_whole_service(api, queue, bucket, work, material):
    directory = material / bucket
    directory.mkdir()
    shutil.copy(material / "films/in.mp4", directory)
    job, = api.submit(queue, tag="Transcode", input=dict(object=dict(object="in.mp4")), operation=dict(
        xml="<Transcode><Video><Width>80</Width></Video></Transcode>" + output("out.mkv")))
    bad, = api.submit(queue, tag="Transcode", input=dict(object=dict(object="../films/in.mp4")), operation=dict(xml=output("out.mkv")))
    worker = work(queue, str(COMMANDS / "ringback-media"), "--root", material, "--until-empty")
    assert worker.end(60) == 0, worker.errors
    assert api.state(job, queue) == "SUCCESS", api.get(job, queue)
    assert "<ObjectName>out.mkv</ObjectName>" in api.get(job, queue).result.xml
    assert probe(directory / "out.mkv")["streams"][0]["width"] == 80
    assert (api.state(bad, queue), api.get(bad, queue).code) == ("FAILED", "InvalidObject")
