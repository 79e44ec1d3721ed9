/* Every other message of ours (the first byte says which): decoded, encoded, decoded again. */
#include "common/io/frame.h"
#include "proto/bulk.pb-c.h"
#include "proto/command.pb-c.h"
#include "proto/receipt.pb-c.h"
#include "proto/worker.pb-c.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &sheaf__bulk__descriptor,    &sheaf__command__descriptor, &sheaf__command_reply__descriptor,
        &sheaf__receipt__descriptor, &sheaf__order__descriptor,   &sheaf__change_hint__descriptor,
        &sheaf__claim__descriptor,
    };
    struct frame_arena arena;
    struct buf out;

    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[bytes[0] % (sizeof(types) / sizeof(types[0]))];
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    buf_init(&out, 0);
    const ProtobufCMessage *message = frame_decode(type, bytes + 1, size - 1, &arena);
    if (message != NULL) {
        frame_encode(message, &out);
        BUG_ON(out.length <= FRAME_MAX
               && frame_decode(type, out.data ? out.data : "", out.length, &arena) == NULL);
    }
    buf_fini(&out);
    frame_arena_fini(&arena);
    return 0;
}
