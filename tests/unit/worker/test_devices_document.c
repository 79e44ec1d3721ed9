#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/devices/document.h"

static struct host_info sample_host(void)
{
    struct host_info host = {
        .cpu_milli = 16000, .memory_mib = 65536, .numa_nodes = 2, .device_count = 2};
    struct device_info *gpu = &host.device[0];
    struct device_info *cpu = &host.device[1];

    snprintf(host.cpu_model, sizeof(host.cpu_model), "A \"fast\" one");
    snprintf(host.warning[host.warning_count++], sizeof(host.warning[0]), "NVML: too old");
    *gpu = (struct device_info){.ordinal = 0,
                                .uuid = "GPU-0f",
                                .gpu = true,
                                .vendor = "NVIDIA",
                                .model = "RTX 4090",
                                .driver = "535.1",
                                .pci = "0000:65:00.0",
                                .memory_mib = 24564,
                                .nodes = {"/dev/nvidia0", "/dev/nvidiactl"},
                                .node_count = 2,
                                .opencl_platform = 1,
                                .opencl_device = 0};
    *cpu = (struct device_info){.ordinal = 1,
                                .uuid = "CPU-1",
                                .model = "basic-x",
                                .memory_mib = 1024,
                                .opencl_platform = DEVICES_NO_OPENCL,
                                .opencl_device = DEVICES_NO_OPENCL};
    return host;
}

static void test_host_comes_back_as_it_was(void **state)
{
    struct host_info host = sample_host();
    struct host_info back;
    struct err err = {0};
    json_t *document = document_from_host(&host);

    (void)state;
    memset(&back, 0xee, sizeof(back));
    if (document_to_host(document, &back, &err) != 0)
        fail_msg("%s", err.text);
    assert_memory_equal(&back, &host, sizeof(host));
    json_decref(document);
}

static void test_texts_of_drivers_are_made_printable(void **state)
{
    struct host_info host = sample_host();
    struct host_info back;
    struct err err;
    json_t *document;

    (void)state;
    snprintf(host.device[0].model, sizeof(host.device[0].model), "bad\xff\n\x1b[31m");
    document = document_from_host(&host);
    assert_int_equal(document_to_host(document, &back, &err), 0);
    assert_string_equal(back.device[0].model, "bad???[31m");
    json_decref(document);
}

/* One change each to a good document; whatever it is, nothing is written to the output. */
static void test_hostile_hosts_are_refused(void **state)
{
    static const struct {
        const char *pointer; /* key of the host, or of its first device */
        const char *value;
    } cases[] = {
        {"cpu_milli", "-1"},
        {"cpu_milli", "4294967296"},
        {"cpu_milli", "1.5"},
        {"cpu_milli", "\"8\""},
        {"cpu_model", "7"},
        {"devices", "{}"},
        {"devices", "null"},
        {"devices", "[1]"},
        {"devices", "[null]"},
        {"devices", "[{}]"},
        {"devices", "[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]"},
        {"warnings", "[1]"},
        {"warnings", "[\"a\",\"b\",\"c\",\"d\",\"e\"]"},
        {"/class", "\"tpu\""},
        {"/memory_mib", "18446744073709551616"},
        {"/uuid", "[]"},
        {"/nodes", "[\"/etc/shadow\"]"},
        {"/nodes", "[\"/dev/../etc/shadow\"]"},
        {"/nodes", "[\"/dev/a\",\"/dev/a\",\"/dev/a\",\"/dev/a\",\"/dev/a\",\"/dev/a\",\"/dev/a\","
                   "\"/dev/a\",\"/dev/a\"]"},
        {"/nodes", "[1]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct host_info host = sample_host();
        struct host_info back;
        struct host_info before;
        struct err err = {0};
        json_error_t at;
        json_t *document = document_from_host(&host);
        json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, &at);
        json_t *target = document;
        const char *key = cases[i].pointer;

        if (value == NULL) /* too large for JSON here: as a real */
            value = json_real(1e30);
        if (key[0] == '/') {
            target = json_array_get(json_object_get(document, "devices"), 0);
            key++;
        }
        json_object_set_new(target, key, value);
        memset(&back, 0xee, sizeof(back));
        before = back;
        if (document_to_host(document, &back, &err) == 0)
            fail_msg("case %zu: %s = %s was taken", i, cases[i].pointer, cases[i].value);
        assert_memory_equal(&back, &before, sizeof(back));
        assert_int_not_equal(err.code, 0);
        json_decref(document);
    }
}

