#include "common/io/base64.h"

#include <limits.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"

void base64_encode(enum base64_kind kind, const void *bytes, size_t length, struct buf *out)
{
    BUG_ON(length > INT_MAX / 2);
    char *text = mem_new((length + 2) / 3 * 4 + 1, 1);
    size_t text_length = (size_t)EVP_EncodeBlock((unsigned char *)text, bytes, (int)length);

    if (kind == BASE64_URL) {
        while (text_length > 0 && text[text_length - 1] == '=')
            text_length--;
        for (size_t i = 0; i < text_length; i++) {
            if (text[i] == '+')
                text[i] = '-';
            else if (text[i] == '/')
                text[i] = '_';
        }
    }
    buf_append(out, text, text_length);
    free(text);
}

/* The character of the standard alphabet; 0 for one that has none. */
static char standard(enum base64_kind kind, char c)
{
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
        return c;
    if (c == (kind == BASE64_URL ? '-' : '+'))
        return '+';
    if (c == (kind == BASE64_URL ? '_' : '/'))
        return '/';
    return '\0';
}

int base64_decode(enum base64_kind kind, const char *text, size_t length, struct buf *out)
{
    size_t padding = 0;

    if (length > INT_MAX / 2)
        return -ERR_INVALID_ENCODING;
    if (kind == BASE64_STANDARD) {
        if (length % 4 != 0)
            return -ERR_INVALID_ENCODING;
        while (padding < 2 && padding < length && text[length - 1 - padding] == '=')
            padding++;
        length -= padding;
    } else {
        padding = (4 - length % 4) % 4;
        if (padding == 3)
            return -ERR_INVALID_ENCODING;
    }
    char *block = mem_new(length + padding + 1, 1);
    bool valid = true;
    for (size_t i = 0; i < length; i++) {
        block[i] = standard(kind, text[i]);
        valid &= block[i] != '\0';
    }
    memset(block + length, '=', padding);
    unsigned char *bytes = mem_new((length + padding) / 4 * 3 + 1, 1);
    int got = valid ? EVP_DecodeBlock(bytes, (unsigned char *)block, (int)(length + padding)) : -1;
    if (got >= 0)
        buf_append(out, bytes, (size_t)got - padding);
    free(block);
    free(bytes);
    return got < 0 ? -ERR_INVALID_ENCODING : 0;
}
