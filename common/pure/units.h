#ifndef SHEAF_COMMON_PURE_UNITS_H
#define SHEAF_COMMON_PURE_UNITS_H

/*
 * Quantities with units, as job files and configs write them. GB = 10^9 bytes, GiB = 2^30 bytes; a
 * bare number is refused, except 0. One space between number and unit is refused too: "24GB".
 * Fractions ("1.5ms") are exact or refused.
 */
#include <stdint.h>

#include "common/pure/err.h"

#define MIB ((uint64_t)1 << 20)

/* What is accepted, for messages. */
#define UNITS_OF_BYTES    "B kB MB GB TB KiB MiB GiB TiB"
#define UNITS_OF_DURATION "us ms s m h d"

/* → bytes. ERR_INVALID_QUANTITY. */
int units_parse_bytes(const char *text, uint64_t *ret_bytes) SHEAF_MUST_USE;
/* → microseconds. ERR_INVALID_QUANTITY. */
int units_parse_duration(const char *text, uint64_t *ret_us) SHEAF_MUST_USE;

#define UNITS_TEXT 32
/* "24 GB", "11.9 GiB", "512 MiB": binary units unless the value is a whole number of MB. For
 * people. */
char *units_format_bytes(uint64_t bytes, char out[UNITS_TEXT]);
/* "380 us", "2.1 ms", "4.0 s", "3m 20s", "2h 05m", "3d 4h". For people. */
char *units_format_duration(uint64_t us, char out[UNITS_TEXT]);

#endif
