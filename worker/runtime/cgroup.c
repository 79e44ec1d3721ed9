#include "worker/runtime/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pure/buf.h"

/* Where the worker moves itself when its own group must hold groups only (version 2). */
#define DAEMON_GROUP "sheaf-daemon"
/* Period of the cpu quota; the kernel's default. */
#define CPU_PERIOD_US 100000u
#define TEXT_LIMIT    ((size_t)4 << 20)

static const char *const controller_names[CGROUP_CONTROLLER_COUNT] = {"memory", "pids", "cpu"};

/* One line of mountinfo; see proc(5). Texts are cut at their arrays. */
struct mount_line {
    char root[FS_PATH];
    char point[FS_PATH];
    char type[16];
    char options[256];
};

static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = list; at != NULL && *at != '\0'; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

static bool mount_parse(const char *line, struct mount_line *ret_mount)
{
    const char *dash = strstr(line, " - ");

    return dash != NULL
           && sscanf(line, "%*s %*s %*s %511s %511s", ret_mount->root, ret_mount->point) == 2
           && sscanf(dash, " - %15s %*s %255s", ret_mount->type, ret_mount->options) == 2;
}

/* Path of our own group for a controller ("" = the unified hierarchy); "/" when it is not told. */
static void own_path(const char *self, const char *controller, char out[FS_PATH])
{
    snprintf(out, FS_PATH, "/");
    for (const char *line = self; line != NULL && *line != '\0';) {
        char list[128] = "";
        char path[FS_PATH] = "";
        bool unified = sscanf(line, "%*u::%511[^\n]", path) == 1;
        bool ours = unified ? controller[0] == '\0'
                            : sscanf(line, "%*u:%127[^:]:%511[^\n]", list, path) == 2
                                  && controller[0] != '\0' && list_has(list, controller);
        if (ours && path[0] == '/' && strstr(path, "..") == NULL)
            snprintf(out, FS_PATH, "%s", path);
        line = strchr(line, '\n');
        line += line != NULL;
    }
}

/* Folder of group `path` under a mount that shows `root` of its hierarchy. */
static void group_folder(const struct mount_line *mount, const char *path, char out[FS_PATH])
{
    size_t length = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    bool inside =
        strncmp(path, mount->root, length) == 0 && (path[length] == '/' || path[length] == '\0');

    path = inside ? path + length : "/";
    if (strcmp(path, "/") == 0)
        path = "";
    if (fs_path(out, "%s%s", mount->point, path) != 0)
        out[0] = '\0';
}

static void take_v1(const struct mount_line *mount, const char *self, struct cgroup_layout *layout)
{
    char path[FS_PATH];

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (!list_has(mount->options, controller_names[i]))
            continue;
        own_path(self, controller_names[i], path);
        group_folder(mount, path, layout->parent[i]);
        layout->unified[i] = false;
    }
}

const char *cgroup_find(const char *mountinfo, const char *self, struct cgroup_layout *ret_layout)
{
    struct mount_line mount;
    char unified[FS_PATH] = "";
    char path[FS_PATH];
    int v1 = 0;

    memset(ret_layout, 0, sizeof(*ret_layout));
    for (const char *line = mountinfo; line != NULL && *line != '\0';) {
        if (mount_parse(line, &mount) && strcmp(mount.type, "cgroup") == 0) {
            take_v1(&mount, self, ret_layout);
        } else if (mount_parse(line, &mount) && strcmp(mount.type, "cgroup2") == 0) {
            own_path(self, "", path);
            group_folder(&mount, path, unified);
        }
        line = strchr(line, '\n');
        line += line != NULL;
    }
    /* A worker that was moved before finds its tasks' groups beside its own. */
    size_t length = strlen(unified);
    size_t tail = strlen("/" DAEMON_GROUP);
    if (length > tail && strcmp(unified + length - tail, "/" DAEMON_GROUP) == 0)
        unified[length - tail] = '\0';
    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (ret_layout->parent[i][0] != '\0') {
            v1++;
            continue;
        }
        snprintf(ret_layout->parent[i], FS_PATH, "%s", unified);
        ret_layout->unified[i] = unified[0] != '\0';
    }
    if (v1 > 0)
        return unified[0] != '\0' ? "hybrid" : "v1";
    return unified[0] != '\0' ? "v2" : "none";
}

static int file_write(const char *folder, const char *name, const char *text)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/%s", folder, name) != 0)
        return -ENAMETOOLONG;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t put = write(fd, text, strlen(text));
    int rc = put < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int file_read(const char *folder, const char *name, struct buf *ret_text)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/%s", folder, name) != 0)
        return -ERR_IO;
    return fs_read(path, TEXT_LIMIT, ret_text, NULL);
}

