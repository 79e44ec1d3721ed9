#include "orchestrator/gateway/content.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/pure/id.h"
#include "common/pure/mem.h"

struct content {
    char folder[FS_PATH];
    /* Finding content and counting on it, against finding it old and removing it. */
    pthread_mutex_t removal;
};

static int io_error(struct err *err, const char *what, const char *path)
{
    return err_set(err, errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO, "%s %s: %s",
                   what, path, strerror(errno));
}

static int object_path(const struct content *content, const uint8_t sha256[SHA256_SIZE],
                       char out[FS_PATH])
{
    char hex[SHA256_HEX];

    hex_format(sha256, SHA256_SIZE, hex);
    return fs_path(out, "%s/objects/%.2s/%s", content->folder, hex, hex);
}

static int upload_path(const struct content *content, const struct content_key *key, bool parts,
                       char out[FS_PATH])
{
    char hex[SHA256_HEX];

    return fs_path(out, "%s/%s/%s-%s", content->folder, parts ? "parts" : "streams", key->owner,
                   hex_format(key->sha256, SHA256_SIZE, hex));
}

/*
 * Left behind when an upload in parts became content: its owner has proved to have the bytes, so
 * that a commit whose answer got lost needs no second upload. Swept like an upload.
 */
static bool is_sealed(const struct content *content, const struct content_key *key)
{
    char path[FS_PATH];
    char mark[FS_PATH];
    uint64_t size;

    return upload_path(content, key, true, path) == 0 && fs_path(mark, "%s.sealed", path) == 0
           && access(mark, F_OK) == 0 && content_has(content, key->sha256, &size)
           && size == key->size;
}

static void mark_sealed(const struct content *content, const struct content_key *key)
{
    char path[FS_PATH];
    char mark[FS_PATH];

    if (upload_path(content, key, true, path) != 0 || fs_path(mark, "%s.sealed", path) != 0)
        return;
    int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        close(fd);
}

static uint32_t part_count(uint64_t size)
{
    return (uint32_t)((size + CONTENT_PART - 1) / CONTENT_PART);
}

static size_t part_size(uint64_t size, uint32_t part)
{
    uint64_t left = size - (uint64_t)part * CONTENT_PART;

    return left < CONTENT_PART ? (size_t)left : CONTENT_PART;
}

/* -- the store ------------------------------------------------------------------------------ */

static void sweep(const char *folder)
{
    DIR *dir = opendir(folder);
    time_t now = (time_t)(clock_wall_us() / 1000000);
    struct stat st;

    if (dir == NULL)
        return;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_name[0] == '.')
            continue;
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0
            && now - st.st_mtime > (time_t)CONTENT_STALE_S)
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
}

int content_new(const char *folder, struct content **ret_content, struct err *err)
{
    static const char *const kinds[] = {"objects", "parts", "streams"};
    char path[FS_PATH];
    int rc = 0;

    for (size_t i = 0; i < 3 && rc == 0; i++) {
        rc = fs_path(path, "%s/%s", folder, kinds[i]);
        if (rc == 0)
            rc = fs_mkdir(path, 0700, err);
        if (rc == 0 && i > 0)
            sweep(path);
    }
    if (rc != 0)
        return rc;
    struct content *content = mem_new(1, sizeof(*content));
    snprintf(content->folder, sizeof(content->folder), "%s", folder);
    BUG_ON(pthread_mutex_init(&content->removal, NULL) != 0);
    *ret_content = content;
    return 0;
}

void content_free(struct content *content)
{
    if (content != NULL)
        (void)pthread_mutex_destroy(&content->removal);
    free(content);
}

uint64_t content_free_bytes(const struct content *content)
{
    return fs_free_bytes(content->folder);
}

