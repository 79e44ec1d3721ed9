#include "common/io/yaml.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "common/pure/buf.h"
#include "common/pure/mem.h"

#define NO_PARENT UINT32_MAX

/* Where one value stood. A tree, because pointers as texts would grow with depth x key length. */
struct mark {
    uint32_t parent; /* index of the mark of the object or list around it */
    char *key;       /* owned; NULL for an item of a list */
    size_t index;    /* in the list */
    unsigned line;   /* 1-based */
    unsigned column;
};

struct yaml_marks {
    struct mark *marks; /* [0] is the document */
    uint32_t count;
    uint32_t capacity;
};

struct reader {
    yaml_parser_t parser;
    const char *text; /* the whole of it, without its byte order mark */
    struct yaml_marks *marks;
    struct err *err;
};

static int fail_at(struct reader *reader, enum err_code code, yaml_mark_t at, const char *what)
{
    return err_set(reader->err, code, "%zu:%zu: %s", at.line + 1, at.column + 1, what);
}

static uint32_t add_mark(struct reader *reader, uint32_t parent, const char *key, size_t index,
                         yaml_mark_t at)
{
    struct yaml_marks *marks = reader->marks;

    if (marks->count == marks->capacity) {
        marks->capacity = marks->capacity ? 2 * marks->capacity : 64;
        marks->marks = mem_resize(marks->marks, marks->capacity, sizeof(*marks->marks));
    }
    marks->marks[marks->count] = (struct mark){
        .parent = parent,
        .key = key != NULL ? mem_strdup(key) : NULL,
        .index = index,
        .line = (unsigned)at.line + 1,
        .column = (unsigned)at.column + 1,
    };
    return marks->count++;
}

