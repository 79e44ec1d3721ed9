/*
 * The six rules, each against committed rows and against what really ran:
 *   no device twice · gang whole or absent · every metered second billed once · sum zero ·
 *   terminal is final · acknowledged is never forgotten
 * (store.c holds those that a database enforces row by row.)
 */
#include <stdlib.h>
#include <string.h>

#include "common/pure/buf.h"
#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"
#include "tests/support/world/shadow.h"

/* An order to go may still be on its way when its attempt ends; its doubles come later yet. */
#define LATE_START_US (3 * SIM_MINUTE)
/* With a session in order: some receipts that name the stranger, each answered by an order. */
#define STRAY_US (5 * SIM_MINUTE)

typedef unsigned long long ull_t;

/* -- what really ran -----------------------------------------------------------------------------
 */

struct truth *truth_get(struct sim *sim, uint64_t attempt, uint32_t rank)
{
    uint64_t key[2] = {attempt, rank};

    return map_get(&sim->truths, key, sizeof(key));
}

void truth_ready(struct sim *sim, const struct worker *worker, const struct process *process)
{
    uint64_t key[2] = {process->id.attempt, process->id.rank};
    struct truth *truth = map_get(&sim->truths, key, sizeof(key));

    if (truth == NULL) {
        truth = mem_new(1, sizeof(*truth));
        truth->attempt = process->id.attempt;
        truth->rank = process->id.rank;
        truth->ranks = process->ranks;
        truth->node = worker->index;
        map_put(&sim->truths, key, sizeof(key), truth);
    }
    truth->ready = true;
}

static void check_device(struct sim *sim, const struct worker *worker,
                         const struct process *process)
{
    for (uint32_t i = 0; i < SIM_MAX_PROCESS; i++) {
        const struct process *other = &worker->process[i];
        if (other == process || other->number == 0 || other->state != PROCESS_RUNNING)
            continue;
        for (uint32_t k = 0; k < other->device_count * process->device_count; k++) {
            if (other->device[k / process->device_count]
                == process->device[k % process->device_count])
                sim_break(sim, "no device twice: attempts %llu and %llu run on one device of %u",
                          (ull_t)other->id.attempt, (ull_t)process->id.attempt, worker->index);
        }
    }
}

static void check_barrier(struct sim *sim, const struct process *process)
{
    const struct row *row = store_get(&sim->store, ROW_ATTEMPT, process->id.attempt);

    for (uint32_t i = 0; i < process->ranks; i++) {
        const struct truth *truth = truth_get(sim, process->id.attempt, i);
        if (truth == NULL || !truth->ready)
            sim_break(sim, "gang whole: rank %u of attempt %llu runs, rank %u was never ready",
                      process->id.rank, (ull_t)process->id.attempt, i);
    }
    if (row == NULL || row->attempt.started_us == 0)
        sim_break(sim, "gang whole: attempt %llu runs, its barrier is not committed",
                  (ull_t)process->id.attempt);
    else if (row->attempt.ended_us != 0 && row->attempt.ended_us + LATE_START_US < sim->now)
        sim_break(sim, "gang absent: attempt %llu starts long after its end",
                  (ull_t)process->id.attempt);
}

void truth_start(struct sim *sim, struct worker *worker, const struct process *process)
{
    struct truth *truth = truth_get(sim, process->id.attempt, process->id.rank);

    sim->counters.runs++;
    if (truth->ran)
        sim_break(sim, "gang whole: rank %u of attempt %llu runs a second time", process->id.rank,
                  (ull_t)process->id.attempt);
    truth->ran = true;
    truth->run_from = sim->now;
    check_device(sim, worker, process);
    check_barrier(sim, process);
}

void truth_told(struct sim *sim, const struct process *process)
{
    struct truth *truth = truth_get(sim, process->id.attempt, process->id.rank);

    if (truth != NULL)
        truth->told = truth->ran;
}

void truth_end(struct sim *sim, const struct process *process)
{
    struct truth *truth = truth_get(sim, process->id.attempt, process->id.rank);

    truth->run_to = sim->now;
}

static uint64_t truth_ms(const struct sim *sim, const struct truth *truth)
{
    if (truth == NULL || !truth->ran)
        return 0;
    usec_t to = truth->run_to != 0 ? truth->run_to : sim->now;
    return (uint64_t)(to - truth->run_from) / 1000;
}

/* -- money ----------------------------------------------------------------------------------------
 */

