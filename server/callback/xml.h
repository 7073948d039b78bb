/* XML in and out; the only module that knows libxml2. Thread-safe.
 *
 * In: fragments are parsed without DTD, entities beyond the five predefined, network or external entities of any kind.
 * Out: the writer API only, every return code checked, and a strict gate before it, because libxml2 writes ill-formed
 * XML for controls, bad UTF-8, surrogates and U+FFFE/U+FFFF without reporting it (measured with 2.9.14).
 */
#ifndef RINGBACK_SERVER_CALLBACK_XML_H
#define RINGBACK_SERVER_CALLBACK_XML_H

#include <stdbool.h>
#include <stddef.h>

#include "server/base/arena.h"
#include "server/callback/body.h"

#define XML_DEPTH_MAX 32

/* Whether the bytes are UTF-8 and every character matches XML 1.0's production Char. */
bool xml_text_is_valid(const char *text, size_t length);

/* The text itself where it is valid, else a copy with U+FFFD for every byte or character that XML cannot carry. *length
 * is updated. */
const char *xml_text_repair(struct arena *arena, const char *text, size_t *length);

/* Parses a fragment (elements, attributes, text; namespace prefixes declared inside it) and writes it again: comments
 * are dropped, CDATA becomes text. The result is NUL-terminated, lives in the arena and comes out unchanged when it is
 * rewritten. NULL: *error says what is wrong, to follow the field's name ("is not well-formed: line 3: ..."); bytes_max
 * is the limit before and after. */
const char *xml_operation_rewrite(struct arena *arena, const char *text, size_t length, size_t bytes_max, size_t *size,
                                  const char **error);

/* What a walk over a fragment tells, in the document's order; empty elements have an end too. Texts live until the
 * function returns; an element's text may come in pieces. */
struct xml_walk {
  void *context;
  void (*start)(void *context, const char *name);
  void (*attribute)(void *context, const char *name, const char *value); /* of the element that started last */
  void (*text)(void *context, const char *text);
  void (*end)(void *context);
};

/* NULL, or why the fragment cannot be read to its end; part of it has been told then. Its depth is XML_DEPTH_MAX at
 * most. */
const char *xml_fragment_walk(struct arena *arena, const char *text, size_t length, const struct xml_walk *walk);

/* The body of a TaskFinish callback in the shape `seed`:
 *
 *   <Response><JobsDetail>Code Message JobId Tag State Progress CreationTime StartTime EndTime QueueId
 *   <Input>BucketId Object Region, or Url</Input>
 *   <Operation>the request's blocks, the worker's blocks, UserData JobLevel</Operation></JobsDetail>
 *   <NonExistJobIds></NonExistJobIds></Response>
 *
 * or, where the source's format says so, in the shape `current`, with <EventName>TaskFinish</EventName> before
 * JobsDetail and without NonExistJobIds; without declaration or white space. An opaque operation is `<Opaque
 * ContentType="...">base64</Opaque>`, an opaque result
 * `<OpaqueResult ...>`; an XML payload that does not parse is carried in the same way, as application/xml, and text
 * that XML cannot carry is repaired, so that no callback is lost to what it says. NULL only when libxml2 fails. */
const char *xml_callback_render(struct arena *arena, const struct body_source *source, size_t *size);

#endif
