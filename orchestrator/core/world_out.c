#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

/* Holds a few dozen job rows with their texts; larger pieces get a block of their own. */
#define ARENA_BLOCK ((size_t)64 << 10)

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    _Alignas(16) unsigned char bytes[];
};

void world_out_init(struct world_out *out)
{
    *out = (struct world_out){0};
}

void world_out_clear(struct world_out *out)
{
    while (out->memory != NULL) {
        struct arena_block *next = out->memory->next;
        free(out->memory);
        out->memory = next;
    }
    out->row_count = 0;
    out->effect_count = 0;
}

void world_out_fini(struct world_out *out)
{
    if (out == NULL)
        return;
    world_out_clear(out);
    free(out->rows);
    free(out->effects);
    world_out_init(out);
}

void *out_alloc(struct world_out *out, size_t size)
{
    struct arena_block *block = out->memory;

    size = (size + 15) & ~(size_t)15;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        block = mem_new(1, sizeof(*block) + room);
        block->size = room;
        block->next = out->memory;
        out->memory = block;
    }
    void *bytes = block->bytes + block->used;
    block->used += size;
    return bytes;
}

static const void *keep(struct world_out *out, const void *bytes, size_t length)
{
    if (bytes == NULL)
        return NULL;
    void *copy = out_alloc(out, length);
    memcpy(copy, bytes, length);
    return copy;
}

/* The world may free what a row points to before the batch is written. */
static void keep_pointers(struct world_out *out, struct row *row)
{
    if (row->kind == ROW_JOB) {
        const char *spec = row->job.spec;
        row->job.ask = keep(out, row->job.ask, sizeof(*row->job.ask));
        row->job.spec = keep(out, spec, spec != NULL ? strlen(spec) + 1 : 0);
        row->job.why = keep(out, row->job.why, sizeof(*row->job.why));
    } else if (row->kind == ROW_RECEIPT) {
        row->receipt.bytes = keep(out, row->receipt.bytes, row->receipt.bytes_length);
    }
}

void out_row(struct world_out *out, const struct row *row)
{
    if (out->row_count == out->row_capacity) {
        out->row_capacity = out->row_capacity ? out->row_capacity * 2 : 32;
        out->rows = mem_resize(out->rows, out->row_capacity, sizeof(*out->rows));
    }
    out->rows[out->row_count] = *row;
    keep_pointers(out, &out->rows[out->row_count++]);
}

void step_emit(struct step *step, const struct row *row)
{
    out_row(step->out, row);
    world_apply(step->world, row);
}

void step_effect(struct step *step, const struct effect *effect)
{
    struct world_out *out = step->out;

    if (out->effect_count == out->effect_capacity) {
        out->effect_capacity = out->effect_capacity ? out->effect_capacity * 2 : 32;
        out->effects = mem_resize(out->effects, out->effect_capacity, sizeof(*out->effects));
    }
    out->effects[out->effect_count++] = *effect;
}

uint64_t step_id(struct step *step)
{
    return step->world->next_id++;
}

struct uuid step_uuid(struct step *step)
{
    BUG_ON(step->fresh_count == 0);
    step->fresh_count--;
    return *step->fresh++;
}

void step_reply(struct step *step, const struct reply *reply)
{
    struct effect effect = {.kind = FX_REPLY, .reply = *reply};

    if (step->event->caller.request == 0)
        return;
    effect.reply.request = step->event->caller.request;
    effect.reply.why = keep(step->out, reply->why, sizeof(*reply->why));
    step_effect(step, &effect);
}

void step_close(struct step *step)
{
    if (step->out->row_count == step->first_row && step->world->next_id == step->first_id)
        return;
    step_emit(step,
              &(struct row){.kind = ROW_CONTROL, .control = {step->world->next_id, step->now}});
}
