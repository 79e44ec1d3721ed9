/* The one door: dispatch, time, start, and what the shell may look at. */
#include "orchestrator/core/world.h"

#include <string.h>

#include "orchestrator/core/world_private.h"

/* -- commands --------------------------------------------------------------------------------- */

struct command {
    uint32_t scope;
    int (*run)(struct step *step, const struct token_row *token, struct reply *reply);
};

static const struct command commands[EV_KIND_COUNT] = {
    [EV_JOB_SUBMIT] = {SCOPE_JOBS_WRITE, command_submit},
    [EV_JOB_CANCEL] = {SCOPE_JOBS_WRITE, command_cancel},
    [EV_PLAN] = {SCOPE_JOBS_READ, command_plan},
    [EV_PROJECT_CREATE] = {SCOPE_ADMIN, command_project},
    [EV_PROVIDER_CREATE] = {SCOPE_ADMIN, command_provider},
    [EV_USER_CREATE] = {SCOPE_ADMIN, command_user},
    [EV_TOKEN_CREATE] = {SCOPE_ADMIN, command_token},
    [EV_TOKEN_REVOKE] = {SCOPE_ADMIN, command_revoke},
    [EV_JOIN_TOKEN_CREATE] = {SCOPE_NODES_WRITE, command_join_token},
    [EV_DEPOSIT] = {SCOPE_MONEY_WRITE, command_deposit},
    [EV_NODE_SET] = {SCOPE_NODES_WRITE, command_node_set},
    [EV_CONTENT_ADD] = {SCOPE_JOBS_WRITE, command_content},
    [EV_OUTPUT_STORED] = {0, command_output}, /* by role */
};

/* A refusal leaves no trace but its reply; a success is remembered under its key. */
static void command_step(struct step *step, const struct command *command)
{
    struct reply reply = {0};
    const struct token_row *token = NULL;

    if (auth_token(step, command->scope, &token, &reply.err) == 0) {
        uint64_t token_id = token != NULL ? token->id : 0;
        if (!idem_replay(step, token_id, &reply)) {
            int rc = command->run(step, token, &reply);
            BUG_ON((rc == 0) != (reply.err.code == ERR_NONE));
            if (rc == 0)
                idem_remember(step, token_id, &reply.object);
        }
    }
    step_reply(step, &reply);
}

static void enrol_step(struct step *step)
{
    struct reply reply = {0};
    int rc = command_enrol(step, &reply);

    BUG_ON((rc == 0) != (reply.err.code == ERR_NONE));
    step_reply(step, &reply);
}

/* -- time ------------------------------------------------------------------------------------- */

static bool is_due(usec_t due, usec_t now)
{
    return due != 0 && due <= now;
}

/*
 * Acting may end what is acted on and with it shift the table: then the same index is looked at
 * again. Every action moves its own deadline or its subject's state.
 */
static uint32_t next_index(const struct table *table, uint32_t i, uint64_t id)
{
    uint64_t now_there;

    if (i >= table->count)
        return i;
    memcpy(&now_there, table->items[i], sizeof(now_there));
    return now_there == id ? i + 1 : i;
}

static void tick(struct step *step)
{
    struct world *world = step->world;
    const struct policy *policy = step->policy;

    for (uint32_t i = 0; i < world->nodes.count; i++) {
        struct node *node = world->nodes.items[i];
        if (is_due(node_due(node, world, policy), step->now))
            node_act(step, node);
    }
    for (uint32_t i = 0; i < world->attempts.count;) {
        struct attempt *attempt = world->attempts.items[i];
        uint64_t id = attempt->row.id;
        if (is_due(attempt_due(attempt, world, policy), step->now))
            attempt_act(step, attempt);
        i = next_index(&world->attempts, i, id);
    }
    for (uint32_t i = 0; i < world->jobs.count;) {
        struct job *job = world->jobs.items[i];
        uint64_t id = job->row.id;
        if (is_due(job_due(job), step->now))
            job_act(step, job);
        i = next_index(&world->jobs, i, id);
    }
    if (is_due(probe_next_us(world, policy), step->now))
        probe_due(step);
}

