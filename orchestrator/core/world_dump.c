/* Every row that the world holds: a snapshot, and what the property tests compare. */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

#define DUMP_TABLE(table_, kind_, field_, type_, row_)                                             \
    for (uint32_t i = 0; i < (table_).count; i++) {                                                \
        const type_ *item = (table_).items[i];                                                     \
        out_row(out, &(struct row){.kind = (kind_), .field_ = (row_)});                            \
    }

static void dump_parties(const struct world *world, struct world_out *out)
{
    DUMP_TABLE(world->projects, ROW_PROJECT, project, struct project, item->row)
    DUMP_TABLE(world->providers, ROW_PROVIDER, provider, struct provider_row, *item)
    DUMP_TABLE(world->users, ROW_USER, user, struct user_row, *item)
    DUMP_TABLE(world->tokens, ROW_TOKEN, token, struct token_row, *item)
    DUMP_TABLE(world->join_tokens, ROW_JOIN_TOKEN, join_token, struct join_token_row, *item)
    DUMP_TABLE(world->accounts, ROW_ACCOUNT, account, struct account_row, *item)
}

static int compare_pairs(const void *left, const void *right)
{
    const struct pair *a = *(struct pair *const *)left;
    const struct pair *b = *(struct pair *const *)right;

    if (a->row.a != b->row.a)
        return a->row.a < b->row.a ? -1 : 1;
    return a->row.b < b->row.b ? -1 : a->row.b > b->row.b;
}

static void dump_links(const struct world *world, struct world_out *out)
{
    struct pair_list list = {0};

    for (uint32_t i = 0; i < world->pairs.count; i++) {
        struct pair *pair = map_at(&world->pairs, i);
        if (pair->measured)
            pair_list_add(&list, pair);
    }
    if (list.count > 0)
        qsort(list.items, list.count, sizeof(struct pair *), compare_pairs);
    for (uint32_t i = 0; i < list.count; i++)
        out_row(out, &(struct row){.kind = ROW_LINK, .link = list.items[i]->row});
    free(list.items);
}

static void dump_hardware(const struct world *world, struct world_out *out)
{
    DUMP_TABLE(world->nodes, ROW_NODE, node, struct node, item->row)
    DUMP_TABLE(world->devices, ROW_DEVICE, device, struct device, item->row)
    DUMP_TABLE(world->slots, ROW_SLOT, slot, struct slot, item->row)
    dump_links(world, out);
}

static void dump_slots_of_leases(const struct world *world, struct world_out *out)
{
    for (uint32_t i = 0; i < world->leases.count; i++) {
        const struct lease *lease = world->leases.items[i];
        for (uint32_t k = 0; k < lease->slot_count; k++) {
            const struct slot *slot = table_get(&world->slots, lease->slot[k]);
            out_row(out, &(struct row){.kind = ROW_LEASE_SLOT,
                                       .lease_slot = {.lease = lease->row.id,
                                                      .slot = lease->slot[k],
                                                      .live = slot->lease == lease->row.id}});
        }
    }
}

static int compare_ids(const void *left, const void *right)
{
    const struct row *a = left;
    const struct row *b = right;
    uint64_t x = row_key(a).low;
    uint64_t y = row_key(b).low;

    return x < y ? -1 : x > y;
}

static void dump_contents(const struct world *world, struct world_out *out)
{
    uint32_t first = out->row_count;

    for (uint32_t p = 0; p < world->projects.count; p++) {
        const struct project *project = world->projects.items[p];
        for (uint32_t i = 0; i < project->contents.count; i++) {
            const struct content_row *content = map_at(&project->contents, i);
            out_row(out, &(struct row){.kind = ROW_CONTENT, .content = *content});
        }
    }
    if (out->row_count > first)
        qsort(out->rows + first, out->row_count - first, sizeof(*out->rows), compare_ids);
    first = out->row_count;
    for (uint32_t i = 0; i < world->outputs.count; i++) {
        const struct job_output_row *output = map_at(&world->outputs, i);
        out_row(out, &(struct row){.kind = ROW_JOB_OUTPUT, .job_output = *output});
    }
    if (out->row_count > first)
        qsort(out->rows + first, out->row_count - first, sizeof(*out->rows), compare_ids);
}

void world_dump(const struct world *world, struct world_out *out)
{
    out_row(out, &(struct row){.kind = ROW_CONTROL, .control = {world->next_id, world->now_us}});
    dump_parties(world, out);
    dump_hardware(world, out);
    DUMP_TABLE(world->jobs, ROW_JOB, job, struct job, item->row)
    DUMP_TABLE(world->attempts, ROW_ATTEMPT, attempt, struct attempt, item->row)
    DUMP_TABLE(world->ranks, ROW_RANK, rank, struct rank, item->row)
    DUMP_TABLE(world->leases, ROW_LEASE, lease, struct lease, item->row)
    dump_slots_of_leases(world, out);
    dump_contents(world, out);
}
