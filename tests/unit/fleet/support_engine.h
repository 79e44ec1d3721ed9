#ifndef SHEAF_TESTS_UNIT_FLEET_SUPPORT_ENGINE_H
#define SHEAF_TESTS_UNIT_FLEET_SUPPORT_ENGINE_H

/*
 * Stands in for the engine: keeps what was posted, commits nothing. The linker takes these instead
 * of the store's. The world is a real one.
 */
#include "orchestrator/store/engine.h"

struct engine {
    struct world *world;
    struct policy policy;
    struct event_box *first; /* posted, oldest first */
    struct event_box *last;
    uint32_t count;
};

void fake_engine_init(struct engine *engine);
void fake_engine_fini(struct engine *engine);
/* Takes the oldest event out; NULL when there is none. The caller frees it. */
struct event_box *fake_engine_take(struct engine *engine);

#endif
