/* A job's life, from the queue to its end, in every way it can take. */
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

/* n nodes near each other, and a gang over all of them, submitted. */
static struct uuid gang(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        bench_node(&bench, 2, 24576);
    bench_mesh(&bench, 0, 800);
    struct reply reply = bench_submit(&bench, n, 2);
    assert_int_equal(reply.err.code, ERR_NONE);
    return reply.object;
}

static void assert_state(const struct uuid *uid, enum job_state state, enum err_code reason)
{
    const struct job_row *row = bench_job_row(&bench, uid);

    assert_string_equal(job_state_name(row->state), job_state_name(state));
    assert_string_equal(err_slug(row->reason), err_slug(reason));
}

static const struct rank *rank_of(const struct uuid *uid, uint32_t number)
{
    return bench_job(&bench, uid)->attempt->rank[number];
}

static void test_success(void **state)
{
    (void)state;
    struct uuid job = gang(3);
    bench_schedule(&bench);
    assert_state(&job, JOB_PREPARING, ERR_NONE);
    assert_int_equal(bench_orders(&bench, ORDER_PREPARE, 0), 3);
    bench_all(&bench, &job, TASK_PREPARING, 0);
    bench_task(&bench, rank_of(&job, 0), TASK_READY, 0);
    bench_task(&bench, rank_of(&job, 1), TASK_READY, 0);
    assert_int_equal(bench_orders(&bench, ORDER_GO, 0), 0); /* the barrier is shut */
    bench_task(&bench, rank_of(&job, 2), TASK_READY, 0);
    assert_int_equal(bench_orders(&bench, ORDER_GO, 0), 3);
    assert_state(&job, JOB_STARTING, ERR_NONE);
    const struct order *go = &bench.out.effects[0].order;
    assert_int_equal(go->peer_count, 3);
    assert_int_equal(go->peers[2].port, 20002);
    assert_int_equal(go->pair_us[1], 800);
    assert_int_equal(go->pair_us[4], 0);
    bench_all(&bench, &job, TASK_STARTED, 0);
    assert_state(&job, JOB_RUNNING, ERR_NONE);
    bench_all(&bench, &job, TASK_EXITED, 0);
    assert_state(&job, JOB_STOPPING, ERR_COMPLETED);
    bench_all(&bench, &job, TASK_DONE, 0);
    assert_state(&job, JOB_SUCCEEDED, ERR_COMPLETED);
    assert_null(bench_job(&bench, &job));
    assert_int_equal(bench_balance(&bench, PURPOSE_ESCROW), 0);
}

static void test_failing_rank_stops_the_others_at_once(void **state)
{
    (void)state;
    struct uuid job = gang(3);
    bench_run(&bench, &job);
    bench_task(&bench, rank_of(&job, 1), TASK_EXITED, 7);
    assert_int_equal(bench_orders(&bench, ORDER_STOP, 0), 2);
    assert_state(&job, JOB_STOPPING, ERR_RANK_FAILED);
    bench_all(&bench, &job, TASK_EXITED, 143);
    bench_all(&bench, &job, TASK_DONE, 143);
    assert_state(&job, JOB_FAILED, ERR_RANK_FAILED);
    const struct job_row *row = bench_job_row(&bench, &job);
    assert_int_equal(row->exit_code, 7);
    assert_int_equal(row->class, FAIL_USER);
    assert_non_null(strstr(row->detail, "rank 1 on"));
}

static void test_user_failure_is_retried_when_asked(void **state)
{
    (void)state;
    bench.ask.retry_on |= 1u << FAIL_USER;
    bench.ask.max_attempts = 2;
    struct uuid job = gang(1);
    bench_run(&bench, &job);
    bench_task(&bench, rank_of(&job, 0), TASK_EXITED, 1);
    assert_state(&job, JOB_RECOVERING, ERR_RANK_FAILED);
    bench_all(&bench, &job, TASK_DONE, 1);
    assert_state(&job, JOB_QUEUED, ERR_BACK_OFF);
    assert_false(bench_schedule(&bench));
    assert_state(&job, JOB_QUEUED, ERR_BACK_OFF);
    bench_wait(&bench, bench.policy.backoff_first_us);
    bench_run(&bench, &job);
    assert_state(&job, JOB_RUNNING, ERR_NONE);
    assert_int_equal(bench_job(&bench, &job)->row.epoch, 2);
    bench_task(&bench, rank_of(&job, 0), TASK_EXITED, 1);
    bench_all(&bench, &job, TASK_DONE, 1);
    assert_state(&job, JOB_FAILED, ERR_ATTEMPTS_SPENT);
}

