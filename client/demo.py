"""What client/demo does once everything is built; see there. Standard library only.

Everything goes through what a user has: the server's and the tool's command lines.
"""
import argparse
import base64
import json
import os
import pathlib
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree

from demo_checks import Checks
from demo_tool import BIN, BUCKET, FEATURES, Tool, Trouble, end_all, heading, run, show, start, started, style

WORKERS = pathlib.Path(__file__).resolve().parent / "workers"
RECORDINGS = pathlib.Path("/usr/share/pocketsphinx/test/data")
SECONDS_MAX = 900  # for all jobs; a user's own film may take its time
DOCUMENTS = "doc docx odt rtf txt html htm csv xls xlsx ods ppt pptx odp pdf".split()
STARTED = time.monotonic()


# --- inputs -----------------------------------------------------------------------------------------------------------------------

REPORT = """<html><body><h1>Quarterly report</h1><p>Made by the demo, turned into a Word document by LibreOffice.</p>
<table border="1"><tr><th>Queue</th><th>Jobs</th></tr><tr><td>media</td><td>4</td></tr><tr><td>speech</td><td>2</td></tr></table>
<h1 style="page-break-before: always">Second page</h1><p>%s</p></body></html>""" % ("Priority queues that call back. " * 60)


def make_inputs(objects):
    """Real inputs, each made by the tool of its trade. Speech is recorded speech: 'go forward ten meters', and a line of Jane Austen's."""
    objects.mkdir(parents=True)
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30:duration=12", "-f", "lavfi", "-i",
        "sine=frequency=440:duration=12", "-c:v", "mpeg4", "-q:v", "4", "-c:a", "aac", objects / "clip.avi")
    run("ffmpeg", "-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", RECORDINGS / "goforward.raw", objects / "command.wav")
    shutil.copy(RECORDINGS / "librivox/sense_and_sensibility_01_austen_64kb-0930.wav", objects / "novel.wav")
    with tempfile.TemporaryDirectory() as profile:
        page = pathlib.Path(profile) / "report.html"
        page.write_text(REPORT)
        run("soffice", "--headless", "-env:UserInstallation=file://%s/profile" % profile, "--infilter=HTML (StarWriter)", "--convert-to",
            "docx", "--outdir", objects, page, env=dict(os.environ, HOME=profile))
    (objects / "figures.csv").write_text("month,jobs\n" + "".join("%d,%d\n" % (m, m * m) for m in range(1, 13)))


def xml(**elements):
    return "".join("<%s>%s</%s>" % (k, xml(**v) if isinstance(v, dict) else v, k) for k, v in elements.items())


class Job:
    def __init__(self, feature, tag, source, priority, output, words=None, **block):
        self.feature, self.tag, self.source, self.priority, self.output, self.words = feature, tag, source, priority, output, words
        self.operation = xml(**{tag: block} if block else {}, **({"Output": {"Bucket": BUCKET, "Object": output}} if output else {}))
        self.id, self.callback = None, None
        self.title = "%s → %s" % (source, output.rpartition("/")[2]) if output else source


def demo_jobs():
    """In the order of submission, which is not the order of work."""
    small = dict(Container=dict(Format="mp4"), Video=dict(Codec="H.264", Width=854), Audio=dict(Codec="AAC", Bitrate=96))
    return [
        Job("media", "MediaInfo", "clip.avi", 0, None),
        Job("media", "Transcode", "clip.avi", 10, "out/clip.mp4", **small),
        Job("document", "DocProcess", "report.docx", 5, "out/report.pdf", TgtType="pdf"),
        Job("speech", "SpeechRecognition", "novel.wav", 0, "out/novel.txt", words="he might even have been made amiable himself"),
        Job("media", "Transcode", "clip.avi", 10, "out/clip.mp3", Container=dict(Format="mp3"), Video=dict(Remove="true")),
        Job("document", "DocProcess", "figures.csv", 5, "out/figures-${Number}.jpg", TgtType="jpg"),
        Job("media", "Snapshot", "clip.avi", 200, "out/frame-${Number}.png", Mode="Average", Count=3, Width=320),
        Job("speech", "SpeechRecognition", "command.wav", 50, "out/command.txt", words="go forward ten meters"),
        Job("document", "DocProcess", "report.docx", 90, "out/page-${Number}.png", TgtType="png", ImageDpi=60),
    ]


