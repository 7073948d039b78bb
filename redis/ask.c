/* Waits with poll on the connection's descriptor; tries again when it is lost. */
#include "redis/ask.h"

#include <poll.h>

#include "server/base/clock.h"

enum { TURN_MS = 20 };

struct question {
  redis_reply_done *done;
  void *context;
  bool asked, answered;
};

static void take_answer(void *context, const struct redis_value *reply) {
  struct question *question = context;
  question->asked = false;
  if (!reply)
    return;
  question->answered = true;
  question->done(question->context, reply);
}

bool redis_ask(struct redis_connection *connection, int timeout_ms, const char *const *words, size_t count,
               redis_reply_done *done, void *context, const char **reason) {
  struct question question = {.done = done, .context = context};
  int64_t end_ms = clock_monotonic_us() / 1000 + timeout_ms;
  while (!question.answered && clock_monotonic_us() / 1000 < end_ms) {
    redis_connection_start(connection);
    if (!redis_connection_is_down(connection) && !question.asked) {
      question.asked = true;
      redis_command(connection, count, words, NULL, take_answer, &question);
    }
    redis_progress(connection);
    if (question.answered)
      break;
    struct pollfd fd = {.fd = redis_fd(connection), .events = POLLIN};
    if (redis_wants_write(connection))
      fd.events |= POLLOUT;
    poll(&fd, 1, TURN_MS);
  }
  *reason = "";
  if (question.answered)
    return true;
  /* Also takes back the command that points at this stack. */
  if (!redis_connection_is_down(connection))
    redis_connection_close(connection, "Redis does not answer");
  *reason = redis_connection_error(connection);
  return false;
}
