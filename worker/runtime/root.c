#include "worker/runtime/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pure/buf.h"
#include "worker/runtime/syscalls.h"

/* The loader's cache is the largest of what is copied; it has some hundred KiB. */
#define COPY_LIMIT ((size_t)64 << 20)
#define NAME_TEXT  64

/* As they are on the host. Those whose owner alone may read them stay so. */
static const char *const SHOWN[] = {"/etc/ld.so.cache", "/etc/ld.so.conf.d", "/etc/OpenCL/vendors"};
/* Readable by all inside, links followed. */
static const char *const COPIED[] = {"/etc/resolv.conf", "/etc/ld.so.conf", "/etc/localtime",
                                     "/etc/protocols", "/etc/services"};
/* /bin and its like: links on merged systems, places to mount on on others. */
static const char *const SYSTEM[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
/* Empty, or to be mounted on. */
static const char *const FOLDERS[] = {"/usr",
                                      "/opt",
                                      "/proc",
                                      "/dev",
                                      "/run",
                                      "/tmp",
                                      "/home",
                                      "/root",
                                      "/job",
                                      "/out",
                                      "/.sheaf",
                                      "/var",
                                      "/var/tmp",
                                      "/etc",
                                      "/etc/ssl",
                                      "/etc/ssl/certs",
                                      "/etc/alternatives",
                                      "/etc/OpenCL",
                                      "/sys",
                                      "/sys/class",
                                      "/sys/class/drm",
                                      "/sys/class/kfd",
                                      "/sys/bus",
                                      "/sys/bus/pci",
                                      "/sys/dev",
                                      "/sys/dev/char",
                                      "/sys/devices",
                                      "/sys/devices/system",
                                      "/sys/devices/system/cpu",
                                      "/sys/devices/system/node"};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* -- its name -----------------------------------------------------------------------------------
 */

/* FNV-1a: nobody gains from two roots of one name, and only the host's owner could try. */
static void hash_bytes(uint64_t *hash, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;

    for (size_t i = 0; i < length; i++)
        *hash = (*hash ^ at[i]) * 1099511628211u;
}

static void hash_file(uint64_t *hash, const char *path)
{
    struct stat status = {0};

    if (stat(path, &status) != 0)
        status = (struct stat){0};
    hash_bytes(hash, path, strlen(path) + 1);
    hash_bytes(hash, &status.st_dev, sizeof(status.st_dev));
    hash_bytes(hash, &status.st_ino, sizeof(status.st_ino));
    hash_bytes(hash, &status.st_size, sizeof(status.st_size));
    hash_bytes(hash, &status.st_mtim, sizeof(status.st_mtim));
}

/* The boot too: nothing of a root is written durably. */
static void root_name(uid_t uid, gid_t gid, char out[NAME_TEXT])
{
    uint64_t hash = 14695981039346656037u;
    char boot[64];

    plan_boot_id(boot);
    hash_bytes(&hash, boot, strlen(boot));
    hash_bytes(&hash, &gid, sizeof(gid));
    hash_file(&hash, "/proc/self/exe");
    for (size_t i = 0; i < COUNT(SHOWN); i++)
        hash_file(&hash, SHOWN[i]);
    for (size_t i = 0; i < COUNT(COPIED); i++)
        hash_file(&hash, COPIED[i]);
    for (size_t i = 0; i < COUNT(SYSTEM); i++)
        hash_file(&hash, SYSTEM[i]);
    snprintf(out, NAME_TEXT, "%u-%016llx", (unsigned)uid, (unsigned long long)hash);
}

/* -- building -----------------------------------------------------------------------------------
 */

static int failed(const char *what, const char *path, struct err *err)
{
    return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot %s %s: %s", what, path,
                   strerror(errno));
}

/* The mode is meant: it does not depend on our mask. */
static int put_folder(const char *path, mode_t mode, struct err *err)
{
    if ((mkdir(path, 0700) != 0 && errno != EEXIST) || chmod(path, mode) != 0)
        return failed("make", path, err);
    return 0;
}

static int put_bytes(const char *path, const void *bytes, size_t length, mode_t mode,
                     struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool good = fd >= 0 && write(fd, bytes, length) == (ssize_t)length && fchmod(fd, mode) == 0;
    int rc = good ? 0 : failed("write", path, err);

    if (fd >= 0)
        close(fd);
    return rc;
}

