#ifndef SHEAF_COMMON_IO_NOTIFY_H
#define SHEAF_COMMON_IO_NOTIFY_H

/*
 * What a daemon tells the service manager that started it (sd_notify(3)): that it serves, how it
 * is, that it stops, and, where the unit has a watchdog, that its loop still turns. Without a
 * service manager nothing happens. It never fails: a daemon that cannot tell serves all the same.
 */
#include <event2/event.h>

struct notify;

/* Feeds the watchdog from the loop, if one is set. */
struct notify *notify_new(struct event_base *base);
void notify_free(struct notify *notify);
/* Serving; status is one line for `systemctl status`. */
void notify_ready(struct notify *notify, const char *status);
void notify_status(struct notify *notify, const char *status);
void notify_stopping(struct notify *notify);

#endif
