#ifndef SHEAF_TESTS_SIM_SIM_H
#define SHEAF_TESTS_SIM_SIM_H

/*
 * A whole pool in one thread under virtual time: the real orchestrator core, session and liveness
 * rules, and the real task machine of each worker, with everything around them simulated from one
 * seed. What the database would hold and what really ran on which device are kept apart from what
 * the programs believe, and the invariants compare the three.
 *
 *   sim_run(): one seed, from set-up over the faulty phase to the quiet tail.
 *
 * Integers alone, so that a seed's trace hash is the same under every compiler.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/map.h"
#include "orchestrator/core/world.h"
#include "orchestrator/fleet/links.h"
#include "orchestrator/fleet/liveness.h"
#include "orchestrator/fleet/session.h"
#include "worker/core/tasks.h"

#define SIM_MS     ((usec_t)1000)
#define SIM_SECOND ((usec_t)1000000)
#define SIM_MINUTE (60 * SIM_SECOND)
#define SIM_START  ((usec_t)1700000000 * SIM_SECOND)

#define SIM_MAX_NODES   8u
#define SIM_MAX_JOBS    32u
#define SIM_MAX_DEVICES 2u
#define SIM_MAX_GANG    4u
#define SIM_MAX_PEERS   SIM_MAX_NODES
#define SIM_MAX_PROCESS 64u                  /* on one host, as the task table */
#define SIM_RICH        (8 * MICRO_PER_UNIT) /* an escrow that five attempts cannot spend */
#define SIM_MAX_OUTBOX  512u                 /* unacknowledged messages of one worker */

/* Rules broken on purpose, here and never in the product, to show that the checks can fail. */
enum sim_plant {
    PLANT_NONE,
    PLANT_ACT_EARLY,    /* effects are performed before their commit */
    PLANT_HALF_BATCH,   /* a commit now and then keeps only its first half */
    PLANT_NO_FENCE,     /* workers forget epochs they saw and ignore orders to forget */
    PLANT_AMNESIA,      /* a restarted worker does not know its tasks, which run on */
    PLANT_EARLY_GO,     /* the first rank that is ready is let go alone */
    PLANT_OVERCLAIM,    /* receipts say twice the time used */
    PLANT_COMMIT_TWICE, /* a commit of unknown outcome is guessed to be lost, and repeated */
    PLANT_COUNT,
};
const char *sim_plant_name(enum sim_plant plant);

struct sim_options {
    uint64_t seed;
    enum sim_plant plant;
    bool trace; /* every step to stdout */
};

/* What a run did, so that a test can see that the faults happened at all. */
struct sim_counters {
    uint64_t events;
    uint64_t commits;
    uint64_t rows;
    uint32_t hub_crashes;
    uint32_t worker_crashes;
    uint32_t reboots;
    uint32_t vanished;
    uint32_t breaks; /* connections and partitions */
    uint32_t dropped;
    uint32_t doubled;
    uint32_t pauses;
    uint32_t replayed; /* answers from an idempotency record */
    uint32_t attempts;
    uint32_t runs; /* user processes started */
    uint32_t jobs_by_state[JOB_STATE_COUNT];
};

struct sim_result {
    uint64_t hash;
    bool broken;
    char rule[512]; /* which invariant, and how */
    usec_t at_us;   /* virtual time of the violation since the start, or of the end */
    struct sim_counters counters;
};

/* Aborts where the core itself does; run it in a child to survive that. */
void sim_run(const struct sim_options *options, struct sim_result *ret_result);

#endif
