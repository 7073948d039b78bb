/* The commands of the tool and their tables of options; each pair lives in the file of its noun. */
#ifndef RINGBACK_CLIENT_TOOL_COMMANDS_H
#define RINGBACK_CLIENT_TOOL_COMMANDS_H

#include "client/tool/options.h"
#include "ringback/v1/callback.pb-c.h"

extern const struct grammar tool_grammar;

/* queue.c */
extern const struct option_row activate_options[], queue_create_options[], queue_list_options[], queue_update_options[],
    queue_delete_options[];
int command_activate(struct tool *tool, int argc, char **argv);
int command_queue_create(struct tool *tool, int argc, char **argv);
int command_queue_list(struct tool *tool, int argc, char **argv);
int command_queue_show(struct tool *tool, int argc, char **argv);
int command_queue_update(struct tool *tool, int argc, char **argv);
int command_queue_pause(struct tool *tool, int argc, char **argv);
int command_queue_resume(struct tool *tool, int argc, char **argv);
int command_queue_purge(struct tool *tool, int argc, char **argv);
int command_queue_delete(struct tool *tool, int argc, char **argv);

/* submit.c */
extern const struct option_row job_submit_options[];
int command_job_submit(struct tool *tool, int argc, char **argv);

/* job.c */
extern const struct option_row job_get_options[], job_list_options[], job_explain_options[], job_priority_options[];
int command_job_get(struct tool *tool, int argc, char **argv);
int command_job_list(struct tool *tool, int argc, char **argv);
int command_job_explain(struct tool *tool, int argc, char **argv);
int command_job_priority(struct tool *tool, int argc, char **argv);

/* change.c */
extern const struct option_row job_cancel_options[], job_retry_options[];
int command_job_cancel(struct tool *tool, int argc, char **argv);
int command_job_retry(struct tool *tool, int argc, char **argv);

/* watch.c */
extern const struct option_row job_watch_options[];
int command_job_watch(struct tool *tool, int argc, char **argv);

/* callback_rule.c */
extern const struct option_row callback_set_options[], callback_off_options[], callback_rotate_options[];
/* seed, current, json; NULL-ended. */
extern const char *const callback_formats[];
/* The queue's rule, to be freed; NULL after printing what is wrong. */
Ringback__V1__GetCallbackRuleResponse *callback_get_rule(struct tool *tool, char *queue, int *status);
int command_callback_set(struct tool *tool, int argc, char **argv);
int command_callback_show(struct tool *tool, int argc, char **argv);
int command_callback_rotate(struct tool *tool, int argc, char **argv);
int command_callback_off(struct tool *tool, int argc, char **argv);

/* callback.c */
extern const struct option_row callback_deliveries_options[];
#define CALLBACK_ERROR_CLASSES_MAX 16
extern const char *const callback_error_classes[CALLBACK_ERROR_CLASSES_MAX + 1];
/* Those of --error-class, which is one of the command's options; how many. */
size_t callback_given_error_classes(const struct tool *tool, char *classes[CALLBACK_ERROR_CLASSES_MAX]);
/* Why a delivery that waits is not sent when its time comes, such as "rule off"; "" where nothing holds it. `rule` is
 * the one of its queue, or NULL. The text is valid until the next call. */
const char *callback_hold(const Ringback__V1__Delivery *delivery, const Ringback__V1__CallbackRule *rule);
int command_callback_test(struct tool *tool, int argc, char **argv);
int command_callback_show_delivery(struct tool *tool, int argc, char **argv);
int command_callback_deliveries(struct tool *tool, int argc, char **argv);

/* redeliver.c */
extern const struct option_row callback_redeliver_options[];
int command_callback_redeliver(struct tool *tool, int argc, char **argv);

/* listen.c */
extern const struct option_row listen_options[];
int command_listen(struct tool *tool, int argc, char **argv);

/* health.c */
extern const struct option_row health_options[];
int command_health(struct tool *tool, int argc, char **argv);
int command_version(struct tool *tool, int argc, char **argv);

/* completion.c */
int command_completion(struct tool *tool, int argc, char **argv);

#endif
