#ifndef SHEAF_WORKER_CORE_CACHE_H
#define SHEAF_WORKER_CORE_CACHE_H

/*
 * Inputs that stay on this machine, STATE/cache/SHA256, so that the next job with the same code
 * fetches nothing. Bound by size; what was used longest ago goes first. Files alone are the state:
 * the time of a file is that of its last use. Knows neither tasks nor transfers.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/io/hash.h"

struct cache_use {
    uint64_t bytes;
    uint32_t files;
};

typedef bool (*cache_is_used_f)(const uint8_t sha256[SHA256_SIZE], void *arg);

/*
 * Removes files until `limit` bytes are left at most, oldest use first, but none that is_used()
 * names: those alone may be more than the limit. Returns what is left. O(files log files).
 */
struct cache_use cache_trim(const char *folder, uint64_t limit, cache_is_used_f is_used, void *arg);
struct cache_use cache_measure(const char *folder);
/* The file was used now. */
void cache_touch(const char *path);

#endif
