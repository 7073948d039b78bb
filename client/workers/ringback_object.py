"""What the three workers' commands share: the job, its objects, its answer.

The commands are glue: they turn a job into argument lists for ffmpeg, pocketsphinx, LibreOffice and poppler and hand back what
came of it. That is a page of Python's standard library each and several of C, and they run as processes of their own anyway,
so they are the one part of Ringback that is not C. `ringback worker --help` says what passes between it and a command.

An object is the file ROOT/<bucket>/<object>. Every directory on the way is opened relative to the one before and no symbolic
link is ever followed, so no name and no link can lead out of the root, and none can be slipped in meanwhile. Outputs appear
whole: they are written beside their place and renamed. An input may also be an http or https URL, whose host must have a public
address unless RINGBACK_PRIVATE_URLS=1. No tool is ever started through a shell.
"""
import hashlib
import http.client
import ipaddress
import json
import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

EXIT_NEVER_RETRY = 65  # EX_DATAERR: the job itself is wrong
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL: something around it is

INPUT_BYTES_MAX = int(os.environ.get("RINGBACK_INPUT_BYTES_MAX", 8 << 30))
COMMAND_SECONDS_MAX = int(os.environ.get("RINGBACK_COMMAND_SECONDS_MAX", 6 * 3600))
RESULT_BYTES_MAX = 60 * 1024  # the server's payload limit is 64 KiB unless it was told otherwise
URL_REDIRECTS_MAX = 5
URL_SECONDS_IDLE_MAX = 30
STDERR_BYTES_KEPT = 4096

# Containers that hold their media themselves. Playlists and image sequences name other files and are not among them.
MEDIA_FORMATS = ("aac,ac3,aiff,amr,apng,asf,au,avi,caf,dv,flac,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
                 "mp3,mpeg,mpegts,mpegvideo,mxf,ogg,w64,wav,wv")


class JobError(Exception):
    """Ends the job as failed: `code` for programs, the text for people, and whether another attempt could help."""

    def __init__(self, code, message, retry=False):
        super().__init__(message)
        self.code = code
        self.status = EXIT_TRY_AGAIN if retry else EXIT_NEVER_RETRY


def report(line):
    """One line to `ringback worker`, when it listens."""
    number = os.environ.get("RINGBACK_PROGRESS_FD", "")
    if number.isdigit():
        try:
            os.write(int(number), (line.replace("\n", " ") + "\n").encode())
        except OSError:
            pass


def report_progress(percent):
    report("progress %d" % max(0, min(99, int(percent))))


def element(name, *children, **texts):
    """<name> with one element a keyword, values that are None left out, and then ready-made XML."""
    inside = "".join("<%s>%s</%s>" % (key, escape(str(text)), key) for key, text in texts.items() if text is not None)
    return "<%s>%s%s</%s>" % (name, inside, "".join(children), name)


# --- tools ------------------------------------------------------------------------------------------------------------