/* Errors of libyaml's decoder have a byte offset and no line. */
static yaml_mark_t mark_of_byte(const char *text, size_t offset)
{
    yaml_mark_t mark = {.index = offset};

    for (size_t i = 0; i < offset; i++) {
        mark.column++;
        if (text[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return mark;
}

static int syntax_error(struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem != NULL ? parser->problem : "not YAML";

    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(reader->err, ERR_NO_MEMORY, "out of memory");
    if (parser->error == YAML_READER_ERROR)
        return fail_at(reader, ERR_INVALID_ENCODING,
                       mark_of_byte(reader->text, parser->problem_offset), problem);
    return fail_at(reader, ERR_YAML_SYNTAX, parser->problem_mark, problem);
}

/* The next event; one with an anchor or a tag is refused. On failure there is none to delete. */
static int next_event(struct reader *reader, yaml_event_t *ret_event)
{
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;

    if (!yaml_parser_parse(&reader->parser, ret_event))
        return syntax_error(reader);
    if (ret_event->type == YAML_SCALAR_EVENT) {
        anchor = ret_event->data.scalar.anchor;
        tag = ret_event->data.scalar.tag;
    } else if (ret_event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = ret_event->data.sequence_start.anchor;
        tag = ret_event->data.sequence_start.tag;
    } else if (ret_event->type == YAML_MAPPING_START_EVENT) {
        anchor = ret_event->data.mapping_start.anchor;
        tag = ret_event->data.mapping_start.tag;
    }
    const char *refused = ret_event->type == YAML_ALIAS_EVENT ? "aliases are refused"
                          : anchor != NULL                    ? "anchors are refused"
                          : tag != NULL                       ? "tags are refused"
                                                              : NULL;
    if (refused == NULL)
        return 0;
    int rc = fail_at(reader, ERR_YAML_FEATURE, ret_event->start_mark, refused);
    yaml_event_delete(ret_event);
    return rc;
}

/* -?(0|[1-9][0-9]*) that fits 64 bits. */
static bool is_integer(const char *text, json_int_t *ret_value)
{
    bool negative = text[0] == '-';
    const char *at = text + negative;
    json_int_t value = 0;

    if (*at < '0' || *at > '9' || (at[0] == '0' && at[1] != '\0') || (negative && *at == '0'))
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        int digit = *at - '0';
        if (__builtin_mul_overflow(value, 10, &value)
            || __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return false;
    }
    if (*at != '\0')
        return false;
    *ret_value = value;
    return true;
}

static json_t *plain_value(const char *text, size_t length)
{
    json_int_t integer;

    if (length == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)
        return json_null();
    if (strcmp(text, "true") == 0)
        return json_true();
    if (strcmp(text, "false") == 0)
        return json_false();
    if (is_integer(text, &integer))
        return json_integer(integer);
    return json_stringn(text, length);
}

static int scalar_value(struct reader *reader, const yaml_event_t *event, json_t **ret_value)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;

    if (memchr(text, '\0', length) != NULL)
        return fail_at(reader, ERR_INVALID_ENCODING, event->start_mark, "NUL in a text");
    *ret_value = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_value(text, length)
                                                                     : json_stringn(text, length);
    if (*ret_value == NULL)
        return fail_at(reader, ERR_INVALID_ENCODING, event->start_mark, "not valid UTF-8");
    return 0;
}

static int read_node(struct reader *reader, const yaml_event_t *event, uint32_t mark, int depth,
                     json_t **ret_value);

static int read_list(struct reader *reader, uint32_t mark, int depth, json_t *list)
{
    for (size_t i = 0;; i++) {
        yaml_event_t event;
        json_t *item = NULL;
        int rc = next_event(reader, &event);
        if (rc != 0)
            return rc;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        uint32_t item_mark = add_mark(reader, mark, NULL, i, event.start_mark);
        rc = read_node(reader, &event, item_mark, depth, &item);
        yaml_event_delete(&event);
        if (rc != 0)
            return rc;
        BUG_ON(json_array_append_new(list, item) != 0);
    }
}

/* Checks the key and takes its text. */
static int read_key(struct reader *reader, const yaml_event_t *event, const json_t *object,
                    char **ret_key)
{
    if (event->type != YAML_SCALAR_EVENT)
        return fail_at(reader, ERR_YAML_SYNTAX, event->start_mark, "a key must be a text");
    const char *text = (const char *)event->data.scalar.value;
    if (memchr(text, '\0', event->data.scalar.length) != NULL)
        return fail_at(reader, ERR_INVALID_ENCODING, event->start_mark, "NUL in a key");
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(text, "<<") == 0)
        return fail_at(reader, ERR_YAML_FEATURE, event->start_mark, "merge keys are refused");
    if (json_object_get(object, text) != NULL)
        return fail_at(reader, ERR_DUPLICATE_KEY, event->start_mark, "this key stands twice");
    *ret_key = mem_strdup(text);
    return 0;
}

static int read_member(struct reader *reader, const char *key, uint32_t mark, int depth,
                       json_t *object)
{
    yaml_event_t event;
    json_t *value = NULL;
    int rc = next_event(reader, &event);

    if (rc != 0)
        return rc;
    rc = read_node(reader, &event, mark, depth, &value);
    if (rc == 0 && json_object_set_new(object, key, value) != 0)
        rc = fail_at(reader, ERR_INVALID_ENCODING, event.start_mark, "key is not valid UTF-8");
    yaml_event_delete(&event);
    return rc;
}

static int read_object(struct reader *reader, uint32_t mark, int depth, json_t *object)
{
    for (;;) {
        yaml_event_t event;
        char *key = NULL;
        int rc = next_event(reader, &event);
        if (rc != 0)
            return rc;
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        rc = read_key(reader, &event, object, &key);
        if (rc == 0) {
            uint32_t member = add_mark(reader, mark, key, 0, event.start_mark);
            rc = read_member(reader, key, member, depth, object);
        }
        yaml_event_delete(&event);
        free(key);
        if (rc != 0)
            return rc;
    }
}

/* The value that starts with `event`. */
static int read_node(struct reader *reader, const yaml_event_t *event, uint32_t mark, int depth,
                     json_t **ret_value)
{
    json_t *value;
    int rc;

    if (event->type == YAML_SCALAR_EVENT)
        return scalar_value(reader, event, ret_value);
    if (depth >= YAML_MAX_DEPTH)
        return fail_at(reader, ERR_NESTING_TOO_DEEP, event->start_mark, "more than 16 levels");
    if (event->type == YAML_SEQUENCE_START_EVENT) {
        value = json_array();
        rc = read_list(reader, mark, depth + 1, value);
    } else {
        BUG_ON(event->type != YAML_MAPPING_START_EVENT);
        value = json_object();
        rc = read_object(reader, mark, depth + 1, value);
    }
    if (rc != 0)
        json_decref(value);
    else
        *ret_value = value;
    return rc;
}

/* Takes one event of the given type; another one is an error with this text. */
static int expect(struct reader *reader, yaml_event_type_t type, const char *otherwise)
{
    yaml_event_t event;
    int rc = next_event(reader, &event);

    if (rc != 0)
        return rc;
    if (event.type != type)
        rc = fail_at(reader, ERR_YAML_SYNTAX, event.start_mark, otherwise);
    yaml_event_delete(&event);
    return rc;
}

static int read_document(struct reader *reader, json_t **ret_value)
{
    yaml_event_t event;
    json_t *value = NULL;
    int rc = expect(reader, YAML_STREAM_START_EVENT, "not YAML");

    if (rc == 0)
        rc = expect(reader, YAML_DOCUMENT_START_EVENT, "the file is empty");
    if (rc == 0)
        rc = next_event(reader, &event);
    if (rc != 0)
        return rc;
    uint32_t mark = add_mark(reader, NO_PARENT, NULL, 0, event.start_mark);
    rc = read_node(reader, &event, mark, 0, &value);
    yaml_event_delete(&event);
    if (rc == 0)
        rc = expect(reader, YAML_DOCUMENT_END_EVENT, "not YAML");
    if (rc == 0)
        rc = expect(reader, YAML_STREAM_END_EVENT, "more than one document");
    if (rc != 0)
        json_decref(value);
    else
        *ret_value = value;
    return rc;
}

/* By its byte order mark, or by the NUL that it has in every ASCII character. */
static bool is_utf16(const char *text, size_t length)
{
    return length >= 2
           && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0
               || (text[0] == '\0') != (text[1] == '\0'));
}

