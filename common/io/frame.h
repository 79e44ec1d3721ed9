#ifndef SHEAF_COMMON_IO_FRAME_H
#define SHEAF_COMMON_IO_FRAME_H

/*
 * Protobuf messages and frames of bytes. Decoding checks the size first and allocates from a
 * budget: 1 MiB of empty repeated sub-messages would otherwise cost 60 MiB.
 */
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"

#define FRAME_MAX        ((size_t)1 << 20)   /* one message of an enrolled peer */
#define FRAME_MAX_FIRST  ((size_t)256 << 10) /* … before it said who it is */
#define FRAME_MAX_BUDGET ((size_t)16 << 20)  /* memory of one decoded message */

/* Owns everything one decoded message points to. */
struct frame_arena {
    ProtobufCAllocator allocator;
    size_t used;
    size_t budget;
    void *blocks;
};

void frame_arena_init(struct frame_arena *arena, size_t budget);
/* Frees all messages decoded into it. */
void frame_arena_fini(struct frame_arena *arena);

/* NULL when bytes are no such message, too large, over budget or nested beyond schema. */
ProtobufCMessage *frame_decode(const ProtobufCMessageDescriptor *type, const void *bytes,
                               size_t size, struct frame_arena *arena);
/* Appends the encoded message. */
void frame_encode(const ProtobufCMessage *message, struct buf *out);

#endif