static void test_refusal_releases_all_and_backs_off(void **state)
{
    (void)state;
    struct uuid job = gang(2);
    bench_schedule(&bench);
    bench_task(&bench, rank_of(&job, 0), TASK_READY, 0);
    bench_task(&bench, rank_of(&job, 1), TASK_REFUSED, 0);
    assert_state(&job, JOB_RECOVERING, ERR_NODE_REFUSED);
    assert_int_equal(bench_orders(&bench, ORDER_STOP, 0), 2); /* the refuser is asked too */
    bench_task(&bench, rank_of(&job, 0), TASK_DONE, 0);
    assert_state(&job, JOB_QUEUED, ERR_BACK_OFF);
    struct world_counts counts;
    world_count(bench.world, &counts);
    assert_int_equal(counts.slots_leased, 0);
}

static void test_no_progress_ends_preparing(void **state)
{
    (void)state;
    struct uuid job = gang(2);
    bench_schedule(&bench);
    bench_all(&bench, &job, TASK_PREPARING, 0);
    bench_wait(&bench, 100 * BENCH_SECOND);
    bench_task(&bench, rank_of(&job, 0), TASK_PROGRESS, 0);
    bench_task(&bench, rank_of(&job, 1), TASK_READY, 0);
    bench_wait(&bench, 100 * BENCH_SECOND);
    assert_state(&job, JOB_PREPARING, ERR_NONE);
    bench_wait(&bench, 30 * BENCH_SECOND);
    assert_state(&job, JOB_RECOVERING, ERR_PREPARE_TIMEOUT);
}

static void test_prepare_timeout_ends_endless_progress(void **state)
{
    (void)state;
    struct uuid job = gang(1);
    bench_schedule(&bench);
    for (int i = 0; i < 10; i++) {
        assert_state(&job, JOB_PREPARING, ERR_NONE);
        bench_task(&bench, rank_of(&job, 0), TASK_PROGRESS, 0);
        bench_wait(&bench, 90 * BENCH_SECOND);
    }
    assert_state(&job, JOB_RECOVERING, ERR_PREPARE_TIMEOUT);
}

static void test_start_timeout(void **state)
{
    (void)state;
    struct uuid job = gang(2);
    bench_schedule(&bench);
    bench_all(&bench, &job, TASK_READY, 0);
    bench_task(&bench, rank_of(&job, 0), TASK_STARTED, 0);
    bench_wait(&bench, bench.policy.start_timeout_us);
    assert_state(&job, JOB_RECOVERING, ERR_START_TIMEOUT);
}

static void test_unanswered_order_is_repeated(void **state)
{
    (void)state;
    struct uuid job = gang(1);
    bench_schedule(&bench);
    bench.now += bench.policy.resend_after_us;
    bench_step(&bench, &(struct event){.kind = EV_TICK});
    assert_int_equal(bench_orders(&bench, ORDER_PREPARE, 0), 1);
    bench_task(&bench, rank_of(&job, 0), TASK_PREPARING, 0);
    bench.now += bench.policy.resend_after_us;
    bench_step(&bench, &(struct event){.kind = EV_TICK});
    assert_int_equal(bench_orders(&bench, ORDER_PREPARE, 0), 0);
}

static void test_max_duration_expires(void **state)
{
    (void)state;
    bench.ask.max_total = 1000 * BENCH_UNIT;
    struct uuid job = gang(1);
    bench_run(&bench, &job);
    bench_wait(&bench, 3600 * BENCH_SECOND);
    assert_state(&job, JOB_STOPPING, ERR_MAX_DURATION);
    bench_all(&bench, &job, TASK_DONE, 143);
    assert_state(&job, JOB_EXPIRED, ERR_MAX_DURATION);
}

static void test_queue_timeout_expires_and_releases(void **state)
{
    (void)state;
    bench.ask.queue_timeout_us = 60 * 1000000;
    struct reply reply = bench_submit(&bench, 4, 1);
    assert_int_equal(bench_balance(&bench, PURPOSE_ESCROW), 10 * BENCH_UNIT);
    bench_schedule(&bench);
    assert_state(&reply.object, JOB_QUEUED, ERR_NO_NODES);
    bench_wait(&bench, 61 * BENCH_SECOND);
    assert_state(&reply.object, JOB_EXPIRED, ERR_QUEUE_TIMEOUT);
    assert_int_equal(bench_balance(&bench, PURPOSE_AVAILABLE), 1000 * BENCH_UNIT);
}

