#include "worker/core/tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"

static const struct {
    const char *name;
    const char *rank_state;
} phase_names[TASK_PHASE_COUNT] = {
    [TASK_PHASE_FETCHING] = {"fetching", "preparing"},
    [TASK_PHASE_PREPARING] = {"preparing", "preparing"},
    [TASK_PHASE_READY] = {"ready", "ready"},
    [TASK_PHASE_RELEASED] = {"released", "ready"},
    [TASK_PHASE_STARTED] = {"started", "started"},
    [TASK_PHASE_COLLECTING] = {"collecting", "exited"},
    [TASK_PHASE_DONE] = {"done", "done"},
    /* Its refusal is a durable message that follows the hello. */
    [TASK_PHASE_REFUSED] = {"refused", "preparing"},
};

static const char *const news_names[RANK_NEWS_COUNT] = {
    [RANK_NEWS_PREPARING] = "preparing", [RANK_NEWS_PROGRESS] = "progress",
    [RANK_NEWS_READY] = "ready",         [RANK_NEWS_STARTED] = "started",
    [RANK_NEWS_EXITED] = "exited",       [RANK_NEWS_DONE] = "done",
    [RANK_NEWS_REFUSED] = "refused",
};

const char *task_phase_name(enum task_phase phase)
{
    BUG_ON((unsigned)phase >= TASK_PHASE_COUNT);
    return phase_names[phase].name;
}

const char *task_phase_rank_state(enum task_phase phase)
{
    BUG_ON((unsigned)phase >= TASK_PHASE_COUNT);
    return phase_names[phase].rank_state;
}

enum task_phase task_phase_parse(const char *name)
{
    enum task_phase phase = TASK_PHASE_FETCHING;

    while (phase < TASK_PHASE_COUNT && strcmp(phase_names[phase].name, name) != 0)
        phase++;
    return phase;
}

const char *rank_news_name(enum rank_news news)
{
    BUG_ON((unsigned)news >= RANK_NEWS_COUNT);
    return news_names[news];
}

void task_actions_fini(struct task_actions *actions)
{
    free(actions->item);
    memset(actions, 0, sizeof(*actions));
}

static struct task_action *act(struct task_actions *out, enum task_action_kind kind,
                               const struct task_id *id)
{
    struct task_action *action;

    if (out->count == out->capacity) {
        out->capacity = out->capacity ? out->capacity * 2 : 8;
        out->item = mem_resize(out->item, out->capacity, sizeof(out->item[0]));
    }
    action = &out->item[out->count++];
    memset(action, 0, sizeof(*action));
    action->kind = kind;
    action->id = *id;
    return action;
}

static void copy_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text ? text : "");
}

/* -- the table --------------------------------------------------------------------------------- */

void tasks_init(struct tasks *tasks)
{
    memset(tasks, 0, sizeof(*tasks));
}

struct rank_task *tasks_find(struct tasks *tasks, uint64_t attempt, uint32_t epoch)
{
    for (uint32_t i = 0; i < tasks->count; i++) {
        if (tasks->task[i].id.attempt == attempt && tasks->task[i].id.epoch == epoch)
            return &tasks->task[i];
    }
    return NULL;
}

static bool holds_devices(const struct rank_task *task)
{
    return task->phase < TASK_PHASE_COLLECTING;
}

static bool has_device(const struct rank_task *task, uint32_t device)
{
    for (uint32_t i = 0; i < task->device_count; i++) {
        if (task->device[i] == device)
            return true;
    }
    return false;
}

bool tasks_use_device(const struct tasks *tasks, uint32_t device)
{
    for (uint32_t i = 0; i < tasks->count; i++) {
        if (holds_devices(&tasks->task[i]) && has_device(&tasks->task[i], device))
            return true;
    }
    return false;
}

uint32_t tasks_live(const struct tasks *tasks)
{
    uint32_t live = 0;

    for (uint32_t i = 0; i < tasks->count; i++)
        live += tasks->task[i].phase <= TASK_PHASE_COLLECTING;
    return live;
}

