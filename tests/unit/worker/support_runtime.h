#ifndef SHEAF_TESTS_UNIT_WORKER_SUPPORT_RUNTIME_H
#define SHEAF_TESTS_UNIT_WORKER_SUPPORT_RUNTIME_H

/* Tasks in a temporary folder, with the hooks' news kept for the test to look at. */
#include <stdbool.h>

#include "worker/runtime/runtime.h"

struct trial {
    struct event_base *base;
    struct runtime *runtime;
    char root[64]; /* removed at the end */
    char dir[FS_PATH];
    struct runtime_plan plan;
    struct runtime_proc proc[RUNTIME_MAX_PROCS];
    struct task *task;
    int ready; /* times the hook came */
    int started;
    int exits;
    struct runtime_exit exit;
};

/* NULL with a printed reason when this machine cannot run the driver: the test skips then. */
struct trial *trial_new(bool unsafe_process);
/* Ends the task if there is one, cleans, removes the folder. Fails the test on leftovers. */
void trial_free(struct trial *trial);
/* A plan of one process with this script, a fresh folder and a name of its own. */
void trial_plan(struct trial *trial, const char *script);
void trial_prepare(struct trial *trial);
void trial_release(struct trial *trial);
/* Turns the loop until *counter > 0, at most 20 s. */
void trial_wait(struct trial *trial, const int *counter);
/* prepare, release, wait for the exit. Returns the code. */
int trial_run(struct trial *trial, const char *script);
/* The hooks of a trial, for runtime_adopt. */
struct task_hooks trial_hooks(struct trial *trial);
/* Text of a log, cut at 64 KiB; valid until the next call. "" when absent. */
const char *trial_log(const struct trial *trial, uint32_t rank, uint32_t stream);
bool trial_is_root(void);

#endif
