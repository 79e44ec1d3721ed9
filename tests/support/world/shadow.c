#include "tests/support/world/shadow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

typedef unsigned long ul_t;

#define BROKEN(condition, what)                                                                    \
    do {                                                                                           \
        if (condition)                                                                             \
            err_bug("database", (int)row->kind, what);                                             \
    } while (0)

void shadow_init(struct shadow *shadow)
{
    *shadow = (struct shadow){0};
}

static void row_drop(struct row *row)
{
    if (row->kind != ROW_JOB)
        return;
    struct job_row *job = &row->job;
    free((void *)(uintptr_t)job->ask);
    free((void *)(uintptr_t)job->spec);
    free((void *)(uintptr_t)job->why);
}

void shadow_fini(struct shadow *shadow)
{
    for (uint32_t i = 0; i < shadow->count; i++)
        row_drop(&shadow->rows[i]);
    free(shadow->rows);
    map_fini(&shadow->by_key);
}

static void row_keep(struct row *copy, const struct row *row)
{
    *copy = *row;
    if (row->kind == ROW_JOB) {
        copy->job.ask = (const void *)mem_dup(row->job.ask, sizeof(*row->job.ask));
        copy->job.spec = mem_strdup(row->job.spec);
        if (row->job.why != NULL)
            copy->job.why = (const void *)mem_dup(row->job.why, sizeof(*row->job.why));
    } else if (row->kind == ROW_RECEIPT) {
        copy->receipt.bytes = NULL;
    }
}

struct key {
    uint64_t kind;
    struct row_key key;
};

static void check_new(const struct row *row)
{
    if (row->kind == ROW_TRANSFER) {
        BROKEN(row->transfer.debit == row->transfer.credit, "debit is credit");
        BROKEN(row->transfer.amount <= 0, "amount not above zero");
    }
    if (row->kind == ROW_JOB_EVENT) {
        const struct job_event_row *event = &row->job_event;
        bool first = event->from_state == JOB_STATE_COUNT && event->to_state == JOB_QUEUED;
        BROKEN(!first && event->from_state != event->to_state
                   && !job_may_move(event->from_state, event->to_state),
               "illegal move of a job");
    }
    if (row->kind == ROW_NODE_EVENT) {
        const struct node_event_row *event = &row->node_event;
        BROKEN(event->from_state != event->to_state
                   && !node_may_move(event->from_state, event->to_state),
               "illegal move of a node");
    }
}

static void check_old(const struct row *old, const struct row *row)
{
    BROKEN(row_is_append(row->kind), "an append-only row twice");
    if (row->kind == ROW_JOB)
        BROKEN(job_state_is_final(old->job.state), "a final job moved");
    if (row->kind == ROW_ATTEMPT)
        BROKEN(old->attempt.state == ATTEMPT_ENDED, "an ended attempt moved");
    if (row->kind == ROW_NODE)
        BROKEN(old->node.state == NODE_GONE, "a gone node moved");
    if (row->kind == ROW_LEASE) {
        BROKEN(row->lease.billed_ms < old->lease.billed_ms, "billed time went back");
        BROKEN(row->lease.price != old->lease.price, "a frozen price moved");
    }
    if (row->kind == ROW_LEASE_SLOT)
        BROKEN(row->lease_slot.live && !old->lease_slot.live, "a lease got a slot back");
}

static void check_slot(const struct shadow *shadow, const struct row *row)
{
    for (uint32_t i = 0; i < shadow->count && row->lease_slot.live; i++) {
        const struct row *other = &shadow->rows[i];
        BROKEN(other->kind == ROW_LEASE_SLOT && other->lease_slot.live
                   && other->lease_slot.slot == row->lease_slot.slot
                   && other->lease_slot.lease != row->lease_slot.lease,
               "two live leases of one slot");
    }
}

void shadow_put(struct shadow *shadow, const struct row *row)
{
    struct key key = {row->kind, row_key(row)};
    void *index = map_get(&shadow->by_key, &key, sizeof(key));

    check_new(row);
    if (row->kind == ROW_LEASE_SLOT)
        check_slot(shadow, row);
    if (index != NULL) {
        struct row *old = &shadow->rows[(uintptr_t)index - 1];
        check_old(old, row);
        row_drop(old);
        row_keep(old, row);
        return;
    }
    if (shadow->count == shadow->capacity) {
        shadow->capacity = shadow->capacity ? shadow->capacity * 2 : 256;
        shadow->rows = mem_resize(shadow->rows, shadow->capacity, sizeof(*shadow->rows));
    }
    row_keep(&shadow->rows[shadow->count++], row);
    map_put(&shadow->by_key, &key, sizeof(key), (void *)(uintptr_t)shadow->count);
}