static struct task_fence *fence_find(struct tasks *tasks, const uint8_t job[16])
{
    for (uint32_t i = 0; i < tasks->fence_count; i++) {
        if (memcmp(tasks->fence[i].job, job, 16) == 0)
            return &tasks->fence[i];
    }
    return NULL;
}

void tasks_fence(struct tasks *tasks, const uint8_t job[16], uint32_t epoch)
{
    struct task_fence *fence = fence_find(tasks, job);

    if (!fence) {
        fence = &tasks->fence[tasks->fence_next];
        tasks->fence_next = (tasks->fence_next + 1) % TASKS_MAX_FENCES;
        if (tasks->fence_count < TASKS_MAX_FENCES)
            tasks->fence_count++;
        memcpy(fence->job, job, 16);
        fence->epoch = 0;
    }
    if (fence->epoch < epoch)
        fence->epoch = epoch;
}

bool tasks_restore(struct tasks *tasks, const struct rank_task *task)
{
    if (tasks->count == TASKS_MAX)
        return false;
    tasks->task[tasks->count++] = *task;
    tasks_fence(tasks, task->job, task->id.epoch);
    return true;
}

void tasks_resume(struct tasks *tasks, int64_t now_us)
{
    for (uint32_t i = 0; i < tasks->count; i++)
        tasks->task[i].phase_us = now_us;
}

/* -- moves ------------------------------------------------------------------------------------- */

static void set_phase(struct rank_task *task, enum task_phase phase, int64_t now_us)
{
    task->phase = phase;
    task->phase_us = now_us;
}

static void set_end(struct rank_task *task, enum err_code reason, enum fail_class class,
                    const char *detail)
{
    task->reason = reason;
    task->class = class;
    copy_text(task->detail, sizeof(task->detail), detail);
}

static void news(const struct rank_task *task, enum rank_news which, struct task_actions *out)
{
    struct task_action *action = act(out, TASK_ACT_NEWS, &task->id);

    action->news = which;
    action->port = task->port;
    if (which == RANK_NEWS_EXITED || which == RANK_NEWS_DONE || which == RANK_NEWS_REFUSED) {
        action->exit_code = task->exit_code;
        action->reason = task->reason;
        action->class = task->class;
        copy_text(action->detail, sizeof(action->detail), task->detail);
    }
}

/* Answers an order that this machine holds no task for. */
static void news_stranger(const struct task_id *id, enum rank_news which, enum err_code reason,
                          enum fail_class class, const char *detail, struct task_actions *out)
{
    struct task_action *action = act(out, TASK_ACT_NEWS, id);

    action->news = which;
    action->reason = reason;
    action->class = class;
    action->exit_code = which == RANK_NEWS_DONE ? 255 : 0;
    copy_text(action->detail, sizeof(action->detail), detail);
}

static void repeat_news(const struct rank_task *task, struct task_actions *out)
{
    static const enum rank_news newest[TASK_PHASE_COUNT] = {
        [TASK_PHASE_FETCHING] = RANK_NEWS_PREPARING, [TASK_PHASE_PREPARING] = RANK_NEWS_PREPARING,
        [TASK_PHASE_READY] = RANK_NEWS_READY,        [TASK_PHASE_RELEASED] = RANK_NEWS_READY,
        [TASK_PHASE_STARTED] = RANK_NEWS_STARTED,    [TASK_PHASE_COLLECTING] = RANK_NEWS_EXITED,
        [TASK_PHASE_DONE] = RANK_NEWS_DONE,          [TASK_PHASE_REFUSED] = RANK_NEWS_REFUSED,
    };

    BUG_ON((unsigned)task->phase >= TASK_PHASE_COUNT);
    if (!task->forgotten)
        news(task, newest[task->phase], out);
}

