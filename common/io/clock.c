#include "common/io/clock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec now;

    BUG_ON(clock_gettime(id, &now) != 0);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_wall_us(void)
{
    return read_clock(CLOCK_REALTIME);
}

int64_t clock_mono_us(void)
{
    return read_clock(CLOCK_BOOTTIME);
}

char *clock_format(int64_t wall_us, char out[32])
{
    int64_t ms = wall_us / 1000 % 1000;
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm = {0};

    if (ms < 0) {
        ms += 1000;
        seconds -= 1;
    }
    /* Beyond year 9999 RFC 3339 has no form; nothing of ours is that far. */
    if (seconds > (time_t)253402300799 || gmtime_r(&seconds, &tm) == NULL || tm.tm_year < -1900) {
        snprintf(out, 32, "9999-12-31T23:59:59.999Z");
        return out;
    }
    size_t length = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + length, 32 - length, ".%03dZ", (int)ms);
    return out;
}

void random_bytes(void *out, size_t length)
{
    unsigned char *at = out;

    while (length > 0) {
        ssize_t got = getrandom(at, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        BUG_ON(got <= 0);
        at += got;
        length -= (size_t)got;
    }
}

struct uuid uuid_new(void)
{
    uint8_t random[10];

    random_bytes(random, sizeof(random));
    return uuid_make((uint64_t)clock_wall_us() / 1000, random);
}
