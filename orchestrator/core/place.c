#include "orchestrator/core/place.h"

#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "common/pure/units.h"
#include "orchestrator/core/place_private.h"

static const char *const funnel_names[FUNNEL_STEP_COUNT] = {
    [FUNNEL_KNOWN] = "known", [FUNNEL_READY] = "ready",   [FUNNEL_PLACE] = "place",
    [FUNNEL_MODEL] = "model", [FUNNEL_MEMORY] = "memory", [FUNNEL_HOST] = "host",
    [FUNNEL_PRICE] = "price", [FUNNEL_FREE] = "free",
};

const char *funnel_step_name(enum funnel_step step)
{
    BUG_ON(step >= FUNNEL_STEP_COUNT);
    return funnel_names[step];
}

/* -- filters --------------------------------------------------------------------------------- */

static bool model_fits(const struct place_device *device, const struct job_ask *ask)
{
    if (!device->offered || device->tier < TIER_MEASURED)
        return false;
    if (ask->cpu_device)
        return device->class == DEVICE_CPU;
    if (device->class != DEVICE_GPU)
        return false;
    if (ask->model_count == 0)
        return true;
    for (uint32_t i = 0; i < ask->model_count; i++) {
        if (strstr(device->model, ask->models[i]) != NULL)
            return true;
    }
    return false;
}

/*
 * The nominal class counts, so that "24GB" matches a 24 GiB card whose driver keeps some for
 * itself; what was measured may be lower by that part only. A quarter is above what any driver
 * keeps.
 */
static bool memory_fits(const struct place_device *device, const struct job_ask *ask)
{
    return (uint64_t)device->nominal_mib * MIB >= ask->gpu_memory
           && (uint64_t)device->measured_mib * MIB >= ask->gpu_memory - ask->gpu_memory / 4;
}

bool place_device_fits(const struct place_device *device, const struct job_ask *ask)
{
    return model_fits(device, ask) && memory_fits(device, ask);
}

static bool place_allowed(const struct place_node *node, const struct job_ask *ask)
{
    bool country_ok = ask->country_count == 0;

    for (uint32_t i = 0; i < ask->country_count && !country_ok; i++)
        country_ok = strcmp(node->country, ask->countries[i]) == 0;
    for (uint32_t i = 0; i < ask->excluded_count; i++) {
        if (strcmp(node->name, ask->excluded[i]) == 0)
            return false;
    }
    return country_ok;
}

uint32_t place_count_devices(const struct place_node *node, const struct job_ask *ask,
                             bool ignore_busy)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < node->device_count; i++) {
        if (place_device_fits(&node->devices[i], ask) && (ignore_busy || !node->devices[i].busy))
            count++;
    }
    return count;
}

static uint32_t count_models(const struct place_node *node, const struct job_ask *ask)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < node->device_count; i++)
        count += model_fits(&node->devices[i], ask);
    return count;
}

static bool node_is_used(const struct place_node *node)
{
    for (uint32_t i = 0; i < node->device_count; i++) {
        if (node->devices[i].busy)
            return true;
    }
    return false;
}

static bool host_fits(const struct place_node *node, const struct job_ask *ask)
{
    return node->cpu_milli >= ask->cpu_milli && (uint64_t)node->memory_mib * MIB >= ask->memory
           && (uint64_t)node->disk_mib * MIB >= ask->disk
           && (uint64_t)node->memory_mib * MIB >= ask->shm;
}

enum funnel_step place_filter(const struct place_node *node, const struct job_ask *ask,
                              bool ignore_busy)
{
    if (!node->ready)
        return FUNNEL_READY;
    if (!place_allowed(node, ask))
        return FUNNEL_PLACE;
    if (count_models(node, ask) < ask->gpus_per_node)
        return FUNNEL_MODEL;
    if (place_count_devices(node, ask, true) < ask->gpus_per_node)
        return FUNNEL_MEMORY;
    if (ask->image && !node->images)
        return FUNNEL_HOST;
    /* What the host lacks because others use it comes back: that is FREE, not HOST. */
    bool host = host_fits(node, ask);
    if (!host && !node_is_used(node))
        return FUNNEL_HOST;
    if (ask->max_price > 0 && node->price > ask->max_price)
        return FUNNEL_PRICE;
    if (!ignore_busy && (!host || place_count_devices(node, ask, false) < ask->gpus_per_node))
        return FUNNEL_FREE;
    return FUNNEL_STEP_COUNT;
}