static void test_stop_timeout_forgets_the_rank(void **state)
{
    (void)state;
    struct uuid job = gang(2);
    bench_run(&bench, &job);
    bench_cancel(&bench, &job);
    bench_task(&bench, rank_of(&job, 0), TASK_DONE, 143);
    bench_wait(&bench, 60 * BENCH_SECOND);
    assert_state(&job, JOB_CANCELLED, ERR_CANCELLED_BY_USER);
}

static void test_outputs_that_never_arrive(void **state)
{
    (void)state;
    bench.ask.max_attempts = 1;
    struct uuid job = gang(1);
    bench_run(&bench, &job);
    bench_all(&bench, &job, TASK_EXITED, 0);
    bench_wait(&bench, bench.policy.output_timeout_us);
    assert_state(&job, JOB_FAILED, ERR_OUTPUT_LOST);
}

static void tell_lost_output(const struct uuid *job, uint32_t number, enum fail_class class)
{
    const struct rank *rank = rank_of(job, number);
    struct event event = {.kind = EV_TASK};

    event.task = (struct ev_task){.node = rank->row.node,
                                  .attempt = rank->row.attempt,
                                  .term = rank->attempt->row.term,
                                  .epoch = rank->attempt->row.epoch,
                                  .rank = number,
                                  .news = TASK_DONE,
                                  .reason = ERR_OUTPUT_LOST,
                                  .class = class,
                                  .detail = "no-space: the disk is full"};
    bench_step(&bench, &event);
}

/* Its programs ended well, its results are gone: that is no success. */
static void test_a_lost_output_fails_the_job(void **state)
{
    (void)state;
    bench.ask.max_attempts = 1;
    struct uuid job = gang(2);
    bench_run(&bench, &job);
    bench_all(&bench, &job, TASK_EXITED, 0);
    bench_task(&bench, rank_of(&job, 0), TASK_DONE, 0);
    tell_lost_output(&job, 1, FAIL_PROVIDER);
    assert_state(&job, JOB_FAILED, ERR_OUTPUT_LOST);
    assert_int_equal(bench_job_row(&bench, &job)->class, FAIL_PROVIDER);
    assert_int_equal(bench_job_row(&bench, &job)->charged, 0); /* refunded as any such failure */
    assert_non_null(strstr(bench_job_row(&bench, &job)->detail, "no-space: the disk is full"));
    /* A rank that still runs when another one's results are lost has nothing to run for. */
    job = gang(2);
    bench_run(&bench, &job);
    bench_task(&bench, rank_of(&job, 0), TASK_EXITED, 0);
    tell_lost_output(&job, 0, FAIL_USER);
    assert_int_equal(bench_orders(&bench, ORDER_STOP, 0), 1);
    bench_task(&bench, rank_of(&job, 1), TASK_DONE, 143);
    assert_state(&job, JOB_FAILED, ERR_OUTPUT_LOST);
    /* What failed or was cancelled anyway keeps its reason. */
    job = gang(1);
    bench_run(&bench, &job);
    bench_all(&bench, &job, TASK_EXITED, 3);
    tell_lost_output(&job, 0, FAIL_PROVIDER);
    assert_state(&job, JOB_FAILED, ERR_RANK_FAILED);
}

