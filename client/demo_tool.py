"""How client/demo shows what it does and starts processes: each is ended by its process id when the demo ends. Standard library only."""
import json
import os
import pathlib
import signal
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("RINGBACK_BUILD", PROJECT / "build")) / "bin"
BUCKET = "demo"
FEATURES = {"media": "queue-1", "speech": "queue-speech-1", "document": "queue-doc-process-1"}
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"} if sys.stdout.isatty() else {}


class Trouble(Exception):
    pass


def style(name, text):
    return "\033[%sm%s\033[0m" % (STYLES[name], text) if name in STYLES else text


def heading(text):
    print("\n" + style("bold", "== " + text), flush=True)


def show(text, indent="   "):
    for line in text.rstrip("\n").split("\n"):
        print(indent + line)
    sys.stdout.flush()


started = []  # to be ended at the end


def start(arguments, **options):
    process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, **options)
    started.append(process)
    return process


def end_all():
    for process in reversed(started):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run(*arguments, **options):
    done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, **options)
    if done.returncode != 0:
        raise Trouble("%s ended with %d: %s" % (arguments[0], done.returncode, (done.stderr or done.stdout).strip()[-1500:]))
    return done.stdout


class Tool:
    """The command-line tool, with its calls shown as a user would type them."""

    def __init__(self, server):
        self.environment = dict(os.environ, RINGBACK_SERVER=server, RINGBACK_BUCKET=BUCKET)

    def __call__(self, *arguments, quiet=False, shown=None):
        if not quiet:
            print(style("dim", "$ ringback " + (shown or " ".join(map(str, arguments)))), flush=True)
        out = run(BIN / "ringback", *arguments, env=self.environment)
        if not quiet and out.strip():
            show(out)
        return out

    def json(self, *arguments):
        return json.loads(self("--json", *arguments, quiet=True))

    def start(self, *arguments, **options):
        return start([BIN / "ringback", *arguments], env=self.environment, **options)
