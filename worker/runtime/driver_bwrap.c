/*
 * The sandbox of bubblewrap: an allow-list root. What is named neither here nor in root.c does not
 * exist inside.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/pure/buf.h"
#include "worker/runtime/driver.h"
#include "worker/runtime/root.h"
#include "worker/runtime/spawn.h"

/* /dev/shm of a plan that names none. */
#define SHM_DEFAULT ((uint64_t)64 << 20)
/* /run is for sockets and pid files. */
#define RUN_SIZE         ((uint64_t)16 << 20)
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

/* /bin and its like: links on merged systems, folders on others. */
static void add_system(struct driver_command *command, bool links)
{
    static const char *const folders[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    char target[FS_PATH];

    add(command, "--ro-bind", "/usr", "/usr");
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        ssize_t length = readlink(folders[i], target, sizeof(target) - 1);
        if (length > 0) {
            target[length] = '\0';
            if (links)
                add(command, "--symlink", target, folders[i]);
        } else if (access(folders[i], F_OK) == 0) {
            add(command, "--ro-bind", folders[i], folders[i]);
        }
    }
}

/* A bind costs as much as a process on a host with many mounts: none for an empty folder. */
static void add_opt(struct driver_command *command)
{
    DIR *folder = opendir("/opt");
    int entries = 0;

    if (folder == NULL)
        return;
    while (entries <= 2 && readdir(folder) != NULL) /* "." and ".." */
        entries++;
    closedir(folder);
    if (entries > 2)
        add(command, "--ro-bind", "/opt", "/opt");
}

/* Hundreds of links each: too many to copy them into every root. */
static void add_lists(struct driver_command *command)
{
    static const char *const lists[] = {"/etc/ssl/certs", "/etc/alternatives"};

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        add(command, "--ro-bind-try", lists[i], lists[i]);
}

/* Empty places that programs expect. /tmp may fill the memory limit, nothing more. */
static void add_scratch(struct driver_command *command, const struct plan_task *task)
{
    add_tmpfs(command, RUN_SIZE, "/run");
    add_tmpfs(command, task->limits.memory, "/tmp");
    add_tmpfs(command, task->limits.memory, "/var/tmp");
}

/* Drivers and collective libraries look for the bus layout; without a device the CPUs do. */
static void add_topology(struct driver_command *command, bool devices)
{
    static const char *const buses[] = {"/sys/devices", "/sys/class/drm", "/sys/class/kfd",
                                        "/sys/bus/pci", "/sys/dev/char"};
    static const char *const cpus[] = {"/sys/devices/system/cpu", "/sys/devices/system/node"};

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
    add(command, "--hostname", ROOT_HOSTNAME, NULL);
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

static int add_syscalls(struct driver_command *command, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -ERR_IO;
    int rc = add_fd(command, "--seccomp", fd);
    close(fd);
    return rc;
}

static int bwrap_command(const struct plan_task *task, const struct driver_user *user,
                         struct driver_command *ret_command, struct err *err)
{
    struct driver_command command = {.info_fd = -1, .root_fd = -1};
    char path[FS_PATH];
    int info[2] = {-1, -1};
    struct root root;
    int rc;

    if (spawn_find("bwrap", path) != 0)
        return err_set(err, ERR_UNSUPPORTED_HERE,
                       "bwrap is not installed; apt-get install bubblewrap");
    rc = root_open(task->roots, user, &root, err);
    if (rc != 0)
        return rc;
    command.root_fd = root.fd;
    spec_texts_add(&command.argv, path);
    add_isolation(&command, user->drop);
    rc = pipe2(info, O_CLOEXEC) == 0 ? add_fd(&command, "--info-fd", info[1]) : -ERR_IO;
    if (info[1] >= 0)
        close(info[1]);
    command.info_fd = info[0];
    if (rc == 0)
        rc = add_syscalls(&command, root.syscalls);
    add(&command, "--ro-bind", root.tree, "/");
    add_system(&command, false);
    add_opt(&command);
    add_lists(&command);
    add_scratch(&command, task);
    add(&command, "--proc", "/proc", NULL);
    add_devices(&command, task);
    spec_texts_add(&command.argv, "--ro-bind");
    spec_texts_addf(&command.argv, "%s/sheaf-task-init", task->libexec);
    spec_texts_add(&command.argv, ROOT_INIT);
    spec_texts_add(&command.argv, "--bind");
    spec_texts_addf(&command.argv, "%s/job", task->dir);
    spec_texts_add(&command.argv, "/job");
    spec_texts_add(&command.argv, "--bind");
    spec_texts_addf(&command.argv, "%s/out", task->dir);
    spec_texts_add(&command.argv, "/out");
    add(&command, "--", ROOT_INIT, NULL);
    driver_add_init(task, user, "/job", &command);
    if (rc != 0) {
        rc = err_set(err, ERR_IO, "cannot build the sandbox: %s", strerror(errno));
        if (command.info_fd >= 0)
            close(command.info_fd);
        close(root.fd);
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
    struct driver_command command = {.info_fd = -1, .root_fd = -1};
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
    add_system(&command, true);
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
