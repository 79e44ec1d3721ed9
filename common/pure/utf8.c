#include "common/pure/utf8.h"

#include <stdint.h>
#include <string.h>

/* Length of the sequence that starts at text, 0 if there is none (RFC 3629 §4). */
static size_t sequence(const unsigned char *text, size_t length)
{
    size_t need = text[0] < 0x80 ? 1 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
    uint32_t code = text[0];

    if (need == 1)
        return 1;
    if (text[0] < 0xc2 || text[0] > 0xf4 || length < need)
        return 0;
    code &= 0xffu >> (need + 1);
    for (size_t i = 1; i < need; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    if (need == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
        return 0;
    if (need == 4 && (code < 0x10000 || code > 0x10ffff))
        return 0;
    return need;
}

bool utf8_is_valid(const char *text, size_t length)
{
    const unsigned char *at = (const unsigned char *)text;

    while (length > 0) {
        size_t step = sequence(at, length);
        if (step == 0)
            return false;
        at += step;
        length -= step;
    }
    return true;
}

void utf8_repair(char *text)
{
    size_t length = strlen(text);

    while (length > 0) {
        size_t step = sequence((const unsigned char *)text, length);
        if (step == 0) {
            *text = '?';
            step = 1;
        }
        text += step;
        length -= step;
    }
}

/* C0, DEL, C1; U+200E-200F, U+202A-202E and U+2066-2069 write from the other side. */
static bool is_shown(const unsigned char *at, size_t step)
{
    if (step == 1)
        return at[0] >= 0x20 && at[0] != 0x7f;
    if (step == 2)
        return at[0] != 0xc2 || at[1] >= 0xa0;
    if (step == 3 && at[0] == 0xe2 && at[1] == 0x80)
        return !(at[2] == 0x8e || at[2] == 0x8f || (at[2] >= 0xa8 && at[2] <= 0xae));
    if (step == 3 && at[0] == 0xe2 && at[1] == 0x81)
        return !(at[2] >= 0xa6 && at[2] <= 0xa9);
    return step > 0;
}

void utf8_show(const char *text, size_t length, struct buf *out)
{
    const unsigned char *at = (const unsigned char *)text;

    while (length > 0) {
        size_t step = sequence(at, length);
        if (is_shown(at, step)) {
            buf_append(out, at, step);
        } else {
            step = step == 0 ? 1 : step;
            for (size_t i = 0; i < step; i++)
                buf_printf(out, "\\x%02x", at[i]);
        }
        at += step;
        length -= step;
    }
}
