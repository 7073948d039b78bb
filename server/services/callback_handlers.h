/* CallbackService's handlers, which stand in several files; callback_service.c has the table. */
#ifndef RINGBACK_SERVER_SERVICES_CALLBACK_HANDLERS_H
#define RINGBACK_SERVER_SERVICES_CALLBACK_HANDLERS_H

#include "ringback/v1/callback.pb-c.h"
#include "server/callback/signature.h"
#include "server/services/services.h"
#include "server/services/validate.h"

/* How often a parked call looks unasked, should a notification be lost. */
#define CALLBACK_LOOK_MS (2 * SECOND_MS)
/* A parked call is answered so long before its caller's deadline. */
#define ANSWER_MARGIN_MS 250

struct callback_call {
  struct rpc_call *call;
  struct queue_name name;
  const char *queue_name; /* in full */
  const char *what;
  const ProtobufCMessageDescriptor *response; /* of the RPCs that answer with a rule in their first field */
  /* ListDeliveries */
  uint64_t token_hash;
  /* RotateSigningSecret */
  char secret[SIGNATURE_SECRET_SIZE];
  /* RedeliverCallbacks by id */
  char *const *ids;
  /* SendTestCallback */
  const char *delivery_id;
  /* SendTestCallback, UpdateCallbackRule: until when to wait, and for what */
  uint64_t wait_key;
  int64_t until_ms;
  /* UpdateCallbackRule: that the update made; 0: not known yet */
  int64_t epoch;
};

struct callback_call *callback_begin(struct check *check, struct rpc_call *call, const struct field *field,
                                     const char *queue_name);

/* callback_rule.c */
void get_callback_rule(struct rpc_call *call, const ProtobufCMessage *message);
void update_callback_rule(struct rpc_call *call, const ProtobufCMessage *message);
void update_callback_rule_wake(struct rpc_call *call, enum rpc_wake why);
void rotate_signing_secret(struct rpc_call *call, const ProtobufCMessage *message);
void delete_callback_rule(struct rpc_call *call, const ProtobufCMessage *message);

#endif
