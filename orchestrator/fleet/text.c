#include "orchestrator/fleet/text.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Length of the UTF-8 character at text (1 to 4), or 0 when there is none: overlong forms,
 * surrogates and values beyond U+10FFFF are none (RFC 3629 §4).
 */
static size_t utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        size_t length;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (text[0] < forms[i].first_low || text[0] > forms[i].first_high)
            continue;
        if (forms[i].length > 1
            && (text[1] < forms[i].second_low || text[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++) {
            if (text[k] < 0x80 || text[k] > 0xbf)
                return 0;
        }
        return forms[i].length;
    }
    return 0;
}

static bool is_control(const unsigned char *text, size_t length)
{
    /* C0, DEL, and C1 (U+0080 to U+009F). */
    return (length == 1 && (*text < 0x20 || *text == 0x7f))
           || (length == 2 && *text == 0xc2 && text[1] < 0xa0);
}

void text_take(char *out, size_t size, const char *text)
{
    const unsigned char *from = (const unsigned char *)text;
    size_t used = 0;

    while (*from) {
        size_t length = utf8_length(from);

        if (length == 0 || is_control(from, length)) {
            if (used + 1 >= size)
                break;
            out[used++] = length ? ' ' : '?';
            from += length ? length : 1;
            continue;
        }
        if (used + length >= size)
            break;
        memcpy(out + used, from, length);
        used += length;
        from += length;
    }
    out[used] = 0;
}

bool text_is_clean(const char *text, size_t size)
{
    const unsigned char *from = (const unsigned char *)text;

    if (strlen(text) >= size)
        return false;
    while (*from) {
        size_t length = utf8_length(from);

        if (length == 0 || is_control(from, length))
            return false;
        from += length;
    }
    return true;
}

bool text_is_address(const char *text)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, text, &v4) == 1)
        return v4.s_addr != htonl(INADDR_ANY) && !IN_MULTICAST(ntohl(v4.s_addr))
               && v4.s_addr != htonl(INADDR_BROADCAST);
    if (inet_pton(AF_INET6, text, &v6) == 1)
        return !IN6_IS_ADDR_UNSPECIFIED(&v6) && !IN6_IS_ADDR_MULTICAST(&v6);
    return false;
}

bool text_is_endpoint(const char *text, size_t size)
{
    const char *colon = strrchr(text, ':');
    long port = 0;

    if (strlen(text) >= size || strncmp(text, "tcp://", 6) != 0 || colon == NULL)
        return false;
    if (colon <= text + 6 || !text_is_clean(text, size) || strchr(text, ' '))
        return false;
    for (const char *digit = colon + 1; *digit; digit++) {
        if (*digit < '0' || *digit > '9' || port > 65535)
            return false;
        port = port * 10 + (*digit - '0');
    }
    return port >= 1 && port <= 65535;
}
