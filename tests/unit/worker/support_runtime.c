#include "support_runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "common/io/fs.h"
#include "common/io/log.h"
#include "common/io/loop.h"
#include "common/pure/mem.h"

#define WAIT_LIMIT_US 20000000

bool trial_is_root(void)
{
    return geteuid() == 0;
}

/* The programs lie in bin/ beside the folder of the tests. */
static void find_programs(void)
{
    char path[FS_PATH];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

    assert_true(length > 0);
    path[length] = '\0';
    for (int i = 0; i < 2; i++)
        *strrchr(path, '/') = '\0';
    char bin[FS_PATH];
    assert_int_equal(fs_path(bin, "%s/bin", path), 0);
    setenv("SHEAF_LIBEXEC", bin, 0);
}

struct trial *trial_new(bool unsafe_process)
{
    struct trial *trial = mem_new(1, sizeof(*trial));
    struct err err = {0};

    log_open("test", LOG_WARN_LEVEL);
    find_programs();
    snprintf(trial->root, sizeof(trial->root), "/tmp/sheaf-runtime-XXXXXX");
    assert_non_null(mkdtemp(trial->root));
    trial->base = loop_new();
    int rc = runtime_new(trial->base, trial->root, unsafe_process, &trial->runtime, &err);
    if (rc != 0) {
        assert_int_equal(rc, -ERR_UNSUPPORTED_HERE);
        print_message("skipped: %s\n", err.text);
        event_base_free(trial->base);
        assert_int_equal(fs_remove_tree(trial->root, NULL), 0);
        free(trial);
        return NULL;
    }
    return trial;
}

static void plan_free(struct trial *trial)
{
    spec_texts_fini(&trial->plan.env);
    for (int i = 0; i < RUNTIME_MAX_PROCS; i++)
        spec_texts_fini(&trial->proc[i].env);
    memset(&trial->plan, 0, sizeof(trial->plan));
}

static void task_end(struct trial *trial)
{
    if (trial->task == NULL)
        return;
    if (trial->exits == 0) {
        runtime_stop(trial->task, true);
        trial_wait(trial, &trial->exits);
    }
    runtime_clean(trial->task, false);
    task_free(trial->task);
    trial->task = NULL;
    assert_int_not_equal(access(trial->dir, F_OK), 0);
}

void trial_free(struct trial *trial)
{
    if (trial == NULL)
        return;
    task_end(trial);
    plan_free(trial);
    runtime_free(trial->runtime);
    event_base_free(trial->base);
    assert_int_equal(fs_remove_tree(trial->root, NULL), 0);
    free(trial);
}

static void on_ready(struct task *task, void *arg)
{
    struct trial *trial = arg;

    (void)task;
    trial->ready++;
}

static void on_started(struct task *task, void *arg)
{
    struct trial *trial = arg;

    (void)task;
    trial->started++;
}

static void on_exit_hook(struct task *task, const struct runtime_exit *exit, void *arg)
{
    struct trial *trial = arg;

    (void)task;
    trial->exits++;
    trial->exit = *exit;
}

struct task_hooks trial_hooks(struct trial *trial)
{
    return (struct task_hooks){
        .on_started = on_started, .on_exit = on_exit_hook, .on_ready = on_ready, .arg = trial};
}

void trial_plan(struct trial *trial, const char *script)
{
    static int count = 0;

    task_end(trial);
    plan_free(trial);
    trial->ready = trial->started = trial->exits = 0;
    snprintf(trial->dir, sizeof(trial->dir), "%s/task%d", trial->root, ++count);
    snprintf(trial->plan.dir, sizeof(trial->plan.dir), "%s", trial->dir);
    snprintf(trial->plan.name, sizeof(trial->plan.name), "test-%d.%d", (int)getpid(), count);
    trial->plan.script = script;
    trial->plan.proc = trial->proc;
    trial->plan.proc_count = 1;
    trial->plan.stop_grace_ms = 5000;
    trial->plan.log_limit = (uint64_t)64 << 20;
    for (uint32_t i = 0; i < RUNTIME_MAX_PROCS; i++)
        trial->proc[i].rank = i;
}

void trial_prepare(struct trial *trial)
{
    struct task_hooks hooks = trial_hooks(trial);
    struct err err = {0};

    if (runtime_prepare(trial->runtime, &trial->plan, &hooks, &trial->task, &err) != 0)
        fail_msg("prepare: %s", err.text);
}

void trial_release(struct trial *trial)
{
    struct err err = {0};

    if (runtime_release(trial->task, NULL, NULL, &err) != 0)
        fail_msg("release: %s", err.text);
}

void trial_wait(struct trial *trial, const int *counter)
{
    int64_t end = clock_mono_us() + WAIT_LIMIT_US;

    while (*counter == 0) {
        int64_t left = end - clock_mono_us();
        struct timeval limit = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
        if (left <= 0)
            fail_msg("nothing came in %d s", WAIT_LIMIT_US / 1000000);
        event_base_loopexit(trial->base, &limit);
        event_base_loop(trial->base, EVLOOP_ONCE);
    }
}

int trial_run(struct trial *trial, const char *script)
{
    trial_plan(trial, script);
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    if (trial->exit.failure[0] != '\0')
        print_message("failure: %s\n", trial->exit.failure);
    return trial->exit.code;
}

const char *trial_log(const struct trial *trial, uint32_t rank, uint32_t stream)
{
    static char text[65537];
    char path[FS_PATH];

    assert_int_equal(runtime_log_path(trial->dir, rank, stream, path), 0);
    FILE *file = fopen(path, "re");
    size_t length = file != NULL ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    text[length] = '\0';
    return text;
}