/* Cancel in each state a job can be in. */
static void test_cancel_everywhere(void **state)
{
    (void)state;
    struct uuid job = gang(2);
    bench_cancel(&bench, &job); /* queued */
    assert_state(&job, JOB_CANCELLED, ERR_CANCELLED_BY_USER);
    assert_int_equal(bench_cancel(&bench, &job).err.code, ERR_ALREADY_TERMINAL);
    for (int phase = 0; phase < 5; phase++) {
        job = bench_submit(&bench, 2, 2).object;
        bench_schedule(&bench);
        assert_state(&job, JOB_PREPARING, ERR_NONE);
        if (phase >= 1)
            bench_all(&bench, &job, TASK_READY, 0);
        if (phase >= 2)
            bench_all(&bench, &job, TASK_STARTED, 0);
        if (phase == 3) { /* recovering */
            bench_node_event(&bench, EV_NODE_SILENT, 0);
            bench_wait(&bench, 121 * BENCH_SECOND);
            assert_state(&job, JOB_RECOVERING, ERR_NODE_LOST);
        }
        if (phase == 4) { /* stopping: it keeps its reason */
            bench_all(&bench, &job, TASK_EXITED, 0);
            assert_int_equal(bench_cancel(&bench, &job).err.code, ERR_NONE);
            assert_state(&job, JOB_STOPPING, ERR_COMPLETED);
            bench_all(&bench, &job, TASK_DONE, 0);
            assert_state(&job, JOB_SUCCEEDED, ERR_COMPLETED);
            break;
        }
        assert_int_equal(bench_cancel(&bench, &job).err.code, ERR_NONE);
        assert_state(&job, JOB_STOPPING, ERR_CANCELLED_BY_USER);
        assert_int_equal(bench_cancel(&bench, &job).err.code, ERR_NONE);
        bench_all(&bench, &job, TASK_DONE, 143);
        assert_state(&job, JOB_CANCELLED, ERR_CANCELLED_BY_USER);
        if (phase == 3)
            bench_node_event(&bench, EV_NODE_BACK, 0);
    }
    assert_int_equal(bench_balance(&bench, PURPOSE_ESCROW), 0);
}

static void test_stale_news_change_nothing(void **state)
{
    (void)state;
    struct uuid job = gang(1);
    bench_run(&bench, &job);
    struct rank old = *rank_of(&job, 0);
    struct attempt before = *old.attempt;
    old.attempt = &before;
    before.row.epoch++; /* another epoch */
    bench_task(&bench, &old, TASK_EXITED, 1);
    assert_int_equal(bench.out.row_count, 0);
    assert_int_equal(bench_orders(&bench, ORDER_FORGET, 0), 1);
    before.row.epoch--;
    before.row.term++;
    bench_task(&bench, &old, TASK_EXITED, 1);
    assert_int_equal(bench.out.row_count, 0);
    before.row.term--;
    old.row.node++; /* another node speaks */
    bench_task(&bench, &old, TASK_EXITED, 1);
    assert_int_equal(bench.out.row_count, 0);
    assert_state(&job, JOB_RUNNING, ERR_NONE);
    old.row.node--;
    bench_task(&bench, &old, TASK_READY, 0); /* late, out of order */
    assert_int_equal(bench.out.row_count, 0);
    bench_task(&bench, &old, TASK_EXITED, 0);
    bench_task(&bench, &old, TASK_EXITED, 9); /* twice, with another story */
    assert_state(&job, JOB_STOPPING, ERR_COMPLETED);
}

static void test_second_job_waits_with_a_reason_then_starts(void **state)
{
    (void)state;
    struct uuid first = gang(2);
    bench_run(&bench, &first);
    struct uuid second = bench_submit(&bench, 2, 2).object;
    bench_schedule(&bench);
    assert_state(&second, JOB_QUEUED, ERR_NOT_NOW);
    assert_int_equal(bench_job(&bench, &second)->why->funnel[FUNNEL_FREE], 0);
    bench_schedule(&bench);
    assert_int_equal(bench.out.row_count, 0); /* nothing changed: nothing is written */
    bench_all(&bench, &first, TASK_DONE, 0);
    bench_schedule(&bench);
    assert_state(&second, JOB_PREPARING, ERR_NONE);
}

static void test_priority_then_age(void **state)
{
    (void)state;
    bench_node(&bench, 1, 24576);
    struct uuid old = bench_submit(&bench, 1, 1).object;
    bench.ask.priority = 50;
    bench.now++;
    struct uuid urgent = bench_submit(&bench, 1, 1).object;
    while (bench_schedule(&bench))
        ;
    assert_state(&urgent, JOB_PREPARING, ERR_NONE);
    assert_state(&old, JOB_QUEUED, ERR_NOT_NOW);
}

static void test_unmeasured_links_are_probed(void **state)
{
    (void)state;
    bench_node(&bench, 1, 24576);
    bench_node(&bench, 1, 24576);
    struct uuid job = bench_submit(&bench, 2, 1).object;
    bench_schedule(&bench);
    assert_state(&job, JOB_QUEUED, ERR_NETWORK_UNMEASURED);
    bench_wait(&bench, 40 * BENCH_SECOND);
    bench_schedule(&bench);
    assert_state(&job, JOB_QUEUED, ERR_NETWORK_UNMEASURED);
    bench_link(&bench, 0, 1, 900, true);
    bench_schedule(&bench);
    assert_state(&job, JOB_PREPARING, ERR_NONE);
}

