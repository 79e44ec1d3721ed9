/* Where control groups are looked for, on machines unlike this one; and the files of a task. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "worker/runtime/cgroup.h"
#include "worker/runtime/plan.h"

#define V1(controllers, root)                                                                      \
    "30 29 0:26 " root " /sys/fs/cgroup/" controllers                                              \
    " rw,relatime shared:9 - cgroup cgroup rw," controllers "\n"
#define V2(root, point) "41 29 0:40 " root " " point " rw - cgroup2 cgroup2 rw,nsdelegate\n"
#define NOISE           "22 1 254:1 / / rw,relatime - ext4 /dev/vda rw\n"

static void test_layouts_are_found(void **state)
{
    static const struct {
        const char *mounts;
        const char *self;
        const char *kind;
        const char *memory;
        const char *cpu;
        bool unified;
    } cases[] = {
        {NOISE V2("/", "/sys/fs/cgroup"), "0::/system.slice/sheaf-worker.service\n", "v2",
         "/sys/fs/cgroup/system.slice/sheaf-worker.service",
         "/sys/fs/cgroup/system.slice/sheaf-worker.service", true},
        /* a worker that stepped aside before */
        {V2("/", "/sys/fs/cgroup"), "0::/w.service/sheaf-daemon\n", "v2",
         "/sys/fs/cgroup/w.service", "/sys/fs/cgroup/w.service", true},
        {NOISE V1("cpu,cpuacct", "/") V1("memory", "/") V1("pids", "/"),
         "4:memory:/a\n3:cpu,cpuacct:/b\n2:pids:/\n", "v1", "/sys/fs/cgroup/memory/a",
         "/sys/fs/cgroup/cpu,cpuacct/b", false},
        {V1("memory", "/") V1("pids", "/") V1("cpu", "/") V2("/", "/sys/fs/cgroup/unified"),
         "4:memory:/\n1:cpu:/\n0::/\n", "hybrid", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu",
         false},
        /* a container: its mount shows a part of the hierarchy, its path starts at the whole */
        {V1("memory", "/docker/77") V1("cpu", "/docker/77"),
         "4:memory:/docker/77/x\n1:cpu:/other\n", "v1", "/sys/fs/cgroup/memory/x",
         "/sys/fs/cgroup/cpu", false},
        /* a path outside of our namespace */
        {V2("/", "/sys/fs/cgroup"), "0::/../../a\n", "v2", "/sys/fs/cgroup", "/sys/fs/cgroup",
         true},
        {NOISE, "", "none", "", "", false},
        {"", "", "none", "", "", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cgroup_layout layout;
        assert_string_equal(cgroup_find(cases[i].mounts, cases[i].self, &layout), cases[i].kind);
        assert_string_equal(layout.parent[CGROUP_MEMORY], cases[i].memory);
        assert_string_equal(layout.parent[CGROUP_CPU], cases[i].cpu);
        assert_int_equal(layout.unified[CGROUP_MEMORY], cases[i].unified);
    }
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[FS_PATH];

    assert_int_equal(fs_path(path, "%s/%s", folder, name), 0);
    assert_int_equal(fs_write(path, text, strlen(text), 0644, NULL), 0);
}

static void expect(const char *folder, const char *name, const char *text)
{
    char path[FS_PATH];
    struct buf got;

    assert_int_equal(fs_path(path, "%s/%s", folder, name), 0);
    buf_init(&got, 0);
    assert_int_equal(fs_read(path, 4096, &got, NULL), 0);
    assert_string_equal(got.data, text);
    buf_fini(&got);
}

/* This machine has no version 2 controllers: plain files stand for the kernel's. */
static void test_version_2_gets_its_own_files(void **state)
{
    static const struct cgroup_limits limits = {(uint64_t)64 << 20, 12, 1500};
    char root[] = "/tmp/sheaf-cgroup-XXXXXX";
    char group[FS_PATH];
    struct cgroup_layout layout = {0};
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(root));
    for (int i = 0; i < CGROUP_CONTROLLER_COUNT; i++) {
        assert_int_equal(fs_path(layout.parent[i], "%s", root), 0);
        layout.unified[i] = true;
    }
    assert_int_equal(fs_path(group, "%s/sheaf-t", root), 0);
    assert_int_equal(mkdir(group, 0755), 0);
    put(group, "memory.max", "");
    put(group, "memory.swap.max", "");
    put(group, "pids.max", "");
    put(group, "cpu.max", "");
    put(group, "memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\n");
    assert_int_equal(cgroup_create(&layout, "t", &limits, &err), 0);
    expect(group, "memory.max", "67108864");
    expect(group, "memory.swap.max", "0");
    expect(group, "pids.max", "12");
    expect(group, "cpu.max", "150000 100000");
    assert_false(cgroup_is_oom(&layout, "t"));
    put(group, "memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n");
    assert_true(cgroup_is_oom(&layout, "t"));
    put(group, "cgroup.kill", "");
    cgroup_kill(&layout, "t");
    expect(group, "cgroup.kill", "1");
    /* a group that still holds something is told as such */
    assert_int_equal(cgroup_remove(&layout, "t"), -ERR_STATE_CONFLICT);
    assert_int_equal(fs_remove_tree(root, NULL), 0);
    assert_int_equal(cgroup_remove(&layout, "t"), 0);
}

