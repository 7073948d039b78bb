/* Callbacks' bodies as JSON; the only module of the server that knows jansson. Pure.
 *
 *   {"EventName":"TaskFinish","JobsDetail":[{"Code":...,"Input":{...},"Operation":{...}}]}
 *
 * The names and the order are those of the XML form. A fragment of XML becomes what its elements are: text, or an
 * object of attributes (`@name`), elements and text (`#text`, unless it is blank); elements of the same name become an
 * array. Payloads that are bytes, or do not parse, are `Opaque` and `OpaqueResult` with `@ContentType` and base64 as
 * `#text`.
 */
#ifndef RINGBACK_SERVER_CALLBACK_JSON_H
#define RINGBACK_SERVER_CALLBACK_JSON_H

#include <stddef.h>

#include "server/base/arena.h"
#include "server/callback/body.h"

/* Compact, UTF-8, NUL-terminated, in the arena. Text that is no text is repaired as for XML. NULL only without memory.
 */
const char *json_callback_render(struct arena *arena, const struct body_source *source, size_t *size);

#endif