static bool devices_free_for(const struct tasks *tasks, const struct rank_task *task)
{
    for (uint32_t i = 0; i < tasks->count; i++) {
        const struct rank_task *other = &tasks->task[i];

        if (other == task || !holds_devices(other) || !other->forgotten)
            continue;
        for (uint32_t k = 0; k < task->device_count; k++) {
            if (has_device(other, task->device[k]))
                return false;
        }
    }
    return true;
}

static void try_prepare(struct tasks *tasks, struct rank_task *task, int64_t now_us,
                        struct task_actions *out)
{
    if (!devices_free_for(tasks, task))
        return;
    set_phase(task, TASK_PHASE_PREPARING, now_us);
    act(out, TASK_ACT_SAVE, &task->id);
    act(out, TASK_ACT_PREPARE, &task->id);
}

/* Removes the record and lets a task that waited for its devices go on. */
static void drop(struct tasks *tasks, struct rank_task *task, int64_t now_us,
                 struct task_actions *out)
{
    uint32_t index = (uint32_t)(task - tasks->task);

    act(out, TASK_ACT_CLEAN, &task->id);
    act(out, TASK_ACT_DROP, &task->id);
    tasks->task[index] = tasks->task[--tasks->count];
    for (uint32_t i = 0; i < tasks->count; i++) {
        struct rank_task *other = &tasks->task[i];

        if (other->phase == TASK_PHASE_FETCHING && other->fetched)
            try_prepare(tasks, other, now_us, out);
    }
}

static void refuse(struct rank_task *task, int64_t now_us, struct task_actions *out)
{
    set_phase(task, TASK_PHASE_REFUSED, now_us);
    act(out, TASK_ACT_SAVE, &task->id);
    news(task, RANK_NEWS_REFUSED, out);
    act(out, TASK_ACT_CLEAN, &task->id);
}

static void finish(struct rank_task *task, int64_t now_us, struct task_actions *out)
{
    set_phase(task, TASK_PHASE_DONE, now_us);
    act(out, TASK_ACT_SAVE, &task->id);
    act(out, TASK_ACT_CLEAN, &task->id);
    news(task, RANK_NEWS_DONE, out);
}

/* Processes are gone; `ran` tells whether there is anything to deliver. */
static void leave(struct rank_task *task, bool ran, int64_t now_us, struct task_actions *out)
{
    set_phase(task, TASK_PHASE_COLLECTING, now_us);
    task->notice_us = 0;
    task->outputs_due = ran;
    task->logs_due = ran;
    act(out, TASK_ACT_SAVE, &task->id);
    if (ran)
        act(out, TASK_ACT_RECEIPT, &task->id);
    news(task, RANK_NEWS_EXITED, out);
    if (ran)
        act(out, TASK_ACT_COLLECT, &task->id);
    else
        finish(task, now_us, out);
}

static void forget(struct tasks *tasks, struct rank_task *task, int64_t now_us,
                   struct task_actions *out)
{
    switch (task->phase) {
    case TASK_PHASE_PREPARING:
    case TASK_PHASE_READY:
    case TASK_PHASE_RELEASED:
    case TASK_PHASE_STARTED:
        if (!task->forgotten) {
            task->forgotten = true;
            act(out, TASK_ACT_SAVE, &task->id);
        }
        act(out, TASK_ACT_KILL, &task->id);
        break;
    case TASK_PHASE_FETCHING:
    case TASK_PHASE_COLLECTING:
    case TASK_PHASE_DONE:
    case TASK_PHASE_REFUSED:
    case TASK_PHASE_COUNT:
        drop(tasks, task, now_us, out);
        break;
    }
}

/* -- orders ------------------------------------------------------------------------------------ */

