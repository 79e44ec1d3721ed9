#include "common/pure/map.h"

#include <stdlib.h>
#include <string.h>

#include "common/pure/err.h"
#include "common/pure/mem.h"

#define FIRST_BUCKETS 16u

/* FNV-1a with a final mix: keys are ids and hashes, chosen by us or random, not by an attacker. */
static uint64_t hash_bytes(const void *key, size_t length)
{
    const unsigned char *at = key;
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ at[i]) * 1099511628211u;
    hash ^= hash >> 32;
    hash *= 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

/* The bucket that holds the key, or the free one where it belongs. */
static uint32_t find_bucket(const struct map *map, const void *key, size_t length, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (map->bucket_count - 1);

    while (map->buckets[at] != 0) {
        const struct map_entry *entry = &map->entries[map->buckets[at] - 1];
        if (entry->hash == hash && entry->key_length == length
            && memcmp(entry->key, key, length) == 0)
            break;
        at = (at + 1) & (map->bucket_count - 1);
    }
    return at;
}

static void grow(struct map *map)
{
    uint32_t bucket_count = map->bucket_count ? map->bucket_count * 2 : FIRST_BUCKETS;

    free(map->buckets);
    map->buckets = mem_new(bucket_count, sizeof(*map->buckets));
    map->bucket_count = bucket_count;
    map->entry_capacity = bucket_count / 2;
    map->entries = mem_resize(map->entries, map->entry_capacity, sizeof(*map->entries));
    for (uint32_t i = 0; i < map->count; i++) {
        uint32_t at = (uint32_t)map->entries[i].hash & (bucket_count - 1);
        while (map->buckets[at] != 0)
            at = (at + 1) & (bucket_count - 1);
        map->buckets[at] = i + 1;
    }
}

void map_init(struct map *map)
{
    *map = (struct map){0};
}

void map_fini(struct map *map)
{
    if (map == NULL)
        return;
    free(map->entries);
    free(map->buckets);
    map_init(map);
}

void map_put(struct map *map, const void *key, size_t key_length, void *value)
{
    BUG_ON(key_length > MAP_MAX_KEY);
    if (map->count >= map->entry_capacity)
        grow(map);
    uint64_t hash = hash_bytes(key, key_length);
    uint32_t at = find_bucket(map, key, key_length, hash);
    if (map->buckets[at] != 0) {
        map->entries[map->buckets[at] - 1].value = value;
        return;
    }
    struct map_entry *entry = &map->entries[map->count++];
    *entry = (struct map_entry){.value = value, .hash = hash, .key_length = (uint32_t)key_length};
    memcpy(entry->key, key, key_length);
    map->buckets[at] = map->count;
}

void *map_get(const struct map *map, const void *key, size_t key_length)
{
    if (map->count == 0 || key_length > MAP_MAX_KEY)
        return NULL;
    uint32_t at = find_bucket(map, key, key_length, hash_bytes(key, key_length));
    return map->buckets[at] == 0 ? NULL : map->entries[map->buckets[at] - 1].value;
}

/* Linear probing: closes the hole so that later keys of the run stay reachable. */
static void close_hole(struct map *map, uint32_t hole)
{
    uint32_t mask = map->bucket_count - 1;
    uint32_t at = hole;

    for (;;) {
        at = (at + 1) & mask;
        if (map->buckets[at] == 0)
            break;
        uint32_t home = (uint32_t)map->entries[map->buckets[at] - 1].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->buckets[hole] = map->buckets[at];
            hole = at;
        }
    }
    map->buckets[hole] = 0;
}

void *map_remove(struct map *map, const void *key, size_t key_length)
{
    if (map->count == 0 || key_length > MAP_MAX_KEY)
        return NULL;
    uint32_t at = find_bucket(map, key, key_length, hash_bytes(key, key_length));
    if (map->buckets[at] == 0)
        return NULL;
    uint32_t index = map->buckets[at] - 1;
    void *value = map->entries[index].value;
    close_hole(map, at);
    uint32_t last = --map->count;
    if (index != last) {
        const struct map_entry *moved = &map->entries[last];
        uint32_t moved_at = find_bucket(map, moved->key, moved->key_length, moved->hash);
        map->entries[index] = *moved;
        map->buckets[moved_at] = index + 1;
    }
    return value;
}
