/* Every invariant that a world shows by itself. Nothing here changes or decides. */
#include <string.h>

#include "orchestrator/core/world_private.h"

typedef unsigned long ul_t;

/* -- money ----------------------------------------------------------------------------------- */

static int check_sums(const struct world *world, struct err *err)
{
    /* The first account of an asset sums all of it; the others only check their sign. */
    for (uint32_t i = 0; i < world->accounts.count; i++) {
        const struct account_row *first = world->accounts.items[i];
        micro_t sum = 0;
        bool seen = false;
        if (first->balance < 0 && first->purpose != PURPOSE_EXTERNAL)
            return err_set(err, ERR_INTERNAL, "account %lu is below zero", (ul_t)first->id);
        for (uint32_t j = 0; j < world->accounts.count; j++) {
            const struct account_row *account = world->accounts.items[j];
            if (strcmp(account->asset, first->asset) != 0)
                continue;
            seen = seen || j < i;
            if (__builtin_add_overflow(sum, account->balance, &sum))
                return err_set(err, ERR_INTERNAL, "the sum of %s overflows", first->asset);
        }
        if (!seen && sum != 0)
            return err_set(err, ERR_INTERNAL, "the accounts of %s sum to %lld", first->asset,
                           (long long)sum);
    }
    return 0;
}

static int check_escrow(const struct world *world, struct err *err)
{
    for (uint32_t i = 0; i < world->accounts.count; i++) {
        const struct account_row *account = world->accounts.items[i];
        micro_t held = 0;
        if (account->purpose != PURPOSE_ESCROW)
            continue;
        for (uint32_t j = 0; j < world->jobs.count; j++) {
            const struct job *job = world->jobs.items[j];
            if (job->row.project == account->project)
                held += job->row.held;
        }
        if (held != account->balance)
            return err_set(err, ERR_INTERNAL, "project %lu: escrow %lld, jobs hold %lld",
                           (ul_t)account->project, (long long)account->balance, (long long)held);
    }
    return 0;
}

static int check_lease_money(const struct lease_row *lease, struct err *err)
{
    micro_t bill = money_bill(lease->price, lease->billed_ms);
    uint64_t metered = 0;

    if (lease->meter_from_us != 0 && lease->meter_to_us != 0)
        metered = (uint64_t)(lease->meter_to_us - lease->meter_from_us) / 1000;
    if (lease->meter_to_us != 0 && lease->billed_ms > metered)
        return err_set(err, ERR_INTERNAL, "lease %lu: billed beyond its meter", (ul_t)lease->id);
    if (lease->billed_ms > lease->receipt_ms)
        return err_set(err, ERR_INTERNAL, "lease %lu: billed beyond its receipts", (ul_t)lease->id);
    if (lease->earned + lease->fee != bill || lease->fee != money_share(bill, lease->fee_ppm))
        return err_set(err, ERR_INTERNAL, "lease %lu: earned and fee are not the bill",
                       (ul_t)lease->id);
    return 0;
}

/* -- slots and leases -------------------------------------------------------------------------- */

static int check_slots(const struct world *world, struct err *err)
{
    for (uint32_t i = 0; i < world->slots.count; i++) {
        const struct slot *slot = world->slots.items[i];
        const struct lease *lease = table_get(&world->leases, slot->lease);
        bool listed = false;
        if (slot->lease == 0)
            continue;
        if (lease == NULL || lease->row.ended_us != 0)
            return err_set(err, ERR_INTERNAL, "slot %lu: leased by nobody alive",
                           (ul_t)slot->row.id);
        for (uint32_t k = 0; k < lease->slot_count; k++)
            listed = listed || lease->slot[k] == slot->row.id;
        if (!listed || lease->row.node != slot->device->row.node)
            return err_set(err, ERR_INTERNAL, "slot %lu: not one of its lease", (ul_t)slot->row.id);
    }
    return 0;
}

static int check_lease(const struct world *world, const struct rank *rank, struct err *err)
{
    const struct lease *lease = rank->lease;

    if (lease == NULL || lease->row.node != rank->row.node
        || lease->slot_count != rank->attempt->job->ask.gpus_per_node)
        return err_set(err, ERR_INTERNAL, "rank %lu: no whole lease", (ul_t)rank->row.id);
    if ((lease->row.ended_us != 0) != rank_is_final(rank))
        return err_set(err, ERR_INTERNAL, "rank %lu: lease and rank end apart", (ul_t)rank->row.id);
    for (uint32_t i = 0; i < lease->slot_count && lease->row.ended_us == 0; i++) {
        const struct slot *slot = table_get(&world->slots, lease->slot[i]);
        if (slot->lease != lease->row.id)
            return err_set(err, ERR_INTERNAL, "lease %lu: slot %lu is another's",
                           (ul_t)lease->row.id, (ul_t)slot->row.id);
    }
    return check_lease_money(&lease->row, err);
}

/* -- gangs ----------------------------------------------------------------------------------- */

