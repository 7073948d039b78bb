/* Server reflection, so that tools need no .proto: v1, and v1alpha, whose messages are the same bytes under another
 * package, so both are served by one implementation in terms of v1.
 *
 * A stream that asks; each question is answered before the next one is read.
 */
#include <string.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "server/rpc/bridge.h"
#include "server/rpc/errors.h"

#define FILES_PER_ANSWER_MAX 64

struct rpc_reflection {
  struct descriptor_pool *pool;
  const char *const *names;
  size_t name_count;
};

struct rpc_reflection *reflection_create(struct rpc_server *server, const char *const *service_names, size_t count) {
  struct rpc_reflection *reflection = ARENA_NEW(server->arena, struct rpc_reflection);
  reflection->pool = server->descriptors;
  reflection->names = arena_copy(server->arena, service_names, count * sizeof *service_names);
  reflection->name_count = count;
  return reflection;
}

static void answer_error(struct arena *arena, Grpc__Reflection__V1__ServerReflectionResponse *response,
                         enum rpc_code code, const char *what, const char *name) {
  Grpc__Reflection__V1__ErrorResponse *error = ARENA_NEW(arena, Grpc__Reflection__V1__ErrorResponse);
  grpc__reflection__v1__error_response__init(error);
  error->error_code = (int)code;
  error->error_message = arena_printf(arena, "%s %.200s", what, name);
  response->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
  response->error_response = error;
}

static void answer_services(struct arena *arena, Grpc__Reflection__V1__ServerReflectionResponse *response,
                            const struct rpc_reflection *reflection) {
  Grpc__Reflection__V1__ListServiceResponse *list = ARENA_NEW(arena, Grpc__Reflection__V1__ListServiceResponse);
  grpc__reflection__v1__list_service_response__init(list);
  list->service = ARENA_ARRAY(arena, Grpc__Reflection__V1__ServiceResponse *, reflection->name_count);
  list->n_service = reflection->name_count;
  for (size_t i = 0; i < reflection->name_count; i++) {
    list->service[i] = ARENA_NEW(arena, Grpc__Reflection__V1__ServiceResponse);
    grpc__reflection__v1__service_response__init(list->service[i]);
    list->service[i]->name = (char *)(uintptr_t)reflection->names[i];
  }
  response->message_response_case =
      GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
  response->list_services_response = list;
}

/* The file, and after it every file it imports, however indirectly; each once. */
static void answer_file(struct arena *arena, Grpc__Reflection__V1__ServerReflectionResponse *response,
                        const struct rpc_reflection *reflection, const struct descriptor_file *file) {
  const struct descriptor_file *files[FILES_PER_ANSWER_MAX] = {file};
  size_t count = 1;
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < files[i]->proto->n_dependency; k++) {
      const struct descriptor_file *import = descriptor_file_by_name(reflection->pool, files[i]->proto->dependency[k]);
      bool have = !import || count == FILES_PER_ANSWER_MAX;
      for (size_t j = 0; j < count && !have; j++)
        have = files[j] == import;
      if (!have)
        files[count++] = import;
    }
  }
  Grpc__Reflection__V1__FileDescriptorResponse *answer = ARENA_NEW(arena, Grpc__Reflection__V1__FileDescriptorResponse);
  grpc__reflection__v1__file_descriptor_response__init(answer);
  answer->file_descriptor_proto = ARENA_ARRAY(arena, ProtobufCBinaryData, count);
  answer->n_file_descriptor_proto = count;
  for (size_t i = 0; i < count; i++)
    answer->file_descriptor_proto[i] = (ProtobufCBinaryData){files[i]->size, (uint8_t *)(uintptr_t)files[i]->data};
  response->message_response_case =
      GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
  response->file_descriptor_response = answer;
}

static void answer_found(struct arena *arena, Grpc__Reflection__V1__ServerReflectionResponse *response,
                         const struct rpc_reflection *reflection, const struct descriptor_file *file,
                         const char *name) {
  if (file)
    answer_file(arena, response, reflection, file);
  else
    answer_error(arena, response, RPC_NOT_FOUND, "not found:", name);
}

/* There are no extensions in proto3: a known type has none. */
static void answer_extensions(struct arena *arena, Grpc__Reflection__V1__ServerReflectionResponse *response,
                              const struct rpc_reflection *reflection, const char *type) {
  if (!descriptor_file_by_symbol(reflection->pool, type)) {
    answer_error(arena, response, RPC_NOT_FOUND, "not found:", type);
    return;
  }
  Grpc__Reflection__V1__ExtensionNumberResponse *none = ARENA_NEW(arena, Grpc__Reflection__V1__ExtensionNumberResponse);
  grpc__reflection__v1__extension_number_response__init(none);
  none->base_type_name = (char *)(uintptr_t)type;
  response->message_response_case =
      GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
  response->all_extension_numbers_response = none;
}

static void answer(struct rpc_call *call, const ProtobufCMessage *message) {
  const Grpc__Reflection__V1__ServerReflectionRequest *request =
      (const Grpc__Reflection__V1__ServerReflectionRequest *)message;
  const struct rpc_server *server = rpc_thread(call);
  const struct rpc_reflection *reflection = server->reflection;
  struct arena *arena = arena_create();
  Grpc__Reflection__V1__ServerReflectionResponse response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
  response.valid_host = request->host;
  response.original_request = (Grpc__Reflection__V1__ServerReflectionRequest *)(uintptr_t)request;
  switch (request->message_request_case) {
  case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
    answer_services(arena, &response, reflection);
    break;
  case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
    answer_found(arena, &response, reflection, descriptor_file_by_name(reflection->pool, request->file_by_filename),
                 request->file_by_filename);
    break;
  case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
    answer_found(arena, &response, reflection,
                 descriptor_file_by_symbol(reflection->pool, request->file_containing_symbol),
                 request->file_containing_symbol);
    break;
  case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
    answer_error(arena, &response, RPC_NOT_FOUND,
                 "no extensions of:", request->file_containing_extension->containing_type);
    break;
  case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
    answer_extensions(arena, &response, reflection, request->all_extension_numbers_of_type);
    break;
  default:
    answer_error(arena, &response, RPC_INVALID_ARGUMENT, "the request asks for nothing", "");
  }
  rpc_pause_reading(call);
  rpc_send(call, &response.base);
  arena_destroy(arena);
}

static const struct rpc_method methods[] = {
    {.name = "ServerReflectionInfo", .message = answer, .half_closed = rpc_end, .writable = rpc_resume_reading}, {0}};

const struct rpc_service *reflection_service_v1(void) {
  static struct rpc_service service = {.methods = methods};
  service.descriptor = &grpc__reflection__v1__server_reflection__descriptor;
  return &service;
}

const struct rpc_service *reflection_service_v1alpha(void) {
  static ProtobufCServiceDescriptor descriptor;
  static struct rpc_service service = {.methods = methods};
  descriptor = grpc__reflection__v1alpha__server_reflection__descriptor;
  descriptor.methods = grpc__reflection__v1__server_reflection__descriptor.methods;
  service.descriptor = &descriptor;
  return &service;
}
