/* Nodes: enrolment, hello, the owner's and the operator's wishes, self-tests. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

/* A self-test fills all memory of a device; an order lives five minutes. */
#define SELFTEST_RETRY_US ((usec_t)5 * 60 * 1000000)
/* Above any price of hardware, and gang prices of 4096 devices stay below MICRO_MAX. */
#define MAX_NODE_PRICE (MICRO_MAX / 10000)
/* A day; a longer notice would keep an owner from his own machine. */
#define MAX_NOTICE_S 86400u

/* -- moves ----------------------------------------------------------------------------------- */

static void emit_event(struct step *step, const struct node *node, enum node_state from,
                       const struct cause *cause)
{
    struct row row = {.kind = ROW_NODE_EVENT,
                      .node_event = {.id = step_id(step),
                                     .node = node->row.id,
                                     .at_us = step->now,
                                     .from_state = from,
                                     .to_state = node->row.state,
                                     .conditions = node->row.conditions,
                                     .reason = cause->reason,
                                     .actor = err_info(cause->reason)->actor}};

    snprintf(row.node_event.detail, sizeof(row.node_event.detail), "%s",
             cause->detail ? cause->detail : "");
    step_emit(step, &row);
}

static void set_cause(struct node_row *row, const struct cause *cause)
{
    row->reason = cause->reason;
    snprintf(row->detail, sizeof(row->detail), "%s", cause->detail ? cause->detail : "");
}

void node_status(struct step *step, const struct node *node)
{
    if (node->connected)
        step_effect(step, &(struct effect){.kind = FX_NODE_STATUS, .node = {node->row.id, 0}});
}

void node_move(struct step *step, struct node *node, enum node_state to, const struct cause *cause)
{
    struct row row = {.kind = ROW_NODE, .node = node->row};
    enum node_state from = node->row.state;

    BUG_ON(!node_may_move(from, to));
    row.node.state = to;
    set_cause(&row.node, cause);
    step_emit(step, &row);
    emit_event(step, node, from, cause);
    node_status(step, node);
    step->world->capacity++;
}

void node_condition_set(struct step *step, struct node *node, uint32_t set, uint32_t clear,
                        const struct cause *cause)
{
    struct row row = {.kind = ROW_NODE, .node = node->row};

    row.node.conditions = (row.node.conditions & ~clear) | set;
    if (row.node.conditions == node->row.conditions)
        return;
    set_cause(&row.node, cause);
    step_emit(step, &row);
    emit_event(step, node, node->row.state, cause);
    node_status(step, node);
    step->world->capacity++;
}

bool node_is_leased(const struct node *node)
{
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        if (node->device[i] != NULL && node->device[i]->slot->lease != 0)
            return true;
    }
    return false;
}

void node_settle(struct step *step, struct node *node)
{
    if (node->row.state == NODE_DRAINING && !node_is_leased(node))
        node_move(step, node, NODE_DRAINED,
                  &(struct cause){.reason = node->row.reason, .detail = "no work left"});
}

/* The offered devices by what their self-test said. */
struct proven {
    uint32_t passed;
    uint32_t failed;
    uint32_t waiting;
};

static struct proven prove(const struct node *node)
{
    struct proven proven = {0};

    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        const struct device *device = node->device[i];
        if (device == NULL || !device->row.offered)
            continue;
        if (device->row.tier >= TIER_MEASURED)
            proven.passed++;
        else if (device->failed)
            proven.failed++;
        else
            proven.waiting++;
    }
    return proven;
}

/* Every offered device has its verdict, and one passed. */
static bool is_measured(const struct node *node)
{
    struct proven proven = prove(node);

    return proven.waiting == 0 && proven.passed > 0;
}

void node_settle_probing(struct step *step, struct node *node)
{
    if (node->row.state == NODE_PROBING && is_measured(node))
        node_move(step, node, NODE_READY, &(struct cause){.reason = ERR_SELFTEST_PASSED});
}