def own_jobs(files, objects):
    """The user's files, by what is in them."""
    jobs = []
    for number, path in enumerate(files):
        name = "own/%d-%s" % (number, re.sub(r"[^A-Za-z0-9._-]+", "_", path.name))
        (objects / "own").mkdir(exist_ok=True)
        shutil.copy(path, objects / name)
        stem = "out/" + pathlib.PurePath(name).stem
        if path.suffix[1:].lower() in DOCUMENTS:
            jobs.append(Job("document", "DocProcess", name, 100, stem + "-${Number}.png", TgtType="png"))
            jobs.append(Job("document", "DocProcess", name, 100, stem + ".pdf", TgtType="pdf"))
            continue
        try:
            streams = json.loads(run("ffprobe", "-v", "error", "-show_streams", "-of", "json", path))["streams"]
        except Trouble:
            raise Trouble("%s is no video, recording or document that is known here" % path) from None
        if any(s["codec_type"] == "video" and not s.get("disposition", {}).get("attached_pic") for s in streams):
            jobs.append(Job("media", "Transcode", name, 100, stem + ".mp4", Video=dict(Codec="H.264")))
            jobs.append(Job("media", "Snapshot", name, 100, stem + "-${Number}.jpg", Mode="Average", Count=3))
        else:
            jobs.append(Job("speech", "SpeechRecognition", name, 100, stem + ".txt"))
    return jobs


# --- the run ------------------------------------------------------------------------------------------------------------------------

