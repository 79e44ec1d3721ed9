/*
 * Random small fleets against brute force: a gang is found exactly when one exists, every plan
 * passes the naive checker, what a relaxation promises really unblocks, and the price is never far
 * from the best. `test_place [SEED [CASES]]`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "orchestrator/core/place.h"

#define MAX_NODES     9u
#define DEVICES       2u
#define DEFAULT_CASES 20000u

struct pool {
    struct place_node node[MAX_NODES];
    struct place_device device[MAX_NODES][DEVICES];
    struct place_link link[MAX_NODES * MAX_NODES];
    struct place_fleet fleet;
    struct job_ask ask;
};

static uint64_t chance;
static uint64_t current_seed;

static uint32_t below(uint32_t n)
{
    uint64_t z = chance += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) % n);
}

static void require(bool holds, const char *what, const char *detail)
{
    if (holds)
        return;
    fprintf(stderr, "seed %" PRIu64 ": %s %s\n", current_seed, what, detail);
    abort();
}

static void make_node(struct pool *pool, uint32_t i)
{
    struct place_node *node = &pool->node[i];

    *node = (struct place_node){
        .id = i + 1,
        .ready = below(12) != 0,
        .price = (micro_t)(1 + below(4)) * 250000,
        .cpu_milli = 8000,
        .memory_mib = 16384,
        .disk_mib = 10000,
        .devices = pool->device[i],
        .device_count = DEVICES,
    };
    snprintf(node->name, sizeof(node->name), "n%u", i);
    memcpy(node->country, below(3) == 0 ? "FR" : "DE", 3);
    for (uint32_t d = 0; d < DEVICES; d++) {
        uint32_t mib = 8192u << below(3);
        pool->device[i][d] = (struct place_device){
            .slot = 10 * (i + 1) + d,
            .class = below(10) == 0 ? DEVICE_CPU : DEVICE_GPU,
            .nominal_mib = mib,
            .measured_mib = mib - below(mib / 2),
            .tier = below(12) == 0 ? TIER_CLAIMED : TIER_MEASURED,
            .offered = below(12) != 0,
            .busy = below(8) == 0,
        };
        snprintf(pool->device[i][d].model, SPEC_MODEL_TEXT, "%s", below(2) ? "rtx" : "h100");
    }
}

static void make_pool(struct pool *pool)
{
    struct job_ask *ask = &pool->ask;

    memset(pool, 0, sizeof(*pool));
    pool->fleet.node_count = 1 + below(MAX_NODES);
    for (uint32_t a = 0; a < pool->fleet.node_count; a++) {
        make_node(pool, a);
        for (uint32_t b = a + 1; b < pool->fleet.node_count; b++) {
            if (below(12) != 0)
                pool->link[pool->fleet.link_count++] =
                    (struct place_link){a, b, below(16) ? 100 + below(4000) : 0, below(12) != 0};
        }
    }
    pool->fleet.nodes = pool->node;
    pool->fleet.links = pool->link;
    ask->nodes = 1 + below(4);
    ask->gpus_per_node = 1 + below(DEVICES);
    ask->gpu_memory = below(2) ? (uint64_t)(8 + below(16)) << 30 : 0;
    ask->max_rtt_us = below(3) ? 1000 + below(3000) : 0;
    ask->max_price = below(3) ? 0 : 500000;
    ask->country_count = below(4) == 0;
    memcpy(ask->countries[0], "DE", 3);
    ask->model_count = below(4) == 0;
    snprintf(ask->models[0], SPEC_MODEL_TEXT, "h100");
}

/* Every set of ask.nodes nodes, judged by the naive checker. Returns the lowest price, or -1. */
static micro_t brute_force(const struct pool *pool)
{
    micro_t best = -1;

    for (uint32_t set = 0; set < 1u << pool->fleet.node_count; set++) {
        struct place_plan plan = {0};
        if ((uint32_t)__builtin_popcount(set) != pool->ask.nodes)
            continue;
        for (uint32_t i = 0; i < pool->fleet.node_count; i++) {
            if ((set >> i & 1) == 0)
                continue;
            uint32_t gpus = 0;
            for (uint32_t d = 0; d < DEVICES && gpus < pool->ask.gpus_per_node; d++) {
                if (place_device_fits(&pool->device[i][d], &pool->ask) && !pool->device[i][d].busy)
                    plan.slot[plan.nodes * pool->ask.gpus_per_node + gpus++] =
                        pool->device[i][d].slot;
            }
            plan.price += pool->node[i].price * pool->ask.gpus_per_node;
            plan.node[plan.nodes++] = i;
        }
        for (uint32_t k = 0; k < pool->fleet.link_count; k++) {
            const struct place_link *link = &pool->link[k];
            if ((set >> link->a & 1) && (set >> link->b & 1) && link->rtt_us > plan.diameter_us)
                plan.diameter_us = link->rtt_us;
        }
        if (place_check(&pool->fleet, &pool->ask, &plan, NULL) == 0
            && (best < 0 || plan.price < best))
            best = plan.price;
    }
    return best;
}

