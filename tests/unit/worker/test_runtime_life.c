#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "common/io/fs.h"
#include "support_runtime.h"
#include "worker/runtime/runtime_private.h"

static struct trial *trial;

static void need_trial(void)
{
    if (trial == NULL)
        skip();
}

static void need_limits(void)
{
    need_trial();
    if (runtime_probed(trial->runtime)->limits)
        return;
    print_message("skipped: %s\n", runtime_probed(trial->runtime)->detail);
    skip();
}

static bool out_has(const char *name)
{
    char path[FS_PATH];

    assert_int_equal(fs_path(path, "%s/out/%s", trial->dir, name), 0);
    return access(path, F_OK) == 0;
}

/* Waits for a file that a script makes in /out. */
static void wait_for_out(const char *name)
{
    int64_t end = clock_mono_us() + 10000000;

    while (!out_has(name)) {
        assert_true(clock_mono_us() < end);
        usleep(2000);
    }
}

static void test_exit_codes_are_those_of_the_script(void **state)
{
    static const struct {
        const char *script;
        int code;
    } cases[] = {
        {"exit 0", 0},
        {"exit 7", 7},
        {"false\nexit 0", 1}, /* sh -e */
        {"kill -TERM $$", 128 + 15},
        {"kill -KILL $$", 128 + 9},
        {"no-such-program-of-ours", 127},
        {"kill -KILL 1; exit 3", 3}, /* the first process is out of reach */
        {"yes | head -n 1", 0},      /* SIGPIPE is not ignored, else yes complains for ever */
    };

    (void)state;
    need_trial();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int code = trial_run(trial, cases[i].script);
        if (code != cases[i].code)
            fail_msg("%s: %d, not %d (%s)", cases[i].script, code, cases[i].code,
                     trial->exit.failure);
        assert_int_equal(trial->started, 1);
        assert_int_equal(trial->exits, 1);
        assert_false(trial->exit.oom);
        assert_string_equal(trial->exit.failure, "");
    }
}

static void test_used_time_runs_from_release_to_the_last_exit(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "sleep 0.3");
    trial_prepare(trial);
    trial_wait(trial, &trial->ready);
    usleep(200000); /* waiting at the barrier is not use */
    assert_int_equal(runtime_used_ms(trial->task), 0);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_in_range(trial->exit.used_ms, 300, 480);
    assert_int_equal(runtime_used_ms(trial->task), trial->exit.used_ms);
}

static void test_nothing_runs_before_release(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "touch /out/ran");
    trial_prepare(trial);
    trial_wait(trial, &trial->ready);
    usleep(100000);
    assert_false(out_has("ran"));
    assert_int_equal(trial->started, 0);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_true(out_has("ran"));
}

static void test_release_may_come_before_the_sandbox_stands(void **state)
{
    (void)state;
    need_trial();
    assert_int_equal(trial_run(trial, "exit 4"), 4);
    assert_int_equal(trial->ready, 1);
}

static void test_processes_have_ranks_environment_and_logs_of_their_own(void **state)
{
    char *items[] = {(char[]){"MASTER_ADDR=10.0.0.1"}, (char[]){"COMMON=late"}};
    const struct spec_texts late = {items, 2};
    const struct runtime_file files[] = {{"pairs.json", "[1,2]"}, {NULL, NULL}};
    struct err err = {0};

    (void)state;
    need_trial();
    trial_plan(trial, "echo out $RANK $COMMON $MASTER_ADDR; echo err $RANK >&2;"
                      "cat /job/.sheaf/pairs.json");
    trial->plan.proc_count = 2;
    trial->proc[0].rank = 6;
    trial->proc[1].rank = 7;
    spec_texts_add(&trial->plan.env, "COMMON=early");
    spec_texts_add(&trial->proc[0].env, "RANK=6");
    spec_texts_add(&trial->proc[1].env, "RANK=7");
    trial_prepare(trial);
    assert_int_equal(runtime_release(trial->task, &late, files, &err), 0);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 0);
    assert_string_equal(trial_log(trial, 6, 1), "out 6 late 10.0.0.1\n[1,2]");
    assert_string_equal(trial_log(trial, 7, 1), "out 7 late 10.0.0.1\n[1,2]");
    assert_string_equal(trial_log(trial, 6, 2), "err 6\n");
    assert_string_equal(trial_log(trial, 7, 2), "err 7\n");
}

