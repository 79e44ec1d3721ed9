#ifndef SHEAF_WORKER_RUNTIME_ROOT_H
#define SHEAF_WORKER_RUNTIME_ROOT_H

/*
 * The read-only root of a sandbox, prepared once and used by many: bubblewrap reads the list of all
 * mounts at each bind, so one folder takes the place of a dozen binds and files.
 *
 * A root is named by a hash of all that it was made of (files of the host, the user, this program,
 * the boot): when one of these changes, another root is made. It holds the synthetic /etc, copies
 * of what the allow-list shows of the host's, and empty places to mount on; nothing else.
 */
#include "worker/runtime/driver.h"

#define ROOT_INIT     "/.sheaf/task-init" /* sheaf-task-init is mounted there */
#define ROOT_HOSTNAME "sheaf"

struct root {
    int fd; /* held while the root is in use; closed by the owner */
    char tree[FS_PATH];
    char syscalls[FS_PATH]; /* the filter of system calls, compiled */
};

/*
 * The root for this user below the folder `roots`, made if it is not there. Roots that nobody uses
 * any more are removed when another is made. Blocks some ten milliseconds then. ERR_IO.
 */
int root_open(const char *roots, const struct driver_user *user, struct root *ret_root,
              struct err *err) SHEAF_MUST_USE;

#endif
