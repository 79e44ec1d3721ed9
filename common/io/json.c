#include "common/io/json.h"

#include <string.h>

#include "common/io/clock.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"

static bool is_too_deep(json_t *value, int levels)
{
    if (!json_is_object(value) && !json_is_array(value))
        return false;
    if (levels == 0)
        return true;
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (is_too_deep(json_array_get(value, i), levels - 1))
            return true;
    }
    for (void *at = json_object_iter(value); at != NULL; at = json_object_iter_next(value, at)) {
        if (is_too_deep(json_object_iter_value(at), levels - 1))
            return true;
    }
    return false;
}

static enum err_code code_of(const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);

    if (code == json_error_duplicate_key)
        return ERR_DUPLICATE_KEY;
    if (code == json_error_stack_overflow)
        return ERR_NESTING_TOO_DEEP;
    if (code == json_error_invalid_utf8 || code == json_error_null_character
        || code == json_error_null_byte_in_key)
        return ERR_INVALID_ENCODING;
    if (code == json_error_numeric_overflow)
        return ERR_OUT_OF_RANGE;
    /* A surrogate alone is good syntax and no text; jansson has one code for all of that. */
    if (strncmp(error->text, "invalid Unicode", 15) == 0)
        return ERR_INVALID_ENCODING;
    return ERR_MALFORMED_JSON;
}

int json_read(const void *bytes, size_t length, json_t **ret_value, struct err *err)
{
    json_error_t error;
    json_t *value = json_loadb(length > 0 ? bytes : "", length,
                               JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);

    if (value == NULL)
        return err_set(err, code_of(&error), "%d:%d (byte %d): %s", error.line, error.column,
                       error.position, error.text);
    if (is_too_deep(value, JSON_MAX_DEPTH)) {
        json_decref(value);
        return err_set(err, ERR_NESTING_TOO_DEEP, "more than %d levels", JSON_MAX_DEPTH);
    }
    *ret_value = value;
    return 0;
}

static char *dump(const json_t *value, size_t flags)
{
    char *text = json_dumps(value, flags | JSON_COMPACT | JSON_ENCODE_ANY);

    BUG_ON(text == NULL);
    return text;
}

char *json_write(const json_t *value)
{
    return dump(value, 0);
}

char *json_write_canonical(const json_t *value)
{
    return dump(value, JSON_SORT_KEYS);
}

static json_t *text_value(const char *text)
{
    json_t *value = json_string(text);

    BUG_ON(value == NULL);
    return value;
}

json_t *json_money(micro_t amount)
{
    char text[MONEY_TEXT];

    return text_value(money_format(amount, text));
}

json_t *json_time(int64_t wall_us)
{
    char text[32];

    return wall_us == 0 ? json_null() : text_value(clock_format(wall_us, text));
}

json_t *json_uuid(const uint8_t uuid[16])
{
    char text[UUID_TEXT];
    struct uuid id;

    memcpy(id.bytes, uuid, sizeof(id.bytes));
    return text_value(uuid_format(&id, text));
}

json_t *json_hex(const void *bytes, size_t length)
{
    char *text = mem_new(2 * length + 1, 1);
    json_t *value = text_value(hex_format(bytes, length, text));

    free(text);
    return value;
}

const char *json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}
