#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

/* A gang that waits for measurements is tried again after this long. */
#define UNMEASURED_RETRY_US ((usec_t)30 * 1000000)
/* Fresh evidence for an old reason is written at most this often: a long queue would churn. */
#define EVIDENCE_EVERY_US ((usec_t)10 * 1000000)

static void emit_event(struct step *step, const struct job *job, enum job_state from,
                       enum job_state to, enum err_code reason, const char *detail)
{
    struct row row = {
        .kind = ROW_JOB_EVENT,
        .job_event = {.id = step_id(step),
                      .job = job->row.id,
                      .attempt = job->row.attempt,
                      .at_us = step->now,
                      .from_state = from,
                      .to_state = to,
                      .reason = reason,
                      .actor = reason == ERR_NONE ? ERR_ACTOR_NONE : err_info(reason)->actor}};

    snprintf(row.job_event.detail, sizeof(row.job_event.detail), "%s", detail ? detail : "");
    step_emit(step, &row);
}

void job_note(struct step *step, const struct job *job, enum err_code reason, const char *detail)
{
    emit_event(step, job, job->row.state, job->row.state, reason, detail);
}

void job_move(struct step *step, struct job *job, enum job_state to, const struct cause *cause)
{
    enum job_state from = job->row.state;
    bool final = job_state_is_final(to);

    BUG_ON(!job_may_move(from, to));
    if (final)
        job_release(step, job);
    struct row row = {.kind = ROW_JOB, .job = job->row};
    row.job.state = to;
    row.job.state_us = step->now;
    row.job.policy_version = step->policy->version;
    row.job.reason = cause->reason;
    row.job.class = cause->class;
    if (cause->exit_code != 0)
        row.job.exit_code = cause->exit_code;
    snprintf(row.job.detail, sizeof(row.job.detail), "%s", cause->detail ? cause->detail : "");
    if (final) {
        row.job.ended_us = step->now;
        row.job.conditions &= ~(uint32_t)JOB_DEGRADED;
    }
    emit_event(step, job, from, to, cause->reason, cause->detail);
    step_emit(step, &row);
}

/* place_solve clears the padding; a difference that is none would cost one more row. */
static bool why_same(const struct why *a, const struct why *b)
{
    // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
    return a != NULL && b != NULL && memcmp(a, b, sizeof(*a)) == 0;
}

void job_wait(struct step *step, struct job *job, enum err_code reason, const struct why *why)
{
    bool new_reason = job->row.reason != reason;

    job->retry_us = reason == ERR_NETWORK_UNMEASURED ? step->now + UNMEASURED_RETRY_US : 0;
    if (!new_reason && why_same(job->why, why))
        return;
    if (!new_reason && job->told_us + EVIDENCE_EVERY_US > step->now) {
        job->retry_us = usec_sooner(job->retry_us, job->told_us + EVIDENCE_EVERY_US);
        return;
    }
    job->told_us = step->now;
    struct row row = {.kind = ROW_JOB, .job = job->row};
    row.job.reason = reason;
    row.job.policy_version = step->policy->version;
    row.job.why = why;
    snprintf(row.job.detail, sizeof(row.job.detail), "%s", why->detail);
    step_emit(step, &row);
    if (new_reason)
        job_note(step, job, reason, why->detail);
}

void job_refresh(struct step *step, struct job *job)
{
    uint32_t conditions = job->row.conditions & ~(uint32_t)JOB_DEGRADED;
    const char *who = "";

    for (uint32_t i = 0; job->attempt != NULL && i < job->attempt->rank_count; i++) {
        const struct rank *rank = job->attempt->rank[i];
        const struct node *node = table_get(&step->world->nodes, rank->row.node);
        if (!rank_is_final(rank) && (node->row.conditions & NODE_UNKNOWN) != 0) {
            conditions |= JOB_DEGRADED;
            who = node->row.name;
        }
    }
    if (conditions == job->row.conditions)
        return;
    struct row row = {.kind = ROW_JOB, .job = job->row};
    row.job.conditions = conditions;
    step_emit(step, &row);
    bool degraded = (conditions & JOB_DEGRADED) != 0;
    job_note(step, job, degraded ? ERR_HEARTBEAT_MISSED : ERR_HEARTBEAT_BACK, who);
}

/* -- cancel ---------------------------------------------------------------------------------- */