bool node_placeable(const struct node *node, usec_t now)
{
    return node->row.state == NODE_READY && node->row.conditions == 0 && node->connected
           && node->cool_us <= now;
}

void node_fault(struct step *step, uint64_t id, enum fail_class class)
{
    struct node *node = table_get(&step->world->nodes, id);

    if (class == FAIL_CAPACITY || class == FAIL_HARDWARE || class == FAIL_PROVIDER)
        node->cool_us = step->now + step->policy->backoff_first_us;
}

void node_each_rank(struct step *step, uint64_t node,
                    void (*f)(struct step *, struct rank *, const struct cause *),
                    const struct cause *cause)
{
    /* The callback may end the attempt that it is in: walk a copy of the ids. */
    uint32_t count = step->world->attempts.count;
    uint64_t *ids = out_alloc(step->out, (count + 1) * sizeof(*ids));

    for (uint32_t i = 0; i < count; i++)
        ids[i] = ((struct attempt *)step->world->attempts.items[i])->row.id;
    for (uint32_t i = 0; i < count; i++) {
        struct attempt *attempt = table_get(&step->world->attempts, ids[i]);
        for (uint32_t k = 0; attempt != NULL && k < attempt->rank_count; k++) {
            struct rank *rank = attempt->rank[k];
            if (rank->row.node == node && !rank_is_final(rank)) {
                f(step, rank, cause);
                attempt_advance(step, attempt);
                break; /* one rank of a gang per node; the attempt may be gone */
            }
        }
    }
}

/* -- the claim ------------------------------------------------------------------------------- */

static bool claim_is_sane(const struct node_claim *claim)
{
    return claim->device_count <= CLAIM_MAX_DEVICES && claim->port_low <= claim->port_high
           && claim->port_high <= UINT16_MAX && claim->probe_port <= UINT16_MAX && claim->price >= 0
           && claim->price <= MAX_NODE_PRICE && claim->notice_s <= MAX_NOTICE_S
           && claim->address[0] != '\0';
}

static void copy_claim(struct node_row *row, const struct node_claim *claim)
{
    memcpy(row->region, claim->region, sizeof(row->region));
    memcpy(row->country, claim->country, sizeof(row->country));
    memcpy(row->address, claim->address, sizeof(row->address));
    memcpy(row->runtime, claim->runtime, sizeof(row->runtime));
    memcpy(row->version, claim->version, sizeof(row->version));
    row->port_low = claim->port_low;
    row->port_high = claim->port_high;
    row->probe_port = claim->probe_port;
    row->cpu_milli = claim->cpu_milli;
    row->memory_mib = claim->memory_mib;
    row->disk_mib = claim->disk_mib;
    row->price = claim->price;
    row->notice_s = claim->notice_s;
}

/* An unproven device: whatever it is, it starts as claimed. */
static void copy_device(struct device_row *row, const struct claim_device *claim)
{
    memcpy(row->uuid, claim->uuid, sizeof(row->uuid));
    memcpy(row->vendor, claim->vendor, sizeof(row->vendor));
    memcpy(row->model, claim->model, sizeof(row->model));
    memcpy(row->driver, claim->driver, sizeof(row->driver));
    row->class = claim->class;
    row->nominal_mib = claim->memory_mib;
    row->offered = claim->offered;
}

static bool device_is_same(const struct device_row *row, const struct claim_device *claim)
{
    return strcmp(row->uuid, claim->uuid) == 0 && strcmp(row->model, claim->model) == 0
           && row->class == claim->class && row->nominal_mib == claim->memory_mib;
}

static void device_make(struct step *step, const struct node *node, uint32_t ordinal,
                        const struct claim_device *claim)
{
    struct row device = {
        .kind = ROW_DEVICE,
        .device = {.id = step_id(step), .node = node->row.id, .ordinal = ordinal},
    };

    copy_device(&device.device, claim);
    step_emit(step, &device);
    step_emit(step, &(struct row){.kind = ROW_SLOT,
                                  .slot = {.id = step_id(step),
                                           .device = device.device.id,
                                           .kind = SLOT_WHOLE,
                                           .vram_mib = claim->memory_mib}});
}

