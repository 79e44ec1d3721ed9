/*
 * What a database holds: rows of whole batches, and the constraints that refuse the rest. A refused
 * row is a violation here, because the core decides refusals itself.
 */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"

struct row_id {
    uint64_t kind;
    struct row_key key;
};

static void job_row_keep(struct job_row *copy)
{
    copy->ask = (const void *)mem_dup(copy->ask, sizeof(*copy->ask));
    copy->spec = mem_strdup(copy->spec);
    if (copy->why != NULL)
        copy->why = (const void *)mem_dup(copy->why, sizeof(*copy->why));
}

static void job_row_drop(struct job_row *row)
{
    free((void *)(uintptr_t)row->ask);
    free((void *)(uintptr_t)row->spec);
    free((void *)(uintptr_t)row->why);
}

static void row_keep(struct row *copy, const struct row *row)
{
    *copy = *row;
    if (row->kind == ROW_JOB)
        job_row_keep(&copy->job);
    else if (row->kind == ROW_RECEIPT)
        copy->receipt.bytes = NULL;
}

static void free_values(struct map *map)
{
    for (uint32_t i = 0; i < map->count; i++)
        free(map_at(map, i));
    map_fini(map);
}

void store_fini(struct store *store)
{
    for (uint32_t i = 0; i < store->count; i++) {
        if (store->rows[i].kind == ROW_JOB)
            job_row_drop(&store->rows[i].job);
    }
    free_values(&store->balances);
    free_values(&store->by_job);
    free_values(&store->by_lease);
    map_fini(&store->by_key);
    map_fini(&store->jobs);
    map_fini(&store->slots);
    map_fini(&store->receipts);
    free(store->rows);
}

/* -- reading ----------------------------------------------------------------------------------- */

static struct row *find(const struct store *store, enum row_kind kind, struct row_key key)
{
    struct row_id id = {kind, key};
    void *index = map_get(&store->by_key, &id, sizeof(id));

    return index != NULL ? &store->rows[(uintptr_t)index - 1] : NULL;
}

const struct row *store_get(const struct store *store, enum row_kind kind, uint64_t id)
{
    return find(store, kind, (struct row_key){0, id});
}

const struct row *store_idem(const struct store *store, const struct idem_row *like)
{
    struct row row = {.kind = ROW_IDEM, .idem = *like};

    return find(store, ROW_IDEM, row_key(&row));
}

const struct job_row *store_job(const struct store *store, const struct uuid *uid)
{
    void *index = map_get(&store->jobs, uid, sizeof(*uid));

    return index != NULL ? &store->rows[(uintptr_t)index - 1].job : NULL;
}

struct world *store_load(const struct sim *sim)
{
    const struct store *store = &sim->store;
    const struct row **order = mem_new(store->count + 1, sizeof(struct row *));
    struct world *world = world_new();
    uint32_t count = 0;

    for (uint32_t i = 0; i < store->count; i++) {
        if (store->rows[i].kind != ROW_IDEM) /* cold: attached to the event that asks */
            order[count++] = &store->rows[i];
    }
    if (count > 0)
        qsort(order, count, sizeof(struct row *), row_compare);
    for (uint32_t i = 0; i < count; i++)
        world_apply(world, order[i]);
    free(order);
    return world;
}

/* -- constraints --------------------------------------------------------------------------------
 */

static struct tally *tally_of(struct map *map, uint64_t id)
{
    struct tally *tally = map_get_id(map, id);

    if (tally == NULL) {
        tally = mem_new(1, sizeof(*tally));
        map_put_id(map, id, tally);
    }
    return tally;
}

static void put_transfer(struct sim *sim, const struct transfer_row *row)
{
    struct store *store = &sim->store;

    if (row->debit == row->credit || row->amount <= 0)
        sim_break(sim, "sum zero: transfer %llu gives to itself or nothing",
                  (unsigned long long)row->id);
    tally_of(&store->balances, row->debit)->balance -= row->amount;
    tally_of(&store->balances, row->credit)->balance += row->amount;
    if (row->job != 0)
        tally_of(&store->by_job, row->job)->kind[row->kind] += row->amount;
    if (row->lease != 0)
        tally_of(&store->by_lease, row->lease)->kind[row->kind] += row->amount;
}

static void put_job_event(struct sim *sim, const struct job_event_row *row)
{
    bool first = row->from_state == JOB_STATE_COUNT && row->to_state == JOB_QUEUED;

    if (!first && row->from_state != row->to_state && !job_may_move(row->from_state, row->to_state))
        sim_break(sim, "terminal is final: job %llu moves from %s to %s",
                  (unsigned long long)row->job, job_state_name(row->from_state),
                  job_state_name(row->to_state));
}

static void put_receipt(struct sim *sim, const struct receipt_row *row)
{
    uint64_t key[2] = {row->node, row->seq};

    if (map_get(&sim->store.receipts, key, sizeof(key)) != NULL)
        sim_break(sim, "billed once: receipt %llu of node %llu is stored twice",
                  (unsigned long long)row->seq, (unsigned long long)row->node);
    map_put(&sim->store.receipts, key, sizeof(key), sim);
}

static void put_slot(struct sim *sim, const struct lease_slot_row *row)
{
    void *lease = map_get_id(&sim->store.slots, row->slot);

    if (row->live) {
        if (lease != NULL && (uintptr_t)lease != row->lease)
            sim_break(sim, "no device twice: slot %llu is leased to %llu and %llu",
                      (unsigned long long)row->slot, (unsigned long long)(uintptr_t)lease,
                      (unsigned long long)row->lease);
        map_put_id(&sim->store.slots, row->slot, (void *)(uintptr_t)row->lease);
    } else if ((uintptr_t)lease == row->lease) {
        map_remove_id(&sim->store.slots, row->slot);
    }
}