int yaml_read(const char *text, size_t length, json_t **ret_value, struct yaml_marks **ret_marks,
              struct err *err)
{
    struct reader reader = {.err = err};
    struct yaml_marks *marks;

    if (length > YAML_MAX_BYTES)
        return err_set(err, ERR_BODY_TOO_LARGE, "1:1: more than %d bytes of YAML", YAML_MAX_BYTES);
    if (is_utf16(text, length))
        return err_set(err, ERR_INVALID_ENCODING, "1:1: this is UTF-16; save it as UTF-8");
    if (!yaml_parser_initialize(&reader.parser))
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    marks = mem_new(1, sizeof(*marks));
    reader.marks = marks;
    /* UTF-8 and nothing else; then libyaml leaves a byte order mark to us. */
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        length -= 3;
    }
    reader.text = text;
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    int rc = read_document(&reader, ret_value);
    yaml_parser_delete(&reader.parser);
    if (rc == 0 && ret_marks != NULL)
        *ret_marks = marks;
    else
        yaml_marks_free(marks);
    return rc;
}

void yaml_marks_free(struct yaml_marks *marks)
{
    if (marks == NULL)
        return;
    for (uint32_t i = 0; i < marks->count; i++)
        free(marks->marks[i].key);
    free(marks->marks);
    free(marks);
}

/* One token of a JSON pointer, unescaped (RFC 6901 §4). Returns what follows it. */
static const char *take_token(const char *pointer, struct buf *token)
{
    buf_clear(token);
    buf_puts(token, "");
    for (pointer++; *pointer != '\0' && *pointer != '/'; pointer++) {
        char c = *pointer;
        if (c == '~' && (pointer[1] == '0' || pointer[1] == '1'))
            c = *++pointer == '0' ? '~' : '/';
        buf_append(token, &c, 1);
    }
    return pointer;
}

/* NO_PARENT when there is no such child. */
static uint32_t find_child(const struct yaml_marks *marks, uint32_t parent, const char *token)
{
    char number[24];

    for (uint32_t i = parent + 1; i < marks->count; i++) {
        const struct mark *mark = &marks->marks[i];
        if (mark->parent != parent)
            continue;
        snprintf(number, sizeof(number), "%zu", mark->index);
        if (strcmp(mark->key != NULL ? mark->key : number, token) == 0)
            return i;
    }
    return NO_PARENT;
}

void yaml_locate(const struct yaml_marks *marks, const char *pointer, unsigned *ret_line,
                 unsigned *ret_column)
{
    uint32_t at = 0;
    struct buf token;

    buf_init(&token, 0);
    while (*pointer == '/') {
        pointer = take_token(pointer, &token);
        uint32_t child = find_child(marks, at, token.data);
        if (child == NO_PARENT)
            break;
        at = child;
    }
    buf_fini(&token);
    *ret_line = marks->marks[at].line;
    *ret_column = marks->marks[at].column;
}

static int collect(void *data, unsigned char *bytes, size_t size)
{
    buf_append(data, bytes, size);
    return 1;
}

static void emit(yaml_emitter_t *emitter, yaml_event_t *event, int made)
{
    BUG_ON(!made || !yaml_emitter_emit(emitter, event));
}

