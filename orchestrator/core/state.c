#include "orchestrator/core/state.h"

#include <string.h>

#include "common/pure/err.h"

static const char *const job_names[JOB_STATE_COUNT] = {
    [JOB_QUEUED] = "queued",       [JOB_PREPARING] = "preparing",   [JOB_STARTING] = "starting",
    [JOB_RUNNING] = "running",     [JOB_RECOVERING] = "recovering", [JOB_PREEMPTING] = "preempting",
    [JOB_SUSPENDED] = "suspended", [JOB_STOPPING] = "stopping",     [JOB_SUCCEEDED] = "succeeded",
    [JOB_FAILED] = "failed",       [JOB_CANCELLED] = "cancelled",   [JOB_EXPIRED] = "expired",
    [JOB_REJECTED] = "rejected",
};

static const char *const attempt_names[ATTEMPT_STATE_COUNT] = {
    [ATTEMPT_PREPARING] = "preparing", [ATTEMPT_STARTING] = "starting",
    [ATTEMPT_RUNNING] = "running",     [ATTEMPT_STOPPING] = "stopping",
    [ATTEMPT_ENDED] = "ended",
};

static const char *const rank_names[RANK_STATE_COUNT] = {
    [RANK_ASSIGNED] = "assigned", [RANK_PREPARING] = "preparing", [RANK_READY] = "ready",
    [RANK_STARTED] = "started",   [RANK_EXITED] = "exited",       [RANK_DONE] = "done",
    [RANK_LOST] = "lost",
};

static const char *const node_names[NODE_STATE_COUNT] = {
    [NODE_JOINING] = "joining",   [NODE_PROBING] = "probing", [NODE_READY] = "ready",
    [NODE_DRAINING] = "draining", [NODE_DRAINED] = "drained", [NODE_GONE] = "gone",
};

static const char *const tier_names[TIER_COUNT] = {
    [TIER_CLAIMED] = "claimed",
    [TIER_MEASURED] = "measured",
    [TIER_AUDITED] = "audited",
    [TIER_ATTESTED] = "attested",
};

static const char *const class_names[DEVICE_CLASS_COUNT] = {
    [DEVICE_GPU] = "gpu",
    [DEVICE_CPU] = "cpu",
};

#define TO(state) (1u << (state))

/*
 * From → set of states that may follow. QUEUED → FAILED is a job whose last attempt ended while it
 * was on its way back; RECOVERING → STOPPING a cancel while the old attempt still winds down.
 */
static const unsigned job_moves[JOB_STATE_COUNT] = {
    [JOB_QUEUED] = TO(JOB_PREPARING) | TO(JOB_SUSPENDED) | TO(JOB_FAILED) | TO(JOB_CANCELLED)
                   | TO(JOB_EXPIRED),
    [JOB_PREPARING] = TO(JOB_STARTING) | TO(JOB_RECOVERING) | TO(JOB_PREEMPTING) | TO(JOB_STOPPING),
    [JOB_STARTING] = TO(JOB_RUNNING) | TO(JOB_RECOVERING) | TO(JOB_PREEMPTING) | TO(JOB_STOPPING),
    [JOB_RUNNING] = TO(JOB_RECOVERING) | TO(JOB_PREEMPTING) | TO(JOB_STOPPING),
    [JOB_RECOVERING] = TO(JOB_QUEUED) | TO(JOB_PREPARING) | TO(JOB_STOPPING) | TO(JOB_FAILED)
                       | TO(JOB_CANCELLED) | TO(JOB_EXPIRED),
    [JOB_PREEMPTING] = TO(JOB_QUEUED) | TO(JOB_SUSPENDED) | TO(JOB_RECOVERING) | TO(JOB_STOPPING),
    [JOB_SUSPENDED] = TO(JOB_QUEUED) | TO(JOB_CANCELLED) | TO(JOB_EXPIRED),
    [JOB_STOPPING] = TO(JOB_RECOVERING) | TO(JOB_SUCCEEDED) | TO(JOB_FAILED) | TO(JOB_CANCELLED)
                     | TO(JOB_EXPIRED),
    [JOB_SUCCEEDED] = 0,
    [JOB_FAILED] = 0,
    [JOB_CANCELLED] = 0,
    [JOB_EXPIRED] = 0,
    [JOB_REJECTED] = 0,
};

static const unsigned attempt_moves[ATTEMPT_STATE_COUNT] = {
    [ATTEMPT_PREPARING] = TO(ATTEMPT_STARTING) | TO(ATTEMPT_STOPPING),
    [ATTEMPT_STARTING] = TO(ATTEMPT_RUNNING) | TO(ATTEMPT_STOPPING),
    [ATTEMPT_RUNNING] = TO(ATTEMPT_STOPPING),
    [ATTEMPT_STOPPING] = TO(ATTEMPT_ENDED),
    [ATTEMPT_ENDED] = 0,
};

