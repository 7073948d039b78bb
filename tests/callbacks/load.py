"""What the commands beside this file share: the flow tests' harness, and a load of jobs from submit to success in a process of its
own."""
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "flow"))
import harness  # noqa: E402

BUCKET = "load"
results = []


def check(what, holds, figures=""):
    results.append(bool(holds))
    print(f"{'passed' if holds else 'FAILED'}  {what}: {figures}", flush=True)


def conclude():
    """Prints the last line; answers with the exit status."""
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if results and all(results) else 1


def begin():
    """For a command's start: SIGTERM, too, ends it in order, with the processes it has started. Answers as stubs() does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    return stubs()


def stubs():
    """A directory with stubs, which are imported too. The caller keeps it as long as they are used."""
    directory = tempfile.TemporaryDirectory(prefix="rb-stubs-")
    harness.make_stubs(directory.name)
    harness.import_stubs(directory.name)
    return directory


class Client:
    """Asks until it is answered. After a failure it takes a new channel: an old one goes on failing for seconds when its server was killed
    in the midst of their handshake."""

    def __init__(self, target):
        self.target, self.api = target, harness.Api(target)

    def ask(self, service, method, lost=False, **fields):
        """Repeats a call, which must be safe to repeat. If one may get `lost`, None is the answer to a failure."""
        import grpc
        again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN,
                 grpc.StatusCode.INTERNAL)
        while True:
            try:
                return getattr(getattr(self.api, service), method)(timeout=30, **fields)
            except grpc.RpcError as error:
                if error.code() not in again:
                    raise
            self.api.close()
            time.sleep(0.1)
            self.api = harness.Api(self.target)
            if lost:
                return None


class Load:
    """Submits `jobs` jobs to the queues and finishes every one, `batch` a call, in a process of its own. It stays at most `ahead` ends before the
    callbacks (whose number `arrived` is to be kept up to date), and at `rate` ends a second if that is given.

    `promised` receives the ids of jobs as their submits are acknowledged; `finished` is how many finishes were acknowledged."""

    def __init__(self, target, queues, jobs, batch=100, ahead=4_000, rate=None, threads=3):
        context = multiprocessing.get_context("spawn")
        self.arrived, self.finished = context.Value("q", 0), context.Value("q", 0)
        self.stopped = context.Event()
        self.receiving, sending = context.Pipe(duplex=False)
        self.promised = []
        self.process = context.Process(target=run_load, args=(target, queues, jobs, batch, ahead, rate, threads, self.arrived,
                                                              self.finished, self.stopped, sending), daemon=True)
        self.process.start()
        sending.close()
        self.reader = threading.Thread(target=self.keep, daemon=True)
        self.reader.start()

    def keep(self):
        try:
            while True:
                self.promised += self.receiving.recv()
        except EOFError:
            pass

    def running(self):
        return self.process.is_alive()

    def failed(self):
        return not self.running() and self.process.exitcode != 0

    def stop(self):
        """Lets it finish what it leased; answers with the exit status."""
        self.stopped.set()
        self.process.join()
        self.reader.join()
        return self.process.exitcode


def run_load(target, queues, jobs, batch, ahead, rate, threads, arrived, finished, stopped, sending):
    directory = stubs()
    lock = threading.Lock()
    left = [jobs]
    begun = time.monotonic()
    bucket = harness.bucket_of(queues[0])
    common, job_messages, worker_messages = (harness.module(name) for name in ("common", "job", "worker"))
    failed = []

    # Requests are made of messages, not of dicts: half of the time of a job here.
    def submit(client, turn):
        with lock:
            count = min(batch, left[0]) if not stopped.is_set() else 0
            left[0] -= count
        if count:
            request = job_messages.SubmitJobsRequest(queue=queues[turn % len(queues)], request_id=harness.unique("r"))
            request.jobs.extend([common.JobSpec(tag="Load")] * count)
            answer = client.ask("job", "SubmitJobs", request=request)
            assert all(r.status.code == 0 for r in answer.results), answer.results[0]
            with lock:
                sending.send([r.job_id for r in answer.results])
        return count

    def work(client, wait):
        answer = client.ask("worker", "LeaseJobs", lost=True, queues=queues, max_jobs=batch, worker="load", wait=harness.duration(wait))
        if not answer or not answer.jobs:
            return 0
        request = worker_messages.FinishJobsRequest(bucket=bucket)
        for leased in answer.jobs:
            one = request.jobs.add()
            one.lease.job_id, one.lease.fencing_token = leased.job.id, leased.fencing_token
            one.success.SetInParent()
        answer = client.ask("worker", "FinishJobs", request=request)
        good = sum(r.status.code == 0 for r in answer.results)  # the others' leases ran out: they are leased again
        with lock:
            finished.value += good
        return good

    def one(number):
        client, turn = Client(target), number
        while not failed:
            if stopped.is_set() and stopped_idle(client):
                break
            if finished.value - arrived.value > ahead or rate and finished.value > rate * (time.monotonic() - begun):
                time.sleep(0.005)
                continue
            submitted = submit(client, turn)
            done = work(client, 0 if submitted else 0.5)
            if not submitted and not done and idle(client):
                break
            turn += threads
        client.api.close()

    def idle(client):
        counts = [client.ask("queue", "GetQueue", name=queue).queue.counts for queue in queues]
        return left[0] <= 0 and not sum(c.waiting + c.running + c.delayed for c in counts)

    def stopped_idle(client):
        with lock:
            left[0] = 0
        return idle(client)

    def guard(number):
        try:
            one(number)
        except BaseException as error:
            failed.append(error)
            raise

    workers = [threading.Thread(target=guard, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sending.close()
    directory.cleanup()
    os._exit(1 if failed else 0)  # gRPC's own threads may be reconnecting
