#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/place_private.h"

/* Steps of the exhaustive search when the greedy ones found no gang: some milliseconds. */
#define SEARCH_STEPS 200000u
/* Pools up to here are searched by every kind of greed; larger ones until one finds a gang. */
#define SEARCH_ALL_GREEDS 128u
/* Swap rounds; each must improve, and in practice two or three do. */
#define REFINE_ROUNDS 8u

static const struct place_node *node_of(const struct place_pool *pool, uint32_t candidate)
{
    return &pool->fleet->nodes[pool->node[candidate]];
}

static void gang_measure(const struct place_pool *pool, struct place_gang *gang)
{
    gang->price = 0;
    gang->diameter_us = 0;
    for (uint32_t i = 0; i < gang->count; i++) {
        gang->price += node_of(pool, gang->member[i])->price * (micro_t)pool->ask->gpus_per_node;
        for (uint32_t j = 0; j < i; j++) {
            uint32_t rtt = place_pair_rtt(pool, gang->member[j], gang->member[i]);
            if (rtt > gang->diameter_us)
                gang->diameter_us = rtt;
        }
    }
}

/* Larger first; then price and diameter in the order of the rules. Members decide ties by id. */
static bool gang_better(const struct place_rules *rules, const struct place_gang *a,
                        const struct place_gang *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    bool cheaper = a->price < b->price;
    bool nearer = a->diameter_us < b->diameter_us;
    if (rules->by_diameter)
        return nearer || (a->diameter_us == b->diameter_us && cheaper);
    return cheaper || (a->price == b->price && nearer);
}

enum greed {
    GREED_PRICE,   /* cheapest next, then nearest */
    GREED_NEAREST, /* nearest next, then cheapest */
    GREED_DEGREE,  /* who leaves most choice, then nearest */
    GREED_COUNT,
};

struct grower {
    const struct place_pool *pool;
    enum greed greed;
    bool *open;       /* candidate fits every member so far */
    uint32_t *worst;  /* its worst RTT to them */
    uint32_t *degree; /* fitting pairs in the whole pool; for GREED_DEGREE */
};

static bool grower_prefers(const struct grower *grower, uint32_t a, uint32_t b)
{
    micro_t price_a = node_of(grower->pool, a)->price;
    micro_t price_b = node_of(grower->pool, b)->price;

    if (grower->greed == GREED_DEGREE && grower->degree[a] != grower->degree[b])
        return grower->degree[a] > grower->degree[b];
    if (grower->greed == GREED_PRICE && price_a != price_b)
        return price_a < price_b;
    if (grower->worst[a] != grower->worst[b])
        return grower->worst[a] < grower->worst[b];
    return price_a < price_b; /* equal: the lower id, seen first, stays */
}

static void grower_add(struct grower *grower, struct place_gang *gang, uint32_t candidate)
{
    const struct place_pool *pool = grower->pool;

    gang->member[gang->count++] = candidate;
    grower->open[candidate] = false;
    if (gang->count == pool->ask->nodes)
        return;
    for (uint32_t i = 0; i < pool->count; i++) {
        if (!grower->open[i])
            continue;
        grower->open[i] = place_pair_ok(pool, candidate, i);
        uint32_t rtt = place_pair_rtt(pool, candidate, i);
        if (rtt > grower->worst[i])
            grower->worst[i] = rtt;
    }
}

/* O(gang size x candidates). */
static void grow(struct grower *grower, uint32_t seed, struct place_gang *ret_gang)
{
    const struct place_pool *pool = grower->pool;

    ret_gang->count = 0;
    memset(grower->worst, 0, pool->count * sizeof(*grower->worst));
    for (uint32_t i = 0; i < pool->count; i++)
        grower->open[i] = true;
    grower_add(grower, ret_gang, seed);
    while (ret_gang->count < pool->ask->nodes) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < pool->count; i++) {
            if (grower->open[i] && (best == UINT32_MAX || grower_prefers(grower, i, best)))
                best = i;
        }
        if (best == UINT32_MAX)
            break;
        grower_add(grower, ret_gang, best);
    }
    gang_measure(pool, ret_gang);
}

static bool fits_all_but(const struct place_pool *pool, const struct place_gang *gang,
                         uint32_t skipped, uint32_t candidate)
{
    for (uint32_t i = 0; i < gang->count; i++) {
        if (i == skipped)
            continue;
        if (gang->member[i] == candidate || !place_pair_ok(pool, gang->member[i], candidate))
            return false;
    }
    return gang->member[skipped] != candidate;
}

/* One round: the best exchange of one member for one outsider, if any improves. */
static bool swap_once(const struct place_pool *pool, struct place_gang *gang)
{
    struct place_gang best = *gang;

    for (uint32_t i = 0; i < gang->count; i++) {
        for (uint32_t candidate = 0; candidate < pool->count; candidate++) {
            if (!fits_all_but(pool, gang, i, candidate))
                continue;
            struct place_gang trial = *gang;
            trial.member[i] = candidate;
            gang_measure(pool, &trial);
            if (gang_better(&pool->rules, &trial, &best))
                best = trial;
        }
    }
    if (!gang_better(&pool->rules, &best, gang))
        return false;
    *gang = best;
    return true;
}

/* -- exhaustive, bounded: only when greed found nothing, so that "too far" is seldom wrong ------
 */

struct finder {
    const struct place_pool *pool;
    const uint32_t *degree;
    uint32_t steps;
    struct place_gang gang;
    struct place_gang best;
};