static void test_missing_keys_are_refused(void **state)
{
    struct host_info host = sample_host();
    struct selftest_result result = {.device = 1};
    json_t *documents[2] = {document_from_host(&host), document_from_selftest(&result)};

    (void)state;
    for (int which = 0; which < 2; which++) {
        const char *key;
        json_t *ignored;
        json_object_foreach(documents[which], key, ignored)
        {
            json_t *copy = json_copy(documents[which]);
            struct host_info back;
            struct selftest_result result_back;
            struct err err;
            json_object_del(copy, key);
            if (which == 0)
                assert_int_not_equal(document_to_host(copy, &back, &err), 0);
            else
                assert_int_not_equal(document_to_selftest(copy, &result_back, &err), 0);
            json_decref(copy);
        }
        json_decref(documents[which]);
    }
}

static void test_selftest_keeps_all_64_bits(void **state)
{
    struct selftest_result result = {.device = 3,
                                     .seed = UINT64_MAX,
                                     .memory_mib = 922,
                                     .matmul_gflops = 2,
                                     .matmul_sum = UINT64_C(0x8000000000000001),
                                     .copy_mib_s = 8000,
                                     .failure = "none at all"};
    struct selftest_result back;
    struct device_info device = {.ordinal = 5, .uuid = "GPU-7", .memory_mib = 9};
    struct device_info device_back;
    uint64_t seed = 0;
    struct err err;
    json_t *document;

    (void)state;
    for (uint32_t i = 0; i < 16; i++)
        result.chunk_sum[i] = UINT64_MAX - i;
    document = document_from_selftest(&result);
    assert_int_equal(document_to_selftest(document, &back, &err), 0);
    assert_memory_equal(&back, &result, sizeof(back));
    json_decref(document);

    document = document_from_ask(&device, UINT64_C(0xfedcba9876543210));
    assert_int_equal(document_to_ask(document, &device_back, &seed, &err), 0);
    assert_true(seed == UINT64_C(0xfedcba9876543210));
    assert_string_equal(device_back.uuid, "GPU-7");
    assert_int_equal(device_back.ordinal, 5);
    assert_int_equal(device_back.memory_mib, 9);
    json_object_set_new(document, "seed", json_string("FEDCBA9876543210"));
    assert_int_not_equal(document_to_ask(document, &device_back, &seed, &err), 0);
    json_decref(document);
}

static void test_pids_and_usage_come_back(void **state)
{
    int pids[DOCUMENT_MAX_PIDS];
    int back[DOCUMENT_MAX_PIDS];
    struct device_usage usage[2] = {{.device = 0, .uuid = "GPU-1", .foreign_mib = 300},
                                    {.device = 1, .uuid = "GPU-2", .power_w = 450}};
    struct device_usage usage_back[DEVICES_MAX];
    uint32_t count = 0;
    struct err err;
    json_t *document;

    (void)state;
    for (uint32_t i = 0; i < DOCUMENT_MAX_PIDS; i++)
        pids[i] = (int)i + 1;
    document = document_from_pids(pids, DOCUMENT_MAX_PIDS);
    assert_int_equal(document_to_pids(document, back, &count, &err), 0);
    assert_int_equal(count, DOCUMENT_MAX_PIDS);
    assert_memory_equal(back, pids, sizeof(pids));
    json_array_append_new(json_object_get(document, "pids"), json_integer(1));
    assert_int_not_equal(document_to_pids(document, back, &count, &err), 0);
    json_decref(document);
    pids[0] = -1;
    document = document_from_pids(pids, 1);
    assert_int_not_equal(document_to_pids(document, back, &count, &err), 0);
    json_decref(document);

    document = document_from_usage(usage, 2);
    assert_int_equal(document_to_usage(document, usage_back, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_memory_equal(usage_back, usage, sizeof(usage));
    json_decref(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_comes_back_as_it_was),
        cmocka_unit_test(test_texts_of_drivers_are_made_printable),
        cmocka_unit_test(test_hostile_hosts_are_refused),
        cmocka_unit_test(test_missing_keys_are_refused),
        cmocka_unit_test(test_selftest_keeps_all_64_bits),
        cmocka_unit_test(test_pids_and_usage_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
