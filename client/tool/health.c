/*
 * `ringback health`, for probes, and `ringback version`.
 */
#include "client/tool/commands.h"
#include "client/tool/json.h"
#include "client/tool/output.h"
#include "grpc/health/v1/health.pb-c.h"

#define HEALTH_TIMEOUT_MS 5000

const struct option_row health_options[] = {
    {.name = "service",
     .kind = OPTION_TEXT,
     .value = "NAME",
     .help = "a service such as ringback.v1.JobService; else the server"},
    {.name = NULL},
};

int command_health(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
  request.service = (char *)tool_text(tool, "service", "");
  tool->timeout_ms = tool->timeout_ms > 0 ? tool->timeout_ms : HEALTH_TIMEOUT_MS;
  struct ringback_call_options options = {.repeat_never = true};
  struct ringback_error error;
  Grpc__Health__V1__HealthCheckResponse *response =
      ringback_call(tool_client(tool), "/grpc.health.v1.Health/Check", &request.base, &options, &error);
  if (response == NULL) {
    tool_call_failed(&error);
    return TOOL_FAILED;
  }
  bool serving = response->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
  if (tool->json)
    tool_print_json(&response->base);
  else
    puts(serving ? "serving" : "not serving");
  ringback_free(&response->base);
  return serving ? TOOL_OK : TOOL_FAILED;
}

int command_version(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  if (tool->json)
    json_print(json_pack("{s:s}", "version", RINGBACK_VERSION));
  else
    puts("ringback " RINGBACK_VERSION);
  return TOOL_OK;
}
