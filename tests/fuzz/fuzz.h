#ifndef SHEAF_TESTS_FUZZ_FUZZ_H
#define SHEAF_TESTS_FUZZ_FUZZ_H

/* One libFuzzer target per file here; a broken promise of the parser is a BUG_ON, like a crash. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/pure/err.h"
#include "common/pure/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* PATH/name in a folder of this process on tmpfs, which outlives it only when it crashed. */
static char fuzz_folder[64];

static inline void fuzz_folder_remove(void)
{
    (void)!fs_remove_tree(fuzz_folder, NULL);
}

static inline void fuzz_path(char out[FS_PATH], const char *name)
{
    if (fuzz_folder[0] == '\0') {
        snprintf(fuzz_folder, sizeof(fuzz_folder), "/dev/shm/sheaf-fuzz-XXXXXX");
        BUG_ON(mkdtemp(fuzz_folder) == NULL);
        BUG_ON(atexit(fuzz_folder_remove) != 0);
    }
    BUG_ON(fs_path(out, "%s/%s", fuzz_folder, name) != 0);
}

/* Cuts the next record off: a length byte, then as many bytes or what is left. False at the end. */
static inline bool fuzz_record(const uint8_t **bytes, size_t *size, const uint8_t **ret_record,
                               size_t *ret_length)
{
    if (*size == 0)
        return false;
    size_t length = (*bytes)[0] < *size ? (*bytes)[0] : *size - 1;
    *ret_record = *bytes + 1;
    *ret_length = length;
    *bytes += length + 1;
    *size -= length + 1;
    return true;
}

#endif
