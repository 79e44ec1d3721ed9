/*
 * The sandbox of bubblewrap: an allow-list root. What is not named here does not exist inside.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pure/buf.h"
#include "worker/runtime/driver.h"
#include "worker/runtime/spawn.h"
#include "worker/runtime/syscalls.h"

#define INIT_PATH "/.sheaf/task-init"
#define HOSTNAME  "sheaf"
/* /dev/shm of a plan that names none. */
#define SHM_DEFAULT ((uint64_t)64 << 20)
/* /run is for sockets and pid files. */
#define RUN_SIZE         ((uint64_t)16 << 20)
#define ETC_LIMIT        ((size_t)64 << 10)
#define PROBE_TIMEOUT_MS 10000

static void add(struct driver_command *command, const char *a, const char *b, const char *c)
{
    spec_texts_add(&command->argv, a);
    if (b != NULL)
        spec_texts_add(&command->argv, b);
    if (c != NULL)
        spec_texts_add(&command->argv, c);
}

/* Parents that bwrap makes by itself are closed to all but its user. */
static void add_folder(struct driver_command *command, const char *path)
{
    add(command, "--perms", "0755", "--dir");
    spec_texts_add(&command->argv, path);
}

static void add_tmpfs(struct driver_command *command, uint64_t size, const char *path)
{
    add(command, "--perms", "1777", NULL);
    if (size > 0) {
        spec_texts_add(&command->argv, "--size");
        spec_texts_addf(&command->argv, "%llu", (unsigned long long)size);
    }
    add(command, "--tmpfs", path, NULL);
}

/*
 * A file of this text. It lies on the root, which is read-only in the end: a bind of its own would
 * make bwrap read the list of all mounts once more.
 */
static int add_bytes(struct driver_command *command, const char *path, const char *text,
                     size_t length)
{
    int low = memfd_create("etc", MFD_CLOEXEC);
    int fd = low < 0 ? -1 : fcntl(low, F_DUPFD, DRIVER_FIRST_FD);
    bool good =
        fd >= 0 && write(fd, text, length) == (ssize_t)length && lseek(fd, 0, SEEK_SET) == 0;

    if (low >= 0)
        close(low);
    if (!good || command->fd_count == sizeof(command->fd) / sizeof(command->fd[0])) {
        if (fd >= 0)
            close(fd);
        return -ERR_IO;
    }
    command->fd[command->fd_count++] = fd;
    add(command, "--perms", "0444", "--file");
    spec_texts_addf(&command->argv, "%d", fd);
    spec_texts_add(&command->argv, path);
    return 0;
}

static int add_text(struct driver_command *command, const char *path, const char *text)
{
    return add_bytes(command, path, text, strlen(text));
}

/* Copies one host file; a missing one is left out. */
static int add_copy(struct driver_command *command, const char *path)
{
    struct buf text;
    int rc = 0;

    buf_init(&text, 0);
    if (fs_read(path, ETC_LIMIT, &text, NULL) == 0 && text.data != NULL)
        rc = add_bytes(command, path, text.data, text.length);
    buf_fini(&text);
    return rc;
}

static int add_etc(struct driver_command *command, const struct driver_user *user)
{
    static const char *const shown[] = {"/etc/ld.so.cache", "/etc/ld.so.conf.d", "/etc/ssl/certs",
                                        "/etc/alternatives", "/etc/OpenCL/vendors"};
    static const char *const copied[] = {"/etc/resolv.conf", "/etc/ld.so.conf", "/etc/localtime",
                                         "/etc/protocols", "/etc/services"};
    static const char hosts[] = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " HOSTNAME "\n";
    static const char services[] = "passwd: files\ngroup: files\nhosts: files dns\n"
                                   "services: files\nprotocols: files\n";
    unsigned uid = user->drop ? user->uid : geteuid();
    unsigned gid = user->drop ? user->gid : getegid();
    char passwd[256];
    char group[256];

    snprintf(passwd, sizeof(passwd),
             "%ssheaf:x:%u:%u:task:/job:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
             uid == 0 ? "" : "root:x:0:0:root:/root:/usr/sbin/nologin\n", uid, gid);
    snprintf(group, sizeof(group), "%ssheaf:x:%u:\nnogroup:x:65534:\n",
             gid == 0 ? "" : "root:x:0:\n", gid);
    add_folder(command, "/etc");
    add_folder(command, "/etc/ssl");
    add_folder(command, "/etc/OpenCL");
    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
        add(command, "--ro-bind-try", shown[i], shown[i]);
    if (add_text(command, "/etc/passwd", passwd) != 0 || add_text(command, "/etc/group", group) != 0
        || add_text(command, "/etc/hosts", hosts) != 0
        || add_text(command, "/etc/hostname", HOSTNAME "\n") != 0
        || add_text(command, "/etc/nsswitch.conf", services) != 0)
        return -ERR_IO;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(copied) / sizeof(copied[0]); i++)
        rc = add_copy(command, copied[i]);
    return rc;
}

