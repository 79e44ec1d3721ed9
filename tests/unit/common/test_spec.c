#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/io/spec_json.h"
#include "common/io/yaml.h"
#include "common/pure/buf.h"

#define HEAD "version: 1\n"
#define TAIL "commands: [train]\n"
#define GPU  "resources: {gpu: \"24GB:2\"}\n"

/* Reads YAML as the client does. On an error of the validator *ret_at says where it stands. */
static int read_yaml(const char *text, struct job_spec *ret_spec, struct err *err, char ret_at[32])
{
    struct yaml_marks *marks = NULL;
    json_t *value = NULL;
    unsigned line = 0;
    unsigned column = 0;

    ret_at[0] = '\0';
    int rc = yaml_read(text, strlen(text), &value, &marks, err);
    if (rc != 0)
        return rc;
    rc = spec_from_json(value, ret_spec, err);
    if (rc != 0) {
        yaml_locate(marks, err->pointer, &line, &column);
        snprintf(ret_at, 32, "%u:%u", line, column);
    }
    yaml_marks_free(marks);
    json_decref(value);
    return rc;
}

static const struct {
    const char *yaml;
    enum err_code code;
    const char *pointer;
    const char *at; /* line:column */
    const char *says;
} bad_files[] = {
    {"[]", ERR_INVALID_TYPE, "", "1:1", "object"},
    {GPU TAIL, ERR_FIELD_MISSING, "/version", "1:1", "required"},
    {"version: 2\n" GPU TAIL, ERR_UNSUPPORTED_VERSION, "/version", "1:1", "version 1"},
    {HEAD GPU, ERR_FIELD_MISSING, "/commands", "1:1", "required"},
    {HEAD TAIL, ERR_FIELD_MISSING, "/resources", "1:1", "required"},
    {HEAD TAIL "resources: {cpu: 2}\n", ERR_FIELD_MISSING, "/resources/gpu", "3:1", ""},
    {HEAD GPU TAIL "netwrok: {}\n", ERR_UNKNOWN_FIELD, "/netwrok", "4:1", "mean: network"},
    {HEAD GPU TAIL "network:\n  max_rt: 3ms\n", ERR_UNKNOWN_FIELD, "/network/max_rt", "5:3",
     "mean: max_rtt"},
    {HEAD GPU TAIL "xyzzy: 1\n", ERR_UNKNOWN_FIELD, "/xyzzy", "4:1", "no such field: xyzzy"},
    {HEAD GPU TAIL "on_node_loss: replace\n", ERR_UNKNOWN_FIELD, "/on_node_loss", "4:1",
     "not supported in this version"},
    {HEAD GPU TAIL "budget: {capacity: spot}\n", ERR_UNKNOWN_FIELD, "/budget/capacity", "4:10",
     "not supported in this version"},
    {HEAD GPU TAIL "a/b~c: 1\n", ERR_UNKNOWN_FIELD, "/a~1b~0c", "4:1", "no such field"},
    {HEAD GPU TAIL "type: service\n", ERR_OUT_OF_RANGE, "/type", "4:1", "task"},
    {HEAD GPU TAIL "name: Job\n", ERR_INVALID_NAME, "/name", "4:1", "Job"},
    {HEAD GPU TAIL "name: 7\n", ERR_INVALID_TYPE, "/name", "4:1", "text"},
    {HEAD GPU TAIL "nodes: 0\n", ERR_OUT_OF_RANGE, "/nodes", "4:1", "1 to 256"},
    {HEAD GPU TAIL "nodes: 257\n", ERR_OUT_OF_RANGE, "/nodes", "4:1", "1 to 256"},
    {HEAD GPU TAIL "nodes: {min: 1}\n", ERR_INVALID_TYPE, "/nodes", "4:1", "whole"},
    {HEAD GPU TAIL "priority: 101\n", ERR_OUT_OF_RANGE, "/priority", "4:1", "0 to 100"},
    {HEAD GPU TAIL "max_duration: 31d\n", ERR_OUT_OF_RANGE, "/max_duration", "4:1", "30d"},
    {HEAD GPU TAIL "max_duration: 90\n", ERR_INVALID_QUANTITY, "/max_duration", "4:1", "unit"},
    {HEAD GPU TAIL "budget: {max_price: -1}\n", ERR_INVALID_AMOUNT, "/budget/max_price", "4:10",
     ""},
    {HEAD GPU TAIL "budget: {max_price: 0.0000001}\n", ERR_INVALID_AMOUNT, "/budget/max_price",
     "4:10", ""},
    {HEAD GPU TAIL "budget: {currency: usd}\n", ERR_INVALID_NAME, "/budget/currency", "4:10",
     "capital"},
    {HEAD GPU TAIL "retry: {on_events: [error, lightning]}\n", ERR_OUT_OF_RANGE,
     "/retry/on_events/1", "4:28", "one of"},
    {HEAD GPU TAIL "retry: {max_attempts: 0}\n", ERR_OUT_OF_RANGE, "/retry/max_attempts", "4:9",
     "1 to 20"},
    {HEAD GPU TAIL "placement: {countries: [DE, Deutschland]}\n", ERR_OUT_OF_RANGE,
     "/placement/countries/1", "4:29", "2 bytes"},
    {HEAD GPU TAIL "launch: rank\n", ERR_OUT_OF_RANGE, "/launch", "4:1", "node device none"},
    {HEAD GPU "commands: []\n", ERR_INVALID_COMMAND, "/commands", "3:1", "1 to 64"},
    {HEAD GPU "commands: [\" \"]\n", ERR_INVALID_COMMAND, "/commands/0", "3:12", "empty"},
    {HEAD GPU "commands: train\n", ERR_INVALID_TYPE, "/commands", "3:1", "list"},
    {HEAD GPU "commands:\n- a\n- 5\n", ERR_INVALID_COMMAND, "/commands/1", "5:3", "quotes"},
    {HEAD GPU TAIL "env: [LD_PRELOAD=x]\n", ERR_ENV_NOT_ALLOWED, "/env/0", "4:7", "LD_PRELOAD"},
    {HEAD GPU TAIL "env: [A=1, RANK=0]\n", ERR_ENV_NOT_ALLOWED, "/env/1", "4:12", "RANK"},
    {HEAD GPU TAIL "env: [SHEAF_X=0]\n", ERR_ENV_NOT_ALLOWED, "/env/0", "4:7", "SHEAF_X"},
    {HEAD GPU TAIL "env: {POCL_DEVICES: basic}\n", ERR_ENV_NOT_ALLOWED, "/env/POCL_DEVICES", "4:7",
     "POCL_DEVICES"},
    {HEAD GPU TAIL "env: [FROM_SHELL]\n", ERR_INVALID_TYPE, "/env/0", "4:7", "NAME=value"},
    {HEAD GPU TAIL "env: [\"A B=1\"]\n", ERR_ENV_NOT_ALLOWED, "/env/0", "4:7", "name"},
    {HEAD GPU TAIL "env: [A=1, A=2]\n", ERR_CONTRADICTION, "/env/1", "4:12", "twice"},
    {HEAD GPU TAIL "env: {A: [1]}\n", ERR_INVALID_TYPE, "/env/A", "4:7", "text"},
    {HEAD GPU TAIL "outputs: [/etc]\n", ERR_MOUNT_NOT_ALLOWED, "/outputs/0", "4:11", "/out"},
    {HEAD GPU TAIL "outputs: [/out/../etc]\n", ERR_MOUNT_NOT_ALLOWED, "/outputs/0", "4:11", ""},
    {HEAD GPU TAIL "outputs: [/outside]\n", ERR_MOUNT_NOT_ALLOWED, "/outputs/0", "4:11", ""},
    {HEAD GPU TAIL "outputs: [/out/a, /out]\n", ERR_CONTRADICTION, "/outputs/1", "4:19", ""},
    {HEAD GPU TAIL "files: [{source: ./s, path: /etc/x}]\n", ERR_MOUNT_NOT_ALLOWED, "/files/0/path",
     "4:23", "/job"},
    {HEAD GPU TAIL "files: [{source: ./s}]\n", ERR_FIELD_MISSING, "/files/0/path", "4:9", ""},
    {HEAD GPU TAIL "files: [{source: s, path: /job/s, sha256: ab}]\n", ERR_INVALID_TYPE,
     "/files/0/sha256", "4:35", "64"},
    {HEAD GPU TAIL "files: [{source: s, path: /job/s, size: 5}]\n", ERR_FIELD_MISSING,
     "/files/0/sha256", "4:9", ""},
    {HEAD GPU TAIL "files: [{source: s, path: /job/s}, {source: t, path: /job/s/t}]\n",
     ERR_CONTRADICTION, "/files/1/path", "4:48", "overlaps"},
    {HEAD TAIL "resources: {gpu: \"24:2\"}\n", ERR_INVALID_QUANTITY, "/resources/gpu", "3:13",
     "unit"},
    {HEAD TAIL "resources: {gpu: \"2:24GB\"}\n", ERR_INVALID_QUANTITY, "/resources/gpu", "3:13",
     "NAME:MEMORY:COUNT"},
    {HEAD TAIL "resources: {gpu: \"24GB:two\"}\n", ERR_INVALID_QUANTITY, "/resources/gpu", "3:13",
     "two"},
    {HEAD TAIL "resources: {gpu: \"24GB:17\"}\n", ERR_OUT_OF_RANGE, "/resources/gpu", "3:13",
     "1 to 16"},
    {HEAD TAIL "resources: {gpu: \"24GB:\"}\n", ERR_INVALID_QUANTITY, "/resources/gpu", "3:13",
     "empty"},
    {HEAD TAIL "resources: {gpu: \"cpu,H100:1GB\"}\n", ERR_CONTRADICTION, "/resources/gpu", "3:13",
     "mixed"},
    {HEAD TAIL "resources: {gpu: {memory: 24}}\n", ERR_INVALID_QUANTITY, "/resources/gpu/memory",
     "3:19", "unit"},
    {HEAD TAIL "resources: {gpu: {driver: 1}}\n", ERR_UNKNOWN_FIELD, "/resources/gpu/driver",
     "3:19", "not supported"},
    {HEAD TAIL "resources: {gpu: 1, memory: 64}\n", ERR_INVALID_QUANTITY, "/resources/memory",
     "3:21", "unit"},
    {HEAD TAIL "resources: {gpu: 1, memory: 1GB, shm_size: 2GB}\n", ERR_CONTRADICTION,
     "/resources/shm_size", "3:34", "part of memory"},
    {HEAD TAIL "resources: {gpu: 1, cpu: \"0.0001\"}\n", ERR_INVALID_QUANTITY, "/resources/cpu",
     "3:21", "cores"},
};