/* Another thing under the ordinal than before starts over; its slot stays. */
static void device_update(struct step *step, struct device *device,
                          const struct claim_device *claim)
{
    struct row row = {.kind = ROW_DEVICE, .device = device->row};

    if (claim != NULL && !device_is_same(&device->row, claim)) {
        copy_device(&row.device, claim);
        row.device.tier = TIER_CLAIMED;
        row.device.measured_mib = 0;
        row.device.matmul_gflops = 0;
        row.device.copy_mib_s = 0;
        device->failed = false;
        device->replaced = true;
        struct row slot = {.kind = ROW_SLOT, .slot = device->slot->row};
        slot.slot.vram_mib = claim->memory_mib;
        step_emit(step, &slot);
    } else {
        row.device.offered = claim != NULL && claim->offered;
        if (claim != NULL)
            memcpy(row.device.driver, claim->driver, sizeof(row.device.driver));
        if (row.device.offered == device->row.offered
            && strcmp(row.device.driver, device->row.driver) == 0)
            return;
    }
    step_emit(step, &row);
}

static void take_devices(struct step *step, struct node *node, const struct node_claim *claim)
{
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        const struct claim_device *told = i < claim->device_count ? &claim->device[i] : NULL;
        if (node->device[i] != NULL)
            device_update(step, node->device[i], told);
        else if (told != NULL)
            device_make(step, node, i, told);
        struct device *device = node->device[i];
        if (device == NULL)
            continue;
        if (told == NULL || told->offered)
            device->foreign_us = 0;
        else if (device->foreign_us == 0)
            device->foreign_us = step->now;
    }
}

/* The live node whose device another one claims too; NULL: none. */
static const struct node *holder_of(const struct world *world, const struct node *node,
                                    const char *uuid)
{
    for (uint32_t i = 0; i < world->nodes.count; i++) {
        const struct node *other = world->nodes.items[i];
        if (other == node || other->row.state == NODE_GONE)
            continue;
        for (uint32_t k = 0; k < CLAIM_MAX_DEVICES && other->device[k] != NULL; k++) {
            const struct device *device = other->device[k];
            bool live = device->row.offered || device->slot->lease != 0;
            if (live && strcmp(device->row.uuid, uuid) == 0)
                return other;
        }
    }
    return NULL;
}

/*
 * A uuid is no secret. Who claims one that another live node has is frozen, and the other keeps
 * working: otherwise anybody could stop a machine by naming its devices. Looked at when a node
 * comes with devices that it did not have, or is frozen: O(devices of all nodes).
 */
static void settle_conflict(struct step *step, struct node *node, bool fresh)
{
    const struct node *holder = NULL;
    uint32_t ordinal = 0;
    char detail[ROW_DETAIL];

    if (!fresh && (node->row.conditions & NODE_QUARANTINED) == 0)
        return;
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES && holder == NULL; i++) {
        const struct device *device = node->device[i];
        if (device == NULL || !device->row.offered)
            continue;
        holder = holder_of(step->world, node, device->row.uuid);
        ordinal = i;
    }
    if (holder == NULL) {
        node_condition_set(step, node, 0, NODE_QUARANTINED,
                           &(struct cause){.reason = ERR_SESSION_STARTED});
        return;
    }
    snprintf(detail, sizeof(detail), "device %u (%s) is live on %s", ordinal,
             node->device[ordinal]->row.uuid, holder->row.name);
    node_condition_set(step, node, NODE_QUARANTINED, 0,
                       &(struct cause){.reason = ERR_UUID_CONFLICT, .detail = detail});
}

/* -- enrolment -------------------------------------------------------------------------------- */

