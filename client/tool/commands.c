/*
 * The table of the tool's commands. Parsing, help and completion come from here; what a command does, and its options,
 * stand in the file of its noun.
 */
#include "client/tool/commands.h"
#include "client/tool/bench.h"

static const struct option_row global_options[] = {
    {.name = "server",
     .kind = OPTION_TEXT,
     .value = "HOST:PORT",
     .help = "the server; else RINGBACK_SERVER, else 127.0.0.1:7080"},
    {.name = "bucket",
     .letter = 'b',
     .kind = OPTION_TEXT,
     .value = "BUCKET",
     .help = "the bucket of plain queue names and of jobs; else RINGBACK_BUCKET"},
    {.name = "json",
     .letter = 'j',
     .kind = OPTION_FLAG,
     .help = "print results as JSON, and errors as JSON on standard error"},
    {.name = "timeout",
     .kind = OPTION_DURATION,
     .value = "DURATION",
     .help = "how long one call may take, repetitions included (30s)",
     .low = 1,
     .high = 86400000},
    {.name = "version", .kind = OPTION_FLAG, .help = "print the version"},
    {.name = "help", .letter = 'h', .kind = OPTION_FLAG, .help = "tell how a command is used"},
    {.name = NULL},
};

static const struct command_group groups[] = {
    {"queue", "Creates, shows and manages queues"},
    {"job", "Submits jobs and manages them"},
    {"callback", "Says where queues call back, and shows what became of it"},
    {"bench", "Loads the server and measures it"},
    {NULL, NULL},
};