/* A batch may hold several moves: their legality is in the job's events. */
static void put_job(struct sim *sim, const struct job_row *old, const struct job_row *row)
{
    if (old == NULL)
        return;
    if (job_state_is_final(old->state))
        sim_break(sim, "terminal is final: job %llu was %s and is %s", (unsigned long long)row->id,
                  job_state_name(old->state), job_state_name(row->state));
    if (row->epoch < old->epoch || row->attempts < old->attempts)
        sim_break(sim, "terminal is final: job %llu went back an epoch",
                  (unsigned long long)row->id);
}

/* Rows that have no more to say. */
static void put_other(struct sim *sim, const struct row *old, const struct row *row)
{
    bool over = false;

    if (row->kind == ROW_ATTEMPT)
        over = old->attempt.state == ATTEMPT_ENDED;
    else if (row->kind == ROW_NODE)
        over = old->node.state == NODE_GONE;
    else if (row->kind == ROW_RANK)
        over = old->rank.state == RANK_DONE || old->rank.state == RANK_LOST;
    else if (row->kind == ROW_IDEM)
        over = uuid_compare(&old->idem.object, &row->idem.object) != 0;
    else if (row->kind == ROW_LEASE_SLOT)
        over = row->lease_slot.live && !old->lease_slot.live;
    else if (row_is_append(row->kind) || row->kind == ROW_TRANSFER)
        over = true;
    if (over)
        sim_break(sim, "terminal is final: a row of %s changes after its end",
                  row_table(row->kind));
}

static void check_row(struct sim *sim, const struct row *old, const struct row *row)
{
    if (old != NULL)
        put_other(sim, old, row);
    if (row->kind == ROW_TRANSFER)
        put_transfer(sim, &row->transfer);
    else if (row->kind == ROW_JOB_EVENT)
        put_job_event(sim, &row->job_event);
    else if (row->kind == ROW_RECEIPT)
        put_receipt(sim, &row->receipt);
    else if (row->kind == ROW_LEASE_SLOT)
        put_slot(sim, &row->lease_slot);
    else if (row->kind == ROW_JOB)
        put_job(sim, old != NULL ? &old->job : NULL, &row->job);
    else if (row->kind == ROW_LEASE)
        check_lease(sim, old != NULL ? &old->lease : NULL, &row->lease);
}

/* -- writing ------------------------------------------------------------------------------------
 */

static void put(struct sim *sim, const struct row *row)
{
    struct store *store = &sim->store;
    struct row_key key = row_key(row);
    struct row *old = find(store, row->kind, key);

    check_row(sim, old, row);
    sim_note(sim, row_table(row->kind), key.high, key.low,
             row->kind == ROW_JOB       ? (uint64_t)row->job.state
             : row->kind == ROW_ATTEMPT ? (uint64_t)row->attempt.state
             : row->kind == ROW_RANK    ? (uint64_t)row->rank.state
             : row->kind == ROW_NODE    ? (uint64_t)row->node.state << 8 | row->node.conditions
             : row->kind == ROW_ACCOUNT ? (uint64_t)row->account.balance
                                        : 0,
             row->kind == ROW_LEASE ? row->lease.billed_ms : 0);
    if (old == NULL) {
        if (store->count == store->capacity) {
            store->capacity = store->capacity ? store->capacity * 2 : 256;
            store->rows = mem_resize(store->rows, store->capacity, sizeof(*store->rows));
        }
        row_keep(&store->rows[store->count++], row);
        struct row_id id = {row->kind, key};
        map_put(&store->by_key, &id, sizeof(id), (void *)(uintptr_t)store->count);
        if (row->kind == ROW_JOB)
            map_put(&store->jobs, &row->job.uid, sizeof(row->job.uid),
                    (void *)(uintptr_t)store->count);
        if (row->kind == ROW_ATTEMPT)
            sim->counters.attempts++;
        return;
    }
    if (row->kind == ROW_JOB)
        job_row_drop(&old->job);
    row_keep(old, row);
}

/* The last row of a key counts, as the store coalesces a batch; history is history. */
static bool is_superseded(const struct row *rows, uint32_t index, const struct map *last)
{
    struct row_id id = {rows[index].kind, row_key(&rows[index])};

    return (uintptr_t)map_get(last, &id, sizeof(id)) != index + 1;
}

void store_commit(struct sim *sim, const struct row *rows, uint32_t count)
{
    struct map last = {0};

    map_init(&last);
    for (uint32_t i = 0; i < count; i++) {
        struct row_id id = {rows[i].kind, row_key(&rows[i])};
        map_put(&last, &id, sizeof(id), (void *)(uintptr_t)(i + 1));
    }
    /* Releases before grants. */
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].kind == ROW_LEASE_SLOT && !rows[i].lease_slot.live
            && !is_superseded(rows, i, &last))
            put(sim, &rows[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        bool released = rows[i].kind == ROW_LEASE_SLOT && !rows[i].lease_slot.live;
        if (!released && !is_superseded(rows, i, &last))
            put(sim, &rows[i]);
    }
    map_fini(&last);
    sim->counters.commits++;
    sim->counters.rows += count;
    if (!sim->broken)
        check_batch(sim, rows, count);
}
