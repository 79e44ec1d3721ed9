#ifndef SHEAF_WORKER_RUNTIME_SUPERVISE_PRIVATE_H
#define SHEAF_WORKER_RUNTIME_SUPERVISE_PRIVATE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/pure/buf.h"
#include "worker/runtime/driver.h"
#include "worker/runtime/init_wire.h"
#include "worker/runtime/log_shape.h"
#include "worker/runtime/plan.h"
#include "worker/runtime/supervise.h"
#include "worker/runtime/users.h"

/* The worker, a restarted worker, and one more during the change. */
#define SUPERVISE_MAX_CLIENTS 4

struct supervisor;

/* One output of one process: pipe in, log file out. */
struct log_stream {
    struct supervisor *super;
    struct event *event; /* NULL = closed */
    int pipe;
    int file;
    struct log_shape shape;
    bool broken; /* the file takes no more */
};

struct client {
    struct supervisor *super;
    struct event *event; /* NULL = free */
    int fd;
};

struct supervisor {
    struct event_base *base;
    struct plan_task task;
    const struct driver *driver;
    struct driver_user user;
    struct user_claim claim; /* of user; held as long as we live */
    int root_fd;             /* holds the sandbox's root */
    bool limited;            /* control groups exist */
    bool filtered;           /* a table exists */

    pid_t child; /* what we forked; 0 = reaped */
    bool child_failed;
    bool left;       /* something of the sandbox could not be removed */
    int sandbox_pid; /* first process of the sandbox, in our namespace; 0 = not known yet */
    int info_fd;
    struct buf info;
    int control; /* to sheaf-task-init */
    int noise;   /* stderr of bwrap and sheaf-task-init */
    struct log_stream log[2 * RUNTIME_MAX_PROCS];
    struct log_budget budget[RUNTIME_MAX_PROCS];
    uint32_t open_logs;
    struct client client[SUPERVISE_MAX_CLIENTS];

    struct event *on_listen;
    struct event *on_claim;
    struct event *on_control;
    struct event *on_info;
    struct event *on_child;
    struct event *on_term;
    struct event *grace;  /* to SIGKILL */
    struct event *linger; /* to giving up on something that does not end */
    struct event *remove; /* to the next try at the control groups */

    bool ready; /* sheaf-task-init waits, the filter stands */
    bool init_ready;
    bool release_wanted;
    bool started;
    bool stopping;
    bool killed;
    bool finishing;
    bool done;
    uint32_t alive; /* processes that were started and have not exited */
    bool exited[RUNTIME_MAX_PROCS];
    int64_t released_us; /* 0 = not yet */
    int64_t ended_us;
    uint32_t removals; /* tries to remove the control groups */
    uint32_t orphan_rounds;
    struct runtime_exit exit;
};

/* Users, limits, pipes, the sandbox, its filter. On failure the caller ends what was begun. */
int supervise_start(struct supervisor *super, struct err *err) SHEAF_MUST_USE;
/* The body of INIT_START. ERR_TOO_MANY: too large. */
int supervise_orders(const struct supervisor *super, struct buf *ret_body,
                     struct err *err) SHEAF_MUST_USE;

/* Opens log/RANK.* and the pipes; ret_write gets the 2 x proc_count write ends. */
int supervise_logs_open(struct supervisor *super, int *ret_write, struct err *err) SHEAF_MUST_USE;
/* Starts reading. */
void supervise_logs_watch(struct supervisor *super);
/* Takes what is there and closes. */
void supervise_logs_close(struct supervisor *super);
/* Something ended: finishes once everything has. By supervise.c. */
void supervise_advance(struct supervisor *super);

#endif
