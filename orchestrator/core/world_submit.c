#include <string.h>

#include "common/pure/id.h"
#include "orchestrator/core/place_private.h"
#include "orchestrator/core/world_private.h"

#define US_PER_MS 1000u

/* Price per hour of the cheapest gang that the pool could give if it were idle and measured. */
static bool cheapest_price(const struct step *step, const struct job_ask *ask, micro_t *ret_price)
{
    struct fleet_view view;
    struct place_pool pool;
    struct place_gang gang;
    static const struct place_rules idle = {
        .ignore_busy = true, .unmeasured_ok = true, .any_reach = true};

    fleet_view_init(&view, step->world, step->now, step->policy);
    place_pool_init(&pool, &view.fleet, ask, idle);
    bool found = place_search(&pool, &gang);
    place_pool_fini(&pool);
    fleet_view_fini(&view);
    *ret_price = gang.price;
    return found;
}

/* What a submission holds. The tenant's own figure goes first, then his ceiling, then our guess. */
static int hold_amount(const struct step *step, const struct job_ask *ask, micro_t *ret_hold,
                       struct err *err)
{
    uint64_t ms = ask->max_duration_us / US_PER_MS;
    micro_t price;

    if (ask->max_total > 0) {
        *ret_hold = ask->max_total;
        return 0;
    }
    if (ask->max_price > 0) {
        micro_t devices = (micro_t)ask->nodes * ask->gpus_per_node;
        BUG_ON(devices <= 0);
        price = ask->max_price > MICRO_MAX / devices ? MICRO_MAX : ask->max_price * devices;
    } else if (!cheapest_price(step, ask, &price)) {
        return err_set_at(err, ERR_FIELD_MISSING, "/budget",
                          "nothing in the pool to estimate a price from: name budget.max_total "
                          "or budget.max_price");
    }
    *ret_hold = money_hold(price, ms);
    return 0;
}

/* One pool, one money: a figure in another one would be held as if it were this one. */
static int check_currency(const struct step *step, const char *currency, struct err *err)
{
    if (currency == NULL || strcmp(currency, step->policy->asset) == 0)
        return 0;
    return err_set_at(err, ERR_INVALID_AMOUNT, "/budget/currency", "this pool's money is %s",
                      step->policy->asset);
}

/* Where the job would run now; "no" is an answer too, and stands in why. */
static int solve_now(const struct step *step, const struct job_ask *ask, struct why *why)
{
    struct fleet_view view;

    fleet_view_init(&view, step->world, step->now, step->policy);
    int rc = place_solve(&view.fleet, ask, NULL, why, NULL, NULL);
    fleet_view_fini(&view);
    BUG_ON((rc == 0) != why->placed);
    return rc;
}

static int check_fail_fast(const struct step *step, const struct job_ask *ask, struct err *err)
{
    struct why why;

    if (!ask->fail_fast || solve_now(step, ask, &why) == 0)
        return 0;
    return err_set_at(err, why.code, "/fail_fast", "%s", why.detail);
}

static int check_ask(const struct job_ask *ask, struct err *err)
{
    if (ask == NULL || ask->nodes == 0 || ask->nodes > SPEC_MAX_NODES || ask->gpus_per_node == 0
        || ask->gpus_per_node > SPEC_MAX_GPUS_PER_NODE || ask->model_count > SPEC_MAX_MODELS
        || ask->country_count > SPEC_MAX_COUNTRIES || ask->excluded_count > SPEC_MAX_EXCLUDED)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/resources", "out of bounds");
    if (ask->max_duration_us == 0 || ask->max_attempts == 0)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/max_duration", "must be above 0");
    return 0;
}

static int check_contents(const struct project *project, const struct ev_submit *submit,
                          struct err *err)
{
    char hex[65];

    for (uint32_t i = 0; i < submit->content_count; i++) {
        const uint8_t *hash = submit->contents[i];
        if (map_get(&project->contents, hash, 32) == NULL)
            return err_set_at(err, ERR_INPUT_UNAVAILABLE, "/files",
                              "content %s was not uploaded to this project",
                              hex_format(hash, 32, hex));
    }
    return 0;
}

