#ifndef SHEAF_WORKER_RUNTIME_RUNTIME_H
#define SHEAF_WORKER_RUNTIME_RUNTIME_H

/*
 * Runs one task (a node's part of an attempt) in a sandbox, under a supervisor process of its own
 * that outlives the worker. Drivers stand behind one ops table: "bwrap" (bubblewrap and cgroups),
 * "podman" (tasks with an image) and "process" (no isolation; only under --unsafe-runtime=process).
 *
 * Everything of a task lives in one folder, `dir`:
 *   task.json    the plan below, as written at prepare     exit.json  exit status, when it is over
 *   run.json     pid, boot id and start time of the supervisor
 *   job/ out/    the task's /job and /out                   log/RANK.STREAM  raw output per process
 * job/ is filled before runtime_prepare: the supervisor gives it to the task's user there.
 *
 * Beside the plan's environment a task sees constants alone (the plan wins): PATH, HOME, USER,
 * LOGNAME, SHELL, LANG, TMPDIR, POCL_CACHE_DIR, and SHEAF_JOB_DIR and SHEAF_OUT_DIR, which are /job
 * and /out in a sandbox and the folders themselves under "process".
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/io/fs.h"
#include "common/pure/err.h"
#include "common/pure/spec.h"

#define RUNTIME_MAX_PROCS SPEC_MAX_GPUS_PER_NODE
#define RUNTIME_MAX_PEERS SPEC_MAX_NODES

struct runtime_proc {
    uint32_t rank;         /* process rank: name of its log files */
    struct spec_texts env; /* what differs per process: RANK, LOCAL_RANK, … */
};

struct runtime_plan {
    char dir[FS_PATH];
    char name[96];             /* unique on this machine: cgroup and nft names derive from it */
    struct spec_texts env;     /* common to all processes; nothing else reaches the task */
    const char *script;        /* run by /bin/sh -e; borrowed */
    const char *image;         /* id in podman's store, borrowed; NULL = the node's programs */
    const char *podman;        /* folder of that store; with image */
    struct runtime_proc *proc; /* proc_count of them */
    uint32_t proc_count;
    uint32_t cpu_milli; /* 0 = no limit */
    uint64_t memory;    /* bytes; 0 = no limit */
    uint64_t shm;
    uint32_t pids;
    const char *device_nodes[64]; /* visible device nodes, nothing else of /dev but the basics */
    uint32_t device_node_count;
    const char *peers[RUNTIME_MAX_PEERS]; /* addresses that the task may reach; itself always */
    uint32_t peer_count;
    bool filter;            /* install the nft filter (where the probe says it can) */
    uint64_t stop_grace_ms; /* SIGTERM to SIGKILL */
    uint64_t log_limit;     /* bytes kept of each process's output (log_shape.h) */
};

struct runtime_exit {
    int32_t code;     /* first non-zero of the processes, else 0; 128 + signal like a shell */
    uint32_t rank;    /* process rank it came from */
    bool oom;         /* a process was killed by the memory limit */
    uint64_t used_ms; /* from release to the last exit, monotonic */
    /*
     * Empty, or why the sandbox itself failed: it could not start (code 125), or its supervisor
     * vanished (code 137). Never the tenant's doing.
     */
    char failure[192];
};

struct runtime_probe {
    char runtime[32]; /* "bwrap" or "process" */
    char cgroup[16];  /* "v1", "v2", "hybrid", "none" */
    bool limits;      /* memory, pids and cpu limits can be set */
    bool filter;      /* nft works */
    char detail[256]; /* why not, and the fix */
};

struct runtime;

/* unsafe_process: --unsafe-runtime=process. ERR_UNSUPPORTED_HERE says why and the fix. */
int runtime_new(struct event_base *base, const char *state_dir, bool unsafe_process,
                struct runtime **ret_runtime, struct err *err) SHEAF_MUST_USE;
void runtime_free(struct runtime *runtime); /* tasks go on */
const struct runtime_probe *runtime_probed(const struct runtime *runtime);

/*
 * Starts the supervisor and the sandbox with every process held at the barrier: nothing of the
 * tenant runs before runtime_release. The plan is copied.
 */
struct task;
struct task_hooks {
    void (*on_started)(struct task *task, void *arg); /* after release: the first instruction ran */
    void (*on_exit)(struct task *task, const struct runtime_exit *exit, void *arg);
    void *arg;
    /* The sandbox stands and waits at the barrier. NULL: not wanted. */
    void (*on_ready)(struct task *task, void *arg);
};
int runtime_prepare(struct runtime *runtime, const struct runtime_plan *plan,
                    const struct task_hooks *hooks, struct task **ret_task,
                    struct err *err) SHEAF_MUST_USE;
/*
 * Opens the barrier. Environment known only now (peer addresses, ports) is added; files are written
 * into the sandbox under /job/.sheaf/ (name, text). Arrays end with NULL names. A repeat does
 * nothing once the barrier is open, and may come before the sandbox stands.
 */
struct runtime_file {
    const char *name;
    const char *text;
};
int runtime_release(struct task *task, const struct spec_texts *env,
                    const struct runtime_file *files, struct err *err) SHEAF_MUST_USE;
/* SIGTERM now, SIGKILL after stop_grace_ms; the exit hook comes either way. Repeats are no-ops. */
void runtime_stop(struct task *task, bool kill_now);
/* log/RANK.STREAM of a task's folder; stream 1 = "stdout", 2 = "stderr". ERR_IO: path too long. */
int runtime_log_path(const char *dir, uint32_t rank, uint32_t stream,
                     char ret_path[FS_PATH]) SHEAF_MUST_USE;
/* Whole process tree, for device usage accounting; at most `limit` pids. */
uint32_t runtime_pids(const struct task *task, int *ret_pids, uint32_t limit);
uint64_t runtime_used_ms(const struct task *task);
/*
 * After a restart of the worker: adopts the supervisor that `dir` names. Its exit, past or to come,
 * arrives by the hook, and on_ready and on_started come again for what has happened before.
 * ERR_NOT_FOUND: no supervisor and no exit.json (the host restarted, or the supervisor was killed);
 * its control groups and filter are removed then, the folder stays.
 */
int runtime_adopt(struct runtime *runtime, const char *dir, const struct task_hooks *hooks,
                  struct task **ret_task, struct err *err) SHEAF_MUST_USE;
/* Removes cgroups, filter and the folder (not log/ and out/ if keep). After the exit alone. */
void runtime_clean(struct task *task, bool keep_output);
/*
 * The same for a folder that nobody will adopt: its record is gone, or says that it is over. A
 * supervisor that still lives is killed, and its sandbox with it. Blocks up to a second.
 */
void runtime_sweep(const char *dir);
/*
 * Removes what the tasks of all workers of this machine use together: the filter's table and the
 * users' locks. Nothing happens while any task's user still has a process.
 */
void runtime_sweep_machine(void);
void task_free(struct task *task); /* forgets; does not stop it */

#endif
