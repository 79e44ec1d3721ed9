/* A worker's journal of arbitrary bytes: recovery cuts it once, and what is left is whole. */
#include "worker/core/journal.h"
#include "tests/fuzz/fuzz.h"

struct seen {
    size_t records;
    size_t bytes;
};

static void on_record(uint32_t type, const uint8_t *bytes, size_t size, void *arg)
{
    struct seen *seen = arg;

    seen->records += type != 0;
    for (size_t i = 0; i < size; i++)
        seen->bytes += 1u + (bytes[i] >> 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct journal *journal = NULL;
    struct seen first = {0};
    struct seen second = {0};
    struct err err = {0};
    uint64_t cut = 0;
    char path[FS_PATH];

    fuzz_path(path, "journal");
    BUG_ON(fs_write(path, bytes, size, 0600, NULL) != 0);
    if (journal_open(path, on_record, &first, &journal, &cut, &err) != 0)
        return 0;
    journal_close(journal);
    BUG_ON(journal_open(path, on_record, &second, &journal, &cut, &err) != 0 || cut != 0);
    BUG_ON(first.records != second.records || first.bytes != second.bytes);
    journal_close(journal);
    return 0;
}
