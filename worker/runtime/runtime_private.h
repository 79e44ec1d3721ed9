#ifndef SHEAF_WORKER_RUNTIME_RUNTIME_PRIVATE_H
#define SHEAF_WORKER_RUNTIME_RUNTIME_PRIVATE_H

#include "worker/runtime/driver.h"
#include "worker/runtime/plan.h"
#include "worker/runtime/runtime.h"

struct runtime {
    struct event_base *base;
    const struct driver *driver;
    struct cgroup_layout cgroup; /* empty: no limits */
    enum filter_mode filter;
    char libexec[FS_PATH];
    char roots[FS_PATH]; /* root.h */
    struct runtime_probe probe;
    int nursery; /* to the process that forks supervisors; -1: none yet */
    pid_t nursery_pid;
};

struct task {
    struct runtime *runtime;
    char dir[FS_PATH];
    struct task_hooks hooks;
    int fd;              /* to the supervisor; -1 = the task is over */
    struct event *event; /* of fd, or the one that tells of a past exit */
    int sandbox_pid;     /* 0 = not known */
    int64_t released_us; /* CLOCK_BOOTTIME; 0 = not yet */
    bool told_ready;
    bool told_started;
    bool over;
    bool clean; /* the supervisor left nothing behind */
    struct runtime_exit exit;
};

/*
 * Has a supervisor made for the task in this folder, which takes listen_fd over. It is nobody's
 * child here: its news comes by the socket.
 */
int nursery_order(struct runtime *runtime, const char *dir, int listen_fd,
                  struct err *err) SHEAF_MUST_USE;
void nursery_close(struct runtime *runtime);

#endif
