/* A tenant's archive, unpacked: nothing appears outside the target, and no more than the cap. */
#include "common/io/pack.h"
#include "tests/fuzz/fuzz.h"

#define CAP ((uint64_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char outer[FS_PATH];
    char target[FS_PATH];
    char archive[FS_PATH];
    struct err err = {0};

    fuzz_path(outer, "a");
    fuzz_path(target, "a/b");
    fuzz_path(archive, "archive");
    BUG_ON(fs_write(archive, bytes, size, 0600, NULL) != 0 || fs_mkdir(target, 0700, NULL) != 0);
    (void)!unpack_tree(archive, target, CAP, &err);
    BUG_ON(fs_remove_tree(target, NULL) != 0);
    BUG_ON(rmdir(outer) != 0); /* empty: nothing beside the target */
    return 0;
}
