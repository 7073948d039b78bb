/*
 * An example of libringback outside Ringback's tree: makes a bucket's default media queue, submits a job to it, leases
 * it as a worker would, finishes it and reads it back.
 *
 *   submit HOST:PORT BUCKET
 */
#include <ringback.h>
#include <ringback/v1/job.pb-c.h>
#include <ringback/v1/queue.pb-c.h>
#include <ringback/v1/worker.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 256

/* Calls, and ends the program when that fails. */
static void *call(struct ringback_client *client, const char *method, const ProtobufCMessage *request) {
  struct ringback_error error;
  void *response = ringback_call(client, method, request, NULL, &error);
  if (response == NULL) {
    fprintf(stderr, "%s: %s: %s\n", method, ringback_code_name(error.code), error.message);
    exit(1);
  }
  return response;
}

static void activate(struct ringback_client *client, char *bucket) {
  Ringback__V1__Feature features[] = {RINGBACK__V1__FEATURE__FEATURE_MEDIA};
  Ringback__V1__ActivateFeaturesRequest request = RINGBACK__V1__ACTIVATE_FEATURES_REQUEST__INIT;
  request.bucket = bucket;
  request.n_features = 1;
  request.features = features;
  ringback_free(call(client, "/ringback.v1.QueueService/ActivateFeatures", &request.base));
}

/* The id of a new job. */
static void submit(struct ringback_client *client, char *queue, char *id) {
  Ringback__V1__JobSpec job = RINGBACK__V1__JOB_SPEC__INIT;
  job.tag = "Greeting";
  job.user_data = "from the example";
  Ringback__V1__SubmitJobRequest request = RINGBACK__V1__SUBMIT_JOB_REQUEST__INIT;
  request.target_case = RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_QUEUE;
  request.queue = queue;
  request.job = &job;
  Ringback__V1__SubmitJobResponse *response = call(client, "/ringback.v1.JobService/SubmitJob", &request.base);
  snprintf(id, TEXT_BYTES, "%s", response->job->id);
  ringback_free(&response->base);
}

/* What a worker does, for one job. */
static void work(struct ringback_client *client, char *bucket, char *queue) {
  Ringback__V1__LeaseJobsRequest request = RINGBACK__V1__LEASE_JOBS_REQUEST__INIT;
  request.queues = &queue;
  request.n_queues = 1;
  request.max_jobs = 1;
  request.worker = "example";
  Ringback__V1__LeaseJobsResponse *leased = call(client, "/ringback.v1.WorkerService/LeaseJobs", &request.base);
  if (leased->n_jobs != 1) {
    fprintf(stderr, "no job to lease\n");
    exit(1);
  }
  Ringback__V1__Lease lease = RINGBACK__V1__LEASE__INIT;
  lease.job_id = leased->jobs[0]->job->id;
  lease.fencing_token = leased->jobs[0]->fencing_token;
  Ringback__V1__JobSuccess success = RINGBACK__V1__JOB_SUCCESS__INIT;
  success.message = "hello";
  Ringback__V1__FinishedJob job = RINGBACK__V1__FINISHED_JOB__INIT, *jobs[] = {&job};
  job.lease = &lease;
  job.outcome_case = RINGBACK__V1__FINISHED_JOB__OUTCOME_SUCCESS;
  job.success = &success;
  Ringback__V1__FinishJobsRequest finish = RINGBACK__V1__FINISH_JOBS_REQUEST__INIT;
  finish.bucket = bucket;
  finish.n_jobs = 1;
  finish.jobs = jobs;
  ringback_free(call(client, "/ringback.v1.WorkerService/FinishJobs", &finish.base));
  ringback_free(&leased->base);
}

static void on_jobs(const Ringback__V1__GetJobsResponse *response, void *data) {
  int *failed = data;
  if (response == NULL || response->n_jobs != 1) {
    fprintf(stderr, "GetJobs: %s\n", response == NULL ? ringback_last_error()->message : "no such job");
    *failed = 1;
    return;
  }
  const Ringback__V1__Job *job = response->jobs[0];
  const ProtobufCEnumValue *state =
      protobuf_c_enum_descriptor_get_value(&ringback__v1__job_state__descriptor, job->state);
  printf("%s %s \"%s\"\n", job->id, state->name, job->message);
  *failed = job->state != RINGBACK__V1__JOB_STATE__JOB_STATE_SUCCESS;
}

/* The same through protoc-c's stubs. */
static int show(struct ringback_client *client, char *bucket, char *id) {
  int failed = 1;
  ProtobufCService *service = ringback_service(client, &ringback__v1__job_service__descriptor);
  Ringback__V1__GetJobsRequest request = RINGBACK__V1__GET_JOBS_REQUEST__INIT;
  request.bucket = bucket;
  request.n_job_ids = 1;
  request.job_ids = &id;
  ringback__v1__job_service__get_jobs(service, &request, on_jobs, &failed);
  protobuf_c_service_destroy(service);
  return failed;
}

int main(int argc, char **argv) {
  char bucket[TEXT_BYTES], queue[TEXT_BYTES], id[TEXT_BYTES];
  if (argc != 3) {
    fprintf(stderr, "usage: %s HOST:PORT BUCKET\n", argv[0]);
    return 2;
  }
  snprintf(bucket, sizeof bucket, "buckets/%s", argv[2]);
  snprintf(queue, sizeof queue, "buckets/%s/queues/queue-1", argv[2]);
  struct ringback_error error;
  struct ringback_client *client = ringback_connect(argv[1], NULL, &error);
  if (client == NULL) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  activate(client, bucket);
  submit(client, queue, id);
  work(client, bucket, queue);
  int failed = show(client, bucket, id);
  ringback_disconnect(client);
  return failed;
}