const struct row *shadow_get(const struct shadow *shadow, enum row_kind kind, uint64_t id)
{
    struct key key = {kind, {0, id}};
    void *index = map_get(&shadow->by_key, &key, sizeof(key));

    return index != NULL ? &shadow->rows[(uintptr_t)index - 1] : NULL;
}

struct world *shadow_load(const struct shadow *shadow)
{
    const struct row **order = mem_new(shadow->count, sizeof(*order));
    struct world *world = world_new();

    for (uint32_t i = 0; i < shadow->count; i++)
        order[i] = &shadow->rows[i];
    qsort(order, shadow->count, sizeof(*order), row_compare);
    for (uint32_t i = 0; i < shadow->count; i++)
        world_apply(world, order[i]);
    free(order);
    return world;
}

/* -- money ----------------------------------------------------------------------------------- */

struct sums {
    micro_t kind[TRANSFER_COUNT];
};

static struct sums sum_transfers(const struct shadow *shadow, uint64_t job, uint64_t lease)
{
    struct sums sums = {{0}};

    for (uint32_t i = 0; i < shadow->count; i++) {
        const struct row *row = &shadow->rows[i];
        if (row->kind == ROW_TRANSFER && (job == 0 || row->transfer.job == job)
            && (lease == 0 || row->transfer.lease == lease))
            sums.kind[row->transfer.kind] += row->transfer.amount;
    }
    return sums;
}

static int check_job_money(const struct shadow *shadow, const struct job_row *job, struct err *err)
{
    struct sums sums = sum_transfers(shadow, job->id, 0);
    micro_t charged =
        sums.kind[TRANSFER_EARN] + sums.kind[TRANSFER_FEE] - sums.kind[TRANSFER_REFUND];
    micro_t left = sums.kind[TRANSFER_HOLD] - sums.kind[TRANSFER_EARN] - sums.kind[TRANSFER_FEE]
                   - sums.kind[TRANSFER_RELEASE];

    if (charged != job->charged)
        return err_set(err, ERR_INTERNAL, "job %lu: charged %lld, transfers say %lld",
                       (ul_t)job->id, (long long)job->charged, (long long)charged);
    if (left != job->held || (job_state_is_final(job->state) && left != 0))
        return err_set(err, ERR_INTERNAL, "job %lu: held %lld, transfers leave %lld", (ul_t)job->id,
                       (long long)job->held, (long long)left);
    return 0;
}

static int check_lease_money(const struct shadow *shadow, const struct lease_row *lease,
                             struct err *err)
{
    struct sums sums = sum_transfers(shadow, 0, lease->id);
    micro_t paid = sums.kind[TRANSFER_EARN] + sums.kind[TRANSFER_FEE];
    uint64_t metered = 0;

    if (lease->meter_to_us != 0)
        metered = (uint64_t)(lease->meter_to_us - lease->meter_from_us) / 1000;
    if (paid != money_bill(lease->price, lease->billed_ms))
        return err_set(err, ERR_INTERNAL, "lease %lu: paid %lld for %lu ms", (ul_t)lease->id,
                       (long long)paid, (ul_t)lease->billed_ms);
    if (paid - sums.kind[TRANSFER_REFUND] != lease->earned + lease->fee)
        return err_set(err, ERR_INTERNAL, "lease %lu: refund does not fit", (ul_t)lease->id);
    if (lease->ended_us != 0 && lease->billed_ms > metered)
        return err_set(err, ERR_INTERNAL, "lease %lu: billed beyond its meter", (ul_t)lease->id);
    return 0;
}

static int check_account(const struct shadow *shadow, const struct account_row *account,
                         struct err *err)
{
    micro_t balance = 0;

    for (uint32_t i = 0; i < shadow->count; i++) {
        const struct row *row = &shadow->rows[i];
        if (row->kind != ROW_TRANSFER)
            continue;
        if (row->transfer.credit == account->id)
            balance += row->transfer.amount;
        if (row->transfer.debit == account->id)
            balance -= row->transfer.amount;
    }
    if (balance != account->balance)
        return err_set(err, ERR_INTERNAL, "account %lu: balance %lld, transfers say %lld",
                       (ul_t)account->id, (long long)account->balance, (long long)balance);
    return 0;
}

