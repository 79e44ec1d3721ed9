#ifndef SHEAF_ORCHESTRATOR_CORE_STATE_H
#define SHEAF_ORCHESTRATOR_CORE_STATE_H

/*
 * States and their legal moves. The lists are complete; a missing pair is a refusal. Names (text in
 * the database, API and logs) come from the same tables.
 */
#include <stdbool.h>

enum job_state {
    JOB_QUEUED,
    JOB_PREPARING,
    JOB_STARTING,
    JOB_RUNNING,
    JOB_RECOVERING,
    JOB_PREEMPTING,
    JOB_SUSPENDED,
    JOB_STOPPING,
    JOB_SUCCEEDED,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_EXPIRED,
    JOB_REJECTED,
    JOB_STATE_COUNT,
};

enum attempt_state {
    ATTEMPT_PREPARING, /* orders out, slots reserved */
    ATTEMPT_STARTING,  /* every rank ready, barrier opened */
    ATTEMPT_RUNNING,   /* every rank started: metering */
    ATTEMPT_STOPPING,  /* stop orders out, or outputs on their way */
    ATTEMPT_ENDED,     /* no lease left */
    ATTEMPT_STATE_COUNT,
};

enum rank_state {
    RANK_ASSIGNED,
    RANK_PREPARING, /* the worker took the order */
    RANK_READY,
    RANK_STARTED,
    RANK_EXITED, /* processes gone, outputs may still be on their way */
    RANK_DONE,   /* outputs stored, slots scrubbed; final */
    RANK_LOST,   /* final */
    RANK_STATE_COUNT,
};

enum node_state {
    NODE_JOINING, /* enrolled, never connected */
    NODE_PROBING, /* connected, self-test not passed */
    NODE_READY,
    NODE_DRAINING,
    NODE_DRAINED,
    NODE_GONE, /* left; final */
    NODE_STATE_COUNT,
};

/* Beside the state; bits of node_row.conditions. */
enum node_condition {
    NODE_UNKNOWN = 1u << 0, /* missed heartbeats */
    NODE_LOST = 1u << 1,    /* silent beyond lost_after */
    NODE_QUARANTINED = 1u << 2,
    NODE_MAINTENANCE = 1u << 3,
    NODE_PAUSED = 1u << 4, /* the owner uses the machine */
};

/* Beside the state; bits of job_row.conditions. */
enum job_condition {
    JOB_DEGRADED = 1u << 0, /* a node of the gang is unknown */
    JOB_BUDGET_LOW = 1u << 1,
};

enum tier {
    TIER_CLAIMED,
    TIER_MEASURED,
    TIER_AUDITED,
    TIER_ATTESTED,
    TIER_COUNT,
};

enum device_class {
    DEVICE_GPU,
    DEVICE_CPU, /* an OpenCL device on host memory */
    DEVICE_CLASS_COUNT,
};

const char *job_state_name(enum job_state state);
const char *attempt_state_name(enum attempt_state state);
const char *rank_state_name(enum rank_state state);
const char *node_state_name(enum node_state state);
const char *tier_name(enum tier tier);
const char *device_class_name(enum device_class class);
/* The count constant for an unknown name. */
enum job_state job_state_parse(const char *name);
enum attempt_state attempt_state_parse(const char *name);
enum rank_state rank_state_parse(const char *name);
enum node_state node_state_parse(const char *name);
enum tier tier_parse(const char *name);
enum device_class device_class_parse(const char *name);

bool job_state_is_final(enum job_state state);
/* From the one const table of each machine. Same-state moves are not legal moves. */
bool job_may_move(enum job_state from, enum job_state to);
bool attempt_may_move(enum attempt_state from, enum attempt_state to);
bool rank_may_move(enum rank_state from, enum rank_state to);
bool node_may_move(enum node_state from, enum node_state to);

#endif
