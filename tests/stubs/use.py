"""Uses the generated Python stubs: a queue, a job, its lease and its end. Run with the server's HOST:PORT."""
import pathlib
import sys

import google
import grpc

# Debian's google and grpc are packages that do not look further: the stubs' own parts of them are added.
for package in (google, grpc):
    package.__path__.append(str(next(pathlib.Path(p) / package.__name__ for p in sys.path if p.endswith("gen/python"))))

from ringback.v1 import common_pb2, job_pb2, job_pb2_grpc, queue_pb2, queue_pb2_grpc, worker_pb2, worker_pb2_grpc  # noqa: E402

channel = grpc.insecure_channel(sys.argv[1])
bucket = "buckets/python"
queue = bucket + "/queues/queue-1"
jobs = job_pb2_grpc.JobServiceStub(channel)
workers = worker_pb2_grpc.WorkerServiceStub(channel)

queue_pb2_grpc.QueueServiceStub(channel).ActivateFeatures(queue_pb2.ActivateFeaturesRequest(bucket=bucket, features=[common_pb2.FEATURE_MEDIA]))
job = jobs.SubmitJob(job_pb2.SubmitJobRequest(queue=queue, job=common_pb2.JobSpec(tag="Python"))).job
leased = workers.LeaseJobs(worker_pb2.LeaseJobsRequest(queues=[queue], max_jobs=1, worker="python")).jobs[0]
assert leased.job.id == job.id
lease = worker_pb2.Lease(job_id=job.id, fencing_token=leased.fencing_token)
workers.FinishJobs(worker_pb2.FinishJobsRequest(bucket=bucket, jobs=[worker_pb2.FinishedJob(lease=lease, success=worker_pb2.JobSuccess(message="done"))]))
read = jobs.GetJobs(job_pb2.GetJobsRequest(bucket=bucket, job_ids=[job.id])).jobs[0]
assert (read.state, read.message) == (common_pb2.JOB_STATE_SUCCESS, "done"), read
