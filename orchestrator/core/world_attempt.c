/* One try of a gang: all or nothing, from the first order to the last freed slot. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

void attempt_move(struct step *step, struct attempt *attempt, enum attempt_state to)
{
    struct row row = {.kind = ROW_ATTEMPT, .attempt = attempt->row};

    BUG_ON(!attempt_may_move(attempt->row.state, to));
    row.attempt.state = to;
    if (to == ATTEMPT_STARTING)
        row.attempt.started_us = step->now;
    if (to == ATTEMPT_RUNNING)
        row.attempt.running_us = step->now;
    if (to == ATTEMPT_ENDED)
        row.attempt.ended_us = step->now;
    step_emit(step, &row);
}

/* -- stopping -------------------------------------------------------------------------------- */

/* Whether a later cause changes where a stopping attempt leads. */
static bool overrides(enum job_state then, enum job_state wanted)
{
    if (then == JOB_QUEUED)
        return wanted == JOB_CANCELLED || wanted == JOB_EXPIRED;
    return then == JOB_SUCCEEDED && (wanted == JOB_FAILED || wanted == JOB_QUEUED);
}

static void restate(struct step *step, struct job *job, const struct cause *cause)
{
    struct row row = {.kind = ROW_JOB, .job = job->row};

    row.job.reason = cause->reason;
    row.job.class = cause->class;
    snprintf(row.job.detail, sizeof(row.job.detail), "%s", cause->detail ? cause->detail : "");
    step_emit(step, &row);
    job_note(step, job, cause->reason, cause->detail);
}

void attempt_stop(struct step *step, struct attempt *attempt, enum job_state then,
                  const struct cause *cause)
{
    struct job *job = attempt->job;
    bool stopping = attempt->row.state == ATTEMPT_STOPPING;
    enum job_state to = then == JOB_QUEUED ? JOB_RECOVERING : JOB_STOPPING;

    if (stopping && !overrides(attempt->row.then, then))
        return;
    struct row row = {.kind = ROW_ATTEMPT, .attempt = attempt->row};
    row.attempt.state = ATTEMPT_STOPPING;
    row.attempt.then = then;
    row.attempt.reason = cause->reason;
    /* Who cancels a gang that was lost already still pays nothing for it. */
    if (!stopping || class_pays(attempt->row.class))
        row.attempt.class = cause->class;
    if (!stopping)
        row.attempt.stop_us = step->now;
    BUG_ON(!stopping && !attempt_may_move(attempt->row.state, ATTEMPT_STOPPING));
    step_emit(step, &row);
    if (job->row.state != to)
        job_move(step, job, to, cause);
    else
        restate(step, job, cause);
    for (uint32_t i = 0; i < attempt->rank_count && !stopping; i++)
        rank_demand(step, attempt->rank[i]);
}

void attempt_fail(struct step *step, struct attempt *attempt, const struct cause *cause)
{
    const struct job *job = attempt->job;
    struct cause told = *cause;
    char detail[ROW_DETAIL];

    if (attempt->row.state == ATTEMPT_STOPPING && attempt->row.then != JOB_SUCCEEDED)
        return;
    bool retryable = (job->ask.retry_on & (1u << cause->class)) != 0;
    if (retryable && job->row.attempts < job->ask.max_attempts) {
        attempt_stop(step, attempt, JOB_QUEUED, cause);
        return;
    }
    if (retryable && job->ask.max_attempts > 1) {
        snprintf(detail, sizeof(detail), "attempt %u of %u: %s: %s", job->row.attempts,
                 job->ask.max_attempts, err_slug(cause->reason),
                 cause->detail ? cause->detail : "");
        told.reason = ERR_ATTEMPTS_SPENT;
        told.detail = detail;
    }
    attempt_stop(step, attempt, JOB_FAILED, &told);
}

/* -- the end --------------------------------------------------------------------------------- */