static void test_one_failing_process_ends_the_others(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "if [ $RANK = 1 ]; then exit 9; fi; trap '' TERM; sleep 60");
    trial->plan.proc_count = 3;
    trial->plan.stop_grace_ms = 200;
    spec_texts_add(&trial->proc[0].env, "RANK=0");
    spec_texts_add(&trial->proc[1].env, "RANK=1");
    spec_texts_add(&trial->proc[2].env, "RANK=2");
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 9);
    assert_int_equal(trial->exit.rank, 1);
    assert_in_range(trial->exit.used_ms, 200, 4000);
}

static void test_what_a_script_leaves_behind_ends_with_it(void **state)
{
    (void)state;
    need_trial();
    assert_int_equal(trial_run(trial, "setsid sleep 60 & exit 0"), 0);
    assert_in_range(trial->exit.used_ms, 0, 2000);
}

static void test_stop_asks_first_and_kills_after_the_grace(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "trap 'echo >/out/asked; exit 0' TERM; sleep 60 & echo >/out/up; wait");
    trial_prepare(trial);
    trial_release(trial);
    wait_for_out("up");
    runtime_stop(trial->task, false);
    runtime_stop(trial->task, false);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 0);
    assert_true(out_has("asked"));

    trial_plan(
        trial,
        "trap 'echo >/out/asked' TERM; while :; do sleep 60 & echo >/out/up; wait || :; done");
    trial->plan.stop_grace_ms = 300;
    trial_prepare(trial);
    trial_release(trial);
    wait_for_out("up");
    int64_t begin = clock_mono_us();
    runtime_stop(trial->task, false);
    trial_wait(trial, &trial->exits);
    assert_in_range(clock_mono_us() - begin, 300000, 2000000);
    assert_int_equal(trial->exit.code, 137);
    assert_true(out_has("asked"));
}

static void test_stop_before_release_runs_nothing(void **state)
{
    (void)state;
    need_trial();
    for (int waits = 0; waits < 2; waits++) {
        trial_plan(trial, "touch /out/ran");
        trial_prepare(trial);
        if (waits == 1)
            trial_wait(trial, &trial->ready);
        runtime_stop(trial->task, waits == 1);
        trial_wait(trial, &trial->exits);
        assert_int_equal(trial->exit.code, waits == 1 ? 137 : 143);
        assert_string_equal(trial->exit.failure, "");
        assert_int_equal(trial->exit.used_ms, 0);
        assert_false(out_has("ran"));
    }
}

static void test_memory_limit_is_told_as_such(void **state)
{
    (void)state;
    need_limits();
    trial_plan(trial, "/usr/bin/python3 -c 'b = bytearray(200 << 20)'");
    trial->plan.memory = (uint64_t)64 << 20;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_true(trial->exit.oom);
    assert_int_equal(trial->exit.code, 137);
    assert_string_equal(trial->exit.failure, "");
}

static void test_process_and_cpu_limits_hold(void **state)
{
    (void)state;
    need_limits();
    trial_plan(trial, "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done");
    trial->plan.pids = 6;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 2);
    assert_non_null(strstr(trial_log(trial, 0, 2), "ork"));

    /* a tenth of a core */
    trial_plan(trial, "/usr/bin/python3 -c 'import time\nwhile time.process_time() < 0.1: pass'");
    trial->plan.cpu_milli = 100;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 0);
    assert_true(trial->exit.used_ms > 500);
}

