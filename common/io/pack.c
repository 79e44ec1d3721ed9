#include "common/io/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pure/mem.h"

#define MAX_DEPTH  64   /* one descriptor each while packing */
#define MAX_PATH   4096 /* PATH_MAX */
#define CHUNK_SIZE 65536
#define BLOCK_SIZE 65536

/*
 * True when a link in a folder `depth` levels below the root stays inside. ".." counts only at the
 * start, where it climbs real folders: after a name it could climb out of where another link led.
 */
static bool link_stays_inside(const char *target, size_t depth)
{
    bool named = false;

    if (target[0] == '/' || target[0] == '\0')
        return false;
    while (*target != '\0') {
        size_t length = strcspn(target, "/");
        bool up = length == 2 && target[0] == '.' && target[1] == '.';
        bool here = length == 0 || (length == 1 && target[0] == '.');
        if (up && (named || depth == 0))
            return false;
        if (up)
            depth--;
        else if (!here)
            named = true;
        target += length;
        target += *target == '/';
    }
    return true;
}

/* Number of folders above the last part. */
static size_t path_depth(const char *path)
{
    size_t depth = 0;

    for (; *path != '\0'; path++)
        depth += *path == '/';
    return depth;
}

/* -- packing ---------------------------------------------------------------------------------- */

struct packer {
    struct archive *out;
    struct archive_entry *entry;
    char path[MAX_PATH]; /* of the current entry, in the archive */
    uint64_t bytes;
    uint32_t entries;
    char *chunk;
    struct err *err;
};

static int pack_fail(struct packer *packer, const char *what)
{
    int saved = errno;

    return err_set_at(packer->err, saved == ENOSPC ? ERR_NO_SPACE : ERR_IO, packer->path,
                      "cannot %s %.150s: %s", what, packer->path, strerror(saved));
}

static int archive_fail(struct packer *packer)
{
    const char *text = archive_error_string(packer->out);

    return err_set_at(packer->err, archive_errno(packer->out) == ENOSPC ? ERR_NO_SPACE : ERR_IO,
                      packer->path, "cannot pack %.100s: %.100s", packer->path,
                      text != NULL ? text : "unknown");
}

/* Writes the header; owner and times are 0, so that the bytes depend on the content alone. */
static int pack_header(struct packer *packer, mode_t type, mode_t mode, uint64_t size,
                       const char *target)
{
    if (++packer->entries > PACK_MAX_ENTRIES)
        return err_set(packer->err, ERR_TOO_MANY, "more than %u files", PACK_MAX_ENTRIES);
    archive_entry_clear(packer->entry);
    archive_entry_set_pathname(packer->entry, packer->path);
    archive_entry_set_filetype(packer->entry, type);
    archive_entry_set_perm(packer->entry, mode & 0777);
    archive_entry_set_size(packer->entry, (int64_t)size);
    archive_entry_set_uid(packer->entry, 0);
    archive_entry_set_gid(packer->entry, 0);
    archive_entry_set_mtime(packer->entry, 0, 0);
    if (target != NULL)
        archive_entry_set_symlink(packer->entry, target);
    return archive_write_header(packer->out, packer->entry) == ARCHIVE_OK ? 0
                                                                          : archive_fail(packer);
}

