/* The daemon side and the real child, with PoCL; and children that misbehave. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "common/pure/selftest.h"
#include "worker/devices/devices.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define SEED UINT64_C(0x0123456789abcdef)

static char folder[64];
static char program[PATH_MAX];

struct outcome {
    struct event_base *base;
    struct devices_job *job;
    uint32_t calls;
    bool has_result;
    struct selftest_result result;
    struct device_usage usage[DEVICES_MAX];
    uint32_t usage_count;
    struct err err;
};

static void on_selftest(const struct selftest_result *result, const struct err *err, void *arg)
{
    struct outcome *outcome = arg;

    outcome->calls++;
    outcome->has_result = result != NULL;
    if (result != NULL)
        outcome->result = *result;
    if (err != NULL)
        outcome->err = *err;
    assert_true((result == NULL) != (err == NULL));
    devices_job_free(outcome->job); /* allowed here */
    outcome->job = NULL;
}

static void on_usage(const struct device_usage *usage, uint32_t count, const struct err *err,
                     void *arg)
{
    struct outcome *outcome = arg;

    outcome->calls++;
    outcome->has_result = usage != NULL;
    outcome->usage_count = count;
    if (usage != NULL)
        memcpy(outcome->usage, usage, count * sizeof(*usage));
    if (err != NULL)
        outcome->err = *err;
}

static struct outcome run_selftest(const struct device_info *device)
{
    struct outcome outcome = {.base = event_base_new()};

    if (devices_selftest(outcome.base, device, SEED, on_selftest, &outcome, &outcome.job,
                         &outcome.err)
        != 0)
        fail_msg("%s", outcome.err.text);
    event_base_dispatch(outcome.base);
    assert_int_equal(outcome.calls, 1);
    event_base_free(outcome.base);
    return outcome;
}

static struct host_info probe(void)
{
    struct host_info host;
    struct err err = {0};

    if (devices_probe(&host, &err) != 0)
        fail_msg("%s", err.text);
    return host;
}

/* Makes a child of shell commands; the former program comes back by use_real_program. */
static void use_script(const char *body)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/child", folder);
    file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", body);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0755), 0);
    setenv("SHEAF_DEVICES_PROGRAM", path, 1);
}

static int use_real_program(void **state)
{
    (void)state;
    setenv("SHEAF_DEVICES_PROGRAM", program, 1);
    setenv("POCL_DEVICES", "basic basic", 1);
    setenv("POCL_MEMORY_LIMIT", "1", 1);
    unsetenv("SHEAF_DEVICE_SALT");
    return 0;
}

static void test_probe_lists_host_and_cpu_devices(void **state)
{
    struct host_info host = probe();

    (void)state;
    assert_true(host.cpu_milli >= 100);
    assert_true(host.memory_mib >= 256);
    assert_true(host.numa_nodes >= 1);
    assert_int_equal(host.device_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(host.device[i].ordinal, i);
        assert_false(host.device[i].gpu);
        assert_int_equal(host.device[i].memory_mib, 1024);
        assert_int_equal(strncmp(host.device[i].uuid, "CPU-", 4), 0);
        assert_int_equal(host.device[i].node_count, 0);
    }
    assert_string_not_equal(host.device[0].uuid, host.device[1].uuid);
}

static void test_uuids_are_stable_and_differ_by_salt(void **state)
{
    struct host_info first = probe();
    struct host_info again = probe();
    struct host_info salted;

    (void)state;
    setenv("SHEAF_DEVICE_SALT", "worker-2", 1);
    salted = probe();
    for (uint32_t i = 0; i < 2; i++) {
        assert_string_equal(first.device[i].uuid, again.device[i].uuid);
        assert_string_not_equal(first.device[i].uuid, salted.device[i].uuid);
    }
}

