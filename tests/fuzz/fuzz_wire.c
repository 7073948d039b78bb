/* Requests from outside: what the wire check lets through, protobuf-c unpacks without harm and can pack again. */
// libraries: ringback_rpc
#include "ringback/v1/callback.pb-c.h"
#include "ringback/v1/job.pb-c.h"
#include "ringback/v1/queue.pb-c.h"
#include "ringback/v1/worker.pb-c.h"
#include "server/rpc/wire_check.h"

#include <assert.h>

static const ProtobufCMessageDescriptor *const requests[] = {
    &ringback__v1__submit_jobs_request__descriptor,  &ringback__v1__list_jobs_request__descriptor,
    &ringback__v1__finish_jobs_request__descriptor,  &ringback__v1__update_queue_request__descriptor,
    &ringback__v1__lease_jobs_request__descriptor,   &ringback__v1__update_callback_rule_request__descriptor,
    &ringback__v1__renew_leases_request__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte chooses the message. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  const ProtobufCMessageDescriptor *descriptor = requests[data[0] % (sizeof requests / sizeof requests[0])];
  struct arena *arena = arena_create();
  struct wire_problem problem;
  if (wire_check(descriptor, data + 1, size - 1, arena, &problem)) {
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, arena_allocator(arena), size - 1, data + 1);
    if (message) {
      size_t packed = protobuf_c_message_get_packed_size(message);
      void *again = arena_alloc(arena, packed + 1);
      assert(protobuf_c_message_pack(message, again) == packed);
      assert(wire_check(descriptor, again, packed, arena, &problem));
    }
  } else {
    assert(problem.path && problem.description);
  }
  arena_destroy(arena);
  return 0;
}
