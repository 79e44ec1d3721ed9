#ifndef SHEAF_ORCHESTRATOR_CORE_PLACE_PRIVATE_H
#define SHEAF_ORCHESTRATOR_CORE_PLACE_PRIVATE_H

/* Seams between the parts of the placement engine; nobody else includes this. */
#include "orchestrator/core/place.h"

/*
 * Nodes that pass every filter, at most. The pair matrix of this many is 16 MiB; a larger pool
 * keeps the cheapest, which is said in the detail. The engine proper lifts it.
 */
#define PLACE_MAX_CANDIDATES 2048u

/* What a pair of candidates is to a gang. */
#define PAIR_UNMEASURED  UINT32_MAX
#define PAIR_UNREACHABLE (UINT32_MAX - 1u)
#define PAIR_MAX_RTT     (UINT32_MAX - 2u)

/* Which rules a pass leaves out; relaxations and diagnoses set them. */
struct place_rules {
    bool any_rtt;
    bool any_reach;
    bool unmeasured_ok; /* as if an unmeasured pair were fine: what probes could bring */
    bool ignore_busy;
    bool by_diameter; /* smallest diameter first; else lowest price first */
};

/* Candidates of one pass and their pair matrix. */
struct place_pool {
    const struct place_fleet *fleet;
    const struct job_ask *ask;
    struct place_rules rules;
    uint32_t count;
    uint32_t *node; /* index in the fleet, ascending */
    uint32_t *pair; /* count x count: RTT in us or PAIR_… */
};

/* A gang found, or the best that was: candidate indexes. */
struct place_gang {
    uint32_t count;
    uint32_t member[SPEC_MAX_NODES];
    uint32_t diameter_us;
    micro_t price;
};

/* The first step that the node fails, or FUNNEL_STEP_COUNT. */
enum funnel_step place_filter(const struct place_node *node, const struct job_ask *ask,
                              bool ignore_busy);
/* Free (or all, with ignore_busy) devices that fit. */
uint32_t place_count_devices(const struct place_node *node, const struct job_ask *ask,
                             bool ignore_busy);

/* Filters the fleet and looks the pairs up. O(nodes + candidates² log links). */
void place_pool_init(struct place_pool *pool, const struct place_fleet *fleet,
                     const struct job_ask *ask, struct place_rules rules);
void place_pool_fini(struct place_pool *pool);
uint32_t place_pair(const struct place_pool *pool, uint32_t a, uint32_t b);
bool place_pair_ok(const struct place_pool *pool, uint32_t a, uint32_t b);
/* RTT for distances; unmeasured and unreachable pairs count as 0. */
uint32_t place_pair_rtt(const struct place_pool *pool, uint32_t a, uint32_t b);

/* True and the best gang of ask->nodes found; false and the largest clique found. */
bool place_search(const struct place_pool *pool, struct place_gang *ret_gang);
/* Nearest neighbour order from the member with the lowest id. */
void place_ring(const struct place_pool *pool, struct place_gang *gang);

/* Fills everything of why that explains a refusal. */
void place_explain(const struct place_fleet *fleet, const struct job_ask *ask,
                   const struct place_pool *pool, const struct place_gang *best, struct why *why,
                   struct place_probe *ret_probes, uint32_t *ret_probe_count);
void place_why_pairs(const struct place_pool *pool, const struct place_gang *gang, struct why *why);
void place_why_rejects(const struct place_fleet *fleet, const struct job_ask *ask,
                       const struct place_pool *pool, const struct place_gang *gang,
                       struct why *why);
/* The funnel in one sentence. */
void place_why_detail(struct why *why);

#endif