static uint64_t meter_ms(const struct sim *sim, const struct lease_row *row)
{
    usec_t to = row->meter_to_us != 0 ? row->meter_to_us : sim->hub.now;

    return row->meter_from_us == 0 || to < row->meter_from_us
               ? 0
               : (uint64_t)(to - row->meter_from_us) / 1000;
}

void check_lease(struct sim *sim, const struct lease_row *old, const struct lease_row *row)
{
    const struct row *rank = store_get(&sim->store, ROW_RANK, row->rank);
    const struct truth *truth = rank != NULL ? truth_get(sim, row->attempt, rank->rank.rank) : NULL;

    if (row->billed_ms > truth_ms(sim, truth))
        sim_break(sim, "billed once: lease %llu is billed %llu ms of %llu that ran", (ull_t)row->id,
                  (ull_t)row->billed_ms, (ull_t)truth_ms(sim, truth));
    if (row->billed_ms > meter_ms(sim, row) || row->billed_ms > row->receipt_ms)
        sim_break(sim, "billed once: lease %llu is billed %llu ms beyond its meter or receipt",
                  (ull_t)row->id, (ull_t)row->billed_ms);
    if (old == NULL)
        return;
    if (row->billed_ms < old->billed_ms || row->receipt_ms < old->receipt_ms)
        sim_break(sim, "billed once: a meter of lease %llu went back", (ull_t)row->id);
    if (old->ended_us != 0
        && (row->ended_us != old->ended_us || row->billed_ms != old->billed_ms
            || row->earned > old->earned))
        sim_break(sim, "terminal is final: lease %llu changes after its end", (ull_t)row->id);
    if (row->price != old->price || row->fee_ppm != old->fee_ppm)
        sim_break(sim, "billed once: the frozen terms of lease %llu moved", (ull_t)row->id);
}

static void check_lease_money(struct sim *sim, const struct lease_row *row)
{
    const struct tally *tally = map_get_id(&sim->store.by_lease, row->id);
    micro_t paid = 0;
    micro_t refunded = 0;

    if (tally != NULL) {
        paid = tally->kind[TRANSFER_EARN] + tally->kind[TRANSFER_FEE];
        refunded = tally->kind[TRANSFER_REFUND];
    }
    if (paid != money_bill(row->price, row->billed_ms))
        sim_break(sim, "billed once: lease %llu paid %lld for %llu ms", (ull_t)row->id,
                  (long long)paid, (ull_t)row->billed_ms);
    if (paid - refunded != row->earned + row->fee)
        sim_break(sim, "sum zero: lease %llu: its refund does not fit", (ull_t)row->id);
}

static void check_job_money(struct sim *sim, const struct job_row *row)
{
    static const struct tally none;
    const struct tally *tally = map_get_id(&sim->store.by_job, row->id);

    if (tally == NULL)
        tally = &none;
    const micro_t *kind = tally->kind;
    micro_t taken = kind[TRANSFER_EARN] + kind[TRANSFER_FEE];
    if (taken - kind[TRANSFER_REFUND] != row->charged)
        sim_break(sim, "sum zero: job %llu is charged %lld, its transfers say %lld", (ull_t)row->id,
                  (long long)row->charged, (long long)(taken - kind[TRANSFER_REFUND]));
    if (kind[TRANSFER_HOLD] - taken - kind[TRANSFER_RELEASE] != row->held)
        sim_break(sim, "sum zero: job %llu holds %lld, its transfers leave %lld", (ull_t)row->id,
                  (long long)row->held,
                  (long long)(kind[TRANSFER_HOLD] - taken - kind[TRANSFER_RELEASE]));
    if (job_state_is_final(row->state) && row->held != 0)
        sim_break(sim, "sum zero: job %llu ended and still holds money", (ull_t)row->id);
}

static void check_accounts(struct sim *sim)
{
    micro_t sum = 0;
    micro_t escrow = 0;
    micro_t held = 0;

    for (uint32_t i = 0; i < sim->store.count; i++) {
        const struct row *row = &sim->store.rows[i];
        if (row->kind == ROW_JOB)
            held += row->job.held;
        if (row->kind != ROW_ACCOUNT)
            continue;
        const struct tally *tally = map_get_id(&sim->store.balances, row->account.id);
        micro_t said = tally != NULL ? tally->balance : 0;
        sum += row->account.balance;
        if (row->account.purpose == PURPOSE_ESCROW)
            escrow += row->account.balance;
        if (said != row->account.balance)
            sim_break(sim, "sum zero: account %llu has %lld, its transfers say %lld",
                      (ull_t)row->account.id, (long long)row->account.balance, (long long)said);
        if (row->account.balance < 0 && row->account.purpose != PURPOSE_EXTERNAL)
            sim_break(sim, "sum zero: account %llu is below zero", (ull_t)row->account.id);
    }
    if (sum != 0)
        sim_break(sim, "sum zero: the accounts sum to %lld", (long long)sum);
    if (escrow != held)
        sim_break(sim, "sum zero: escrow %lld, jobs hold %lld", (long long)escrow, (long long)held);
}

