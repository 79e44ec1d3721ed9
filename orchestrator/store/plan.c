/* Coalesces and orders a batch. */
#include <stdlib.h>
#include <string.h>

#include "common/pure/map.h"
#include "common/pure/mem.h"
#include "orchestrator/store/store_private.h"

/* One entry per written row; its place is that of the first change, its value the last. */
struct entry {
    const struct row *row;
};

struct key {
    uint64_t kind;
    struct row_key row;
};

/* Two rows of one key; idempotency keys are hashed and so compared in full. */
static bool same_key(const struct row *a, const struct row *b)
{
    return a->kind != ROW_IDEM || strcmp(a->idem.key, b->idem.key) == 0;
}

static uint32_t coalesce(const struct batch *batch, struct entry *entries)
{
    struct map index;
    uint32_t count = 0;

    map_init(&index);
    for (uint32_t i = 0; i < batch->row_count; i++) {
        const struct row *row = &batch->rows[i];
        if (row->kind == ROW_CONTROL)
            continue;
        if (row_is_append(row->kind)) {
            entries[count++].row = row;
            continue;
        }
        struct key key = {.kind = row->kind, .row = row_key(row)};
        struct entry *known = map_get(&index, &key, sizeof(key));
        if (known != NULL && same_key(known->row, row)) {
            known->row = row;
            continue;
        }
        entries[count].row = row;
        map_put(&index, &key, sizeof(key), &entries[count]);
        count++;
    }
    map_fini(&index);
    return count;
}

/* Rows that give up what another row of the batch may take: a unique index sees them first. */
static bool is_release(const struct row *row)
{
    return (row->kind == ROW_LEASE_SLOT && !row->lease_slot.live)
           || (row->kind == ROW_NODE && row->node.state == NODE_GONE)
           || (row->kind == ROW_ATTEMPT && row->attempt.state == ATTEMPT_ENDED);
}

static uint32_t row_place(const struct row *row)
{
    return 2 * (uint32_t)row->kind + (is_release(row) ? 0 : 1);
}

/* Stable, by kind: owners before what they own. */
static void order(struct batch_plan *plan, const struct entry *entries)
{
    uint32_t start[2 * ROW_KIND_COUNT + 1] = {0};

    for (uint32_t i = 0; i < plan->row_count; i++)
        start[row_place(entries[i].row) + 1]++;
    for (uint32_t i = 0; i < 2 * ROW_KIND_COUNT; i++)
        start[i + 1] += start[i];
    for (uint32_t i = 0; i < plan->row_count; i++)
        plan->rows[start[row_place(entries[i].row)]++] = entries[i].row;
}

/* A gang's object is its job. Mostly the batch itself says which. */
static struct change_target target_of_gang(const struct map *jobs, uint64_t attempt)
{
    const struct row *const *row = map_get_id(jobs, attempt);

    return row != NULL ? (struct change_target){STATEMENT_CHANGE_JOB, (*row)->attempt.job}
                       : (struct change_target){STATEMENT_CHANGE_GANG, attempt};
}

/* The API object whose picture a row changes; NULL when none. jobs: the batch's attempts by id. */
static struct change_target target_of(const struct row *row, const struct map *jobs)
{
    switch ((int)row->kind) {
    case ROW_JOB:
        return (struct change_target){STATEMENT_CHANGE_JOB, row->job.id};
    case ROW_ATTEMPT:
        return (struct change_target){STATEMENT_CHANGE_JOB, row->attempt.job};
    case ROW_JOB_EVENT:
        return (struct change_target){STATEMENT_CHANGE_JOB, row->job_event.job};
    case ROW_JOB_OUTPUT:
        return (struct change_target){STATEMENT_CHANGE_JOB, row->job_output.job};
    case ROW_RANK:
        return target_of_gang(jobs, row->rank.attempt);
    case ROW_LEASE:
        return target_of_gang(jobs, row->lease.attempt);
    case ROW_NODE:
        return (struct change_target){STATEMENT_CHANGE_NODE, row->node.id};
    case ROW_NODE_EVENT:
        return (struct change_target){STATEMENT_CHANGE_NODE, row->node_event.node};
    case ROW_DEVICE:
        return (struct change_target){STATEMENT_CHANGE_NODE, row->device.node};
    case ROW_ACCOUNT:
        return (struct change_target){STATEMENT_CHANGE_ACCOUNT, row->account.id};
    default:
        return (struct change_target){NULL, 0};
    }
}

static void add_change(struct batch_plan *plan, struct map *seen, struct change_target target)
{
    struct {
        const char *statement;
        uint64_t id;
    } key = {target.statement, target.id};

    if (target.statement == NULL || map_get(seen, &key, sizeof(key)) != NULL)
        return;
    map_put(seen, &key, sizeof(key), plan);
    plan->changes[plan->change_count++] = target;
}

static void collect_changes(struct batch_plan *plan)
{
    struct map seen;
    struct map jobs;

    map_init(&seen);
    map_init(&jobs);
    for (uint32_t i = 0; i < plan->row_count; i++) {
        if (plan->rows[i]->kind == ROW_ATTEMPT)
            map_put_id(&jobs, plan->rows[i]->attempt.id, &plan->rows[i]);
    }
    for (uint32_t i = 0; i < plan->row_count; i++)
        add_change(plan, &seen, target_of(plan->rows[i], &jobs));
    map_fini(&jobs);
    map_fini(&seen);
}

static void read_clocks(struct batch_plan *plan, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->row_count; i++) {
        if (batch->rows[i].kind != ROW_CONTROL)
            continue;
        plan->next_id = batch->rows[i].control.next_id;
        plan->now_us = batch->rows[i].control.now_us;
    }
    for (uint32_t i = 0; i < batch->journal_count; i++) {
        if (batch->journal[i].now_us > plan->now_us)
            plan->now_us = batch->journal[i].now_us;
    }
}

void batch_plan_init(struct batch_plan *plan, const struct batch *batch)
{
    uint32_t capacity = batch->row_count > 0 ? batch->row_count : 1;
    struct entry *entries = mem_new(capacity, sizeof(*entries));

    *plan = (struct batch_plan){0};
    plan->rows = mem_new(capacity, sizeof(*plan->rows));
    plan->changes = mem_new(capacity, sizeof(*plan->changes));
    plan->row_count = coalesce(batch, entries);
    order(plan, entries);
    collect_changes(plan);
    read_clocks(plan, batch);
    free(entries);
}

void batch_plan_fini(struct batch_plan *plan)
{
    free(plan->rows);
    free(plan->changes);
    *plan = (struct batch_plan){0};
}