static void test_output_beyond_the_limit_is_cut_with_a_line(void **state)
{
    static const char cut[] = "[sheaf: truncated: the limit of this rank's log is reached]\n";
    size_t length = 0;

    (void)state;
    need_trial();
    trial_plan(trial, "x=$(head -c 9999 /dev/zero | tr '\\0' x);"
                      " for i in 1 2 3 4 5; do echo $x; echo $x >&2; done");
    trial->plan.log_limit = 30000;
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 0);
    /* One budget for both streams of a process, whichever is read first; each says its cut. */
    for (uint32_t stream = 1; stream <= 2; stream++) {
        const char *text = trial_log(trial, 0, stream);
        assert_true(strlen(text) >= sizeof(cut) - 1);
        assert_string_equal(text + strlen(text) - (sizeof(cut) - 1), cut);
        length += strlen(text);
    }
    assert_in_range(length, 29990, 30400);
}

/* Another process starts the task and is killed with -9; returns when it is gone. */
static void start_elsewhere(const char *until)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct task_hooks hooks = trial_hooks(trial);
        struct task *task;
        /* An event base does not survive a fork. */
        if (event_reinit(trial->base) != 0
            || runtime_prepare(trial->runtime, &trial->plan, &hooks, &task, NULL) != 0
            || runtime_release(task, NULL, NULL, NULL) != 0)
            _exit(1);
        event_base_dispatch(trial->base);
        _exit(1);
    }
    wait_for_out(until);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void adopt(void)
{
    struct task_hooks hooks = trial_hooks(trial);
    struct err err = {0};

    if (runtime_adopt(trial->runtime, trial->dir, &hooks, &trial->task, &err) != 0)
        fail_msg("%s", err.text);
}

static void test_task_outlives_its_starter(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "touch /out/up; while [ ! -e /out/go ]; do sleep 0.01; done; exit 5");
    start_elsewhere("up");
    adopt();
    trial_wait(trial, &trial->started);
    assert_int_equal(trial->ready, 1);
    assert_true(runtime_used_ms(trial->task) > 0);
    char path[FS_PATH];
    assert_int_equal(fs_path(path, "%s/out/go", trial->dir), 0);
    assert_int_equal(fs_write(path, "", 0, 0644, NULL), 0);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 5);
}

static void test_an_adopted_task_can_be_stopped(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "touch /out/up; sleep 60");
    start_elsewhere("up");
    adopt();
    runtime_stop(trial->task, false);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 143);
}

static void test_past_exit_is_adopted(void **state)
{
    int64_t end = clock_mono_us() + 10000000;
    char path[FS_PATH];

    (void)state;
    need_trial();
    trial_plan(trial, "touch /out/up; sleep 0.1; exit 6");
    start_elsewhere("up");
    assert_int_equal(fs_path(path, "%s/exit.json", trial->dir), 0);
    while (access(path, F_OK) != 0 && clock_mono_us() < end)
        usleep(2000);
    usleep(20000);
    adopt();
    assert_int_equal(trial->exits, 0); /* by the loop, never within the call */
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 6);
    assert_true(trial->exit.used_ms >= 100);
}

static int supervisor_pid(void)
{
    char path[FS_PATH];
    int pid = 0;

    assert_int_equal(fs_path(path, "%s/run.json", trial->dir), 0);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "{\"pid\":%d", &pid), 1);
    fclose(file);
    assert_true(pid > 1);
    return pid;
}

/* Gone, or a zombie that waits for the machine's first process. */
static bool ends(int pid)
{
    int64_t end = clock_mono_us() + 5000000;
    char path[64];
    char state = 'R';

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    while (state != 'Z' && clock_mono_us() < end) {
        FILE *file = fopen(path, "re");
        if (file == NULL)
            return true;
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 'Z';
        fclose(file);
        usleep(2000);
    }
    return state == 'Z';
}

