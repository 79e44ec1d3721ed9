/* Who owes whom: holds, meters, settlement, refunds. Figures are exact to the micro-unit. */
#include "tests/unit/core/support_cmocka.h"

#include <string.h>

#include "tests/support/world/bench.h"

static struct bench bench;

static int setup(void **state)
{
    (void)state;
    bench_init(&bench);
    return 0;
}

static int teardown(void **state)
{
    struct err err = {0};

    (void)state;
    if (shadow_check_money(&bench.shadow, &err) < 0)
        fail_msg("%s", err.text);
    bench_fini(&bench);
    return 0;
}

#define U BENCH_UNIT

static void assert_money(micro_t available, micro_t escrow, micro_t earned, micro_t fees)
{
    assert_int_equal(bench_balance(&bench, PURPOSE_AVAILABLE), available);
    assert_int_equal(bench_balance(&bench, PURPOSE_ESCROW), escrow);
    assert_int_equal(bench_balance(&bench, PURPOSE_EARNED), earned);
    assert_int_equal(bench_balance(&bench, PURPOSE_FEES), fees);
}

static struct uuid running(uint32_t nodes)
{
    for (uint32_t i = 0; i < nodes; i++)
        bench_node(&bench, 1, 24576);
    bench_mesh(&bench, 0, 500);
    struct uuid job = bench_submit(&bench, nodes, 1).object;
    bench_run(&bench, &job);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    return job;
}

static void test_hold_by_total_by_ceiling_by_plan(void **state)
{
    (void)state;
    struct reply reply = bench_submit(&bench, 2, 2);
    assert_int_equal(reply.amount, 10 * U);
    bench.ask.max_total = 0;
    bench.ask.max_price = 3 * U;
    reply = bench_submit(&bench, 2, 2);
    assert_int_equal(reply.amount, 12 * U); /* 4 devices x 3 x 1 h */
    bench.ask.max_price = 0;
    reply = bench_submit(&bench, 2, 2);
    assert_int_equal(reply.err.code, ERR_FIELD_MISSING);
    assert_string_equal(reply.err.pointer, "/budget");
    bench_node(&bench, 2, 24576);
    bench_node(&bench, 2, 24576);
    reply = bench_submit(&bench, 2, 2); /* links unmeasured: the price is known all the same */
    assert_int_equal(reply.err.code, ERR_NONE);
    assert_int_equal(reply.amount, 4 * U);
    assert_money(974 * U, 26 * U, 0, 0);
}

static void test_not_enough_money_holds_nothing(void **state)
{
    (void)state;
    bench.ask.max_total = 1000 * U + 1;
    struct reply reply = bench_submit(&bench, 1, 1);
    assert_int_equal(reply.err.code, ERR_INSUFFICIENT_FUNDS);
    assert_int_equal(reply.amount, 1);
    for (uint32_t i = 0; i < bench.out.row_count; i++)
        assert_int_equal(bench.out.rows[i].kind, ROW_CONTROL);
    assert_money(1000 * U, 0, 0, 0);
    bench.ask.max_total = 1000 * U;
    assert_int_equal(bench_submit(&bench, 1, 1).err.code, ERR_NONE);
    assert_money(0, 1000 * U, 0, 0);
}

static void test_bill_is_metered_and_signed_time(void **state)
{
    (void)state;
    struct uuid job = running(1);
    bench_wait(&bench, 90 * BENCH_SECOND);
    assert_money(990 * U, 10 * U, 0, 0);  /* no receipt yet: nothing is billed */
    bench_receipt(&bench, 0, &job, 3600); /* the worker says less than our clock */
    bench_wait(&bench, 60 * BENCH_SECOND);
    assert_money(990 * U, 10 * U - 1000, 950, 50); /* 3.6 s at 1/h; 5 % fee */
    bench_receipt(&bench, 0, &job, 99999999);      /* more than our clock: it cannot raise it */
    bench_wait(&bench, 30 * BENCH_SECOND);
    bench_all(&bench, &job, TASK_EXITED, 0);
    bench_wait(&bench, 300 * BENCH_SECOND); /* outputs on their way cost nothing */
    bench_all(&bench, &job, TASK_DONE, 0);
    micro_t bill = 180 * U / 3600;
    assert_money(1000 * U - bill, 0, bill - bill / 20, bill / 20);
    assert_int_equal(bench_job_row(&bench, &job)->charged, bill);
}

