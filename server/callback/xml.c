/* See xml.h. A fragment is read by xmlTextReader inside an element <Operation> of ours and copied, event by event, to
 * an xmlTextWriter: for a rewrite into a buffer whose ends are cut off, for a callback right into its body.
 */
#include "server/callback/xml.h"

#include <assert.h>
#include <libxml/parser.h>
#include <libxml/xmlreader.h>
#include <libxml/xmlwriter.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_BYTES_MAX 65536 /* whatever a larger document needed is given back */
#define KEPT_READS_MAX 100
#define WRAPPER "Operation"
#define WRAPPER_START "<" WRAPPER ">"
#define WRAPPER_END "</" WRAPPER ">"

static xmlParserInputPtr deny_entity(const char *url, const char *id, xmlParserCtxtPtr context) {
  (void)url;
  (void)id;
  (void)context;
  return 0;
}

static void kept_free(void *context);
static pthread_key_t kept_key;

static void set_up_once(void) {
  if (pthread_key_create(&kept_key, kept_free) != 0)
    abort();
  xmlInitParser();
  xmlSetExternalEntityLoader(deny_entity);
}

static void set_up(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, set_up_once);
}

/* --- what a thread keeps --- */

/* To set libxml2 up for a document takes longer than to read or write a short one. */
struct kept {
  xmlBufferPtr buffer; /* of the writer */
  xmlTextWriterPtr writer;
  xmlTextReaderPtr reader;
  int reads; /* of the reader, which remembers every name that it met */
};

static void kept_free(void *context) {
  struct kept *kept = context;
  if (kept->writer)
    xmlFreeTextWriter(kept->writer);
  if (kept->buffer)
    xmlBufferFree(kept->buffer);
  if (kept->reader)
    xmlFreeTextReader(kept->reader);
  free(kept);
}

static struct kept *kept_of_thread(void) {
  set_up();
  struct kept *kept = pthread_getspecific(kept_key);
  if (kept)
    return kept;
  kept = calloc(1, sizeof(*kept));
  if (!kept || pthread_setspecific(kept_key, kept) != 0)
    abort();
  return kept;
}

/* --- writing --- */

/* The writer with a sticky failure, so that every return code counts and the callers stay readable. */
struct output {
  struct arena *arena;
  xmlBufferPtr buffer;
  xmlTextWriterPtr writer;
  bool failed;
};

static void output_open(struct output *output, struct arena *arena) {
  struct kept *kept = kept_of_thread();
  *output = (struct output){.arena = arena, .buffer = kept->buffer, .writer = kept->writer};
  kept->buffer = 0;
  kept->writer = 0;
  if (!output->writer && ((output->buffer = xmlBufferCreate())))
    output->writer = xmlNewTextWriterMemory(output->buffer, 0);
  if (!output->writer)
    abort();
}

/* A writer is kept after a document that came to its end: no element is open. */
static void output_close(struct output *output, bool complete) {
  struct kept *kept = kept_of_thread();
  if (complete && !output->failed && !kept->writer && xmlBufferLength(output->buffer) <= KEPT_BYTES_MAX) {
    xmlBufferEmpty(output->buffer);
    kept->buffer = output->buffer;
    kept->writer = output->writer;
    return;
  }
  xmlFreeTextWriter(output->writer);
  xmlBufferFree(output->buffer);
}

static void note(struct output *output, int code) {
  if (code < 0)
    output->failed = true;
}

static void put_start(struct output *output, const char *name) {
  note(output, xmlTextWriterStartElement(output->writer, BAD_CAST name));
}

static void put_end(struct output *output) {
  note(output, xmlTextWriterFullEndElement(output->writer));
}

/* Text from anywhere; the gate makes it fit. */
static void put_text(struct output *output, const char *text) {
  size_t length = strlen(text);
  text = xml_text_repair(output->arena, text, &length);
  if (length)
    note(output, xmlTextWriterWriteString(output->writer, BAD_CAST text));
}

static void put_attribute(struct output *output, const char *name, const char *text) {
  size_t length = strlen(text);
  text = xml_text_repair(output->arena, text, &length);
  note(output, xmlTextWriterWriteAttribute(output->writer, BAD_CAST name, BAD_CAST text));
}

static void put_element(struct output *output, const char *name, const char *text) {
  put_start(output, name);
  put_text(output, text);
  put_end(output);
}

/* --- reading a fragment --- */

struct fragment {
  struct arena *arena;
  const char *error; /* the first */
};

