#include "worker/core/cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/fs.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"

struct entry {
    uint8_t sha256[SHA256_SIZE];
    uint64_t size;
    struct timespec used;
};

struct entries {
    struct entry *item; /* owned */
    uint32_t count;
    uint32_t capacity;
};

static void add(struct entries *entries, const char *name, const struct stat *stat)
{
    struct entry entry = {.size = (uint64_t)stat->st_size, .used = stat->st_mtim};

    if (strlen(name) != SHA256_HEX - 1 || hex_parse(name, SHA256_SIZE, entry.sha256) != 0)
        return; /* nothing of ours */
    if (entries->count == entries->capacity) {
        entries->capacity = entries->capacity ? entries->capacity * 2 : 16;
        entries->item = mem_resize(entries->item, entries->capacity, sizeof(entries->item[0]));
    }
    entries->item[entries->count++] = entry;
}

static struct entries list(const char *folder, struct cache_use *ret_use)
{
    struct entries entries = {0};
    DIR *dir = opendir(folder);
    struct stat stat;

    *ret_use = (struct cache_use){0};
    if (!dir)
        return entries;
    for (const struct dirent *at = readdir(dir); at; at = readdir(dir)) {
        if (fstatat(dirfd(dir), at->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0
            && S_ISREG(stat.st_mode))
            add(&entries, at->d_name, &stat);
    }
    closedir(dir);
    for (uint32_t i = 0; i < entries.count; i++)
        ret_use->bytes += entries.item[i].size;
    ret_use->files = entries.count;
    return entries;
}

static int by_use(const void *left, const void *right)
{
    const struct entry *a = left;
    const struct entry *b = right;

    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    if (a->used.tv_nsec != b->used.tv_nsec)
        return a->used.tv_nsec < b->used.tv_nsec ? -1 : 1;
    return memcmp(a->sha256, b->sha256, SHA256_SIZE);
}

struct cache_use cache_trim(const char *folder, uint64_t limit, cache_is_used_f is_used, void *arg)
{
    struct cache_use use;
    struct entries entries = list(folder, &use);
    char path[FS_PATH];
    char hex[SHA256_HEX];

    if (entries.count > 1)
        qsort(entries.item, entries.count, sizeof(entries.item[0]), by_use);
    for (uint32_t i = 0; i < entries.count && use.bytes > limit; i++) {
        const struct entry *entry = &entries.item[i];

        if (is_used(entry->sha256, arg)
            || fs_path(path, "%s/%s", folder, hex_format(entry->sha256, SHA256_SIZE, hex)) != 0
            || unlink(path) != 0)
            continue;
        use.bytes -= entry->size;
        use.files--;
    }
    free(entries.item);
    return use;
}

struct cache_use cache_measure(const char *folder)
{
    struct cache_use use;
    struct entries entries = list(folder, &use);

    free(entries.item);
    return use;
}

void cache_touch(const char *path)
{
    (void)utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
}
