#ifndef SHEAF_COMMON_IO_PACK_H
#define SHEAF_COMMON_IO_PACK_H

/*
 * Trees as tar archives compressed by zstd (libarchive), the same bytes for the same tree: entries
 * sorted, owner 0, times 0. Unpacking refuses absolute paths, .., links that leave the target,
 * devices, and more than the given sizes.
 */
#include <stdint.h>

#include "common/pure/err.h"

#define PACK_MAX_BYTES   ((uint64_t)4 << 30)
#define PACK_MAX_ENTRIES 100000u

/* Packs file or folder `source` so that entries start with `name`. `archive` is created. */
int pack_tree(const char *source, const char *name, const char *archive,
              struct err *err) SHEAF_MUST_USE;
/* Unpacks into the existing folder `target`. max_bytes bounds the unpacked sum. */
int unpack_tree(const char *archive, const char *target, uint64_t max_bytes,
                struct err *err) SHEAF_MUST_USE;

#endif