static void keep_error(void *context, const char *message, xmlParserSeverities severity,
                       xmlTextReaderLocatorPtr locator) {
  struct fragment *fragment = context;
  if (fragment->error || severity == XML_PARSER_SEVERITY_WARNING || severity == XML_PARSER_SEVERITY_VALIDITY_WARNING)
    return;
  size_t length = strcspn(message, "\n");
  fragment->error = arena_printf(fragment->arena, "is not well-formed: line %d: %.*s",
                                 xmlTextReaderLocatorLineNumber(locator), (int)(length < 200 ? length : 200), message);
}

/* Of the attribute that the reader stands on. libxml2 2.9 tells an ampersand in a namespace's name as &#38;, which
 * would grow with every rewriting. */
static const char *attribute_value(xmlTextReaderPtr reader, struct arena *arena) {
  static const char escaped[] = "&#38;";
  const char *value = (const char *)xmlTextReaderConstValue(reader);
  if (!value)
    return "";
  if (xmlTextReaderIsNamespaceDecl(reader) != 1 || !strstr(value, escaped))
    return value;
  char *copy = arena_strdup(arena, value), *out = copy;
  for (const char *in = value; *in; in += strncmp(in, escaped, strlen(escaped)) ? 1 : strlen(escaped))
    *out++ = *in;
  *out = 0;
  return copy;
}

static void copy_attributes(xmlTextReaderPtr reader, struct output *output) {
  int more = xmlTextReaderMoveToFirstAttribute(reader);
  for (; more == 1; more = xmlTextReaderMoveToNextAttribute(reader))
    put_attribute(output, (const char *)xmlTextReaderConstName(reader), attribute_value(reader, output->arena));
  note(output, more);
  note(output, xmlTextReaderMoveToElement(reader));
}

static void copy_element(xmlTextReaderPtr reader, struct fragment *fragment, struct output *output) {
  if (xmlTextReaderDepth(reader) > XML_DEPTH_MAX) {
    fragment->error = "is more than 32 elements deep";
    return;
  }
  bool is_empty = xmlTextReaderIsEmptyElement(reader) == 1;
  put_start(output, (const char *)xmlTextReaderConstName(reader));
  copy_attributes(reader, output);
  if (is_empty)
    note(output, xmlTextWriterEndElement(output->writer));
}

static void copy_node(xmlTextReaderPtr reader, struct fragment *fragment, void *context) {
  struct output *output = context;
  int type = xmlTextReaderNodeType(reader);
  if (xmlTextReaderDepth(reader) == 0) {
    if (type != XML_READER_TYPE_ELEMENT && type != XML_READER_TYPE_END_ELEMENT)
      fragment->error = "is not a fragment of elements and text";
    return;
  }
  switch (type) {
  case XML_READER_TYPE_ELEMENT:
    copy_element(reader, fragment, output);
    break;
  case XML_READER_TYPE_END_ELEMENT:
    note(output, xmlTextWriterEndElement(output->writer));
    break;
  case XML_READER_TYPE_TEXT:
  case XML_READER_TYPE_CDATA:
  case XML_READER_TYPE_WHITESPACE:
  case XML_READER_TYPE_SIGNIFICANT_WHITESPACE:
    put_text(output, (const char *)xmlTextReaderConstValue(reader));
    break;
  case XML_READER_TYPE_COMMENT:
    break;
  case XML_READER_TYPE_PROCESSING_INSTRUCTION:
    fragment->error = "must not have processing instructions or an XML declaration";
    break;
  case XML_READER_TYPE_ENTITY_REFERENCE:
    fragment->error = "must not have entities beyond the five predefined ones";
    break;
  default:
    fragment->error = "has something that is neither element, attribute nor text";
  }
}

/* A DOCTYPE inside an element is a syntax error to the parser; the message ought to name it. */
static bool mentions_doctype(const char *text, size_t length) {
  return memmem(text, length, "<!DOCTYPE", 9) != 0;
}

/* What to do with a node that the reader stands on. */
typedef void take_node(xmlTextReaderPtr reader, struct fragment *fragment, void *context);

/* Line ends become \n before anything else sees them (XML 1.0, 2.11); libxml2's reader leaves those inside CDATA as
 * they are. Returns the new length. */
static size_t copy_with_line_ends(char *to, const char *text, size_t length) {
  size_t size = 0;
  for (const char *end = text + length; text < end;) {
    const char *line_end = memchr(text, '\r', (size_t)(end - text));
    size_t part = (size_t)((line_end ? line_end : end) - text);
    memcpy(to + size, text, part);
    size += part;
    text += part;
    if (line_end) {
      to[size++] = '\n';
      text += text + 1 < end && text[1] == '\n' ? 2 : 1;
    }
  }
  return size;
}

