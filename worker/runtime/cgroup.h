#ifndef SHEAF_WORKER_RUNTIME_CGROUP_H
#define SHEAF_WORKER_RUNTIME_CGROUP_H

/*
 * Limits by control groups, version 1, 2 or a mix, chosen per controller. A task's group lies under
 * the group that the worker itself runs in, so that whatever limits the worker limits its tasks.
 * The kernel's files are the only state.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/io/fs.h"
#include "common/pure/err.h"

enum cgroup_controller {
    CGROUP_MEMORY,
    CGROUP_PIDS,
    CGROUP_CPU,
    CGROUP_CONTROLLER_COUNT,
};

struct cgroup_layout {
    /* Existing folder that task groups are made in; empty = this controller is not to be had. */
    char parent[CGROUP_CONTROLLER_COUNT][FS_PATH];
    bool unified[CGROUP_CONTROLLER_COUNT]; /* version 2 */
};

struct cgroup_limits {
    uint64_t memory; /* bytes; 0 = none. Swap is not given on top. */
    uint32_t pids;
    uint32_t cpu_milli;
};

/*
 * Finds the parents from the texts of /proc/self/mountinfo and /proc/self/cgroup. Touches nothing.
 * Returns "v1", "v2", "hybrid" or "none".
 */
const char *cgroup_find(const char *mountinfo, const char *self, struct cgroup_layout *ret_layout);
/*
 * Reads this process's own layout and makes it usable: for version 2 enables the controllers for
 * children, which may move this process into a group of its own; tries a group with limits.
 * ERR_UNSUPPORTED_HERE says what is not writable.
 */
int cgroup_open(struct cgroup_layout *ret_layout, char ret_kind[16],
                struct err *err) SHEAF_MUST_USE;
/* ERR_IO; nothing is left on failure. */
int cgroup_create(const struct cgroup_layout *layout, const char *name,
                  const struct cgroup_limits *limits, struct err *err) SHEAF_MUST_USE;
/* Moves the calling process in. Async-signal-safe but for path building. ERR_IO. */
int cgroup_join(const struct cgroup_layout *layout, const char *name) SHEAF_MUST_USE;
/*
 * Moves another process in, version 1 alone: under version 2 a container's group lies inside ours.
 * ERR_IO.
 */
int cgroup_move(const struct cgroup_layout *layout, const char *name, int pid) SHEAF_MUST_USE;
/*
 * Path of the task's group below its hierarchy's root, for those who make groups of their own: that
 * of version 2, else one at the root. ERR_IO.
 */
int cgroup_inner(const struct cgroup_layout *layout, const char *name,
                 char ret_path[FS_PATH]) SHEAF_MUST_USE;
/*
 * Removes the groups of that path, and podman's one for itself inside, from every hierarchy. 0 once
 * nothing is left, -ERR_STATE_CONFLICT while something still lives there.
 */
int cgroup_inner_remove(const char *path) SHEAF_MUST_USE;
/* A process of the group was killed by its memory limit. */
bool cgroup_is_oom(const struct cgroup_layout *layout, const char *name);
/* SIGKILL to everything in the group. */
void cgroup_kill(const struct cgroup_layout *layout, const char *name);
/* 0 once nothing is left, -ERR_STATE_CONFLICT while the kernel still holds it: try again soon. */
int cgroup_remove(const struct cgroup_layout *layout, const char *name) SHEAF_MUST_USE;

#endif