usec_t world_next_deadline(const struct world *world, const struct policy *policy)
{
    usec_t due = probe_next_us(world, policy);

    for (uint32_t i = 0; i < world->nodes.count; i++)
        due = usec_sooner(due, node_due(world->nodes.items[i], world, policy));
    for (uint32_t i = 0; i < world->attempts.count; i++)
        due = usec_sooner(due, attempt_due(world->attempts.items[i], world, policy));
    for (uint32_t i = 0; i < world->jobs.count; i++)
        due = usec_sooner(due, job_due(world->jobs.items[i]));
    return due;
}

/* -- start ------------------------------------------------------------------------------------ */

/*
 * Act on what the state demands. Our own downtime is nobody's silence: every clock that runs
 * against a worker or an owner starts anew. Orders follow when the workers say hello.
 */
static void boot_node(struct step *step, struct node *node)
{
    if ((node->row.conditions & NODE_UNKNOWN) != 0 && node->silent_us == 0)
        node->silent_us = step->now;
    if ((node->row.conditions & NODE_PAUSED) != 0 && node->paused_us == 0)
        node->paused_us = step->now;
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        struct device *device = node->device[i];
        if (device != NULL && !device->row.offered && device->foreign_us == 0)
            device->foreign_us = step->now;
    }
    if (node->row.state != NODE_GONE) {
        struct effect effect = {.kind = FX_NODE_KEYS, .keys = {.node = node->row.id, .live = true}};
        memcpy(effect.keys.curve_key, node->row.curve_key, sizeof(effect.keys.curve_key));
        step_effect(step, &effect);
    }
    node_settle(step, node);
}

static void boot(struct step *step)
{
    struct world *world = step->world;

    for (uint32_t i = 0; i < world->nodes.count; i++)
        boot_node(step, world->nodes.items[i]);
    for (uint32_t i = 0; i < world->ranks.count; i++) {
        struct rank *rank = world->ranks.items[i];
        rank->progress_us = step->now;
    }
    for (uint32_t i = 0; i < world->attempts.count;) {
        struct attempt *attempt = world->attempts.items[i];
        uint64_t id = attempt->row.id;
        attempt_advance(step, attempt);
        i = next_index(&world->attempts, i, id);
    }
}

/* -- the step --------------------------------------------------------------------------------- */

static void node_event(struct step *step, void (*f)(struct step *, struct node *))
{
    struct node *node = table_get(&step->world->nodes, step->event->node.node);

    if (node != NULL)
        f(step, node);
}

static void worker_step(struct step *step)
{
    const struct event *event = step->event;

    switch ((int)event->kind) {
    case EV_NODE_HELLO:
        node_hello(step, &event->hello);
        break;
    case EV_NODE_BYE:
        node_event(step, node_bye);
        break;
    case EV_SELFTEST:
        node_selftest(step, &event->selftest);
        break;
    case EV_TASK:
        task_news(step, &event->task);
        break;
    case EV_RECEIPT:
        task_receipt(step, &event->receipt);
        break;
    case EV_DEVICE_USE:
        node_device_use(step, &event->device_use);
        break;
    case EV_LINK:
        link_measured(step, &event->link);
        break;
    case EV_NODE_SILENT:
        node_event(step, node_silent);
        break;
    case EV_NODE_BACK:
        node_event(step, node_back);
        break;
    case EV_NODE_OFFENCE:
        node_offence(step, &event->offence);
        break;
    case EV_TICK:
        tick(step);
        break;
    case EV_BOOT:
        boot(step);
        break;
    default:
        BUG_ON(true);
    }
}

static bool is_notice(const struct event *event)
{
    return event->kind == EV_NODE_SET && uuid_is_nil(&event->node_set.node)
           && event->node_set.id != 0;
}