static xmlTextReaderPtr reader_open(const char *document, int size) {
  /* Names as before the fifth edition: expat, and with it most receivers, knows no others. */
  static const int options = XML_PARSE_NONET | XML_PARSE_OLD10;
  struct kept *kept = kept_of_thread();
  xmlTextReaderPtr reader = kept->reader;
  kept->reader = 0;
  if (reader && xmlReaderNewMemory(reader, document, size, 0, "UTF-8", options) == 0)
    return reader;
  if (reader)
    xmlFreeTextReader(reader);
  kept->reads = 0;
  reader = xmlReaderForMemory(document, size, 0, "UTF-8", options);
  if (!reader)
    abort();
  return reader;
}

static void reader_close(xmlTextReaderPtr reader, bool complete) {
  struct kept *kept = kept_of_thread();
  if (complete && !kept->reader && ++kept->reads < KEPT_READS_MAX)
    kept->reader = reader;
  else
    xmlFreeTextReader(reader);
}

/* Reads a fragment node by node, its wrapper included (at depth 0). NULL or the error. */
static const char *read_fragment(struct arena *arena, const char *text, size_t length, take_node *take, void *context) {
  if (!xml_text_is_valid(text, length))
    return "has bytes that are not UTF-8 or characters that XML does not allow";
  size_t size = length + strlen(WRAPPER_START) + strlen(WRAPPER_END);
  if (size > INT_MAX)
    return "is too long";
  char *document = arena_alloc(arena, size);
  memcpy(document, WRAPPER_START, strlen(WRAPPER_START));
  size = strlen(WRAPPER_START) + copy_with_line_ends(document + strlen(WRAPPER_START), text, length);
  memcpy(document + size, WRAPPER_END, strlen(WRAPPER_END));
  size += strlen(WRAPPER_END);

  struct fragment fragment = {.arena = arena};
  xmlTextReaderPtr reader = reader_open(document, (int)size);
  xmlTextReaderSetErrorHandler(reader, keep_error, &fragment);
  int more = 1;
  while (!fragment.error && (more = xmlTextReaderRead(reader)) == 1)
    take(reader, &fragment, context);
  if (more < 0 && !fragment.error)
    fragment.error = "is not well-formed";
  reader_close(reader, !more && !fragment.error && size <= KEPT_BYTES_MAX);
  if (more < 0 && mentions_doctype(text, length))
    fragment.error = "must not have a DOCTYPE";
  return fragment.error;
}

/* Copies what the fragment holds into the element that is open in the output. NULL or the error. The output has part of
 * it then. */
static const char *copy_fragment(struct arena *arena, const char *text, size_t length, struct output *output) {
  return read_fragment(arena, text, length, copy_node, output);
}

static void walk_element(xmlTextReaderPtr reader, struct fragment *fragment, const struct xml_walk *walk) {
  if (xmlTextReaderDepth(reader) > XML_DEPTH_MAX) {
    fragment->error = "is more than 32 elements deep";
    return;
  }
  bool is_empty = xmlTextReaderIsEmptyElement(reader) == 1;
  walk->start(walk->context, (const char *)xmlTextReaderConstName(reader));
  int more = xmlTextReaderMoveToFirstAttribute(reader);
  for (; more == 1; more = xmlTextReaderMoveToNextAttribute(reader))
    walk->attribute(walk->context, (const char *)xmlTextReaderConstName(reader),
                    attribute_value(reader, fragment->arena));
  if (more < 0 || xmlTextReaderMoveToElement(reader) < 0)
    fragment->error = "has attributes that cannot be read";
  if (is_empty)
    walk->end(walk->context);
}

static void walk_node(xmlTextReaderPtr reader, struct fragment *fragment, void *context) {
  const struct xml_walk *walk = context;
  if (xmlTextReaderDepth(reader) == 0)
    return;
  switch (xmlTextReaderNodeType(reader)) {
  case XML_READER_TYPE_ELEMENT:
    walk_element(reader, fragment, walk);
    break;
  case XML_READER_TYPE_END_ELEMENT:
    walk->end(walk->context);
    break;
  case XML_READER_TYPE_TEXT:
  case XML_READER_TYPE_CDATA:
  case XML_READER_TYPE_WHITESPACE:
  case XML_READER_TYPE_SIGNIFICANT_WHITESPACE:
    walk->text(walk->context, (const char *)xmlTextReaderConstValue(reader));
    break;
  case XML_READER_TYPE_COMMENT:
    break;
  default:
    fragment->error = "has something that is neither element, attribute nor text";
  }
}

const char *xml_fragment_walk(struct arena *arena, const char *text, size_t length, const struct xml_walk *walk) {
  struct xml_walk copy = *walk;
  return read_fragment(arena, text, length, walk_node, &copy);
}