static bool name_is_free(const struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->nodes.count; i++) {
        const struct node *node = world->nodes.items[i];
        if (node->row.state != NODE_GONE && strcmp(node->row.name, name) == 0)
            return false;
    }
    return true;
}

/* What the machine calls itself, made a valid name, made unique by a number. */
static void name_make(const struct world *world, const char *claimed, char out[ROW_NAME])
{
    char base[ROW_NAME - 8] = "";
    size_t length = 0;

    for (const char *at = claimed; *at != '\0' && *at != '.' && length + 1 < sizeof(base); at++) {
        char c = (char)(*at >= 'A' && *at <= 'Z' ? *at | 0x20 : *at);
        bool letter = c >= 'a' && c <= 'z';
        bool other = (c >= '0' && c <= '9') || c == '-';
        if (letter || (other && length > 0))
            base[length++] = c;
    }
    while (length > 0 && base[length - 1] == '-')
        length--;
    base[length] = '\0';
    snprintf(out, ROW_NAME, "%s", length > 0 ? base : "node");
    for (unsigned i = 2; !name_is_free(world, out); i++)
        snprintf(out, ROW_NAME, "%s-%u", length > 0 ? base : "node", i);
}

static void keys_effect(struct step *step, const struct node *node, bool live)
{
    struct effect effect = {.kind = FX_NODE_KEYS, .keys = {.node = node->row.id, .live = live}};

    memcpy(effect.keys.curve_key, node->row.curve_key, sizeof(effect.keys.curve_key));
    step_effect(step, &effect);
}

static void node_make(struct step *step, const struct ev_enrol *enrol,
                      const struct join_token_row *join)
{
    struct row row = {.kind = ROW_NODE,
                      .node = {.id = step_id(step),
                               .uid = enrol->uid,
                               .provider = join->provider,
                               .state = NODE_JOINING,
                               .reason = ERR_OWNER_REQUEST,
                               .created_us = step->now}};

    copy_claim(&row.node, enrol->claim);
    name_make(step->world, enrol->claim->name, row.node.name);
    memcpy(row.node.curve_key, enrol->curve_key, sizeof(row.node.curve_key));
    memcpy(row.node.sign_key, enrol->sign_key, sizeof(row.node.sign_key));
    memcpy(row.node.machine, enrol->machine, sizeof(row.node.machine));
    if (enrol->claim->paused)
        row.node.conditions |= NODE_PAUSED;
    step_emit(step, &row);
    struct node *node = table_get(&step->world->nodes, row.node.id);
    emit_event(step, node, NODE_JOINING, &(struct cause){.reason = ERR_OWNER_REQUEST});
    take_devices(step, node, enrol->claim);
    settle_conflict(step, node, true);
    struct row used = {.kind = ROW_JOIN_TOKEN, .join_token = *join};
    used.join_token.uses_left--;
    step_emit(step, &used);
    keys_effect(step, node, true);
}

int command_enrol(struct step *step, struct reply *reply)
{
    const struct ev_enrol *enrol = &step->event->enrol;
    const struct world *world = step->world;
    const struct join_token_row *join = map_get(&world->join_by_hash, enrol->join_hash, 32);
    struct node *machine = map_get(&world->node_by_machine, enrol->machine, 32);
    struct node *key = map_get(&world->node_by_curve, enrol->curve_key, 32);

    if (join == NULL)
        return err_set(&reply->err, ERR_TOKEN_INVALID, "unknown join token");
    if (machine != NULL && machine == key && machine->row.provider == join->provider) {
        reply->object = machine->row.uid; /* a retry: the same answer, spent token or not */
        keys_effect(step, machine, true);
        return 0;
    }
    if (join->uses_left == 0 || join->expires_us <= step->now)
        return err_set(&reply->err, ERR_JOIN_TOKEN_SPENT, "the join token is spent or expired");
    if (machine != NULL || key != NULL)
        return err_set(&reply->err, ERR_UUID_CONFLICT, "registered as %s under another key",
                       machine != NULL ? machine->row.name : key->row.name);
    if (!claim_is_sane(enrol->claim) || enrol->claim->device_count == 0)
        return err_set(&reply->err, ERR_WIRE_INVENTORY, "the inventory is out of bounds");
    node_make(step, enrol, join);
    reply->object = enrol->uid;
    return 0;
}

