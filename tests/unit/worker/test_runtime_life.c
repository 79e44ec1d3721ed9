#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "support_runtime.h"

static struct trial *trial;

static void need_trial(void)
{
    if (trial == NULL)
        skip();
}

static void test_exit_codes_are_those_of_the_script(void **state)
{
    static const struct {
        const char *script;
        int code;
    } cases[] = {
        {"exit 0", 0},
        {"exit 7", 7},
        {"false\nexit 0", 1}, /* sh -e */
        {"kill -TERM $$", 128 + 15},
        {"kill -KILL $$", 128 + 9},
        {"no-such-program-of-ours", 127},
    };

    (void)state;
    need_trial();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int code = trial_run(trial, cases[i].script);
        if (code != cases[i].code)
            fail_msg("%s: %d, not %d (%s)", cases[i].script, code, cases[i].code,
                     trial->exit.failure);
        assert_int_equal(trial->started, 1);
        assert_false(trial->exit.oom);
        assert_string_equal(trial->exit.failure, "");
    }
}

static void test_overhead(void **state)
{
    int64_t best_prepare = INT64_MAX;
    int64_t best_start = INT64_MAX;

    (void)state;
    need_trial();
    for (int i = 0; i < 5; i++) {
        trial_plan(trial, "exit 0");
        int64_t begin = clock_mono_us();
        trial_prepare(trial);
        int64_t returned = clock_mono_us();
        trial_wait(trial, &trial->ready);
        int64_t ready = clock_mono_us();
        trial_release(trial);
        trial_wait(trial, &trial->started);
        int64_t started = clock_mono_us();
        trial_wait(trial, &trial->exits);
        print_message("prepare call %lld us, ready %lld us, started %lld us, exit %lld us\n",
                      (long long)(returned - begin), (long long)(ready - begin),
                      (long long)(started - ready), (long long)(clock_mono_us() - started));
        best_prepare = ready - begin < best_prepare ? ready - begin : best_prepare;
        best_start = started - ready < best_start ? started - ready : best_start;
    }
    assert_true(best_prepare + best_start < 2000000);
}

static int setup(void **state)
{
    (void)state;
    trial = trial_new(false);
    return 0;
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
        cmocka_unit_test(test_exit_codes_are_those_of_the_script),
        cmocka_unit_test(test_overhead),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
