#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/devices/child/child.h"

/* A limit of the cgroup that we see as root (a container's own), or UINT64_MAX. */
static uint64_t cgroup_memory(void)
{
    uint64_t v2 = text_read_number("%s/fs/cgroup/memory.max", sysfs_root());
    uint64_t v1 = text_read_number("%s/fs/cgroup/memory/memory.limit_in_bytes", sysfs_root());
    uint64_t limit = v2 != 0 ? v2 : v1;

    return limit != 0 ? limit : UINT64_MAX;
}

/* CPU share of that cgroup in thousandths, or UINT64_MAX. */
static uint64_t cgroup_cpu_milli(void)
{
    char text[64];
    const char *at = text;
    uint64_t quota = 0; /* also "max" */
    uint64_t period = 0;

    if (text_read(text, sizeof(text), "%s/fs/cgroup/cpu.max", sysfs_root())) {
        if (text_take_number(&at, 10, &quota) && *at++ == ' ')
            (void)text_take_number(&at, 10, &period);
    } else {
        quota = text_read_number("%s/fs/cgroup/cpu/cpu.cfs_quota_us", sysfs_root());
        period = text_read_number("%s/fs/cgroup/cpu/cpu.cfs_period_us", sysfs_root());
    }
    return quota == 0 || period == 0 ? UINT64_MAX : quota * 1000 / period;
}

void host_list(struct host_info *host)
{
    hwloc_topology_t topology;
    hwloc_obj_t root;
    hwloc_obj_t package;
    uint64_t cpu_milli;
    uint64_t memory;
    const char *model = NULL;

    /* Its own OpenCL and GL plug-ins would load drivers behind our back. */
    setenv("HWLOC_COMPONENTS", "-opencl,-gl", 1);
    if (hwloc_topology_init(&topology) != 0) {
        host_warn(host, "hwloc: cannot start");
        return;
    }
    if (hwloc_topology_load(topology) != 0) {
        host_warn(host, "hwloc: cannot read the topology");
        hwloc_topology_destroy(topology);
        return;
    }
    root = hwloc_get_root_obj(topology);
    cpu_milli = (uint64_t)hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU) * 1000;
    memory = root->total_memory;
    if (cgroup_cpu_milli() < cpu_milli)
        cpu_milli = cgroup_cpu_milli();
    if (cgroup_memory() < memory)
        memory = cgroup_memory();
    host->cpu_milli = (uint32_t)cpu_milli;
    host->memory_mib = (uint32_t)(memory >> 20);
    host->numa_nodes = (uint32_t)hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    if (package != NULL)
        model = hwloc_obj_get_info_by_name(package, "CPUModel");
    snprintf(host->cpu_model, sizeof(host->cpu_model), "%s", model != NULL ? model : "unknown");
    hwloc_topology_destroy(topology);
}
