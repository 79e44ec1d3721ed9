/* Links: what was measured, and who measures next. */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

/*
 * A probe without an answer is repeated after this, then after twice as long, and so on, but never
 * less often than a measured link. One round takes a worker up to 4 s: asked sooner, rounds pile
 * up.
 */
#define PROBE_RETRY_US       ((usec_t)5 * 1000000)
#define PROBE_RETRY_DOUBLING 4u

/* -- results --------------------------------------------------------------------------------- */

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Both ends see one path; the worse report stands, as far as both were heard. */
static void merge(const struct pair *pair, struct link_row *row)
{
    const struct direction *side = pair->side;
    uint32_t p50 = 0;
    uint32_t p95 = 0;
    uint32_t loss = 0;

    for (int i = 0; i < 2; i++) {
        if (!side[i].known)
            continue;
        p50 = larger(p50, side[i].p50_us);
        p95 = larger(p95, side[i].p95_us);
        loss = larger(loss, side[i].loss_ppm);
    }
    row->rtt_p50_us = p50;
    row->rtt_p95_us = p95;
    row->loss_ppm = loss;
}

static bool is_answered(const struct pair *pair)
{
    return pair->measured && pair->side[0].known && pair->side[1].known
           && pair->row.rtt_p95_us != 0;
}

void link_measured(struct step *step, const struct ev_link *link)
{
    struct world *world = step->world;
    const struct node *from = table_get(&world->nodes, link->from);
    const struct node *to = table_get(&world->nodes, link->to);

    if (from == NULL || to == NULL || from == to || from->row.state == NODE_GONE
        || to->row.state == NODE_GONE)
        return;
    struct pair *pair = pair_need(world, link->from, link->to);
    bool from_a = link->from == pair->row.a;
    struct direction *side = &pair->side[from_a ? 0 : 1];
    *side = (struct direction){true, link->rtt_p50_us, link->rtt_p95_us, link->loss_ppm};
    if (side->p95_us < side->p50_us)
        side->p95_us = side->p50_us;
    struct row row = {.kind = ROW_LINK, .link = pair->row};
    merge(pair, &row.link);
    if (from_a)
        row.link.reach_ab = link->reach;
    else
        row.link.reach_ba = link->reach;
    row.link.measured_us = step->now;
    step_emit(step, &row);
    if (is_answered(pair))
        pair->tries = 0;
    world->capacity++;
}

bool pair_is_known(const struct pair *pair, const struct policy *policy, usec_t now)
{
    return pair->measured && pair->side[0].known && pair->side[1].known
           && pair->row.measured_us + policy->link_max_age_us > now;
}

/* -- orders ---------------------------------------------------------------------------------- */

void pair_list_add(struct pair_list *list, struct pair *pair)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 32;
        list->items = mem_resize(list->items, list->capacity, sizeof(struct pair *));
    }
    list->items[list->count++] = pair;
}

static void add_peer(struct order *order, struct order_peer *peers, const struct node *node)
{
    struct order_peer *peer = &peers[order->peer_count++];

    memset(peer, 0, sizeof(*peer));
    peer->node = node->row.id;
    peer->port = node->row.probe_port;
    peer->port_high = node->row.port_high;
    memcpy(peer->name, node->row.name, sizeof(peer->name));
    memcpy(peer->address, node->row.address, sizeof(peer->address));
}

/* One order with every peer that the list pairs it with. */
static void order_probes(struct step *step, const struct node *node, const struct pair_list *list)
{
    struct effect effect = {
        .kind = FX_ORDER,
        .order = {.kind = ORDER_PROBE, .node = node->row.id, .term = step->term},
    };
    struct order_peer *peers = NULL;

    for (uint32_t i = 0; i < list->count && effect.order.peer_count < ORDER_MAX_PEERS; i++) {
        const struct link_row *link = &list->items[i]->row;
        if (link->a != node->row.id && link->b != node->row.id)
            continue;
        if (peers == NULL)
            peers = out_alloc(step->out, ORDER_MAX_PEERS * sizeof(*peers));
        uint64_t other = link->a == node->row.id ? link->b : link->a;
        add_peer(&effect.order, peers, table_get(&step->world->nodes, other));
    }
    effect.order.peers = peers;
    if (peers != NULL)
        step_effect(step, &effect);
}

void probe_pairs(struct step *step, struct pair_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        struct pair *pair = list->items[i];
        pair->asked_us = step->now;
        pair->tries += pair->tries < PROBE_RETRY_DOUBLING;
    }
    for (uint32_t i = 0; i < step->world->nodes.count && list->count > 0; i++)
        order_probes(step, step->world->nodes.items[i], list);
    free(list->items);
    *list = (struct pair_list){0};
}

/* -- the standing mesh of a small fleet -------------------------------------------------------- */

static bool probes(const struct node *node)
{
    return node->row.state == NODE_READY && node->connected
           && (node->row.conditions & (NODE_UNKNOWN | NODE_LOST)) == 0;
}

/* The probing nodes, or 0 when they are too many for a mesh. */
static uint32_t list_mesh(const struct world *world, struct node *ret_mesh[WORLD_FULL_MESH])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < world->nodes.count; i++) {
        struct node *node = world->nodes.items[i];
        if (!probes(node))
            continue;
        if (count == WORLD_FULL_MESH)
            return 0;
        ret_mesh[count++] = node;
    }
    return count;
}

static usec_t pair_due(const struct pair *pair, const struct policy *policy)
{
    if (pair == NULL || pair->asked_us == 0)
        return 1;
    usec_t wait = policy->probe_every_us;
    if (!is_answered(pair) && pair->tries > 0 && PROBE_RETRY_US << (pair->tries - 1) < wait)
        wait = PROBE_RETRY_US << (pair->tries - 1);
    return pair->asked_us + wait;
}

void probe_renew(struct step *step, const struct node *node)
{
    for (uint32_t i = 0; i < step->world->nodes.count; i++) {
        const struct node *other = step->world->nodes.items[i];
        if (other == node)
            continue;
        struct pair *pair = pair_get(step->world, node->row.id, other->row.id);
        if (pair != NULL && !is_answered(pair)) {
            pair->asked_us = 0;
            pair->tries = 0;
        }
    }
}

void probe_due(struct step *step)
{
    struct node *mesh[WORLD_FULL_MESH];
    struct pair_list list = {0};
    uint32_t count = list_mesh(step->world, mesh);

    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = i + 1; j < count; j++) {
            struct pair *pair = pair_need(step->world, mesh[i]->row.id, mesh[j]->row.id);
            if (pair_due(pair, step->policy) <= step->now)
                pair_list_add(&list, pair);
        }
    }
    probe_pairs(step, &list);
}

usec_t probe_next_us(const struct world *world, const struct policy *policy)
{
    struct node *mesh[WORLD_FULL_MESH];
    uint32_t count = list_mesh(world, mesh);
    usec_t due = 0;

    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = i + 1; j < count; j++)
            due = usec_sooner(due,
                              pair_due(pair_get(world, mesh[i]->row.id, mesh[j]->row.id), policy));
    }
    return due;
}