static void test_last_receipt_after_exit_counts(void **state)
{
    (void)state;
    struct uuid job = running(1);
    bench.now += 36 * BENCH_SECOND;
    bench_all(&bench, &job, TASK_EXITED, 0);
    assert_money(990 * U, 10 * U, 0, 0);
    bench_receipt(&bench, 0, &job, 36000);
    assert_money(990 * U, 10 * U - 10000, 9500, 500);
    bench_all(&bench, &job, TASK_DONE, 0);
    assert_money(1000 * U - 10000, 0, 9500, 500);
}

static void test_receipts_twice_bill_once(void **state)
{
    (void)state;
    struct uuid job = running(1);
    bench.now += 36 * BENCH_SECOND;
    bench_receipt(&bench, 0, &job, 36000);
    bench_receipt(&bench, 0, &job, 18000); /* late and lower */
    bench_all(&bench, &job, TASK_EXITED, 0);
    bench_receipt(&bench, 0, &job, 36000);
    bench_all(&bench, &job, TASK_DONE, 0);
    assert_money(1000 * U - 10000, 0, 9500, 500);
}

/* Thirds of a micro-unit: cumulative flooring neither drifts nor loses. */
static void test_rounding_never_drifts(void **state)
{
    (void)state;
    struct node_claim claim = bench_claim(0, 1, 24576);
    claim.price = 333333;
    bench_enrol(&bench, &claim);
    bench_hello(&bench, 0, &claim);
    bench_selftest(&bench, 0, 0, true, 24576);
    struct uuid job = bench_submit(&bench, 1, 1).object;
    bench_run(&bench, &job);
    for (int i = 1; i <= 50; i++) {
        bench_receipt(&bench, 0, &job, (uint64_t)i * 7001);
        bench_wait(&bench, 7001000);
    }
    bench_receipt(&bench, 0, &job, 999999999);
    bench_all(&bench, &job, TASK_DONE, 0);
    micro_t bill = money_bill(333333, 50 * 7001);
    assert_int_equal(bench_job_row(&bench, &job)->charged, bill);
    assert_int_equal(bench_balance(&bench, PURPOSE_FEES), money_share(bill, 50000));
}

static void test_user_failure_pays_use(void **state)
{
    (void)state;
    struct uuid job = running(2);
    bench.now += 36 * BENCH_SECOND;
    bench_receipt(&bench, 0, &job, 36000);
    bench_receipt(&bench, 1, &job, 36000);
    bench_task(&bench, bench_job(&bench, &job)->attempt->rank[1], TASK_EXITED, 1);
    bench_all(&bench, &job, TASK_DONE, 143);
    assert_int_equal(bench_job_row(&bench, &job)->state, JOB_FAILED);
    assert_money(1000 * U - 20000, 0, 19000, 1000);
}

static void test_lost_node_refunds_and_holds_again(void **state)
{
    (void)state;
    struct uuid job = running(2);
    bench_receipt(&bench, 0, &job, 60000);
    bench_receipt(&bench, 1, &job, 60000);
    bench_wait(&bench, 61 * BENCH_SECOND);
    assert_true(bench_balance(&bench, PURPOSE_EARNED) > 0);
    bench_node_event(&bench, EV_NODE_SILENT, 1);
    bench_wait(&bench, 121 * BENCH_SECOND);
    bench_all(&bench, &job, TASK_DONE, 143);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_QUEUED);
    assert_money(990 * U, 10 * U, 0, 0); /* whole budget again for the next attempt */
    assert_int_equal(bench_job(&bench, &job)->row.held, 10 * U);
    assert_int_equal(bench_job(&bench, &job)->row.charged, 0);
    bench_cancel(&bench, &job);
    assert_money(1000 * U, 0, 0, 0);
}

static void test_cancel_after_loss_still_pays_nothing(void **state)
{
    (void)state;
    struct uuid job = running(2);
    bench_receipt(&bench, 0, &job, 60000);
    bench_wait(&bench, 61 * BENCH_SECOND);
    bench_node_event(&bench, EV_NODE_SILENT, 1);
    bench_wait(&bench, 121 * BENCH_SECOND);
    bench_cancel(&bench, &job);
    bench_all(&bench, &job, TASK_DONE, 143);
    assert_int_equal(bench_job_row(&bench, &job)->state, JOB_CANCELLED);
    assert_money(1000 * U, 0, 0, 0);
}

