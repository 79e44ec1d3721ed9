#ifndef SHEAF_COMMON_IO_JSON_H
#define SHEAF_COMMON_IO_JSON_H

/* JSON in and out by jansson, with the limits of our border. */
#include <jansson.h>
#include <stddef.h>

#include "common/pure/err.h"
#include "common/pure/money.h"

#define JSON_MAX_DEPTH 32

/*
 * Strict RFC 8259: duplicate keys, trailing bytes, NUL in texts, invalid UTF-8 and depth beyond
 * JSON_MAX_DEPTH are refused. ERR_MALFORMED_JSON with line:column and offset, ERR_DUPLICATE_KEY,
 * ERR_NESTING_TOO_DEEP, ERR_INVALID_ENCODING, ERR_OUT_OF_RANGE for a number that 64 bits lose. The
 * caller owns the reference.
 */
int json_read(const void *bytes, size_t length, json_t **ret_value, struct err *err) SHEAF_MUST_USE;
/* Compact, keys in insertion order; caller frees. */
char *json_write(const json_t *value);
/* Keys sorted: the canonical form that is hashed and stored. Caller frees. */
char *json_write_canonical(const json_t *value);

json_t *json_money(micro_t amount); /* decimal string */
json_t *json_time(int64_t wall_us); /* RFC 3339 or null for 0 */
json_t *json_uuid(const uint8_t uuid[16]);
json_t *json_hex(const void *bytes, size_t length);
/* NULL when absent or not a string. */
const char *json_text(const json_t *object, const char *key);

#endif