/* -- hello ----------------------------------------------------------------------------------- */

static bool still_holds(const struct ev_hello *hello, const struct rank *rank)
{
    const struct attempt_row *attempt = &rank->attempt->row;

    for (uint32_t i = 0; i < hello->task_count && i < HELLO_MAX_TASKS; i++) {
        const struct held_task *task = &hello->task[i];
        if (task->attempt == attempt->id && task->rank == rank->row.rank
            && task->term == attempt->term && task->epoch == attempt->epoch)
            return true;
    }
    return false;
}

/* Tasks of a gang that ended while the worker was away. */
static void forget_strangers(struct step *step, const struct ev_hello *hello)
{
    for (uint32_t i = 0; i < hello->task_count && i < HELLO_MAX_TASKS; i++) {
        const struct held_task *task = &hello->task[i];
        const struct attempt *attempt = table_get(&step->world->attempts, task->attempt);
        bool stands = attempt != NULL && attempt->row.term == task->term
                      && attempt->row.epoch == task->epoch && task->rank < attempt->rank_count
                      && attempt->rank[task->rank]->row.node == hello->node
                      && !rank_is_final(attempt->rank[task->rank]);
        if (!stands)
            order_forget(step, hello->node,
                         &(struct ghost){task->attempt, task->term, task->epoch, task->rank},
                         ERR_WIRE_FENCE);
    }
}

/* What the state demands, or the end of a task that the worker does not know. */
static void reconcile(struct step *step, struct rank *rank, const struct cause *cause)
{
    const struct node *node = table_get(&step->world->nodes, rank->row.node);
    char detail[ROW_DETAIL];

    (void)cause;
    if (still_holds(&step->event->hello, rank)) {
        rank_demand(step, rank);
        return;
    }
    bool stopping = rank->attempt->row.state == ATTEMPT_STOPPING;
    if (rank->row.state == RANK_ASSIGNED && !stopping) {
        rank_demand(step, rank); /* the order never arrived */
        return;
    }
    snprintf(detail, sizeof(detail), "%s no longer knows rank %u", node->row.name, rank->row.rank);
    const struct cause lost = {.reason = ERR_TASK_LOST, .class = FAIL_PROVIDER, .detail = detail};
    attempt_fail(step, rank->attempt, &lost);
    rank_finish(step, rank, RANK_LOST, &lost);
}

/* A leased device that is not there any more, or another one, ends its gang at once. */
static void end_on_gone_device(struct step *step, struct rank *rank, const struct cause *cause)
{
    const struct node_claim *claim = step->event->hello.claim;

    for (uint32_t i = 0; i < rank->lease->slot_count; i++) {
        const struct slot *slot = table_get(&step->world->slots, rank->lease->slot[i]);
        if (slot->device->row.ordinal >= claim->device_count || slot->device->replaced)
            attempt_fail(step, rank->attempt, cause);
    }
}

static void hello_row(struct step *step, struct node *node, const struct ev_hello *hello)
{
    struct row row = {.kind = ROW_NODE, .node = node->row};
    uint32_t away = NODE_UNKNOWN | NODE_LOST;

    copy_claim(&row.node, hello->claim);
    row.node.boot = hello->boot;
    row.node.seen_us = step->now;
    row.node.conditions &= ~(away | NODE_PAUSED);
    if (hello->claim->paused)
        row.node.conditions |= NODE_PAUSED;
    if (row.node.state == NODE_JOINING)
        row.node.state = NODE_PROBING;
    set_cause(&row.node, &(struct cause){.reason = ERR_SESSION_STARTED});
    enum node_state from = node->row.state;
    step_emit(step, &row);
    emit_event(step, node, from, &(struct cause){.reason = ERR_SESSION_STARTED});
    if (!hello->claim->paused)
        node->paused_us = 0;
    else if (node->paused_us == 0)
        node->paused_us = step->now;
}

