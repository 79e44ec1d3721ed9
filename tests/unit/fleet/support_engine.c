#include "tests/unit/fleet/support_engine.h"

#include <stdlib.h>

#include "common/pure/mem.h"

void fake_engine_init(struct engine *engine)
{
    *engine = (struct engine){0};
    engine->world = world_new();
    policy_default(&engine->policy);
}

void fake_engine_fini(struct engine *engine)
{
    struct event_box *box;

    while ((box = fake_engine_take(engine)))
        event_box_free(box);
    world_free(engine->world);
}

struct event_box *fake_engine_take(struct engine *engine)
{
    struct event_box *box = engine->first;

    if (box == NULL)
        return NULL;
    engine->first = box->next;
    if (engine->first == NULL)
        engine->last = NULL;
    engine->count--;
    return box;
}

struct event_box *event_box_new(enum event_kind kind)
{
    struct event_box *box = mem_new(1, sizeof(*box));

    box->event.kind = kind;
    return box;
}

void event_box_free(struct event_box *box)
{
    if (box == NULL)
        return;
    if (box->release)
        box->release(box->memory);
    free(box);
}

void engine_post(struct engine *engine, struct event_box *box)
{
    box->next = NULL;
    if (engine->last)
        engine->last->next = box;
    else
        engine->first = box;
    engine->last = box;
    engine->count++;
}

const struct world *engine_world(const struct engine *engine)
{
    return engine->world;
}

const struct policy *engine_policy(const struct engine *engine)
{
    return &engine->policy;
}