static const struct command_row commands[] = {
    {"activate", "[FEATURE...]", 0, 3,
     "Makes the default queues of features (media, speech, document; all without a name)",
     "Queues that are there already stay as they are. The bucket comes from --bucket or RINGBACK_BUCKET.",
     activate_options, command_activate},
    {"queue create", "QUEUE", 1, 1, "Makes a queue", NULL, queue_create_options, command_queue_create},
    {"queue list", "", 0, 0, "Lists a bucket's queues with their counts", NULL, queue_list_options, command_queue_list},
    {"queue show", "QUEUE", 1, 1, "Shows a queue's settings and counts", NULL, NULL, command_queue_show},
    {"queue update", "QUEUE", 1, 1, "Changes the settings that are given", NULL, queue_update_options,
     command_queue_update},
    {"queue pause", "QUEUE", 1, 1, "Stops handing out a queue's jobs; running ones finish", NULL, NULL,
     command_queue_pause},
    {"queue resume", "QUEUE", 1, 1, "Hands out a queue's jobs again", NULL, NULL, command_queue_resume},
    {"queue purge", "QUEUE", 1, 1, "Cancels every waiting job of a queue, without callbacks", NULL, NULL,
     command_queue_purge},
    {"queue delete", "QUEUE", 1, 1, "Deletes a queue with its jobs", NULL, queue_delete_options, command_queue_delete},
    {"job submit", "", 0, 0, "Adds a job, or many from a file",
     "Without --queue the job goes to the default queue of --feature. With --wait the exit status is 0 when the job\n"
     "succeeded and 1 when it failed or was cancelled. --jsonl reads one job a line as JSON, such as\n"
     "  {\"tag\": \"Transcode\", \"input\": {\"object\": {\"object\": \"a.mp4\"}}, \"priority\": 5, \"expireTime\": "
     "\"2026-12-01T00:00:00Z\"}\n"
     "with the fields of JobSpec; the other options that describe a job are then the defaults of all lines. Lines "
     "that\n"
     "are refused are told by their numbers and the others are submitted: the exit status is then 1. A single job "
     "whose\n"
     "values are refused, and a file without any job, are wrong usage: exit status 2.\n"
     "--timeout bounds one call; how long --wait waits is bounded by --wait-timeout alone.",
     job_submit_options, command_job_submit},
    {"job get", "ID...", 1, -1, "Shows jobs", NULL, job_get_options, command_job_get},
    {"job list", "[QUEUE]", 0, 1, "Lists a queue's jobs, newest first", NULL, job_list_options, command_job_list},
    {"job cancel", "[ID...]", 0, -1, "Cancels jobs, by id or all that a filter selects",
     "Without ids --queue is needed, and every job that has not ended and meets --tag, --state, --since and --until "
     "is\n"
     "cancelled. A job that has ended otherwise, or that is not there, is told by its id: the exit status is then 1, "
     "or "
     "3\n"
     "where all that failed do not exist. A job that was cancelled before is no failure.",
     job_cancel_options, command_job_cancel},
    {"job retry", "[ID...]", 0, -1, "Puts ended jobs back, by id or all that a filter selects",
     "Without ids --queue is needed: with --failed its failed jobs are put back, with --state others, within --tag, "
     "--since\n"
     "and --until.",
     job_retry_options, command_job_retry},
    {"job watch", "[ID...]", 0, -1, "Follows jobs: those named until they have ended, or a queue's or bucket's",
     "With ids the exit status is 0 when all of them succeeded.", job_watch_options, command_job_watch},
    {"job explain", "ID", 1, 1, "Says where a job stands and what it waits for", NULL, job_explain_options,
     command_job_explain},
    {"job priority", "ID PRIORITY", 2, 2, "Gives a waiting job another priority, 0 to 255", NULL, job_priority_options,
     command_job_priority},
    {"callback set", "QUEUE", 1, 1, "Sets where a queue calls back and switches that on",
     "What is not given stays as it is, but the rule is switched on unless --off is given: `callback set QUEUE` alone\n"
     "switches a rule on again. What waited while it was off is then sent; the callbacks of jobs that ended meanwhile\n"
     "are Suppressed: they were never sent, and nothing sends them later. That is so too where an answer of 410 Gone, "
     "or\n"
     "120 hours without success, switched it off; `callback show` says why it is off.\n"
     "An endpoint that fails five times in a row, or half of twenty times within a minute, is left alone (its breaker "
     "is\n"
     "open) for 30s, then tried once, and for twice as long after each failure, up to 15m. A success closes the "
     "breaker,\n"
     "and so does another --url, or switching the rule off and on.\n"
     "The body is <Response><JobsDetail>...</JobsDetail><NonExistJobIds/></Response> with --format seed, with current\n"
     "<Response><EventName>TaskFinish</EventName><JobsDetail>...</JobsDetail></Response>; json is current as JSON.",
     callback_set_options, command_callback_set},
    {"callback show", "QUEUE", 1, 1, "Shows a queue's callback rule", NULL, NULL, command_callback_show},
    {"callback off", "QUEUE", 1, 1, "Switches a queue's callbacks off",
     "No new attempt begins. Those under way go on, and are shown; with --wait the command ends when there is none any "
     "more,\nand then nothing is sent until the callbacks are switched on again: `ringback callback "
     "set QUEUE` does that.\n"
     "What waits is sent then. The callbacks of jobs that end while they are off are Suppressed: they are recorded, "
     "never\n"
     "sent, and nothing sends them later.",
     callback_off_options, command_callback_off},
    {"callback test", "QUEUE", 1, 1, "Sends one callback of a made-up job",
     "The exit status is 0 when the receiver accepted it.", NULL, command_callback_test},
    {"callback deliveries", "QUEUE", 1, 1, "Lists what became of a queue's callbacks, newest first", NULL,
     callback_deliveries_options, command_callback_deliveries},
    {"callback show-delivery", "ID", 1, 1,
     "Shows a delivery with its attempts: when, where to, how long, what came of it", NULL, NULL,
     command_callback_show_delivery},
    {"callback redeliver", "[ID...]", 0, -1, "Sends callbacks again, by id or all dead ones of a queue",
     "With ids also those that were delivered, or that wait for their next attempt. A receiver sees the same "
     "webhook-id.\n"
     "With --queue all dead ones but test callbacks, which are not sent again. What is put back waits while the rule "
     "is\n"
     "off, and while the breaker of its endpoint is open, which is told where it can be seen at once.",
     callback_redeliver_options, command_callback_redeliver},
    {"callback rotate-secret", "QUEUE", 1, 1, "Makes a new signing secret and prints it, this once",
     "The old ones sign along for --overlap, so that the receiver can be changed meanwhile; at most 5 at a time, the "
     "new one included. --overlap 0 ends the old ones at once.",
     callback_rotate_options, command_callback_rotate},
    {"worker", "", 0, 0, "Runs a command for each job of a queue", worker_description, worker_options, command_worker},
    {"listen", "", 0, 0, "Receives callbacks and prints them",
     "With --secret each signature is checked (Standard Webhooks, five minutes of tolerance), and callbacks without a "
     "good\n"
     "one are answered with 401. Ends after --count callbacks or at SIGINT or SIGTERM; the exit status is 1 when a\n"
     "signature was wrong.",
     listen_options, command_listen},
    {"bench submit", "", 0, 0, "Measures how fast jobs are submitted, one or many a call", bench_description,
     bench_submit_options, command_bench_submit},
    {"bench work", "", 0, 0, "Measures how fast waiting jobs go through Work streams", bench_description,
     bench_work_options, command_bench_work},
    {"bench cycle", "", 0, 0, "Measures whole life cycles: submitted, worked on and finished in one run",
     bench_description, bench_cycle_options, command_bench_cycle},
    {"bench latency", "", 0, 0, "Measures how long a job takes from submit to a waiting worker", bench_description,
     bench_latency_options, command_bench_latency},
    {"health", "", 0, 0, "Asks the server whether it serves; exit status 0 when it does, else 1",
     "A server that cannot be reached is 1 too, as probes want it.", health_options, command_health},
    {"version", "", 0, 0, "Prints the version", NULL, NULL, command_version},
    {"completion", "bash", 1, 1, "Prints the script for completion in bash",
     "Use it with: source <(ringback completion bash)", NULL, command_completion},
    {.name = NULL},
};

static const struct command_hint hints[] = {
    {"callback", "on", "`ringback callback set QUEUE` switches a queue's callbacks on"},
    {.group = NULL},
};

const struct grammar tool_grammar = {commands, groups, global_options, hints};