static bool fits_gang(const struct place_pool *pool, const struct place_gang *gang,
                      uint32_t candidate)
{
    for (uint32_t i = 0; i < gang->count; i++) {
        if (!place_pair_ok(pool, gang->member[i], candidate))
            return false;
    }
    return true;
}

/* Iterative depth-first search over ascending candidates; at[d] is the next to try at depth d. */
static bool find_clique(struct finder *finder)
{
    const struct place_pool *pool = finder->pool;
    uint32_t wanted = pool->ask->nodes;
    uint32_t at[SPEC_MAX_NODES + 1] = {0};

    for (;;) {
        uint32_t depth = finder->gang.count;
        uint32_t candidate = at[depth];
        if (candidate + (wanted - depth) > pool->count) {
            if (depth == 0)
                return false;
            finder->gang.count--;
            continue;
        }
        at[depth] = candidate + 1;
        if (finder->steps-- == 0)
            return false;
        if (finder->degree[candidate] + 1 < wanted || !fits_gang(pool, &finder->gang, candidate))
            continue;
        finder->gang.member[finder->gang.count++] = candidate;
        at[finder->gang.count] = candidate + 1;
        if (finder->gang.count > finder->best.count)
            finder->best = finder->gang;
        if (finder->gang.count == wanted)
            return true;
    }
}

static uint32_t *count_degrees(const struct place_pool *pool)
{
    uint32_t *degree = mem_new(pool->count, sizeof(*degree));

    for (uint32_t a = 0; a < pool->count; a++) {
        for (uint32_t b = a + 1; b < pool->count; b++) {
            if (place_pair_ok(pool, a, b)) {
                degree[a]++;
                degree[b]++;
            }
        }
    }
    return degree;
}

static void search_exhaustively(const struct place_pool *pool, const uint32_t *degree,
                                struct place_gang *best)
{
    struct finder finder = {.pool = pool, .degree = degree, .steps = SEARCH_STEPS, .best = *best};

    find_clique(&finder);
    if (finder.best.count > best->count) {
        *best = finder.best;
        gang_measure(pool, best);
    }
}

/* Cheapest; then the one with the fewest devices free, so that whole nodes stay whole. */
static void search_one(const struct place_pool *pool, struct place_gang *ret_gang)
{
    uint32_t least_free = 0;

    for (uint32_t i = 0; i < pool->count; i++) {
        const struct place_node *node = node_of(pool, i);
        uint32_t open = place_count_devices(node, pool->ask, pool->rules.ignore_busy);
        if (ret_gang->count > 0) {
            micro_t best = node_of(pool, ret_gang->member[0])->price;
            if (node->price > best || (node->price == best && open >= least_free))
                continue;
        }
        ret_gang->member[0] = i;
        ret_gang->count = 1;
        least_free = open;
    }
    gang_measure(pool, ret_gang);
}

/* One greedy gang from every seed that could still beat the best. */
static void search_greedily(struct grower *grower, enum greed greed, struct place_gang *best)
{
    const struct place_pool *pool = grower->pool;

    grower->greed = greed;
    for (uint32_t seed = 0; seed < pool->count; seed++) {
        struct place_gang gang;
        if (best->count > 0 && grower->degree[seed] + 1 < best->count)
            continue;
        grow(grower, seed, &gang);
        if (gang_better(&pool->rules, &gang, best))
            *best = gang;
    }
}

bool place_search(const struct place_pool *pool, struct place_gang *ret_gang)
{
    *ret_gang = (struct place_gang){0};
    if (pool->ask->nodes == 1) {
        search_one(pool, ret_gang);
        return ret_gang->count == 1;
    }
    struct grower grower = {
        .pool = pool,
        .open = mem_new(pool->count, sizeof(bool)),
        .worst = mem_new(pool->count, sizeof(uint32_t)),
        .degree = count_degrees(pool),
    };
    for (int greed = 0; greed < GREED_COUNT; greed++) {
        bool enough = ret_gang->count == pool->ask->nodes && pool->count > SEARCH_ALL_GREEDS;
        if (!enough)
            search_greedily(&grower, (enum greed)greed, ret_gang);
    }
    if (ret_gang->count < pool->ask->nodes && pool->count >= pool->ask->nodes)
        search_exhaustively(pool, grower.degree, ret_gang);
    free(grower.open);
    free(grower.worst);
    free(grower.degree);
    if (ret_gang->count < pool->ask->nodes)
        return false;
    for (uint32_t round = 0; round < REFINE_ROUNDS && swap_once(pool, ret_gang); round++)
        ;
    return true;
}

void place_ring(const struct place_pool *pool, struct place_gang *gang)
{
    uint32_t first = 0;

    for (uint32_t i = 1; i < gang->count; i++) {
        if (gang->member[i] < gang->member[first])
            first = i;
    }
    for (uint32_t done = 0; done < gang->count; done++) {
        uint32_t next = done == 0 ? first : done;
        for (uint32_t i = done + 1; done > 0 && i < gang->count; i++) {
            uint32_t last = gang->member[done - 1];
            uint32_t rtt = place_pair_rtt(pool, last, gang->member[i]);
            uint32_t best = place_pair_rtt(pool, last, gang->member[next]);
            if (rtt < best || (rtt == best && gang->member[i] < gang->member[next]))
                next = i;
        }
        uint32_t moved = gang->member[next];
        gang->member[next] = gang->member[done];
        gang->member[done] = moved;
    }
}