void world_step(struct world *world, const struct event *event, usec_t now, uint32_t term,
                const struct policy *policy, struct world_out *out)
{
    struct step step = {
        .world = world,
        .event = event,
        .now = now,
        .term = term,
        .policy = policy,
        .out = out,
        .fresh = event->fresh,
        .fresh_count = sizeof(event->fresh) / sizeof(event->fresh[0]),
        .first_id = world->next_id,
        .first_row = out->row_count,
    };

    BUG_ON(now < world->now_us || event->kind >= EV_KIND_COUNT);
    if (is_notice(event))
        node_notice(&step, &event->node_set);
    else if (event->kind == EV_NODE_ENROL)
        enrol_step(&step);
    else if (commands[event->kind].run != NULL)
        command_step(&step, &commands[event->kind]);
    else
        worker_step(&step);
    if (event->ack_node != 0)
        step_effect(&step,
                    &(struct effect){.kind = FX_ACK, .node = {event->ack_node, event->ack_seq}});
    step_close(&step);
}

/* -- queries ---------------------------------------------------------------------------------- */

const struct node_row *world_node(const struct world *world, uint64_t id)
{
    const struct node *node = table_get(&world->nodes, id);

    return node != NULL ? &node->row : NULL;
}

const struct node_row *world_node_by_curve(const struct world *world, const uint8_t key[32])
{
    const struct node *node = map_get(&world->node_by_curve, key, 32);

    return node != NULL ? &node->row : NULL;
}

const struct token_row *world_token(const struct world *world, const uint8_t hash[32])
{
    return map_get(&world->token_by_hash, hash, 32);
}

const struct device_row *world_device(const struct world *world, uint64_t id, uint32_t ordinal)
{
    const struct node *node = table_get(&world->nodes, id);

    if (node == NULL || ordinal >= CLAIM_MAX_DEVICES || node->device[ordinal] == NULL)
        return NULL;
    return &node->device[ordinal]->row;
}

void world_each_node(const struct world *world, void (*f)(const struct node_row *, void *),
                     void *arg)
{
    for (uint32_t i = 0; i < world->nodes.count; i++)
        f(&((const struct node *)world->nodes.items[i])->row, arg);
}

enum attempt_claim world_attempt_claim(const struct world *world, uint64_t node,
                                       const struct task_claim *task)
{
    const struct attempt *attempt = table_get(&world->attempts, task->attempt);

    if (attempt == NULL)
        return task->attempt >= world->next_id ? CLAIM_FUTURE : CLAIM_STALE;
    if (task->term > attempt->row.term || task->epoch > attempt->row.epoch)
        return CLAIM_FUTURE;
    if (task->term < attempt->row.term || task->epoch < attempt->row.epoch)
        return CLAIM_STALE;
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        if (attempt->rank[i]->row.node == node)
            return CLAIM_HELD;
    }
    return CLAIM_FOREIGN;
}

void world_count(const struct world *world, struct world_counts *ret_counts)
{
    *ret_counts = (struct world_counts){0};
    for (uint32_t i = 0; i < world->nodes.count; i++) {
        const struct node *node = world->nodes.items[i];
        ret_counts->nodes_by_state[node->row.state]++;
        ret_counts->nodes_unknown += (node->row.conditions & NODE_UNKNOWN) != 0;
    }
    for (uint32_t i = 0; i < JOB_STATE_COUNT; i++)
        ret_counts->jobs_by_state[i] = world->ended_by_state[i];
    for (uint32_t i = 0; i < world->jobs.count; i++)
        ret_counts->jobs_by_state[((const struct job *)world->jobs.items[i])->row.state]++;
    for (uint32_t i = 0; i < world->slots.count; i++) {
        const struct slot *slot = world->slots.items[i];
        ret_counts->slots++;
        ret_counts->slots_leased += slot->lease != 0;
        const struct node *node = table_get(&world->nodes, slot->device->row.node);
        if (slot->device->row.tier >= TIER_MEASURED && node->row.state != NODE_GONE)
            ret_counts->measured_mib += slot->device->row.measured_mib;
    }
}
