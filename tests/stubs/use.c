/* Uses the generated C stubs: a request is packed and read again, and the services describe their methods. */
#include "ringback/v1/job.pb-c.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  Google__Protobuf__Duration lease = GOOGLE__PROTOBUF__DURATION__INIT;
  lease.seconds = 30;
  Ringback__V1__JobSpec job = RINGBACK__V1__JOB_SPEC__INIT;
  job.tag = "C";
  job.lease = &lease;
  Ringback__V1__SubmitJobRequest request = RINGBACK__V1__SUBMIT_JOB_REQUEST__INIT;
  request.target_case = RINGBACK__V1__SUBMIT_JOB_REQUEST__TARGET_QUEUE;
  request.queue = "buckets/c/queues/queue-1";
  request.job = &job;

  size_t size = ringback__v1__submit_job_request__get_packed_size(&request);
  uint8_t *bytes = malloc(size);
  assert(bytes != NULL && ringback__v1__submit_job_request__pack(&request, bytes) == size);
  Ringback__V1__SubmitJobRequest *read = ringback__v1__submit_job_request__unpack(NULL, size, bytes);
  assert(read != NULL && strcmp(read->queue, request.queue) == 0 && strcmp(read->job->tag, "C") == 0);
  assert(read->job->lease->seconds == 30);
  assert(protobuf_c_service_descriptor_get_method_by_name(&ringback__v1__job_service__descriptor, "SubmitJob") != NULL);
  ringback__v1__submit_job_request__free_unpacked(read, NULL);
  free(bytes);
  return 0;
}
