#ifndef SHEAF_ORCHESTRATOR_GATEWAY_WORK_H
#define SHEAF_ORCHESTRATOR_GATEWAY_WORK_H

/*
 * One thread for what blocks: hashing and syncing of whole files. Jobs run in order; their ends are
 * told on the loop.
 */
#include <event2/event.h>
#include <stdint.h>

#include "common/pure/err.h"

struct work;

struct work_item {
    /* On the thread: touches nothing but the item. */
    int (*run)(struct work_item *item, struct err *err);
    /* On the loop: takes the item back. */
    void (*on_done)(struct work_item *item, int rc, const struct err *err);
    struct work_item *next;
    int rc;
    struct err err;
};

int work_new(struct event_base *base, struct work **ret_work, struct err *err) SHEAF_MUST_USE;
/* Waits for the running item; the others are dropped unrun (their on_done is not called). */
void work_free(struct work *work);
/* False when too many wait already: the item was not taken. */
bool work_post(struct work *work, struct work_item *item) SHEAF_MUST_USE;
uint64_t work_waiting(const struct work *work);

#endif
