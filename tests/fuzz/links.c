/* What a worker measured of its peers, up to the events it becomes. */
#include "common/io/frame.h"
#include "common/io/keys.h"
#include "orchestrator/fleet/from_worker.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct worker_frame frame = {1,   &(struct uuid){{1}}, (const uint8_t[KEY_SIZE]){1}, 1, bytes,
                                 size};
    struct frame_arena arena;
    struct ev_link link;
    struct err err;

    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    const Sheaf__LinkReport *in = (const Sheaf__LinkReport *)(const void *)frame_decode(
        &sheaf__link_report__descriptor, bytes, size, &arena);
    for (size_t i = 0; in != NULL && i < in->n_links; i++)
        if (from_worker_link(&frame, in->links[i], &link, &err) == 0)
            event_box_free(from_worker_link_box(&link, in->links[i]));
    frame_arena_fini(&arena);
    return 0;
}
