#include "worker/runtime/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/libexec.h"
#include "common/pure/mem.h"
#include "worker/runtime/runtime_private.h"

static void add_detail(struct runtime_probe *probe, const char *what, const char *why)
{
    size_t used = strlen(probe->detail);

    if (used > 0 && used < sizeof(probe->detail) - 3)
        used += (size_t)snprintf(probe->detail + used, 3, "; ");
    snprintf(probe->detail + used, sizeof(probe->detail) - used, "%s: %.100s", what, why);
}

static void probe_limits(struct runtime *runtime)
{
    struct runtime_probe *probe = &runtime->probe;
    struct err err = {0};

    snprintf(probe->cgroup, sizeof(probe->cgroup), "none");
    probe->limits = cgroup_open(&runtime->cgroup, probe->cgroup, &err) == 0;
    if (!probe->limits) {
        memset(&runtime->cgroup, 0, sizeof(runtime->cgroup));
        add_detail(probe, "no limits (run as root, or delegate cgroups)", err.text);
    }
}

static void probe_filter(struct runtime *runtime)
{
    struct runtime_probe *probe = &runtime->probe;
    struct err err = {0};

    if (!runtime->driver->isolated) {
        add_detail(probe, "no network filter", "tasks have the worker's user");
        return;
    }
    runtime->filter = filter_probe(&err);
    probe->filter = runtime->filter != FILTER_NONE;
    if (!probe->filter)
        add_detail(probe, "no network filter", err.text);
}

int runtime_new(struct event_base *base, const char *state_dir, bool unsafe_process,
                struct runtime **ret_runtime, struct err *err)
{
    static const char *const helpers[] = {"sheaf-supervisor", "sheaf-task-init", NULL};
    struct runtime *runtime = mem_new(1, sizeof(*runtime));
    int rc;

    if (state_dir[0] != '/') {
        free(runtime);
        return err_set(err, ERR_IO, "the state folder must be an absolute path");
    }
    runtime->base = base;
    runtime->nursery = -1;
    runtime->driver = unsafe_process ? &driver_process : &driver_bwrap;
    rc = fs_path(runtime->roots, "%s/root", state_dir) == 0
             ? libexec_find(helpers, runtime->libexec, err)
             : err_set(err, ERR_IO, "the state folder's path is too long");
    if (rc == 0)
        rc = runtime->driver->probe(err);
    if (rc != 0) {
        free(runtime);
        return rc;
    }
    snprintf(runtime->probe.runtime, sizeof(runtime->probe.runtime), "%s", runtime->driver->name);
    if (unsafe_process)
        add_detail(&runtime->probe, "%s",
                   "no isolation: tasks see this machine as the worker does");
    probe_limits(runtime);
    probe_filter(runtime);
    *ret_runtime = runtime;
    return 0;
}

void runtime_free(struct runtime *runtime)
{
    if (runtime == NULL)
        return;
    nursery_close(runtime);
    free(runtime);
}

const struct runtime_probe *runtime_probed(const struct runtime *runtime)
{
    return &runtime->probe;
}

int runtime_log_path(const char *dir, uint32_t rank, uint32_t stream, char ret_path[FS_PATH])
{
    return fs_path(ret_path, "%s/log/%u.%s", dir, rank, stream == 2 ? "stderr" : "stdout");
}
