/*
 * libringback: calls a Ringback server from C.
 *
 * A client is one channel to one server (or one name with several addresses). Every RPC of the contract is called by
 * its full method name with the structs that protoc-c generates ("ringback/v1/job.pb-c.h"):
 *
 *   struct ringback_error error;
 *   struct ringback_client *client = ringback_connect("127.0.0.1:7080", NULL, &error);
 *   Ringback__V1__SubmitJobResponse *response =
 *       ringback_call(client, "/ringback.v1.JobService/SubmitJob", &request.base, NULL, &error);
 *   if (response == NULL) fprintf(stderr, "%s\n", error.message);
 *   ringback_free(&response->base);
 *
 * Threads: a client may be used by any number of threads at once, and so may a service made from it; one stream or one
 * response belongs to one thread at a time. Nothing here may be called from a signal handler.
 *
 * Repeating: a call that ends as UNAVAILABLE is made again, after a growing and jittered wait (or the one that the
 * server asks for), where the contract says that repeating is safe. SubmitJob and SubmitJobs are made safe: they get a
 * request_id when they have none.
 */
#ifndef RINGBACK_H
#define RINGBACK_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The canonical codes of gRPC. */
enum ringback_code {
  RINGBACK_OK = 0,
  RINGBACK_CANCELLED = 1,
  RINGBACK_UNKNOWN = 2,
  RINGBACK_INVALID_ARGUMENT = 3,
  RINGBACK_DEADLINE_EXCEEDED = 4,
  RINGBACK_NOT_FOUND = 5,
  RINGBACK_ALREADY_EXISTS = 6,
  RINGBACK_PERMISSION_DENIED = 7,
  RINGBACK_RESOURCE_EXHAUSTED = 8,
  RINGBACK_FAILED_PRECONDITION = 9,
  RINGBACK_ABORTED = 10,
  RINGBACK_OUT_OF_RANGE = 11,
  RINGBACK_UNIMPLEMENTED = 12,
  RINGBACK_INTERNAL = 13,
  RINGBACK_UNAVAILABLE = 14,
  RINGBACK_DATA_LOSS = 15,
  RINGBACK_UNAUTHENTICATED = 16,
};

/* "NOT_FOUND" for 5; "UNKNOWN" for what is no code. */
const char *ringback_code_name(int code);

#define RINGBACK_MESSAGE_BYTES 1024
#define RINGBACK_FIELD_BYTES 128
#define RINGBACK_DESCRIPTION_BYTES 256
#define RINGBACK_VIOLATIONS_MAX 16

/* A field that the server refused. Longer texts are cut. */
struct ringback_violation {
  char field[RINGBACK_FIELD_BYTES]; /* such as jobs[3].tag */
  char description[RINGBACK_DESCRIPTION_BYTES];
};

/* Why a call failed. It owns no memory. */
struct ringback_error {
  int code; /* enum ringback_code; RINGBACK_OK when nothing failed */
  char message[RINGBACK_MESSAGE_BYTES];
  char reason[RINGBACK_FIELD_BYTES]; /* google.rpc.ErrorInfo's, such as QUEUE_NOT_FOUND; may be empty */
  int64_t retry_delay_ms;            /* google.rpc.RetryInfo's; -1 when the server named none */
  size_t violation_count;            /* of google.rpc.BadRequest, at most RINGBACK_VIOLATIONS_MAX */
  struct ringback_violation violations[RINGBACK_VIOLATIONS_MAX];
};

/* Fills an error from a google.rpc.Status message, such as the one that each item of a batch is answered with. */
void ringback_error_from_status(struct ringback_error *error, const ProtobufCMessage *status);

struct ringback_client;

/* How to connect. Zero means the default everywhere. */
struct ringback_options {
  int64_t timeout_ms;           /* of a call whose own options name none; default 30,000 */
  int64_t connect_timeout_ms;   /* of one attempt to connect; default 5,000 */
  int64_t keepalive_ms;         /* between pings of a busy connection; default 300,000, the least that servers allow */
  int64_t keepalive_timeout_ms; /* how long a ping may go unanswered; default 20,000 */
  int attempts_max;       /* of a call that may be repeated; default 5, 1 never repeats, INT_MAX as its time allows */
  const char *user_agent; /* put before gRPC's own */
};

