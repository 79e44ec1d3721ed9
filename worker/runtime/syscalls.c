#include "worker/runtime/syscalls.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Above the last family that any kernel knows. */
#define FAMILY_END 64

/* Programs probe for some of these and fall back when the kernel is too old for them. */
static int refuse_calls(scmp_filter_ctx filter)
{
    static const struct {
        int call;
        int error;
    } rows[] = {
        /* keys are kept per user number, and the next task may get the same one */
        {SCMP_SYS(add_key), EPERM},
        {SCMP_SYS(request_key), EPERM},
        {SCMP_SYS(keyctl), EPERM},
        /* kernel surface */
        {SCMP_SYS(bpf), EPERM},
        {SCMP_SYS(perf_event_open), EPERM},
        {SCMP_SYS(userfaultfd), EPERM},
        {SCMP_SYS(fanotify_init), EPERM},
        {SCMP_SYS(io_uring_setup), ENOSYS},
        {SCMP_SYS(io_uring_enter), ENOSYS},
        {SCMP_SYS(io_uring_register), ENOSYS},
        /* flags in memory cannot be judged; libc falls back to clone */
        {SCMP_SYS(clone3), ENOSYS},
        {SCMP_SYS(setns), EPERM},
        {SCMP_SYS(open_by_handle_at), EPERM},
        {SCMP_SYS(open_tree), ENOSYS},
        {SCMP_SYS(move_mount), ENOSYS},
        {SCMP_SYS(fsopen), ENOSYS},
        {SCMP_SYS(fsconfig), ENOSYS},
        {SCMP_SYS(fsmount), ENOSYS},
        {SCMP_SYS(fspick), ENOSYS},
        {SCMP_SYS(mount_setattr), ENOSYS},
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)rows[i].error), rows[i].call, 0);
    return rc;
}

/* A user namespace makes its owner root over much of the kernel. */
static int refuse_namespaces(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp flags =
        SCMP_A0(SCMP_CMP_MASKED_EQ, (scmp_datum_t)CLONE_NEWUSER, (scmp_datum_t)CLONE_NEWUSER);
    int rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, flags);

    return rc == 0 ? seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(unshare), 1, flags)
                   : rc;
}

/* The packet filter sees IP alone: no way around it, to the machine's host (vsock) for one. */
static int refuse_families(scmp_filter_ctx filter)
{
    static const int calls[] = {SCMP_SYS(socket), SCMP_SYS(socketpair)};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(calls) / sizeof(calls[0]); i++) {
        for (unsigned family = 0; rc == 0 && family < FAMILY_END; family++) {
            if (family == AF_UNIX || family == AF_INET || family == AF_INET6
                || family == AF_NETLINK)
                continue;
            rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), calls[i], 1,
                                  SCMP_A0(SCMP_CMP_EQ, family));
        }
    }
    return rc;
}

int syscalls_filter(int *ret_fd, struct err *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int rc = filter != NULL ? 0 : -ENOMEM;
    int fd = -1;

    if (rc == 0)
        rc = refuse_calls(filter);
    if (rc == 0)
        rc = refuse_namespaces(filter);
    if (rc == 0)
        rc = refuse_families(filter);
    if (rc == 0) {
        fd = memfd_create("syscalls", MFD_CLOEXEC);
        rc = fd < 0 ? -errno : seccomp_export_bpf(filter, fd);
    }
    if (rc == 0 && lseek(fd, 0, SEEK_SET) != 0)
        rc = -errno;
    seccomp_release(filter);
    if (rc != 0) {
        if (fd >= 0)
            close(fd);
        return err_set(err, ERR_IO, "cannot build the system call filter: %s", strerror(-rc));
    }
    *ret_fd = fd;
    return 0;
}
