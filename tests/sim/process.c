/* What really runs on the hosts: supervisors and user processes, which outlive their worker. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_private.h"

#define EXIT_KILLED     137
#define EXIT_TERMINATED 143

struct process *process_find(struct worker *worker, const struct task_id *id)
{
    for (uint32_t i = 0; i < SIM_MAX_PROCESS; i++) {
        struct process *process = &worker->process[i];
        if (process->number != 0 && process->id.attempt == id->attempt
            && process->id.epoch == id->epoch)
            return process;
    }
    return NULL;
}

static struct process *by_number(struct worker *worker, uint64_t number)
{
    for (uint32_t i = 0; i < SIM_MAX_PROCESS; i++) {
        if (worker->process[i].number == number && number != 0)
            return &worker->process[i];
    }
    return NULL;
}

uint64_t process_used_ms(const struct sim *sim, const struct process *process)
{
    if (process->state < PROCESS_RUNNING || process->run_from == 0)
        return 0;
    usec_t to = process->state == PROCESS_RUNNING ? sim->now : process->run_to;
    return (uint64_t)(to - process->run_from) / 1000;
}

static void later(struct sim *sim, const struct worker *worker, const struct process *process,
                  usec_t span, void (*run)(struct sim *, const struct call *))
{
    sim_after(sim, span, (struct call){.run = run, .node = worker->index, .a = process->number});
}

static struct task_event event_of(const struct process *process, enum task_event_kind kind)
{
    return (struct task_event){.kind = kind, .id = process->id};
}

/* -- the end ------------------------------------------------------------------------------------
 */

static void leave(struct sim *sim, struct process *process, int32_t exit_code)
{
    if (process->state == PROCESS_RUNNING) {
        process->run_to = sim->now;
        truth_end(sim, process);
    }
    process->state = PROCESS_EXITED;
    process->exit_code = exit_code;
}

static void ended(struct sim *sim, struct worker *worker, struct process *process, int32_t code)
{
    struct task_event event = event_of(process, TASK_EV_EXITED);

    leave(sim, process, code);
    event.exit_code = code;
    event.used_ms = process_used_ms(sim, process);
    sim_note(sim, "exit", worker->index, process->id.attempt, process->id.rank, (uint64_t)code);
    worker_task_event(sim, worker, &event);
}

static void on_killed(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];
    struct process *process = by_number(worker, call->a);

    if (process != NULL && process->state != PROCESS_EXITED)
        ended(sim, worker, process, EXIT_KILLED);
}

static void on_terminated(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];
    struct process *process = by_number(worker, call->a);

    if (process != NULL && process->state != PROCESS_EXITED)
        ended(sim, worker, process, chance(sim, 4) == 0 ? 0 : EXIT_TERMINATED);
}

void process_stop(struct sim *sim, struct worker *worker, struct process *process, bool kill)
{
    usec_t longest = 9 * SIM_SECOND; /* below the grace of every job here */

    if (process->state == PROCESS_EXITED)
        return;
    if (kill) {
        later(sim, worker, process, chance_span(sim, SIM_MS, 200 * SIM_MS), on_killed);
    } else if (process->stop_us == 0) {
        process->stop_us = sim->now;
        if (chance(sim, 3) != 0)
            longest = 2 * SIM_SECOND;
        later(sim, worker, process, chance_span(sim, SIM_MS, longest), on_terminated);
    }
}

void process_clean(struct sim *sim, struct worker *worker, struct process *process)
{
    (void)worker;
    leave(sim, process, EXIT_KILLED);
    process->number = 0;
}

void process_power_off(struct sim *sim, struct worker *worker)
{
    for (uint32_t i = 0; i < SIM_MAX_PROCESS; i++) {
        struct process *process = &worker->process[i];
        if (process->number == 0)
            continue;
        leave(sim, process, EXIT_KILLED);
        process->number = 0;
    }
}

/* -- the way there -------------------------------------------------------------------------------
 */

static void on_ready(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];
    struct process *process = by_number(worker, call->a);

    if (process == NULL || process->state != PROCESS_MAKING)
        return;
    process->state = PROCESS_READY;
    truth_ready(sim, worker, process);
    struct task_event event = event_of(process, TASK_EV_PREPARED);
    event.port = 20000 + process->id.rank;
    worker_task_event(sim, worker, &event);
}

void process_make(struct sim *sim, struct worker *worker, const struct rank_task *task,
                  uint32_t ranks)
{
    struct process *process = NULL;

    for (uint32_t i = 0; i < SIM_MAX_PROCESS && process == NULL; i++) {
        if (worker->process[i].number == 0)
            process = &worker->process[i];
    }
    BUG_ON(process == NULL);
    *process = (struct process){.number = ++sim->numbers, .id = task->id, .ranks = ranks};
    memcpy(process->job.bytes, task->job, sizeof(process->job.bytes));
    for (uint32_t i = 0; i < task->device_count && i < SIM_MAX_DEVICES; i++)
        process->device[process->device_count++] = task->device[i];
    later(sim, worker, process, chance_span(sim, 50 * SIM_MS, 3 * SIM_SECOND), on_ready);
}

/* The program itself: long runs, short ones, and some that fail. */
static void on_finished(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];
    struct process *process = by_number(worker, call->a);
    uint64_t dice;

    if (process == NULL || process->state != PROCESS_RUNNING)
        return;
    dice = chance_of(sim, process->id.attempt, process->id.rank, 1);
    ended(sim, worker, process, dice % 12 == 0 ? 1 : 0);
}

static void on_run(struct sim *sim, const struct call *call)
{
    struct worker *worker = &sim->worker[call->node];
    struct process *process = by_number(worker, call->a);
    uint64_t dice;

    if (process == NULL || process->state != PROCESS_RELEASED)
        return;
    process->state = PROCESS_RUNNING;
    process->run_from = sim->now;
    sim_note(sim, "run", worker->index, process->id.attempt, process->id.rank, process->id.epoch);
    truth_start(sim, worker, process);
    /* The ranks of a gang end about together; a twelfth fails early, alone; some hang for ever. */
    dice = chance_of(sim, process->id.attempt, process->id.rank, 1);
    usec_t span = 5 * SIM_SECOND
                  + (usec_t)(chance_of(sim, process->id.attempt, 0, 2) % 150) * SIM_SECOND
                  + (usec_t)(dice % 1000) * SIM_MS;
    if (dice % 12 == 0)
        span /= 2;
    if (dice % 9 != 0)
        later(sim, worker, process, span, on_finished);
    struct task_event event = event_of(process, TASK_EV_STARTED);
    worker_task_event(sim, worker, &event);
}

void process_release(struct sim *sim, struct worker *worker, struct process *process)
{
    if (process->state != PROCESS_READY)
        return;
    process->state = PROCESS_RELEASED;
    later(sim, worker, process, chance_span(sim, SIM_MS, 200 * SIM_MS), on_run);
}
