// Uses the generated TypeScript stubs: a queue, a job, its lease and its end. Run with the server's HOST:PORT.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Feature, JobState } from "./gen/typescript/ringback/v1/common_pb.js";
import { JobService } from "./gen/typescript/ringback/v1/job_pb.js";
import { QueueService } from "./gen/typescript/ringback/v1/queue_pb.js";
import { WorkerService } from "./gen/typescript/ringback/v1/worker_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}` });
const bucket = "buckets/typescript";
const queue = `${bucket}/queues/queue-1`;
const jobs = createClient(JobService, transport);
const workers = createClient(WorkerService, transport);

await createClient(QueueService, transport).activateFeatures({ bucket, features: [Feature.MEDIA] });
const { job } = await jobs.submitJob({ target: { case: "queue", value: queue }, job: { tag: "Typed" } });
const leased = (await workers.leaseJobs({ queues: [queue], maxJobs: 1, worker: "typescript" })).jobs[0];
if (!job || leased?.job?.id !== job.id) throw new Error("another job was leased");
await workers.finishJobs({
  bucket,
  jobs: [{ lease: { jobId: job.id, fencingToken: leased.fencingToken }, outcome: { case: "success", value: { message: "typed" } } }],
});
const [read] = (await jobs.getJobs({ bucket, jobIds: [job.id] })).jobs;
if (read.state !== JobState.SUCCESS || read.message !== "typed") throw new Error(`the job is ${JobState[read.state]}: ${read.message}`);
process.exit(0);
