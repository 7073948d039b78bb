/*
 * A producer that knows only the stubs which protoc-c generates; libringback carries them. Run by test_client.py:
 *
 *   stub_client HOST:PORT BUCKET
 *
 * activates a feature, submits jobs from several threads through one service, reads one back, and sees that an error
 * arrives as a NULL response with its reason in ringback_last_error. Prints the jobs' ids; exits with 1 when anything
 * is not as it should be.
 */
#include "client/lib/ringback.h"
#include "ringback/v1/job.pb-c.h"
#include "ringback/v1/queue.pb-c.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4
#define JOBS_A_THREAD 25

static ProtobufCService *queues, *jobs;
static char bucket[80];
static char ids[THREADS][JOBS_A_THREAD][40];

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, ringback_last_error()->message);
  exit(1);
}

static void activated(const Ringback__V1__ActivateFeaturesResponse *response, void *data) {
  (void)data;
  if (response == NULL || response->n_queues != 1)
    fail("ActivateFeatures");
}

static void submitted(const Ringback__V1__SubmitJobResponse *response, void *id) {
  if (response == NULL)
    fail("SubmitJob");
  snprintf(id, 40, "%s", response->job->id);
}

static void *submit(void *thread) {
  int number = *(int *)thread;
  for (int i = 0; i < JOBS_A_THREAD; i++) {
    Ringback__V1__DefaultQueue target = RINGBACK__V1__DEFAULT_QUEUE__INIT;
    target.bucket = bucket;
    target.feature = RINGBACK__V1__FEATURE__FEATURE_SPEECH;
    Ringback__V1__JobSpec spec = RINGBACK__V1__JOB_SPEC__INIT;
    spec.tag = (char *)"SpeechRecognition";
    Ringback__V1__SubmitJobRequest request = RINGBACK__V1__SUBMIT_JOB_REQUEST__INIT;
    request.target_case = RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_DEFAULT_QUEUE;
    request.default_queue = &target;
    request.job = &spec;
    ringback__v1__job_service__submit_job(jobs, &request, submitted, ids[number][i]);
  }
  return NULL;
}

static void got(const Ringback__V1__GetJobsResponse *response, void *id) {
  if (response == NULL || response->n_jobs != 1 || strcmp(response->jobs[0]->id, id) != 0)
    fail("GetJobs");
}

static void refused(const Ringback__V1__GetQueueResponse *response, void *called) {
  *(int *)called = 1;
  if (response != NULL || ringback_last_error()->code != RINGBACK_NOT_FOUND)
    fail("a queue that does not exist");
}

static void refused_stream(const Ringback__V1__WatchJobsResponse *response, void *called) {
  *(int *)called = 1;
  if (response != NULL || ringback_last_error()->code != RINGBACK_INVALID_ARGUMENT ||
      ringback_last_error()->violation_count == 0)
    fail("a stream of no bucket");
}

static void see_errors(void) {
  int called = 0;
  char name[128];
  Ringback__V1__GetQueueRequest request = RINGBACK__V1__GET_QUEUE_REQUEST__INIT;
  snprintf(name, sizeof name, "%s/queues/none", bucket);
  request.name = name;
  ringback__v1__queue_service__get_queue(queues, &request, refused, &called);
  if (!called)
    fail("the closure of GetQueue");
  called = 0;
  Ringback__V1__WatchJobsRequest watch = RINGBACK__V1__WATCH_JOBS_REQUEST__INIT;
  watch.bucket = (char *)"nonsense";
  ringback__v1__job_service__watch_jobs(jobs, &watch, refused_stream, &called);
  if (!called)
    fail("the closure of WatchJobs");
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  struct ringback_error error;
  struct ringback_client *client = ringback_connect(argv[1], NULL, &error);
  if (client == NULL) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  snprintf(bucket, sizeof bucket, "buckets/%s", argv[2]);
  queues = ringback_service(client, &ringback__v1__queue_service__descriptor);
  jobs = ringback_service(client, &ringback__v1__job_service__descriptor);

  Ringback__V1__Feature feature = RINGBACK__V1__FEATURE__FEATURE_SPEECH;
  Ringback__V1__ActivateFeaturesRequest activate = RINGBACK__V1__ACTIVATE_FEATURES_REQUEST__INIT;
  activate.bucket = bucket;
  activate.n_features = 1;
  activate.features = &feature;
  ringback__v1__queue_service__activate_features(queues, &activate, activated, NULL);

  pthread_t threads[THREADS];
  int numbers[THREADS];
  for (int i = 0; i < THREADS; i++) {
    numbers[i] = i;
    if (pthread_create(&threads[i], NULL, submit, &numbers[i]) != 0)
      return 1;
  }
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);

  char *first = ids[0][0];
  Ringback__V1__GetJobsRequest get = RINGBACK__V1__GET_JOBS_REQUEST__INIT;
  get.bucket = bucket;
  get.n_job_ids = 1;
  get.job_ids = &first;
  ringback__v1__job_service__get_jobs(jobs, &get, got, first);
  see_errors();
  for (int i = 0; i < THREADS; i++)
    for (int j = 0; j < JOBS_A_THREAD; j++)
      puts(ids[i][j]);
  protobuf_c_service_destroy(queues);
  protobuf_c_service_destroy(jobs);
  ringback_disconnect(client);
  return 0;
}
