#ifndef SHEAF_ORCHESTRATOR_CORE_WORLD_H
#define SHEAF_ORCHESTRATOR_CORE_WORLD_H

/*
 * The live state and its one door. No sockets, SQL, clocks, threads, randomness or crypto: the link
 * step proves it (tests/unit: core links libc alone).
 *
 *   world = world_new();  world_apply() each stored row in the order of enum row_kind;
 *   world_step(EV_BOOT), then world_step() per event.
 *
 * A step changes the world only through the rows it emits, so that a world rebuilt from the rows
 * equals the live one (a property test).
 */
#include <stdbool.h>
#include <stdint.h>

#include "orchestrator/core/event.h"
#include "orchestrator/core/row.h"

struct world;

/* Settings that decide; versioned rows, applied between turns. Bounds in policy_check. */
struct policy {
    uint32_t version;
    uint32_t fee_ppm;     /* operator's part of a charge */
    usec_t lost_after_us; /* silence after which a node is lost */
    usec_t prepare_timeout_us;
    usec_t prepare_progress_us; /* preparing without progress */
    usec_t start_timeout_us;
    usec_t output_timeout_us; /* exited, outputs not stored */
    usec_t settle_every_us;
    usec_t backoff_first_us;
    usec_t backoff_max_us;
    usec_t resend_after_us;    /* an order without an answer */
    uint32_t mass_silence_min; /* nodes */
    usec_t mass_silence_window_us;
    usec_t mass_silence_hold_us;
    usec_t link_max_age_us;         /* older links count as unmeasured */
    usec_t probe_every_us;          /* standing probes of each pair of a small fleet */
    char asset[SPEC_CURRENCY_TEXT]; /* the one asset of this pool */
};
void policy_default(struct policy *policy);
int policy_check(const struct policy *policy, struct err *err) SHEAF_MUST_USE;

/* What a step emits. Reusable: world_out_clear keeps the memory. */
struct world_out {
    struct row *rows;
    uint32_t row_count;
    uint32_t row_capacity;
    struct effect *effects;
    uint32_t effect_count;
    uint32_t effect_capacity;
    struct arena_block *memory; /* what rows and effects point to; freed by clear */
};
void world_out_init(struct world_out *out);
void world_out_clear(struct world_out *out);
void world_out_fini(struct world_out *out);

struct world *world_new(void);
void world_free(struct world *world);

/*
 * Puts one row into the world, no questions asked: the fold. Used for loading and by the step
 * itself. Append-only kinds that the world does not keep are ignored.
 */
void world_apply(struct world *world, const struct row *row);

/*
 * Decides one event at `now` under `policy`, in leadership `term`. Appends rows and effects to out.
 * Never fails: a refusal is a reply or nothing. now must not go back (the shell clamps).
 */
void world_step(struct world *world, const struct event *event, usec_t now, uint32_t term,
                const struct policy *policy, struct world_out *out);

/*
 * Runs one queue pass: tries to place waiting jobs, within `budget` placement attempts. Called by
 * the shell after the events of a turn, and again while it returns true (more to try).
 */
bool world_schedule(struct world *world, usec_t now, uint32_t term, const struct policy *policy,
                    uint32_t budget, const struct uuid *fresh, uint32_t fresh_count,
                    struct world_out *out);

/* When EV_TICK is due next; 0 = never. */
usec_t world_next_deadline(const struct world *world, const struct policy *policy);

/* -- queries for the shell; pointers are borrowed until the next step ------------------------ */
const struct node_row *world_node(const struct world *world, uint64_t id);
const struct node_row *world_node_by_curve(const struct world *world, const uint8_t key[32]);
const struct token_row *world_token(const struct world *world, const uint8_t hash[32]);
const struct device_row *world_device(const struct world *world, uint64_t node, uint32_t ordinal);
/* Calls back for each node in id order, gone ones too. */
void world_each_node(const struct world *world, void (*f)(const struct node_row *, void *),
                     void *arg);

/* What a node says it runs, against what was ordered. */
enum attempt_claim {
    CLAIM_HELD,    /* a live attempt with a rank on this node */
    CLAIM_STALE,   /* ended, or of an older term or epoch */
    CLAIM_FOREIGN, /* live, on other nodes */
    CLAIM_FUTURE,  /* of an attempt, term or epoch that was never ordered */
};
struct task_claim {
    uint64_t attempt;
    uint32_t term;
    uint32_t epoch;
};
enum attempt_claim world_attempt_claim(const struct world *world, uint64_t node,
                                       const struct task_claim *task);

struct world_counts {
    uint32_t nodes_by_state[NODE_STATE_COUNT];
    uint32_t nodes_unknown;
    uint32_t jobs_by_state[JOB_STATE_COUNT]; /* live ones, and final ones since start */
    uint32_t slots;
    uint32_t slots_leased;
    uint64_t measured_mib; /* devices of tier measured or better */
};
void world_count(const struct world *world, struct world_counts *ret_counts);

/*
 * Every invariant that can be checked on a world alone (no device twice, gang whole or absent, sums
 * zero, held = escrow, …). 0 or -ERR_INTERNAL with the rule in err. O(world). For tests and
 * `--paranoid`.
 */
int world_check(const struct world *world, struct err *err) SHEAF_MUST_USE;

#endif