/* -- candidates and their pairs --------------------------------------------------------------- */

static const struct place_link *find_link(const struct place_fleet *fleet, uint32_t a, uint32_t b)
{
    uint32_t low = 0;
    uint32_t high = fleet->link_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct place_link *link = &fleet->links[middle];
        if (link->a < a || (link->a == a && link->b < b))
            low = middle + 1;
        else
            high = middle;
    }
    if (low < fleet->link_count && fleet->links[low].a == a && fleet->links[low].b == b)
        return &fleet->links[low];
    return NULL;
}

static uint32_t pair_value(const struct place_fleet *fleet, uint32_t a, uint32_t b)
{
    const struct place_link *link = find_link(fleet, a < b ? a : b, a < b ? b : a);

    if (link == NULL)
        return PAIR_UNMEASURED;
    if (!link->reachable)
        return PAIR_UNREACHABLE;
    if (link->rtt_us == 0)
        return PAIR_UNMEASURED;
    return link->rtt_us > PAIR_MAX_RTT ? PAIR_MAX_RTT : link->rtt_us;
}

struct priced {
    micro_t price;
    uint32_t node;
};

static int compare_priced(const void *left, const void *right)
{
    const struct priced *a = left;
    const struct priced *b = right;

    if (a->price != b->price)
        return a->price < b->price ? -1 : 1;
    return a->node < b->node ? -1 : a->node > b->node;
}

static int compare_index(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;

    return a < b ? -1 : a > b;
}

/* Keeps the cheapest PLACE_MAX_CANDIDATES. */
static void keep_cheapest(struct place_pool *pool)
{
    struct priced *order = mem_new(pool->count, sizeof(*order));

    for (uint32_t i = 0; i < pool->count; i++) {
        uint32_t node = pool->node[i];
        order[i] = (struct priced){pool->fleet->nodes[node].price, node};
    }
    qsort(order, pool->count, sizeof(*order), compare_priced);
    pool->count = PLACE_MAX_CANDIDATES;
    for (uint32_t i = 0; i < pool->count; i++)
        pool->node[i] = order[i].node;
    qsort(pool->node, pool->count, sizeof(*pool->node), compare_index);
    free(order);
}

void place_pool_init(struct place_pool *pool, const struct place_fleet *fleet,
                     const struct job_ask *ask, struct place_rules rules)
{
    *pool = (struct place_pool){.fleet = fleet, .ask = ask, .rules = rules};
    pool->node = mem_new(fleet->node_count, sizeof(*pool->node));
    for (uint32_t i = 0; i < fleet->node_count; i++) {
        if (place_filter(&fleet->nodes[i], ask, rules.ignore_busy) == FUNNEL_STEP_COUNT)
            pool->node[pool->count++] = i;
    }
    if (pool->count > PLACE_MAX_CANDIDATES)
        keep_cheapest(pool);
    if (ask->nodes < 2)
        return;
    size_t count = pool->count;
    pool->pair = mem_new(count * count, sizeof(*pool->pair));
    for (uint32_t a = 0; a < pool->count; a++) {
        for (uint32_t b = a + 1; b < pool->count; b++) {
            uint32_t value = pair_value(fleet, pool->node[a], pool->node[b]);
            pool->pair[a * count + b] = value;
            pool->pair[b * count + a] = value;
        }
    }
}

void place_pool_fini(struct place_pool *pool)
{
    free(pool->node);
    free(pool->pair);
    *pool = (struct place_pool){0};
}

uint32_t place_pair(const struct place_pool *pool, uint32_t a, uint32_t b)
{
    return a == b ? 0 : pool->pair[(size_t)a * pool->count + b];
}

bool place_pair_ok(const struct place_pool *pool, uint32_t a, uint32_t b)
{
    uint32_t value = place_pair(pool, a, b);

    if (value == PAIR_UNMEASURED)
        return pool->rules.unmeasured_ok;
    if (value == PAIR_UNREACHABLE)
        return pool->rules.any_reach;
    return pool->rules.any_rtt || pool->ask->max_rtt_us == 0 || value <= pool->ask->max_rtt_us;
}