void check_batch(struct sim *sim, const struct row *rows, uint32_t count)
{
    bool money = false;

    for (uint32_t i = 0; i < count && !sim->broken; i++) {
        const struct row *row = &rows[i];
        money |= row->kind == ROW_TRANSFER || row->kind == ROW_ACCOUNT;
        if (row->kind == ROW_JOB)
            check_job_money(sim, &store_get(&sim->store, ROW_JOB, row->job.id)->job);
        if (row->kind == ROW_LEASE)
            check_lease_money(sim, &store_get(&sim->store, ROW_LEASE, row->lease.id)->lease);
    }
    if (money && !sim->broken)
        check_accounts(sim);
}

/* -- what should have stopped
 * ----------------------------------------------------------------------
 */

static usec_t later_of(usec_t a, usec_t b)
{
    return a > b ? a : b;
}

static void check_stray(struct sim *sim, const struct worker *worker, const struct process *process)
{
    const struct row *row = store_get(&sim->store, ROW_ATTEMPT, process->id.attempt);
    usec_t since;

    if (process->number == 0 || process->state != PROCESS_RUNNING || row == NULL
        || row->attempt.state != ATTEMPT_ENDED || !sim->hub.up || !worker->session_up)
        return;
    since = later_of(later_of(row->attempt.ended_us, process->run_from),
                     later_of(worker->broken_us, sim->hub.up_us));
    if (sim->now - since > STRAY_US)
        sim_break(sim, "gang absent: attempt %llu ended, and its rank %u still runs",
                  (ull_t)process->id.attempt, process->id.rank);
}

void check_strays(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        for (uint32_t k = 0; k < SIM_MAX_PROCESS; k++)
            check_stray(sim, &sim->worker[i], &sim->worker[i].process[k]);
    }
}

/* -- the end
 * ---------------------------------------------------------------------------------------- */

static bool worker_is_done(const struct worker *worker)
{
    if (worker->vanished)
        return true;
    for (uint32_t i = 0; i < SIM_MAX_PROCESS; i++) {
        /* What has exited may lie about: its journal was cleared before the folder was. */
        if (worker->process[i].number != 0 && worker->process[i].state != PROCESS_EXITED)
            return false;
    }
    return worker->up && worker->session_up && worker->journal.outbox_count == 0
           && tasks_live(&worker->tasks) == 0;
}

bool sim_is_over(const struct sim *sim)
{
    const struct hub *hub = &sim->hub;

    if (!sim->quiet || !hub->up || hub->flying != NULL || hub->head != NULL
        || hub->filling->boxes != 0)
        return false;
    for (uint32_t i = 0; i < sim->job_count; i++) {
        const struct job_row *row = store_job(&sim->store, &sim->job[i].uid);
        if (sim->job[i].refused)
            continue;
        if (!sim->job[i].acked || row == NULL || !job_state_is_final(row->state))
            return false;
    }
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        if (!worker_is_done(&sim->worker[i]))
            return false;
    }
    return true;
}

static void check_jobs(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->job_count; i++) {
        const struct sim_job *job = &sim->job[i];
        const struct job_row *row = store_job(&sim->store, &job->uid);
        if (!job->acked && !job->refused)
            sim_break(sim, "not forgotten: job %u was never answered", i);
        if (!job->acked)
            continue;
        if (row == NULL || !job_state_is_final(row->state)) {
            sim_break(sim, "not forgotten: job %u of %u x %u is %s at the end: %s: %s", i,
                      job->ask.nodes, job->ask.gpus_per_node,
                      row != NULL ? job_state_name(row->state) : "absent",
                      row != NULL ? err_slug(row->reason) : "", row != NULL ? row->detail : "");
            continue;
        }
        sim->counters.jobs_by_state[row->state]++;
        if (job->feasible && row->reason == ERR_QUEUE_TIMEOUT)
            sim_break(sim, "not forgotten: job %u was never placed", i);
    }
}

