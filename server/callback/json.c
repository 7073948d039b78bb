/* See json.h. A fragment is walked with a stack of open elements, one frame each; a frame becomes a value when its
 * element ends. It is built apart and then joined to the operation, so that one that turns out not to parse leaves
 * nothing behind.
 */
#include "server/callback/json.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "server/callback/xml.h"

struct frame {
  const char *name;
  json_t *members; /* attributes and elements */
  char *text;      /* in the arena; NULL: none yet */
  size_t text_length, text_capacity;
};

struct tree {
  struct arena *arena;
  size_t depth;
  struct frame frames[XML_DEPTH_MAX + 1]; /* the first is the fragment's own */
};

/* Text from anywhere; the gate makes it fit. */
static json_t *text_value(struct arena *arena, const char *text) {
  size_t length = strlen(text);
  text = xml_text_repair(arena, text, &length);
  return json_stringn(text, length);
}

/* Adds a member; those of the same name become an array. Takes over the value, which is no array itself. */
static void add(json_t *object, const char *name, json_t *value) {
  json_t *known = json_object_get(object, name);
  if (!known) {
    json_object_set_new(object, name, value);
  } else if (json_is_array(known)) {
    json_array_append_new(known, value);
  } else {
    json_t *both = json_array();
    json_array_append(both, known);
    json_array_append_new(both, value);
    json_object_set_new(object, name, both);
  }
}

/* --- fragments --- */

static void push(struct tree *tree, const char *name) {
  assert(tree->depth <= XML_DEPTH_MAX);
  tree->frames[tree->depth++] = (struct frame){.name = arena_strdup(tree->arena, name), .members = json_object()};
}

static void on_start(void *context, const char *name) {
  push(context, name);
}

static void on_attribute(void *context, const char *name, const char *value) {
  struct tree *tree = context;
  add(tree->frames[tree->depth - 1].members, arena_printf(tree->arena, "@%s", name), text_value(tree->arena, value));
}

static void on_text(void *context, const char *text) {
  struct tree *tree = context;
  struct frame *frame = &tree->frames[tree->depth - 1];
  size_t length = strlen(text), needed = frame->text_length + length + 1;
  if (needed > frame->text_capacity) {
    size_t capacity = needed * 2;
    char *larger = arena_alloc(tree->arena, capacity);
    if (frame->text_length)
      memcpy(larger, frame->text, frame->text_length);
    frame->text = larger;
    frame->text_capacity = capacity;
  }
  memcpy(frame->text + frame->text_length, text, length + 1);
  frame->text_length += length;
}

static bool is_blank(const char *text) {
  return !text || !text[strspn(text, " \t\r\n")];
}

/* Takes the members over. */
static json_t *frame_value(struct arena *arena, struct frame *frame) {
  if (!json_object_size(frame->members)) {
    json_decref(frame->members);
    return text_value(arena, frame->text ? frame->text : "");
  }
  if (!is_blank(frame->text))
    add(frame->members, "#text", text_value(arena, frame->text));
  return frame->members;
}

static void on_end(void *context) {
  struct tree *tree = context;
  struct frame *frame = &tree->frames[--tree->depth];
  add(tree->frames[tree->depth - 1].members, frame->name, frame_value(tree->arena, frame));
}

static void join(json_t *object, json_t *members) {
  const char *name;
  json_t *value;
  json_object_foreach(members, name, value) {
    if (!json_is_array(value))
      add(object, name, json_incref(value));
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
      add(object, name, json_incref(json_array_get(value, i)));
  }
}

/* False, and nothing is added, when the fragment does not parse. */
static bool add_fragment(struct arena *arena, json_t *object, const char *xml) {
  struct tree *tree = ARENA_NEW(arena, struct tree);
  tree->arena = arena;
  push(tree, "");
  struct xml_walk walk = {tree, on_start, on_attribute, on_text, on_end};
  bool good = !xml_fragment_walk(arena, xml, strlen(xml), &walk);
  struct frame *root = &tree->frames[0];
  if (good && !is_blank(root->text))
    add(root->members, "#text", text_value(arena, root->text));
  if (good)
    join(object, root->members);
  while (tree->depth)
    json_decref(tree->frames[--tree->depth].members);
  return good;
}

/* --- the body --- */

static void add_payload(struct arena *arena, json_t *object, const char *opaque_name,
                        const Ringback__V1__Payload *source) {
  struct body_payload payload = body_payload(arena, source, true);
  if (payload.xml && add_fragment(arena, object, payload.xml))
    return;
  if (payload.xml)
    payload = body_payload(arena, source, false);
  if (!payload.base64)
    return;
  json_t *opaque = json_object();
  add(opaque, "@ContentType", text_value(arena, payload.content_type));
  add(opaque, "#text", json_string(payload.base64));
  add(object, opaque_name, opaque);
}

static void add_details(struct arena *arena, json_t *object, const struct body_detail *details, size_t count) {
  for (size_t i = 0; i < count; i++)
    add(object, details[i].name,
        details[i].number ? json_integer(strtoll(details[i].text, 0, 10)) : text_value(arena, details[i].text));
}

static json_t *jobs_detail(struct arena *arena, const struct body_source *source) {
  const Ringback__V1__JobSpec *spec = source->job->spec;
  struct body_detail details[BODY_DETAILS_MAX];
  json_t *detail = json_object(), *input = json_object(), *operation = json_object();
  add_details(arena, detail, details, body_details(arena, source, details));
  add_details(arena, input, details, body_input(source, details));
  add_payload(arena, operation, "Opaque", spec->operation);
  add_payload(arena, operation, "OpaqueResult", source->job->result);
  add(operation, "UserData", text_value(arena, spec->user_data));
  add(operation, "JobLevel", json_integer(spec->priority));
  add(detail, "Input", input);
  add(detail, "Operation", operation);
  return detail;
}

const char *json_callback_render(struct arena *arena, const struct body_source *source, size_t *size) {
  json_t *body = json_object(), *jobs = json_array();
  json_array_append_new(jobs, jobs_detail(arena, source));
  json_object_set_new(body, "EventName", json_string("TaskFinish"));
  json_object_set_new(body, "JobsDetail", jobs);
  char *text = json_dumps(body, JSON_COMPACT);
  json_decref(body);
  *size = text ? strlen(text) : 0;
  const char *kept = text ? arena_strndup(arena, text, *size) : 0;
  free(text);
  return kept;
}
