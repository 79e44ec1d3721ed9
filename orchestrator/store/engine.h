#ifndef SHEAF_ORCHESTRATOR_STORE_ENGINE_H
#define SHEAF_ORCHESTRATOR_STORE_ENGINE_H

/*
 * Decide, commit, act: events in, one batch per loop turn, effects only after its commit. One batch
 * is in flight while the next accumulates. On divergence the world is dropped and reloaded and the
 * batch's events are replayed one per transaction; the one that fails alone is quarantined (logged,
 * its caller told `internal`). Deposed: on_deposed, and nothing more is decided.
 */
#include "orchestrator/store/store.h"

/*
 * An event with everything it points to. Made by the shells, owned by the engine from engine_post
 * on; kept until its effects are done.
 */
struct event_box {
    struct event event;
    void *memory; /* freed with `release` when the box dies */
    void (*release)(void *memory);
    const uint8_t *bytes; /* the message it came from, for the journal; in `memory` */
    uint32_t bytes_length;
    struct idem_row idem; /* room for the attached cold row */
    struct event_box *next;
};
struct event_box *event_box_new(enum event_kind kind);
void event_box_free(struct event_box *box);

/* Events waiting while the database does not answer: a second of work, some 40 MB. */
#define ENGINE_QUEUE_MAX 20000u

struct engine;

struct engine_hooks {
    /*
     * One effect, after the commit `seq` of the change that justifies it. A refusal that rests on
     * no decision (deposed, database, queue full) comes with seq 0, also from within engine_post.
     */
    void (*on_effect)(const struct effect *effect, uint64_t seq, void *arg);
    /* After each commit that wrote rows: what changed, for the hint to gateways. */
    void (*on_commit)(const struct row *rows, uint32_t row_count, uint64_t seq, void *arg);
    void (*on_deposed)(void *arg);
    /* The world was dropped and reloaded: keys of nodes may have to be told anew. */
    void (*on_reload)(const struct world *world, void *arg);
    void *arg;
};

/* Loads the world and runs EV_BOOT. Blocking. */
int engine_new(struct event_base *base, struct store *store, const struct engine_hooks *hooks,
               struct engine **ret_engine, struct err *err) SHEAF_MUST_USE;
void engine_free(struct engine *engine);
/*
 * Queues an event for this turn. Takes the box. False: refused, because another leads or
 * ENGINE_QUEUE_MAX wait. A caller was told so; a worker's message was dropped, so that nothing
 * after it may be acknowledged: acknowledgements are cumulative.
 */
bool engine_post(struct engine *engine, struct event_box *box);
/* For queries. Reads may see what is not committed yet: never tell it to anybody. */
const struct world *engine_world(const struct engine *engine);
const struct policy *engine_policy(const struct engine *engine);
/*
 * Decides by this policy from the next event on: what a command line lays over the stored one. It
 * passed policy_check() and is not stored; a reload keeps it.
 */
void engine_set_policy(struct engine *engine, const struct policy *policy);
/* Check every world invariant after each step (slow). */
void engine_set_paranoid(struct engine *engine, bool paranoid);

struct engine_counters {
    uint64_t events;
    uint64_t commits;
    uint64_t rows;
    uint64_t reloads;
    uint64_t quarantined;
    usec_t commit_us_max;
    usec_t commit_us_sum;
};
struct engine_counters engine_counters(const struct engine *engine);

#endif
