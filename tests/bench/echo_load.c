/*
 * echo_load --server HOST:PORT [--json] [options of `ringback bench submit`]: loads the echo service (tests/rpc) as
 * `ringback bench submit` loads a server: the same generator, options, report, and size of a request. What differs
 * between the two is then the servers.
 */
#include "client/lib/wire.h"
#include "client/tool/bench.h"
#include "client/tool/commands.h"
#include <stdlib.h>
#include <string.h>

#define PAYLOAD_FIELD 2 /* of EchoRequest */

struct echo {
  uint8_t *request;
  size_t request_bytes;
};

static size_t echo_request_bytes(void *context, uint64_t first, unsigned items) {
  (void)first, (void)items;
  return ((const struct echo *)context)->request_bytes;
}

static void echo_request_write(void *context, uint64_t first, unsigned items, int64_t due_ns, uint8_t *bytes) {
  const struct echo *echo = context;
  (void)first, (void)items, (void)due_ns;
  memcpy(bytes, echo->request, echo->request_bytes);
}

/* The echo answers with the same field. */
static unsigned echo_answered(void *context, uint64_t first, unsigned items, int code, const uint8_t *bytes,
                              size_t byte_count) {
  const struct echo *echo = context;
  (void)first;
  bool same = byte_count == echo->request_bytes && memcmp(bytes, echo->request, byte_count) == 0;
  return code == RINGBACK_OK && same ? items : 0;
}

/* A request of as many bytes as SubmitJob's to a queue of bench's own. */
static bool echo_init(struct echo *echo, const struct bench_settings *settings) {
  struct bench_jobs *jobs = bench_jobs_create("buckets/bench-0123456789abcdef/queues/bench", settings);
  if (jobs == NULL)
    return false;
  struct load_calls calls = {0};
  bench_jobs_calls(jobs, &calls);
  echo->request_bytes = calls.request_bytes(jobs, 0, 1);
  bench_jobs_destroy(jobs);
  echo->request = malloc(echo->request_bytes + WIRE_VARINT_BYTES_MAX);
  uint8_t *payload = malloc(echo->request_bytes);
  if (echo->request == NULL || payload == NULL) {
    free(payload);
    return false;
  }
  memset(payload, 'x', echo->request_bytes);
  size_t payload_bytes = echo->request_bytes - 2;
  while (1 + wire_varint_bytes(payload_bytes) + payload_bytes > echo->request_bytes)
    payload_bytes--;
  echo->request_bytes = (size_t)(wire_put_bytes(echo->request, PAYLOAD_FIELD, payload, payload_bytes) - echo->request);
  free(payload);
  return true;
}

static int command_echo(struct tool *tool, int argc, char **argv) {
  (void)argc, (void)argv;
  struct bench_settings settings;
  struct echo echo = {0};
  struct bench_run *run = malloc(sizeof *run);
  bench_settings_read(tool, &bench_settings_default, &settings);
  int status = TOOL_FAILED;
  if (run != NULL && echo_init(&echo, &settings)) {
    bench_signals_take();
    bench_run_init(run, tool, &settings);
    run->unit = "calls";
    run->options.calls = (struct load_calls){.path = "/ringback.test.v1.Echo/Unary",
                                             .in_flight = settings.in_flight,
                                             .items = 1,
                                             .rate = (double)settings.rate,
                                             .items_max = settings.count,
                                             .context = &echo,
                                             .request_bytes = echo_request_bytes,
                                             .request_write = echo_request_write,
                                             .answered = echo_answered};
    status = bench_run_go(run);
    if (run->end != LOAD_END_FAILED)
      bench_report(run, NULL, NULL, true, NULL);
    if (run->figures.failed > 0 || run->figures.call_items != run->figures.calls)
      status = status == TOOL_OK ? TOOL_FAILED : status;
  }
  free(echo.request);
  free(run);
  return status;
}

static const struct command_row commands[] = {
    {"echo", "", 0, 0, "Loads the echo service", NULL, bench_submit_options, command_echo},
    {.name = NULL},
};
static const struct command_group groups[] = {{NULL, NULL}};

int main(int argc, char **argv) {
  static struct tool tool;
  const struct grammar grammar = {commands, groups, tool_grammar.globals, tool_grammar.hints};
  struct options_result result;
  char **words = calloc((size_t)argc + 2, sizeof *words);
  if (words == NULL)
    return TOOL_FAILED;
  words[0] = argv[0];
  words[1] = (char *)"echo";
  memcpy(&words[2], &argv[1], (size_t)(argc - 1) * sizeof *words);
  enum options_status parsed = options_parse(&grammar, argc + 1, words, &tool, &result);
  int status = parsed == OPTIONS_HELP ? TOOL_OK : TOOL_USAGE;
  if (parsed == OPTIONS_HELP)
    help_print_command(stdout, &grammar, &commands[0]);
  else if (parsed == OPTIONS_WRONG)
    tool_error("%s", result.problem);
  else if (!tool_given(&tool, "server") || tool_given(&tool, "batch") || tool_given(&tool, "queue"))
    tool_error("--server is needed, and --batch and --queue have no meaning");
  else {
    tool.server = tool_text(&tool, "server", NULL);
    tool.json = tool_given(&tool, "json");
    tool.timeout_ms = tool_number(&tool, "timeout", 0);
    status = tool.command->run(&tool, result.operand_count, result.operands);
  }
  free(words);
  return status;
}
