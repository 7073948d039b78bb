/*
 * The methods of the contract: descriptors come from the generated code, and one table says of each whether repeating
 * it is safe, as the comments of the .proto files do. A method that is missing in the table is never repeated.
 */
#include "client/lib/methods.h"
#include "grpc/health/v1/health.pb-c.h"
#include "ringback/v1/callback.pb-c.h"
#include "ringback/v1/job.pb-c.h"
#include "ringback/v1/queue.pb-c.h"
#include "ringback/v1/worker.pb-c.h"
#include <string.h>

static const ProtobufCServiceDescriptor *const services[] = {
    &ringback__v1__queue_service__descriptor,  &ringback__v1__job_service__descriptor,
    &ringback__v1__worker_service__descriptor, &ringback__v1__callback_service__descriptor,
    &grpc__health__v1__health__descriptor,
};

static const struct {
  const char *path;
  enum method_repeat repeat;
  bool streaming;
} method_rows[] = {
    {"/ringback.v1.QueueService/ActivateFeatures", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.QueueService/CreateQueue", METHOD_REPEAT_NEVER, false},
    {"/ringback.v1.QueueService/GetQueue", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.QueueService/ListQueues", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.QueueService/UpdateQueue", METHOD_REPEAT_WITHOUT_ETAG, false},
    {"/ringback.v1.QueueService/PauseQueue", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.QueueService/ResumeQueue", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.QueueService/PurgeQueue", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.QueueService/DeleteQueue", METHOD_REPEAT_NEVER, false},
    {"/ringback.v1.JobService/SubmitJob", METHOD_REPEAT_WITH_REQUEST_ID, false},
    {"/ringback.v1.JobService/SubmitJobs", METHOD_REPEAT_WITH_REQUEST_ID, false},
    {"/ringback.v1.JobService/GetJobs", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.JobService/ListJobs", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.JobService/CancelJobs", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.JobService/RetryJobs", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.JobService/ChangePriority", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.JobService/WatchJobs", METHOD_REPEAT_NEVER, true},
    {"/ringback.v1.JobService/ExplainJob", METHOD_REPEAT_ALWAYS, false},
    /* A repetition may leave a lease that nobody knows of: whoever leases decides. */
    {"/ringback.v1.WorkerService/LeaseJobs", METHOD_REPEAT_NEVER, false},
    {"/ringback.v1.WorkerService/RenewLeases", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.WorkerService/FinishJobs", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.WorkerService/ReleaseJobs", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.WorkerService/Work", METHOD_REPEAT_NEVER, true},
    {"/ringback.v1.CallbackService/GetCallbackRule", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.CallbackService/UpdateCallbackRule", METHOD_REPEAT_WITHOUT_ETAG, false},
    {"/ringback.v1.CallbackService/DeleteCallbackRule", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.CallbackService/SendTestCallback", METHOD_REPEAT_NEVER, false},
    {"/ringback.v1.CallbackService/ListDeliveries", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.CallbackService/GetDelivery", METHOD_REPEAT_ALWAYS, false},
    {"/ringback.v1.CallbackService/RedeliverCallbacks", METHOD_REPEAT_NEVER, false},
    {"/ringback.v1.CallbackService/RotateSigningSecret", METHOD_REPEAT_NEVER, false},
    {"/grpc.health.v1.Health/Check", METHOD_REPEAT_ALWAYS, false},
    {"/grpc.health.v1.Health/Watch", METHOD_REPEAT_NEVER, true},
};

static const ProtobufCMethodDescriptor *method_descriptor(const char *path) {
  const char *slash = path[0] == '/' ? strchr(path + 1, '/') : NULL;
  if (slash == NULL)
    return NULL;
  size_t length = (size_t)(slash - path) - 1;
  for (size_t i = 0; i < sizeof services / sizeof *services; i++)
    if (strlen(services[i]->name) == length && memcmp(services[i]->name, path + 1, length) == 0)
      return protobuf_c_service_descriptor_get_method_by_name(services[i], slash + 1);
  return NULL;
}

bool method_find(const char *path, struct method *method) {
  const ProtobufCMethodDescriptor *descriptor = method_descriptor(path);
  if (descriptor == NULL)
    return false;
  *method = (struct method){descriptor->input, descriptor->output, METHOD_REPEAT_NEVER, false};
  for (size_t i = 0; i < sizeof method_rows / sizeof *method_rows; i++)
    if (strcmp(method_rows[i].path, path) == 0) {
      method->repeat = method_rows[i].repeat;
      method->streaming = method_rows[i].streaming;
    }
  return true;
}

/* Whether a message that the request holds directly (the queue or the rule to update) has a non-empty etag. */
static bool request_has_etag(const ProtobufCMessage *request) {
  for (unsigned i = 0; i < request->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *field = &request->descriptor->fields[i];
    if (field->type != PROTOBUF_C_TYPE_MESSAGE || field->label == PROTOBUF_C_LABEL_REPEATED)
      continue;
    const ProtobufCMessage *part = *(ProtobufCMessage *const *)((const char *)request + field->offset);
    const ProtobufCFieldDescriptor *etag =
        part == NULL ? NULL : protobuf_c_message_descriptor_get_field_by_name(part->descriptor, "etag");
    const char *text = etag == NULL ? NULL : *(char *const *)((const char *)part + etag->offset);
    if (text != NULL && text[0] != '\0')
      return true;
  }
  return false;
}

bool method_may_repeat(const struct method *method, const ProtobufCMessage *request) {
  switch (method->repeat) {
  case METHOD_REPEAT_ALWAYS:
  case METHOD_REPEAT_WITH_REQUEST_ID:
    return true;
  case METHOD_REPEAT_WITHOUT_ETAG:
    return !request_has_etag(request);
  case METHOD_REPEAT_NEVER:
    return false;
  }
  return false;
}
