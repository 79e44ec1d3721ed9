#ifndef SHEAF_WORKER_RUNTIME_DRIVER_H
#define SHEAF_WORKER_RUNTIME_DRIVER_H

/*
 * How a sandbox is made: one row per kind. A driver turns a task into the command line that ends in
 * sheaf-task-init; everything else (limits, filter, logs, life) is the same for all.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "common/pure/err.h"
#include "common/pure/spec.h"
#include "worker/runtime/plan.h"

/* Descriptors that a command inherits lie here, above those of init_wire.h. */
#define DRIVER_FIRST_FD 64

struct driver_user {
    bool drop; /* the rest is meant only then */
    uid_t uid;
    gid_t gid;
    char groups[256]; /* "44,105" or "-" */
};

struct driver_command {
    struct spec_texts argv;
    int fd[16]; /* inherited, ≥ DRIVER_FIRST_FD, not close-on-exec; closed by _fini */
    uint32_t fd_count;
    int info_fd; /* the sandbox writes its pid as JSON there; -1: the started process is it */
    int root_fd; /* to be held while the sandbox lives; -1: none */
};

struct driver {
    const char *name;
    bool isolated; /* a user of its own, and nothing of the host's files */
    /*
     * The command only looks after the sandbox: it stays out of the task's groups, which the
     * sandbox's first process enters at the barrier, and ends on SIGTERM.
     */
    bool apart;
    /* Blocks up to 10 s. ERR_UNSUPPORTED_HERE with the fix. */
    int (*probe)(struct err *err);
    int (*command)(const struct plan_task *task, const struct driver_user *user,
                   struct driver_command *ret_command, struct err *err);
    /* Where the task sees its folders. */
    void (*folders)(const struct plan_task *task, char job[FS_PATH], char out[FS_PATH]);
    /* NULL, or takes away what a command that was killed has left. Blocks up to 30 s. */
    int (*remove)(const struct plan_task *task, struct err *err);
};

extern const struct driver driver_bwrap;
extern const struct driver driver_process;
extern const struct driver driver_podman;

/* NULL for an unknown name. */
const struct driver *driver_get(const char *name);
void driver_command_fini(struct driver_command *command);
/* Appends UID GID GROUPS FOLDER PROCS for sheaf-task-init. */
void driver_add_init(const struct plan_task *task, const struct driver_user *user,
                     const char *folder, struct driver_command *command);

#endif