/* Why a new task cannot be taken; ERR_NONE if it can. */
static enum err_code unacceptable(struct tasks *tasks, const struct task_event *event,
                                  enum fail_class *ret_class, char detail[256])
{
    detail[0] = '\0';
    *ret_class = FAIL_CAPACITY;
    if (event->reason != ERR_NONE) {
        *ret_class = event->class;
        copy_text(detail, 256, event->detail);
        return event->reason;
    }
    if (tasks->closed != ERR_NONE) {
        *ret_class = FAIL_INTERRUPTION;
        return tasks->closed;
    }
    for (uint32_t i = 0; i < event->device_count; i++) {
        for (uint32_t k = 0; k < tasks->count; k++) {
            const struct rank_task *other = &tasks->task[k];

            if (holds_devices(other) && !other->forgotten && has_device(other, event->device[i])
                && memcmp(other->job, event->job, 16) != 0) {
                snprintf(detail, 256, "device %u is in use by attempt %llu", event->device[i],
                         (unsigned long long)other->id.attempt);
                return ERR_NODE_REFUSED;
            }
        }
    }
    return ERR_NONE;
}

/* An older epoch of the same job must not run beside a newer one. */
static void forget_older(struct tasks *tasks, const struct task_event *event, int64_t now_us,
                         struct task_actions *out)
{
    for (uint32_t i = tasks->count; i-- > 0;) {
        struct rank_task *task = &tasks->task[i];

        if (memcmp(task->job, event->job, 16) == 0 && task->id.epoch < event->id.epoch)
            forget(tasks, task, now_us, out);
    }
}

static void on_prepare(struct tasks *tasks, const struct task_event *event, int64_t now_us,
                       struct task_actions *out)
{
    struct rank_task *task = tasks_find(tasks, event->id.attempt, event->id.epoch);
    const struct task_fence *fence = fence_find(tasks, event->job);
    enum fail_class class;
    enum err_code reason;
    char detail[256];

    if (task) {
        repeat_news(task, out);
        return;
    }
    if (fence && event->id.epoch <= fence->epoch) {
        snprintf(detail, sizeof(detail), "epoch %u, but epoch %u of this job was here already",
                 event->id.epoch, fence->epoch);
        news_stranger(&event->id, RANK_NEWS_REFUSED, ERR_WIRE_FENCE, FAIL_PLATFORM, detail, out);
        return;
    }
    forget_older(tasks, event, now_us, out);
    if (tasks->count == TASKS_MAX) {
        news_stranger(&event->id, RANK_NEWS_REFUSED, ERR_TOO_MANY, FAIL_CAPACITY,
                      "this machine holds 64 tasks", out);
        return;
    }
    reason = unacceptable(tasks, event, &class, detail);
    task = &tasks->task[tasks->count++];
    memset(task, 0, sizeof(*task));
    task->id = event->id;
    memcpy(task->job, event->job, 16);
    memcpy(task->attempt_uid, event->attempt_uid, 16);
    task->device_count =
        event->device_count < SPEC_MAX_GPUS_PER_NODE ? event->device_count : SPEC_MAX_GPUS_PER_NODE;
    for (uint32_t i = 0; i < task->device_count; i++)
        task->device[i] = event->device[i];
    tasks_fence(tasks, task->job, task->id.epoch);
    if (reason != ERR_NONE) {
        set_end(task, reason, class, detail);
        refuse(task, now_us, out);
        return;
    }
    set_phase(task, TASK_PHASE_FETCHING, now_us);
    act(out, TASK_ACT_SAVE, &task->id);
    news(task, RANK_NEWS_PREPARING, out);
    act(out, TASK_ACT_FETCH, &task->id);
}

static void on_go(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                  int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    (void)event;
    if (task->phase != TASK_PHASE_READY) {
        repeat_news(task, out);
        return;
    }
    if (task->stopping || task->forgotten)
        return; /* its exit is on the way */
    set_phase(task, TASK_PHASE_RELEASED, now_us);
    act(out, TASK_ACT_SAVE, &task->id);
    act(out, TASK_ACT_RELEASE, &task->id);
}

