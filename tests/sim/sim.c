#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"

/*
 * The quiet tail at its longest: five attempts of a job, each through every timeout of preparing,
 * running and stopping, with back-off between, behind all others on four nodes.
 */
#define TAIL_US  (6 * 60 * SIM_MINUTE)
#define WATCH_US (10 * SIM_SECOND)

static const char *const plant_names[PLANT_COUNT] = {
    [PLANT_NONE] = "none",
    [PLANT_ACT_EARLY] = "act-early",
    [PLANT_HALF_BATCH] = "half-batch",
    [PLANT_NO_FENCE] = "no-fence",
    [PLANT_AMNESIA] = "amnesia",
    [PLANT_EARLY_GO] = "early-go",
    [PLANT_OVERCLAIM] = "overclaim",
    [PLANT_COMMIT_TWICE] = "commit-twice",
};

const char *sim_plant_name(enum sim_plant plant)
{
    return plant_names[plant];
}

static void make_weather(struct sim *sim)
{
    static const uint32_t harsh[] = {1, 3, 10};
    uint32_t by = harsh[chance(sim, 3)];

    /* One statement per draw: initialisers have no order. */
    struct weather *weather = &sim->weather;
    weather->drop_ppm = (uint32_t)chance(sim, 10000) * by;
    weather->double_ppm = (uint32_t)chance(sim, 10000) * by;
    weather->reorder_ppm = (uint32_t)chance(sim, 10000) * by;
    weather->delay_us = chance_span(sim, 5 * SIM_MS, by * 200 * SIM_MS);
    weather->hub_crash_ppm = (uint32_t)chance(sim, 2000) * by;
    weather->worker_crash_ppm = (uint32_t)chance(sim, 500) * by;
    weather->slow_commit_ppm = (uint32_t)chance(sim, 5000) * by;
    weather->refuse_ppm = (uint32_t)chance(sim, 10000) * by;
    weather->reply_lost_ppm = (uint32_t)chance(sim, 30000) * by;
}

static void watch(struct sim *sim, const struct call *call)
{
    check_strays(sim);
    sim_after(sim, WATCH_US, *call);
}

static void run(struct sim *sim)
{
    struct timer timer;

    while (!sim->broken && clock_next(sim, &timer)) {
        if (sim->quiet && timer.at_us > sim->calm_us + TAIL_US) {
            free(timer.call.msg);
            break;
        }
        sim->now = timer.at_us;
        sim->counters.events++;
        timer.call.run(sim, &timer.call);
        if (sim->quiet && sim_is_over(sim))
            break;
    }
    if (!sim->broken)
        check_end(sim);
}

void sim_run(const struct sim_options *options, struct sim_result *ret_result)
{
    struct sim *sim = mem_new(1, sizeof(*sim));

    sim->options = *options;
    sim->now = SIM_START;
    sim->chance = options->seed * 0xd1342543de82ef95u + 1;
    sim->hash = 14695981039346656037u;
    make_weather(sim);
    hub_init(sim);
    actors_setup(sim);
    actors_start(sim);
    sim_after(sim, WATCH_US, (struct call){.run = watch});
    run(sim);
    sim->result.hash = sim->hash;
    if (!sim->broken)
        sim->result.at_us = sim->now - SIM_START;
    sim->result.counters = sim->counters;
    *ret_result = sim->result;
    hub_fini(sim);
    for (uint32_t i = 0; i < sim->worker_count; i++)
        worker_fini(&sim->worker[i]);
    for (uint32_t i = 0; i < sim->truths.count; i++)
        free(map_at(&sim->truths, i));
    map_fini(&sim->truths);
    store_fini(&sim->store);
    clock_fini(sim);
    free(sim);
}
