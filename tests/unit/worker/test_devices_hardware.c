/* Lists and telemetry of GPUs that this machine does not have: a fake NVML and a fake sysfs. */
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io/fs.h"
#include "worker/devices/devices.h"

#define AMD_PCI  "0000:03:00.0"
#define AMD_PATH "bus/pci/devices/" AMD_PCI

static char folder[64];
static char nvml[PATH_MAX];

struct outcome {
    uint32_t calls;
    uint32_t count;
    struct device_usage usage[DEVICES_MAX];
};

static void on_usage(const struct device_usage *usage, uint32_t count, const struct err *err,
                     void *arg)
{
    struct outcome *outcome = arg;

    if (err != NULL)
        fail_msg("%s", err->text);
    outcome->calls++;
    outcome->count = count;
    memcpy(outcome->usage, usage, count * sizeof(*usage));
}

static struct outcome usage_with(const int *pids, uint32_t count)
{
    struct event_base *base = event_base_new();
    struct outcome outcome = {0};
    struct devices_job *job;
    struct err err;

    assert_int_equal(devices_usage(base, pids, count, on_usage, &outcome, &job, &err), 0);
    event_base_dispatch(base);
    devices_job_free(job);
    event_base_free(base);
    assert_int_equal(outcome.calls, 1);
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

static void put(const char *name, const char *text)
{
    char path[FS_PATH];
    char parent[FS_PATH];

    assert_int_equal(fs_path(path, "%s/%s", folder, name), 0);
    snprintf(parent, sizeof(parent), "%s", path);
    *strrchr(parent, '/') = '\0';
    assert_int_equal(fs_mkdir(parent, 0755, NULL), 0);
    assert_int_equal(fs_write(path, text, strlen(text), 0644, NULL), 0);
}

static void make_amd_card(void)
{
    char link[FS_PATH];

    put(AMD_PATH "/mem_info_vram_total", "17163091968\n");
    put(AMD_PATH "/mem_info_vram_used", "1073741824\n");
    put(AMD_PATH "/gpu_busy_percent", "77\n");
    put(AMD_PATH "/product_name", "Radeon PRO W6800\n");
    put(AMD_PATH "/unique_id", "7c2b3b0e9ce1b3f0\n");
    put(AMD_PATH "/hwmon/hwmon4/temp1_input", "61000\n");
    put(AMD_PATH "/hwmon/hwmon4/power1_average", "203000000\n");
    put(AMD_PATH "/drm/renderD129/dev", "226:129\n");
    put("class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 8\nlocation_id 0\n");
    put("class/kfd/kfd/topology/nodes/1/properties", "location_id 768\ndomain 0\n");
    put("class/kfd/kfd/topology/nodes/1/gpu_id", "4242\n");
    put("bus/pci/drivers/amdgpu/module", "");
    assert_int_equal(fs_path(link, "%s/bus/pci/drivers/amdgpu/" AMD_PCI, folder), 0);
    assert_int_equal(symlink("../../devices/" AMD_PCI, link), 0);
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/sheaf-hardware-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    setenv("SHEAF_DEVICES_SYSFS", folder, 1);
    setenv("SHEAF_DEVICES_NVML", nvml, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unsetenv("SHEAF_DEVICE_FAKE");
    unsetenv("SHEAF_DEVICE_FAKE_PIDS");
    return fs_remove_tree(folder, NULL);
}

static void test_nvidia_cards_are_listed(void **state)
{
    struct host_info host = probe();
    const struct device_info *second = &host.device[1];

    (void)state;
    /* No CPU device: it stands in only where no GPU is. */
    assert_int_equal(host.device_count, 2);
    assert_true(host.device[0].gpu && second->gpu);
    assert_string_equal(second->vendor, "NVIDIA");
    assert_string_equal(second->model, "NVIDIA GeForce RTX 4090");
    assert_string_equal(second->driver, "535.183.01");
    assert_string_equal(second->uuid, "GPU-11111111-2222-3333-4444-555555555551");
    assert_string_equal(second->pci, "0000:66:00.0");
    assert_int_equal(second->memory_mib, 24564);
    assert_int_equal(second->node_count, 3);
    assert_string_equal(second->nodes[0], "/dev/nvidia4");
    assert_string_equal(second->nodes[1], "/dev/nvidiactl");
    assert_string_equal(second->nodes[2], "/dev/nvidia-uvm");
    assert_int_equal(second->opencl_device, DEVICES_NO_OPENCL);
}

static void test_a_card_in_mig_mode_is_left_out_and_said(void **state)
{
    struct host_info host;
    struct outcome outcome;

    (void)state;
    setenv("SHEAF_DEVICE_FAKE", "mig", 1);
    host = probe();
    outcome = usage_with(NULL, 0);
    assert_int_equal(host.device_count, 1);
    assert_string_equal(host.device[0].model, "NVIDIA GeForce RTX 4090");
    assert_non_null(strstr(host.warning[0], "MIG"));
    assert_int_equal(outcome.count, 1);
    assert_string_equal(outcome.usage[0].uuid, host.device[0].uuid);
}

/* One driver that dies does not hide what the others found. */
static void test_a_crashing_driver_is_a_warning(void **state)
{
    struct host_info host;

    (void)state;
    make_amd_card();
    setenv("SHEAF_DEVICE_FAKE", "crash", 1);
    host = probe();
    assert_int_equal(host.device_count, 1);
    assert_string_equal(host.device[0].vendor, "AMD");
    assert_true(host.warning_count >= 1);
    assert_non_null(strstr(host.warning[0], "NVML: the driver"));
}

static void test_amd_cards_come_after_nvidia(void **state)
{
    struct host_info host;
    const struct device_info *amd = &host.device[2];

    (void)state;
    make_amd_card();
    host = probe();
    assert_int_equal(host.device_count, 3);
    assert_int_equal(amd->ordinal, 2);
    assert_true(amd->gpu);
    assert_string_equal(amd->model, "Radeon PRO W6800");
    assert_string_equal(amd->uuid, "GPU-7c2b3b0e9ce1b3f0");
    assert_string_equal(amd->pci, AMD_PCI);
    assert_int_equal(amd->memory_mib, 16368);
    assert_int_equal(amd->node_count, 2);
    assert_string_equal(amd->nodes[0], "/dev/kfd");
    assert_string_equal(amd->nodes[1], "/dev/dri/renderD129");
}

/* A child and a grandchild of ours, and somebody else's process, all on the card. */
static void test_memory_of_others_is_foreign(void **state)
{
    struct outcome outcome;
    char text[160];
    int ends[2];
    int self = getpid();
    int grandchild = 0;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        pid_t below;
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test leaves nothing behind */
        below = fork();
        if (below == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(pause());
        }
        (void)!write(ends[1], &below, sizeof(below));
        _exit(pause());
    }
    assert_int_equal(read(ends[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
    snprintf(text, sizeof(text), "%d:1000 %d:2000 1:300 %d:400", child, grandchild, 1 << 30);
    setenv("SHEAF_DEVICE_FAKE_PIDS", text, 1);

    outcome = usage_with(&self, 1);
    assert_int_equal(outcome.count, 2);
    assert_int_equal(outcome.usage[0].foreign_mib, 0);
    assert_int_equal(outcome.usage[1].foreign_mib, 700);
    outcome = usage_with(&grandchild, 1);
    assert_int_equal(outcome.usage[1].foreign_mib, 1700);
    /* The first draws too, and is counted once. */
    outcome = usage_with(NULL, 0);
    assert_int_equal(outcome.usage[1].foreign_mib, 3700);

    kill(grandchild, SIGKILL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
}

static void test_telemetry_has_its_units(void **state)
{
    struct outcome outcome;
    char name[128];

    (void)state;
    make_amd_card();
    snprintf(name, sizeof(name), "class/kfd/kfd/proc/%d/vram_4242", 1);
    put(name, "524288000\n");
    outcome = usage_with(NULL, 0);
    assert_int_equal(outcome.count, 3);
    assert_int_equal(outcome.usage[1].device, 1);
    assert_int_equal(outcome.usage[1].memory_used_mib, 4565);
    assert_int_equal(outcome.usage[1].utilisation_pct, 41);
    assert_int_equal(outcome.usage[1].temperature_c, 61);
    assert_int_equal(outcome.usage[1].power_w, 251);
    assert_int_equal(outcome.usage[2].device, 2);
    assert_int_equal(outcome.usage[2].memory_used_mib, 1024);
    assert_int_equal(outcome.usage[2].foreign_mib, 500);
    assert_int_equal(outcome.usage[2].utilisation_pct, 77);
    assert_int_equal(outcome.usage[2].temperature_c, 61);
    assert_int_equal(outcome.usage[2].power_w, 203);
}

static void on_selftest(const struct selftest_result *result, const struct err *err, void *arg)
{
    struct selftest_result *copy = arg;

    if (err != NULL)
        fail_msg("%s", err->text);
    *copy = *result;
}

static void test_an_untestable_gpu_fails_its_test(void **state)
{
    struct event_base *base = event_base_new();
    struct host_info host = probe();
    struct selftest_result result = {0};
    struct devices_job *job;
    struct err err;

    (void)state;
    assert_int_equal(devices_selftest(base, &host.device[0], 7, on_selftest, &result, &job, &err),
                     0);
    event_base_dispatch(base);
    devices_job_free(job);
    event_base_free(base);
    assert_non_null(strstr(result.failure, "no OpenCL driver"));
}

static int group_setup(void **state)
{
    char self[PATH_MAX - 64];
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

    (void)state;
    if (length <= 0)
        return -1;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(program, sizeof(program), "%s/../bin/sheaf-devices", self);
    snprintf(nvml, sizeof(nvml), "%s/fake_nvml.so", self);
    setenv("SHEAF_DEVICES_PROGRAM", program, 1);
    unsetenv("POCL_DEVICES");
    return 0;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_nvidia_cards_are_listed),
        CASE(test_a_card_in_mig_mode_is_left_out_and_said),
        CASE(test_a_crashing_driver_is_a_warning),
        CASE(test_amd_cards_come_after_nvidia),
        CASE(test_memory_of_others_is_foreign),
        CASE(test_telemetry_has_its_units),
        CASE(test_an_untestable_gpu_fails_its_test),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
