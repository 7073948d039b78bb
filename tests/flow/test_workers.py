"""The three commands that do the work, on real inputs; one of them by `ringback worker`, against the real server."""
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ElementTree

import pytest

from harness import BUILD, PATIENCE, ROOT

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


# --- through the service --------------------------------------------------------------------------------------------------------


@media
def test_a_video_goes_through_the_whole_service(server, api, queue, bucket, material):
    directory = material / bucket
    directory.mkdir()
    shutil.copy(material / "films/in.mp4", directory)
    job, = api.submit(queue, tag="Transcode", input=dict(object=dict(object="in.mp4")), operation=dict(
        xml="<Transcode><Video><Width>80</Width></Video></Transcode>" + output("out.mkv")))
    bad, = api.submit(queue, tag="Transcode", input=dict(object=dict(object="../films/in.mp4")), operation=dict(xml=output("out.mkv")))
    subprocess.run([TOOL, "--server", server.target, "worker", "--queue", queue, "--exec", COMMANDS / "ringback-media", "--root", material,
                    "--until-empty"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60 * PATIENCE)
    assert api.state(job, queue) == "SUCCESS", api.get(job, queue)
    assert "<ObjectName>out.mkv</ObjectName>" in api.get(job, queue).result.xml
    assert probe(directory / "out.mkv")["streams"][0]["width"] == 80
    assert (api.state(bad, queue), api.get(bad, queue).code) == ("FAILED", "InvalidObject")
