/* The rules can be broken, and are seen to be: one planted fault each, none of it in the product.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/support_child.h"

#define SEEDS 200u

/* What has to be said of a plant by some seed, so that each rule is seen to work. */
static const struct {
    enum sim_plant plant;
    const char *rule;
} planted[] = {
    {PLANT_AMNESIA, "no device twice"}, {PLANT_EARLY_GO, "gang whole"},
    {PLANT_NO_FENCE, "gang absent"},    {PLANT_OVERCLAIM, "billed once"},
    {PLANT_HALF_BATCH, "sum zero"},     {PLANT_COMMIT_TWICE, "terminal is final"},
    {PLANT_ACT_EARLY, "not forgotten"},
};

static void is_caught(enum sim_plant plant, const char *rule)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct sim_result result;
        const struct sim_options options = {.seed = seed, .plant = plant};
        if (child_run(&options, &result) && result.broken
            && strncmp(result.rule, rule, strlen(rule)) == 0) {
            print_message("%s: seed %u: %s\n", sim_plant_name(plant), (unsigned)seed, result.rule);
            return;
        }
    }
    fail_msg("no seed of %u sees '%s' broken by %s", SEEDS, rule, sim_plant_name(plant));
}

static void every_rule_sees_its_fault(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++)
        is_caught(planted[i].plant, planted[i].rule);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_sees_its_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
