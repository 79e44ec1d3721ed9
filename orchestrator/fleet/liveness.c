#include "orchestrator/fleet/liveness.h"

#include <stdlib.h>

#include "common/pure/err.h"
#include "common/pure/map.h"
#include "common/pure/mem.h"

/* Tickets of one delay: appended in order of due time, so the head is the earliest. */
struct ticket_list {
    struct ticket *head;
    struct ticket *tail;
};

struct ticket {
    uint64_t node;
    int64_t due_us; /* attended time */
    bool silent;
    struct ticket_list *list; /* NULL while silent: nothing to wait for */
    struct ticket *previous;
    struct ticket *next;
};

struct liveness {
    struct liveness_options options;
    struct map tickets;
    struct ticket_list first;   /* not heard of yet: boot_grace */
    struct ticket_list beating; /* silent_after */
    int64_t attended_us;
    int64_t last_tick_us;
    bool ticked;
    uint32_t silent;
};

static void ticket_unlink(struct ticket *ticket)
{
    struct ticket_list *list = ticket->list;

    if (list == NULL)
        return;
    if (ticket->previous)
        ticket->previous->next = ticket->next;
    else
        list->head = ticket->next;
    if (ticket->next)
        ticket->next->previous = ticket->previous;
    else
        list->tail = ticket->previous;
    ticket->previous = NULL;
    ticket->next = NULL;
    ticket->list = NULL;
}

static void ticket_append(struct ticket *ticket, struct ticket_list *list, int64_t due_us)
{
    BUG_ON(ticket->list != NULL || (list->tail && list->tail->due_us > due_us));
    ticket->due_us = due_us;
    ticket->list = list;
    ticket->previous = list->tail;
    if (list->tail)
        list->tail->next = ticket;
    else
        list->head = ticket;
    list->tail = ticket;
}

struct liveness *liveness_new(const struct liveness_options *options)
{
    struct liveness *liveness = mem_new(1, sizeof(*liveness));

    BUG_ON(options->stall_us <= 0);
    liveness->options = *options;
    map_init(&liveness->tickets);
    return liveness;
}

void liveness_free(struct liveness *liveness)
{
    if (liveness == NULL)
        return;
    for (uint32_t i = 0; i < liveness->tickets.count; i++)
        free(map_at(&liveness->tickets, i));
    map_fini(&liveness->tickets);
    free(liveness);
}

void liveness_watch(struct liveness *liveness, uint64_t node, bool silent)
{
    struct ticket *ticket;

    if (map_get_id(&liveness->tickets, node))
        return;
    ticket = mem_new(1, sizeof(*ticket));
    ticket->node = node;
    ticket->silent = silent;
    map_put_id(&liveness->tickets, node, ticket);
    if (silent)
        liveness->silent++;
    else
        ticket_append(ticket, &liveness->first,
                      liveness->attended_us + liveness->options.boot_grace_us);
}

void liveness_forget(struct liveness *liveness, uint64_t node)
{
    struct ticket *ticket = map_remove_id(&liveness->tickets, node);

    if (ticket == NULL)
        return;
    ticket_unlink(ticket);
    if (ticket->silent)
        liveness->silent--;
    free(ticket);
}

bool liveness_seen(struct liveness *liveness, uint64_t node)
{
    struct ticket *ticket = map_get_id(&liveness->tickets, node);
    bool back;

    if (ticket == NULL) {
        liveness_watch(liveness, node, false);
        ticket = map_get_id(&liveness->tickets, node);
    }
    back = ticket->silent;
    if (back) {
        ticket->silent = false;
        liveness->silent--;
    }
    ticket_unlink(ticket);
    ticket_append(ticket, &liveness->beating,
                  liveness->attended_us + liveness->options.silent_after_us);
    return back;
}

static void list_expire(struct liveness *liveness, struct ticket_list *list,
                        liveness_on_silent_f on_silent, void *arg)
{
    while (list->head && list->head->due_us <= liveness->attended_us) {
        struct ticket *ticket = list->head;

        ticket_unlink(ticket);
        ticket->silent = true;
        liveness->silent++;
        on_silent(ticket->node, arg);
    }
}

void liveness_tick(struct liveness *liveness, int64_t now_us, liveness_on_silent_f on_silent,
                   void *arg)
{
    int64_t passed = liveness->ticked ? now_us - liveness->last_tick_us : 0;

    if (passed > liveness->options.stall_us)
        passed = liveness->options.stall_us;
    if (passed > 0)
        liveness->attended_us += passed;
    liveness->last_tick_us = now_us;
    liveness->ticked = true;
    list_expire(liveness, &liveness->first, on_silent, arg);
    list_expire(liveness, &liveness->beating, on_silent, arg);
}

uint32_t liveness_silent_count(const struct liveness *liveness)
{
    return liveness->silent;
}