static void check_final_bill(struct sim *sim, const struct lease_row *row)
{
    const struct row *attempt = store_get(&sim->store, ROW_ATTEMPT, row->attempt);
    const struct row *rank = store_get(&sim->store, ROW_RANK, row->rank);
    const struct row *job =
        attempt != NULL ? store_get(&sim->store, ROW_JOB, attempt->attempt.job) : NULL;
    uint64_t ms = meter_ms(sim, row);

    if (row->ended_us == 0 || job == NULL || rank == NULL) {
        sim_break(sim, "no device twice: lease %llu outlives everything", (ull_t)row->id);
        return;
    }
    const struct truth *truth = truth_get(sim, row->attempt, rank->rank.rank);
    enum fail_class class = attempt->attempt.class;
    bool pays = class == FAIL_NONE || class == FAIL_USER || class == FAIL_INTERRUPTION;
    if (!pays && row->earned + row->fee != 0)
        sim_break(sim, "billed once: lease %llu of a failure of ours is not refunded",
                  (ull_t)row->id);
    /* The last receipt comes before the news of the end. */
    if (rank->rank.state == RANK_DONE && truth != NULL && truth->told && row->meter_from_us != 0
        && row->receipt_ms != truth_ms(sim, truth))
        sim_break(sim, "billed once: lease %llu: receipts say %llu ms, %llu ran", (ull_t)row->id,
                  (ull_t)row->receipt_ms, (ull_t)truth_ms(sim, truth));
    if (ms > row->receipt_ms)
        ms = row->receipt_ms;
    /* A small escrow may end before its job is told to stop. */
    if (pays && job->job.ask->max_total >= SIM_RICH && row->billed_ms != ms)
        sim_break(sim, "billed once: lease %llu is billed %llu of %llu ms", (ull_t)row->id,
                  (ull_t)row->billed_ms, (ull_t)ms);
}

static void check_names(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->store.count; i++) {
        const struct row *row = &sim->store.rows[i];
        for (uint32_t k = 0; row->kind == ROW_JOB && k < i; k++) {
            const struct row *other = &sim->store.rows[k];
            if (other->kind == ROW_JOB && strcmp(other->job.name, row->job.name) == 0)
                sim_break(sim, "not forgotten: one key made %s twice", row->job.name);
        }
    }
}

/* The world as it is, and as a start would read it. */
static void check_reload(struct sim *sim)
{
    struct world *world = store_load(sim);
    struct buf live;
    struct buf read;

    buf_init(&live, 0);
    buf_init(&read, 0);
    world_text(sim->hub.world, &live);
    world_text(world, &read);
    if (strcmp(live.data, read.data) != 0)
        sim_break(sim, "not forgotten: the rows do not make the world they came from");
    buf_fini(&live);
    buf_fini(&read);
    world_free(world);
}

static void check_worker(struct sim *sim, const struct worker *worker)
{
    if (worker_is_done(worker))
        return;
    for (uint32_t i = 0; i < SIM_MAX_PROCESS; i++) {
        const struct process *process = &worker->process[i];
        if (process->number != 0 && process->state != PROCESS_EXITED)
            sim_break(sim, "gang absent: rank %u of attempt %llu is left on %u in state %d",
                      process->id.rank, (ull_t)process->id.attempt, worker->index,
                      (int)process->state);
    }
    for (uint32_t i = 0; i < worker->tasks.count; i++) {
        const struct rank_task *task = &worker->tasks.task[i];
        if (task->phase <= TASK_PHASE_COLLECTING)
            sim_break(sim, "gang absent: attempt %llu is %s on %u at the end",
                      (ull_t)task->id.attempt, task_phase_name(task->phase), worker->index);
    }
    sim_break(sim, "not forgotten: worker %u (%s, session %d) still tells %u messages",
              worker->index, worker->up ? "up" : "down", worker->session_up,
              worker->journal.outbox_count);
}

void check_end(struct sim *sim)
{
    check_jobs(sim);
    check_names(sim);
    check_accounts(sim);
    for (uint32_t i = 0; i < sim->store.count; i++) {
        if (sim->store.rows[i].kind == ROW_LEASE)
            check_final_bill(sim, &sim->store.rows[i].lease);
    }
    for (uint32_t i = 0; i < sim->worker_count; i++)
        check_worker(sim, &sim->worker[i]);
    if (sim_is_over(sim))
        check_reload(sim);
    else
        sim_break(sim, "not forgotten: something waits at the end");
}
