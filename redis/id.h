/* Job and queue ids, and the partition that a bucket lives in.
 *
 * A job id is 16 bytes: feature and partition (2 + 6 bits), queue number (5 bytes), milliseconds (6), sequence (4), all
 * big-endian. So no look-up finds a job, and within a queue ids sort in submission order. As text: the feature's letter
 * and 32 lower-case hex digits.
 */
#ifndef RINGBACK_REDIS_ID_H
#define RINGBACK_REDIS_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PARTITIONS = 64, ID_TEXT_SIZE = 34 };

struct job_id {
  uint8_t bytes[16];
};

/* 0 to 63, the same in every version of the service. */
unsigned id_partition(const char *bucket);

/* text gets ID_TEXT_SIZE bytes with its NUL. */
void id_format_job(const struct job_id *id, char *text);
/* False unless it is a letter and 32 lower-case hex digits that can be a job's id. */
bool id_parse_job(const char *text, struct job_id *id);
/* 16 raw bytes of a queue id as `p` + 32 hex digits. */
void id_format_queue(const uint8_t bytes[16], char *text);

unsigned id_job_partition(const struct job_id *id);
uint64_t id_job_queue_number(const struct job_id *id);
int64_t id_job_create_ms(const struct job_id *id);
int id_job_feature(const struct job_id *id); /* Ringback__V1__Feature */

#endif
