#ifndef SHEAF_WORKER_RUNTIME_PLAN_H
#define SHEAF_WORKER_RUNTIME_PLAN_H

/* The files of a task's folder, as the worker and the supervisor exchange them. */
#include "common/io/fs.h"
#include "common/pure/err.h"
#include "common/pure/spec.h"
#include "worker/runtime/cgroup.h"
#include "worker/runtime/filter.h"
#include "worker/runtime/runtime.h"

#define PLAN_TASK    "task.json"
#define PLAN_RELEASE "release.json"
#define PLAN_RUN     "run.json"
#define PLAN_EXIT    "exit.json"
#define PLAN_CONTROL "control" /* unix socket of the supervisor */
#define PLAN_LOG     "supervisor.log"
#define PLAN_INIT    "init" /* unix socket for the first process of a container */

/* Exit codes that no process of the task gave. */
#define PLAN_CODE_SANDBOX 125
#define PLAN_CODE_KILLED  137

/* task.json: the plan with what the runtime decided, owned. */
struct plan_task {
    char dir[FS_PATH];
    char
        roots[FS_PATH]; /* where sandbox roots are kept; from the command line, not from the file */
    char name[96];
    char driver[16];
    char libexec[FS_PATH];
    char image[96];       /* id of the image in podman's store; empty = the node's programs */
    char podman[FS_PATH]; /* folder of that store; see worker/images */
    struct spec_texts env;
    char *script;
    struct runtime_proc proc[RUNTIME_MAX_PROCS];
    uint32_t proc_count;
    struct cgroup_limits limits;
    struct cgroup_layout cgroup; /* all empty: no limits */
    uint64_t shm;
    struct spec_texts device_nodes;
    struct spec_texts peers;
    enum filter_mode filter;
    uint64_t stop_grace_ms;
    uint64_t log_limit;
};

/* run.json: which process the supervisor is. */
struct plan_run {
    int pid;
    char boot_id[64];
    uint64_t start_ticks; /* field 22 of /proc/PID/stat */
};

void plan_task_fini(struct plan_task *task);
/* Letters, digits, dot, dash and underscore; does not start with a dot. */
bool plan_name_is_valid(const char *name);
int plan_task_write(const struct plan_task *task, struct err *err) SHEAF_MUST_USE;
/* ret_task is initialised by it; to be ended by plan_task_fini on success. ERR_STATE_CORRUPT. */
int plan_task_read(const char *dir, struct plan_task *ret_task, struct err *err) SHEAF_MUST_USE;

/* release.json: environment known at the barrier only. Absent reads as none. */
int plan_release_write(const char *dir, const struct spec_texts *env,
                       struct err *err) SHEAF_MUST_USE;
int plan_release_read(const char *dir, struct spec_texts *ret_env, struct err *err) SHEAF_MUST_USE;

int plan_run_write(const char *dir, struct err *err) SHEAF_MUST_USE; /* of this process */
int plan_run_read(const char *dir, struct plan_run *ret_run, struct err *err) SHEAF_MUST_USE;
void plan_boot_id(char out[64]);
/* The very process that wrote it still exists. */
bool plan_run_lives(const struct plan_run *run);

/* Durable. `clean`: neither control groups nor a filter are left behind. */
int plan_exit_write(const char *dir, const struct runtime_exit *exit, bool clean,
                    struct err *err) SHEAF_MUST_USE;
/* ERR_NOT_FOUND: not over, or never told. */
int plan_exit_read(const char *dir, struct runtime_exit *ret_exit, bool *ret_clean,
                   struct err *err) SHEAF_MUST_USE;

/* Appends the ids in a /proc/…/children file after `count`, to `limit` in all. Returns the number.
 */
uint32_t plan_children(const char *path, int *ret_pids, uint32_t count, uint32_t limit);

/* Sets NAME=value, replacing an earlier NAME. O(count). */
void plan_env_set(struct spec_texts *env, const char *item);

#endif