const char *xml_operation_rewrite(struct arena *arena, const char *text, size_t length, size_t bytes_max, size_t *size,
                                  const char **error) {
  *size = 0;
  *error = 0;
  if (length > bytes_max) {
    *error = arena_printf(arena, "is longer than %zu bytes", bytes_max);
    return 0;
  }
  struct output output;
  output_open(&output, arena);
  put_start(&output, WRAPPER);
  *error = copy_fragment(arena, text, length, &output);
  bool complete = !*error;
  if (complete) {
    put_end(&output);
    note(&output, xmlTextWriterFlush(output.writer));
  }
  const char *result = 0;
  size_t wrapper = strlen(WRAPPER_START) + strlen(WRAPPER_END);
  size_t written = (size_t)xmlBufferLength(output.buffer);
  if (!*error && output.failed)
    *error = "cannot be written as XML";
  if (!*error && written - wrapper > bytes_max)
    *error = arena_printf(arena, "is longer than %zu bytes with its characters escaped", bytes_max);
  if (!*error) {
    assert(written >= wrapper);
    *size = written - wrapper;
    result = arena_strndup(arena, (const char *)xmlBufferContent(output.buffer) + strlen(WRAPPER_START), *size);
  }
  output_close(&output, complete);
  return result;
}

/* --- callbacks --- */

static void put_details(struct output *output, const struct body_detail *details, size_t count) {
  for (size_t i = 0; i < count; i++)
    put_element(output, details[i].name, details[i].text);
}

/* False: an XML fragment did not parse, and the output is spoilt. */
static bool put_payload(struct output *output, const char *opaque_name, const struct body_payload *payload) {
  if (payload->xml)
    return !copy_fragment(output->arena, payload->xml, strlen(payload->xml), output);
  if (payload->base64) {
    put_start(output, opaque_name);
    put_attribute(output, "ContentType", payload->content_type);
    put_text(output, payload->base64);
    put_end(output);
  }
  return true;
}

enum spoilt { SPOILT_NONE, SPOILT_OPERATION, SPOILT_RESULT };

/* Which fragments may be tried as XML; one that turns out not to parse is named and the caller starts again without it.
 */
struct trust {
  bool operation, result;
};

static enum spoilt put_operation(struct output *output, const struct body_source *source, struct trust trust) {
  const Ringback__V1__JobSpec *spec = source->job->spec;
  struct body_payload operation = body_payload(output->arena, spec->operation, trust.operation);
  struct body_payload result = body_payload(output->arena, source->job->result, trust.result);
  put_start(output, "Operation");
  if (!put_payload(output, "Opaque", &operation))
    return SPOILT_OPERATION;
  if (!put_payload(output, "OpaqueResult", &result))
    return SPOILT_RESULT;
  put_element(output, "UserData", spec->user_data);
  put_element(output, "JobLevel", arena_printf(output->arena, "%d", spec->priority));
  put_end(output);
  return SPOILT_NONE;
}

static enum spoilt put_jobs_detail(struct output *output, const struct body_source *source, struct trust trust) {
  struct body_detail details[BODY_DETAILS_MAX];
  put_start(output, "JobsDetail");
  put_details(output, details, body_details(output->arena, source, details));
  put_start(output, "Input");
  put_details(output, details, body_input(source, details));
  put_end(output);
  enum spoilt spoilt = put_operation(output, source, trust);
  if (!spoilt)
    put_end(output);
  return spoilt;
}

static enum spoilt render(struct output *output, const struct body_source *source, struct trust trust) {
  bool current = source->format == RINGBACK__V1__CALLBACK_FORMAT__CALLBACK_FORMAT_XML_CURRENT;
  put_start(output, "Response");
  if (current)
    put_element(output, "EventName", "TaskFinish");
  enum spoilt spoilt = put_jobs_detail(output, source, trust);
  if (spoilt)
    return spoilt;
  if (!current)
    put_element(output, "NonExistJobIds", "");
  put_end(output);
  note(output, xmlTextWriterFlush(output->writer));
  return SPOILT_NONE;
}

const char *xml_callback_render(struct arena *arena, const struct body_source *source, size_t *size) {
  struct trust trust = {true, true};
  const char *result = 0;
  *size = 0;
  for (int tries = 0; tries < 3; tries++) {
    struct output output;
    output_open(&output, arena);
    enum spoilt spoilt = render(&output, source, trust);
    if (!spoilt && !output.failed) {
      *size = (size_t)xmlBufferLength(output.buffer);
      result = arena_strndup(arena, (const char *)xmlBufferContent(output.buffer), *size);
    }
    output_close(&output, !spoilt);
    if (!spoilt)
      break;
    if (spoilt == SPOILT_OPERATION)
      trust.operation = false;
    else
      trust.result = false;
  }
  return result;
}
