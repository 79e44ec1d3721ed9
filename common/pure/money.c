#include "common/pure/money.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PLACES      6
#define MS_PER_HOUR 3600000u

__extension__ typedef unsigned __int128 wide_t;

int money_parse(const char *text, micro_t *ret_amount)
{
    micro_t amount = 0;
    int places = -1;
    int digit_count = 0;

    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '.' && places < 0 && digit_count > 0) {
            places = 0;
            continue;
        }
        if (*at < '0' || *at > '9' || places == PLACES)
            return -ERR_INVALID_AMOUNT;
        if (amount > MICRO_MAX)
            return -ERR_INVALID_AMOUNT;
        amount = amount * 10 + (*at - '0');
        digit_count++;
        if (places >= 0)
            places++;
    }
    if (digit_count == 0 || places == 0)
        return -ERR_INVALID_AMOUNT;
    for (int i = places < 0 ? 0 : places; i < PLACES; i++) {
        if (__builtin_mul_overflow(amount, 10, &amount))
            return -ERR_INVALID_AMOUNT;
    }
    if (amount > MICRO_MAX)
        return -ERR_INVALID_AMOUNT;
    *ret_amount = amount;
    return 0;
}

char *money_format(micro_t amount, char out[MONEY_TEXT])
{
    uint64_t magnitude = amount < 0 ? 0 - (uint64_t)amount : (uint64_t)amount;
    int length = snprintf(out, MONEY_TEXT, "%s%" PRIu64 ".%06" PRIu64, amount < 0 ? "-" : "",
                          magnitude / 1000000, magnitude % 1000000);

    for (int i = 0; i < 4 && out[length - 1] == '0'; i++)
        out[--length] = '\0';
    return out;
}

static micro_t saturate(wide_t value)
{
    return value > (wide_t)MICRO_MAX ? MICRO_MAX : (micro_t)value;
}

micro_t money_bill(micro_t rate_per_hour, uint64_t milliseconds)
{
    BUG_ON(rate_per_hour < 0);
    return saturate((wide_t)(uint64_t)rate_per_hour * milliseconds / MS_PER_HOUR);
}

micro_t money_hold(micro_t rate_per_hour, uint64_t milliseconds)
{
    BUG_ON(rate_per_hour < 0);
    wide_t product = (wide_t)(uint64_t)rate_per_hour * milliseconds;
    return saturate((product + MS_PER_HOUR - 1) / MS_PER_HOUR);
}

micro_t money_share(micro_t amount, uint32_t ppm)
{
    BUG_ON(amount < 0 || ppm > PPM);
    return (micro_t)((wide_t)(uint64_t)amount * ppm / PPM);
}
