/*
 * The callbacks of a bench run: waits until those of the run's own queue have ended. Which are left is asked of the
 * server, newest first, so that a look is one short call until only the oldest are.
 */
#include "client/tool/bench.h"
#include "client/tool/output.h"
#include "ringback/v1/callback.pb-c.h"
#include <time.h>

#define LOOK_MS 50
#define NS_PER_MS 1000000
#define PAGE 100

#define STATE(name) RINGBACK__V1__DELIVERY_STATE__DELIVERY_STATE_##name

/* How many deliveries are in one of two states, or, from `enough` on, at least so many. -1: the call failed, which was
 * said. */
static int64_t count(struct tool *tool, const struct bench_queue *queue, Ringback__V1__DeliveryState one,
                     Ringback__V1__DeliveryState other, int64_t enough) {
  Ringback__V1__ListDeliveriesRequest request = RINGBACK__V1__LIST_DELIVERIES_REQUEST__INIT;
  Ringback__V1__DeliveryState states[] = {one, other};
  Ringback__V1__ListDeliveriesResponse *page = NULL;
  int64_t found = 0;
  int status = TOOL_OK;
  request.queue = (char *)queue->name;
  request.states = states;
  request.n_states = 2;
  request.page_size = enough < PAGE ? (int32_t)enough : PAGE;
  do {
    Ringback__V1__ListDeliveriesResponse *next =
        tool_call(tool, "/ringback.v1.CallbackService/ListDeliveries", &request.base, &status);
    ringback_free(page == NULL ? NULL : &page->base); /* it held the token that was just sent */
    page = next;
    if (page == NULL)
      return -1;
    found += (int64_t)page->n_deliveries;
    request.page_token = page->next_page_token;
  } while (page->next_page_token[0] != '\0' && found < enough);
  ringback_free(&page->base);
  return found;
}

bool bench_callbacks_wait(struct tool *tool, const struct bench_queue *queue, int64_t limit_ms,
                          struct bench_callbacks *callbacks) {
  const struct timespec step = {.tv_nsec = LOOK_MS * NS_PER_MS};
  int64_t start_ns = load_now_ns(), left = 0;
  *callbacks = (struct bench_callbacks){.ended = false};
  for (;;) {
    left = count(tool, queue, STATE(PENDING), STATE(SENDING), 1);
    int64_t waited_ms = (load_now_ns() - start_ns) / NS_PER_MS;
    callbacks->seconds = (double)waited_ms / 1e3;
    if (left <= 0 || waited_ms >= limit_ms || bench_signals_came())
      break;
    output_progress(tool, "waiting for the callbacks  %.1f s of at most %.0f s", callbacks->seconds,
                    (double)limit_ms / 1e3);
    nanosleep(&step, NULL);
  }
  output_progress_clear(tool);
  callbacks->ended = left == 0;
  callbacks->undelivered = left < 0 ? -1 : count(tool, queue, STATE(DEAD), STATE(SUPPRESSED), INT64_MAX);
  if (left > 0)
    tool_error("callbacks have not ended within %.1f s and are dropped with the queue", callbacks->seconds);
  else if (callbacks->undelivered > 0)
    tool_error("%lld of the latest callbacks were given up or suppressed", (long long)callbacks->undelivered);
  return callbacks->ended && callbacks->undelivered == 0;
}