static int write_number(const char *folder, const char *name, uint64_t value)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return file_write(folder, name, text);
}

/* Version 2 gives children only what the parent's subtree_control lists. */
static int enable_children(const char *parent, const char *controller)
{
    char daemon[FS_PATH];
    char enable[32];
    struct buf text;
    int rc = 0;

    buf_init(&text, 0);
    bool there = file_read(parent, "cgroup.controllers", &text) == 0 && text.data != NULL
                 && strstr(text.data, controller) != NULL;
    buf_clear(&text);
    bool on = there && file_read(parent, "cgroup.subtree_control", &text) == 0 && text.data != NULL
              && strstr(text.data, controller) != NULL;
    buf_fini(&text);
    if (!there)
        return -ENOENT;
    if (on)
        return 0;
    snprintf(enable, sizeof(enable), "+%s", controller);
    rc = file_write(parent, "cgroup.subtree_control", enable);
    if (rc != -EBUSY || fs_path(daemon, "%s/" DAEMON_GROUP, parent) != 0)
        return rc;
    /* Processes and enabled children exclude each other below the root: ours steps aside. */
    if (mkdir(daemon, 0755) != 0 && errno != EEXIST)
        return -errno;
    rc = write_number(daemon, "cgroup.procs", (uint64_t)getpid());
    return rc == 0 ? file_write(parent, "cgroup.subtree_control", enable) : rc;
}

int cgroup_open(struct cgroup_layout *ret_layout, char ret_kind[16], struct err *err)
{
    static const struct cgroup_limits limits = {(uint64_t)64 << 20, 16, 1000};
    struct buf mounts;
    struct buf self;
    char name[64];
    int rc;

    buf_init(&mounts, 0);
    buf_init(&self, 0);
    rc = fs_read("/proc/self/mountinfo", TEXT_LIMIT, &mounts, err);
    if (rc == 0)
        rc = fs_read("/proc/self/cgroup", TEXT_LIMIT, &self, err);
    if (rc == 0)
        snprintf(
            ret_kind, 16, "%s",
            cgroup_find(mounts.data ? mounts.data : "", self.data ? self.data : "", ret_layout));
    buf_fini(&mounts);
    buf_fini(&self);
    for (int i = 0; rc == 0 && i < CGROUP_CONTROLLER_COUNT; i++) {
        const char *parent = ret_layout->parent[i];
        int failed = parent[0] == '\0' ? -ENOENT : 0;
        if (failed == 0 && ret_layout->unified[i])
            failed = enable_children(parent, controller_names[i]);
        if (failed != 0)
            rc = err_set(err, ERR_UNSUPPORTED_HERE, "%s controller: %s (%s)", controller_names[i],
                         strerror(-failed), parent[0] ? parent : "/sys/fs/cgroup");
    }
    if (rc != 0)
        return rc;
    snprintf(name, sizeof(name), "probe-%d", (int)getpid());
    rc = cgroup_create(ret_layout, name, &limits, err);
    if (rc != 0)
        return rc;
    return cgroup_remove(ret_layout, name) == 0
               ? 0
               : err_set(err, ERR_UNSUPPORTED_HERE, "cgroup %s cannot be removed", name);
}

static int group_path(const struct cgroup_layout *layout, int controller, const char *name,
                      char out[FS_PATH])
{
    if (layout->parent[controller][0] == '\0')
        return -ERR_NOT_FOUND;
    return fs_path(out, "%s/sheaf-%s", layout->parent[controller], name);
}

static int set_limit(const char *path, enum cgroup_controller controller, bool unified,
                     const struct cgroup_limits *limits)
{
    char text[64];
    int rc = 0;

    switch (controller) {
    case CGROUP_MEMORY:
        if (limits->memory == 0)
            return 0;
        rc = write_number(path, unified ? "memory.max" : "memory.limit_in_bytes", limits->memory);
        /* Absent where the kernel counts no swap; then there is none to limit. */
        if (rc == 0 && unified)
            file_write(path, "memory.swap.max", "0");
        else if (rc == 0)
            write_number(path, "memory.memsw.limit_in_bytes", limits->memory);
        return rc;
    case CGROUP_PIDS:
        return limits->pids == 0 ? 0 : write_number(path, "pids.max", limits->pids);
    case CGROUP_CPU:
        if (limits->cpu_milli == 0)
            return 0;
        uint64_t quota = (uint64_t)limits->cpu_milli * CPU_PERIOD_US / 1000;
        /* The kernel's least quota is 1 ms. */
        quota = quota < 1000 ? 1000 : quota;
        if (!unified) {
            rc = write_number(path, "cpu.cfs_period_us", CPU_PERIOD_US);
            return rc == 0 ? write_number(path, "cpu.cfs_quota_us", quota) : rc;
        }
        snprintf(text, sizeof(text), "%" PRIu64 " %u", quota, CPU_PERIOD_US);
        return file_write(path, "cpu.max", text);
    case CGROUP_CONTROLLER_COUNT:
        break;
    }
    return -EINVAL;
}