/* Makes a client of "HOST:PORT", "unix:PATH" or any other target that gRPC knows, without encryption. The connection is
 * made by the first call. NULL with *error filled (error may be NULL) where the target is empty. The client is
 * ended by ringback_disconnect, after every call and stream of it has ended; NULL does nothing. */
struct ringback_client *ringback_connect(const char *target, const struct ringback_options *options,
                                         struct ringback_error *error);
void ringback_disconnect(struct ringback_client *client);

/* Ends calls from another thread: every call that was given the canceller, now or later, ends as CANCELLED. It must
 * outlive its calls. */
struct ringback_canceller;
struct ringback_canceller *ringback_canceller_create(void);
void ringback_canceller_destroy(struct ringback_canceller *canceller);
void ringback_cancel(struct ringback_canceller *canceller);

/* How to call. Zero means the default everywhere. */
struct ringback_call_options {
  int64_t timeout_ms;  /* for the call with all its repetitions; default the client's; -1 none */
  bool wait_for_ready; /* wait for a connection instead of failing with UNAVAILABLE while there is none */
  bool repeat_never;   /* do not repeat even where that is safe */
  struct ringback_canceller *canceller; /* may be NULL */
  /* Called by the calling thread before it waits to make the call again: why, and how many milliseconds are left for
   * the call as a whole (-1: no end). May be NULL. */
  void (*on_repeat)(void *context, const struct ringback_error *error, int64_t left_ms);
  void *context; /* handed to on_repeat */
};

/* Calls a unary method by its path, "/ringback.v1.JobService/SubmitJob", and blocks until the answer is there. Returns
 * the response, a message of the method's output type for the caller to free with ringback_free; or NULL with *error
 * filled (error may be NULL). options may be NULL. An unknown method is UNIMPLEMENTED; a request of another type is a
 * programmer's error and asserted. The request stays as it was and belongs to the caller. */
void *ringback_call(struct ringback_client *client, const char *path, const ProtobufCMessage *request,
                    const struct ringback_call_options *options, struct ringback_error *error);

/* Frees a response; NULL does nothing. */
void ringback_free(ProtobufCMessage *message);

struct ringback_stream;

enum ringback_stream_status {
  RINGBACK_STREAM_MESSAGE, /* *message is the next one, for the caller to free with ringback_free */
  RINGBACK_STREAM_END,     /* the stream has ended; *error says how, RINGBACK_OK included */
  RINGBACK_STREAM_TIMEOUT, /* nothing came in time; the stream goes on */
};

/* Calls a method whose answer is a stream. NULL with *error filled where the method is unknown; whether the server can
 * be reached shows at the first ringback_stream_next. timeout_ms of the options, if given, is for the whole stream; the
 * default is none. */
struct ringback_stream *ringback_stream_open(struct ringback_client *client, const char *path,
                                             const ProtobufCMessage *request,
                                             const struct ringback_call_options *options, struct ringback_error *error);
/* Waits up to timeout_ms for the next message (-1: however long it takes). */
enum ringback_stream_status ringback_stream_next(struct ringback_stream *stream, int64_t timeout_ms,
                                                 ProtobufCMessage **message, struct ringback_error *error);
/* Cancels the stream if it goes on, and frees it; NULL does nothing. */
void ringback_stream_close(struct ringback_stream *stream);

/* --- working: jobs as they come, over one stream (WorkerService.Work) ---
 *
 *   static void on_job(void *context, struct ringback_work *work, const ProtobufCMessage *leased_job) {
 *     const Ringback__V1__LeasedJob *leased = (const Ringback__V1__LeasedJob *)leased_job;
 *     ... do it, here or in a thread of your own, and then fill a Ringback__V1__FinishedJob ...
 *     ringback_work_finish(work, &finished.base);
 *   }
 *
 *   struct ringback_work_options options = {.queues = queues, .queue_count = 1, .jobs_max = 8, .on_job = on_job};
 *   struct ringback_work *work = ringback_work_create(client, &options, &error);
 *   ringback_work_run(work, &error);
 *   ringback_work_destroy(work);
 *
 * Leases are renewed, and streams that break are opened again, without the caller's doing; outcomes that were not
 * answered are said again. Outcomes and new credit leave in one message with whatever else there is to say.
 *
 * Threads: ringback_work_run keeps the thread that calls it, and calls every callback on it, one at a time: a callback
 * that takes long keeps leases from being renewed, so hand jobs that take long to other threads. Finishing, releasing,
 * progress, draining and stopping may be called by any thread at any time between create and destroy, callbacks
 * included. No lock is held while a callback runs. */