static bool brings_devices(const struct node *node, const struct node_claim *claim)
{
    for (uint32_t i = 0; i < claim->device_count; i++) {
        if (node->device[i] == NULL || !device_is_same(&node->device[i]->row, &claim->device[i]))
            return true;
    }
    return false;
}

void node_hello(struct step *step, const struct ev_hello *hello)
{
    struct node *node = table_get(&step->world->nodes, hello->node);
    static const struct cause gone = {
        .reason = ERR_DEVICE_GONE, .class = FAIL_HARDWARE, .detail = "a leased device is gone"};

    if (node == NULL)
        return;
    if (node->row.state == NODE_GONE || !claim_is_sane(hello->claim)) {
        keys_effect(step, node, node->row.state != NODE_GONE);
        return;
    }
    node->connected = true;
    node->silent_us = 0;
    node->ghost_count = 0; /* it says itself what it holds */
    hello_row(step, node, hello);
    bool fresh = brings_devices(node, hello->claim);
    take_devices(step, node, hello->claim);
    settle_conflict(step, node, fresh);
    step_effect(step, &(struct effect){.kind = FX_WELCOME, .node = {node->row.id, 0}});
    forget_strangers(step, hello);
    node_each_rank(step, node->row.id, reconcile, NULL);
    node_each_rank(step, node->row.id, end_on_gone_device, &gone);
    node_each_rank(step, node->row.id, rank_refresh_job, NULL);
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        if (node->device[i] != NULL) {
            node->device[i]->asked_us = 0;
            node->device[i]->failed = false;
            node->device[i]->replaced = false;
            device_act(step, node->device[i], node);
        }
    }
    step->world->capacity++;
    node_settle_probing(step, node);
    node_status(step, node);
    probe_renew(step, node);
    probe_due(step);
}

void node_offence(struct step *step, const struct ev_offence *offence)
{
    const struct node *node = table_get(&step->world->nodes, offence->node);
    const struct cause cause = {.reason = offence->reason, .detail = offence->detail};

    if (node != NULL && node->row.state != NODE_GONE)
        emit_event(step, node, node->row.state, &cause);
}

/* -- devices --------------------------------------------------------------------------------- */

/* When its self-test is to be ordered (again). */
usec_t device_due(const struct device *device, const struct node *node, const struct world *world)
{
    (void)world;
    if (!node->connected || !device->row.offered || device->failed
        || device->row.tier >= TIER_MEASURED || node->row.state == NODE_GONE
        || device->slot->lease != 0)
        return 0;
    return device->asked_us == 0 ? 1 : device->asked_us + SELFTEST_RETRY_US;
}

void device_act(struct step *step, struct device *device, struct node *node)
{
    usec_t due = device_due(device, node, step->world);

    if (due == 0 || due > step->now)
        return;
    device->asked_us = step->now;
    step_effect(step, &(struct effect){.kind = FX_ORDER,
                                       .order = {.kind = ORDER_SELFTEST,
                                                 .node = node->row.id,
                                                 .term = step->term,
                                                 .device = {device->row.ordinal},
                                                 .device_count = 1}});
}

/* Nothing here can be placed until a new session or a wish: the owner reads why in the status. */
static void note_failed(struct step *step, struct node *node, const struct cause *cause)
{
    struct proven proven = prove(node);
    struct row row = {.kind = ROW_NODE, .node = node->row};

    if (node->row.state != NODE_PROBING || proven.waiting > 0 || proven.passed > 0)
        return;
    set_cause(&row.node, cause);
    step_emit(step, &row);
}

