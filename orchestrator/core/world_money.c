/* Accounts, transfers, meters. Amounts are micro-units; every cumulative value is floored once. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/core/world_private.h"

__extension__ typedef unsigned __int128 wide_t;

#define MS_PER_HOUR 3600000u
#define US_PER_MS   1000

const struct account_row *account_need(struct step *step, uint64_t project, uint64_t provider,
                                       enum account_purpose purpose)
{
    const char *asset = step->policy->asset;
    const struct account_row *found = account_find(step->world, project, provider, purpose, asset);

    if (found != NULL)
        return found;
    struct row row = {.kind = ROW_ACCOUNT,
                      .account = {.id = step_id(step),
                                  .uid = step_uuid(step),
                                  .project = project,
                                  .provider = provider,
                                  .purpose = purpose}};
    memcpy(row.account.asset, asset, sizeof(row.account.asset));
    step_emit(step, &row);
    return account_find(step->world, project, provider, purpose, asset);
}

static void account_add(struct step *step, const struct account_row *account, micro_t amount)
{
    struct row row = {.kind = ROW_ACCOUNT, .account = *account};

    BUG_ON(__builtin_add_overflow(row.account.balance, amount, &row.account.balance));
    BUG_ON(row.account.balance < 0 && row.account.purpose != PURPOSE_EXTERNAL);
    step_emit(step, &row);
}

uint64_t money_post(struct step *step, const struct posting *posting)
{
    BUG_ON(posting->amount < 0 || posting->debit == posting->credit);
    if (posting->amount == 0)
        return 0;
    struct row row = {.kind = ROW_TRANSFER,
                      .transfer = {.id = step_id(step),
                                   .debit = posting->debit->id,
                                   .credit = posting->credit->id,
                                   .amount = posting->amount,
                                   .kind = posting->kind,
                                   .job = posting->job,
                                   .lease = posting->lease,
                                   .hold = posting->hold,
                                   .at_us = step->now}};
    memcpy(row.transfer.asset, posting->debit->asset, sizeof(row.transfer.asset));
    if (posting->memo != NULL)
        snprintf(row.transfer.memo, sizeof(row.transfer.memo), "%s", posting->memo);
    step_emit(step, &row);
    account_add(step, posting->debit, -posting->amount);
    account_add(step, posting->credit, posting->amount);
    return row.transfer.id;
}

/* -- meters ---------------------------------------------------------------------------------- */

bool class_pays(enum fail_class class)
{
    return class == FAIL_NONE || class == FAIL_USER || class == FAIL_INTERRUPTION;
}

static uint64_t lease_clock_ms(const struct lease_row *lease, usec_t now)
{
    if (lease->meter_from_us == 0)
        return 0;
    usec_t to = lease->meter_to_us != 0 ? lease->meter_to_us : now;
    return to <= lease->meter_from_us ? 0 : (uint64_t)(to - lease->meter_from_us) / US_PER_MS;
}

/* The most milliseconds whose bill is not above the amount. */
static uint64_t affordable_ms(micro_t price, micro_t amount)
{
    wide_t ms = (((wide_t)(uint64_t)amount + 1) * MS_PER_HOUR - 1) / (uint64_t)price;

    return ms > UINT64_MAX ? UINT64_MAX : (uint64_t)ms;
}

static void charge(struct step *step, struct job *job, struct lease *lease, micro_t earn,
                   micro_t fee)
{
    if (earn + fee == 0) /* a free machine; its project may have no account at all */
        return;
    struct posting posting = {
        .debit = account_need(step, job->row.project, 0, PURPOSE_ESCROW),
        .credit = account_need(step, 0, lease->row.provider, PURPOSE_EARNED),
        .amount = earn,
        .kind = TRANSFER_EARN,
        .job = job->row.id,
        .lease = lease->row.id,
        .hold = job->row.hold,
    };

    money_post(step, &posting);
    posting.credit = account_need(step, 0, 0, PURPOSE_FEES);
    posting.amount = fee;
    posting.kind = TRANSFER_FEE;
    money_post(step, &posting);
}

/* Bill = min(our clock, what the worker signed), within what the escrow still holds. */
void lease_settle(struct step *step, struct lease *lease)
{
    struct rank *rank = table_get(&step->world->ranks, lease->row.rank);
    struct job *job = rank->attempt->job;
    uint64_t ms = lease_clock_ms(&lease->row, step->now);
    micro_t before = lease->row.earned + lease->row.fee;

    if (ms > lease->row.receipt_ms)
        ms = lease->row.receipt_ms;
    if (lease->row.price > 0) {
        uint64_t limit = affordable_ms(lease->row.price, before + job->row.held);
        if (ms > limit)
            ms = limit;
    }
    if (ms <= lease->row.billed_ms || lease->row.ended_us != 0)
        return;
    struct row row = {.kind = ROW_LEASE, .lease = lease->row};
    micro_t bill = money_bill(lease->row.price, ms);
    row.lease.billed_ms = ms;
    row.lease.fee = money_share(bill, lease->row.fee_ppm);
    row.lease.earned = bill - row.lease.fee;
    micro_t earn = row.lease.earned - lease->row.earned;
    micro_t fee = row.lease.fee - lease->row.fee;
    charge(step, job, lease, earn, fee);
    step_emit(step, &row);
    if (earn + fee == 0)
        return;
    struct row paid = {.kind = ROW_JOB, .job = job->row};
    paid.job.held -= earn + fee;
    paid.job.charged += earn + fee;
    step_emit(step, &paid);
}

