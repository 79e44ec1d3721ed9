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
    struct event *on_child; /* SIGCHLD */
    pid_t *child;           /* supervisors that we started and that were not reaped yet */
    uint32_t child_count;
    uint32_t child_capacity;
};

/* A supervisor that we started: it is reaped when it ends. Its news comes by its socket. */
void runtime_child(struct runtime *runtime, pid_t pid);

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

#endif
