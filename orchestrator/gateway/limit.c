#include "orchestrator/gateway/limit.h"

#include <stdlib.h>

#include "common/pure/map.h"
#include "common/pure/mem.h"

#define SECOND_NS INT64_C(1000000000)
/* Buckets at once: 4 MiB. Beyond it strangers share one bucket until others are full again. */
#define MAX_KEYS 32768u

/*
 * A bucket is the moment at which it will be full: what was taken lies between now and then, one
 * second of it at most (the generic cell rate algorithm, ITU-T I.371).
 */
struct bucket {
    int64_t full_ns;
};

struct limiter {
    int64_t each_ns; /* one taken piece fills again in this time; 0 = no limit */
    struct map buckets;
    struct bucket shared;
    int64_t swept_ns;
};

struct limiter *limiter_new(uint32_t per_second)
{
    struct limiter *limiter = mem_new(1, sizeof(*limiter));

    limiter->each_ns = per_second > 0 ? SECOND_NS / per_second : 0;
    map_init(&limiter->buckets);
    return limiter;
}

void limiter_free(struct limiter *limiter)
{
    if (limiter == NULL)
        return;
    for (uint32_t i = 0; i < limiter->buckets.count; i++)
        free(map_at(&limiter->buckets, i));
    map_fini(&limiter->buckets);
    free(limiter);
}

uint32_t limiter_keys(const struct limiter *limiter)
{
    return limiter->buckets.count;
}

/* A full bucket says nothing that a new one would not. At most once a second: it reads them all. */
static void forget_full(struct limiter *limiter, int64_t now_ns)
{
    if (now_ns - limiter->swept_ns < SECOND_NS)
        return;
    limiter->swept_ns = now_ns;
    for (uint32_t i = limiter->buckets.count; i-- > 0;) {
        const struct map_entry *entry = &limiter->buckets.entries[i];
        struct bucket *bucket = entry->value;
        if (bucket->full_ns > now_ns)
            continue;
        struct map_entry copy = *entry; /* removing moves the last one here */
        (void)map_remove(&limiter->buckets, copy.key, copy.key_length);
        free(bucket);
    }
}

static struct bucket *bucket_of(struct limiter *limiter, const void *key, size_t size,
                                int64_t now_ns)
{
    struct bucket *bucket = map_get(&limiter->buckets, key, size);

    if (bucket != NULL)
        return bucket;
    if (limiter->buckets.count >= MAX_KEYS / 2)
        forget_full(limiter, now_ns);
    if (limiter->buckets.count >= MAX_KEYS)
        return &limiter->shared;
    bucket = mem_new(1, sizeof(*bucket));
    map_put(&limiter->buckets, key, size, bucket);
    return bucket;
}

uint32_t limiter_take(struct limiter *limiter, const void *key, size_t size, uint32_t cost,
                      int64_t now_us)
{
    int64_t now_ns = now_us * 1000;

    if (limiter->each_ns == 0)
        return 0;
    struct bucket *bucket = bucket_of(limiter, key, size, now_ns);
    int64_t from_ns = bucket->full_ns > now_ns ? bucket->full_ns : now_ns;
    int64_t full_ns = from_ns + (int64_t)cost * limiter->each_ns;
    int64_t over_ns = full_ns - now_ns - SECOND_NS;

    /* A cost above the whole bucket is taken from a full one: rare, but not refused for ever. */
    if (over_ns > 0 && from_ns > now_ns)
        return (uint32_t)((over_ns + SECOND_NS - 1) / SECOND_NS);
    bucket->full_ns = full_ns;
    return 0;
}
