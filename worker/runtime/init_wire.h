#ifndef SHEAF_WORKER_RUNTIME_INIT_WIRE_H
#define SHEAF_WORKER_RUNTIME_INIT_WIRE_H

/*
 * What the supervisor and sheaf-task-init say to each other over a stream socket pair. Both come
 * from one build and one machine, so plain structs do. Includes libc headers alone.
 *
 * Arguments of sheaf-task-init: UID GID GROUPS FOLDER PROCS [SOCKET]. UID "-" keeps the user as it
 * is; GROUPS is a comma list or "-". In a container, which inherits nothing, the descriptors come
 * as one message over the unix socket SOCKET. Descriptors: INIT_CONTROL_FD, then per process
 * INIT_LOG_FD + 2i for stdout and + 2i + 1 for stderr.
 */
#include <stdint.h>

#define INIT_CONTROL_FD 3
#define INIT_LOG_FD     4
#define INIT_MAX_PROCS  16
/* Script and environments together; the plan's own bounds are far below. */
#define INIT_MAX_START ((uint32_t)16 << 20)

enum init_order {
    /*
     * Body: uint32 number of strings per process (INIT_MAX_PROCS of them), then the strings, each
     * ended by a 0 byte: the script, then each process's environment in turn.
     */
    INIT_START = 1,
    INIT_SIGNAL = 2, /* size = the signal, no body; for every process of the sandbox */
};

struct init_order_head {
    uint32_t order;
    uint32_t size;
};

enum init_news {
    INIT_READY = 1,   /* user dropped, waiting at the barrier */
    INIT_STARTED = 2, /* every process has executed its shell */
    INIT_EXITED = 3,  /* proc, value = wait status */
    INIT_FAILED = 4,  /* proc = enum init_step, value = errno */
};

enum init_step {
    INIT_STEP_USER,
    INIT_STEP_FOLDER,
    INIT_STEP_ORDER,
    INIT_STEP_FORK,
    INIT_STEP_EXEC,
};

struct init_report {
    uint32_t news;
    uint32_t proc;
    int32_t value;
};

#endif
