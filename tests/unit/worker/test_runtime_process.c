/* The runtime without isolation: the same life, no sandbox; only on request. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "support_runtime.h"

static struct trial *trial;

static bool ends(int pid)
{
    int64_t end = clock_mono_us() + 5000000;
    char command[128];

    snprintf(command, sizeof(command), "test ! -e /proc/%d || grep -q 'State:.Z' /proc/%d/status",
             pid, pid);
    while (system(command) != 0) {
        if (clock_mono_us() > end)
            return false;
        usleep(5000);
    }
    return true;
}

static void test_it_says_what_it_is(void **state)
{
    const struct runtime_probe *probe = runtime_probed(trial->runtime);

    (void)state;
    assert_string_equal(probe->runtime, "process");
    assert_false(probe->filter);
    assert_non_null(strstr(probe->detail, "no isolation"));
}

static void test_exit_codes_logs_and_folders(void **state)
{
    char expected[2 * FS_PATH + 32];

    (void)state;
    assert_int_equal(trial_run(trial, "pwd; echo $SHEAF_OUT_DIR; touch $SHEAF_OUT_DIR/x; exit 3"),
                     3);
    snprintf(expected, sizeof(expected), "%s/job\n%s/out\n", trial->dir, trial->dir);
    assert_string_equal(trial_log(trial, 0, 1), expected);
    assert_int_equal(trial_run(trial, "kill -9 $$"), 137);
}

static void test_environment_does_not_leak(void **state)
{
    (void)state;
    setenv("SHEAF_CANARY", "leaked", 1);
    assert_int_equal(trial_run(trial, "env"), 0);
    unsetenv("SHEAF_CANARY");
    assert_null(strstr(trial_log(trial, 0, 1), "leaked"));
}

static void test_descendants_end_with_the_script(void **state)
{
    (void)state;
    assert_int_equal(
        trial_run(trial, "setsid sh -c 'sleep 61 & echo $!; wait' & sleep 0.2; exit 0"), 0);
    int pid = (int)strtol(trial_log(trial, 0, 1), NULL, 10);
    assert_true(pid > 1);
    assert_true(ends(pid));
}

static void test_stop_and_kill(void **state)
{
    (void)state;
    trial_plan(trial, "trap '' TERM; sleep 62 & echo $!; while :; do wait || :; done");
    trial->plan.stop_grace_ms = 100;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->started);
    for (int i = 0; i < 2000 && trial_log(trial, 0, 1)[0] == '\0'; i++)
        usleep(2000);
    int pid = (int)strtol(trial_log(trial, 0, 1), NULL, 10);
    assert_true(pid > 1);
    runtime_stop(trial->task, false);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 137);
    assert_true(ends(pid));
}

static void test_a_killed_supervisor_takes_the_processes_along(void **state)
{
    char command[FS_PATH + 128];

    (void)state;
    trial_plan(trial, "sleep 63 & echo $!; wait");
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->started);
    for (int i = 0; i < 2000 && trial_log(trial, 0, 1)[0] == '\0'; i++)
        usleep(2000);
    int pid = (int)strtol(trial_log(trial, 0, 1), NULL, 10);
    snprintf(command, sizeof(command),
             "kill -9 $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' %s/run.json)", trial->dir);
    assert_int_equal(system(command), 0);
    trial_wait(trial, &trial->exits);
    assert_string_not_equal(trial->exit.failure, "");
    assert_true(ends(pid));
}

static int setup(void **state)
{
    (void)state;
    trial = trial_new(true);
    return trial != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    trial_free(trial);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_says_what_it_is),
        cmocka_unit_test(test_exit_codes_logs_and_folders),
        cmocka_unit_test(test_environment_does_not_leak),
        cmocka_unit_test(test_descendants_end_with_the_script),
        cmocka_unit_test(test_stop_and_kill),
        cmocka_unit_test(test_a_killed_supervisor_takes_the_processes_along),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
