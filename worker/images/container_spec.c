/* A task as podman's description of a container. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "worker/images/container.h"
#include "worker/runtime/init_wire.h"

#define SHM_DEFAULT ((uint64_t)64 << 20)
#define OPEN_FILES  65536u
/* Per user, so per task; its group has the tighter limit. Podman lowers its own to 32768. */
#define PROCESSES   16384u
#define INIT_FOLDER "/.sheaf"
#define NVIDIA      "/dev/nvidia"

static void put(json_t *object, const char *key, json_t *value)
{
    BUG_ON(json_object_set_new(object, key, value) != 0);
}

static void add(json_t *array, json_t *value)
{
    BUG_ON(json_array_append_new(array, value) != 0);
}

static json_t *bind_mount(const char *source, const char *target, const char *mode)
{
    return json_pack("{s:s, s:s, s:s, s:[s, s, s, s]}", "type", "bind", "source", source,
                     "destination", target, "options", "rbind", mode, "nosuid", "nodev");
}

static json_t *tmpfs_mount(const char *target, uint64_t size)
{
    json_t *options = json_pack("[s, s, s]", "mode=1777", "nosuid", "nodev");

    if (size > 0)
        add(options, json_sprintf("size=%llu", (unsigned long long)size));
    return json_pack("{s:s, s:s, s:o}", "type", "tmpfs", "destination", target, "options", options);
}

static json_t *mounts(const struct plan_task *task)
{
    static const char *const scratch[] = {"/tmp", "/var/tmp", "/run"};
    json_t *all = json_array();
    char path[FS_PATH];

    for (int i = 0; i < 2; i++) {
        /* Prepare refused folders whose paths would not fit. */
        BUG_ON(fs_path(path, "%s/%s", task->dir, i == 0 ? "job" : "out") != 0);
        add(all, bind_mount(path, i == 0 ? "/job" : "/out", "rw"));
    }
    BUG_ON(fs_path(path, "%s/sheaf-task-init", task->libexec) != 0);
    add(all, bind_mount(path, INIT_FOLDER "/task-init", "ro"));
    BUG_ON(fs_path(path, "%s/" PLAN_INIT, task->dir) != 0);
    add(all, bind_mount(path, INIT_FOLDER "/socket", "ro"));
    for (size_t i = 0; i < sizeof(scratch) / sizeof(scratch[0]); i++)
        add(all, tmpfs_mount(scratch[i], task->limits.memory));
    return all;
}

/* "/dev/nvidia0" is a GPU; "/dev/nvidiactl" and its like come with any of them. */
static void add_device(json_t *devices, const char *node, bool cdi)
{
    size_t length = strlen(NVIDIA);
    bool nvidia = cdi && strncmp(node, NVIDIA, length) == 0;
    bool numbered = nvidia && node[length] != '\0'
                    && node[length + strspn(node + length, "0123456789")] == '\0';

    if (numbered)
        add(devices, json_pack("{s:o}", "path", json_sprintf("nvidia.com/gpu=%s", node + length)));
    else if (!nvidia)
        add(devices, json_pack("{s:s}", "path", node));
}

static json_t *devices(const struct plan_task *task, bool cdi)
{
    json_t *all = json_array();

    for (uint32_t i = 0; i < task->device_nodes.count; i++)
        add_device(all, task->device_nodes.items[i], cdi);
    return all;
}

static json_t *limit(const char *type, rlim_t soft, rlim_t hard)
{
    return json_pack("{s:s, s:I, s:I}", "type", type, "soft",
                     (json_int_t)(soft < hard ? soft : hard), "hard", (json_int_t)hard);
}

/* Podman's defaults exceed the hard limits of a machine that may not raise them. */
static json_t *limits(void)
{
    struct rlimit files = {OPEN_FILES, OPEN_FILES};
    struct rlimit processes = {PROCESSES, PROCESSES};
    json_t *all = json_array();

    (void)getrlimit(RLIMIT_NOFILE, &files);
    (void)getrlimit(RLIMIT_NPROC, &processes);
    if (files.rlim_max > OPEN_FILES)
        files.rlim_max = OPEN_FILES;
    if (processes.rlim_max > PROCESSES)
        processes.rlim_max = PROCESSES;
    add(all, limit("NOFILE", OPEN_FILES, files.rlim_max));
    add(all, limit("NPROC", processes.rlim_max, processes.rlim_max));
    add(all, limit("CORE", 0, 0));
    return all;
}

static json_t *command(const struct plan_task *task)
{
    json_t *words = json_pack("[s, s, s, s]", "-", "-", "-", "/job");

    add(words, json_sprintf("%u", task->proc_count));
    add(words, json_string(INIT_FOLDER "/socket"));
    return words;
}

static json_t *groups(const char *list)
{
    json_t *all = json_array();

    while (strcmp(list, "-") != 0 && *list != '\0') {
        size_t length = strcspn(list, ",");
        add(all, json_stringn(list, length));
        list += length + (list[length] == ',');
    }
    return all;
}

/* Namespaces of its own but for the network, which is the node's as for every task. */
static void put_isolation(json_t *spec, const struct plan_task *task)
{
    static const char *const own[] = {"pidns", "ipcns", "utsns", "cgroupns"};
    char inner[FS_PATH];

    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        put(spec, own[i], json_pack("{s:s}", "nsmode", "private"));
    put(spec, "netns", json_pack("{s:s}", "nsmode", "host"));
    put(spec, "hostname", json_string("sheaf"));
    put(spec, "read_only_filesystem", json_true());
    put(spec, "no_new_privileges", json_true());
    put(spec, "cap_drop", json_pack("[s]", "ALL"));
    if (cgroup_inner(&task->cgroup, task->name, inner) == 0)
        put(spec, "cgroup_parent", json_string(inner));
}

json_t *container_spec(const struct plan_task *task, const struct container_user *user, bool cdi)
{
    json_t *spec = json_object();

    put(spec, "name", json_string(task->name));
    put(spec, "image", json_string(task->image));
    put(spec, "entrypoint", json_pack("[s]", INIT_FOLDER "/task-init"));
    put(spec, "command", command(task));
    put(spec, "user", json_sprintf("%u:%u", (unsigned)user->uid, (unsigned)user->gid));
    put(spec, "groups", groups(user->groups));
    put(spec, "mounts", mounts(task));
    put(spec, "devices", devices(task, cdi));
    put(spec, "shm_size", json_integer((json_int_t)(task->shm > 0 ? task->shm : SHM_DEFAULT)));
    put(spec, "r_limits", limits());
    put_isolation(spec, task);
    /* The tenant's environment reaches its processes alone, no hook of the host. */
    put(spec, "unsetenvall", json_true());
    put(spec, "env", json_object());
    put(spec, "work_dir", json_string("/"));
    put(spec, "image_volume_mode", json_string("ignore"));
    put(spec, "log_configuration", json_pack("{s:s}", "driver", "none"));
    put(spec, "restart_policy", json_string("no"));
    put(spec, "systemd", json_string("false"));
    put(spec, "sdnotifyMode", json_string("ignore"));
    put(spec, "stop_timeout", json_integer(0));
    put(spec, "volatile", json_true());
    return spec;
}
