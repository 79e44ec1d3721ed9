#ifndef SHEAF_WORKER_CORE_TASKS_H
#define SHEAF_WORKER_CORE_TASKS_H

/*
 * The tasks this machine holds, as one pure state machine: (table, event, now) to actions. Knows no
 * sockets, files, clocks or processes; the shell (agent.c) makes the actions durable first and
 * performs them after.
 *
 * A task is one node's part of an attempt, named by (attempt, epoch). Orders are idempotent: a
 * repeated one repeats the newest news. An order of an older epoch than the newest one seen of its
 * job is refused: that is the fence.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/spec.h"

/* What a hello can carry. */
#define TASKS_MAX 64
/* Jobs whose newest epoch is remembered after their task is gone; the oldest is forgotten first.
 * Orders live five minutes, so that this many jobs would have to end here within five minutes. */
#define TASKS_MAX_FENCES 1024
/* Outputs and logs that cannot be delivered for this long are given up: the former are a failure.
 */
#define TASKS_COLLECT_US ((int64_t)15 * 60 * 1000000)
/* A finished task that nobody asks to forget is dropped after this. */
#define TASKS_LINGER_US ((int64_t)60 * 60 * 1000000)

enum task_phase {
    TASK_PHASE_FETCHING,   /* order taken, files on their way */
    TASK_PHASE_PREPARING,  /* the sandbox is being made */
    TASK_PHASE_READY,      /* held at the barrier */
    TASK_PHASE_RELEASED,   /* barrier opened, first instruction not seen yet */
    TASK_PHASE_STARTED,    /* runs */
    TASK_PHASE_COLLECTING, /* processes gone, outputs and logs on their way */
    TASK_PHASE_DONE,       /* all delivered and scrubbed; kept until forgotten */
    TASK_PHASE_REFUSED,    /* never started; kept until forgotten */
    TASK_PHASE_COUNT,
};
/* Name of the phase; of the protocol's rank state that a hello tells for it. */
const char *task_phase_name(enum task_phase phase);
const char *task_phase_rank_state(enum task_phase phase);
/* TASK_PHASE_COUNT for an unknown name. */
enum task_phase task_phase_parse(const char *name);

/* TaskEvent.news. */
enum rank_news {
    RANK_NEWS_PREPARING,
    RANK_NEWS_PROGRESS,
    RANK_NEWS_READY,
    RANK_NEWS_STARTED,
    RANK_NEWS_EXITED,
    RANK_NEWS_DONE,
    RANK_NEWS_REFUSED,
    RANK_NEWS_COUNT,
};
const char *rank_news_name(enum rank_news news);

/* Who the task is: from its PREPARE order. */
struct task_id {
    uint64_t attempt;
    uint32_t term;
    uint32_t epoch;
    uint32_t rank;
};

struct rank_task {
    struct task_id id;
    uint8_t job[16];
    uint8_t attempt_uid[16];
    uint32_t device[SPEC_MAX_GPUS_PER_NODE]; /* ordinals */
    uint32_t device_count;
    enum task_phase phase;
    bool fetched;   /* waits for a dying task's devices */
    bool stopping;  /* a stop was ordered */
    bool forgotten; /* being killed; drops without news */
    bool reclaimed; /* the owner wants the device: notice runs until notice_us */
    bool outputs_due;
    bool logs_due;
    int64_t notice_us; /* 0 = no notice runs */
    int64_t phase_us;  /* since when in this phase, monotonic */
    uint64_t used_ms;  /* cumulative since go; never decreases */
    uint32_t port;
    int32_t exit_code;
    enum err_code reason;
    enum fail_class class;
    char detail[256];
};

struct task_fence {
    uint8_t job[16];
    uint32_t epoch;
};

struct tasks {
    struct rank_task task[TASKS_MAX];
    uint32_t count;
    struct task_fence fence[TASKS_MAX_FENCES]; /* ring, oldest at fence_next once full */
    uint32_t fence_count;
    uint32_t fence_next;
    enum err_code closed; /* ERR_NONE, or why no new work is taken */
};