static int put_text(const char *tree, const char *name, const char *text, struct err *err)
{
    char path[FS_PATH];

    if (fs_path(path, "%s%s", tree, name) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", tree);
    return put_bytes(path, text, strlen(text), 0444, err);
}

static int copy_file(const char *from, const char *to, mode_t mode, struct err *err)
{
    struct buf text;

    buf_init(&text, 0);
    int rc = fs_read(from, COPY_LIMIT, &text, err);
    if (rc == 0)
        rc = put_bytes(to, text.data != NULL ? text.data : "", text.length, mode, err);
    buf_fini(&text);
    return rc;
}

static int copy_link(const char *from, const char *to, struct err *err)
{
    char target[FS_PATH];
    ssize_t length = readlink(from, target, sizeof(target) - 1);

    if (length < 0)
        return failed("read", from, err);
    target[length] = '\0';
    return symlink(target, to) == 0 ? 0 : failed("make", to, err);
}

static int copy_entry(const FTSENT *entry, const char *to, struct err *err)
{
    mode_t mode = entry->fts_statp->st_mode;

    switch (entry->fts_info) {
    case FTS_D:
        return put_folder(to, (mode & 0555) | 0200, err);
    case FTS_F:
        return copy_file(entry->fts_path, to, mode & 0555, err);
    case FTS_SL:
    case FTS_SLNONE:
        return copy_link(entry->fts_path, to, err);
    default:
        return 0; /* sockets and the like, what is gone meanwhile */
    }
}

/* An owner's private files stay private: copies belong to us and keep their modes. */
static int copy_shown(const char *tree, const char *path, struct err *err)
{
    char from[FS_PATH];
    char to[FS_PATH];
    char *roots[] = {from, NULL};
    int rc = 0;

    if (access(path, R_OK) != 0)
        return 0;
    if (fs_path(from, "%s", path) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", path);
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL);
    if (walk == NULL)
        return failed("walk", path, err);
    for (FTSENT *entry = fts_read(walk); rc == 0 && entry != NULL; entry = fts_read(walk)) {
        bool link = entry->fts_info == FTS_SL || entry->fts_info == FTS_SLNONE;
        if (entry->fts_info == FTS_DP || (!link && access(entry->fts_path, R_OK) != 0))
            continue;
        rc = fs_path(to, "%s%s", tree, entry->fts_path) != 0
                 ? err_set(err, ERR_IO, "path too long: %.100s", entry->fts_path)
                 : copy_entry(entry, to, err);
    }
    fts_close(walk);
    return rc;
}

static int put_system(const char *tree, const char *path, struct err *err)
{
    struct stat status;
    char to[FS_PATH];

    if (lstat(path, &status) != 0)
        return 0;
    if (fs_path(to, "%s%s", tree, path) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", tree);
    return S_ISLNK(status.st_mode) ? copy_link(path, to, err) : put_folder(to, 0755, err);
}

static int put_etc(const char *tree, uid_t uid, gid_t gid, struct err *err)
{
    static const char hosts[] = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " ROOT_HOSTNAME "\n";
    static const char services[] = "passwd: files\ngroup: files\nhosts: files dns\n"
                                   "services: files\nprotocols: files\n";
    char passwd[256];
    char group[256];
    char to[FS_PATH];
    int rc = 0;

    snprintf(passwd, sizeof(passwd),
             "%ssheaf:x:%u:%u:task:/job:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
             uid == 0 ? "" : "root:x:0:0:root:/root:/usr/sbin/nologin\n", uid, gid);
    snprintf(group, sizeof(group), "%ssheaf:x:%u:\nnogroup:x:65534:\n",
             gid == 0 ? "" : "root:x:0:\n", gid);
    const char *const texts[][2] = {{"/etc/passwd", passwd},
                                    {"/etc/group", group},
                                    {"/etc/hosts", hosts},
                                    {"/etc/hostname", ROOT_HOSTNAME "\n"},
                                    {"/etc/nsswitch.conf", services},
                                    {ROOT_INIT, ""}};
    for (size_t i = 0; rc == 0 && i < COUNT(texts); i++)
        rc = put_text(tree, texts[i][0], texts[i][1], err);
    for (size_t i = 0; rc == 0 && i < COUNT(SHOWN); i++)
        rc = copy_shown(tree, SHOWN[i], err);
    for (size_t i = 0; rc == 0 && i < COUNT(COPIED); i++) {
        if (access(COPIED[i], R_OK) != 0)
            continue;
        rc = fs_path(to, "%s%s", tree, COPIED[i]) != 0
                 ? err_set(err, ERR_IO, "path too long: %.100s", tree)
                 : copy_file(COPIED[i], to, 0444, err);
    }
    return rc;
}

static int put_syscalls(const char *path, struct err *err)
{
    char proc[64];
    int fd;
    int rc = syscalls_filter(&fd, err);

    if (rc != 0)
        return rc;
    snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    struct buf program;
    buf_init(&program, 0);
    rc = fs_read(proc, COPY_LIMIT, &program, err);
    if (rc == 0)
        rc = put_bytes(path, program.data, program.length, 0400, err);
    buf_fini(&program);
    close(fd);
    return rc;
}

static int build(const char *folder, uid_t uid, gid_t gid, struct err *err)
{
    char tree[FS_PATH];
    char path[FS_PATH];
    int rc = 0;

    if (fs_path(tree, "%s/tree", folder) != 0 || fs_path(path, "%s/syscalls", folder) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", folder);
    rc = put_folder(folder, 0700, err);
    if (rc == 0)
        rc = put_syscalls(path, err);
    if (rc == 0)
        rc = put_folder(tree, 0755, err);
    for (size_t i = 0; rc == 0 && i < COUNT(FOLDERS); i++) {
        rc = fs_path(path, "%s%s", tree, FOLDERS[i]) != 0
                 ? err_set(err, ERR_IO, "path too long: %.100s", tree)
                 : put_folder(path, 0755, err);
    }
    for (size_t i = 0; rc == 0 && i < COUNT(SYSTEM); i++)
        rc = put_system(tree, SYSTEM[i], err);
    if (rc == 0)
        rc = put_etc(tree, uid, gid, err);
    if (rc == 0 && fs_path(path, "%s/var/run", tree) == 0 && symlink("/run", path) != 0)
        rc = failed("make", path, err);
    return rc;
}

/* -- use ----------------------------------------------------------------------------------------
 */

/* Those of this user that nobody holds: what they were made of has changed. */
static void sweep(const char *roots, uid_t uid, const char *name)
{
    char start[16];
    char path[FS_PATH];
    size_t length = (size_t)snprintf(start, sizeof(start), "%u-", (unsigned)uid);
    DIR *folder = opendir(roots);

    if (folder == NULL)
        return;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strncmp(entry->d_name, start, length) != 0 || strcmp(entry->d_name, name) == 0
            || fs_path(path, "%s/%s", roots, entry->d_name) != 0)
            continue;
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        /* One that stays costs some disk and is tried again. */
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fs_remove_tree(path, NULL) != 0)
            errno = 0;
        if (fd >= 0)
            close(fd);
    }
    closedir(folder);
}