static void test_bad_job_files_are_refused_where_they_are_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
        struct job_spec spec;
        struct err err = {0};
        char at[32];
        memset(&spec, 0x5a, sizeof(spec));
        struct job_spec before = spec;
        int rc = read_yaml(bad_files[i].yaml, &spec, &err, at);
        if (rc != -(int)bad_files[i].code || strcmp(err.pointer, bad_files[i].pointer) != 0
            || strcmp(at, bad_files[i].at) != 0 || strstr(err.text, bad_files[i].says) == NULL)
            fail_msg("%s\ngave %s at %s %s: %s", bad_files[i].yaml, err_slug((enum err_code) - rc),
                     err.pointer, at, err.text);
        assert_memory_equal(&spec, &before, sizeof(spec));
    }
}

static void test_a_full_job_file_becomes_values(void **state)
{
    static const char yaml[] = "version: 1\n"
                               "type: task\n"
                               "name: llama-sft\n"
                               "project: nlp\n"
                               "priority: 60\n"
                               "env: [DATASET=imdb, EMPTY=]\n"
                               "files: [{source: ./src, path: /job/src}]\n"
                               "nodes: 4\n"
                               "resources:\n"
                               "  cpu: 1.5\n"
                               "  memory: 128GB..\n"
                               "  shm_size: 24GB\n"
                               "  gpu: {name: [H100, A100], memory: 80GB.., count: 8}\n"
                               "network: {max_rtt: 3ms}\n"
                               "placement: {countries: [de, NL, NO], exclude_nodes: [bad-node]}\n"
                               "budget: {max_price: 2.40, max_total: 900, currency: EUR}\n"
                               "retry: {on_events: [provider, error], max_attempts: 5}\n"
                               "launch: device\n"
                               "max_duration: 24h\n"
                               "stop_duration: 5m\n"
                               "queue_timeout: 12h\n"
                               "outputs: [/out/a, /out/b]\n"
                               "commands:\n"
                               "  - torchrun train.py\n"
                               "  - echo done\n";
    struct job_spec spec;
    struct err err;
    char at[32];

    (void)state;
    assert_int_equal(read_yaml(yaml, &spec, &err, at), 0);
    assert_string_equal(spec.name, "llama-sft");
    assert_string_equal(spec.project, "nlp");
    assert_string_equal(spec.currency, "EUR");
    assert_int_equal(spec.ask.priority, 60);
    assert_int_equal(spec.ask.nodes, 4);
    assert_int_equal(spec.ask.gpus_per_node, 8);
    assert_int_equal(spec.ask.gpu_memory, 80000000000);
    assert_int_equal(spec.ask.cpu_milli, 1500);
    assert_int_equal(spec.ask.memory, 128000000000);
    assert_int_equal(spec.ask.shm, 24000000000);
    assert_int_equal(spec.ask.model_count, 2);
    assert_string_equal(spec.ask.models[1], "a100");
    assert_int_equal(spec.ask.max_rtt_us, 3000);
    assert_string_equal(spec.ask.countries[0], "DE");
    assert_string_equal(spec.ask.countries[2], "NO");
    assert_string_equal(spec.ask.excluded[0], "bad-node");
    assert_int_equal(spec.ask.max_price, 2400000);
    assert_int_equal(spec.ask.max_total, 900000000);
    assert_int_equal(spec.ask.retry_on, 1u << FAIL_PROVIDER | 1u << FAIL_USER);
    assert_int_equal(spec.ask.max_attempts, 5);
    assert_int_equal(spec.launch, LAUNCH_DEVICE);
    assert_int_equal(spec_world_size(&spec), 32);
    assert_int_equal(spec.ask.max_duration_us, 86400000000);
    assert_int_equal(spec.ask.stop_duration_us, 300000000);
    assert_int_equal(spec.ask.queue_timeout_us, 43200000000);
    assert_int_equal(spec.env.count, 2);
    assert_string_equal(spec.env.items[1], "EMPTY=");
    assert_int_equal(spec.outputs.count, 2);
    assert_string_equal(spec.commands.items[1], "echo done");
    assert_string_equal(spec.files[0].path, "/job/src");
    assert_int_equal(spec_check_packed(&spec, &err), -ERR_FIELD_MISSING);
    assert_string_equal(err.pointer, "/files/0/sha256");
    spec_fini(&spec);
}

