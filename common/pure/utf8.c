#include "common/pure/utf8.h"

#include <stdint.h>
#include <string.h>

/* Length of the sequence that starts at text, 0 if there is none (RFC 3629 §4). */
static size_t sequence(const unsigned char *text, size_t length, uint32_t *ret_code)
{
    size_t need = text[0] < 0x80 ? 1 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
    uint32_t code = text[0];

    *ret_code = code;
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
    *ret_code = code;
    return need;
}

bool utf8_is_valid(const char *text, size_t length)
{
    const unsigned char *at = (const unsigned char *)text;
    uint32_t code;

    while (length > 0) {
        size_t step = sequence(at, length, &code);
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
    uint32_t code;

    while (length > 0) {
        size_t step = sequence((const unsigned char *)text, length, &code);
        if (step == 0) {
            *text = '?';
            step = 1;
        }
        text += step;
        length -= step;
    }
}

/* Code points that move, hide or break what stands beside them where a text is shown. */
static bool is_unseen(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c
           || (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e)
           || (code >= 0x2060 && code <= 0x206f) || code == 0xfeff;
}

void utf8_show(const char *text, size_t length, struct buf *out)
{
    while (length > 0) {
        uint32_t code;
        size_t step = sequence((const unsigned char *)text, length, &code);
        if (step > 0 && !is_unseen(code)) {
            buf_append(out, text, step);
        } else if (step > 1) {
            buf_printf(out, "\\u{%x}", code);
        } else {
            step = 1;
            buf_printf(out, "\\x%02x", (unsigned char)text[0]);
        }
        text += step;
        length -= step;
    }
}
