#include "common/io/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Deeper folders are moved up before they are removed: a task may nest them without end, and each
 * level of the walk holds two descriptors' worth of state. */
#define REMOVE_DEPTH 32

static int fail(struct err *err, const char *what, const char *path)
{
    int saved = errno;
    bool full = saved == ENOSPC || saved == EDQUOT;

    return err_set(err, full ? ERR_NO_SPACE : ERR_IO, "cannot %s %s: %s", what, path,
                   strerror(saved));
}

int fs_path(char out[FS_PATH], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int length = vsnprintf(out, FS_PATH, format, args);
    va_end(args);
    return length < 0 || length >= FS_PATH ? -ERR_IO : 0;
}

/* The whole of an open file; its caller closes it. */
static int read_open(int fd, const char *path, size_t limit, struct buf *ret_text, struct err *err)
{
    struct buf text;
    char chunk[16384];
    int rc = 0;

    buf_init(&text, 0);
    while (rc == 0) {
        ssize_t got = read(fd, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            rc = fail(err, "read", path);
        if (got <= 0)
            break;
        if ((size_t)got > limit - text.length)
            rc = err_set(err, ERR_TOO_MANY, "%s is larger than %zu bytes", path, limit);
        else
            buf_append(&text, chunk, (size_t)got);
    }
    if (rc == 0)
        buf_append(ret_text, text.data, text.length);
    if (text.data != NULL)
        explicit_bzero(text.data, text.length);
    buf_fini(&text);
    return rc;
}

static int open_regular(const char *path, int *ret_fd, struct stat *ret_status, struct err *err)
{
    /* O_NONBLOCK: a fifo in the file's place must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = 0;

    if (fd < 0)
        return fail(err, "open", path);
    if (fstat(fd, ret_status) != 0)
        rc = fail(err, "stat", path);
    else if (!S_ISREG(ret_status->st_mode))
        rc = err_set(err, ERR_IO, "%s is not a regular file", path);
    if (rc != 0)
        close(fd);
    else
        *ret_fd = fd;
    return rc;
}

int fs_read(const char *path, size_t limit, struct buf *ret_text, struct err *err)
{
    struct stat status = {0};
    int fd = -1;
    int rc = open_regular(path, &fd, &status, err);

    if (rc != 0)
        return rc;
    rc = read_open(fd, path, limit, ret_text, err);
    close(fd);
    return rc;
}

static int check_secrecy(const struct stat *status, const char *path, enum fs_secrecy secrecy,
                         struct err *err)
{
    mode_t closed = secrecy == FS_OWNER_ALONE ? 077 : 027;

    if ((status->st_mode & closed) != 0)
        return err_set(err, ERR_CREDENTIAL_EXPOSED, "%s has mode %04o; run: chmod %s %s", path,
                       (unsigned)(status->st_mode & 07777),
                       secrecy == FS_OWNER_ALONE ? "600" : "640", path);
    if (secrecy == FS_OWNER_ALONE && status->st_uid != geteuid() && status->st_uid != 0)
        return err_set(err, ERR_CREDENTIAL_EXPOSED, "%s belongs to user %u; run: chown %u %s", path,
                       (unsigned)status->st_uid, (unsigned)geteuid(), path);
    return 0;
}

int fs_read_secret(const char *path, size_t limit, enum fs_secrecy secrecy, struct buf *ret_text,
                   struct err *err)
{
    struct stat status = {0};
    int fd = -1;
    int rc = open_regular(path, &fd, &status, err);

    if (rc != 0)
        return rc;
    rc = check_secrecy(&status, path, secrecy, err);
    if (rc == 0)
        rc = read_open(fd, path, limit, ret_text, err);
    close(fd);
    return rc;
}

static int write_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t put = write(fd, at, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        at += put;
        length -= (size_t)put;
    }
    return 0;
}

/* Makes a rename in the folder of path durable. */
static int sync_folder(const char *path)
{
    char folder[FS_PATH];
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        snprintf(folder, sizeof(folder), ".");
    else if (slash == path)
        snprintf(folder, sizeof(folder), "/");
    else
        snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    /* Some network file systems cannot; then the rename is as durable as they make it. */
    if (rc != 0 && (errno == EINVAL || errno == ENOTSUP))
        rc = 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

int fs_write(const char *path, const void *bytes, size_t length, mode_t mode, struct err *err)
{
    char temporary[FS_PATH];

    if (strlen(path) >= FS_PATH - 8 || fs_path(temporary, "%s.XXXXXX", path) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s…", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return fail(err, "write", path);
    if (fchmod(fd, mode) != 0 || write_all(fd, bytes, length) != 0 || fsync(fd) != 0) {
        int rc = fail(err, "write", path);
        close(fd);
        unlink(temporary);
        return rc;
    }
    if (close(fd) != 0 || rename(temporary, path) != 0) {
        int rc = fail(err, "write", path);
        unlink(temporary);
        return rc;
    }
    if (sync_folder(path) != 0)
        return fail(err, "make durable", path);
    return 0;
}

static int make_parents(const char *path, struct err *err)
{
    char part[FS_PATH];

    if (fs_path(part, "%s", path) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s…", path);
    for (char *slash = strchr(part + 1, '/'); part[0] != '\0' && slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        /* Parents stay passable; only the last folder has the mode asked for. */
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return fail(err, "create", part);
        *slash = '/';
    }
    return 0;
}

int fs_mkdir(const char *path, mode_t mode, struct err *err)
{
    struct stat status;
    int rc = mkdir(path, mode);

    if (rc != 0 && errno == ENOENT) { /* seldom: the parents are mostly there */
        int made = make_parents(path, err);

        if (made != 0)
            return made;
        rc = mkdir(path, mode);
    }
    if (rc == 0)
        return chmod(path, mode) == 0 ? 0 : fail(err, "chmod", path);
    if (errno != EEXIST)
        return fail(err, "create", path);
    if (stat(path, &status) != 0)
        return fail(err, "stat", path);
    if (!S_ISDIR(status.st_mode))
        return err_set(err, ERR_IO, "%s is not a folder", path);
    return 0;
}

struct removal {
    int top;       /* the tree's root folder */
    dev_t device;  /* everything removed lives here */
    unsigned next; /* number for the next folder moved up */
    bool moved;    /* something was moved up in this round */
};

static int remove_entries(struct removal *removal, int fd, int depth);

static int remove_folder(struct removal *removal, int parent, const char *name, int depth)
{
    struct stat status;

    if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
        return 0;
    if (depth >= REMOVE_DEPTH) {
        char flat[32];
        do
            snprintf(flat, sizeof(flat), ".removed-%u", removal->next++);
        while (faccessat(removal->top, flat, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
        removal->moved = true;
        return renameat(parent, name, removal->top, flat);
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES) {
        if (fchmodat(parent, name, 0700, AT_SYMLINK_NOFOLLOW) != 0)
            return -1;
        fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0)
        return -1;
    int rc = fstat(fd, &status);
    if (rc == 0 && status.st_dev != removal->device) {
        errno = EXDEV;
        rc = -1;
    }
    if (rc == 0 && (status.st_mode & 0700) != 0700)
        rc = fchmod(fd, 0700);
    if (rc == 0)
        rc = remove_entries(removal, fd, depth + 1);
    int saved = errno;
    close(fd);
    errno = saved;
    if (rc == 0 && unlinkat(parent, name, AT_REMOVEDIR) != 0)
        return -1;
    return rc;
}

/* Removes all entries of the folder. fd stays open. */
static int remove_entries(struct removal *removal, int fd, int depth)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    int rc = 0;

    if (folder == NULL)
        return -1;
    while (rc == 0 && (errno = 0, entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) == 0)
            continue;
        /* Linux says EISDIR, POSIX EPERM. */
        if (errno != EISDIR && errno != EPERM)
            rc = -1;
        else
            rc = remove_folder(removal, fd, entry->d_name, depth);
    }
    if (rc == 0 && errno != 0)
        rc = -1;
    int saved = errno;
    closedir(folder);
    errno = saved;
    return rc;
}

int fs_remove_tree(const char *path, struct err *err)
{
    struct removal removal = {0};
    struct stat status;

    if (lstat(path, &status) != 0)
        return errno == ENOENT ? 0 : fail(err, "remove", path);
    if (!S_ISDIR(status.st_mode))
        return unlink(path) == 0 || errno == ENOENT ? 0 : fail(err, "remove", path);
    if ((status.st_mode & 0700) != 0700 && chmod(path, 0700) != 0)
        return fail(err, "remove", path);
    removal.device = status.st_dev;
    removal.top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (removal.top < 0)
        return fail(err, "remove", path);
    int rc = remove_entries(&removal, removal.top, 1);
    while (rc == 0 && removal.moved) {
        removal.moved = false;
        rc = remove_entries(&removal, removal.top, 1);
    }
    if (rc != 0)
        rc = fail(err, "remove the content of", path);
    close(removal.top);
    if (rc == 0 && rmdir(path) != 0)
        rc = fail(err, "remove", path);
    return rc;
}

int fs_lock(const char *path, int *ret_fd, struct err *err)
{
    char text[32];
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return fail(err, "open", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int rc;
        if (errno == EWOULDBLOCK) {
            ssize_t got = read(fd, text, sizeof(text) - 1);
            text[got > 0 ? got : 0] = '\0';
            text[strspn(text, "0123456789")] = '\0';
            rc = err_set(err, ERR_ALREADY_RUNNING, "process %s holds %s",
                         text[0] != '\0' ? text : "(unknown)", path);
        } else {
            rc = fail(err, "lock", path);
        }
        close(fd);
        return rc;
    }
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
        int rc = fail(err, "write", path);
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

void fs_guard_streams(void)
{
    int fd;

    /* The lowest free number is taken, so it ends above the three. */
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO) {
    }
    if (fd >= 0)
        close(fd);
}

uint64_t fs_free_bytes(const char *path)
{
    struct statvfs status;
    char parent[FS_PATH];

    if (fs_path(parent, "%s", path) != 0)
        return 0;
    while (statvfs(parent, &status) != 0) {
        char *slash = strrchr(parent, '/');
        if (errno != ENOENT || slash == NULL || slash == parent)
            return 0;
        *slash = '\0';
    }
    return (uint64_t)status.f_bavail * status.f_frsize;
}
