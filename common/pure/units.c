#include "common/pure/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Reads "12.5ms": value x factor must be whole and fit 64 bits. */
static int parse(const char *text, const struct unit *units, size_t unit_count, uint64_t *ret_value)
{
    uint64_t whole = 0;
    uint64_t fraction = 0;
    uint64_t scale = 1;
    const char *at = text;

    if (*at < '0' || *at > '9')
        return -ERR_INVALID_QUANTITY;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(whole, 10, &whole)
            || __builtin_add_overflow(whole, (uint64_t)(*at - '0'), &whole))
            return -ERR_INVALID_QUANTITY;
    }
    if (*at == '.') {
        at++;
        if (*at < '0' || *at > '9')
            return -ERR_INVALID_QUANTITY;
        for (; *at >= '0' && *at <= '9'; at++) {
            if (scale > 100000000)
                return -ERR_INVALID_QUANTITY;
            fraction = fraction * 10 + (uint64_t)(*at - '0');
            scale *= 10;
        }
    }
    if (*at == '\0' && whole == 0 && fraction == 0) {
        *ret_value = 0;
        return 0;
    }
    for (size_t i = 0; i < unit_count; i++) {
        uint64_t value;
        uint64_t rest;

        if (strcmp(at, units[i].name) != 0)
            continue;
        if (__builtin_mul_overflow(whole, units[i].factor, &value)
            || __builtin_mul_overflow(fraction, units[i].factor, &rest) || rest % scale != 0
            || __builtin_add_overflow(value, rest / scale, &value))
            return -ERR_INVALID_QUANTITY;
        *ret_value = value;
        return 0;
    }
    return -ERR_INVALID_QUANTITY;
}

int units_parse_bytes(const char *text, uint64_t *ret_bytes)
{
    static const struct unit units[] = {
        {"B", 1},
        {"kB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", 1000000000000},
        {"KiB", (uint64_t)1 << 10},
        {"MiB", (uint64_t)1 << 20},
        {"GiB", (uint64_t)1 << 30},
        {"TiB", (uint64_t)1 << 40},
    };

    return parse(text, units, sizeof(units) / sizeof(units[0]), ret_bytes);
}

int units_parse_duration(const char *text, uint64_t *ret_us)
{
    static const struct unit units[] = {
        {"us", 1},       {"ms", 1000},       {"s", 1000000},
        {"m", 60000000}, {"h", 3600000000u}, {"d", 86400000000u},
    };

    return parse(text, units, sizeof(units) / sizeof(units[0]), ret_us);
}

char *units_format_bytes(uint64_t bytes, char out[UNITS_TEXT])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    uint64_t scale = 1;

    if (bytes >= 1000000000 && bytes % 1000000000 == 0) {
        snprintf(out, UNITS_TEXT, "%" PRIu64 " GB", bytes / 1000000000);
        return out;
    }
    if (bytes >= 1000000 && bytes % 1000000 == 0) {
        snprintf(out, UNITS_TEXT, "%" PRIu64 " MB", bytes / 1000000);
        return out;
    }
    while (unit < 4 && bytes / scale >= 1024) {
        unit++;
        scale *= 1024;
    }
    uint64_t tenths = bytes / scale * 10 + bytes % scale * 10 / scale;
    if (tenths % 10 == 0 || unit == 0)
        snprintf(out, UNITS_TEXT, "%" PRIu64 " %s", tenths / 10, names[unit]);
    else
        snprintf(out, UNITS_TEXT, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10,
                 names[unit]);
    return out;
}

char *units_format_duration(uint64_t us, char out[UNITS_TEXT])
{
    uint64_t s = us / 1000000;

    if (us < 1000)
        snprintf(out, UNITS_TEXT, "%" PRIu64 " us", us);
    else if (us < 1000000)
        snprintf(out, UNITS_TEXT, "%" PRIu64 ".%" PRIu64 " ms", us / 1000, us % 1000 / 100);
    else if (s < 60)
        snprintf(out, UNITS_TEXT, "%" PRIu64 ".%" PRIu64 " s", s, us % 1000000 / 100000);
    else if (s < 3600)
        snprintf(out, UNITS_TEXT, "%" PRIu64 "m %02" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, UNITS_TEXT, "%" PRIu64 "h %02" PRIu64 "m", s / 3600, s % 3600 / 60);
    else
        snprintf(out, UNITS_TEXT, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s % 86400 / 3600);
    return out;
}