/* Nothing is held when this fails. */
static int hold_for(struct step *step, const struct project *project, micro_t hold, uint64_t job,
                    uint64_t *ret_transfer, struct reply *reply)
{
    const struct account_row *available =
        account_find(step->world, project->row.id, 0, PURPOSE_AVAILABLE, step->policy->asset);
    micro_t balance = available != NULL ? available->balance : 0;
    char missing[MONEY_TEXT];
    char needed[MONEY_TEXT];

    *ret_transfer = 0;
    if (balance < hold) {
        reply->amount = hold - balance;
        return err_set_at(&reply->err, ERR_INSUFFICIENT_FUNDS, "/budget",
                          "the job needs %s, %s are missing", money_format(hold, needed),
                          money_format(reply->amount, missing));
    }
    if (hold == 0)
        return 0;
    *ret_transfer =
        money_post(step, &(struct posting){
                             .debit = available,
                             .credit = account_need(step, project->row.id, 0, PURPOSE_ESCROW),
                             .amount = hold,
                             .kind = TRANSFER_HOLD,
                             .job = job,
                         });
    return 0;
}

static void emit_job(struct step *step, const struct token_row *token,
                     const struct project *project, uint64_t id, micro_t hold, uint64_t transfer)
{
    const struct ev_submit *submit = &step->event->submit;
    struct row row = {
        .kind = ROW_JOB,
        .job = {.id = id,
                .uid = submit->uid,
                .project = project->row.id,
                .token = token != NULL ? token->id : 0,
                .state = JOB_QUEUED,
                .ask = submit->ask,
                .spec = submit->spec,
                .held = hold,
                .hold = transfer,
                .policy_version = step->policy->version,
                .created_us = step->now,
                .queued_us = step->now,
                .state_us = step->now},
    };
    memcpy(row.job.name, submit->name, strlen(submit->name));
    memcpy(row.job.spec_sha256, submit->spec_sha256, sizeof(row.job.spec_sha256));
    step_emit(step, &row);
    step_emit(step, &(struct row){.kind = ROW_JOB_EVENT,
                                  .job_event = {.id = step_id(step),
                                                .job = id,
                                                .at_us = step->now,
                                                .from_state = JOB_STATE_COUNT,
                                                .to_state = JOB_QUEUED,
                                                .actor = ERR_ACTOR_TENANT}});
}

int command_submit(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_submit *submit = &step->event->submit;
    struct project *project = NULL;
    micro_t hold = 0;
    uint64_t transfer = 0;

    int rc = auth_project(step, token, submit->project, &project, &reply->err);
    if (rc < 0)
        return rc;
    if (!name_fits(submit->name) || submit->spec == NULL)
        return err_set_at(&reply->err, ERR_INVALID_NAME, "/name", "1-63 characters");
    rc = check_ask(submit->ask, &reply->err);
    if (rc < 0)
        return rc;
    if (project->live_jobs >= WORLD_MAX_JOBS_PER_PROJECT)
        return err_set(&reply->err, ERR_TOO_MANY, "%u jobs wait or run",
                       WORLD_MAX_JOBS_PER_PROJECT);
    rc = check_currency(step, submit->currency, &reply->err);
    if (rc < 0)
        return rc;
    rc = check_contents(project, submit, &reply->err);
    if (rc < 0)
        return rc;
    rc = check_fail_fast(step, submit->ask, &reply->err);
    if (rc < 0)
        return rc;
    rc = hold_amount(step, submit->ask, &hold, &reply->err);
    if (rc < 0)
        return rc;
    uint64_t id = step_id(step);
    rc = hold_for(step, project, hold, id, &transfer, reply);
    if (rc < 0)
        return rc;
    emit_job(step, token, project, id, hold, transfer);
    reply->object = submit->uid;
    reply->amount = hold;
    return 0;
}

int command_plan(struct step *step, const struct token_row *token, struct reply *reply)
{
    const struct ev_plan *plan = &step->event->plan;
    struct project *project = NULL;
    struct err ignored;

    if (plan->project != NULL && plan->project[0] != '\0') {
        int rc = auth_project(step, token, plan->project, &project, &reply->err);
        if (rc < 0)
            return rc;
    }
    int rc = check_ask(plan->ask, &reply->err);
    if (rc < 0)
        return rc;
    rc = check_currency(step, plan->currency, &reply->err);
    if (rc < 0)
        return rc;
    struct why *why = out_alloc(step->out, sizeof(*why));
    int placed = solve_now(step, plan->ask, why);
    if (hold_amount(step, plan->ask, &reply->amount, &ignored) < 0)
        reply->amount = 0;
    reply->why = why;
    struct earliest *earliest = out_alloc(step->out, sizeof(*earliest));
    if (placed != 0 && plan_earliest(step, plan->ask, earliest))
        reply->earliest = earliest;
    return 0;
}