static void on_stop(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                    int64_t now_us, struct task_actions *out)
{
    enum err_code reason = event->reason != ERR_NONE ? event->reason : ERR_GANG_STOPPED;

    (void)tasks;
    switch (task->phase) {
    case TASK_PHASE_FETCHING:
        task->stopping = true;
        task->exit_code = 143;
        set_end(task, reason, FAIL_NONE, "stopped before it started");
        leave(task, false, now_us, out);
        break;
    case TASK_PHASE_PREPARING:
    case TASK_PHASE_READY:
    case TASK_PHASE_RELEASED:
    case TASK_PHASE_STARTED:
        if (!task->stopping) {
            task->stopping = true;
            set_end(task, reason, FAIL_NONE, event->detail);
            act(out, TASK_ACT_SAVE, &task->id);
        }
        act(out, task->phase <= TASK_PHASE_READY ? TASK_ACT_KILL : TASK_ACT_STOP, &task->id);
        break;
    case TASK_PHASE_COLLECTING:
    case TASK_PHASE_DONE:
    case TASK_PHASE_REFUSED:
    case TASK_PHASE_COUNT:
        repeat_news(task, out);
        break;
    }
}

static void on_forget(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                      int64_t now_us, struct task_actions *out)
{
    (void)event;
    forget(tasks, task, now_us, out);
}

/* -- what happened here ------------------------------------------------------------------------ */

static void on_progress(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                        int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    (void)now_us;
    if (task->phase == TASK_PHASE_FETCHING) {
        struct task_action *action = act(out, TASK_ACT_NEWS, &task->id);

        action->news = RANK_NEWS_PROGRESS;
        copy_text(action->detail, sizeof(action->detail), event->detail);
    }
}

static void on_fetched(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                       int64_t now_us, struct task_actions *out)
{
    (void)event;
    if (task->phase != TASK_PHASE_FETCHING)
        return;
    task->fetched = true;
    try_prepare(tasks, task, now_us, out);
}

static void on_prepared(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                        int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    if (task->phase != TASK_PHASE_PREPARING || task->stopping || task->forgotten)
        return;
    set_phase(task, TASK_PHASE_READY, now_us);
    task->port = event->port;
    act(out, TASK_ACT_SAVE, &task->id);
    news(task, RANK_NEWS_READY, out);
}

static void on_failed(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                      int64_t now_us, struct task_actions *out)
{
    if (task->phase > TASK_PHASE_RELEASED)
        return;
    if (task->phase >= TASK_PHASE_READY) { /* a process is held at the barrier: its exit follows */
        if (!task->stopping) {
            task->stopping = true;
            set_end(task, event->reason, event->class, event->detail);
            act(out, TASK_ACT_SAVE, &task->id);
        }
        act(out, TASK_ACT_KILL, &task->id);
        return;
    }
    if (task->forgotten) {
        drop(tasks, task, now_us, out);
        return;
    }
    set_end(task, event->reason, event->class, event->detail);
    refuse(task, now_us, out);
}

static void on_started(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                       int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    (void)event;
    if (task->phase != TASK_PHASE_RELEASED)
        return;
    set_phase(task, TASK_PHASE_STARTED, now_us);
    act(out, TASK_ACT_SAVE, &task->id);
    if (task->forgotten)
        return;
    act(out, TASK_ACT_RECEIPT, &task->id);
    news(task, RANK_NEWS_STARTED, out);
}

static void set_exit(struct rank_task *task, const struct task_event *event)
{

    task->exit_code = event->exit_code;
    if (task->used_ms < event->used_ms)
        task->used_ms = event->used_ms;
    if (task->stopping)
        return; /* the reason of the stop stands */
    if (event->broken || task->phase <= TASK_PHASE_READY) {
        set_end(task, ERR_NODE_REFUSED, FAIL_PROVIDER,
                event->detail && event->detail[0] ? event->detail
                                                  : "the sandbox ended before the start");
    } else if (event->exit_code == 0) {
        set_end(task, ERR_COMPLETED, FAIL_NONE, NULL);
    } else if (event->oom) {
        set_end(task, ERR_RANK_FAILED, FAIL_USER,
                "killed at its memory limit: raise resources.memory");
    } else {
        set_end(task, ERR_RANK_FAILED, FAIL_USER, event->detail);
    }
}

