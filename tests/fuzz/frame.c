/* A worker's frame up to the event it becomes; no signature is expected to hold. */
#include "common/io/frame.h"
#include "common/io/keys.h"
#include "orchestrator/fleet/from_worker.h"
#include "tests/fuzz/fuzz.h"

static int to_event(const struct worker_frame *frame, const Sheaf__Envelope *in,
                    struct event_box **ret_box)
{
    struct err err = {0};

    switch ((int)in->body_case) {
    case SHEAF__ENVELOPE__BODY_HELLO:
        return from_worker_hello(frame, in->hello, ret_box, &err);
    case SHEAF__ENVELOPE__BODY_TASK_EVENT:
        return from_worker_task(frame, in->task_event, ret_box, &err);
    case SHEAF__ENVELOPE__BODY_RECEIPT:
        return from_worker_receipt(frame, in->receipt, ret_box, &err);
    case SHEAF__ENVELOPE__BODY_NOTICE:
        return from_worker_notice(frame, in->notice, ret_box, &err);
    }
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct worker_frame frame = {1,   &(struct uuid){{1}}, (const uint8_t[KEY_SIZE]){1}, 1, bytes,
                                 size};
    struct event_box *box = NULL;
    struct frame_arena arena;

    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    const Sheaf__Envelope *in = (const Sheaf__Envelope *)(const void *)frame_decode(
        &sheaf__envelope__descriptor, bytes, size, &arena);
    if (in != NULL && to_event(&frame, in, &box) == 0)
        event_box_free(box);
    frame_arena_fini(&arena);
    return 0;
}
