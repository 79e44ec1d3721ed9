#include "common/io/notify.h"

#include <stdint.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "common/pure/err.h"
#include "common/pure/mem.h"

struct notify {
    struct event *watchdog; /* NULL: none is set */
};

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    (void)sd_notify(0, "WATCHDOG=1");
}

struct notify *notify_new(struct event_base *base)
{
    struct notify *notify = mem_new(1, sizeof(*notify));
    uint64_t limit_us = 0;

    if (sd_watchdog_enabled(0, &limit_us) > 0) {
        uint64_t every_us = limit_us / 2; /* as sd_watchdog_enabled(3) advises */
        struct timeval every = {.tv_sec = (time_t)(every_us / 1000000),
                                .tv_usec = (suseconds_t)(every_us % 1000000)};
        notify->watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, notify);
        BUG_ON(notify->watchdog == NULL || event_add(notify->watchdog, &every) != 0);
    }
    return notify;
}

void notify_free(struct notify *notify)
{
    if (notify == NULL)
        return;
    if (notify->watchdog != NULL)
        event_free(notify->watchdog);
    free(notify);
}

void notify_ready(struct notify *notify, const char *status)
{
    (void)notify;
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_status(struct notify *notify, const char *status)
{
    (void)notify;
    (void)sd_notifyf(0, "STATUS=%s", status);
}

void notify_stopping(struct notify *notify)
{
    (void)notify;
    (void)sd_notify(0, "STOPPING=1");
}
