#include "common/pure/id.h"

#include <string.h>

static const char digits[] = "0123456789abcdef";

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

struct uuid uuid_make(uint64_t unix_ms, const uint8_t random[10])
{
    struct uuid id;

    for (int i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)(unix_ms >> (8 * (5 - i)));
    memcpy(id.bytes + 6, random, 10);
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x70);
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80);
    return id;
}

bool uuid_is_nil(const struct uuid *id)
{
    static const struct uuid nil;

    return memcmp(id, &nil, sizeof(nil)) == 0;
}

int uuid_compare(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

char *uuid_format(const struct uuid *id, char out[UUID_TEXT])
{
    char *at = out;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        *at++ = digits[id->bytes[i] >> 4];
        *at++ = digits[id->bytes[i] & 15];
    }
    *at = '\0';
    return out;
}

int uuid_parse(const char *text, struct uuid *ret_id)
{
    struct uuid id;
    const char *at = text;

    if (strnlen(text, UUID_TEXT) != UUID_TEXT - 1)
        return -ERR_INVALID_ID;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (*at++ != '-')
                return -ERR_INVALID_ID;
        }
        int high = digit_value((char)(at[0] >= 'A' && at[0] <= 'F' ? at[0] + 32 : at[0]));
        int low = digit_value((char)(at[1] >= 'A' && at[1] <= 'F' ? at[1] + 32 : at[1]));
        if (high < 0 || low < 0)
            return -ERR_INVALID_ID;
        id.bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    *ret_id = id;
    return 0;
}

char *hex_format(const void *bytes, size_t length, char *out)
{
    const uint8_t *from = bytes;

    for (size_t i = 0; i < length; i++) {
        out[2 * i] = digits[from[i] >> 4];
        out[2 * i + 1] = digits[from[i] & 15];
    }
    out[2 * length] = '\0';
    return out;
}

int hex_parse(const char *text, size_t length, void *ret_bytes)
{
    uint8_t *to = ret_bytes;

    if (strnlen(text, 2 * length + 1) != 2 * length)
        return -ERR_INVALID_ID;
    for (size_t i = 0; i < 2 * length; i++) {
        if (digit_value(text[i]) < 0)
            return -ERR_INVALID_ID;
    }
    for (size_t i = 0; i < length; i++)
        to[i] = (uint8_t)((unsigned)digit_value(text[2 * i]) << 4
                          | (unsigned)digit_value(text[2 * i + 1]));
    return 0;
}