/* /bin and its like: links on merged systems, folders on others. */
static void add_system(struct driver_command *command)
{
    static const char *const folders[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    char target[FS_PATH];

    add(command, "--ro-bind", "/usr", "/usr");
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        ssize_t length = readlink(folders[i], target, sizeof(target) - 1);
        if (length > 0) {
            target[length] = '\0';
            add(command, "--symlink", target, folders[i]);
        } else {
            add(command, "--ro-bind-try", folders[i], folders[i]);
        }
    }
    add(command, "--ro-bind-try", "/opt", "/opt");
}

/* Empty places that programs expect. /tmp may fill the memory limit, nothing more. */
static void add_scratch(struct driver_command *command, const struct plan_task *task)
{
    add_folder(command, "/home");
    add_folder(command, "/root");
    add_folder(command, "/var");
    add_tmpfs(command, RUN_SIZE, "/run");
    add(command, "--symlink", "/run", "/var/run");
    add_tmpfs(command, task->limits.memory, "/tmp");
    add_tmpfs(command, task->limits.memory, "/var/tmp");
}

/* Drivers and collective libraries look for the bus layout; without a device the CPUs do. */
static void add_topology(struct driver_command *command, bool devices)
{
    static const char *const folders[] = {"/sys",       "/sys/devices", "/sys/devices/system",
                                          "/sys/class", "/sys/bus",     "/sys/dev"};
    static const char *const buses[] = {"/sys/devices", "/sys/class/drm", "/sys/class/kfd",
                                        "/sys/bus/pci", "/sys/dev/char"};
    static const char *const cpus[] = {"/sys/devices/system/cpu", "/sys/devices/system/node"};

    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
        add_folder(command, folders[i]);
    for (size_t i = 0; devices && i < sizeof(buses) / sizeof(buses[0]); i++)
        add(command, "--ro-bind-try", buses[i], buses[i]);
    for (size_t i = 0; !devices && i < sizeof(cpus) / sizeof(cpus[0]); i++)
        add(command, "--ro-bind-try", cpus[i], cpus[i]);
}

