/*
 * The gate: every seed keeps every rule, and together they have been through every misfortune.
 * SHEAF_SIM_SEEDS=FIRST:COUNT runs others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/support_child.h"

#define SEEDS 200ull

static void add(struct sim_counters *sum, const struct sim_counters *one)
{
    sum->commits += one->commits;
    sum->hub_crashes += one->hub_crashes;
    sum->worker_crashes += one->worker_crashes;
    sum->reboots += one->reboots;
    sum->vanished += one->vanished;
    sum->breaks += one->breaks;
    sum->dropped += one->dropped;
    sum->doubled += one->doubled;
    sum->pauses += one->pauses;
    sum->replayed += one->replayed;
    sum->attempts += one->attempts;
    sum->runs += one->runs;
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++)
        sum->jobs_by_state[i] += one->jobs_by_state[i];
}

static void range(unsigned long long *ret_first, unsigned long long *ret_count)
{
    const char *text = getenv("SHEAF_SIM_SEEDS");

    *ret_first = 1;
    *ret_count = SEEDS;
    if (text != NULL && sscanf(text, "%llu:%llu", ret_first, ret_count) != 2)
        fail_msg("SHEAF_SIM_SEEDS=%s is not FIRST:COUNT", text);
}

static void every_seed_keeps_every_rule(void **state)
{
    unsigned long long first;
    unsigned long long count;
    struct sim_counters sum = {0};
    unsigned broken = 0;

    (void)state;
    range(&first, &count);
    for (unsigned long long seed = first; seed < first + count; seed++) {
        struct sim_result result;
        (void)child_run(&(struct sim_options){.seed = seed}, &result);
        add(&sum, &result.counters);
        if (!result.broken)
            continue;
        broken++;
        print_error("seed %llu at %lld s: %s\n  replay: simulate --seed %llu --trace\n", seed,
                    (long long)(result.at_us / 1000000), result.rule, seed);
    }
    if (broken > 0)
        fail_msg("%u of %llu seeds break a rule", broken, count);
    if (count < SEEDS)
        return;
    /* A simulation in which nothing goes wrong proves nothing. */
    assert_true(sum.hub_crashes > count && sum.worker_crashes > count && sum.reboots > count);
    assert_true(sum.vanished > count / 4 && sum.breaks > count && sum.dropped > count);
    assert_true(sum.doubled > count && sum.pauses > count && sum.replayed > count / 4);
    assert_true(sum.attempts > 5 * count && sum.runs > 5 * count);
    assert_true(sum.jobs_by_state[JOB_SUCCEEDED] > count);
    assert_true(sum.jobs_by_state[JOB_FAILED] > count / 4);
    assert_true(sum.jobs_by_state[JOB_CANCELLED] > count / 4);
    assert_true(sum.jobs_by_state[JOB_EXPIRED] > count / 4);
    print_message("%llu seeds: %llu commits, %u+%u crashes, %u reboots, %u gone, %u attempts, "
                  "%u runs; %u jobs succeeded, %u failed, %u cancelled, %u expired\n",
                  count, (unsigned long long)sum.commits, sum.hub_crashes, sum.worker_crashes,
                  sum.reboots, sum.vanished, sum.attempts, sum.runs,
                  sum.jobs_by_state[JOB_SUCCEEDED], sum.jobs_by_state[JOB_FAILED],
                  sum.jobs_by_state[JOB_CANCELLED], sum.jobs_by_state[JOB_EXPIRED]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_seed_keeps_every_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
