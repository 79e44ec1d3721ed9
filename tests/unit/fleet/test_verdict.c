/* Self-tests are recomputed in small steps, and lies have names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "orchestrator/fleet/verdict.h"

#define SEED ((uint64_t)0x5eedf00d)

/* What an honest worker of so many MiB answers; made once, because it costs as the check does. */
static struct verdict honest_of(uint32_t memory_mib)
{
    struct verdict verdict = {.seed = SEED,
                              .claimed_mib = memory_mib,
                              .memory_mib = memory_mib,
                              .chunk_count = SELFTEST_SAMPLES};

    for (uint32_t i = 0; i < SELFTEST_SAMPLES; i++)
        verdict.chunk_sum[i] = selftest_chunk_sum(SEED, selftest_sample_chunk(SEED, i, memory_mib));
    verdict.matmul_sum = selftest_matmul_sum(SEED);
    return verdict;
}

static struct verdict honest;

static int setup(void **state)
{
    (void)state;
    honest = honest_of(1000);
    return 0;
}

static uint32_t decide(struct verdict *verdict)
{
    uint32_t steps = 1;

    while (!verdict_step(verdict)) {
        steps++;
        assert_true(steps < 100);
    }
    return steps;
}

static void test_honest_memory_counts_in_full(void **state)
{
    struct verdict verdict = honest;

    (void)state;
    assert_int_equal(decide(&verdict), SELFTEST_SAMPLES + 2);
    assert_true(verdict.passed);
    assert_int_equal(verdict.measured_mib, 1000);
    assert_string_equal(verdict.detail, "");
    assert_true(verdict_step(&verdict)); /* it stands */
    assert_true(verdict.passed);
}

static void test_more_than_claimed_is_not_believed(void **state)
{
    struct verdict verdict = honest;

    (void)state;
    verdict.claimed_mib = 900;
    decide(&verdict);
    assert_true(verdict.passed);
    assert_int_equal(verdict.measured_mib, 900);
}

static void test_lies_fail_with_a_reason(void **state)
{
    static const char *const what[] = {
        "twice the memory claimed", "nothing filled",      "absurdly much filled", "too few sums",
        "a wrong chunk sum",        "another memory size", "a wrong product",      "another seed",
        "the worker's own failure"};

    (void)state;
    for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
        struct verdict verdict = honest;

        if (i == 0)
            verdict.claimed_mib = 2000;
        else if (i == 1)
            verdict.memory_mib = 0;
        else if (i == 2)
            verdict.memory_mib = VERDICT_MAX_MIB + 1;
        else if (i == 3)
            verdict.chunk_count = SELFTEST_SAMPLES - 1;
        else if (i == 4)
            verdict.chunk_sum[SELFTEST_SAMPLES - 1]++;
        else if (i == 5)
            verdict.memory_mib = 999; /* other chunks are sampled */
        else if (i == 6)
            verdict.matmul_sum++;
        else if (i == 7)
            verdict.seed++;
        else
            snprintf(verdict.failure, sizeof(verdict.failure), "the driver crashed");
        decide(&verdict);
        if (verdict.passed || verdict.measured_mib || verdict.detail[0] == 0)
            fail_msg("%s passed", what[i]);
    }
}

static void test_a_verdict_is_cheap(void **state)
{
    struct verdict verdict = honest;
    clock_t began = clock();
    int64_t took_us;

    (void)state;
    decide(&verdict);
    took_us = (int64_t)(clock() - began) * 1000000 / CLOCKS_PER_SEC;
    print_message("verdict in %lld us\n", (long long)took_us);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__OPTIMIZE__)
    /* Of processor time. Wanted 20 ms; a slow machine may take more. */
    assert_true(took_us < 200000);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_honest_memory_counts_in_full),
        cmocka_unit_test(test_more_than_claimed_is_not_believed),
        cmocka_unit_test(test_lies_fail_with_a_reason),
        cmocka_unit_test(test_a_verdict_is_cheap),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