static void test_selftest_agrees_with_the_arithmetic(void **state)
{
    struct host_info host = probe();
    struct device_info device = host.device[1];
    struct outcome outcome;

    (void)state;
    device.memory_mib = 64; /* a small claim: the arithmetic is the same */
    outcome = run_selftest(&device);
    assert_true(outcome.has_result);
    assert_string_equal(outcome.result.failure, "");
    assert_int_equal(outcome.result.device, 1);
    assert_true(outcome.result.seed == SEED);
    assert_true(outcome.result.memory_mib >= 58); /* 90 % of 64, rounded up */
    for (uint32_t k = 0; k < SELFTEST_SAMPLES; k++) {
        uint64_t chunk = selftest_sample_chunk(SEED, k, outcome.result.memory_mib);
        assert_true(outcome.result.chunk_sum[k] == selftest_chunk_sum(SEED, chunk));
    }
    assert_true(outcome.result.matmul_sum == selftest_matmul_sum(SEED));
    assert_true(outcome.result.matmul_gflops >= 1);
    assert_true(outcome.result.copy_mib_s >= 1);
}

static void test_twice_the_memory_fails(void **state)
{
    struct host_info host = probe();
    struct outcome outcome;

    (void)state;
    host.device[0].memory_mib *= 2;
    outcome = run_selftest(&host.device[0]);
    assert_true(outcome.has_result);
    assert_non_null(strstr(outcome.result.failure, "2048 MiB are claimed"));
}

/* The driver says 1 GiB, the machine gives half of it. */
static void test_memory_that_is_not_there_fails(void **state)
{
    struct host_info host = probe();
    struct rlimit before;
    struct rlimit half;
    struct outcome outcome;

    (void)state;
    if (SANITIZED) { /* its shadow memory alone is larger than any limit */
        skip();
        return;
    }
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    half = before;
    half.rlim_cur = (rlim_t)768 << 20;
    assert_int_equal(setrlimit(RLIMIT_AS, &half), 0);
    outcome = run_selftest(&host.device[0]);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_true(outcome.has_result);
    assert_string_not_equal(outcome.result.failure, "");
    print_message("           failure: %s\n", outcome.result.failure);
}

static void test_a_device_that_went_away_fails(void **state)
{
    struct host_info host = probe();
    struct outcome outcome;

    (void)state;
    snprintf(host.device[0].uuid, sizeof(host.device[0].uuid), "GPU-gone");
    outcome = run_selftest(&host.device[0]);
    assert_true(outcome.has_result);
    assert_non_null(strstr(outcome.result.failure, "no longer there"));
}

static void test_a_killed_child_is_a_failed_device(void **state)
{
    struct device_info device = {.ordinal = 4, .uuid = "GPU-1", .memory_mib = 10};
    struct outcome outcome;

    (void)state;
    use_script("echo 'driver: cannot map memory' >&2; kill -9 $$");
    outcome = run_selftest(&device);
    assert_true(outcome.has_result);
    assert_int_equal(outcome.result.device, 4);
    assert_true(outcome.result.seed == SEED);
    assert_non_null(strstr(outcome.result.failure, "killed by signal 9"));
    assert_non_null(strstr(outcome.result.failure, "cannot map memory"));
}

static void test_answers_that_are_none_are_errors(void **state)
{
    static const struct {
        const char *body;
        enum err_code code;
    } cases[] = {
        {"echo garbage", ERR_MALFORMED_JSON},
        {"true", ERR_MALFORMED_JSON},
        {"echo '{}'", ERR_INVALID_TYPE},
        {"echo 'libhwloc.so.15: cannot open' >&2; exit 127", ERR_UNSUPPORTED_HERE},
        {"exec cat /dev/zero", ERR_UNSUPPORTED_HERE}, /* more than the cap: killed */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct host_info host;
        struct err err = {0};
        use_script(cases[i].body);
        assert_int_equal(devices_probe(&host, &err), -(int)cases[i].code);
        assert_string_not_equal(err.text, "");
    }
    setenv("SHEAF_DEVICES_PROGRAM", "/no/such/program", 1);
    assert_int_equal(devices_probe(&(struct host_info){0}, &(struct err){0}),
                     -ERR_UNSUPPORTED_HERE);
}