int shadow_check_money(const struct shadow *shadow, struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; i < shadow->count && rc == 0; i++) {
        const struct row *row = &shadow->rows[i];
        if (row->kind == ROW_JOB)
            rc = check_job_money(shadow, &row->job, err);
        else if (row->kind == ROW_LEASE)
            rc = check_lease_money(shadow, &row->lease, err);
        else if (row->kind == ROW_ACCOUNT)
            rc = check_account(shadow, &row->account, err);
    }
    return rc;
}

/* -- text ------------------------------------------------------------------------------------ */

static void print_hex(struct buf *out, const void *bytes, size_t length)
{
    char hex[129];

    buf_printf(out, " %s", hex_format(bytes, length, hex));
}

static void print_node(struct buf *out, const struct node_row *n)
{
    buf_printf(out, "node %lu %lu %s %s %u %d '%s'", (ul_t)n->id, (ul_t)n->provider, n->name,
               node_state_name(n->state), n->conditions, (int)n->reason, n->detail);
    print_hex(out, n->uid.bytes, 16);
    print_hex(out, n->curve_key, 32);
    print_hex(out, n->machine, 32);
    buf_printf(out, " %s %s %s %u %u %u %u %u %u %s %s %lld %u %lu %lld %lld\n", n->region,
               n->country, n->address, n->port_low, n->port_high, n->probe_port, n->cpu_milli,
               n->memory_mib, n->disk_mib, n->runtime, n->version, (long long)n->price, n->notice_s,
               (ul_t)n->boot, (long long)n->created_us, (long long)n->seen_us);
}

static void print_device(struct buf *out, const struct device_row *d)
{
    buf_printf(out, "device %lu %lu %u %s %d %s %s %u %u %d %d %u %u %s\n", (ul_t)d->id,
               (ul_t)d->node, d->ordinal, d->uuid, (int)d->class, d->vendor, d->model,
               d->nominal_mib, d->measured_mib, (int)d->tier, d->offered, d->matmul_gflops,
               d->copy_mib_s, d->driver);
}

static void print_job(struct buf *out, const struct job_row *j)
{
    buf_printf(out, "job %lu %lu %lu %s %s %u %d %d '%s' '%s' %u/%u", (ul_t)j->id, (ul_t)j->project,
               (ul_t)j->token, j->name, job_state_name(j->state), j->conditions, (int)j->reason,
               (int)j->class, j->detail, j->spec, j->ask->nodes, j->ask->gpus_per_node);
    print_hex(out, j->uid.bytes, 16);
    buf_printf(out, " %lld %lld %lu %u %u %lu %lld %lld %lld %lld %lld %d %s\n", (long long)j->held,
               (long long)j->charged, (ul_t)j->hold, j->epoch, j->attempts, (ul_t)j->attempt,
               (long long)j->created_us, (long long)j->queued_us, (long long)j->not_before_us,
               (long long)j->state_us, (long long)j->ended_us, j->exit_code,
               j->why != NULL ? j->why->detail : "-");
}

static void print_attempt(struct buf *out, const struct attempt_row *a)
{
    buf_printf(out, "attempt %lu %lu %u %u %s %d %d %s %u %lld %lld %lld %lld %lld %lld",
               (ul_t)a->id, (ul_t)a->job, a->term, a->epoch, attempt_state_name(a->state),
               (int)a->reason, (int)a->class, job_state_name(a->then), a->diameter_us,
               (long long)a->price, (long long)a->created_us, (long long)a->started_us,
               (long long)a->running_us, (long long)a->stop_us, (long long)a->ended_us);
    print_hex(out, a->uid.bytes, 16);
    buf_puts(out, "\n");
}

static void print_rank(struct buf *out, const struct rank_row *r)
{
    buf_printf(out, "rank %lu %lu %u %lu %s %u %d %d %d '%s' %lld\n", (ul_t)r->id, (ul_t)r->attempt,
               r->rank, (ul_t)r->node, rank_state_name(r->state), r->port, r->exit_code,
               (int)r->reason, (int)r->class, r->detail, (long long)r->state_us);
}