static void test_a_killed_supervisor_takes_its_sandbox_along(void **state)
{
    struct task_hooks hooks = {0};
    struct task *task;
    struct err err = {0};
    int pids[16];

    (void)state;
    need_trial();
    trial_plan(trial, "touch /out/up; sleep 60");
    trial_prepare(trial);
    trial_release(trial);
    wait_for_out("up");
    trial_wait(trial, &trial->started);
    uint32_t count = runtime_pids(trial->task, pids, 16);
    assert_in_range(count, 2, 4); /* sheaf-task-init, sh, sleep */
    int supervisor = supervisor_pid();
    assert_int_equal(kill(supervisor, SIGKILL), 0);
    trial_wait(trial, &trial->exits);
    assert_true(ends(supervisor));
    assert_int_equal(trial->exit.code, 137);
    assert_string_not_equal(trial->exit.failure, "");
    assert_int_equal(runtime_adopt(trial->runtime, trial->dir, &hooks, &task, &err),
                     -ERR_NOT_FOUND);
    for (uint32_t i = 0; i < count; i++)
        assert_true(ends(pids[i]));
}

/* Tasks are not its children's business: one runs on, the next one gets another nursery. */
static void test_tasks_outlive_the_nursery(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "sleep 0.5; exit 9");
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->started);
    pid_t nursery = trial->runtime->nursery_pid;
    assert_int_equal(kill(nursery, SIGKILL), 0);
    assert_true(ends(nursery));
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 9);
    assert_int_equal(trial_run(trial, "exit 8"), 8);
    assert_int_not_equal(trial->runtime->nursery_pid, nursery);
}

/* The worker died between forgetting a task and cleaning it: nobody will ever adopt this one. */
static void test_a_folder_that_nobody_owns_is_swept(void **state)
{
    char command[640];

    (void)state;
    need_trial();
    trial_plan(trial, "sleep 1000");
    snprintf(command, sizeof(command),
             "[ -z \"$(find /sys/fs/cgroup -maxdepth 4 -name 'sheaf-%s' 2>/dev/null)\" ]",
             trial->plan.name);
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->started);
    int supervisor = supervisor_pid();
    task_free(trial->task);
    trial->task = NULL;
    runtime_sweep(trial->dir);
    assert_true(ends(supervisor));
    assert_int_equal(access(trial->dir, F_OK), -1);
    assert_int_equal(system(command), 0);
    runtime_sweep(trial->dir); /* a crash on the way: again */
}

static void test_a_supervisor_without_its_socket_is_ended(void **state)
{
    struct task_hooks hooks = {0};
    struct task *task;
    struct err err = {0};
    char path[FS_PATH];

    (void)state;
    need_trial();
    trial_plan(trial, "touch /out/up; sleep 60");
    trial_prepare(trial);
    trial_release(trial);
    wait_for_out("up");
    int supervisor = supervisor_pid();
    assert_int_equal(fs_path(path, "%s/control", trial->dir), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(runtime_adopt(trial->runtime, trial->dir, &hooks, &task, &err),
                     -ERR_NOT_FOUND);
    assert_true(ends(supervisor));
}

static void test_clean_leaves_nothing(void **state)
{
    char command[640];
    char name[96];
    char dir[96];

    (void)state;
    need_trial();
    trial_plan(trial, "echo kept >/out/file; mkdir -p /job/a/b; chmod 0 /job/a/b; echo line");
    trial->plan.filter = true;
    trial->plan.memory = (uint64_t)256 << 20;
    snprintf(name, sizeof(name), "%s", trial->plan.name);
    snprintf(dir, sizeof(dir), "%.95s", trial->dir);
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 0);
    runtime_clean(trial->task, true);
    assert_true(out_has("file"));
    assert_string_equal(trial_log(trial, 0, 1), "line\n");
    snprintf(command, sizeof(command), "[ \"$(ls %s | tr '\\n' ' ')\" = 'log out ' ]", dir);
    assert_int_equal(system(command), 0);
    runtime_clean(trial->task, false);
    assert_int_not_equal(access(dir, F_OK), 0);
    snprintf(command, sizeof(command),
             "[ -z \"$(find /sys/fs/cgroup -maxdepth 4 -name 'sheaf-%s' 2>/dev/null)\" ] && "
             "! { nft list tables 2>/dev/null | tr _ . | grep -q '%s'; }",
             name, name);
    assert_int_equal(system(command), 0);
    task_free(trial->task);
    trial->task = NULL;
}