/* Nothing of the daemon leaks in: no files, no variables but the drivers' own, no blocked signals.
 */
static void test_the_child_inherits_nothing(void **state)
{
    char body[640];
    char path[128];
    struct buf seen;
    struct host_info host;
    struct err err;
    int secret = open("/dev/null", O_RDONLY); /* no O_CLOEXEC on purpose */

    (void)state;
    snprintf(path, sizeof(path), "%s/seen", folder);
    snprintf(body, sizeof(body),
             "{ echo fds $(ls /proc/self/fd | sort -n | tr '\\n' ' '); env; "
             "grep SigBlk /proc/self/status; } > %s",
             path);
    use_script(body);
    setenv("SHEAF_SECRET_TOKEN", "canary", 1);
    assert_int_not_equal(devices_probe(&host, &err), 0);
    unsetenv("SHEAF_SECRET_TOKEN");
    close(secret);
    buf_init(&seen, 0);
    assert_int_equal(fs_read(path, 65536, &seen, &err), 0);
    assert_null(strstr(seen.data, "canary"));
    assert_non_null(strstr(seen.data, "POCL_DEVICES=basic basic"));
    /* 0 1 2, and the one by which ls reads the folder */
    assert_non_null(strstr(seen.data, "fds 0 1 2 3\n"));
    assert_non_null(strstr(seen.data, "0000000000000000"));
    buf_fini(&seen);
}

static bool is_running(int pid)
{
    char path[64];
    char state = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "r");
    if (file == NULL)
        return false;
    if (fscanf(file, "%*d %*s %c", &state) != 1)
        state = 'X';
    fclose(file);
    return state != 'Z' && state != 'X';
}

