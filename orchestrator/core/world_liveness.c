/* Unknown is not dead: silence, loss, and the suspicion that it is us. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

static bool is_of_fleet(const struct node *node)
{
    return node->row.state != NODE_JOINING && node->row.state != NODE_GONE;
}

/* max(policy minimum, a third) of the fleet, or of the region of `node`, silent in the window. */
static bool is_mass_silence(const struct step *step, const struct node *node, bool site)
{
    const struct world *world = step->world;
    uint32_t fleet = 0;
    uint32_t silent = 0;

    for (uint32_t i = 0; i < world->nodes.count; i++) {
        const struct node *other = world->nodes.items[i];
        if (!is_of_fleet(other) || (other->row.conditions & NODE_LOST) != 0
            || (site && strcmp(node->row.region, other->row.region) != 0))
            continue;
        fleet++;
        silent += other->silent_us != 0
                  && other->silent_us > step->now - step->policy->mass_silence_window_us;
    }
    uint32_t third = (fleet + 2) / 3;
    uint32_t least = step->policy->mass_silence_min;
    return silent >= (third > least ? third : least);
}

/*
 * Before the barrier nothing of the tenant has run: there is nothing to wait for, and the other
 * nodes of the gang are held for nobody. After it unknown is not dead.
 */
static void end_unstarted(struct step *step, struct rank *rank, const struct cause *cause)
{
    if (rank->attempt->row.state == ATTEMPT_PREPARING)
        rank_lose(step, rank, cause);
}

void node_silent(struct step *step, struct node *node)
{
    if (!is_of_fleet(node) || (node->row.conditions & NODE_UNKNOWN) != 0)
        return;
    node->silent_us = step->now;
    node_condition_set(step, node, NODE_UNKNOWN, 0,
                       &(struct cause){.reason = ERR_HEARTBEAT_MISSED});
    node_each_rank(step, node->row.id, rank_refresh_job, NULL);
    if (is_mass_silence(step, node, false) || is_mass_silence(step, node, true))
        step->world->mass_hold_us = step->now + step->policy->mass_silence_hold_us;
    if (step->world->mass_hold_us > step->now)
        return; /* it may be us */
    char detail[ROW_DETAIL];
    snprintf(detail, sizeof(detail), "%s fell silent before the start", node->row.name);
    node_each_rank(
        step, node->row.id, end_unstarted,
        &(struct cause){.reason = ERR_NODE_LOST, .class = FAIL_UNREACHABLE, .detail = detail});
}

/* The session lives: orders that stand are repeated, tasks of ended gangs are told to go. */
static void demand(struct step *step, struct rank *rank, const struct cause *cause)
{
    (void)cause;
    rank_demand(step, rank);
}

void node_back(struct step *step, struct node *node)
{
    bool was_silent = (node->row.conditions & (NODE_UNKNOWN | NODE_LOST)) != 0;

    if (node->row.state == NODE_GONE)
        return;
    node->silent_us = 0;
    node->connected = true;
    if (was_silent) {
        struct row row = {.kind = ROW_NODE, .node = node->row};
        row.node.seen_us = step->now;
        step_emit(step, &row);
    }
    node_condition_set(step, node, 0, NODE_UNKNOWN | NODE_LOST,
                       &(struct cause){.reason = ERR_HEARTBEAT_BACK});
    for (uint32_t i = 0; was_silent && i < node->ghost_count; i++)
        order_forget(step, node->row.id, &node->ghost[i], ERR_WIRE_FENCE);
    node_each_rank(step, node->row.id, rank_refresh_job, NULL);
    node_each_rank(step, node->row.id, demand, NULL);
}

void node_bye(struct step *step, struct node *node)
{
    (void)step;
    node->connected = false;
}

static usec_t lost_due(const struct node *node, const struct world *world,
                       const struct policy *policy)
{
    if ((node->row.conditions & NODE_UNKNOWN) == 0 || (node->row.conditions & NODE_LOST) != 0
        || node->silent_us == 0)
        return 0;
    usec_t due = node->silent_us + policy->lost_after_us;
    return due > world->mass_hold_us ? due : world->mass_hold_us;
}

usec_t node_due(const struct node *node, const struct world *world, const struct policy *policy)
{
    if (node->row.state == NODE_GONE)
        return 0;
    usec_t due = usec_sooner(lost_due(node, world, policy), node->cool_us);
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        if (node->device[i] != NULL)
            due = usec_sooner(due, device_due(node->device[i], node, world));
    }
    return due;
}

static void declare_lost(struct step *step, struct node *node)
{
    char detail[ROW_DETAIL];
    const struct cause cause = {
        .reason = ERR_NODE_LOST, .class = FAIL_UNREACHABLE, .detail = detail};

    snprintf(detail, sizeof(detail), "%s was silent for too long", node->row.name);
    node->connected = false;
    node_condition_set(step, node, NODE_LOST, 0, &cause);
    node_each_rank(step, node->row.id, rank_lose, &cause);
}

void node_act(struct step *step, struct node *node)
{
    usec_t due = lost_due(node, step->world, step->policy);

    if (due != 0 && due <= step->now)
        declare_lost(step, node);
    if (node->cool_us != 0 && node->cool_us <= step->now) {
        node->cool_us = 0;
        step->world->capacity++;
    }
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        if (node->device[i] != NULL)
            device_act(step, node->device[i], node);
    }
}