static int cancel_ended(const struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct uuid *uid = &step->event->cancel.job;
    const struct ended *ended = map_get(&step->world->ended_by_uid, uid, sizeof(*uid));

    if (ended == NULL || !auth_sees_project(token, ended->project))
        return err_set(&reply->err, ERR_NOT_FOUND, "no such job");
    reply->object = *uid;
    return err_set(&reply->err, ERR_ALREADY_TERMINAL, "the job has ended");
}

int command_cancel(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct uuid *uid = &step->event->cancel.job;
    struct job *job = map_get(&step->world->job_by_uid, uid, sizeof(*uid));
    static const struct cause cause = {.reason = ERR_CANCELLED_BY_USER};

    if (job == NULL)
        return cancel_ended(step, token, reply);
    if (!auth_sees_project(token, job->row.project))
        return err_set(&reply->err, ERR_NOT_FOUND, "no such job");
    reply->object = *uid;
    if (job->row.state == JOB_STOPPING) /* it ends already, and keeps its reason */
        return 0;
    if (job->attempt != NULL)
        attempt_stop(step, job->attempt, JOB_CANCELLED, &cause);
    else
        job_move(step, job, JOB_CANCELLED, &cause);
    return 0;
}

/* -- outputs --------------------------------------------------------------------------------- */

int command_output(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_output *output = &step->event->output;
    const struct uuid *uid = &output->attempt;
    struct attempt *attempt = map_get(&step->world->attempt_by_uid, uid, sizeof(*uid));

    if (token != NULL && token->role != ROLE_GATEWAY)
        return err_set(&reply->err, ERR_SCOPE_MISSING, "only gateways store outputs");
    if (attempt == NULL || output->rank >= attempt->rank_count
        || rank_is_final(attempt->rank[output->rank]))
        return err_set(&reply->err, ERR_NOT_FOUND, "no such live rank");
    if (output->path == NULL || output->path[0] == '\0' || strlen(output->path) >= SPEC_PATH_TEXT)
        return err_set_at(&reply->err, ERR_MOUNT_NOT_ALLOWED, "/path", "no such path");
    struct row row = {.kind = ROW_JOB_OUTPUT,
                      .job_output = {.job = attempt->row.job,
                                     .attempt = attempt->row.id,
                                     .rank = output->rank,
                                     .size = output->size,
                                     .stored_us = step->now}};
    memcpy(row.job_output.path, output->path, strlen(output->path));
    memcpy(row.job_output.sha256, output->sha256, sizeof(row.job_output.sha256));
    reply->object = attempt->job->row.uid;
    const struct job_output_row *old = output_find(step->world, &row.job_output);
    if (old != NULL && memcmp(old->sha256, output->sha256, sizeof(old->sha256)) == 0)
        return 0;
    if (old == NULL && output_count(step->world, attempt->row.id, output->rank) >= SPEC_MAX_OUTPUTS)
        return err_set(&reply->err, ERR_TOO_MANY, "%u outputs per rank", SPEC_MAX_OUTPUTS);
    row.job_output.id = old != NULL ? old->id : step_id(step);
    step_emit(step, &row);
    return 0;
}

/* -- time ------------------------------------------------------------------------------------ */

static usec_t queue_end_us(const struct job *job)
{
    if (job->row.state != JOB_QUEUED || job->ask.queue_timeout_us == 0
        || job->ask.queue_timeout_us > INT64_MAX / 2)
        return 0;
    return job->row.queued_us + (usec_t)job->ask.queue_timeout_us;
}

usec_t job_due(const struct job *job)
{
    usec_t due = queue_end_us(job);

    if (job->row.state == JOB_QUEUED) {
        due = usec_sooner(due, job->row.not_before_us);
        due = usec_sooner(due, job->retry_us);
    }
    return due;
}

void job_act(struct step *step, struct job *job)
{
    usec_t end = queue_end_us(job);

    if (end != 0 && end <= step->now) {
        job_move(step, job, JOB_EXPIRED, &(struct cause){.reason = ERR_QUEUE_TIMEOUT});
        return;
    }
    if (job->row.not_before_us != 0 && job->row.not_before_us <= step->now) {
        struct row row = {.kind = ROW_JOB, .job = job->row};
        row.job.not_before_us = 0;
        step_emit(step, &row);
    }
    job->retry_us = 0;
    job->tried = 0; /* the next queue pass tries it */
}
