#ifndef SHEAF_COMMON_PURE_MAP_H
#define SHEAF_COMMON_PURE_MAP_H

/*
 * Hash index from a byte-string key to a pointer. Keys are copied. Iteration order is the order of
 * insertion as long as nothing was removed, so that a replay sees the same order; after a removal
 * the last entry takes the hole. Values are borrowed: the map never frees them.
 */
#include <stddef.h>
#include <stdint.h>

struct map_entry {
    void *value;
    uint64_t hash;
    uint32_t key_length;
    unsigned char key[36]; /* MAP_MAX_KEY bytes at most */
};

#define MAP_MAX_KEY 36

struct map {
    struct map_entry *entries; /* dense, `count` long */
    uint32_t *buckets;         /* index + 1, 0 = free; capacity is a power of two */
    uint32_t count;
    uint32_t entry_capacity;
    uint32_t bucket_count;
};

void map_init(struct map *map);
void map_fini(struct map *map);
/* Adds or replaces. key_length ≤ MAP_MAX_KEY. */
void map_put(struct map *map, const void *key, size_t key_length, void *value);
/* NULL if absent. O(1). */
void *map_get(const struct map *map, const void *key, size_t key_length);
/* Removes and returns the value; NULL if absent. */
void *map_remove(struct map *map, const void *key, size_t key_length);

static inline void map_put_id(struct map *map, uint64_t id, void *value)
{
    map_put(map, &id, sizeof(id), value);
}

static inline void *map_get_id(const struct map *map, uint64_t id)
{
    return map_get(map, &id, sizeof(id));
}

static inline void *map_remove_id(struct map *map, uint64_t id)
{
    return map_remove(map, &id, sizeof(id));
}

/* for (uint32_t i = 0; i < map->count; i++) map_at(map, i) */
static inline void *map_at(const struct map *map, uint32_t index)
{
    return map->entries[index].value;
}

#endif
