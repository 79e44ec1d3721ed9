#include "orchestrator/gateway/number.h"

static unsigned digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

bool number_take(const char **text, unsigned base, size_t max_digits, uint64_t *ret_value)
{
    const char *at = *text;
    uint64_t value = 0;
    size_t digits = 0;

    for (; digit_value(*at) < base; at++) {
        if (++digits > max_digits)
            return false;
        value = value * base + digit_value(*at);
    }
    if (digits == 0)
        return false;
    *text = at;
    *ret_value = value;
    return true;
}

bool number_read(const char *text, size_t max_digits, uint64_t *ret_value)
{
    uint64_t value;

    if (!number_take(&text, 10, max_digits, &value) || *text != '\0')
        return false;
    *ret_value = value;
    return true;
}