/* Free kills the child and what it started, and no callback comes. */
static void test_free_kills_the_whole_group(void **state)
{
    struct outcome outcome = {.base = event_base_new()};
    struct device_info device = {.uuid = "GPU-1", .memory_mib = 10};
    char body[640];
    char path[128];
    int pids[2] = {0, 0};
    FILE *file = NULL;

    (void)state;
    snprintf(path, sizeof(path), "%s/pids", folder);
    snprintf(body, sizeof(body), "sleep 100 & echo $$ $! > %s.new; mv %s.new %s; wait", path, path,
             path);
    use_script(body);
    assert_int_equal(devices_selftest(outcome.base, &device, SEED, on_selftest, &outcome,
                                      &outcome.job, &outcome.err),
                     0);
    for (int i = 0; i < 500 && file == NULL; i++) {
        file = fopen(path, "r");
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d %d", &pids[0], &pids[1]), 2);
    fclose(file);
    assert_true(is_running(pids[1]));
    devices_job_free(outcome.job);
    event_base_loop(outcome.base, EVLOOP_NONBLOCK);
    for (int i = 0; i < 200 && (is_running(pids[0]) || is_running(pids[1])); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_false(is_running(pids[0]));
    assert_false(is_running(pids[1]));
    assert_int_equal(outcome.calls, 0);
    event_base_free(outcome.base);
}

static void test_usage_without_telemetry_is_empty(void **state)
{
    struct outcome outcome = {.base = event_base_new()};
    int self = getpid();

    (void)state;
    setenv("SHEAF_DEVICES_SYSFS", folder, 1);
    setenv("SHEAF_DEVICES_NVML", "/no/such/library", 1);
    assert_int_equal(
        devices_usage(outcome.base, &self, 1, on_usage, &outcome, &outcome.job, &outcome.err), 0);
    event_base_dispatch(outcome.base);
    devices_job_free(outcome.job);
    event_base_free(outcome.base);
    unsetenv("SHEAF_DEVICES_SYSFS");
    unsetenv("SHEAF_DEVICES_NVML");
    assert_int_equal(outcome.calls, 1);
    assert_true(outcome.has_result);
    assert_int_equal(outcome.usage_count, 0);
}

static const char *find_variable(const struct spec_texts *env, const char *name)
{
    size_t length = strlen(name);

    for (uint32_t i = 0; i < env->count; i++) {
        if (strncmp(env->items[i], name, length) == 0 && env->items[i][length] == '=')
            return env->items[i] + length + 1;
    }
    return NULL;
}

static void test_a_task_gets_the_devices_of_its_plan(void **state)
{
    struct host_info host = {.cpu_milli = 8000, .device_count = 4};
    struct spec_texts env = {NULL, 0};

    (void)state;
    host.device[0] = (struct device_info){
        .ordinal = 0, .uuid = "GPU-a", .gpu = true, .vendor = "NVIDIA", .memory_mib = 24564};
    host.device[1] = (struct device_info){
        .ordinal = 1, .uuid = "GPU-b", .gpu = true, .vendor = "NVIDIA", .memory_mib = 24564};
    host.device[2] = (struct device_info){.ordinal = 2, .model = "basic-x", .memory_mib = 2048};
    host.device[3] = (struct device_info){.ordinal = 3, .model = "pthread-x", .memory_mib = 1024};

    devices_environment(&host, (const uint32_t[]){1}, 1, &env);
    assert_string_equal(find_variable(&env, "CUDA_VISIBLE_DEVICES"), "GPU-b");
    assert_null(find_variable(&env, "POCL_DEVICES"));
    spec_texts_fini(&env);

    devices_environment(&host, (const uint32_t[]){0, 1}, 2, &env);
    assert_string_equal(find_variable(&env, "CUDA_VISIBLE_DEVICES"), "GPU-a,GPU-b");
    spec_texts_fini(&env);

    devices_environment(&host, (const uint32_t[]){2, 3, 9}, 3, &env);
    assert_string_equal(find_variable(&env, "CUDA_VISIBLE_DEVICES"), "");
    assert_string_equal(find_variable(&env, "POCL_DEVICES"), "basic pthread");
    assert_string_equal(find_variable(&env, "POCL_MEMORY_LIMIT"), "1");
    assert_string_equal(find_variable(&env, "POCL_MAX_PTHREAD_COUNT"), "8");
    assert_string_equal(find_variable(&env, "POCL_CACHE_DIR"), "/tmp/pocl");
    spec_texts_fini(&env);
}

/* Drivers are large and crash: a program that links this library gets none of them. */
static void test_the_daemon_side_links_no_driver(void **state)
{
    char maps[256];
    FILE *file = fopen("/proc/self/maps", "r");

    (void)state;
    (void)probe();
    assert_non_null(file);
    while (fgets(maps, sizeof(maps), file) != NULL) {
        assert_null(strstr(maps, "libOpenCL"));
        assert_null(strstr(maps, "libhwloc"));
        assert_null(strstr(maps, "libpocl"));
        assert_null(strstr(maps, "libnvidia"));
    }
    fclose(file);
}

static int group_setup(void **state)
{
    char self[PATH_MAX - 64];
    char cache[96];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

    (void)state;
    if (length <= 0)
        return -1;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(program, sizeof(program), "%s/../bin/sheaf-devices", self);
    snprintf(folder, sizeof(folder), "/tmp/sheaf-devices-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(cache, sizeof(cache), "%s/pocl", folder);
    setenv("POCL_CACHE_DIR", cache, 1);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup(name, use_real_program)
    const struct CMUnitTest tests[] = {
        CASE(test_probe_lists_host_and_cpu_devices),
        CASE(test_uuids_are_stable_and_differ_by_salt),
        CASE(test_selftest_agrees_with_the_arithmetic),
        CASE(test_twice_the_memory_fails),
        CASE(test_memory_that_is_not_there_fails),
        CASE(test_a_device_that_went_away_fails),
        CASE(test_a_killed_child_is_a_failed_device),
        CASE(test_answers_that_are_none_are_errors),
        CASE(test_the_child_inherits_nothing),
        CASE(test_free_kills_the_whole_group),
        CASE(test_usage_without_telemetry_is_empty),
        CASE(test_a_task_gets_the_devices_of_its_plan),
        CASE(test_the_daemon_side_links_no_driver),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
