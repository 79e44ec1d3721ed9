/* simulate [--seed N] [--seeds N] [--plant NAME] [--trace] [--pin]: replays seeds by hand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define PINNED 8u

static int usage(void)
{
    fprintf(stderr,
            "simulate [--seed N] [--seeds N] [--plant NAME] [--trace]   run seeds from N (1)\n"
            "simulate --pin > tests/sim/pinned.h                        accept a changed trace\n");
    return 2;
}

static bool parse(const char *text, uint64_t *ret_value)
{
    char *end = NULL;

    errno = 0;
    *ret_value = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

static enum sim_plant plant_parse(const char *name)
{
    enum sim_plant plant = PLANT_NONE;

    while (plant < PLANT_COUNT && strcmp(sim_plant_name(plant), name) != 0)
        plant++;
    return plant;
}

static int pin(void)
{
    printf("/* Made by: simulate --pin. One row per seed: the hash of its whole trace. */\n"
           "static const struct {\n    uint64_t seed;\n    uint64_t hash;\n} pinned[] = {\n");
    for (uint64_t seed = 1; seed <= PINNED; seed++) {
        struct sim_result result;
        sim_run(&(struct sim_options){.seed = seed}, &result);
        if (result.broken) {
            fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, result.rule);
            return 1;
        }
        printf("    {%llu, 0x%016llx},\n", (unsigned long long)seed,
               (unsigned long long)result.hash);
    }
    printf("};\n");
    return 0;
}

static void print_result(uint64_t seed, const struct sim_result *result)
{
    const struct sim_counters *c = &result->counters;

    printf("seed %llu hash %016llx after %lld s: %s\n", (unsigned long long)seed,
           (unsigned long long)result->hash, (long long)(result->at_us / 1000000),
           result->broken ? result->rule : "ok");
    printf("  events %llu commits %llu crashes %u+%u reboots %u vanished %u breaks %u dropped %u "
           "doubled %u owner %u replayed %u attempts %u runs %u jobs",
           (unsigned long long)c->events, (unsigned long long)c->commits, c->hub_crashes,
           c->worker_crashes, c->reboots, c->vanished, c->breaks, c->dropped, c->doubled, c->pauses,
           c->replayed, c->attempts, c->runs);
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
        if (c->jobs_by_state[i] != 0)
            printf(" %s=%u", job_state_name((enum job_state)i), c->jobs_by_state[i]);
    }
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct sim_options options = {.seed = 1};
    uint64_t seeds = 1;
    int status = 0;

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--pin") == 0)
            return pin();
        if (strcmp(argv[i], "--trace") == 0)
            options.trace = true;
        else if (strcmp(argv[i], "--seed") == 0 && more && parse(argv[i + 1], &options.seed))
            i++;
        else if (strcmp(argv[i], "--seeds") == 0 && more && parse(argv[i + 1], &seeds))
            i++;
        else if (strcmp(argv[i], "--plant") == 0 && more
                 && (options.plant = plant_parse(argv[i + 1])) < PLANT_COUNT)
            i++;
        else
            return usage();
    }
    for (uint64_t k = 0; k < seeds; k++, options.seed++) {
        struct sim_result result;
        sim_run(&options, &result);
        print_result(options.seed, &result);
        status |= result.broken;
    }
    return status;
}