bool content_has(const struct content *content, const uint8_t sha256[SHA256_SIZE],
                 uint64_t *ret_size)
{
    char path[FS_PATH];
    struct stat st;

    if (object_path(content, sha256, path) != 0 || stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    *ret_size = (uint64_t)st.st_size;
    return true;
}

int content_open(const struct content *content, const uint8_t sha256[SHA256_SIZE], int *ret_fd,
                 uint64_t *ret_size, struct err *err)
{
    char path[FS_PATH];
    struct stat st;
    int rc = object_path(content, sha256, path);

    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return err_set(err, ERR_NOT_FOUND, "the content is not in this store");
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = io_error(err, "open", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int check_room(const struct content *content, uint64_t size, struct err *err)
{
    if (size > CONTENT_MAX)
        return err_set(err, ERR_BODY_TOO_LARGE, "content is at most 4 GiB");
    if (fs_free_bytes(content->folder) < size + CONTENT_SPARE)
        return err_set(err, ERR_NO_SPACE, "the content store has no room for %llu bytes",
                       (unsigned long long)size);
    return 0;
}

/* -- in parts ------------------------------------------------------------------------------- */

/* Opens file and map of an upload; create makes both. */
static int parts_open(const struct content *content, const struct content_key *key, bool create,
                      int ret_fds[2], struct err *err)
{
    char path[FS_PATH];
    char map[FS_PATH];
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0);
    int rc = upload_path(content, key, true, path);

    if (rc == 0)
        rc = fs_path(map, "%s.map", path);
    if (rc != 0)
        return rc;
    ret_fds[0] = open(path, flags, 0600);
    ret_fds[1] = ret_fds[0] >= 0 ? open(map, flags, 0600) : -1;
    if (ret_fds[1] >= 0)
        return 0;
    rc = errno == ENOENT ? err_set(err, ERR_NOT_FOUND, "no such upload: begin it first")
                         : io_error(err, "open", path);
    if (ret_fds[0] >= 0)
        close(ret_fds[0]);
    return rc;
}

static void parts_close(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

int content_begin(struct content *content, const struct content_key *key, uint8_t *ret_parts,
                  uint32_t *ret_count, struct err *err)
{
    uint32_t count = part_count(key->size);
    struct stat st;
    int fds[2];
    int rc;

    memset(ret_parts, 0, CONTENT_MAX_PARTS);
    content_use(content, key->sha256);
    if (is_sealed(content, key)) {
        memset(ret_parts, 1, count);
        *ret_count = count;
        return 0;
    }
    rc = check_room(content, key->size, err);
    if (rc == 0)
        rc = parts_open(content, key, true, fds, err);
    if (rc != 0)
        return rc;
    if (fstat(fds[0], &st) != 0 || (uint64_t)st.st_size != key->size) {
        /* New, or of another size: sparse until the parts come. */
        if (ftruncate(fds[1], 0) != 0 || ftruncate(fds[0], (off_t)key->size) != 0
            || ftruncate(fds[1], (off_t)count) != 0)
            rc = io_error(err, "make", "upload");
    } else if (count > 0 && pread(fds[1], ret_parts, count, 0) < 0) {
        rc = io_error(err, "read", "upload");
    }
    parts_close(fds);
    if (rc == 0)
        *ret_count = count;
    return rc;
}

static int write_all(int fd, const void *bytes, size_t size, uint64_t offset)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t written = pwrite(fd, at, size, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        at += written;
        size -= (size_t)written;
        offset += (uint64_t)written;
    }
    return 0;
}

int content_put_part(struct content *content, const struct content_key *key, uint32_t part,
                     const void *bytes, size_t size, struct err *err)
{
    static const uint8_t received = 1;
    struct stat st;
    int fds[2];
    int rc = parts_open(content, key, false, fds, err);

    if (rc != 0)
        return rc;
    if (fstat(fds[0], &st) != 0)
        rc = io_error(err, "read", "upload");
    else if (part >= part_count((uint64_t)st.st_size))
        rc =
            err_set(err, ERR_OUT_OF_RANGE, "part %u of %u", part, part_count((uint64_t)st.st_size));
    else if (size != part_size((uint64_t)st.st_size, part))
        rc = err_set(err, ERR_OUT_OF_RANGE, "part %u has %zu bytes, not %zu", part,
                     part_size((uint64_t)st.st_size, part), size);
    else if (write_all(fds[0], bytes, size, (uint64_t)part * CONTENT_PART) != 0
             || write_all(fds[1], &received, 1, part) != 0)
        rc = io_error(err, "write", "upload");
    parts_close(fds);
    return rc;
}

bool content_upload_size(const struct content *content, struct content_key *key)
{
    char path[FS_PATH];
    struct stat st;

    if (upload_path(content, key, true, path) != 0 || stat(path, &st) != 0)
        return false;
    key->size = (uint64_t)st.st_size;
    return true;
}

/* -- in order ------------------------------------------------------------------------------- */

int content_stream(struct content *content, const struct content_key *key, uint64_t *ret_offset,
                   int *ret_fd, struct err *err)
{
    char path[FS_PATH];
    struct stat st;
    int rc = check_room(content, key->size, err);

    if (rc == 0)
        rc = upload_path(content, key, false, path);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fstat(fd, &st) != 0
        || ((uint64_t)st.st_size > key->size && ftruncate(fd, 0) != 0)) {
        rc = io_error(err, "open", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *ret_offset = (uint64_t)st.st_size > key->size ? 0 : (uint64_t)st.st_size;
    *ret_fd = fd;
    return 0;
}

int content_append(int fd, const struct content_key *key, uint64_t offset, const void *bytes,
                   size_t size, struct err *err)
{
    if (offset > key->size || size > key->size - offset)
        return err_set(err, ERR_OUT_OF_RANGE, "more bytes than were announced");
    if (write_all(fd, bytes, size, offset) != 0)
        return io_error(err, "write", "upload");
    return 0;
}

/* -- sealing -------------------------------------------------------------------------------- */

static int sync_folder(const char *path, struct err *err)
{
    char folder[FS_PATH];
    int rc = fs_path(folder, "%.*s", (int)(strrchr(path, '/') - path), path);

    if (rc != 0)
        return rc;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        rc = io_error(err, "sync", folder);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int parts_are_whole(const struct content *content, const struct content_key *key,
                           struct err *err)
{
    uint32_t count = part_count(key->size);
    uint8_t *parts = mem_new(CONTENT_MAX_PARTS, 1);
    struct stat st;
    int fds[2];
    int rc = parts_open(content, key, false, fds, err);

    if (rc == 0) {
        if (fstat(fds[0], &st) != 0 || (uint64_t)st.st_size != key->size
            || pread(fds[1], parts, count, 0) != (ssize_t)count)
            rc = err_set(err, ERR_STATE_CONFLICT, "the upload was begun with another size");
        for (uint32_t i = 0; i < count && rc == 0; i++) {
            if (parts[i] == 0)
                rc = err_set(err, ERR_STATE_CONFLICT, "part %u of %u is missing", i, count);
        }
        parts_close(fds);
    }
    free(parts);
    return rc;
}

static void upload_remove(const struct content *content, const struct content_key *key, bool parts)
{
    char path[FS_PATH];
    char map[FS_PATH];

    if (upload_path(content, key, parts, path) != 0)
        return;
    (void)unlink(path);
    if (parts && fs_path(map, "%s.map", path) == 0)
        (void)unlink(map);
}

/* The bytes are right: make them durable, then give them their name. */
static int publish(const struct content *content, const struct content_key *key, const char *path,
                   struct err *err)
{
    char object[FS_PATH];
    char folder[FS_PATH];
    int rc = object_path(content, key->sha256, object);

    if (rc == 0)
        rc = fs_path(folder, "%.*s", (int)(strrchr(object, '/') - object), object);
    if (rc == 0)
        rc = fs_mkdir(folder, 0700, err);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd) != 0 || fchmod(fd, 0400) != 0)
        rc = io_error(err, "sync", path);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && rename(path, object) != 0)
        rc = io_error(err, "rename", path);
    if (rc == 0)
        rc = sync_folder(object, err);
    if (rc == 0)
        rc = sync_folder(folder, err);
    return rc;
}

int content_seal(struct content *content, const struct content_key *key, bool parts,
                 struct err *err)
{
    char path[FS_PATH];
    uint8_t hash[SHA256_SIZE];
    uint64_t size;

    content_use(content, key->sha256); /* if it is there: from here on it stays */
    if (parts && is_sealed(content, key))
        return 0;
    int rc = parts ? parts_are_whole(content, key, err) : 0;
    if (rc == 0)
        rc = upload_path(content, key, parts, path);
    if (rc == 0 && access(path, F_OK) != 0)
        rc = err_set(err, ERR_NOT_FOUND, "no such upload: begin it first");
    if (rc == 0)
        rc = sha256_file(path, hash, &size, err);
    if (rc != 0)
        return rc;
    if (size != key->size || !bytes_equal(hash, key->sha256, SHA256_SIZE)) {
        upload_remove(content, key, parts);
        return err_set(err, ERR_HASH_MISMATCH, "the %llu bytes received hash to something else",
                       (unsigned long long)size);
    }
    if (!content_has(content, key->sha256, &size)) {
        rc = publish(content, key, path, err);
        if (rc != 0)
            return rc;
    }
    if (parts)
        mark_sealed(content, key);
    upload_remove(content, key, parts);
    return 0;
}

/* -- what goes -------------------------------------------------------------------------------- */

/* Its time is that of its last use. */
void content_use(struct content *content, const uint8_t sha256[SHA256_SIZE])
{
    char path[FS_PATH];

    if (object_path(content, sha256, path) != 0)
        return;
    (void)pthread_mutex_lock(&content->removal);
    (void)utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
    (void)pthread_mutex_unlock(&content->removal);
}

static bool is_old(const struct stat *st, int64_t cut_us)
{
    return S_ISREG(st->st_mode)
           && (int64_t)st->st_mtim.tv_sec * 1000000 + st->st_mtim.tv_nsec / 1000 < cut_us;
}

/* Keeps the smallest ones, in order. */
static void old_insert(struct content_old *old, const uint8_t sha256[SHA256_SIZE])
{
    uint32_t at = old->count;

    while (at > 0 && memcmp(old->sha256[at - 1], sha256, SHA256_SIZE) > 0)
        at--;
    if (at == CONTENT_OLD_MAX)
        return;
    if (old->count == CONTENT_OLD_MAX)
        old->count--;
    memmove(old->sha256[at + 1], old->sha256[at], (size_t)(old->count - at) * SHA256_SIZE);
    memcpy(old->sha256[at], sha256, SHA256_SIZE);
    old->count++;
}

void content_list_old(const struct content *content, uint32_t folder, int64_t cut_us,
                      struct content_old *old)
{
    uint8_t after[SHA256_SIZE] = {0};
    bool from_first = old->count == 0;
    char path[FS_PATH];
    uint8_t sha256[SHA256_SIZE];
    struct stat st;
    DIR *dir;

    if (!from_first)
        memcpy(after, old->sha256[old->count - 1], SHA256_SIZE);
    old->count = 0;
    if (fs_path(path, "%s/objects/%02x", content->folder, folder) != 0)
        return;
    dir = opendir(path);
    if (dir == NULL)
        return;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strlen(entry->d_name) == SHA256_HEX - 1
            && hex_parse(entry->d_name, SHA256_SIZE, sha256) == 0
            && (from_first || memcmp(sha256, after, SHA256_SIZE) > 0)
            && fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0
            && is_old(&st, cut_us))
            old_insert(old, sha256);
    }
    closedir(dir);
}

bool content_remove(struct content *content, const uint8_t sha256[SHA256_SIZE], int64_t cut_us)
{
    char path[FS_PATH];
    struct stat st;
    bool removed;

    if (object_path(content, sha256, path) != 0)
        return false;
    (void)pthread_mutex_lock(&content->removal);
    removed = lstat(path, &st) == 0 && is_old(&st, cut_us) && unlink(path) == 0;
    (void)pthread_mutex_unlock(&content->removal);
    return removed;
}