static void test_outputs_are_registered_once(void **state)
{
    (void)state;
    struct uuid job = gang(1);
    bench_run(&bench, &job);
    struct event event = {.kind = EV_OUTPUT_STORED};
    event.output.attempt = bench_job(&bench, &job)->attempt->row.uid;
    event.output.path = "/out";
    event.output.size = 5;
    struct event again = event;
    assert_int_equal(bench_command(&bench, &event, bench.tenant).err.code, ERR_SCOPE_MISSING);
    event = again;
    assert_int_equal(bench_command(&bench, &event, bench.gateway).err.code, ERR_NONE);
    assert_int_equal(bench.out.row_count, 2);
    event = again;
    assert_int_equal(bench_command(&bench, &event, bench.gateway).err.code, ERR_NONE);
    assert_int_equal(bench.out.row_count, 0);
    event = again;
    event.output.rank = 1;
    assert_int_equal(bench_command(&bench, &event, bench.gateway).err.code, ERR_NOT_FOUND);
}

/* Its acknowledgement is lost with the orchestrator: the worker sends it to the next one. */
static void test_a_receipt_is_taken_once_over_restarts(void **state)
{
    (void)state;
    struct uuid job = gang(1);
    struct event event = {.kind = EV_RECEIPT};

    bench_run(&bench, &job);
    event.receipt = (struct ev_receipt){
        .node = bench.node[0], .seq = 7, .bytes = (const uint8_t *)"receipt", .bytes_length = 7};
    bench_step(&bench, &event);
    assert_true(bench.out.row_count > 0);
    world_free(bench.world);
    bench.world = shadow_load(&bench.shadow);
    bench_step(&bench, &(struct event){.kind = EV_BOOT});
    bench_step(&bench, &event);
    assert_int_equal(bench.out.row_count, 0);
}

/* The order to forget was lost, the session lives on: the meter that still runs gives it away. */
static void test_a_receipt_of_an_ended_attempt_is_told_to_forget(void **state)
{
    (void)state;
    struct uuid job = gang(1);
    struct event event = {.kind = EV_RECEIPT};

    bench_run(&bench, &job);
    const struct rank *rank = rank_of(&job, 0);
    event.receipt = (struct ev_receipt){.node = rank->row.node,
                                        .seq = 1000,
                                        .bytes = (const uint8_t *)"receipt",
                                        .bytes_length = 7,
                                        .line_count = 1};
    event.receipt.line[0].attempt = rank->row.attempt;
    event.receipt.line[0].term = rank->attempt->row.term;
    event.receipt.line[0].epoch = rank->attempt->row.epoch;
    bench_step(&bench, &event);
    assert_int_equal(bench_orders(&bench, ORDER_FORGET, bench.node[0]), 0);
    bench_cancel(&bench, &job);
    bench_wait(&bench, 60 * BENCH_SECOND);
    assert_state(&job, JOB_CANCELLED, ERR_CANCELLED_BY_USER);
    event.receipt.seq++;
    bench_step(&bench, &event);
    assert_int_equal(bench_orders(&bench, ORDER_FORGET, bench.node[0]), 1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_success),
        CASE(test_failing_rank_stops_the_others_at_once),
        CASE(test_user_failure_is_retried_when_asked),
        CASE(test_refusal_releases_all_and_backs_off),
        CASE(test_no_progress_ends_preparing),
        CASE(test_prepare_timeout_ends_endless_progress),
        CASE(test_start_timeout),
        CASE(test_unanswered_order_is_repeated),
        CASE(test_max_duration_expires),
        CASE(test_queue_timeout_expires_and_releases),
        CASE(test_stop_timeout_forgets_the_rank),
        CASE(test_outputs_that_never_arrive),
        CASE(test_a_lost_output_fails_the_job),
        CASE(test_cancel_everywhere),
        CASE(test_stale_news_change_nothing),
        CASE(test_second_job_waits_with_a_reason_then_starts),
        CASE(test_priority_then_age),
        CASE(test_unmeasured_links_are_probed),
        CASE(test_outputs_are_registered_once),
        CASE(test_a_receipt_is_taken_once_over_restarts),
        CASE(test_a_receipt_of_an_ended_attempt_is_told_to_forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