micro_t attempt_clock_bill(const struct attempt *attempt, usec_t now)
{
    micro_t bill = 0;

    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct lease_row *lease = &attempt->rank[i]->lease->row;
        bill += money_bill(lease->price, lease_clock_ms(lease, now));
    }
    return bill;
}

static micro_t attempt_charged(const struct attempt *attempt)
{
    micro_t charged = 0;

    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct lease_row *lease = &attempt->rank[i]->lease->row;
        charged += lease->earned + lease->fee;
    }
    return charged;
}

usec_t attempt_broke_us(const struct attempt *attempt)
{
    micro_t left = attempt->job->row.held + attempt_charged(attempt);
    micro_t rate = 0;

    if (attempt->row.state != ATTEMPT_RUNNING)
        return 0;
    for (uint32_t i = 0; i < attempt->rank_count; i++) {
        const struct lease_row *lease = &attempt->rank[i]->lease->row;
        if (lease->meter_to_us != 0)
            left -= money_bill(lease->price, lease_clock_ms(lease, 0));
        else
            rate += lease->price;
    }
    if (rate == 0)
        return 0;
    if (left <= 0)
        return attempt->row.running_us;
    wide_t us = (wide_t)(uint64_t)left * MS_PER_HOUR * US_PER_MS / (uint64_t)rate;
    /* Beyond a century it never ends. */
    if (us > (wide_t)100 * 366 * 86400 * 1000000)
        return 0;
    return attempt->row.running_us + (usec_t)us;
}

#define BUDGET_LOW_PCT 90

static void warn_budget(struct step *step, struct attempt *attempt)
{
    struct job *job = attempt->job;
    micro_t whole = job->row.held + job->row.charged;
    micro_t used =
        job->row.charged - attempt_charged(attempt) + attempt_clock_bill(attempt, step->now);

    if ((job->row.conditions & JOB_BUDGET_LOW) != 0 || whole == 0
        || used < whole / 100 * BUDGET_LOW_PCT)
        return;
    struct row row = {.kind = ROW_JOB, .job = job->row};
    row.job.conditions |= JOB_BUDGET_LOW;
    step_emit(step, &row);
    job_note(step, job, ERR_BUDGET_SPENT, "90 % of the escrow is used");
}

void attempt_settle(struct step *step, struct attempt *attempt)
{
    attempt->settled_us = step->now;
    if (!class_pays(attempt->row.class))
        return;
    for (uint32_t i = 0; i < attempt->rank_count; i++)
        lease_settle(step, attempt->rank[i]->lease);
    warn_budget(step, attempt);
}

/* -- the ends -------------------------------------------------------------------------------- */

static void hold_again(struct step *step, struct job *job, micro_t amount)
{
    struct posting posting = {
        .debit = account_need(step, job->row.project, 0, PURPOSE_AVAILABLE),
        .credit = account_need(step, job->row.project, 0, PURPOSE_ESCROW),
        .amount = amount,
        .kind = TRANSFER_HOLD,
        .job = job->row.id,
        .hold = job->row.hold,
        .memo = "refunded, held for the next attempt",
    };

    if (money_post(step, &posting) == 0)
        return;
    struct row row = {.kind = ROW_JOB, .job = job->row};
    row.job.held += amount;
    step_emit(step, &row);
}

static micro_t lease_refund(struct step *step, struct job *job, struct lease *lease)
{
    struct row row = {.kind = ROW_LEASE, .lease = lease->row};
    micro_t amount = lease->row.earned + lease->row.fee;
    struct posting posting = {
        .debit = account_need(step, 0, lease->row.provider, PURPOSE_EARNED),
        .credit = account_need(step, job->row.project, 0, PURPOSE_AVAILABLE),
        .amount = lease->row.earned,
        .kind = TRANSFER_REFUND,
        .job = job->row.id,
        .lease = lease->row.id,
        .hold = job->row.hold,
    };

    if (amount == 0)
        return 0;
    money_post(step, &posting);
    posting.debit = account_need(step, 0, 0, PURPOSE_FEES);
    posting.amount = lease->row.fee;
    money_post(step, &posting);
    row.lease.earned = 0;
    row.lease.fee = 0;
    step_emit(step, &row);
    return amount;
}

void attempt_refund(struct step *step, struct attempt *attempt, bool again)
{
    struct job *job = attempt->job;
    micro_t amount = 0;

    for (uint32_t i = 0; i < attempt->rank_count; i++)
        amount += lease_refund(step, job, attempt->rank[i]->lease);
    if (amount == 0)
        return;
    struct row row = {.kind = ROW_JOB, .job = job->row};
    row.job.charged -= amount;
    step_emit(step, &row);
    if (again)
        hold_again(step, job, amount);
}

void job_release(struct step *step, struct job *job)
{
    struct row row = {.kind = ROW_JOB, .job = job->row};

    if (job->row.held == 0)
        return;
    money_post(step, &(struct posting){
                         .debit = account_need(step, job->row.project, 0, PURPOSE_ESCROW),
                         .credit = account_need(step, job->row.project, 0, PURPOSE_AVAILABLE),
                         .amount = job->row.held,
                         .kind = TRANSFER_RELEASE,
                         .job = job->row.id,
                         .hold = job->row.hold,
                     });
    row.job.held = 0;
    step_emit(step, &row);
}