static void test_a_task_reads_as_it_was_written(void **state)
{
    char root[] = "/tmp/sheaf-plan-XXXXXX";
    struct plan_task task = {.proc_count = 2,
                             .limits = {(uint64_t)5 << 40, 7, 250},
                             .shm = 1,
                             .filter = FILTER_REJECT,
                             .stop_grace_ms = 30000,
                             .log_limit = 777};
    struct plan_task back;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(task.dir, sizeof(task.dir), "%s", root);
    snprintf(task.name, sizeof(task.name), "a-1.x_y");
    snprintf(task.driver, sizeof(task.driver), "bwrap");
    snprintf(task.libexec, sizeof(task.libexec), "/usr/lib");
    task.script = strdup("echo \"\u00fc\"\n\texit 1");
    snprintf(task.cgroup.parent[CGROUP_PIDS], FS_PATH, "/sys/x");
    task.cgroup.unified[CGROUP_PIDS] = true;
    spec_texts_add(&task.env, "A=\"quoted\"");
    task.proc[1].rank = 4000000000u;
    spec_texts_add(&task.proc[1].env, "RANK=1");
    spec_texts_add(&task.peers, "fd00::1");
    spec_texts_add(&task.device_nodes, "/dev/nvidia0");
    assert_int_equal(plan_task_write(&task, &err), 0);
    assert_int_equal(plan_task_read(root, &back, &err), 0);
    assert_string_equal(back.script, task.script);
    assert_string_equal(back.env.items[0], task.env.items[0]);
    assert_int_equal(back.proc_count, 2);
    assert_int_equal(back.proc[1].rank, 4000000000u);
    assert_string_equal(back.proc[1].env.items[0], "RANK=1");
    assert_int_equal(back.limits.memory, task.limits.memory);
    assert_int_equal(back.limits.cpu_milli, 250);
    assert_string_equal(back.cgroup.parent[CGROUP_PIDS], "/sys/x");
    assert_true(back.cgroup.unified[CGROUP_PIDS]);
    assert_string_equal(back.peers.items[0], "fd00::1");
    assert_string_equal(back.device_nodes.items[0], "/dev/nvidia0");
    assert_int_equal(back.filter, FILTER_REJECT);
    assert_int_equal(back.stop_grace_ms, 30000);
    assert_int_equal(back.log_limit, 777);
    plan_task_fini(&back);
    plan_task_fini(&task);
    put(root, "task.json", "{\"name\": \"x\"}");
    assert_int_equal(plan_task_read(root, &back, &err), -ERR_STATE_CORRUPT);
    assert_int_equal(fs_remove_tree(root, NULL), 0);
}

static void test_exit_and_run_read_as_they_were_written(void **state)
{
    char root[] = "/tmp/sheaf-plan-XXXXXX";
    struct runtime_exit exit = {.code = 137, .rank = 3, .oom = true, .used_ms = 1234567890123};
    struct runtime_exit back;
    struct plan_run run;
    bool clean = false;
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(plan_exit_read(root, &back, &clean, &err), -ERR_NOT_FOUND);
    assert_int_equal(plan_exit_write(root, &exit, true, &err), 0);
    assert_int_equal(plan_exit_read(root, &back, &clean, &err), 0);
    assert_int_equal(back.code, 137);
    assert_int_equal(back.rank, 3);
    assert_true(back.oom && clean);
    assert_int_equal(back.used_ms, exit.used_ms);
    assert_int_equal(plan_run_write(root, &err), 0);
    assert_int_equal(plan_run_read(root, &run, &err), 0);
    assert_int_equal(run.pid, getpid());
    assert_true(plan_run_lives(&run));
    run.start_ticks++; /* another process with the same number */
    assert_false(plan_run_lives(&run));
    run.start_ticks--;
    run.boot_id[0] ^= 1; /* before the machine restarted */
    assert_false(plan_run_lives(&run));
    assert_int_equal(fs_remove_tree(root, NULL), 0);
}

static void test_later_environment_replaces_earlier(void **state)
{
    struct spec_texts env = {0};

    (void)state;
    plan_env_set(&env, "A=1");
    plan_env_set(&env, "AB=2");
    plan_env_set(&env, "A=3");
    plan_env_set(&env, "B=");
    assert_int_equal(env.count, 3);
    assert_string_equal(env.items[0], "A=3");
    assert_string_equal(env.items[1], "AB=2");
    assert_string_equal(env.items[2], "B=");
    spec_texts_fini(&env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_are_found),
        cmocka_unit_test(test_version_2_gets_its_own_files),
        cmocka_unit_test(test_a_task_reads_as_it_was_written),
        cmocka_unit_test(test_exit_and_run_read_as_they_were_written),
        cmocka_unit_test(test_later_environment_replaces_earlier),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