enum task_event_kind {
    /* -- orders -------------------------------------------------------------------------------- */
    TASK_EV_PREPARE,
    TASK_EV_GO,
    TASK_EV_STOP,
    TASK_EV_FORGET,
    /* -- from the shell ------------------------------------------------------------------------ */
    TASK_EV_PROGRESS, /* bytes of an input came */
    TASK_EV_FETCHED,
    TASK_EV_PREPARED,
    TASK_EV_FAILED, /* fetching, preparing or releasing failed: reason, class, detail */
    TASK_EV_STARTED,
    TASK_EV_EXITED,
    TASK_EV_OUTPUTS,      /* all stored */
    TASK_EV_LOGS,         /* all acknowledged */
    TASK_EV_OUTPUTS_LOST, /* they cannot be delivered: class, detail */
    TASK_EV_LOST,         /* its supervisor is gone, as after a restart of the host */
    TASK_EV_RECLAIM,      /* the owner wants a device of it back: notice_us is when notice ends */
    TASK_EV_RELENT,       /* the owner no longer does */
    TASK_EV_TICK,         /* time passed */
    TASK_EV_COUNT,
};

struct task_event {
    enum task_event_kind kind;
    struct task_id id;
    const uint8_t *job;         /* PREPARE: 16 bytes */
    const uint8_t *attempt_uid; /* PREPARE: 16 bytes */
    const uint32_t *device;     /* PREPARE */
    uint32_t device_count;
    enum err_code reason; /* FAILED, STOP; PREPARE: a refusal that the shell found */
    enum fail_class class;
    const char *detail; /* may be NULL */
    uint32_t port;      /* PREPARED */
    int32_t exit_code;  /* EXITED */
    bool oom;           /* EXITED */
    bool broken;        /* EXITED: the sandbox failed, not the program; detail says how */
    uint64_t used_ms;   /* EXITED */
    int64_t notice_us;
};

enum task_action_kind {
    TASK_ACT_SAVE,    /* the task's record changed */
    TASK_ACT_DROP,    /* forget the record; its folder too */
    TASK_ACT_NEWS,    /* tell the orchestrator, durably */
    TASK_ACT_RECEIPT, /* sign and tell the usage of all tasks, durably */
    TASK_ACT_FETCH,
    TASK_ACT_PREPARE,
    TASK_ACT_RELEASE,
    TASK_ACT_STOP,
    TASK_ACT_KILL,
    TASK_ACT_COLLECT, /* send the rest of the logs, pack and send outputs */
    TASK_ACT_CLEAN,   /* remove sandbox, cgroups and folder */
    TASK_ACT_COUNT,
};

struct task_action {
    enum task_action_kind kind;
    struct task_id id;
    enum rank_news news; /* TASK_ACT_NEWS and the rest of it */
    int32_t exit_code;
    enum err_code reason;
    enum fail_class class;
    uint32_t port;
    char detail[256];
};

struct task_actions {
    struct task_action *item; /* owned */
    uint32_t count;
    uint32_t capacity;
};
void task_actions_fini(struct task_actions *actions);

void tasks_init(struct tasks *tasks);
/* Borrowed until the next step; NULL if not held. */
struct rank_task *tasks_find(struct tasks *tasks, uint64_t attempt, uint32_t epoch);
/* Whether a device is in use by a task that has not let go of it. */
bool tasks_use_device(const struct tasks *tasks, uint32_t device);
/* Tasks that have or may have processes, or deliver something. */
uint32_t tasks_live(const struct tasks *tasks);
/* Remembers the newest epoch of a job; for replays of the journal. */
void tasks_fence(struct tasks *tasks, const uint8_t job[16], uint32_t epoch);
/* Puts a task back that the journal held; false when the table is full. */
bool tasks_restore(struct tasks *tasks, const struct rank_task *task);
/*
 * After a start and all restores: every wait begins anew, as the clock of the last start says
 * nothing here. now_us is monotonic.
 */
void tasks_resume(struct tasks *tasks, int64_t now_us);
/*
 * One step. Appends to out, in the order in which the actions must happen. now_us is monotonic;
 * every event but TICK names one task. O(tasks).
 */
void tasks_step(struct tasks *tasks, const struct task_event *event, int64_t now_us,
                struct task_actions *out);

#endif