static void print_lease(struct buf *out, const struct lease_row *l)
{
    buf_printf(out, "lease %lu %lu %lu %lu %lu %u %u %lld %u %u %lld %lld %lld", (ul_t)l->id,
               (ul_t)l->attempt, (ul_t)l->rank, (ul_t)l->node, (ul_t)l->provider, l->term, l->epoch,
               (long long)l->price, l->fee_ppm, l->notice_s, (long long)l->granted_us,
               (long long)l->meter_from_us, (long long)l->meter_to_us);
    print_hex(out, l->uid.bytes, 16);
    buf_printf(out, " %lu %lu %lld %lld %lld\n", (ul_t)l->receipt_ms, (ul_t)l->billed_ms,
               (long long)l->earned, (long long)l->fee, (long long)l->ended_us);
}

static void print_party(struct buf *out, const struct row *row)
{
    if (row->kind == ROW_CONTROL)
        buf_printf(out, "control %lu %lld\n", (ul_t)row->control.next_id,
                   (long long)row->control.now_us);
    if (row->kind == ROW_PROJECT)
        buf_printf(out, "project %lu %s\n", (ul_t)row->project.id, row->project.name);
    if (row->kind == ROW_PROVIDER)
        buf_printf(out, "provider %lu %s\n", (ul_t)row->provider.id, row->provider.name);
    if (row->kind == ROW_USER)
        buf_printf(out, "user %lu %s %d\n", (ul_t)row->user.id, row->user.name,
                   (int)row->user.role);
    if (row->kind == ROW_TOKEN)
        buf_printf(out, "token %lu %lu %lu %d %u %lld %lld\n", (ul_t)row->token.id,
                   (ul_t)row->token.project, (ul_t)row->token.provider, (int)row->token.role,
                   row->token.scopes, (long long)row->token.expires_us,
                   (long long)row->token.revoked_us);
    if (row->kind == ROW_JOIN_TOKEN)
        buf_printf(out, "join %lu %lu %u %lld\n", (ul_t)row->join_token.id,
                   (ul_t)row->join_token.provider, row->join_token.uses_left,
                   (long long)row->join_token.expires_us);
    if (row->kind == ROW_ACCOUNT)
        buf_printf(out, "account %lu %lu %lu %d %s %lld\n", (ul_t)row->account.id,
                   (ul_t)row->account.project, (ul_t)row->account.provider,
                   (int)row->account.purpose, row->account.asset, (long long)row->account.balance);
}

static void print_small(struct buf *out, const struct row *row)
{
    if (row->kind == ROW_SLOT)
        buf_printf(out, "slot %lu %lu %d %u %u\n", (ul_t)row->slot.id, (ul_t)row->slot.device,
                   (int)row->slot.kind, row->slot.ordinal, row->slot.vram_mib);
    if (row->kind == ROW_LINK)
        buf_printf(out, "link %lu %lu %u %u %u %d %d %lld\n", (ul_t)row->link.a, (ul_t)row->link.b,
                   row->link.rtt_p50_us, row->link.rtt_p95_us, row->link.loss_ppm,
                   row->link.reach_ab, row->link.reach_ba, (long long)row->link.measured_us);
    if (row->kind == ROW_LEASE_SLOT)
        buf_printf(out, "lease_slot %lu %lu %d\n", (ul_t)row->lease_slot.lease,
                   (ul_t)row->lease_slot.slot, row->lease_slot.live);
    if (row->kind == ROW_CONTENT)
        buf_printf(out, "content %lu %lu %lu\n", (ul_t)row->content.id, (ul_t)row->content.project,
                   (ul_t)row->content.size);
    if (row->kind == ROW_JOB_OUTPUT)
        buf_printf(out, "output %lu %lu %u %s\n", (ul_t)row->job_output.id,
                   (ul_t)row->job_output.attempt, row->job_output.rank, row->job_output.path);
}

void world_text(const struct world *world, struct buf *out)
{
    struct world_out rows;

    world_out_init(&rows);
    world_dump(world, &rows);
    for (uint32_t i = 0; i < rows.row_count; i++) {
        const struct row *row = &rows.rows[i];
        if (row->kind == ROW_NODE)
            print_node(out, &row->node);
        else if (row->kind == ROW_DEVICE)
            print_device(out, &row->device);
        else if (row->kind == ROW_JOB)
            print_job(out, &row->job);
        else if (row->kind == ROW_ATTEMPT)
            print_attempt(out, &row->attempt);
        else if (row->kind == ROW_RANK)
            print_rank(out, &row->rank);
        else if (row->kind == ROW_LEASE)
            print_lease(out, &row->lease);
        else if (row->kind < ROW_NODE)
            print_party(out, row);
        else
            print_small(out, row);
    }
    world_out_fini(&rows);
}