static void test_budget_low_then_spent(void **state)
{
    (void)state;
    bench.ask.max_total = 100000; /* 0.1: six minutes at 1/h */
    struct uuid job = running(1);
    bench_receipt(&bench, 0, &job, 999999999);
    bench_wait(&bench, 300 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.conditions, 0);
    bench_wait(&bench, 59 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.state, JOB_RUNNING);
    bench_wait(&bench, 2 * BENCH_SECOND);
    const struct job_row *row = bench_job_row(&bench, &job);
    assert_int_equal(row->state, JOB_STOPPING);
    assert_int_equal(row->reason, ERR_BUDGET_SPENT);
    bench_all(&bench, &job, TASK_DONE, 143);
    row = bench_job_row(&bench, &job);
    assert_int_equal(row->state, JOB_EXPIRED);
    assert_true(row->charged <= 100000);
    assert_true(row->charged >= 99990);
}

static void test_budget_low_is_told_once(void **state)
{
    (void)state;
    bench.ask.max_total = 100000;
    bench.ask.max_duration_us = 10 * 3600 * 1000000ull;
    bench.policy.settle_every_us = 5 * BENCH_SECOND;
    struct uuid job = running(1);
    bench_wait(&bench, 320 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.conditions, 0);
    bench_wait(&bench, 10 * BENCH_SECOND);
    assert_int_equal(bench_job(&bench, &job)->row.conditions, JOB_BUDGET_LOW);
    uint32_t told = 0;
    bench_wait(&bench, 20 * BENCH_SECOND);
    for (uint32_t i = 0; i < bench.shadow.count; i++) {
        const struct row *row = &bench.shadow.rows[i];
        told += row->kind == ROW_JOB_EVENT && row->job_event.reason == ERR_BUDGET_SPENT;
    }
    assert_int_equal(told, 1);
}

static void test_free_machine_needs_no_money(void **state)
{
    (void)state;
    struct node_claim claim = bench_claim(0, 1, 24576);
    claim.price = 0;
    bench_enrol(&bench, &claim);
    bench_hello(&bench, 0, &claim);
    bench_selftest(&bench, 0, 0, true, 24576);
    bench.ask.max_total = 0;
    struct reply reply = bench_submit(&bench, 1, 1);
    assert_int_equal(reply.err.code, ERR_NONE);
    assert_int_equal(reply.amount, 0);
    bench_run(&bench, &reply.object);
    bench_receipt(&bench, 0, &reply.object, 999999);
    bench_wait(&bench, 600 * BENCH_SECOND);
    bench_all(&bench, &reply.object, TASK_DONE, 0);
    assert_int_equal(bench_job_row(&bench, &reply.object)->state, JOB_SUCCEEDED);
    assert_money(1000 * U, 0, 0, 0);
}

static void test_price_is_frozen_in_the_lease(void **state)
{
    (void)state;
    struct uuid job = running(1);
    struct event event = {.kind = EV_NODE_SET};
    event.node_set =
        (struct ev_node_set){.id = bench.node[0], .verb = NODE_SET_PRICE, .price = 100 * U};
    bench_step(&bench, &event);
    assert_int_equal(world_node(bench.world, bench.node[0])->price, 100 * U);
    bench.now += 36 * BENCH_SECOND;
    bench_receipt(&bench, 0, &job, 36000);
    bench_all(&bench, &job, TASK_DONE, 0);
    assert_int_equal(bench_job_row(&bench, &job)->charged, 10000);
}

static void test_deposits(void **state)
{
    (void)state;
    struct event event = {.kind = EV_DEPOSIT,
                          .deposit = {.project = "lab", .asset = "USD", .amount = 5}};
    struct event copy = event;
    assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, ERR_SCOPE_MISSING);
    event = copy;
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NONE);
    assert_money(1000 * U + 5, 0, 0, 0);
    event = copy;
    event.deposit.amount = 0;
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_INVALID_AMOUNT);
    event = copy;
    memcpy(event.deposit.asset, "EUR", 4);
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_OUT_OF_RANGE);
    event = copy;
    event.deposit.project = "nobody";
    assert_int_equal(bench_command(&bench, &event, bench.operator_).err.code, ERR_NOT_FOUND);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_hold_by_total_by_ceiling_by_plan),
        CASE(test_not_enough_money_holds_nothing),
        CASE(test_bill_is_metered_and_signed_time),
        CASE(test_last_receipt_after_exit_counts),
        CASE(test_receipts_twice_bill_once),
        CASE(test_rounding_never_drifts),
        CASE(test_user_failure_pays_use),
        CASE(test_lost_node_refunds_and_holds_again),
        CASE(test_cancel_after_loss_still_pays_nothing),
        CASE(test_budget_low_then_spent),
        CASE(test_budget_low_is_told_once),
        CASE(test_free_machine_needs_no_money),
        CASE(test_price_is_frozen_in_the_lease),
        CASE(test_deposits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