class Demo:
    def __init__(self, output, files):
        self.output, self.files = output, files
        self.root = output / "objects"
        self.objects = self.root / BUCKET
        self.callbacks = output / "callbacks"
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self.events = queue.Queue()
        self.leased = {feature: [] for feature in FEATURES}

    def prepare(self):
        heading("Inputs")
        self.logs = self.output / "logs"
        mark = self.output / ".ringback-demo"
        for old in (self.root, self.callbacks, self.logs):
            if old.exists() and not mark.exists():
                raise Trouble("%s is there and is not from an earlier demo" % old)
            shutil.rmtree(old, ignore_errors=True)
        self.callbacks.mkdir(parents=True)
        mark.touch()
        self.logs.mkdir()
        make_inputs(self.objects)
        self.jobs = demo_jobs() + own_jobs(self.files, self.objects)
        for path in sorted(p for p in self.objects.rglob("*") if p.is_file()):
            show("%-44s %9d bytes" % (path.relative_to(self.root), path.stat().st_size))

    def log(self, name):
        return open(self.logs / name, "wb")

    def serve(self):
        heading("A server with its own Redis, and a receiver of callbacks")
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="ringback-demo-"))
        ports = self.data / "ports"
        self.server = start([BIN / "ringbackd", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", self.data / "data",
                             "--ports-file", ports, "--callback-allow", "127.0.0.0/8"], stdout=self.log("server.log"), stderr=subprocess.STDOUT)
        self.wait_for(ports.exists, 30, "the server", self.server, "server.log")
        numbers = dict(line.split("=") for line in ports.read_text().split())
        print(style("dim", "$ ringbackd --listen 127.0.0.1:%s --http 127.0.0.1:%s --callback-allow 127.0.0.0/8" %
                    (numbers["grpc"], numbers["http"])))
        self.ringback = Tool("127.0.0.1:" + numbers["grpc"])
        self.receiver = self.ringback.start("--json", "listen", "--port", "0", "--secret", self.secret, "--out", self.callbacks,
                                            stdout=self.log("listen.json"), stderr=self.log("listen.log"))

        def address():
            for name in ("listen.json", "listen.log"):
                found = re.search(r"https?://[0-9a-z.:\[\]]+(/[^\s\"']*)?", (self.logs / name).read_text())
                if found:
                    return found.group(0)
        self.url = self.wait_for(address, 15, "the receiver", self.receiver, "listen.log")
        print(style("dim", "$ ringback listen --secret whsec_… --out %s" % self.callbacks.name))
        show("receiver at " + self.url)

    def wait_for(self, check, seconds, what, process, log):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = check()
            if value:
                return value
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise Trouble("%s did not start:\n%s" % (what, (self.logs / log).read_text(errors="replace")[-2000:]))

    def submit(self):
        heading("Queues by activating the features, callbacks to the receiver, paused")
        self.ringback("activate", *FEATURES)
        for name in FEATURES.values():
            self.ringback("callback", "set", name, "--url", self.url, "--secret", self.secret, quiet=True)
            print(style("dim", "$ ringback callback set %s --url %s --secret whsec_…" % (name, self.url)))
            self.ringback("queue", "pause", name, quiet=True)
            print(style("dim", "$ ringback queue pause " + name))
        heading("Jobs of mixed priority")
        for number, job in enumerate(self.jobs):
            arguments = ["job", "submit", "--queue", FEATURES[job.feature], "--tag", job.tag, "--object", job.source, "--priority", job.priority,
                         "--user-data", "demo-%d" % number]
            arguments += ["--operation", job.operation] if job.operation else []
            answer = self.ringback.json(*arguments)
            job.id = (answer.get("job") or answer)["id"]
            print("%-9s %-18s %-38s priority %3d   %s" % (job.feature, job.tag, job.title, job.priority, job.id))
        self.ringback("queue", "list")

    def start_workers(self):
        heading("Three workers, and the queues go")
        for feature, name in FEATURES.items():
            command = WORKERS / ("ringback-" + feature)
            print(style("dim", "$ ringback worker --queue %s --root objects --exec %s" % (name, command.name)))
            process = self.ringback.start("--json", "worker", "--queue", name, "--root", self.root, "--exec", command, "--worker", feature,
                                          "--lease", "30s", stdout=subprocess.PIPE, stderr=self.log(feature + ".log"))
            threading.Thread(target=self.read_events, args=(feature, process.stdout), daemon=True).start()
        time.sleep(0.5)
        for name in FEATURES.values():
            self.ringback("queue", "resume", name, quiet=True)
            print(style("dim", "$ ringback queue resume " + name))

    def read_events(self, feature, stream):
        for line in stream:
            self.events.put((feature, json.loads(line)))
        self.events.put((feature, None))

    def follow(self):
        """Shows the workers' events until every job has ended and called back."""
        print(flush=True)
        begun = time.monotonic()
        waiting = {job.id: job for job in self.jobs}
        while waiting:
            if time.monotonic() - begun > SECONDS_MAX:
                raise Trouble("%d jobs have not ended within %d s" % (len(waiting), SECONDS_MAX))
            try:
                feature, event = self.events.get(timeout=1)
            except queue.Empty:
                continue
            if event is None:
                raise Trouble("the worker for %s ended: %s" % (feature, (self.logs / (feature + ".log")).read_text(errors="replace")[-1500:]))
            kind, job = event["event"], waiting.get(event["job"])
            if job is None:
                continue
            if kind == "leased":
                self.leased[feature].append(event["job"])
            text = {"leased": "priority %d" % event["priority"], "progress": "%3d %%" % event.get("progress", 0),
                    "failed": "%s: %s" % (event.get("code"), event.get("message"))}.get(kind, event.get("reason", ""))
            color = {"succeeded": "green", "failed": "red", "leased": "bold"}.get(kind, "dim")
            print("%5.1f s  %-9s %-18s %-38s %s %s" % (time.monotonic() - begun, feature, event["tag"], job.title,
                                                       style(color, "%-9s" % kind), text), flush=True)
            if kind in ("succeeded", "stopped") or kind == "failed" and event.get("next") == "none":
                del waiting[event["job"]]
        end = time.monotonic() + 30
        while time.monotonic() < end and len(self.received()) < len(self.jobs):
            time.sleep(0.1)

    def received(self):
        """The callbacks' bodies by file, oldest first."""
        return sorted((p for p in self.callbacks.iterdir() if p.suffix == ".xml"), key=lambda p: (p.stat().st_mtime_ns, p.name))

    def request_of(self, body):
        """What `ringback listen` printed about the request that brought a body: its headers, and what it thinks of the signature."""
        for line in (self.logs / "listen.json").read_text().splitlines():
            request = json.loads(line)
            if request.get("headers", {}).get("webhook-id") == body.stem:
                return request
        raise Trouble("the receiver told nothing about " + body.name)

    def print_callbacks(self):
        """A line each, and the first one whole."""
        heading("The callbacks")
        by_id = {job.id: job for job in self.jobs}
        whole = None
        for path in self.received():
            try:
                tree = ElementTree.fromstring(path.read_bytes())
            except ElementTree.ParseError:
                continue  # the checks say so
            job = by_id.get(tree.findtext("JobsDetail/JobId"))
            print("%-18s %-38s %-8s %s" % (tree.findtext("JobsDetail/Tag"), job.title if job else "?", tree.findtext("JobsDetail/State"),
                                          tree.findtext("JobsDetail/Message") or self.summary(tree.find("JobsDetail/Operation"))))
            if whole is None or job and job.output == "out/page-${Number}.png":  # a short one that has it all
                whole = (path, tree)
        if whole:
            path, tree = whole
            print("\nOne of them, %s, indented here:" % path.name)
            ElementTree.indent(tree, "  ")
            show(ElementTree.tostring(tree, encoding="unicode"))

    @staticmethod
    def summary(operation):
        """What a callback says of the outcome, in a few words."""
        if operation is None:
            return ""
        if operation.find("SpeechRecognitionResult") is not None:
            return "“%s”" % (operation.findtext("SpeechRecognitionResult/Text") or "")[:100]
        if operation.find("DocProcessResult") is not None:
            return "%s of %s pages" % (operation.findtext("DocProcessResult/SuccPageCount"), operation.findtext("DocProcessResult/TotalPageCount"))
        sizes = [int(e.text) for e in operation.findall("MediaResult/OutputFile/Md5Info/Size")]
        if sizes:
            return "%d object%s, %d bytes" % (len(sizes), "s" * (len(sizes) > 1), sum(sizes))
        return "%s s" % operation.findtext("MediaInfo/Format/Duration") if operation.find("MediaInfo") is not None else ""


def main():
    parser = argparse.ArgumentParser(prog="client/demo")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("demo-output"))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    demo = Demo(options.output.resolve(), [path.resolve() for path in options.files])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    status, keep = 2, False
    try:
        demo.prepare()
        demo.serve()
        demo.submit()
        demo.start_workers()
        demo.follow()
        demo.print_callbacks()
        status = Checks(demo).run()
        print("outputs in %s, callbacks in %s, logs in %s" % (demo.objects / "out", demo.callbacks, demo.logs))
        print("the whole demo took %.0f s" % (time.monotonic() - STARTED))
        keep = options.keep
        if keep:
            print("kept: server %s (data in %s); end with: kill %s" % (demo.ringback.environment["RINGBACK_SERVER"], demo.data,
                                                                       " ".join(str(p.pid) for p in started if p.poll() is None)))
    except Trouble as trouble:
        print(style("red", "client/demo: ") + str(trouble), file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        if not keep:
            end_all()
            if getattr(demo, "data", None):
                shutil.rmtree(demo.data, ignore_errors=True)
    sys.stdout.flush()
    os._exit(status) if keep else sys.exit(status)


main()