struct crowd {
    struct trial trial[8]; /* only dir, exits and exit are used */
    int ready;
    int all_ready;
    int done;
    int uid[8];
};

static void on_crowd_ready(struct task *task, void *arg)
{
    struct crowd *crowd = arg;

    (void)task;
    crowd->all_ready = ++crowd->ready == 8;
}

/* As the worker does it: all of the task ends within its own hook. */
static void on_crowd_exit(struct task *task, const struct runtime_exit *exit, void *arg)
{
    struct crowd *crowd = arg;
    int left = 0;

    assert_int_equal(exit->code, 10);
    for (int i = 0; i < 8; i++) {
        if (crowd->trial[i].task == task) {
            crowd->uid[i] = (int)strtol(trial_log(&crowd->trial[i], 0, 1), NULL, 10);
            crowd->trial[i].task = NULL;
        }
        left += crowd->trial[i].task != NULL;
    }
    runtime_clean(task, false);
    task_free(task);
    crowd->done = left == 0;
}

static void test_many_tasks_start_at_once_each_with_a_user_of_its_own(void **state)
{
    struct crowd *crowd = calloc(1, sizeof(*crowd));
    struct task_hooks hooks = {.on_ready = on_crowd_ready, .on_exit = on_crowd_exit, .arg = crowd};
    struct err err = {0};

    (void)state;
    need_trial();
    trial_plan(trial, "id -u; exit 10");
    for (int i = 0; i < 8; i++) {
        struct trial *one = &crowd->trial[i];
        snprintf(one->dir, sizeof(one->dir), "%s/crowd%d", trial->root, i);
        snprintf(trial->plan.dir, sizeof(trial->plan.dir), "%s", one->dir);
        snprintf(trial->plan.name, sizeof(trial->plan.name), "crowd-%d.%d", (int)getpid(), i);
        assert_int_equal(runtime_prepare(trial->runtime, &trial->plan, &hooks, &one->task, &err),
                         0);
    }
    /* All stand at once before the first may end and give its user back. */
    trial_wait(trial, &crowd->all_ready);
    for (int i = 0; i < 8; i++)
        assert_int_equal(runtime_release(crowd->trial[i].task, NULL, NULL, &err), 0);
    trial_wait(trial, &crowd->done);
    for (int i = 0; trial_is_root() && i < 8; i++) {
        assert_in_range(crowd->uid[i], 60600, 61179);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(crowd->uid[i], crowd->uid[k]);
    }
    free(crowd);
}

static void test_folders_may_be_deeper_than_socket_paths(void **state)
{
    (void)state;
    need_trial();
    trial_plan(trial, "exit 8");
    size_t length = strlen(trial->dir);
    for (int i = 0; i < 8; i++)
        length += (size_t)snprintf(trial->dir + length, sizeof(trial->dir) - length,
                                   "/a-rather-long-name-of-a-folder-in-between");
    snprintf(trial->plan.dir, sizeof(trial->plan.dir), "%s", trial->dir);
    trial_prepare(trial);
    trial_release(trial);
    trial_wait(trial, &trial->exits);
    assert_int_equal(trial->exit.code, 8);
}

static void test_a_sandbox_that_cannot_start_says_why(void **state)
{
    char huge[65536 * 4];

    (void)state;
    need_trial();
    /* one argument may hold 128 KiB: the shell cannot be run */
    memset(huge, 'x', sizeof(huge) - 1);
    huge[0] = ':';
    huge[1] = ' ';
    huge[sizeof(huge) - 1] = '\0';
    assert_int_equal(trial_run(trial, huge), 125);
    assert_non_null(strstr(trial->exit.failure, "too long"));
    assert_int_equal(trial->started, 0);
}

