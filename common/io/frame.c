#include "common/io/frame.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "common/pure/utf8.h"

#define BLOCK_SIZE ((size_t)4096)
#define ALIGNMENT  ((size_t)16)

struct block {
    struct block *next;
    size_t size; /* of bytes */
    size_t used;
    size_t padding; /* keeps bytes aligned */
    uint8_t bytes[];
};

static void *arena_alloc(void *data, size_t size)
{
    struct frame_arena *arena = data;
    struct block *block = arena->blocks;

    if (size > arena->budget)
        return NULL;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
        if (room + sizeof(*block) > arena->budget - arena->used) {
            room = size;
            if (room + sizeof(*block) > arena->budget - arena->used)
                return NULL;
        }
        block = malloc(sizeof(*block) + room);
        if (block == NULL)
            return NULL;
        *block = (struct block){.next = arena->blocks, .size = room};
        arena->blocks = block;
        arena->used += room + sizeof(*block);
    }
    void *bytes = block->bytes + block->used;
    block->used += size;
    return bytes;
}

static void arena_free(void *data, void *bytes)
{
    /* All at once, in frame_arena_fini. */
    (void)data;
    (void)bytes;
}

void frame_arena_init(struct frame_arena *arena, size_t budget)
{
    *arena = (struct frame_arena){
        .allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = arena},
        .budget = budget,
    };
}

void frame_arena_fini(struct frame_arena *arena)
{
    struct block *block = arena->blocks;

    while (block != NULL) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    arena->blocks = NULL;
    arena->used = 0;
}

static bool message_is_valid(const ProtobufCMessage *message);

static bool value_is_valid(const ProtobufCFieldDescriptor *field, const void *value)
{
    if (value == NULL)
        return true;
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return utf8_is_valid(value, strlen(value));
    return message_is_valid(value);
}

/*
 * protobuf-c does not check that strings are UTF-8; jansson and PostgreSQL refuse others later. It
 * takes field number 0 where that is spelled in two bytes, and then writes what it will not read.
 */
static bool message_is_valid(const ProtobufCMessage *message)
{
    const uint8_t *base = (const uint8_t *)message;

    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        if (message->unknown_fields[i].tag == 0)
            return false;
    }
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const void *const *member = (const void *const *)(const void *)(base + field->offset);
        if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
            const void *const *items = *(const void *const *const *)member;
            for (size_t k = 0; k < count; k++) {
                if (!value_is_valid(field, items[k]))
                    return false;
            }
            continue;
        }
        if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0
            && *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
            continue;
        if (!value_is_valid(field, *member))
            return false;
    }
    return true;
}

ProtobufCMessage *frame_decode(const ProtobufCMessageDescriptor *type, const void *bytes,
                               size_t size, struct frame_arena *arena)
{
    if (size > FRAME_MAX)
        return NULL;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &arena->allocator, size, bytes);
    if (message == NULL || !message_is_valid(message))
        return NULL;
    return message;
}

struct sink {
    ProtobufCBuffer base; /* first: protobuf-c hands its address back */
    struct buf *out;
};

static void sink_append(ProtobufCBuffer *base, size_t length, const uint8_t *bytes)
{
    struct sink *sink = (struct sink *)(void *)base;

    buf_append(sink->out, bytes, length);
}

void frame_encode(const ProtobufCMessage *message, struct buf *out)
{
    struct sink sink = {.base = {.append = sink_append}, .out = out};

    protobuf_c_message_pack_to_buffer(message, &sink.base);
}
