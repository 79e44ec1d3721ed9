#ifndef SHEAF_WORKER_IMAGES_CONTAINER_H
#define SHEAF_WORKER_IMAGES_CONTAINER_H

/*
 * The container of one task, in sheaf-container: the process between supervisor and podman. It has
 * podman create and start the container, in which sheaf-task-init connects to a socket and gets
 * the descriptors that a command of the supervisor inherits; from then on both speak as always.
 * It stays until the container's first process ended, and removes the container.
 */
#include <jansson.h>
#include <sys/types.h>

#include "worker/images/podman.h"
#include "worker/runtime/plan.h"

struct container_user {
    uid_t uid;
    gid_t gid;
    const char *groups; /* "44,105" or "-" */
};

/* What POST /containers/create is asked. `cdi`: devices of NVIDIA come by their CDI names. */
json_t *container_spec(const struct plan_task *task, const struct container_user *user, bool cdi);
/*
 * Descriptors INIT_CONTROL_FD… as sheaf-task-init wants them; the pid of the container's first
 * process goes to info_fd as bwrap says it. Ends early on SIGTERM, and when its parent dies.
 * Returns 0 when nothing is left behind; says why it failed on stderr.
 */
int container_run(const char *dir, const struct container_user *user, int info_fd);
/* Takes away what a killed sheaf-container has left. */
int container_remove(const char *dir);
/* Whether `podman` can run a container at all, tried with sheaf-task-init as its only file. */
int container_try(const struct podman *podman, struct err *err) SHEAF_MUST_USE;

#endif
