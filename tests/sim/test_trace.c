/* A seed is a run: the same trace each time, under every compiler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/pinned.h"
#include "tests/sim/sim.h"

static uint64_t hash_of(uint64_t seed)
{
    struct sim_result result;

    sim_run(&(struct sim_options){.seed = seed}, &result);
    if (result.broken)
        fail_msg("seed %llu: %s", (unsigned long long)seed, result.rule);
    return result.hash;
}

static void two_runs_of_a_seed_are_one(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1010; seed++)
        assert_true(hash_of(seed) == hash_of(seed));
    assert_true(hash_of(1000) != hash_of(1001));
}

/* Whatever built this: the hashes were made by another build. */
static void traces_are_those_of_every_compiler(void **state)
{
    unsigned wrong = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(pinned) / sizeof(pinned[0]); i++) {
        uint64_t hash = hash_of(pinned[i].seed);
        if (hash == pinned[i].hash)
            continue;
        wrong++;
        print_error("seed %llu: %016llx, pinned %016llx\n", (unsigned long long)pinned[i].seed,
                    (unsigned long long)hash, (unsigned long long)pinned[i].hash);
    }
    if (wrong > 0)
        fail_msg("the traces changed; if that is meant: simulate --pin > tests/sim/pinned.h");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_runs_of_a_seed_are_one),
        cmocka_unit_test(traces_are_those_of_every_compiler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
