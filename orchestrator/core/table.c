#include <stdlib.h>
#include <string.h>

#include "common/pure/mem.h"
#include "orchestrator/core/world_private.h"

static uint64_t id_of(const void *item)
{
    uint64_t id;

    memcpy(&id, item, sizeof(id));
    return id;
}

/* First index whose id is not lower. Ids grow, so the end is looked at first. */
static uint32_t find(const struct table *table, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = table->count;

    if (high == 0 || id_of(table->items[high - 1]) < id)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (id_of(table->items[middle]) < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void *table_get(const struct table *table, uint64_t id)
{
    uint32_t at = find(table, id);

    return at < table->count && id_of(table->items[at]) == id ? table->items[at] : NULL;
}

void table_put(struct table *table, void *item)
{
    uint32_t at = find(table, id_of(item));

    BUG_ON(at < table->count && id_of(table->items[at]) == id_of(item));
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 16;
        table->items = mem_resize(table->items, table->capacity, sizeof(*table->items));
    }
    memmove(table->items + at + 1, table->items + at, (table->count - at) * sizeof(*table->items));
    table->items[at] = item;
    table->count++;
}

void table_remove(struct table *table, uint64_t id)
{
    uint32_t at = find(table, id);

    if (at == table->count || id_of(table->items[at]) != id)
        return;
    table->count--;
    memmove(table->items + at, table->items + at + 1, (table->count - at) * sizeof(*table->items));
}

void table_fini(struct table *table, void (*free_item)(void *))
{
    for (uint32_t i = 0; i < table->count; i++)
        free_item(table->items[i]);
    free(table->items);
    *table = (struct table){0};
}
