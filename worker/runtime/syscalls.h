#ifndef SHEAF_WORKER_RUNTIME_SYSCALLS_H
#define SHEAF_WORKER_RUNTIME_SYSCALLS_H

/*
 * The system calls that a task does not get: doors into the kernel that an unprivileged user could
 * open and that no training or inference job needs. Everything else stays, debuggers included.
 */
#include "common/pure/err.h"

/* ret_fd: the filter as BPF for `bwrap --seccomp`, close-on-exec, read from its start. ERR_IO. */
int syscalls_filter(int *ret_fd, struct err *err) SHEAF_MUST_USE;

#endif