static void test_a_silent_job_file_has_the_documented_defaults(void **state)
{
    static const char json[] = "{\"version\":1,\"name\":null,\"resources\":{\"gpu\":\"24GB\"},"
                               "\"commands\":[\"true\"]}";
    struct job_spec spec;
    struct err err;

    (void)state;
    assert_int_equal(spec_parse(json, strlen(json), &spec, &err), 0);
    assert_string_equal(spec.name, "job");
    assert_string_equal(spec.project, "");
    assert_string_equal(spec.currency, "USD");
    assert_int_equal(spec.ask.nodes, 1);
    assert_int_equal(spec.ask.gpus_per_node, 1);
    assert_int_equal(spec.ask.priority, 50);
    assert_int_equal(spec.ask.max_attempts, 3);
    assert_int_equal(spec.ask.max_duration_us, 3600000000);
    assert_int_equal(spec.ask.stop_duration_us, 30000000);
    assert_int_equal(spec.ask.queue_timeout_us, 0);
    assert_int_equal(spec.outputs.count, 1);
    assert_string_equal(spec.outputs.items[0], "/out");
    assert_int_equal(spec_check_packed(&spec, &err), 0);
    spec_fini(&spec);
}

static void test_gpu_texts_mean_names_memory_and_count(void **state)
{
    static const struct {
        const char *text;
        uint64_t memory;
        uint32_t count;
        uint32_t models;
        bool cpu;
    } cases[] = {
        {"\"24GB:2\"", 24000000000, 2, 0, false},
        {"\"H100:80GB:8\"", 80000000000, 8, 1, false},
        {"\"RTX 4090,a100:24GB..\"", 24000000000, 1, 2, false},
        {"\"cpu:1GB:2\"", 1000000000, 2, 0, true},
        {"\"CPU\"", 0, 1, 0, true},
        {"\"H100:4\"", 0, 4, 1, false},
        {"\"16\"", 0, 16, 0, false},
        {"3", 0, 3, 0, false},
        {"{\"name\":\"cpu\",\"memory\":\"1GB\"}", 1000000000, 1, 0, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char json[256];
        struct job_spec spec;
        struct err err;
        snprintf(json, sizeof(json),
                 "{\"version\":1,\"resources\":{\"gpu\":%s},\"commands\":[\"true\"]}",
                 cases[i].text);
        if (spec_parse(json, strlen(json), &spec, &err) != 0)
            fail_msg("%s: %s", json, err.text);
        assert_int_equal(spec.ask.gpu_memory, cases[i].memory);
        assert_int_equal(spec.ask.gpus_per_node, cases[i].count);
        assert_int_equal(spec.ask.model_count, cases[i].models);
        assert_int_equal(spec.ask.cpu_device, cases[i].cpu);
        spec_fini(&spec);
    }
}

static void test_prices_are_never_floats(void **state)
{
    static const char json[] = "{\"version\":1,\"resources\":{\"gpu\":1},\"commands\":[\"x\"],"
                               "\"budget\":{\"max_price\":0.6}}";
    struct job_spec spec;
    struct err err;

    (void)state;
    assert_int_equal(spec_parse(json, strlen(json), &spec, &err), -ERR_INVALID_AMOUNT);
    assert_string_equal(err.pointer, "/budget/max_price");
}

static void test_what_is_written_out_reads_back_the_same(void **state)
{
    static const char *const jsons[] = {
        "{\"version\":1,\"resources\":{\"gpu\":\"24GB:2\"},\"commands\":[\"true\"]}",
        "{\"version\":1,\"resources\":{\"gpu\":\"cpu:1GiB\",\"cpu\":\"0.25\",\"memory\":\"1025B\"},"
        "\"commands\":[\"a\",\"b\"],\"env\":{\"A\":1,\"B\":true,\"C\":\"x=y\"},\"outputs\":[],"
        "\"stop_duration\":0,\"retry\":{\"on_events\":[]},\"launch\":\"none\","
        "\"budget\":{\"max_price\":\"0.60\",\"max_total\":3},\"network\":{\"max_rtt\":\"1500us\"},"
        "\"placement\":{\"countries\":[\"DE\"],\"exclude_nodes\":[\"n-1\"]},"
        "\"files\":[{\"source\":\"s\",\"path\":\"/job/s\",\"size\":9,\"sha256\":"
        "\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}]}",
        "{\"version\":1,\"resources\":{\"gpu\":1},\"image\":\"Host.example:5000/team/app@sha256:"
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}",
        "{\"version\":1,\"resources\":{\"gpu\":1},\"image\":{\"archive\":\"./app.tar\",\"size\":9,"
        "\"sha256\":\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(jsons) / sizeof(jsons[0]); i++) {
        struct job_spec spec;
        struct job_spec again;
        struct err err;
        assert_int_equal(spec_parse(jsons[i], strlen(jsons[i]), &spec, &err), 0);
        json_t *value = spec_to_json(&spec);
        char *first = json_write_canonical(value);
        json_decref(value);
        if (spec_parse(first, strlen(first), &again, &err) != 0)
            fail_msg("%s: %s %s", first, err.pointer, err.text);
        assert_memory_equal(&spec.ask, &again.ask, sizeof(spec.ask));
        value = spec_to_json(&again);
        char *second = json_write_canonical(value);
        json_decref(value);
        assert_string_equal(first, second);
        free(first);
        free(second);
        spec_fini(&spec);
        spec_fini(&again);
    }
}