def run_tool(arguments, pass_fds=(), on_line=None, lines_from="stdout", seconds_max=None, **popen_options):
    """Runs one tool to its end and returns (exit status, standard output, end of standard error). Lines go to on_line as they come.

    The tool stays in the worker's process group, so that the worker can end everything at once."""
    deadline = time.monotonic() + min(seconds_max or COMMAND_SECONDS_MAX, COMMAND_SECONDS_MAX)
    try:
        tool = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                pass_fds=pass_fds, **popen_options)
    except FileNotFoundError:
        raise JobError("ToolMissing", "%s is not installed" % arguments[0], retry=True) from None
    collected = {"stdout": bytearray(), "stderr": bytearray()}
    partial = b""
    with selectors.DefaultSelector() as selector:
        selector.register(tool.stdout, selectors.EVENT_READ, "stdout")
        selector.register(tool.stderr, selectors.EVENT_READ, "stderr")
        while selector.get_map():
            ready = selector.select(max(0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                tool.kill()
                tool.wait()
                raise JobError("ToolTimeout", "%s took too long" % os.path.basename(arguments[0]))
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                kept = collected[key.data]
                kept += data
                if key.data == "stderr" or on_line and key.data == lines_from:
                    del kept[:-STDERR_BYTES_KEPT]
                elif len(kept) > 16 << 20:
                    tool.kill()
                    tool.wait()
                    raise JobError("ToolOutput", "%s printed too much" % os.path.basename(arguments[0]))
                if on_line and key.data == lines_from:
                    *lines, partial = (partial + data).split(b"\n")
                    partial = partial[-STDERR_BYTES_KEPT:]
                    for line in lines:
                        on_line(line.decode("utf-8", "replace"))
    tool.stdout.close()
    tool.stderr.close()
    return tool.wait(), bytes(collected["stdout"]), collected["stderr"].decode("utf-8", "replace").strip()


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "no message"


def probe(source, pass_fds=()):
    """ffprobe's view of a file, refused when it holds no media."""
    status, out, err = run_tool(["ffprobe", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", MEDIA_FORMATS,
                                 "-show_format", "-show_streams", "-of", "json", "-i", source], pass_fds, seconds_max=120)
    if status != 0:
        raise JobError("InvalidInput", "the input is not a media file that can be read: " + last_line(err).replace(source, "input"))
    found = json.loads(out)
    if not found.get("streams"):
        raise JobError("InvalidInput", "the input has no audio or video in it")
    return found


# --- objects ----------------------------------------------------------------------------------------------------------

BUCKET = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


def split_object(bucket, name):
    parts = name.split("/")
    if not BUCKET.fullmatch(bucket) or ".." in bucket:
        raise JobError("InvalidBucket", "not a bucket's name: %r" % bucket)
    if not name or len(name.encode()) > 1024 or any(part in ("", ".", "..") or len(part.encode()) > 200 for part in parts) \
            or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise JobError("InvalidObject", "not an object's name within the bucket: %r" % name)
    return parts


class Root:
    """The directory that holds the buckets."""

    def __init__(self, path):
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise JobError("RootMissing", "the root %s cannot be opened: %s" % (path, error.strerror), retry=True) from None

    def _directory(self, bucket, parts, make):
        here = os.dup(self.descriptor)
        for part in [bucket] + parts:
            try:
                if make:
                    try:
                        os.mkdir(part, 0o755, dir_fd=here)
                    except FileExistsError:
                        pass
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            finally:
                os.close(here)
            here = below
        return here

    def open_input(self, bucket, name):
        """A descriptor of the object, which is a regular file and not too large."""
        parts = split_object(bucket, name)
        try:
            directory = self._directory(bucket, parts[:-1], False)
            try:
                descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            finally:
                os.close(directory)
        except FileNotFoundError:
            raise JobError("NoSuchObject", "there is no object %s/%s" % (bucket, name)) from None
        except OSError as error:
            if error.errno in (20, 40):  # ENOTDIR, ELOOP: what O_NOFOLLOW answers for a link
                raise JobError("ObjectRefused", "%s/%s is a symbolic link or leads through one" % (bucket, name)) from None
            raise JobError("ObjectUnreadable", "%s/%s: %s" % (bucket, name, error.strerror), retry=True) from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise JobError("ObjectRefused", "%s/%s is not a file" % (bucket, name))
        check_size(found.st_size)
        return descriptor

    def store(self, source, bucket, name):
        """Copies a finished file to its place, where it appears whole. Returns what the result says about it."""
        parts = split_object(bucket, name)
        size, md5 = 0, hashlib.md5(usedforsecurity=False)
        try:
            directory = self._directory(bucket, parts[:-1], True)
            temporary = ".ringback-" + secrets.token_hex(8)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644,
                                     dir_fd=directory)
                try:
                    with open(source, "rb") as data, open(descriptor, "wb") as place:
                        while block := data.read(1 << 20):
                            md5.update(block)
                            size += len(block)
                            place.write(block)
                        place.flush()
                        os.fsync(place.fileno())
                    os.rename(temporary, parts[-1], src_dir_fd=directory, dst_dir_fd=directory)
                except BaseException:
                    os.unlink(temporary, dir_fd=directory)
                    raise
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno in (20, 21, 40):  # ENOTDIR, EISDIR, ELOOP
                raise JobError("ObjectRefused", "%s/%s cannot be an output: a link, or a file where a directory would be" %
                               (bucket, name)) from None
            raise JobError("OutputFailed", "%s/%s: %s" % (bucket, name, error.strerror), retry=True) from None
        return {"bucket": bucket, "object": name, "size": size, "md5": md5.hexdigest()}


def check_size(size):
    if size > INPUT_BYTES_MAX:
        raise JobError("InputTooLarge", "the input has %d bytes, more than %d" % (size, INPUT_BYTES_MAX))


def connect_public(address, *arguments, **options):
    """Connects, and hangs up before the first byte when the other end is not on the public internet."""
    connection = socket.create_connection(address, *arguments, **options)
    peer = ipaddress.ip_address(connection.getpeername()[0].split("%")[0])
    peer = getattr(peer, "ipv4_mapped", None) or peer
    if (not peer.is_global or peer.is_multicast) and os.environ.get("RINGBACK_PRIVATE_URLS") != "1":
        connection.close()
        raise JobError("InputRefused", "the URL's host has a private address")
    return connection


def download(url, path):
    for _ in range(URL_REDIRECTS_MAX + 1):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise JobError("InvalidInput", "not an http or https URL without user information")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(parts.hostname, parts.port, timeout=URL_SECONDS_IDLE_MAX)
            connection._create_connection = connect_public
            connection.request("GET", (parts.path or "/") + ("?" + parts.query if parts.query else ""),
                               headers={"User-Agent": "ringback-worker", "Accept-Encoding": "identity"})
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308) and answer.getheader("Location"):
                url = urllib.parse.urljoin(url, answer.getheader("Location"))
                connection.close()
                continue
            if answer.status != 200:
                raise JobError("InputUnavailable", "the URL answered %d" % answer.status, retry=answer.status >= 500 or answer.status == 429)
            size, deadline = 0, time.monotonic() + COMMAND_SECONDS_MAX
            with open(path, "wb") as file:
                while block := answer.read(1 << 20):
                    size += len(block)
                    check_size(size)
                    if time.monotonic() > deadline:
                        raise JobError("InputUnavailable", "the URL took too long", retry=True)
                    file.write(block)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise JobError("InputUnavailable", "the URL could not be fetched: %s" % error, retry=True) from None
    raise JobError("InputUnavailable", "the URL redirects too often")


