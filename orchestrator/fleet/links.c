#include "orchestrator/fleet/links.h"

#include <stdlib.h>
#include <string.h>

#include "common/pure/map.h"
#include "common/pure/mem.h"

struct told {
    struct ev_link sample;
    int64_t at_us;
};

struct links {
    struct map told; /* by (from, to) */
};

struct link_key {
    uint64_t from;
    uint64_t to;
};

struct links *links_new(void)
{
    struct links *links = mem_new(1, sizeof(*links));

    map_init(&links->told);
    return links;
}

void links_clear(struct links *links)
{
    for (uint32_t i = 0; i < links->told.count; i++)
        free(map_at(&links->told, i));
    map_fini(&links->told);
    map_init(&links->told);
}

void links_free(struct links *links)
{
    if (links == NULL)
        return;
    links_clear(links);
    map_fini(&links->told);
    free(links);
}

static uint32_t distance(uint32_t a, uint32_t b)
{
    return a > b ? a - b : b - a;
}

static bool is_news(const struct told *told, const struct ev_link *sample, int64_t now_us,
                    int64_t max_age_us)
{
    const struct ev_link *old = &told->sample;
    uint32_t moved = distance(old->rtt_p95_us, sample->rtt_p95_us);

    return old->reach != sample->reach || (old->rtt_p50_us == 0) != (sample->rtt_p50_us == 0)
           || (moved > LINKS_MIN_MOVE_US && moved > old->rtt_p95_us / 10)
           || distance(old->loss_ppm, sample->loss_ppm) > LINKS_MIN_LOSS_PPM
           || now_us - told->at_us > max_age_us / 2;
}

bool links_news(struct links *links, const struct ev_link *sample, int64_t now_us,
                int64_t max_age_us)
{
    struct link_key key = {sample->from, sample->to};
    struct told *told = map_get(&links->told, &key, sizeof(key));

    if (told && !is_news(told, sample, now_us, max_age_us))
        return false;
    if (told == NULL) {
        if (links->told.count >= LINKS_MAX)
            return true;
        told = mem_new(1, sizeof(*told));
        map_put(&links->told, &key, sizeof(key), told);
    }
    told->sample = *sample;
    told->at_us = now_us;
    return true;
}

void links_forget(struct links *links, uint64_t node)
{
    uint32_t i = 0;

    while (i < links->told.count) {
        struct told *told = map_at(&links->told, i);
        struct link_key key = {told->sample.from, told->sample.to};

        if (key.from != node && key.to != node) {
            i++;
            continue;
        }
        /* The last entry takes the hole: look at index i again. */
        map_remove(&links->told, &key, sizeof(key));
        free(told);
    }
}
