"""What client/demo checks at its end, trusting nothing that it was told: order is read from what the workers leased, the callbacks' bytes and
signatures are checked here, and outputs are opened with other tools. Standard library only."""
import base64
import hashlib
import hmac
import json
import re
import time
import xml.etree.ElementTree as ElementTree

from demo_tool import BUCKET, FEATURES, Trouble, heading, run, style


class Checks:
    def __init__(self, demo):
        self.demo, self.passed, self.failed = demo, 0, 0

    def check(self, good, text, why=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
        print("%s %s%s" % (style("green", "ok  ") if good else style("red", "FAIL"), text, "" if good or not why else ": %s" % why), flush=True)
        return good

    def attempt(self, text, action):
        """One check whose action returns None or what is wrong, or raises."""
        try:
            why = action()
        except (Trouble, OSError, KeyError, ValueError, AttributeError, ElementTree.ParseError) as error:
            why = "%s: %s" % (type(error).__name__, error)
        return self.check(not why, text, why)

    def order(self):
        for feature in FEATURES:
            mine = [job for job in self.demo.jobs if job.feature == feature]
            expected = [job.id for job in sorted(mine, key=lambda job: -job.priority)]  # stable: submission breaks ties
            self.check(self.demo.leased[feature] == expected, "%s: leased by priority, then submission (%s)" % (
                feature, ", ".join("%d" % job.priority for job in sorted(mine, key=lambda job: -job.priority))), self.demo.leased[feature])

    def callback(self, job, path):
        body = path.read_bytes()
        root = ElementTree.fromstring(body)
        job.callback = root.find("JobsDetail")
        if root.tag != "Response" or root.find("NonExistJobIds") is None or len(root.findall("JobsDetail")) != 1:
            return "not the shape of a callback"
        run("xmllint", "--noout", path)
        expected = {"Code": "Success", "JobId": job.id, "Tag": job.tag, "State": "Success", "Progress": "100", "Input/Object": job.source,
                    "Input/BucketId": BUCKET, "Operation/JobLevel": str(job.priority),
                    "Operation/UserData": "demo-%d" % self.demo.jobs.index(job)}
        wrong = ["%s is %r" % (k, job.callback.findtext(k)) for k, v in expected.items() if job.callback.findtext(k) != v]
        wrong += ["%s is no time" % k for k in ("CreationTime", "StartTime", "EndTime")
                  if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", job.callback.findtext(k) or "")]
        if not re.fullmatch("p[0-9a-f]{32}", job.callback.findtext("QueueId") or ""):
            wrong.append("QueueId is %r" % job.callback.findtext("QueueId"))
        return "; ".join(wrong)

    def signature(self, path):
        request = self.demo.request_of(path)
        headers = request["headers"]
        message = b"%s.%s.%s" % (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), path.read_bytes())
        key = base64.b64decode(self.demo.secret[len("whsec_"):])
        expected = "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
        if not any(hmac.compare_digest(one, expected) for one in headers["webhook-signature"].split()):
            return "the signature is not ours"
        if request["signature"] != "valid":
            return "`ringback listen` found it %s" % request["signature"]
        if abs(time.time() - int(headers["webhook-timestamp"])) > 3600:
            return "the timestamp is off"
        if not headers.get("content-type", "").startswith("application/xml"):
            return "the content type is %r" % headers.get("content-type")

    def callbacks(self):
        found = {}
        for path in self.demo.received():
            try:
                found.setdefault(ElementTree.fromstring(path.read_bytes()).findtext("JobsDetail/JobId"), []).append(path)
            except ElementTree.ParseError as error:
                self.check(False, path.name + " is XML", error)
        for job in self.demo.jobs:
            paths = found.pop(job.id, [])
            self.attempt("%s %s: one callback, well-formed and complete, signature right" % (job.tag, job.title), lambda: (
                "%d callbacks arrived" % len(paths) if len(paths) != 1 else self.callback(job, paths[0]) or self.signature(paths[0])))
        self.check(not found, "no other callbacks", list(found))

    def output_file(self, path, name):
        if name.endswith((".mp4", ".mp3")):
            found = json.loads(run("ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", path))
            if float(found["format"]["duration"]) <= 0:
                return "it has no duration"
            if name == "out/clip.mp4" and found["streams"][0].get("width") != 854:
                return "it is %r wide" % found["streams"][0].get("width")
        elif name.endswith(".pdf"):
            if not re.search(r"^Pages:\s+[1-9]", run("pdfinfo", path), re.M):
                return "it has no pages"
        elif name.endswith((".png", ".jpg")):
            run("identify", path)

    def outputs(self):
        for job in self.demo.jobs:
            if job.callback is None or not job.output:
                if job.callback is not None:
                    self.check(float(job.callback.findtext("Operation/MediaInfo/Format/Duration") or 0) > 11, "MediaInfo: the clip's length")
                continue
            operation = job.callback.find("Operation")
            listed = {e.findtext("ObjectName"): e.findtext("Md5") for e in operation.findall("MediaResult/OutputFile/Md5Info")}
            listed |= {e.findtext("TgtUri"): e.findtext("Md5") for e in operation.findall("DocProcessResult/PageInfo")}
            if not listed:
                self.check(False, "%s %s: its callback names outputs" % (job.tag, job.title))
            for name, md5 in listed.items():
                path = self.demo.objects / name
                opener = {".mp4": "ffprobe", ".mp3": "ffprobe", ".pdf": "pdfinfo", ".png": "identify", ".jpg": "identify"}.get(path.suffix, "read")
                self.attempt("%s opens (%s) and has the sum in the callback" % (name, opener), lambda: self.output_file(path, name) or (
                    None if hashlib.md5(path.read_bytes()).hexdigest() == md5 else "its MD5 is another"))
            if job.words:
                text = operation.findtext("SpeechRecognitionResult/Text") or ""
                heard = text.split()
                missed = [word for word in job.words.split() if word not in heard]
                self.check(not missed and text in (self.demo.objects / job.output).read_text(),
                           "%s: heard “%s”" % (job.source, text), "without %s" % ", ".join(missed))

    def run(self):
        heading("Checks")
        self.order()
        self.callbacks()
        self.outputs()
        print("\n%s: %d checks passed, %d failed" % (style("red", "FAILED") if self.failed else style("green", "passed"), self.passed, self.failed))
        return 1 if self.failed else 0