static void on_exited(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                      int64_t now_us, struct task_actions *out)
{
    bool ran = task->phase >= TASK_PHASE_RELEASED;

    if (task->phase < TASK_PHASE_PREPARING || task->phase > TASK_PHASE_STARTED)
        return;
    if (task->forgotten) {
        drop(tasks, task, now_us, out);
        return;
    }
    set_exit(task, event);
    if (task->phase == TASK_PHASE_PREPARING && !task->stopping)
        refuse(task, now_us, out);
    else
        leave(task, ran, now_us, out);
}

static void on_lost(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                    int64_t now_us, struct task_actions *out)
{
    (void)event;
    if (task->phase < TASK_PHASE_PREPARING || task->phase > TASK_PHASE_STARTED)
        return;
    if (task->forgotten) {
        drop(tasks, task, now_us, out);
        return;
    }
    task->exit_code = 255;
    set_end(task, ERR_TASK_LOST, FAIL_PROVIDER, "its supervisor is gone: the machine restarted");
    if (task->phase == TASK_PHASE_PREPARING)
        refuse(task, now_us, out);
    else
        leave(task, task->phase >= TASK_PHASE_RELEASED, now_us, out);
}

static void delivered(struct rank_task *task, int64_t now_us, struct task_actions *out)
{
    if (task->phase == TASK_PHASE_COLLECTING && !task->outputs_due && !task->logs_due)
        finish(task, now_us, out);
}

static void on_outputs(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                       int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    (void)event;
    task->outputs_due = false;
    delivered(task, now_us, out);
}

static void on_logs(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                    int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    (void)event;
    task->logs_due = false;
    delivered(task, now_us, out);
}

/* What a rank that failed or was stopped cannot deliver changes nothing about why it ended. */
static void lose_outputs(struct rank_task *task, enum fail_class class, const char *detail)
{
    task->outputs_due = false;
    if (task->class == FAIL_NONE && !task->stopping)
        set_end(task, ERR_OUTPUT_LOST, class, detail);
}

static void on_outputs_lost(struct tasks *tasks, struct rank_task *task,
                            const struct task_event *event, int64_t now_us,
                            struct task_actions *out)
{
    (void)tasks;
    if (task->phase != TASK_PHASE_COLLECTING || !task->outputs_due)
        return;
    lose_outputs(task, event->class, event->detail);
    if (task->logs_due)
        act(out, TASK_ACT_SAVE, &task->id);
    delivered(task, now_us, out);
}

static void on_reclaim(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                       int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    if (task->reclaimed || task->stopping || task->forgotten)
        return;
    if (task->phase > TASK_PHASE_STARTED)
        return;
    if (task->phase >= TASK_PHASE_RELEASED) {
        task->reclaimed = true;
        task->notice_us = event->notice_us;
        act(out, TASK_ACT_SAVE, &task->id);
        return;
    }
    set_end(task, ERR_OWNER_RECLAIMED, FAIL_INTERRUPTION, event->detail);
    if (task->phase == TASK_PHASE_FETCHING) {
        refuse(task, now_us, out);
        return;
    }
    task->stopping = true; /* nothing of the tenant has run: no notice */
    act(out, TASK_ACT_SAVE, &task->id);
    act(out, TASK_ACT_KILL, &task->id);
}

static void on_relent(struct tasks *tasks, struct rank_task *task, const struct task_event *event,
                      int64_t now_us, struct task_actions *out)
{
    (void)tasks;
    (void)event;
    (void)now_us;
    if (!task->reclaimed || task->notice_us == 0)
        return;
    task->reclaimed = false;
    task->notice_us = 0;
    act(out, TASK_ACT_SAVE, &task->id);
}

/* -- time -------------------------------------------------------------------------------------- */

static void tick_task(struct tasks *tasks, struct rank_task *task, int64_t now_us,
                      struct task_actions *out)
{
    int64_t age_us = now_us - task->phase_us;