/* -ERR_NOT_FOUND: there is none, or it was swept away while we waited for it. */
static int hold(const char *path, int *ret_fd)
{
    struct stat held;
    struct stat named;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -ERR_NOT_FOUND;
    if (flock(fd, LOCK_SH) == 0 && fstat(fd, &held) == 0 && stat(path, &named) == 0
        && held.st_ino == named.st_ino) {
        *ret_fd = fd;
        return 0;
    }
    close(fd);
    return -ERR_NOT_FOUND;
}

static int make(const char *roots, const char *path, uid_t uid, gid_t gid, struct err *err)
{
    char fresh[FS_PATH];
    int rc = fs_mkdir(roots, 0700, err);

    if (rc == 0 && fs_path(fresh, "%s/%u-new-%d", roots, (unsigned)uid, (int)getpid()) != 0)
        rc = err_set(err, ERR_IO, "path too long: %.100s", roots);
    if (rc == 0)
        rc = fs_remove_tree(fresh, err);
    if (rc != 0)
        return rc;
    int fd =
        put_folder(fresh, 0700, err) == 0 ? open(fresh, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    /* Held, so that no other takes it for one that is left. */
    if (fd < 0 || flock(fd, LOCK_SH) != 0)
        rc = failed("make", fresh, err);
    if (rc == 0)
        rc = build(fresh, uid, gid, err);
    /* Another may have made the same meanwhile. */
    if (rc == 0 && rename(fresh, path) != 0 && errno != EEXIST && errno != ENOTEMPTY)
        rc = failed("make", path, err);
    if (fd >= 0)
        close(fd);
    if (fs_remove_tree(fresh, NULL) != 0)
        errno = 0; /* the next sweep tries again */
    return rc;
}

int root_open(const char *roots, const struct driver_user *user, struct root *ret_root,
              struct err *err)
{
    uid_t uid = user->drop ? user->uid : geteuid();
    gid_t gid = user->drop ? user->gid : getegid();
    char name[NAME_TEXT];
    char path[FS_PATH];
    int fd = -1;

    root_name(uid, gid, name);
    if (fs_path(path, "%s/%s", roots, name) != 0 || fs_path(ret_root->tree, "%s/tree", path) != 0
        || fs_path(ret_root->syscalls, "%s/syscalls", path) != 0)
        return err_set(err, ERR_IO, "path too long: %.100s", roots);
    while (hold(path, &fd) != 0) {
        int rc = make(roots, path, uid, gid, err);
        if (rc != 0)
            return rc;
        sweep(roots, uid, name);
    }
    ret_root->fd = fd;
    return 0;
}