/* "/dev/a/b/c" needs /dev/a and /dev/a/b. */
static void add_parents(struct driver_command *command, const char *node)
{
    char path[FS_PATH];

    snprintf(path, sizeof(path), "%s", node);
    for (char *slash = strchr(path + strlen("/dev/"), '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        add_folder(command, path);
        *slash = '/';
    }
}

static void add_devices(struct driver_command *command, const struct plan_task *task)
{
    add(command, "--dev", "/dev", NULL);
    for (uint32_t i = 0; i < task->device_nodes.count; i++) {
        const char *node = task->device_nodes.items[i];
        add_parents(command, node);
        add(command, "--dev-bind", node, node);
    }
    add_tmpfs(command, task->shm > 0 ? task->shm : SHM_DEFAULT, "/dev/shm");
    add(command, "--remount-ro", "/dev", NULL);
    add_topology(command, task->device_nodes.count > 0);
}

static void add_isolation(struct driver_command *command, bool drop)
{
    static const char *const flags[] = {
        "--unshare-pid",     "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent", "--new-session", "--as-pid-1",    "--clearenv"};

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        spec_texts_add(&command->argv, flags[i]);
    add(command, "--hostname", HOSTNAME, NULL);
    add(command, "--cap-drop", "ALL", NULL);
    if (!drop) {
        spec_texts_add(&command->argv, "--unshare-user");
        return;
    }
    /* For sheaf-task-init to become the task's user; gone with that. */
    add(command, "--cap-add", "CAP_SETUID", NULL);
    add(command, "--cap-add", "CAP_SETGID", NULL);
    add(command, "--cap-add", "CAP_SETPCAP", NULL);
}

/* Hands a copy of fd to the sandbox under an option that takes its number. */
static int add_fd(struct driver_command *command, const char *option, int fd)
{
    int high = fcntl(fd, F_DUPFD, DRIVER_FIRST_FD);

    if (high < 0 || command->fd_count == sizeof(command->fd) / sizeof(command->fd[0]))
        return -ERR_IO;
    command->fd[command->fd_count++] = high;
    spec_texts_add(&command->argv, option);
    spec_texts_addf(&command->argv, "%d", high);
    return 0;
}

static int add_syscalls(struct driver_command *command)
{
    int fd;

    if (syscalls_filter(&fd, NULL) != 0)
        return -ERR_IO;
    int rc = add_fd(command, "--seccomp", fd);
    close(fd);
    return rc;
}

static int bwrap_command(const struct plan_task *task, const struct driver_user *user,
                         struct driver_command *ret_command, struct err *err)
{
    struct driver_command command = {.info_fd = -1};
    char path[FS_PATH];
    int info[2] = {-1, -1};
    int rc;

    if (spawn_find("bwrap", path) != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE,
                       "bwrap is not installed; apt-get install bubblewrap");
    spec_texts_add(&command.argv, path);
    add_isolation(&command, user->drop);
    rc = pipe2(info, O_CLOEXEC) == 0 ? add_fd(&command, "--info-fd", info[1]) : -ERR_IO;
    if (info[1] >= 0)
        close(info[1]);
    command.info_fd = info[0];
    if (rc == 0)
        rc = add_syscalls(&command);
    add_system(&command);
    if (rc == 0)
        rc = add_etc(&command, user);
    add_scratch(&command, task);
    add(&command, "--proc", "/proc", NULL);
    add_devices(&command, task);
    spec_texts_add(&command.argv, "--ro-bind");
    spec_texts_addf(&command.argv, "%s/sheaf-task-init", task->libexec);
    spec_texts_add(&command.argv, INIT_PATH);
    spec_texts_add(&command.argv, "--bind");
    spec_texts_addf(&command.argv, "%s/job", task->dir);
    spec_texts_add(&command.argv, "/job");
    spec_texts_add(&command.argv, "--bind");
    spec_texts_addf(&command.argv, "%s/out", task->dir);
    spec_texts_add(&command.argv, "/out");
    add(&command, "--remount-ro", "/", NULL);
    add(&command, "--", INIT_PATH, NULL);
    driver_add_init(task, user, "/job", &command);
    if (rc != 0) {
        rc = err_set(err, ERR_IO, "cannot build the sandbox: %s", strerror(errno));
        if (command.info_fd >= 0)
            close(command.info_fd);
        driver_command_fini(&command);
        return rc;
    }
    *ret_command = command;
    return 0;
}

static void bwrap_folders(const struct plan_task *task, char job[FS_PATH], char out[FS_PATH])
{
    (void)task;
    snprintf(job, FS_PATH, "/job");
    snprintf(out, FS_PATH, "/out");
}

static int bwrap_probe(struct err *err)
{
    struct driver_command command = {.info_fd = -1};
    struct err detail = {0};
    struct buf output;
    char path[FS_PATH];
    const char *argv[64];
    uint32_t count = 0;
    bool root = geteuid() == 0;

    if (spawn_find("bwrap", path) != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE,
                       "bwrap is not installed; apt-get install bubblewrap");
    spec_texts_add(&command.argv, path);
    add_isolation(&command, root);
    add_system(&command);
    add(&command, "--proc", "/proc", NULL);
    add(&command, "--dev", "/dev", NULL);
    add(&command, "--", "/bin/true", NULL);
    BUG_ON(command.argv.count >= sizeof(argv) / sizeof(argv[0]));
    for (; count < command.argv.count; count++)
        argv[count] = command.argv.items[count];
    argv[count] = NULL;
    buf_init(&output, 0);
    int rc = spawn_run(argv, NULL, PROBE_TIMEOUT_MS, &output, &detail);
    if (rc != 0)
        rc = err_set(err, ERR_UNSUPPORTED_HERE, "%.150s; %s", detail.text,
                     root ? "give it CAP_SYS_ADMIN, or run as an ordinary user"
                          : "allow user namespaces, or run as root");
    buf_fini(&output);
    driver_command_fini(&command);
    return rc;
}

const struct driver driver_bwrap = {
    .name = "bwrap",
    .isolated = true,
    .probe = bwrap_probe,
    .command = bwrap_command,
    .folders = bwrap_folders,
};