struct ringback_work;

struct ringback_work_options {
  const char *const *queues; /* buckets/{bucket}/queues/{queue}, 1 to 100 of one bucket, the more important first */
  size_t queue_count;
  const char *worker; /* who works; may be NULL */
  int64_t lease_ms;   /* 0: the job's or queue's */
  size_t jobs_max;    /* in hand at once, 1 to 1,000; 0 means 1 */
  int64_t jobs_total; /* drain by itself after so many; 0: no end */
  bool keep_leases;   /* as WorkOpen says */
  void *context;      /* handed to the callbacks */
  /* A job, a Ringback__V1__LeasedJob that lives until the callback returns. Required. */
  void (*on_job)(void *context, struct ringback_work *work, const ProtobufCMessage *leased_job);
  /* The job is no longer ours: stop working on it and do not finish it. reason is a Ringback__V1__StopReason. Optional.
   */
  void (*on_stop)(void *context, struct ringback_work *work, const char *job_id, int64_t fencing_token, int reason);
  /* What became of a finish (state is a Ringback__V1__JobState) or a release (state 0). After INVALID_ARGUMENT the job
   * is still in hand, to be finished differently; otherwise it is done with. Optional. */
  void (*on_result)(void *context, struct ringback_work *work, const char *job_id, int64_t fencing_token, int state,
                    const struct ringback_error *error);
  /* The stream has ended and is opened again in a while. Optional. */
  void (*on_trouble)(void *context, struct ringback_work *work, const struct ringback_error *error);
};

/* Copies the options. NULL with *error filled (error may be NULL) where there is no queue or no on_job, or jobs_max is
 * too large. The client must outlive it. */
struct ringback_work *ringback_work_create(struct ringback_client *client, const struct ringback_work_options *options,
                                           struct ringback_error *error);
/* After ringback_work_run has returned; NULL does nothing. */
void ringback_work_destroy(struct ringback_work *work);

/* Works until it was drained and every job is done with, or stopped: true. False with *error filled when the service
 * refuses the stream for a reason that will not pass, such as an unknown queue. To be called once. */
bool ringback_work_run(struct ringback_work *work, struct ringback_error *error);

/* Ends a job with a Ringback__V1__FinishedJob, which is copied. False when that lease is not in hand (any more). */
bool ringback_work_finish(struct ringback_work *work, const ProtobufCMessage *finished_job);
/* Gives a job back, its attempt uncounted. False as above. */
bool ringback_work_release(struct ringback_work *work, const char *job_id, int64_t fencing_token);
/* Lets go of a job without saying so, also of an outcome that was not answered: for whoever has told it otherwise or
 * gives up telling it, so that draining does not wait for it. Without an outcome its lease runs out. False as above. */
bool ringback_work_forget(struct ringback_work *work, const char *job_id, int64_t fencing_token);
/* 0 to 100; told at most once a second. False as above. */
bool ringback_work_progress(struct ringback_work *work, const char *job_id, int64_t fencing_token, int progress);
/* Takes no more jobs; ringback_work_run returns when those in hand are done with. An outcome that no service takes is
 * in hand until it is forgotten. */
void ringback_work_drain(struct ringback_work *work);
/* Ends the stream now: the service gives back what is in hand. */
void ringback_work_stop(struct ringback_work *work);

/* A ProtobufCService for the stubs that protoc-c generates:
 *
 *   ProtobufCService *service = ringback_service(client, &ringback__v1__job_service__descriptor);
 *   ringback__v1__job_service__submit_job(service, &request, closure, data);
 *   protobuf_c_service_destroy(service);
 *
 * The stub blocks and calls the closure before it returns: with the response, which is freed after the closure; or with
 * NULL, and then ringback_last_error says why. For a method that answers with a stream the closure is called with each
 * message and at the end with NULL. The service must be destroyed before its client. NULL when memory is short. */
ProtobufCService *ringback_service(struct ringback_client *client, const ProtobufCServiceDescriptor *descriptor);

/* The error of the calling thread's latest call through a service; RINGBACK_OK when that went well. Valid until the
 * thread's next call through one. */
const struct ringback_error *ringback_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
