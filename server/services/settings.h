/* A queue's settings: one table of limits and defaults, from which creation, updates and field masks work. Pure. */
#ifndef RINGBACK_SERVER_SERVICES_SETTINGS_H
#define RINGBACK_SERVER_SERVICES_SETTINGS_H

#include "google/protobuf/field_mask.pb-c.h"
#include "redis/store.h"
#include "ringback/v1/queue.pb-c.h"
#include "server/services/validate.h"

extern const struct store_settings settings_default;

/* The settings that a queue of a request asks for, defaults where it says nothing. Findings name fields below `field`.
 * mask: which settings are looked at (SETTING_*; ~0u: all, with the ordering). */
struct store_settings settings_read(struct check *check, const struct field *field, const Ringback__V1__Queue *queue,
                                    unsigned mask);

/* SETTING_* bits of an UpdateQueue's mask. */
unsigned settings_mask(struct check *check, const struct field *field, const Google__Protobuf__FieldMask *mask);

#endif