static usec_t back_off(const struct policy *policy, uint32_t attempts)
{
    usec_t wait = policy->backoff_first_us;

    for (uint32_t i = 1; i < attempts && wait < policy->backoff_max_us; i++)
        wait *= 2;
    return wait < policy->backoff_max_us ? wait : policy->backoff_max_us;
}

static void job_requeue(struct step *step, struct job *job, const struct cause *cause)
{
    struct row row = {.kind = ROW_JOB, .job = job->row};

    if (job->row.hold != 0 && job->row.held == 0) {
        job_move(step, job, JOB_EXPIRED, &(struct cause){.reason = ERR_BUDGET_SPENT});
        return;
    }
    row.job.not_before_us = step->now + back_off(step->policy, job->row.attempts);
    step_emit(step, &row);
    job->tried = 0;
    job_move(step, job, JOB_QUEUED, cause);
}

static void attempt_end(struct step *step, struct attempt *attempt)
{
    struct job *job = attempt->job;
    enum job_state then = attempt->row.then;
    char detail[ROW_DETAIL];
    struct cause cause = {
        .reason = attempt->row.reason, .class = attempt->row.class, .detail = detail};

    snprintf(detail, sizeof(detail), "%s", job->row.detail);
    if (!class_pays(attempt->row.class))
        attempt_refund(step, attempt, then == JOB_QUEUED);
    attempt_move(step, attempt, ATTEMPT_ENDED); /* frees it */
    if (then != JOB_QUEUED) {
        job_move(step, job, then, &cause);
        return;
    }
    char text[ROW_DETAIL];
    snprintf(text, sizeof(text), "after %s", err_slug(cause.reason));
    cause.reason = ERR_BACK_OFF;
    cause.detail = text;
    job_requeue(step, job, &cause);
}

/* -- forward --------------------------------------------------------------------------------- */

static bool all_at_least(const struct attempt *attempt, enum rank_state state)
{
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        if (attempt->rank[i]->row.state < state)
            return false;
    }
    return true;
}

static bool all_final(const struct attempt *attempt)
{
    return all_at_least(attempt, RANK_DONE);
}

static void open_barrier(struct step *step, struct attempt *attempt)
{
    attempt_move(step, attempt, ATTEMPT_STARTING);
    job_move(step, attempt->job, JOB_STARTING, &(struct cause){0});
    for (uint32_t i = 0; i < attempt->rank_count; i++)
        rank_demand(step, attempt->rank[i]);
}

static void start_metering(struct step *step, struct attempt *attempt)
{
    attempt_move(step, attempt, ATTEMPT_RUNNING);
    attempt->settled_us = step->now;
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct rank *rank = attempt->rank[i];
        struct row row = {.kind = ROW_LEASE, .lease = rank->lease->row};
        row.lease.meter_from_us = step->now;
        if (rank->row.state >= RANK_EXITED)
            row.lease.meter_to_us = step->now;
        step_emit(step, &row);
    }
    job_move(step, attempt->job, JOB_RUNNING, &(struct cause){0});
}

void attempt_advance(struct step *step, struct attempt *attempt)
{
    if (attempt->row.state == ATTEMPT_PREPARING && all_at_least(attempt, RANK_READY))
        open_barrier(step, attempt);
    if (attempt->row.state == ATTEMPT_STARTING && all_at_least(attempt, RANK_STARTED))
        start_metering(step, attempt);
    if (attempt->row.state == ATTEMPT_RUNNING && all_at_least(attempt, RANK_EXITED))
        attempt_stop(step, attempt, JOB_SUCCEEDED, &(struct cause){.reason = ERR_COMPLETED});
    if (attempt->row.state == ATTEMPT_STOPPING && all_final(attempt))
        attempt_end(step, attempt);
}

/* -- time ------------------------------------------------------------------------------------ */

