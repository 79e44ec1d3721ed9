#include "common/pure/utf8.h"

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

size_t utf8_take(const char *text, uint32_t *ret_code)
{
    return sequence((const unsigned char *)text, strnlen(text, 4), ret_code);
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
