/* A whole worker against a small pool: a job's life, kill -9, forged and stale orders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support_pool.h"

static int set_up(void **state)
{
    *state = pool_new();
    return 0;
}

static int tear_down(void **state)
{
    pool_free(*state);
    return 0;
}

static void make_spec(struct job_spec *spec, const char *command)
{
    spec_init(spec);
    snprintf(spec->name, sizeof(spec->name), "job");
    spec->ask.nodes = 1;
    spec->ask.gpus_per_node = 1;
    spec->ask.cpu_device = true;
    snprintf(spec->ask.models[0], sizeof(spec->ask.models[0]), "cpu");
    spec->ask.model_count = 1;
    spec->ask.stop_duration_us = 1000000;
    spec_texts_add(&spec->commands, command);
    spec_texts_add(&spec->outputs, "/out");
}

static bool has_error(struct pool *pool, const void *arg)
{
    (void)arg;
    return pool->errors > 0;
}

static bool log_has(struct pool *pool, const void *arg)
{
    return pool->log[0].data && strstr(pool->log[0].data, arg) != NULL;
}

static bool holds_nothing(struct pool *pool, const void *arg)
{
    json_t *answer = pool_ask(pool, "status");
    bool empty = json_array_size(json_object_get(answer, "tasks")) == 0;

    (void)arg;
    json_decref(answer);
    return empty;
}

/* A forgotten task is killed, scrubbed and dropped, without a word. */
static void forget_job(struct pool *pool, uint64_t attempt, uint32_t epoch)
{
    pool_forget(pool, attempt, epoch);
    pool_wait(pool, holds_nothing, NULL, "the forgotten task to be gone");
}

static void start_job(struct pool *pool, uint64_t attempt, uint32_t epoch, const char *command)
{
    struct job_spec spec;

    make_spec(&spec, command);
    pool_prepare(pool, attempt, epoch, &spec);
    pool_wait_news(pool, attempt, "ready");
    pool_go(pool, attempt, epoch);
    pool_wait_news(pool, attempt, "started");
    spec_fini(&spec);
}

static void test_a_job_from_order_to_outputs(void **state)
{
    struct pool *pool = *state;
    struct job_spec spec;
    const struct pool_news *news;
    pid_t worker = pool_start(pool);

    pool_wait_hellos(pool, 1);
    pool_input(pool, "x", "input text\n");
    make_spec(&spec, "cat \"$SHEAF_JOB_DIR/src/x\"; echo rank $RANK of $WORLD_SIZE at "
                     "$MASTER_ADDR:$MASTER_PORT price $SHEAF_PRICE_HOUR; echo oops >&2; "
                     "echo result > \"$SHEAF_OUT_DIR/r\"; sleep 0.3");
    spec.files = calloc(1, sizeof(spec.files[0]));
    spec.file_count = 1;
    snprintf(spec.files[0].source, sizeof(spec.files[0].source), "./src");
    snprintf(spec.files[0].path, sizeof(spec.files[0].path), "/job/src");
    memcpy(spec.files[0].sha256, pool->input_sha256, 32);
    spec.files[0].size = pool->input.length;
    pool_prepare(pool, 5, 1, &spec);
    news = pool_wait_news(pool, 5, "ready");
    assert_int_not_equal(news->port, 0);
    pool_prepare(pool, 5, 1, &spec); /* a repeated order is answered, not done again */
    pool_go(pool, 5, 1);
    pool_wait_news(pool, 5, "started");
    news = pool_wait_news(pool, 5, "exited");
    assert_int_equal(news->exit_code, 0);
    assert_string_equal(news->reason, "completed");
    assert_true(news->receipt_ms >= 250);
    pool_wait_news(pool, 5, "done");
    assert_int_equal(pool->outputs, 1);
    assert_string_equal(pool->output_path, "/out");
    assert_true(pool->log_last[0] && pool->log_last[1]);
    assert_false(pool->log_wrong);
    assert_string_equal(pool->log[0].data,
                        "input text\nrank 0 of 1 at 127.0.0.1:20001 price 1.25\n");
    assert_string_equal(pool->log[1].data, "oops\n");
    assert_false(pool->gap);
    assert_false(pool->receipt_wrong);
    forget_job(pool, 5, 1);
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
    spec_fini(&spec);
}

static void test_tasks_outlive_kill_9_of_the_worker(void **state)
{
    struct pool *pool = *state;
    pid_t worker = pool_start(pool);
    const struct pool_news *news;
    uint64_t boot;

    pool_wait_hellos(pool, 1);
    start_job(pool, 6, 1,
              "echo before; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; "
              "echo after; sleep 60");
    pool_wait(pool, log_has, "before", "the first log line");
    boot = pool->boot;
    pool_end(pool, worker, SIGKILL);
    worker = pool_start(pool);
    pool_wait_hellos(pool, 2);
    assert_true(pool->boot > boot);
    assert_int_equal(pool->held, 1);
    assert_string_equal(pool->held_state, "started");
    pool_wait(pool, log_has, "after", "the log after the restart");
    assert_string_equal(pool->log[0].data, "before\nafter\n"); /* nothing lost, nothing twice */
    pool_stop(pool, 6, 1, "cancelled-by-user");
    news = pool_wait_news(pool, 6, "exited");
    assert_string_equal(news->reason, "cancelled-by-user");
    assert_int_not_equal(news->exit_code, 0);
    pool_wait_news(pool, 6, "done");
    assert_false(pool->gap);
    assert_false(pool->receipt_wrong);
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
}

