/* Boxes without an engine: the linker takes these instead of the store's. */
#include <stdlib.h>

#include "common/pure/mem.h"
#include "orchestrator/store/engine.h"

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
