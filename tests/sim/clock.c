/* Chance, the trace and virtual time. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "tests/sim/sim_private.h"

/* -- chance: splitmix64 (Steele, Lea, Flood 2014) --------------------------------------------- */

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

uint64_t chance(struct sim *sim, uint64_t below)
{
    sim->chance += 0x9e3779b97f4a7c15u;
    return below == 0 ? 0 : mix(sim->chance) % below;
}

bool chance_ppm(struct sim *sim, uint32_t ppm)
{
    return chance(sim, PPM) < ppm;
}

usec_t chance_span(struct sim *sim, usec_t least, usec_t most)
{
    return least + (usec_t)chance(sim, (uint64_t)(most - least) + 1);
}

uint64_t chance_of(const struct sim *sim, uint64_t a, uint64_t b, uint64_t c)
{
    return mix(mix(mix(sim->options.seed + 1) ^ mix(a + 3)) ^ mix(b + 5)
               ^ (c * 0x9e3779b97f4a7c15u));
}

struct uuid sim_uuid(struct sim *sim)
{
    uint8_t random[10] = {0};
    uint64_t count = ++sim->uuids;

    for (size_t i = 0; i < 8; i++)
        random[i + 2] = (uint8_t)(count >> (8 * (7 - i)));
    return uuid_make((uint64_t)(sim->now / 1000), random);
}

/* -- the trace: FNV-1a over integers and tags ---------------------------------------------------
 */

static void hash_int(struct sim *sim, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        sim->hash ^= (value >> (8 * i)) & 0xff;
        sim->hash *= 1099511628211u;
    }
}

void sim_note(struct sim *sim, const char *tag, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    for (const char *at = tag; *at != '\0'; at++)
        sim->hash = (sim->hash ^ (unsigned char)*at) * 1099511628211u;
    hash_int(sim, (uint64_t)(sim->now - SIM_START));
    hash_int(sim, a);
    hash_int(sim, b);
    hash_int(sim, c);
    hash_int(sim, d);
    if (sim->options.trace)
        printf("%12lld %-18s %llu %llu %llu %llu\n", (long long)(sim->now - SIM_START), tag,
               (unsigned long long)a, (unsigned long long)b, (unsigned long long)c,
               (unsigned long long)d);
}

void sim_break(struct sim *sim, const char *format, ...)
{
    va_list args;

    if (sim->broken)
        return;
    sim->broken = true;
    sim->result.broken = true;
    sim->result.at_us = sim->now - SIM_START;
    va_start(args, format);
    vsnprintf(sim->result.rule, sizeof(sim->result.rule), format, args);
    va_end(args);
}

/* -- time: a binary heap by (time, order) --------------------------------------------------------
 */

static bool is_before(const struct timer *a, const struct timer *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void swap(struct sim *sim, uint32_t i, uint32_t j)
{
    struct timer kept = sim->heap[i];

    sim->heap[i] = sim->heap[j];
    sim->heap[j] = kept;
}

void sim_after(struct sim *sim, usec_t span, struct call call)
{
    uint32_t i = sim->heap_count;

    if (sim->heap_count == sim->heap_capacity) {
        sim->heap_capacity = sim->heap_capacity ? sim->heap_capacity * 2 : 256;
        sim->heap = mem_resize(sim->heap, sim->heap_capacity, sizeof(*sim->heap));
    }
    sim->heap[sim->heap_count++] = (struct timer){sim->now + span, ++sim->order, call};
    while (i > 0 && is_before(&sim->heap[i], &sim->heap[(i - 1) / 2])) {
        swap(sim, i, (i - 1) / 2);
        i = (i - 1) / 2;
    }
}

bool clock_next(struct sim *sim, struct timer *ret_timer)
{
    uint32_t i = 0;

    if (sim->heap_count == 0)
        return false;
    *ret_timer = sim->heap[0];
    sim->heap[0] = sim->heap[--sim->heap_count];
    for (;;) {
        uint32_t least = i;
        for (uint32_t k = 2 * i + 1; k <= 2 * i + 2 && k < sim->heap_count; k++) {
            if (is_before(&sim->heap[k], &sim->heap[least]))
                least = k;
        }
        if (least == i)
            return true;
        swap(sim, i, least);
        i = least;
    }
}

void clock_fini(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->heap_count; i++)
        free(sim->heap[i].call.msg);
    free(sim->heap);
}