static void test_unacknowledged_news_survive_a_restart(void **state)
{
    struct pool *pool = *state;
    pid_t worker = pool_start(pool);
    int before;

    pool_wait_hellos(pool, 1);
    pool->mute = true;
    start_job(pool, 6, 1, "exit 3");
    pool_wait_news(pool, 6, "exited");
    pool_end(pool, worker, SIGKILL);
    before = pool->news_count;
    pool->mute = false;
    worker = pool_start(pool);
    pool_wait_hellos(pool, 2);
    pool_wait_news(pool, 6, "done");
    assert_true(pool->news_count > before + 3); /* preparing, ready, started, exited came again */
    assert_int_equal(pool_wait_news(pool, 6, "exited")->exit_code, 3);
    assert_false(pool->gap);
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
}

static void test_forged_order_is_refused_and_reported(void **state)
{
    struct pool *pool = *state;
    struct job_spec spec;
    pid_t worker = pool_start(pool);

    pool_wait_hellos(pool, 1);
    make_spec(&spec, "true");
    pool_prepare(pool, 7, 2, &spec);
    pool_wait_news(pool, 7, "ready");
    pool_go_forged(pool, 7, 2);
    pool_wait(pool, has_error, NULL, "the refusal");
    assert_string_equal(pool->error, "signature");
    assert_false(pool_has_news(pool, 7, "started"));
    pool_go(pool, 7, 1); /* a stale epoch */
    assert_string_equal(pool_wait_news(pool, 7, "refused")->reason, "fence");
    assert_false(pool_has_news(pool, 7, "started"));
    pool_prepare(pool, 8, 1, &spec); /* of the same job */
    assert_string_equal(pool_wait_news(pool, 8, "refused")->reason, "fence");
    forget_job(pool, 7, 2);
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
    spec_fini(&spec);
}

static void test_second_instance_is_refused(void **state)
{
    struct pool *pool = *state;
    pid_t worker = pool_start(pool);
    pid_t second;
    int status;

    pool_wait_hellos(pool, 1);
    second = pool_start(pool);
    status = pool_end(pool, second, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), ERR_ALREADY_RUNNING % 200 + 1);
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
}

static bool has_notice(struct pool *pool, const void *arg)
{
    return strcmp(pool->notice, arg) == 0;
}

static void test_the_owner_comes_first(void **state)
{
    struct pool *pool = *state;
    struct job_spec spec;
    pid_t worker = pool_start(pool);
    json_t *answer;

    pool_wait_hellos(pool, 1);
    json_decref(pool_ask(pool, "pause"));
    pool_wait(pool, has_notice, "pause", "the notice");
    make_spec(&spec, "true");
    pool_prepare(pool, 9, 1, &spec);
    assert_string_equal(pool_wait_news(pool, 9, "refused")->reason, "owner-reclaimed");
    answer = pool_ask(pool, "status");
    assert_true(json_is_true(json_object_get(answer, "paused")));
    assert_string_equal(json_text(answer, "state"), "ready");
    json_decref(answer);
    pool_end(pool, worker, SIGKILL); /* a pause outlives the daemon */
    worker = pool_start(pool);
    pool_wait_hellos(pool, 2);
    answer = pool_ask(pool, "status");
    assert_true(json_is_true(json_object_get(answer, "paused")));
    json_decref(answer);
    json_decref(pool_ask(pool, "resume"));
    pool_wait(pool, has_notice, "resume", "the notice");
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
    spec_fini(&spec);
}

static void test_leave_waits_for_the_job_and_retires_the_identity(void **state)
{
    struct pool *pool = *state;
    char path[128];
    pid_t worker = pool_start(pool);

    pool_wait_hellos(pool, 1);
    start_job(pool, 4, 1, "sleep 0.5");
    json_decref(pool_ask(pool, "leave"));
    pool_wait(pool, has_notice, "drain", "the drain");
    pool_wait_news(pool, 4, "done");
    pool_wait(pool, has_notice, "leave", "the leave");
    assert_int_equal(pool_end(pool, worker, 0), 0); /* it ends by itself */
    snprintf(path, sizeof(path), "%s/state/identity", pool->root);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* A sanitizer's shadow is not the worker's memory. */
static void test_idle_worker_is_small(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;
    skip();
#else
    struct pool *pool = *state;
    char path[64];
    unsigned long pages = 0;
    pid_t worker = pool_start(pool);
    FILE *file;

    pool_wait_hellos(pool, 1);
    json_decref(pool_ask(pool, "status"));
    snprintf(path, sizeof(path), "/proc/%d/statm", worker);
    file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
    fclose(file);
    assert_in_range(pages * (unsigned long)sysconf(_SC_PAGESIZE), 1, 20ul << 20);
    assert_int_equal(pool_end(pool, worker, SIGTERM), 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_job_from_order_to_outputs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tasks_outlive_kill_9_of_the_worker, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unacknowledged_news_survive_a_restart, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_forged_order_is_refused_and_reported, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_second_instance_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_owner_comes_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leave_waits_for_the_job_and_retires_the_identity,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idle_worker_is_small, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