static void test_an_image_brings_its_archive_once_it_was_sent(void **state)
{
    static const char sent[] =
        "{\"version\":1,\"resources\":{\"gpu\":1},\"image\":{\"archive\":\"a.tar\",\"size\":9,"
        "\"sha256\":\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}}";
    static const char local[] = "{\"version\":1,\"resources\":{\"gpu\":1},\"image\":\"./a.tar\"}";
    struct job_spec spec;
    struct err err;

    (void)state;
    assert_int_equal(spec_parse(sent, strlen(sent), &spec, &err), 0);
    assert_true(spec.ask.image && spec.image.archive);
    assert_int_equal(spec_check_packed(&spec, &err), 0);
    assert_int_equal(spec_content_count(&spec), 1);
    assert_int_equal(spec_content(&spec, 0)[31], 0x1f);
    spec_fini(&spec);
    assert_int_equal(spec_parse(local, strlen(local), &spec, &err), 0);
    assert_int_equal(spec_check_packed(&spec, &err), -ERR_FIELD_MISSING);
    assert_string_equal(err.pointer, "/image/sha256");
    spec_fini(&spec);
}

static void test_the_reference_names_every_field_once(void **state)
{
    const char *line = spec_reference();
    int lines = 0;

    (void)state;
    for (; *line != '\0'; line = strchr(line, '\n') + 1) {
        char path[64] = "";
        char json[256];
        struct job_spec spec;
        struct err err;
        assert_int_equal(sscanf(line, "%63s", path), 1);
        assert_true(strchr(line, '\n') - line <= 120);
        lines++;
        /* A value of a type that no field takes: known fields complain about it. */
        char *dot = strchr(path, '.');
        if (dot == NULL) {
            snprintf(json, sizeof(json), "{\"version\":1,\"%s\":1.5}", path);
        } else {
            char *second = strchr(dot + 1, '.');
            *dot = '\0';
            if (second != NULL)
                *second = '\0';
            bool list = strcmp(path, "files") == 0;
            snprintf(json, sizeof(json), "{\"version\":1,\"%s\":%s{\"%s\":%s%s%s}%s}", path,
                     list ? "[" : "", dot + 1, second != NULL ? "{\"" : "1.5",
                     second != NULL ? second + 1 : "", second != NULL ? "\":1.5}" : "",
                     list ? "]" : "");
        }
        if (strcmp(path, "version") == 0)
            continue;
        int rc = spec_parse(json, strlen(json), &spec, &err);
        if (rc == 0 || rc == -ERR_UNKNOWN_FIELD || rc == -ERR_FIELD_MISSING)
            fail_msg("%s: %s %s", json, err_slug((enum err_code) - rc), err.text);
    }
    assert_int_equal(lines, 37);
}