/* News may skip a state when the worker was faster than its messages. */
static const unsigned rank_moves[RANK_STATE_COUNT] = {
    [RANK_ASSIGNED] = TO(RANK_PREPARING) | TO(RANK_READY) | TO(RANK_STARTED) | TO(RANK_EXITED)
                      | TO(RANK_DONE) | TO(RANK_LOST),
    [RANK_PREPARING] =
        TO(RANK_READY) | TO(RANK_STARTED) | TO(RANK_EXITED) | TO(RANK_DONE) | TO(RANK_LOST),
    [RANK_READY] = TO(RANK_STARTED) | TO(RANK_EXITED) | TO(RANK_DONE) | TO(RANK_LOST),
    [RANK_STARTED] = TO(RANK_EXITED) | TO(RANK_DONE) | TO(RANK_LOST),
    [RANK_EXITED] = TO(RANK_DONE) | TO(RANK_LOST),
    [RANK_DONE] = 0,
    [RANK_LOST] = 0,
};

static const unsigned node_moves[NODE_STATE_COUNT] = {
    [NODE_JOINING] = TO(NODE_PROBING) | TO(NODE_GONE),
    [NODE_PROBING] = TO(NODE_READY) | TO(NODE_DRAINING) | TO(NODE_DRAINED) | TO(NODE_GONE),
    [NODE_READY] = TO(NODE_PROBING) | TO(NODE_DRAINING) | TO(NODE_DRAINED) | TO(NODE_GONE),
    [NODE_DRAINING] = TO(NODE_PROBING) | TO(NODE_READY) | TO(NODE_DRAINED) | TO(NODE_GONE),
    [NODE_DRAINED] = TO(NODE_PROBING) | TO(NODE_READY) | TO(NODE_GONE),
    [NODE_GONE] = 0,
};

static const char *name_of(const char *const *names, unsigned count, unsigned index)
{
    BUG_ON(index >= count);
    return names[index];
}

static unsigned index_of(const char *const *names, unsigned count, const char *name)
{
    unsigned i = 0;

    while (i < count && strcmp(names[i], name) != 0)
        i++;
    return i;
}

static bool may_move(const unsigned *moves, unsigned count, unsigned from, unsigned to)
{
    return from < count && to < count && (moves[from] & TO(to)) != 0;
}

const char *job_state_name(enum job_state state)
{
    return name_of(job_names, JOB_STATE_COUNT, state);
}

const char *attempt_state_name(enum attempt_state state)
{
    return name_of(attempt_names, ATTEMPT_STATE_COUNT, state);
}

const char *rank_state_name(enum rank_state state)
{
    return name_of(rank_names, RANK_STATE_COUNT, state);
}

const char *node_state_name(enum node_state state)
{
    return name_of(node_names, NODE_STATE_COUNT, state);
}

const char *tier_name(enum tier tier)
{
    return name_of(tier_names, TIER_COUNT, tier);
}

const char *device_class_name(enum device_class class)
{
    return name_of(class_names, DEVICE_CLASS_COUNT, class);
}

enum job_state job_state_parse(const char *name)
{
    return (enum job_state)index_of(job_names, JOB_STATE_COUNT, name);
}

enum attempt_state attempt_state_parse(const char *name)
{
    return (enum attempt_state)index_of(attempt_names, ATTEMPT_STATE_COUNT, name);
}

enum rank_state rank_state_parse(const char *name)
{
    return (enum rank_state)index_of(rank_names, RANK_STATE_COUNT, name);
}

enum node_state node_state_parse(const char *name)
{
    return (enum node_state)index_of(node_names, NODE_STATE_COUNT, name);
}

enum tier tier_parse(const char *name)
{
    return (enum tier)index_of(tier_names, TIER_COUNT, name);
}

enum device_class device_class_parse(const char *name)
{
    return (enum device_class)index_of(class_names, DEVICE_CLASS_COUNT, name);
}

bool job_state_is_final(enum job_state state)
{
    return state >= JOB_SUCCEEDED && state < JOB_STATE_COUNT;
}

bool job_may_move(enum job_state from, enum job_state to)
{
    return may_move(job_moves, JOB_STATE_COUNT, from, to);
}

bool attempt_may_move(enum attempt_state from, enum attempt_state to)
{
    return may_move(attempt_moves, ATTEMPT_STATE_COUNT, from, to);
}

bool rank_may_move(enum rank_state from, enum rank_state to)
{
    return may_move(rank_moves, RANK_STATE_COUNT, from, to);
}

bool node_may_move(enum node_state from, enum node_state to)
{
    return may_move(node_moves, NODE_STATE_COUNT, from, to);
}