static void test_bad_plans_are_refused_at_once(void **state)
{
    struct task_hooks hooks = {0};
    struct task *task;
    struct err err;

    (void)state;
    need_trial();
    trial_plan(trial, "exit 0");
    snprintf(trial->plan.name, sizeof(trial->plan.name), "../escape");
    assert_int_equal(runtime_prepare(trial->runtime, &trial->plan, &hooks, &task, &err),
                     -ERR_INVALID_NAME);
    trial_plan(trial, "exit 0");
    trial->plan.device_nodes[0] = "/etc/shadow";
    trial->plan.device_node_count = 1;
    assert_int_equal(runtime_prepare(trial->runtime, &trial->plan, &hooks, &task, &err),
                     -ERR_MOUNT_NOT_ALLOWED);
    trial_plan(trial, "exit 0");
    trial->plan.proc_count = 0;
    assert_int_equal(runtime_prepare(trial->runtime, &trial->plan, &hooks, &task, &err),
                     -ERR_OUT_OF_RANGE);
    trial_plan(trial, "exit \xff");
    assert_int_equal(runtime_prepare(trial->runtime, &trial->plan, &hooks, &task, &err),
                     -ERR_INVALID_ENCODING);
}

static void test_start_is_quick(void **state)
{
    int64_t best = INT64_MAX;
    int64_t best_ready = 0;

    (void)state;
    need_trial();
    for (int i = 0; i < 5; i++) {
        trial_plan(trial, "exit 0");
        trial->plan.filter = true;
        trial->plan.memory = (uint64_t)1 << 30;
        int64_t begin = clock_mono_us();
        trial_prepare(trial);
        trial_wait(trial, &trial->ready);
        int64_t ready = clock_mono_us();
        trial_release(trial);
        trial_wait(trial, &trial->started);
        int64_t started = clock_mono_us();
        if (started - begin < best) {
            best = started - begin;
            best_ready = ready - begin;
        }
        trial_wait(trial, &trial->exits);
    }
    print_message("prepare to ready %lld us, to the first instruction %lld us\n",
                  (long long)best_ready, (long long)best);
    assert_true(best < 500000);
}

static int setup(void **state)
{
    (void)state;
    trial = trial_new(false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trial_free(trial);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_codes_are_those_of_the_script),
        cmocka_unit_test(test_used_time_runs_from_release_to_the_last_exit),
        cmocka_unit_test(test_nothing_runs_before_release),
        cmocka_unit_test(test_release_may_come_before_the_sandbox_stands),
        cmocka_unit_test(test_processes_have_ranks_environment_and_logs_of_their_own),
        cmocka_unit_test(test_one_failing_process_ends_the_others),
        cmocka_unit_test(test_what_a_script_leaves_behind_ends_with_it),
        cmocka_unit_test(test_stop_asks_first_and_kills_after_the_grace),
        cmocka_unit_test(test_stop_before_release_runs_nothing),
        cmocka_unit_test(test_memory_limit_is_told_as_such),
        cmocka_unit_test(test_process_and_cpu_limits_hold),
        cmocka_unit_test(test_output_beyond_the_limit_is_cut_with_a_line),
        cmocka_unit_test(test_task_outlives_its_starter),
        cmocka_unit_test(test_an_adopted_task_can_be_stopped),
        cmocka_unit_test(test_past_exit_is_adopted),
        cmocka_unit_test(test_a_killed_supervisor_takes_its_sandbox_along),
        cmocka_unit_test(test_tasks_outlive_the_nursery),
        cmocka_unit_test(test_a_folder_that_nobody_owns_is_swept),
        cmocka_unit_test(test_a_supervisor_without_its_socket_is_ended),
        cmocka_unit_test(test_clean_leaves_nothing),
        cmocka_unit_test(test_many_tasks_start_at_once_each_with_a_user_of_its_own),
        cmocka_unit_test(test_folders_may_be_deeper_than_socket_paths),
        cmocka_unit_test(test_a_sandbox_that_cannot_start_says_why),
        cmocka_unit_test(test_bad_plans_are_refused_at_once),
        cmocka_unit_test(test_start_is_quick),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