void node_selftest(struct step *step, const struct ev_selftest *test)
{
    struct node *node = table_get(&step->world->nodes, test->node);
    struct device *device =
        node != NULL && test->device < CLAIM_MAX_DEVICES ? node->device[test->device] : NULL;

    if (device == NULL || node->row.state == NODE_GONE)
        return;
    struct row row = {.kind = ROW_DEVICE, .device = device->row};
    bool passed = test->passed && test->measured_mib > 0;
    if (passed) {
        row.device.tier = device->row.tier > TIER_MEASURED ? device->row.tier : TIER_MEASURED;
        row.device.measured_mib = test->measured_mib;
        row.device.matmul_gflops = test->matmul_gflops;
        row.device.copy_mib_s = test->copy_mib_s;
    } else {
        row.device.tier = TIER_CLAIMED;
        row.device.measured_mib = 0;
    }
    step_emit(step, &row);
    device->failed = !passed;
    step->world->capacity++;
    const struct cause cause = {.reason = passed ? ERR_SELFTEST_PASSED : ERR_SELFTEST_FAILED,
                                .detail = test->detail};
    emit_event(step, node, node->row.state, &cause);
    if (!passed)
        note_failed(step, node, &cause);
    enum node_state before = node->row.state;
    node_settle_probing(step, node);
    if (before != node->row.state)
        probe_due(step);
    else
        node_status(step, node);
}

void node_device_use(struct step *step, const struct ev_device_use *use)
{
    struct node *node = table_get(&step->world->nodes, use->node);
    struct device *device =
        node != NULL && use->device < CLAIM_MAX_DEVICES ? node->device[use->device] : NULL;

    if (device == NULL || node->row.state == NODE_GONE || device->row.offered == !use->foreign)
        return;
    struct row row = {.kind = ROW_DEVICE, .device = device->row};
    row.device.offered = !use->foreign;
    step_emit(step, &row);
    device->foreign_us = use->foreign ? step->now : 0;
    step->world->capacity++;
    if (use->foreign)
        emit_event(step, node, node->row.state, &(struct cause){.reason = ERR_FOREIGN_PROCESS});
    else
        device_act(step, device, node);
    node_status(step, node);
}

/* -- wishes ---------------------------------------------------------------------------------- */

static int drain(struct step *step, struct node *node, const struct cause *cause, struct err *err)
{
    if (node->row.state == NODE_DRAINING || node->row.state == NODE_DRAINED)
        return 0;
    if (!node_may_move(node->row.state, NODE_DRAINING))
        return err_set(err, ERR_STATE_CONFLICT, "the node is %s", node_state_name(node->row.state));
    node_move(step, node, NODE_DRAINING, cause);
    node_settle(step, node);
    return 0;
}

static int undrain(struct step *step, struct node *node, const struct cause *cause, struct err *err)
{
    if (node->row.state == NODE_READY || node->row.state == NODE_PROBING)
        return 0;
    if (node->row.state != NODE_DRAINING && node->row.state != NODE_DRAINED)
        return err_set(err, ERR_STATE_CONFLICT, "the node is %s", node_state_name(node->row.state));
    node_move(step, node, is_measured(node) ? NODE_READY : NODE_PROBING, cause);
    probe_due(step);
    return 0;
}

static int leave(struct step *step, struct node *node, const struct cause *cause, bool forced,
                 struct err *err)
{
    static const struct cause left = {
        .reason = ERR_NODE_LEFT, .class = FAIL_PROVIDER, .detail = "the node left the pool"};

    if (node->row.state == NODE_GONE)
        return 0;
    if (node_is_leased(node) && !forced)
        return err_set(err, ERR_STATE_CONFLICT, "work runs there: drain it first");
    node_each_rank(step, node->row.id, rank_lose, &left);
    node_move(step, node, NODE_GONE, cause);
    keys_effect(step, node, false);
    node->connected = false;
    return 0;
}