/* "4.2 ms" and "0.50" as the tenant would write them into the job file. */
static bool apply_relax(struct job_ask *ask, const struct why_relax *relax)
{
    unsigned whole;
    unsigned tenths;

    if (strcmp(relax->field, "network.max_rtt") == 0
        && sscanf(relax->value, "%u.%u ms", &whole, &tenths) == 2)
        ask->max_rtt_us = whole * 1000 + tenths * 100;
    else if (strcmp(relax->field, "nodes") == 0 && sscanf(relax->value, "%u", &whole) == 1)
        ask->nodes = whole;
    else if (strcmp(relax->field, "countries") == 0)
        ask->country_count = 0;
    else if (strcmp(relax->field, "resources.gpu.name") == 0)
        ask->model_count = 0;
    else if (strcmp(relax->field, "budget.max_price") == 0)
        return money_parse(relax->value, &ask->max_price) == 0;
    else
        return false;
    return true;
}

static uint64_t found_count;
static uint64_t dear_count;
static uint64_t relax_count;

static void check_relaxations(const struct pool *pool, const struct why *why)
{
    for (uint32_t i = 0; i < why->relax_count; i++) {
        struct job_ask ask = pool->ask;
        struct why after;
        if (!apply_relax(&ask, &why->relax[i]))
            continue;
        relax_count++;
        int rc = place_solve(&pool->fleet, &ask, NULL, &after, NULL, NULL);
        require(rc == 0, "a relaxation does not unblock:", why->relax[i].field);
    }
}

static void check_case(struct pool *pool)
{
    struct place_plan plan;
    struct why why;
    struct place_probe probes[PLACE_MAX_PROBES];
    uint32_t probe_count;
    struct err err = {0};
    micro_t best = brute_force(pool);
    int rc = place_solve(&pool->fleet, &pool->ask, &plan, &why, probes, &probe_count);

    require((rc == 0) == (best >= 0), "found and exists differ:", why.detail);
    if (rc == 0) {
        require(place_check(&pool->fleet, &pool->ask, &plan, &err) == 0, "bad plan:", err.text);
        require(plan.price <= 2 * best, "twice the best price:", why.detail);
        found_count++;
        dear_count += plan.price > best;
        return;
    }
    require(why.code != ERR_NONE, "a refusal without a reason:", why.detail);
    require((why.code == ERR_NETWORK_UNMEASURED) == (probe_count > 0), "probes:", why.detail);
    require(why.largest_clique < pool->ask.nodes, "clique:", why.detail);
    check_relaxations(pool, &why);
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return value;
}

int main(int argc, char **argv)
{
    static struct pool pool;
    uint64_t seed = argc > 1 ? number(argv[1]) : (uint64_t)time(NULL) * 1000003u;
    uint64_t cases = argc > 2 ? number(argv[2]) : argc > 1 ? 1 : DEFAULT_CASES;

    printf("seed %" PRIu64 ", %" PRIu64 " cases\n", seed, cases);
    fflush(stdout);
    for (uint64_t i = 0; i < cases; i++) {
        current_seed = seed + i;
        chance = current_seed;
        make_pool(&pool);
        check_case(&pool);
    }
    printf("%" PRIu64 " placed, %" PRIu64 " not at the best price, %" PRIu64 " relaxations hold\n",
           found_count, dear_count, relax_count);
    if (cases < 1000
        || (found_count > cases / 20 && dear_count <= found_count / 50 && relax_count > cases / 20))
        return 0;
    fprintf(stderr, "too few found, or too many of them dear\n");
    return 1;
}