static usec_t phase_due(const struct attempt *attempt, const struct policy *policy)
{
    uint64_t longest = attempt->job->ask.max_duration_us;

    if (attempt->row.state == ATTEMPT_PREPARING)
        return attempt->row.created_us + policy->prepare_timeout_us;
    if (attempt->row.state == ATTEMPT_STARTING)
        return attempt->row.started_us + policy->start_timeout_us;
    if (attempt->row.state == ATTEMPT_RUNNING && longest < INT64_MAX / 2)
        return attempt->row.running_us + (usec_t)longest;
    return 0;
}

static usec_t settle_due(const struct attempt *attempt, const struct policy *policy)
{
    usec_t last = attempt->settled_us > attempt->row.running_us ? attempt->settled_us
                                                                : attempt->row.running_us;

    return attempt->row.state == ATTEMPT_RUNNING ? last + policy->settle_every_us : 0;
}

usec_t attempt_due(const struct attempt *attempt, const struct world *world,
                   const struct policy *policy)
{
    usec_t due = usec_sooner(phase_due(attempt, policy), settle_due(attempt, policy));

    due = usec_sooner(due, attempt_broke_us(attempt));
    for (uint32_t i = 0; i < attempt->rank_count; i++)
        due = usec_sooner(due, rank_due(attempt->rank[i], world, policy));
    return due;
}

/* When its processes are told to end at the latest; 0 = nobody knows. */
static usec_t latest_stop(const struct attempt *attempt, const struct policy *policy)
{
    uint64_t longest = attempt->job->ask.max_duration_us;
    usec_t start = attempt->row.started_us;

    if (attempt->row.state == ATTEMPT_STOPPING)
        return attempt->row.stop_us;
    if (longest >= INT64_MAX / 8)
        return 0;
    if (attempt->row.state == ATTEMPT_RUNNING)
        return attempt->row.running_us + (usec_t)longest;
    if (attempt->row.state == ATTEMPT_PREPARING)
        start = attempt->row.created_us + policy->prepare_timeout_us;
    return start + policy->start_timeout_us + (usec_t)longest;
}

usec_t attempt_latest_us(const struct attempt *attempt, const struct policy *policy)
{
    usec_t stop = latest_stop(attempt, policy);

    return stop != 0 ? stop + rank_stop_span(attempt) + policy->output_timeout_us : 0;
}

static void time_out(struct step *step, struct attempt *attempt)
{
    struct cause cause = {.class = FAIL_CAPACITY};
    char detail[ROW_DETAIL] = "";
    bool preparing = attempt->row.state == ATTEMPT_PREPARING;
    enum rank_state wanted = preparing ? RANK_READY : RANK_STARTED;

    cause.detail = detail;
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct rank *rank = attempt->rank[i];
        const struct node *node = table_get(&step->world->nodes, rank->row.node);
        if (rank->row.state >= wanted)
            continue;
        snprintf(detail, sizeof(detail), "rank %u on %s was not %s in time", i, node->row.name,
                 rank_state_name(wanted));
        node_fault(step, node->row.id, cause.class);
    }
    cause.reason = preparing ? ERR_PREPARE_TIMEOUT : ERR_START_TIMEOUT;
    attempt_fail(step, attempt, &cause);
}

static bool is_due(const struct step *step, usec_t due)
{
    return due != 0 && due <= step->now;
}

void attempt_act(struct step *step, struct attempt *attempt)
{
    if (is_due(step, settle_due(attempt, step->policy)))
        attempt_settle(step, attempt);
    if (is_due(step, attempt_broke_us(attempt))) {
        attempt_settle(step, attempt);
        attempt_stop(step, attempt, JOB_EXPIRED, &(struct cause){.reason = ERR_BUDGET_SPENT});
    } else if (is_due(step, phase_due(attempt, step->policy))) {
        if (attempt->row.state == ATTEMPT_RUNNING)
            attempt_stop(step, attempt, JOB_EXPIRED, &(struct cause){.reason = ERR_MAX_DURATION});
        else
            time_out(step, attempt);
    }
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        if (is_due(step, rank_due(attempt->rank[i], step->world, step->policy)))
            rank_act(step, attempt->rank[i]);
    }
    attempt_advance(step, attempt);
}