# --- the job ----------------------------------------------------------------------------------------------------------


class Job:
    """The job on standard input: its tag, operation and objects, and a directory for what is in the making."""

    def __init__(self, document, root, work):
        self.spec = document.get("spec", {})
        self.tag = self.spec.get("tag", "")
        self.bucket = os.environ.get("RINGBACK_BUCKET", "")
        self.root = Root(root)
        self.work = work
        text = self.spec.get("operation", {}).get("xml", "")
        if "<!" in text or "<?" in text:
            raise JobError("InvalidOperation", "the operation must be plain elements: no DOCTYPE, no processing instructions")
        try:
            self.operation = ElementTree.fromstring("<Operation>%s</Operation>" % text)
        except ElementTree.ParseError as error:
            raise JobError("InvalidOperation", "the operation is not XML: %s" % error) from None

    def text(self, path, default=""):
        return (self.operation.findtext(path) or "").strip() or default

    def number(self, path, low, high, default=None, kind=int):
        text = self.text(path)
        if not text:
            return default
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise JobError("InvalidOperation", "%s is %r, which is not a number from %s to %s" % (path, text, low, high))
        return value

    def choice(self, path, table, default=None):
        text = self.text(path)
        if not text:
            return default
        for name, value in table.items():
            if name.lower() == text.lower():
                return value
        raise JobError("InvalidOperation", "%s is %r; known are %s" % (path, text, ", ".join(sorted(table))))

    def name_of_input(self):
        source = self.spec.get("input", {})
        if "object" in source:
            return source["object"].get("object", "")
        return os.path.basename(urllib.parse.urlsplit(source.get("url", "")).path)

    def open_input(self):
        """A descriptor of the input."""
        source = self.spec.get("input", {})
        if "object" in source:
            return self.root.open_input(source["object"].get("bucket") or self.bucket, source["object"].get("object", ""))
        if "url" in source:
            path = os.path.join(self.work, "download")
            download(source["url"], path)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise JobError("InvalidInput", "the job names no input")

    def output(self, default=None):
        """(bucket, object) of <Output>."""
        name = self.text("Output/Object", default)
        if not name:
            raise JobError("InvalidOperation", "the operation names no Output/Object")
        bucket = self.text("Output/Bucket", self.bucket)
        split_object(bucket, name)
        return bucket, name

    def store(self, source, bucket, name):
        return self.root.store(source, bucket, name)

    def output_files(self, stored):
        """<OutputFile> as the original writes it, with the size beside each sum."""
        first = stored[0]
        prefix = os.path.commonprefix([one["object"] for one in stored]) if len(stored) > 1 else ""
        return element("OutputFile", *("<ObjectName>%s</ObjectName>" % escape(one["object"]) for one in stored),
                       *(element("Md5Info", ObjectName=one["object"], Md5=one["md5"], Size=one["size"]) for one in stored),
                       Bucket=first["bucket"], Region=self.text("Output/Region"), ObjectPrefix=prefix)


def main(commands, about):
    """Runs the job on standard input by its tag; `commands` maps tags to functions of a Job that return XML."""
    root = os.environ.get("RINGBACK_ROOT", "")
    arguments = sys.argv[1:]
    if arguments[:1] == ["--root"] and len(arguments) == 2:
        root = arguments[1]
    elif arguments:
        print("usage: ringback worker --queue Q --root DIR --exec %s\n\n%s" % (sys.argv[0], about.strip()))
        sys.exit(0 if arguments[0] in ("-h", "--help") else 64)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = tempfile.mkdtemp(prefix="ringback-")
    try:
        if not root:
            raise JobError("RootMissing", "no root: give --root DIR or RINGBACK_ROOT", retry=True)
        job = Job(json.load(sys.stdin), root, work)
        if job.tag not in commands:
            raise JobError("UnknownTag", "no work for the tag %r here; known are %s" % (job.tag, ", ".join(sorted(commands))))
        report_progress(0)
        result = commands[job.tag](job)
        if len(result.encode()) > RESULT_BYTES_MAX:
            raise JobError("ResultTooLarge", "the result has more than %d bytes" % RESULT_BYTES_MAX)
        sys.stdout.write(result)
        sys.stdout.flush()
    except JobError as error:
        report("code " + error.code)
        report("message " + str(error)[:1000])
        print(error, file=sys.stderr)
        sys.exit(error.status)
    finally:
        shutil.rmtree(work, ignore_errors=True)