    if (task->notice_us != 0 && now_us >= task->notice_us) {
        task->notice_us = 0;
        task->stopping = true;
        set_end(task, ERR_OWNER_RECLAIMED, FAIL_INTERRUPTION,
                "the owner of the machine uses the device");
        act(out, TASK_ACT_SAVE, &task->id);
        act(out, TASK_ACT_STOP, &task->id);
    } else if (task->phase == TASK_PHASE_COLLECTING && age_us >= TASKS_COLLECT_US) {
        if (task->outputs_due)
            lose_outputs(task, FAIL_PROVIDER, "no gateway took the outputs in 15 minutes");
        task->logs_due = false;
        finish(task, now_us, out);
    } else if (task->phase >= TASK_PHASE_DONE && age_us >= TASKS_LINGER_US) {
        drop(tasks, task, now_us, out);
    }
}

static void on_tick(struct tasks *tasks, int64_t now_us, struct task_actions *out)
{
    for (uint32_t i = tasks->count; i-- > 0;)
        tick_task(tasks, &tasks->task[i], now_us, out);
}

/* An order for a task that is not held: another epoch's, or long gone. */
static void on_stranger(struct tasks *tasks, const struct task_event *event,
                        struct task_actions *out)
{
    char detail[256];

    for (uint32_t i = 0; i < tasks->count; i++) {
        const struct rank_task *task = &tasks->task[i];

        if (task->id.attempt == event->id.attempt && task->id.epoch > event->id.epoch) {
            snprintf(detail, sizeof(detail), "epoch %u, but epoch %u is here", event->id.epoch,
                     task->id.epoch);
            news_stranger(&event->id, RANK_NEWS_REFUSED, ERR_WIRE_FENCE, FAIL_PLATFORM, detail,
                          out);
            return;
        }
    }
    if (event->kind == TASK_EV_GO)
        news_stranger(&event->id, RANK_NEWS_REFUSED, ERR_TASK_LOST, FAIL_PROVIDER,
                      "no such task here", out);
    else if (event->kind == TASK_EV_STOP)
        news_stranger(&event->id, RANK_NEWS_DONE, ERR_TASK_LOST, FAIL_PROVIDER, "no such task here",
                      out);
}

void tasks_step(struct tasks *tasks, const struct task_event *event, int64_t now_us,
                struct task_actions *out)
{
    typedef void (*handler_f)(struct tasks *, struct rank_task *, const struct task_event *,
                              int64_t, struct task_actions *);
    static const handler_f handlers[TASK_EV_COUNT] = {
        [TASK_EV_GO] = on_go,           [TASK_EV_STOP] = on_stop,
        [TASK_EV_FORGET] = on_forget,   [TASK_EV_PROGRESS] = on_progress,
        [TASK_EV_FETCHED] = on_fetched, [TASK_EV_PREPARED] = on_prepared,
        [TASK_EV_FAILED] = on_failed,   [TASK_EV_STARTED] = on_started,
        [TASK_EV_EXITED] = on_exited,   [TASK_EV_OUTPUTS] = on_outputs,
        [TASK_EV_LOGS] = on_logs,       [TASK_EV_OUTPUTS_LOST] = on_outputs_lost,
        [TASK_EV_LOST] = on_lost,       [TASK_EV_RECLAIM] = on_reclaim,
        [TASK_EV_RELENT] = on_relent,
    };
    struct rank_task *task;

    BUG_ON((unsigned)event->kind >= TASK_EV_COUNT);
    if (event->kind == TASK_EV_PREPARE) {
        on_prepare(tasks, event, now_us, out);
        return;
    }
    if (event->kind == TASK_EV_TICK) {
        on_tick(tasks, now_us, out);
        return;
    }
    task = tasks_find(tasks, event->id.attempt, event->id.epoch);
    if (task)
        handlers[event->kind](tasks, task, event, now_us, out);
    else if (event->kind <= TASK_EV_FORGET)
        on_stranger(tasks, event, out);
}
