#ifndef SHEAF_ORCHESTRATOR_FLEET_LIVENESS_H
#define SHEAF_ORCHESTRATOR_FLEET_LIVENESS_H

/*
 * Who was heard of lately. One ticket per watched node in a list ordered by due time: every sign of
 * life moves a ticket to the end, so that a beat costs O(1) and a tick looks at the late ones only.
 *
 * Silence is counted in attended time: the part of the clock during which this process looked. A
 * gap between two ticks longer than `stall` counts as one stall, whatever slept (our loop, the
 * machine, a debugger), so that an outage of ours declares nobody silent.
 *
 * Takes time as an argument; knows no sockets, events or world.
 */
#include <stdbool.h>
#include <stdint.h>

struct liveness;

struct liveness_options {
    int64_t silent_after_us; /* three heartbeats */
    int64_t boot_grace_us;   /* before the first sign of life; a worker reconnects within 10 s */
    int64_t stall_us;        /* most attended time that one tick may add; > 0 */
};

/* Called once per node that fell silent. */
typedef void (*liveness_on_silent_f)(uint64_t node, void *arg);

struct liveness *liveness_new(const struct liveness_options *options);
void liveness_free(struct liveness *liveness);
/*
 * Watches a node, from now on and with the grace of a first contact. `silent`: it is known to be
 * silent, so that the first sign of life is a return. Already watched: nothing changes.
 */
void liveness_watch(struct liveness *liveness, uint64_t node, bool silent);
void liveness_forget(struct liveness *liveness, uint64_t node);
/* A sign of life. True when the node was silent and is back. Unwatched nodes are watched. O(1). */
bool liveness_seen(struct liveness *liveness, uint64_t node);
/* Advances to now (monotonic) and reports who fell silent, oldest first. O(silent). */
void liveness_tick(struct liveness *liveness, int64_t now_us, liveness_on_silent_f on_silent,
                   void *arg);
uint32_t liveness_silent_count(const struct liveness *liveness);

#endif
