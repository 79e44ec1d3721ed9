/* When what an ask wants will be free, at the latest: by the ends of the gangs that hold it now. */
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

static int compare_times(const void *left, const void *right)
{
    const usec_t *a = left;
    const usec_t *b = right;

    return *a < *b ? -1 : *a > *b;
}

/* Distinct ends, sorted; those without an end are no candidates: what they hold stays held. */
static uint32_t list_ends(const struct world *world, const struct policy *policy, usec_t *ret_ends)
{
    uint32_t count = 0;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < world->attempts.count; i++) {
        usec_t end = attempt_latest_us(world->attempts.items[i], policy);
        if (end != 0)
            ret_ends[count++] = end;
    }
    if (count > 0)
        qsort(ret_ends, count, sizeof(*ret_ends), compare_times);
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || ret_ends[i] != ret_ends[kept - 1])
            ret_ends[kept++] = ret_ends[i];
    }
    return kept;
}

/* Whoever waits already may take it first. */
static bool somebody_waits(const struct world *world)
{
    for (uint32_t i = 0; i < world->jobs.count; i++) {
        const struct job *job = world->jobs.items[i];
        if (job->row.state == JOB_QUEUED || job->row.state == JOB_RECOVERING)
            return true;
    }
    return false;
}

static bool fits_at(const struct step *step, const struct job_ask *ask, usec_t at, struct why *why)
{
    struct fleet_view view;

    fleet_view_init_at(&view, step->world, step->now, step->policy, at);
    int placed = place_solve(&view.fleet, ask, NULL, why, NULL, NULL);
    fleet_view_fini(&view);
    return placed == 0;
}

bool plan_earliest(const struct step *step, const struct job_ask *ask,
                   struct earliest *ret_earliest)
{
    struct why *why;
    usec_t *ends;
    uint32_t low = 0;
    uint32_t high;

    if (step->world->attempts.count == 0 || somebody_waits(step->world))
        return false;
    ends = out_alloc(step->out, step->world->attempts.count * sizeof(*ends));
    why = out_alloc(step->out, sizeof(*why));
    high = list_ends(step->world, step->policy, ends);
    if (high == 0 || !fits_at(step, ask, ends[high - 1], why))
        return false;
    /* Later only frees more: the first end at which it fits is found by halving. */
    high--;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (fits_at(step, ask, ends[middle], why))
            high = middle;
        else
            low = middle + 1;
    }
    BUG_ON(!fits_at(step, ask, ends[low], why));
    *ret_earliest =
        (struct earliest){.at_us = ends[low], .price = why->price, .diameter_us = why->diameter_us};
    return true;
}