static int check_ranks(const struct world *world, const struct attempt *attempt, struct err *err)
{
    enum attempt_state state = attempt->row.state;

    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct rank *rank = attempt->rank[i];
        if (rank == NULL || rank->row.rank != i)
            return err_set(err, ERR_INTERNAL, "attempt %lu: rank %u is missing",
                           (ul_t)attempt->row.id, i);
        for (uint32_t j = 0; j < i; j++) {
            if (attempt->rank[j]->row.node == rank->row.node)
                return err_set(err, ERR_INTERNAL, "attempt %lu: a node twice",
                               (ul_t)attempt->row.id);
        }
        bool behind = (state == ATTEMPT_STARTING && rank->row.state < RANK_READY)
                      || (state == ATTEMPT_RUNNING && rank->row.state < RANK_STARTED);
        if (behind || (state != ATTEMPT_STOPPING && rank->row.state == RANK_LOST))
            return err_set(err, ERR_INTERNAL, "attempt %lu is %s, rank %u %s",
                           (ul_t)attempt->row.id, attempt_state_name(state), i,
                           rank_state_name(rank->row.state));
        int rc = check_lease(world, rank, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool states_agree(const struct job *job)
{
    const struct attempt *attempt = job->attempt;

    if (attempt == NULL)
        return job->row.state == JOB_QUEUED || job->row.state == JOB_SUSPENDED;
    switch (attempt->row.state) {
    case ATTEMPT_PREPARING:
        return job->row.state == JOB_PREPARING;
    case ATTEMPT_STARTING:
        return job->row.state == JOB_STARTING;
    case ATTEMPT_RUNNING:
        return job->row.state == JOB_RUNNING;
    case ATTEMPT_STOPPING:
        return job->row.state == (attempt->row.then == JOB_QUEUED ? JOB_RECOVERING : JOB_STOPPING);
    case ATTEMPT_ENDED:
    case ATTEMPT_STATE_COUNT:
    default:
        return false;
    }
}

static int check_job(const struct world *world, const struct job *job, struct err *err)
{
    const struct attempt *attempt = job->attempt;

    if (!states_agree(job))
        return err_set(err, ERR_INTERNAL, "job %lu is %s, its attempt %s", (ul_t)job->row.id,
                       job_state_name(job->row.state),
                       attempt != NULL ? attempt_state_name(attempt->row.state) : "absent");
    if (job->row.held < 0 || job->row.charged < 0)
        return err_set(err, ERR_INTERNAL, "job %lu: money below zero", (ul_t)job->row.id);
    if (job->row.attempts > job->ask.max_attempts)
        return err_set(err, ERR_INTERNAL, "job %lu: too many attempts", (ul_t)job->row.id);
    if (attempt == NULL)
        return 0;
    if (attempt->row.id != job->row.attempt || attempt->row.epoch != job->row.epoch)
        return err_set(err, ERR_INTERNAL, "job %lu: attempt or epoch differs", (ul_t)job->row.id);
    if (attempt->rank_count != job->ask.nodes)
        return err_set(err, ERR_INTERNAL, "attempt %lu: %u of %u ranks", (ul_t)attempt->row.id,
                       attempt->rank_count, job->ask.nodes);
    return check_ranks(world, attempt, err);
}

/* -- nodes ----------------------------------------------------------------------------------- */

static int check_node(const struct node *node, struct err *err)
{
    bool at_work = node_is_leased(node);

    if (at_work && (node->row.state == NODE_GONE || node->row.state == NODE_DRAINED))
        return err_set(err, ERR_INTERNAL, "node %s is %s with work on it", node->row.name,
                       node_state_name(node->row.state));
    if (node->row.state == NODE_DRAINING && !at_work)
        return err_set(err, ERR_INTERNAL, "node %s drains without work", node->row.name);
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        const struct device *device = node->device[i];
        if (device == NULL)
            continue;
        if (device->slot == NULL || device->row.ordinal != i || device->row.node != node->row.id)
            return err_set(err, ERR_INTERNAL, "node %s: device %u is misfiled", node->row.name, i);
        if ((device->row.tier == TIER_CLAIMED) != (device->row.measured_mib == 0))
            return err_set(err, ERR_INTERNAL, "node %s: device %u: tier without measurement",
                           node->row.name, i);
    }
    return 0;
}

static int check_counts(const struct world *world, struct err *err)
{
    for (uint32_t i = 0; i < world->projects.count; i++) {
        const struct project *project = world->projects.items[i];
        uint32_t live = 0;
        for (uint32_t j = 0; j < world->jobs.count; j++)
            live += ((const struct job *)world->jobs.items[j])->row.project == project->row.id;
        if (live != project->live_jobs)
            return err_set(err, ERR_INTERNAL, "project %s counts %u of %u jobs", project->row.name,
                           project->live_jobs, live);
    }
    return 0;
}

int world_check(const struct world *world, struct err *err)
{
    int rc = check_sums(world, err);

    rc = rc < 0 ? rc : check_escrow(world, err);
    rc = rc < 0 ? rc : check_slots(world, err);
    rc = rc < 0 ? rc : check_counts(world, err);
    for (uint32_t i = 0; i < world->jobs.count && rc == 0; i++)
        rc = check_job(world, world->jobs.items[i], err);
    for (uint32_t i = 0; i < world->nodes.count && rc == 0; i++)
        rc = check_node(world->nodes.items[i], err);
    return rc;
}
