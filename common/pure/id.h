#ifndef SHEAF_COMMON_PURE_ID_H
#define SHEAF_COMMON_PURE_ID_H

/*
 * Ids. The core counts in 64 bits (`uint64_t`, 0 = none). What people and other programs see is a
 * UUIDv7 made by a shell (RFC 9562 §5.7): sortable by time, so that pages are cheap.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/err.h"

struct uuid {
    uint8_t bytes[16];
};

#define UUID_TEXT 37 /* 36 characters and the terminator */

/* From milliseconds since 1970 and 10 random bytes. Pure: the caller brings clock and chance. */
struct uuid uuid_make(uint64_t unix_ms, const uint8_t random[10]);
bool uuid_is_nil(const struct uuid *id);
int uuid_compare(const struct uuid *a, const struct uuid *b);
/* Lower case, with dashes. out has UUID_TEXT bytes. Returns out. */
char *uuid_format(const struct uuid *id, char out[UUID_TEXT]);
/* Exactly 36 characters, either case. ERR_INVALID_ID. */
int uuid_parse(const char *text, struct uuid *ret_id) SHEAF_MUST_USE;

/* out has 2 x length + 1 bytes. Returns out. */
char *hex_format(const void *bytes, size_t length, char *out);
/* Reads exactly length bytes from 2 x length lower-case digits. ERR_INVALID_ID. */
int hex_parse(const char *text, size_t length, void *ret_bytes) SHEAF_MUST_USE;

#endif