uint32_t place_pair_rtt(const struct place_pool *pool, uint32_t a, uint32_t b)
{
    uint32_t value = place_pair(pool, a, b);

    return value >= PAIR_UNREACHABLE ? 0 : value;
}

/* -- the plan --------------------------------------------------------------------------------- */

/* Smallest sufficient device first, so that large ones stay free for who needs them. */
static void take_devices(const struct place_node *node, const struct job_ask *ask, uint64_t *slots)
{
    bool taken[SPEC_MAX_GPUS_PER_NODE * 4] = {false};
    uint32_t limit = node->device_count;

    if (limit > sizeof(taken))
        limit = sizeof(taken);
    for (uint32_t k = 0; k < ask->gpus_per_node; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < limit; i++) {
            const struct place_device *device = &node->devices[i];
            if (taken[i] || device->busy || !place_device_fits(device, ask))
                continue;
            if (best == UINT32_MAX || device->measured_mib < node->devices[best].measured_mib
                || (device->measured_mib == node->devices[best].measured_mib
                    && device->slot < node->devices[best].slot))
                best = i;
        }
        BUG_ON(best == UINT32_MAX);
        taken[best] = true;
        slots[k] = node->devices[best].slot;
    }
}

static void fill_plan(const struct place_pool *pool, const struct place_gang *gang,
                      struct place_plan *plan)
{
    const struct job_ask *ask = pool->ask;

    memset(plan, 0, sizeof(*plan));
    plan->nodes = gang->count;
    plan->diameter_us = gang->diameter_us;
    plan->price = gang->price;
    for (uint32_t i = 0; i < gang->count; i++) {
        plan->node[i] = pool->node[gang->member[i]];
        take_devices(&pool->fleet->nodes[plan->node[i]], ask,
                     &plan->slot[(size_t)i * ask->gpus_per_node]);
    }
}

static void fill_funnel(const struct place_fleet *fleet, const struct job_ask *ask, struct why *why)
{
    for (uint32_t i = 0; i < fleet->node_count; i++) {
        enum funnel_step failed = place_filter(&fleet->nodes[i], ask, false);
        for (uint32_t step = 0; step < (uint32_t)failed && step < FUNNEL_STEP_COUNT; step++)
            why->funnel[step]++;
    }
}

static void fill_placed(const struct place_pool *pool, const struct place_gang *gang,
                        struct why *why)
{
    why->placed = true;
    why->diameter_us = gang->diameter_us;
    why->price = gang->price;
    why->largest_clique = gang->count;
    for (uint32_t i = 0; i < gang->count && i < SPEC_MAX_GPUS_PER_NODE; i++) {
        const struct place_node *node = &pool->fleet->nodes[pool->node[gang->member[i]]];
        memcpy(why->node[why->node_count++], node->name, sizeof(node->name));
    }
    place_why_pairs(pool, gang, why);
    place_why_rejects(pool->fleet, pool->ask, pool, gang, why);
    place_why_detail(why);
}

int place_solve(const struct place_fleet *fleet, const struct job_ask *ask,
                struct place_plan *ret_plan, struct why *ret_why,
                struct place_probe ret_probes[PLACE_MAX_PROBES], uint32_t *ret_probe_count)
{
    struct why why;
    struct place_pool pool;
    struct place_gang gang;
    uint32_t probe_count = 0;

    BUG_ON(ask->nodes == 0 || ask->nodes > SPEC_MAX_NODES || ask->gpus_per_node == 0
           || ask->gpus_per_node > SPEC_MAX_GPUS_PER_NODE);
    memset(&why, 0, sizeof(why));
    why.asked = ask->nodes;
    place_pool_init(&pool, fleet, ask, (struct place_rules){0});
    bool found = place_search(&pool, &gang);
    if (found) {
        place_ring(&pool, &gang);
        if (ret_plan != NULL)
            fill_plan(&pool, &gang, ret_plan);
    }
    if (ret_why != NULL || !found) {
        fill_funnel(fleet, ask, &why);
        if (found)
            fill_placed(&pool, &gang, &why);
        else
            place_explain(fleet, ask, &pool, &gang, &why, ret_probes, &probe_count);
    }
    place_pool_fini(&pool);
    if (ret_why != NULL)
        *ret_why = why;
    if (ret_probe_count != NULL)
        *ret_probe_count = probe_count;
    return found ? 0 : -(int)why.code;
}