static void test_names_of_classes_and_launches_round_trip(void **state)
{
    (void)state;
    for (int i = FAIL_NONE + 1; i < FAIL_CLASS_COUNT; i++)
        assert_int_equal(fail_class_parse(fail_class_name((enum fail_class)i)), i);
    assert_int_equal(fail_class_parse("none"), FAIL_NONE);
    assert_int_equal(fail_class_parse("meteor"), FAIL_NONE);
    assert_true(name_is_valid("a"));
    assert_true(name_is_valid("a-1"));
    assert_false(name_is_valid("a-"));
    assert_false(name_is_valid("1a"));
    assert_false(name_is_valid(""));
    char name[66];
    memset(name, 'a', sizeof(name));
    name[63] = '\0';
    assert_true(name_is_valid(name));
    name[63] = 'a';
    name[64] = '\0';
    assert_false(name_is_valid(name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_job_files_are_refused_where_they_are_wrong),
        cmocka_unit_test(test_a_full_job_file_becomes_values),
        cmocka_unit_test(test_a_silent_job_file_has_the_documented_defaults),
        cmocka_unit_test(test_gpu_texts_mean_names_memory_and_count),
        cmocka_unit_test(test_prices_are_never_floats),
        cmocka_unit_test(test_what_is_written_out_reads_back_the_same),
        cmocka_unit_test(test_an_image_brings_its_archive_once_it_was_sent),
        cmocka_unit_test(test_the_reference_names_every_field_once),
        cmocka_unit_test(test_names_of_classes_and_launches_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