int cgroup_create(const struct cgroup_layout *layout, const char *name,
                  const struct cgroup_limits *limits, struct err *err)
{
    char path[FS_PATH];

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (group_path(layout, i, name, path) != 0)
            continue;
        int rc = mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : -errno;
        if (rc == 0)
            rc = set_limit(path, (enum cgroup_controller)i, layout->unified[i], limits);
        if (rc != 0) {
            int failed = err_set(err, ERR_UNSUPPORTED_HERE, "%s limit: %s (%s)",
                                 controller_names[i], strerror(-rc), path);
            if (cgroup_remove(layout, name) != 0)
                return failed;
            return failed;
        }
    }
    return 0;
}

int cgroup_join(const struct cgroup_layout *layout, const char *name)
{
    char path[FS_PATH];

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (group_path(layout, i, name, path) == 0 && file_write(path, "cgroup.procs", "0") != 0)
            return -ERR_IO;
    }
    return 0;
}

int cgroup_move(const struct cgroup_layout *layout, const char *name, int pid)
{
    char path[FS_PATH];

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (!layout->unified[i] && group_path(layout, i, name, path) == 0
            && write_number(path, "cgroup.procs", (uint64_t)pid) != 0)
            return -ERR_IO;
    }
    return 0;
}

int cgroup_inner(const struct cgroup_layout *layout, const char *name, char ret_path[FS_PATH])
{
    static const char mount[] = "/sys/fs/cgroup";
    char path[FS_PATH];

    if (!layout->unified[CGROUP_MEMORY] || group_path(layout, CGROUP_MEMORY, name, path) != 0
        || strncmp(path, mount, sizeof(mount) - 1) != 0)
        return fs_path(ret_path, "/sheaf-%s", name);
    return fs_path(ret_path, "%s", path + sizeof(mount) - 1);
}

int cgroup_inner_remove(const char *path)
{
    static const char *const names[] = {"/conmon", ""};
    char group[FS_PATH];
    DIR *mounts = opendir("/sys/fs/cgroup");
    int rc = 0;

    for (struct dirent *entry = mounts != NULL ? readdir(mounts) : NULL; entry != NULL;
         entry = readdir(mounts)) {
        for (int i = 0; i < 2 && entry->d_name[0] != '.'; i++) {
            if (fs_path(group, "/sys/fs/cgroup/%s%s%s", entry->d_name, path, names[i]) == 0
                && rmdir(group) != 0 && errno == EBUSY)
                rc = -ERR_STATE_CONFLICT;
        }
    }
    if (mounts != NULL)
        closedir(mounts);
    return rc;
}

bool cgroup_is_oom(const struct cgroup_layout *layout, const char *name)
{
    bool unified = layout->unified[CGROUP_MEMORY];
    char path[FS_PATH];
    struct buf text;
    bool oom = false;

    if (group_path(layout, CGROUP_MEMORY, name, path) != 0)
        return false;
    buf_init(&text, 0);
    if (file_read(path, unified ? "memory.events" : "memory.oom_control", &text) == 0
        && text.data != NULL) {
        const char *line = strstr(text.data, "oom_kill ");
        oom = line != NULL && strtoull(line + strlen("oom_kill "), NULL, 10) > 0;
    }
    buf_fini(&text);
    return oom;
}

static void kill_listed(const char *path)
{
    struct buf text;

    if (file_write(path, "cgroup.kill", "1") == 0)
        return;
    buf_init(&text, 0);
    if (file_read(path, "cgroup.procs", &text) == 0 && text.data != NULL) {
        char *at = text.data;
        while (*at != '\0') {
            long pid = strtol(at, &at, 10);
            if (pid > 1)
                kill((pid_t)pid, SIGKILL);
            at += strspn(at, "\n ");
            if (pid == 0)
                break;
        }
    }
    buf_fini(&text);
}

void cgroup_kill(const struct cgroup_layout *layout, const char *name)
{
    char path[FS_PATH];

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (group_path(layout, i, name, path) == 0)
            kill_listed(path);
    }
}

int cgroup_remove(const struct cgroup_layout *layout, const char *name)
{
    char path[FS_PATH];
    int rc = 0;

    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        if (group_path(layout, i, name, path) != 0)
            continue;
        if (rmdir(path) != 0 && errno != ENOENT)
            rc = -ERR_STATE_CONFLICT;
    }
    return rc;
}
