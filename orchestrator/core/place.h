#ifndef SHEAF_ORCHESTRATOR_CORE_PLACE_H
#define SHEAF_ORCHESTRATOR_CORE_PLACE_H

/*
 * Placement: plain arrays in, a plan with reasons out. Knows no world, no ids beyond the numbers it
 * is given, no clock. Deterministic: the same input gives the same plan; ties are broken by id.
 *
 * This first engine filters, then grows a clique greedily from every seed node and refines by
 * swaps; the interface is meant to stay when a better one comes.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/money.h"
#include "common/pure/spec.h"
#include "orchestrator/core/state.h"

struct place_device {
    uint64_t slot; /* what a lease takes */
    enum device_class class;
    char model[SPEC_MODEL_TEXT]; /* lower case */
    uint32_t nominal_mib;
    uint32_t measured_mib;
    enum tier tier;
    bool offered;
    bool busy; /* leased to somebody */
};

struct place_node {
    uint64_t id;
    char name[SPEC_NAME_TEXT];
    char region[SPEC_NAME_TEXT];
    char country[3];
    bool ready;    /* state ready, no condition, worker connected */
    micro_t price; /* per device and hour */
    uint32_t cpu_milli;
    uint32_t memory_mib; /* free for new work */
    uint32_t disk_mib;
    bool images; /* runs container images */
    const struct place_device *devices;
    uint32_t device_count;
};

/* Unordered pair of indexes into the node array, a < b. A pair without a row is unmeasured. */
struct place_link {
    uint32_t a;
    uint32_t b;
    uint32_t rtt_us; /* p95; 0 = unmeasured */
    bool reachable;  /* TCP both ways */
};

struct place_fleet {
    const struct place_node *nodes; /* sorted by id */
    uint32_t node_count;
    const struct place_link *links; /* sorted by (a, b) */
    uint32_t link_count;
};

struct place_plan {
    uint32_t nodes;                /* gang size */
    uint32_t node[SPEC_MAX_NODES]; /* index of the node per rank, in ring order */
    uint64_t slot[SPEC_MAX_NODES * SPEC_MAX_GPUS_PER_NODE]; /* rank-major */
    uint32_t diameter_us;                                   /* largest RTT inside; 0 for one node */
    micro_t price;                                          /* per hour, whole gang */
};

/* How many nodes pass each filter in turn: the funnel. Order of the enum is order of the funnel. */
enum funnel_step {
    FUNNEL_KNOWN, /* all nodes */
    FUNNEL_READY,
    FUNNEL_PLACE,  /* country, not excluded */
    FUNNEL_MODEL,  /* class, model, tier ≥ measured, enough devices of it */
    FUNNEL_MEMORY, /* VRAM per device */
    FUNNEL_HOST,   /* containers, cpu, memory, disk */
    FUNNEL_PRICE,
    FUNNEL_FREE, /* enough of these devices free now */
    FUNNEL_STEP_COUNT,
};
const char *funnel_step_name(enum funnel_step step);

#define WHY_MAX_RELAX  4
#define WHY_MAX_REJECT 16
#define WHY_MAX_PAIRS  28 /* all pairs of a gang of eight; larger gangs show the worst */

/* One thing to change, and what it would give now. */
struct why_relax {
    enum err_code code; /* the constraint: NETWORK_TOO_FAR, PRICE_TOO_LOW, NOT_NOW, … */
    char field[32];     /* "network.max_rtt" */
    char value[32];     /* "12.4 ms", "0.60" */
    uint32_t diameter_us;
    micro_t price; /* per hour, whole gang */
};

/* A node that did not get the job, and the first reason. */
struct why_reject {
    char node[SPEC_NAME_TEXT];
    char region[SPEC_NAME_TEXT];
    enum err_code code;
    char detail[128]; /* "150.3 ms from atlas-1, limit 5.0 ms" */
};

struct why_pair {
    char a[SPEC_NAME_TEXT];
    char b[SPEC_NAME_TEXT];
    uint32_t rtt_us; /* 0 = unmeasured */
};

/* Evidence of one placement pass, kept with the job. Plain values, copied freely. */
struct why {
    bool placed;
    enum err_code code; /* binding reason while not placed; ERR_NONE when placed */
    char detail[256];   /* the funnel in one sentence */
    uint32_t funnel[FUNNEL_STEP_COUNT];
    uint32_t largest_clique; /* of the nodes left, under max_rtt and reachable; ≤ asked */
    uint32_t asked;          /* nodes */
    uint32_t diameter_us;
    micro_t price; /* per hour */
    struct why_relax relax[WHY_MAX_RELAX];
    uint32_t relax_count;
    struct why_reject reject[WHY_MAX_REJECT];
    uint32_t reject_count;
    char node[SPEC_MAX_GPUS_PER_NODE][SPEC_NAME_TEXT]; /* of the plan, first 16 in rank order */
    uint32_t node_count;
    struct why_pair pair[WHY_MAX_PAIRS]; /* of the plan, or of the best that was too far */
    uint32_t pair_count;
};

/* A pair that a waiting gang needs measured. Indexes into the node array. */
struct place_probe {
    uint32_t a;
    uint32_t b;
};
#define PLACE_MAX_PROBES 64

/*
 * Finds the plan or says why not. Returns 0 and fills ret_plan and ret_why, or -code of the wait
 * reason and fills ret_why alone. probes gets up to PLACE_MAX_PROBES unmeasured pairs that stood in
 * the way; *ret_probe_count their number. Any ret_ may be NULL.
 */
int place_solve(const struct place_fleet *fleet, const struct job_ask *ask,
                struct place_plan *ret_plan, struct why *ret_why,
                struct place_probe ret_probes[PLACE_MAX_PROBES],
                uint32_t *ret_probe_count) SHEAF_MUST_USE;

/*
 * The naive checker: re-verifies a plan against the same input from first principles, sharing no
 * code with place_solve. 0, or -ERR_INTERNAL with the violated rule in err.
 */
int place_check(const struct place_fleet *fleet, const struct job_ask *ask,
                const struct place_plan *plan, struct err *err) SHEAF_MUST_USE;

/* Whether a device matches model, class and VRAM of the ask (nominal class; tier ≥ measured). */
bool place_device_fits(const struct place_device *device, const struct job_ask *ask);

#endif