/* Whatever runs there is lost with the node; the key is refused from the commit on. */
static int revoke(struct step *step, struct node *node, const struct cause *cause, struct err *err)
{
    static const struct cause lost = {.reason = ERR_NODE_LOST,
                                      .class = FAIL_PROVIDER,
                                      .detail = "the operator took the node's key away"};
    const struct cause why = {.reason = ERR_NODE_REVOKED, .detail = cause->detail};

    if (step->event->node_set.id != 0)
        return err_set(err, ERR_SCOPE_MISSING, "a node does not revoke itself");
    node_each_rank(step, node->row.id, rank_lose, &lost);
    node_move(step, node, NODE_GONE, &why);
    keys_effect(step, node, false);
    node->connected = false;
    return 0;
}

static int set_price(struct step *step, struct node *node, micro_t price, struct err *err)
{
    struct row row = {.kind = ROW_NODE, .node = node->row};

    if (price < 0 || price > MAX_NODE_PRICE)
        return err_set_at(err, ERR_INVALID_AMOUNT, "/price", "out of bounds");
    row.node.price = price;
    step_emit(step, &row);
    step->world->capacity++;
    node_status(step, node);
    return 0;
}

static int node_set(struct step *step, struct node *node, const struct cause *cause, bool forced,
                    struct err *err)
{
    const struct ev_node_set *set = &step->event->node_set;

    if (node->row.state == NODE_GONE && set->verb == NODE_REVOKE)
        return err_set(err, ERR_STATE_CONFLICT, "the node is gone: its key is refused already");
    if (node->row.state == NODE_GONE && set->verb != NODE_LEAVE)
        return err_set(err, ERR_STATE_CONFLICT, "the node left");
    switch (set->verb) {
    case NODE_DRAIN:
        return drain(step, node, cause, err);
    case NODE_UNDRAIN:
        return undrain(step, node, cause, err);
    case NODE_PAUSE:
        if (node->paused_us == 0)
            node->paused_us = step->now;
        node_condition_set(step, node, NODE_PAUSED, 0, cause);
        return 0;
    case NODE_RESUME:
        node->paused_us = 0;
        node_condition_set(step, node, 0, NODE_PAUSED, cause);
        return 0;
    case NODE_LEAVE:
        return leave(step, node, cause, forced, err);
    case NODE_SET_PRICE:
        return set_price(step, node, set->price, err);
    case NODE_REVOKE:
        return revoke(step, node, cause, err);
    case NODE_VERB_COUNT:
    default:
        return err_set_at(err, ERR_OUT_OF_RANGE, "/verb", "no such verb");
    }
}

int command_node_set(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_node_set *set = &step->event->node_set;
    struct node *node = map_get(&step->world->node_by_uid, &set->node, sizeof(set->node));
    bool by_operator = token == NULL || token->role == ROLE_OPERATOR;
    const struct cause cause = {.reason = by_operator ? ERR_OPERATOR_REQUEST : ERR_OWNER_REQUEST,
                                .detail = set->reason};

    if (node == NULL || !auth_owns_node(token, node))
        return err_set(&reply->err, ERR_NOT_FOUND, "no such node");
    if (set->verb == NODE_REVOKE && !by_operator)
        return err_set(&reply->err, ERR_SCOPE_MISSING,
                       "operators alone take a key away; see leave");
    reply->object = node->row.uid;
    return node_set(step, node, &cause, false, &reply->err);
}

void node_notice(struct step *step, const struct ev_node_set *set)
{
    struct node *node = table_get(&step->world->nodes, set->id);
    const struct cause cause = {.reason = ERR_OWNER_REQUEST, .detail = set->reason};

    /* The worker hears the outcome by its status; there is nobody to refuse to. */
    if (node == NULL || node_set(step, node, &cause, true, NULL) < 0)
        return;
}