static int pack_file(struct packer *packer, int fd, const struct stat *status)
{
    uint64_t left = (uint64_t)status->st_size;

    packer->bytes += left;
    if (packer->bytes > PACK_MAX_BYTES)
        return err_set(packer->err, ERR_TOO_MANY, "more than %llu bytes",
                       (unsigned long long)PACK_MAX_BYTES);
    int rc = pack_header(packer, AE_IFREG, status->st_mode, left, NULL);
    while (rc == 0 && left > 0) {
        ssize_t got = read(fd, packer->chunk, left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            rc = pack_fail(packer, "read");
        else if (got == 0)
            rc = err_set_at(packer->err, ERR_IO, packer->path, "%.150s shrank while it was packed",
                            packer->path);
        else if (archive_write_data(packer->out, packer->chunk, (size_t)got) != got)
            rc = archive_fail(packer);
        else
            left -= (uint64_t)got;
    }
    return rc;
}

static int pack_link(struct packer *packer, int parent, const char *name)
{
    char target[MAX_PATH];
    ssize_t length = readlinkat(parent, name, target, sizeof(target) - 1);

    if (length < 0)
        return pack_fail(packer, "read the link");
    target[length] = '\0';
    if (!link_stays_inside(target, path_depth(packer->path)))
        return err_set_at(packer->err, ERR_MOUNT_NOT_ALLOWED, packer->path,
                          "the link %.100s -> %.80s leaves the folder", packer->path, target);
    return pack_header(packer, AE_IFLNK, 0777, 0, target);
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int keep_name(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int pack_entry(struct packer *packer, int parent, const char *name, int depth);

static int pack_folder(struct packer *packer, int fd, const struct stat *status, int depth)
{
    struct dirent **names = NULL;
    size_t length = strlen(packer->path);
    int rc = pack_header(packer, AE_IFDIR, status->st_mode, 0, NULL);

    if (rc != 0)
        return rc;
    if (depth == MAX_DEPTH)
        return err_set_at(packer->err, ERR_TOO_MANY, packer->path, "folders nest deeper than %d",
                          MAX_DEPTH);
    int count = scandirat(fd, ".", &names, keep_name, compare_names);
    if (count < 0)
        return pack_fail(packer, "list");
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (rc == 0 && length + strlen(name) + 2 > MAX_PATH)
            rc = err_set(packer->err, ERR_TOO_MANY, "a path is longer than %d", MAX_PATH);
        if (rc == 0) {
            packer->path[length] = '/';
            memcpy(packer->path + length + 1, name, strlen(name) + 1);
            rc = pack_entry(packer, fd, name, depth + 1);
            packer->path[length] = '\0';
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

static int pack_entry(struct packer *packer, int parent, const char *name, int depth)
{
    struct stat status;
    int rc;

    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return pack_fail(packer, "stat");
    if (S_ISLNK(status.st_mode))
        return pack_link(packer, parent, name);
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return err_set_at(packer->err, ERR_MOUNT_NOT_ALLOWED, packer->path,
                          "%.150s is no file, folder or link", packer->path);
    int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return pack_fail(packer, "open");
    /* Again, of what was opened: the name may be another file by now. */
    if (fstat(fd, &status) != 0)
        rc = pack_fail(packer, "stat");
    else if (S_ISDIR(status.st_mode))
        rc = pack_folder(packer, fd, &status, depth);
    else if (S_ISREG(status.st_mode))
        rc = pack_file(packer, fd, &status);
    else
        rc = err_set_at(packer->err, ERR_IO, packer->path, "%.150s changed while it was packed",
                        packer->path);
    close(fd);
    return rc;
}

/* The archive is open; packs the source, whose last link is followed, as people expect. */
static int pack_source(struct packer *packer, const char *source, const char *name)
{
    struct stat status;
    int rc;

    if (strlen(name) >= MAX_PATH || name[0] == '\0' || strchr(name, '/') != NULL)
        return err_set(packer->err, ERR_INVALID_NAME, "not a file name: %.100s", name);
    memcpy(packer->path, name, strlen(name) + 1);
    int fd = open(source, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        rc = err_set_at(packer->err, ERR_IO, source, "cannot open %.150s: %s", source,
                        strerror(errno));
    else if (S_ISDIR(status.st_mode))
        rc = pack_folder(packer, fd, &status, 0);
    else if (S_ISREG(status.st_mode))
        rc = pack_file(packer, fd, &status);
    else
        rc = err_set_at(packer->err, ERR_MOUNT_NOT_ALLOWED, source, "%.150s is no file or folder",
                        source);
    if (fd >= 0)
        close(fd);
    return rc;
}

int pack_tree(const char *source, const char *name, const char *archive, struct err *err)
{
    struct packer packer = {.err = err};
    int fd = open(archive, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc;

    if (fd < 0)
        return err_set_at(err, ERR_IO, archive, "cannot write %.150s: %s", archive,
                          strerror(errno));
    packer.out = archive_write_new();
    packer.entry = archive_entry_new();
    BUG_ON(packer.out == NULL || packer.entry == NULL);
    packer.chunk = mem_new(CHUNK_SIZE, 1);
    /* GNU tar keeps names as bytes; pax would convert them by the locale. */
    BUG_ON(archive_write_set_format_gnutar(packer.out) != ARCHIVE_OK);
    BUG_ON(archive_write_add_filter_zstd(packer.out) != ARCHIVE_OK);
    if (archive_write_open_fd(packer.out, fd) != ARCHIVE_OK)
        rc = archive_fail(&packer);
    else
        rc = pack_source(&packer, source, name);
    if (rc == 0 && archive_write_close(packer.out) != ARCHIVE_OK)
        rc = archive_fail(&packer);
    /* No archive_write_fail first: libarchive 3.6 then leaks its block buffer. */
    archive_write_free(packer.out);
    archive_entry_free(packer.entry);
    free(packer.chunk);
    close(fd);
    if (rc != 0)
        unlink(archive);
    return rc;
}

/* -- unpacking --------------------------------------------------------------------------------- */

struct unpacker {
    struct archive *in;
    int target;
    const char *path; /* of the current entry; borrowed */
    uint64_t bytes_left;
    uint32_t entries;
    char *chunk;
    struct err *err;
};

static int refuse(struct unpacker *unpacker, const char *why)
{
    return err_set_at(unpacker->err, ERR_MOUNT_NOT_ALLOWED, unpacker->path,
                      "the archive is refused: %.120s: %s", unpacker->path, why);
}

static int unpack_fail(struct unpacker *unpacker, const char *what)
{
    int saved = errno;

    return err_set_at(unpacker->err, saved == ENOSPC || saved == EDQUOT ? ERR_NO_SPACE : ERR_IO,
                      unpacker->path, "cannot %s %.120s: %s", what, unpacker->path,
                      strerror(saved));
}

static int damaged(struct unpacker *unpacker)
{
    const char *text = archive_error_string(unpacker->in);

    return err_set(unpacker->err, ERR_IO, "the archive is damaged: %.150s",
                   text != NULL ? text : "it ends early");
}

/* No empty, "." or ".." part; a folder's name may end with a slash. */
static bool path_is_clean(const char *path)
{
    if (path[0] == '\0' || path[0] == '/' || strlen(path) >= MAX_PATH)
        return false;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 0 || length > NAME_MAX || (length == 1 && path[0] == '.')
            || (length == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += length;
        path += *path == '/';
    }
    return true;
}

/*
 * Opens the folder that the entry stands in, part by part, never through a link, and copies the
 * entry's own name. Folders on the way that the archive did not name are made.
 */
static int open_parent(struct unpacker *unpacker, char name[NAME_MAX + 1], int *ret_fd)
{
    const char *at = unpacker->path;
    int fd = openat(unpacker->target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (;;) {
        size_t length = strcspn(at, "/");
        memcpy(name, at, length);
        name[length] = '\0';
        at += length;
        at += *at == '/';
        if (fd < 0)
            return unpack_fail(unpacker, "open the folder of");
        if (*at == '\0') {
            *ret_fd = fd;
            return 0;
        }
        if (mkdirat(fd, name, 0755) != 0 && errno != EEXIST) {
            int rc = unpack_fail(unpacker, "make the folder of");
            close(fd);
            return rc;
        }
        int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int saved = errno;
        close(fd);
        errno = saved;
        if (next < 0 && (errno == ELOOP || errno == ENOTDIR))
            return refuse(unpacker, "it stands below a link or a file");
        fd = next;
    }
}

static int unpack_data(struct unpacker *unpacker, int fd)
{
    for (;;) {
        la_ssize_t got = archive_read_data(unpacker->in, unpacker->chunk, CHUNK_SIZE);
        if (got == ARCHIVE_RETRY)
            continue;
        if (got < 0)
            return damaged(unpacker);
        if (got == 0)
            return 0;
        if ((uint64_t)got > unpacker->bytes_left)
            return err_set(unpacker->err, ERR_TOO_MANY, "the archive holds more than was allowed");
        unpacker->bytes_left -= (uint64_t)got;
        for (la_ssize_t done = 0; done < got;) {
            ssize_t put = write(fd, unpacker->chunk + done, (size_t)(got - done));
            if (put < 0 && errno == EINTR)
                continue;
            if (put < 0)
                return unpack_fail(unpacker, "write");
            done += put;
        }
    }
}

static int unpack_file(struct unpacker *unpacker, int parent, const char *name, mode_t mode)
{
    /* What stood there, a link of an earlier entry too, is replaced and never written through. */
    if (unlinkat(parent, name, 0) != 0 && errno != ENOENT)
        return unpack_fail(unpacker, "replace");
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return unpack_fail(unpacker, "write");
    int rc = unpack_data(unpacker, fd);
    if (rc == 0 && fchmod(fd, mode & 0777) != 0)
        rc = unpack_fail(unpacker, "set the mode of");
    if (close(fd) != 0 && rc == 0)
        rc = unpack_fail(unpacker, "write");
    return rc;
}

/* The owner keeps access, whatever the archive says, so that entries below can be written. */
static int unpack_folder(struct unpacker *unpacker, int parent, const char *name, mode_t mode)
{
    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        return unpack_fail(unpacker, "make");
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return refuse(unpacker, "a link or a file stands there");
    if (fd < 0)
        return unpack_fail(unpacker, "open");
    int rc = fchmod(fd, (mode & 0777) | 0700) == 0 ? 0 : unpack_fail(unpacker, "set the mode of");
    close(fd);
    return rc;
}

static int unpack_link(struct unpacker *unpacker, int parent, const char *name, const char *target)
{
    if (target == NULL || strlen(target) >= MAX_PATH
        || !link_stays_inside(target, path_depth(unpacker->path)))
        return refuse(unpacker, "a link that leaves the folder");
    if (unlinkat(parent, name, 0) != 0 && errno != ENOENT)
        return unpack_fail(unpacker, "replace");
    return symlinkat(target, parent, name) == 0 ? 0 : unpack_fail(unpacker, "make the link");
}

static int unpack_entry(struct unpacker *unpacker, struct archive_entry *entry)
{
    char name[NAME_MAX + 1];
    mode_t type = archive_entry_filetype(entry);
    mode_t mode = archive_entry_perm(entry);
    int parent = -1;

    unpacker->path = archive_entry_pathname(entry);
    if (unpacker->path == NULL)
        return damaged(unpacker);
    if (++unpacker->entries > PACK_MAX_ENTRIES)
        return err_set(unpacker->err, ERR_TOO_MANY, "the archive holds more than %u files",
                       PACK_MAX_ENTRIES);
    if (!path_is_clean(unpacker->path))
        return refuse(unpacker, "not a plain relative path");
    if (archive_entry_hardlink(entry) != NULL
        || (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK))
        return refuse(unpacker, "no file, folder or symbolic link");
    int rc = open_parent(unpacker, name, &parent);
    if (rc != 0)
        return rc;
    if (type == AE_IFDIR)
        rc = unpack_folder(unpacker, parent, name, mode);
    else if (type == AE_IFLNK)
        rc = unpack_link(unpacker, parent, name, archive_entry_symlink(entry));
    else
        rc = unpack_file(unpacker, parent, name, mode);
    close(parent);
    return rc;
}

static int unpack_entries(struct unpacker *unpacker)
{
    struct archive_entry *entry = NULL;

    for (;;) {
        int got = archive_read_next_header(unpacker->in, &entry);
        if (got == ARCHIVE_EOF)
            return 0;
        if (got == ARCHIVE_RETRY)
            continue;
        if (got != ARCHIVE_OK)
            return damaged(unpacker);
        int rc = unpack_entry(unpacker, entry);
        if (rc != 0)
            return rc;
    }
}

int unpack_tree(const char *archive, const char *target, uint64_t max_bytes, struct err *err)
{
    struct unpacker unpacker = {.bytes_left = max_bytes, .err = err, .path = ""};
    int rc;

    unpacker.target = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (unpacker.target < 0)
        return err_set_at(err, ERR_IO, target, "cannot open %.150s: %s", target, strerror(errno));
    unpacker.in = archive_read_new();
    BUG_ON(unpacker.in == NULL);
    unpacker.chunk = mem_new(CHUNK_SIZE, 1);
    BUG_ON(archive_read_support_filter_zstd(unpacker.in) != ARCHIVE_OK);
    BUG_ON(archive_read_support_format_tar(unpacker.in) != ARCHIVE_OK);
    if (archive_read_open_filename(unpacker.in, archive, BLOCK_SIZE) != ARCHIVE_OK)
        rc = damaged(&unpacker);
    else
        rc = unpack_entries(&unpacker);
    archive_read_free(unpacker.in);
    free(unpacker.chunk);
    close(unpacker.target);
    return rc;
}