/* Words that some reader takes for a truth, nothing, or a number. */
static bool is_typed_word(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on",
                                        "off",  "y",    "n",     "nan", "inf"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(text, words[i]) == 0)
            return true;
    }
    return false;
}

/* -?(0|[1-9][0-9]*)([.][0-9]+)? */
static bool is_decimal(const char *text)
{
    static const char digits[] = "0123456789";
    const char *at = text + (text[0] == '-');
    size_t whole = strspn(at, digits);

    if (whole == 0 || (at[0] == '0' && whole > 1))
        return false;
    at += whole;
    if (at[0] == '\0')
        return true;
    return at[0] == '.' && at[1] != '\0' && at[1 + strspn(at + 1, digits)] == '\0';
}

/* 0x1f, 0o17, 0b11 */
static bool is_radix_number(const char *text)
{
    return text[0] == '0' && text[1] != '\0' && strchr("xXoObB", text[1]) != NULL && text[2] != '\0'
           && text[2 + strspn(text + 2, "0123456789abcdefABCDEF_")] == '\0';
}

bool yaml_is_ambiguous(const char *text)
{
    static const char digits[] = "0123456789";
    const char *at = text + (text[0] == '+' || text[0] == '-');
    size_t length = strspn(at, "0123456789_:.");

    if (is_typed_word(at + (at[0] == '.')) || is_radix_number(at))
        return true;
    if (strcspn(at, digits) >= length)
        return false;
    at += length;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '+' || at[1] == '-');
        at += strspn(at, digits);
    }
    return *at == '\0' && !is_decimal(text);
}

/* Other readers (YAML 1.1) must see a text too: no, 0.60, 1:30, 2026-01-01. */
static bool is_plain_text(const char *text)
{
    return text[0] != '\0' && strchr("0123456789+-.~<=", text[0]) == NULL && !is_typed_word(text);
}

static void emit_scalar(yaml_emitter_t *emitter, const char *text, yaml_scalar_style_t style)
{
    yaml_event_t event;
    /* libyaml wants non-const bytes and copies them. */
    const yaml_char_t *bytes = (const yaml_char_t *)text;

    emit(emitter, &event,
         yaml_scalar_event_initialize(&event, NULL, NULL, (yaml_char_t *)(uintptr_t)bytes,
                                      (int)strlen(text), 1, 1, style));
}

static void emit_text(yaml_emitter_t *emitter, const char *text)
{
    yaml_scalar_style_t style = YAML_PLAIN_SCALAR_STYLE;

    if (!is_plain_text(text))
        style = YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    else if (strchr(text, '\n') != NULL)
        style = YAML_LITERAL_SCALAR_STYLE;
    emit_scalar(emitter, text, style);
}

static void emit_value(yaml_emitter_t *emitter, json_t *value)
{
    yaml_event_t event;

    if (json_is_array(value)) {
        emit(
            emitter, &event,
            yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
        for (size_t i = 0; i < json_array_size(value); i++)
            emit_value(emitter, json_array_get(value, i));
        emit(emitter, &event, yaml_sequence_end_event_initialize(&event));
    } else if (json_is_object(value)) {
        emit(emitter, &event,
             yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
        for (void *at = json_object_iter(value); at != NULL;
             at = json_object_iter_next(value, at)) {
            emit_text(emitter, json_object_iter_key(at));
            emit_value(emitter, json_object_iter_value(at));
        }
        emit(emitter, &event, yaml_mapping_end_event_initialize(&event));
    } else if (json_is_string(value)) {
        emit_text(emitter, json_string_value(value));
    } else {
        char *text = json_write(value);
        emit_scalar(emitter, text, YAML_PLAIN_SCALAR_STYLE);
        free(text);
    }
}

char *yaml_write(const json_t *value)
{
    yaml_emitter_t emitter;
    yaml_event_t event;
    struct buf out;

    buf_init(&out, 0);
    BUG_ON(!yaml_emitter_initialize(&emitter));
    yaml_emitter_set_output(&emitter, collect, &out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    emit(&emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
    emit(&emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
    /* jansson's iterators want a non-const value and change nothing. */
    emit_value(&emitter, (json_t *)(uintptr_t)value);
    emit(&emitter, &event, yaml_document_end_event_initialize(&event, 1));
    emit(&emitter, &event, yaml_stream_end_event_initialize(&event));
    yaml_emitter_delete(&emitter);
    BUG_ON(out.full);
    return buf_take(&out);
}
