/* Rows of the catalogue of bad input (docs/errors.md) that the readers of a job file decide alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <time.h>

#include "common/io/spec_json.h"
#include "common/io/yaml.h"
#include "common/pure/buf.h"

#define HEAD "version: 1\nresources: {gpu: \"24GB:2\"}\ncommands: [train]\n"
/* Without the field under test. */
#define NO_GPU     "version: 1\ncommands: [train]\n"
#define NO_COMMAND "version: 1\nresources: {gpu: 1}\n"

/* Reads as the client does; "line:column" of an error is put into ret_at. */
static int read_bytes(const char *bytes, size_t length, struct job_spec *ret_spec, struct err *err,
                      char ret_at[32])
{
    struct yaml_marks *marks = NULL;
    json_t *value = NULL;
    unsigned line = 0;
    unsigned column = 0;

    int rc = yaml_read(bytes, length, &value, &marks, err);
    if (rc != 0) {
        /* The YAML reader names them itself: "7:1: …". */
        snprintf(ret_at, 32, "%.*s", (int)strspn(err->text, "0123456789:") - 1, err->text);
        return rc;
    }
    rc = spec_from_json(value, ret_spec, err);
    if (rc != 0)
        yaml_locate(marks, err->pointer, &line, &column);
    snprintf(ret_at, 32, "%u:%u", line, column);
    yaml_marks_free(marks);
    json_decref(value);
    return rc;
}

struct bad {
    const char *yaml;
    enum err_code code;
    const char *at; /* line:column */
    const char *says;
};

static void check_bad(const struct bad *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct job_spec spec;
        struct err err = {0};
        char at[32];
        int rc = read_bytes(rows[i].yaml, strlen(rows[i].yaml), &spec, &err, at);
        if (rc != -(int)rows[i].code || strcmp(at, rows[i].at) != 0
            || strstr(err.text, rows[i].says) == NULL)
            fail_msg("%s\ngave %s at %s %s: %s", rows[i].yaml,
                     rc == 0 ? "a job" : err_slug((enum err_code) - rc), err.pointer, at, err.text);
    }
}

#define CHECK_BAD(rows) check_bad(rows, sizeof(rows) / sizeof((rows)[0]))

static void check_good(const char *bytes, size_t length)
{
    struct job_spec spec;
    struct err err = {0};
    char at[32];

    if (read_bytes(bytes, length, &spec, &err, at) != 0)
        fail_msg("%s\ngave %s at %s: %s", bytes, err_slug(err.code), at, err.text);
    spec_fini(&spec);
}

static void m01_a_file_has_one_document(void **state)
{
    static const struct bad rows[] = {
        {"", ERR_YAML_SYNTAX, "1:1", "empty"},
        {"# nothing\n# at all\n", ERR_YAML_SYNTAX, "3:1", "empty"},
        {"---\n" HEAD "---\n" HEAD, ERR_YAML_SYNTAX, "5:1", "more than one document"},
        {"---\n", ERR_INVALID_TYPE, "2:1", "an object"},
        {"just words\n", ERR_INVALID_TYPE, "1:1", "an object"},
    };

    (void)state;
    CHECK_BAD(rows);
}

static void m02_bad_syntax_is_named_by_line_and_column(void **state)
{
    static const struct bad rows[] = {
        {HEAD "network:\n\tmax_rtt: 3ms\n", ERR_YAML_SYNTAX, "5:1", "token"},
        {HEAD "name: a\nnodes: 2\nenv: [A=1\npriority: 3\n", ERR_YAML_SYNTAX, "7:9",
         "did not find"},
        {HEAD "name: \"a\nnodes: 2\n", ERR_YAML_SYNTAX, "6:1", "end of stream"},
        {HEAD "? [a]\n: b\n", ERR_YAML_SYNTAX, "4:3", "key"},
    };

    (void)state;
    CHECK_BAD(rows);
}

static void m03_anchors_aliases_merges_and_tags_are_refused(void **state)
{
    static const struct bad rows[] = {
        {"a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n", ERR_YAML_FEATURE,
         "1:4", "anchors"},
        {HEAD "env: *other\n", ERR_YAML_FEATURE, "4:6", "aliases"},
        {HEAD "<<: {nodes: 2}\n", ERR_YAML_FEATURE, "4:1", "merge"},
        {HEAD "name: !!python/object/apply:os.system [id]\n", ERR_YAML_FEATURE, "4:7", "tags"},
        {HEAD "nodes: !!int \"2\"\n", ERR_YAML_FEATURE, "4:8", "tags"},
    };

    (void)state;
    CHECK_BAD(rows);
}

static uint64_t cpu_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* The least of three: another process may have taken our cache meanwhile. */
static uint64_t refusal_us(const char *bytes, size_t length, bool yaml, enum err_code code)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 3; i++) {
        struct job_spec spec;
        struct err err = {0};
        char at[32];
        uint64_t began = cpu_us();
        json_t *value = NULL;
        int rc = yaml ? read_bytes(bytes, length, &spec, &err, at)
                      : json_read(bytes, length, &value, &err);
        uint64_t took = cpu_us() - began;
        assert_int_equal(rc, -(int)code);
        least = took < least ? took : least;
    }
    return least;
}

static void m04_deep_nesting_is_refused_within_10_ms(void **state)
{
    enum { DEEP = 200000 };
    char *text = malloc(DEEP);

    (void)state;
    assert_non_null(text);
    memset(text, '[', DEEP);
    assert_in_range(refusal_us(text, DEEP, false, ERR_NESTING_TOO_DEEP), 0, 10000);
    assert_in_range(refusal_us(text, YAML_MAX_BYTES, true, ERR_NESTING_TOO_DEEP), 0, 10000);
    /* Longer than any job file: nobody looks inside. */
    assert_in_range(refusal_us(text, DEEP, true, ERR_BODY_TOO_LARGE), 0, 10000);
    for (int i = 0; i + 1 < YAML_MAX_BYTES; i += 2)
        memcpy(text + i, "- ", 2);
    assert_in_range(refusal_us(text, YAML_MAX_BYTES, true, ERR_NESTING_TOO_DEEP), 0, 10000);
    for (int i = 0; i + 3 < YAML_MAX_BYTES; i += 4)
        memcpy(text + i, "{a: ", 4);
    assert_in_range(refusal_us(text, YAML_MAX_BYTES, true, ERR_NESTING_TOO_DEEP), 0, 10000);
    free(text);
}

static void m05_duplicate_keys_and_ambiguous_scalars_are_refused(void **state)
{
    static const struct bad rows[] = {
        {HEAD "nodes: 2\nnodes: 4\n", ERR_DUPLICATE_KEY, "5:1", "twice"},
        {HEAD "env: {A: 1, A: 2}\n", ERR_DUPLICATE_KEY, "4:13", "twice"},
        {HEAD "nodes: yes\n", ERR_AMBIGUOUS_SCALAR, "4:1", "yes"},
        {HEAD "nodes: No\n", ERR_AMBIGUOUS_SCALAR, "4:1", "No"},
        {HEAD "nodes: 012\n", ERR_AMBIGUOUS_SCALAR, "4:1", "012"},
        {HEAD "nodes: 0x10\n", ERR_AMBIGUOUS_SCALAR, "4:1", "0x10"},
        {HEAD "nodes: 0o7\n", ERR_AMBIGUOUS_SCALAR, "4:1", "0o7"},
        {HEAD "nodes: 1_000\n", ERR_AMBIGUOUS_SCALAR, "4:1", "1_000"},
        {HEAD "nodes: +5\n", ERR_AMBIGUOUS_SCALAR, "4:1", "+5"},
        {HEAD "nodes: 1e2\n", ERR_AMBIGUOUS_SCALAR, "4:1", "1e2"},
        {HEAD "priority: .inf\n", ERR_AMBIGUOUS_SCALAR, "4:1", ".inf"},
        {HEAD "max_duration: 1:30\n", ERR_AMBIGUOUS_SCALAR, "4:1", "1:30"},
        {HEAD "queue_timeout: 1:30:00\n", ERR_AMBIGUOUS_SCALAR, "4:1", "1:30:00"},
        {HEAD "budget: {max_price: 012}\n", ERR_AMBIGUOUS_SCALAR, "4:10", "012"},
        {HEAD "budget: {max_price: 1e3}\n", ERR_AMBIGUOUS_SCALAR, "4:10", "1e3"},
        {NO_GPU "resources: {gpu: 1, cpu: 010}\n", ERR_AMBIGUOUS_SCALAR, "3:21", "010"},
        {NO_GPU "resources: {gpu: 1, memory: 0777}\n", ERR_AMBIGUOUS_SCALAR, "3:21", "0777"},
        {HEAD "fail_fast: yes\n", ERR_AMBIGUOUS_SCALAR, "4:1", "yes"},
        {HEAD "nodes: \"2\"\n", ERR_INVALID_TYPE, "4:1", "without quotes"},
    };

    (void)state;
    CHECK_BAD(rows);
    /* Where a text is wanted they are texts, and the same for everybody. */
    check_good(HEAD "env: [A=yes, B=012]\n", strlen(HEAD "env: [A=yes, B=012]\n"));
}

static void m06_versions_are_named(void **state)
{
    static const struct bad rows[] = {
        {"version: 99\n", ERR_UNSUPPORTED_VERSION, "1:1", "reads version 1"},
        {"version: \"1\"\n", ERR_UNSUPPORTED_VERSION, "1:1", "reads version 1"},
        {"version: 1.0\n", ERR_UNSUPPORTED_VERSION, "1:1", "reads version 1"},
        /* Another version may have other fields: it is what is wrong. */
        {"novelty: 1\nversion: 2\n", ERR_UNSUPPORTED_VERSION, "2:1", "reads version 1"},
        {"nodes: 1\n", ERR_FIELD_MISSING, "1:1", "required"},
    };

    (void)state;
    CHECK_BAD(rows);
}

static void m07_counts_have_bounds(void **state)
{
    static const struct bad rows[] = {
        {HEAD "nodes: 0\n", ERR_OUT_OF_RANGE, "4:1", "1 to 256"},
        {HEAD "nodes: -1\n", ERR_OUT_OF_RANGE, "4:1", "1 to 256"},
        {HEAD "nodes: 100001\n", ERR_OUT_OF_RANGE, "4:1", "1 to 256"},
        {HEAD "nodes: 2147483648\n", ERR_OUT_OF_RANGE, "4:1", "1 to 256"},
        {HEAD "nodes: 18446744073709551616\n", ERR_OUT_OF_RANGE, "4:1", "1 to 256"},
        {HEAD "nodes: -9223372036854775809\n", ERR_OUT_OF_RANGE, "4:1", "1 to 256"},
        {HEAD "nodes: 1.5\n", ERR_INVALID_TYPE, "4:1", "whole"},
        {NO_GPU "resources: {gpu: 0}\n", ERR_OUT_OF_RANGE, "3:13", "1 to 16"},
        {NO_GPU "resources: {gpu: {count: -1}}\n", ERR_OUT_OF_RANGE, "3:19", "1 to 16"},
        {NO_GPU "resources: {gpu: \"24GB:99\"}\n", ERR_OUT_OF_RANGE, "3:13", "1 to 16"},
        {NO_GPU "resources: {gpu: 1, cpu: 4097}\n", ERR_OUT_OF_RANGE, "3:21", "4096"},
        {HEAD "priority: 101\n", ERR_OUT_OF_RANGE, "4:1", "0 to 100"},
        {HEAD "retry: {max_attempts: 21}\n", ERR_OUT_OF_RANGE, "4:9", "1 to 20"},
        {HEAD "max_duration: 999999999999d\n", ERR_INVALID_QUANTITY, "4:1", "units"},
        {HEAD "max_duration: 31d\n", ERR_OUT_OF_RANGE, "4:1", "1s to 30d"},
    };

    (void)state;
    CHECK_BAD(rows);
}

static void m08_a_quantity_is_a_number_and_its_unit(void **state)
{
    static const struct {
        const char *memory;
        uint64_t bytes;
    } exact[] = {
        {"80GB", 80000000000},
        {"80GiB", (uint64_t)80 << 30},
        {"0.5GiB", (uint64_t)1 << 29},
    };
    static const char *const units = "B kB MB GB TB KiB MiB GiB TiB";
    static const char *const refused[] = {"80",     "80 gb",  "80 GB", "80gb",   "80G",   "80Gi",
                                          "80GIB",  "1e3GiB", "GB",    "-80GB",  "+80GB", "8O GB",
                                          "80,5GB", "1.GB",   ".5GB",  "80GBps", "80KB"};
    char yaml[256];
    struct job_spec spec;
    struct err err = {0};
    char at[32];

    (void)state;
    for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++) {
        int length = snprintf(yaml, sizeof(yaml), NO_GPU "resources: {gpu: {memory: %s}}\n",
                              exact[i].memory);
        assert_int_equal(read_bytes(yaml, (size_t)length, &spec, &err, at), 0);
        assert_int_equal(spec.ask.gpu_memory, exact[i].bytes);
        spec_fini(&spec);
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        int length =
            snprintf(yaml, sizeof(yaml), NO_GPU "resources: {gpu: {memory: \"%s\"}}\n", refused[i]);
        int rc = read_bytes(yaml, (size_t)length, &spec, &err, at);
        if (rc != -ERR_INVALID_QUANTITY || strstr(err.text, units) == NULL)
            fail_msg("%s: %s", refused[i], err.text);
    }
    static const struct bad rows[] = {
        {NO_GPU "resources: {gpu: {memory: 80}}\n", ERR_INVALID_QUANTITY, "3:19", "KiB MiB GiB"},
        {NO_GPU "resources: {gpu: \"80 gb:2\"}\n", ERR_INVALID_QUANTITY, "3:13", "KiB MiB GiB"},
        {NO_GPU "resources: {gpu: \"H100:80G:2\"}\n", ERR_INVALID_QUANTITY, "3:13", "80G"},
        {HEAD "network: {max_rtt: 3}\n", ERR_INVALID_QUANTITY, "4:11", "us ms s m h d"},
        {HEAD "max_duration: 2 h\n", ERR_INVALID_QUANTITY, "4:1", "us ms s m h d"},
        {HEAD "max_duration: 2hours\n", ERR_INVALID_QUANTITY, "4:1", "us ms s m h d"},
        {HEAD "max_duration: 1h30m\n", ERR_INVALID_QUANTITY, "4:1", "us ms s m h d"},
    };
    CHECK_BAD(rows);
    /* Names of models that begin with digits stay names. */
    check_good(NO_GPU "resources: {gpu: \"3090 Ti:24GB:2\"}\n",
               strlen(NO_GPU "resources: {gpu: \"3090 Ti:24GB:2\"}\n"));
}

static void m09_contradictions_are_refused(void **state)
{
    static const struct bad rows[] = {
        {NO_GPU "resources: {gpu: 1, memory: 1GB, shm_size: 2GB}\n", ERR_CONTRADICTION, "3:34",
         "part of memory"},
        {NO_GPU "resources: {gpu: \"cpu,H100\"}\n", ERR_CONTRADICTION, "3:13", "mixed"},
        {HEAD "budget: {max_price: 3600, max_total: 0.50}\n", ERR_CONTRADICTION, "4:27",
         "one second"},
        {HEAD "network: {max_rtt: 0}\n", ERR_CONTRADICTION, "4:11", "leave it out"},
        {HEAD "network: {max_rtt: 0ms}\n", ERR_CONTRADICTION, "4:11", "leave it out"},
        {HEAD "network: {max_rtt: -3ms}\n", ERR_INVALID_QUANTITY, "4:11", "-3ms"},
        {HEAD "queue_timeout: 0s\n", ERR_CONTRADICTION, "4:1", "fail_fast"},
        {HEAD "max_duration: 0s\n", ERR_OUT_OF_RANGE, "4:1", "1s to 30d"},
        {HEAD "outputs: [/out, /out/a]\n", ERR_CONTRADICTION, "4:17", "overlaps"},
        {HEAD "files: [{source: a, path: /job/a}, {source: b, path: /job/a}]\n", ERR_CONTRADICTION,
         "4:48", "overlaps"},
    };

    (void)state;
    CHECK_BAD(rows);
}

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void m12_an_image_has_a_digest_or_is_sent(void **state)
{
    static const struct bad rows[] = {
        {HEAD "image: pytorch/pytorch:latest\n", ERR_IMAGE_DIGEST_REQUIRED, "4:1",
         "a tag may mean another image tomorrow"},
        {HEAD "image: pytorch\n", ERR_IMAGE_DIGEST_REQUIRED, "4:1", "podman image inspect"},
        {HEAD "image: a@sha256:ab\n", ERR_INVALID_DIGEST, "4:1", "64 lower-case hex digits"},
        {HEAD "image: a@sha256:" HEX64 "0\n", ERR_INVALID_DIGEST, "4:1", "64"},
        {HEAD "image: a@sha512:" HEX64 "\n", ERR_INVALID_DIGEST, "4:1", "sha256"},
        {HEAD "image: A@sha256:" HEX64 "\n", ERR_INVALID_NAME, "4:1", "lower case"},
        {HEAD "image: a:1@sha256:" HEX64 "\n", ERR_INVALID_NAME, "4:1", "without a tag"},
        {HEAD "image: '@sha256:" HEX64 "'\n", ERR_INVALID_NAME, "4:1", "before @"},
        {HEAD "image: a//b@sha256:" HEX64 "\n", ERR_INVALID_NAME, "4:1", "before @"},
        {HEAD "image: 'a b@sha256:" HEX64 "'\n", ERR_INVALID_NAME, "4:1", "before @"},
        {HEAD "image: 7\n", ERR_INVALID_TYPE, "4:1", "object"},
        {HEAD "image: {digest: a}\n", ERR_UNKNOWN_FIELD, "4:9", "digest"},
        {HEAD "image: {archive: a.tar, size: 0}\n", ERR_OUT_OF_RANGE, "4:25", "at least 1"},
        {HEAD "image: {archive: a.tar, size: 1}\n", ERR_FIELD_MISSING, "4:1", "required"},
    };

    (void)state;
    CHECK_BAD(rows);
}

static void m13_commands_are_few_and_whole(void **state)
{
    static const struct bad rows[] = {
        {NO_COMMAND "commands: []\n", ERR_INVALID_COMMAND, "3:1", "1 to 64"},
        {NO_COMMAND "commands: [\"\"]\n", ERR_INVALID_COMMAND, "3:12", "empty"},
        {NO_COMMAND "commands: [a, \" \\t\\n\"]\n", ERR_INVALID_COMMAND, "3:15", "empty"},
        {NO_COMMAND "commands: [\"a\\0b\"]\n", ERR_INVALID_ENCODING, "3:12", "NUL"},
        {NO_COMMAND "commands: [[python, train.py]]\n", ERR_INVALID_COMMAND, "3:12", "text"},
        {NO_COMMAND "commands: python train.py\n", ERR_INVALID_TYPE, "3:1", "list"},
        {NO_COMMAND, ERR_FIELD_MISSING, "1:1", "required"},
    };
    static const char json_head[] = "{\"version\":1,\"resources\":{\"gpu\":1},\"commands\":[\"";
    struct job_spec spec;
    struct err err = {0};
    json_t *value = NULL;
    struct buf text;

    (void)state;
    CHECK_BAD(rows);
    /* 128 KiB in one word: as a file it is too large, over the API the command is. */
    buf_init(&text, 0);
    buf_puts(&text, json_head);
    for (int i = 0; i < 8192; i++)
        buf_puts(&text, "0123456789abcdef");
    buf_puts(&text, "\"]}");
    assert_int_equal(yaml_read(text.data, text.length, &value, NULL, &err), -ERR_BODY_TOO_LARGE);
    assert_int_equal(json_read(text.data, text.length, &value, &err), 0);
    assert_int_equal(spec_from_json(value, &spec, &err), -ERR_INVALID_COMMAND);
    assert_string_equal(err.pointer, "/commands/0");
    json_decref(value);
    buf_fini(&text);
}

static void m14_variables_that_reach_us_are_refused(void **state)
{
    static const struct bad rows[] = {
        {HEAD "env: [LD_PRELOAD=/job/x.so]\n", ERR_ENV_NOT_ALLOWED, "4:7", "LD_PRELOAD"},
        {HEAD "env: {LD_AUDIT: /job/x.so}\n", ERR_ENV_NOT_ALLOWED, "4:7", "LD_AUDIT"},
        {HEAD "env: {A: 1, NVIDIA_VISIBLE_DEVICES: all}\n", ERR_ENV_NOT_ALLOWED, "4:13",
         "NVIDIA_VISIBLE_DEVICES"},
        {HEAD "env: [ROCR_VISIBLE_DEVICES=0]\n", ERR_ENV_NOT_ALLOWED, "4:7", "ROCR_"},
        {HEAD "env: [NODE_RANK=0]\n", ERR_ENV_NOT_ALLOWED, "4:7", "NODE_RANK"},
        {HEAD "env: [SHEAF_JOB_ID=x]\n", ERR_ENV_NOT_ALLOWED, "4:7", "SHEAF_JOB_ID"},
        {HEAD "env: {A=B: c}\n", ERR_ENV_NOT_ALLOWED, "4:7", "="},
        {HEAD "env: {\"\": c}\n", ERR_ENV_NOT_ALLOWED, "4:7", "not a variable name"},
        {HEAD "env: [=c]\n", ERR_ENV_NOT_ALLOWED, "4:7", "not a variable name"},
        {HEAD "env: [1A=c]\n", ERR_ENV_NOT_ALLOWED, "4:7", "not a variable name"},
        {HEAD "env: {\"A\\nB\": c}\n", ERR_ENV_NOT_ALLOWED, "4:7", "not a variable name"},
        {HEAD "env: [A=1, B=2, A=3]\n", ERR_CONTRADICTION, "4:17", "twice"},
        {HEAD "env: {A: 1, A: 3}\n", ERR_DUPLICATE_KEY, "4:13", "twice"},
    };

    (void)state;
    CHECK_BAD(rows);
    check_good(HEAD "env: {LDFLAGS: x, NVIDIA_TF32_OVERRIDE: 0}\n",
               strlen(HEAD "env: {LDFLAGS: x, NVIDIA_TF32_OVERRIDE: 0}\n"));
}

static void m15_paths_stay_in_job_and_out(void **state)
{
    static const char *const paths[] = {
        "/",
        "/var/run/docker.sock",
        "/dev/mem",
        "../x",
        "/job/../etc",
        "/job/./x",
        "/job//x",
        "/job/x/",
        "/jobs",
        "/job",
        "/proc/1/root",
        "/job/a\\nb",
        "job/x",
        "",
        "~/x",
        "/job/x/..",
        "/out/x",
    };
    static const struct bad rows[] = {
        {HEAD "outputs: [/]\n", ERR_MOUNT_NOT_ALLOWED, "4:11", "/out"},
        {HEAD "outputs: [/out/../etc]\n", ERR_MOUNT_NOT_ALLOWED, "4:11", "/out"},
        {HEAD "outputs: [/job/x]\n", ERR_MOUNT_NOT_ALLOWED, "4:11", "/out"},
        {HEAD "mounts: [/dev/mem]\n", ERR_MOUNT_NOT_ALLOWED, "4:1", "files brings data"},
        {HEAD "volumes: [/data]\n", ERR_UNKNOWN_FIELD, "4:1", "bring data with files"},
    };
    char yaml[256];
    struct job_spec spec;
    struct err err = {0};
    char at[32];

    (void)state;
    CHECK_BAD(rows);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int length =
            snprintf(yaml, sizeof(yaml), HEAD "files: [{source: s, path: \"%s\"}]\n", paths[i]);
        if (read_bytes(yaml, (size_t)length, &spec, &err, at) != -ERR_MOUNT_NOT_ALLOWED
            || strcmp(err.pointer, "/files/0/path") != 0)
            fail_msg("%s: %s %s", paths[i], err.pointer, err.text);
    }
}

static void m16_privileges_are_refused_by_name(void **state)
{
    static const struct bad rows[] = {
        {HEAD "privileged: true\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", "without privileges"},
        {HEAD "cap_add: [SYS_ADMIN]\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", "without privileges"},
        {HEAD "network: host\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", "host's network"},
        {HEAD "network: {host: true}\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:11", "host's network"},
        {HEAD "network_mode: host\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", ""},
        {HEAD "hostPID: true\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", ""},
        {HEAD "devices: [/dev/nvidia0]\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", "resources.gpu"},
        {NO_GPU "resources: {gpu: 1, devices: [/dev/mem]}\n", ERR_PRIVILEGE_NOT_ALLOWED, "3:21",
         "resources.gpu"},
        {HEAD "user: root\n", ERR_PRIVILEGE_NOT_ALLOWED, "4:1", ""},
    };

    (void)state;
    CHECK_BAD(rows);
}

static void m21_a_private_key_in_plain_text_is_refused(void **state)
{
    static const struct bad rows[] = {
        {HEAD "env: [\"KEY=-----BEGIN PRIVATE KEY-----\\nMIIE\"]\n", ERR_INLINE_SECRET, "4:7",
         "KEY"},
        {HEAD "env:\n  A: b\n  KEY: |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n    b3Bl\n",
         ERR_INLINE_SECRET, "6:3", "KEY"},
        {HEAD "env: {K: \"-----BEGIN CERTIFICATE-----x-----BEGIN RSA PRIVATE KEY-----\"}\n",
         ERR_INLINE_SECRET, "4:7", "K"},
        {HEAD "env: {K: \"-----BEGIN PGP PRIVATE KEY BLOCK-----\"}\n", ERR_INLINE_SECRET, "4:7",
         "K"},
        {HEAD "env: {K: \"AGE-SECRET-KEY-1QQQ\"}\n", ERR_INLINE_SECRET, "4:7", "K"},
        {NO_COMMAND "commands:\n- |\n  cat > k <<E\n  -----BEGIN EC PRIVATE KEY-----\n  E\n",
         ERR_INLINE_SECRET, "4:3", "command"},
    };
    static const char good[] =
        HEAD "env: {PUB: \"-----BEGIN PUBLIC KEY-----\", C: \"-----BEGIN CERTIFICATE-----\"}\n";
    struct job_spec spec;
    struct err err = {0};
    char at[32];

    (void)state;
    CHECK_BAD(rows);
    check_good(good, strlen(good));
    /* What is refused is not repeated: errors are logged. */
    assert_int_equal(read_bytes(rows[0].yaml, strlen(rows[0].yaml), &spec, &err, at),
                     -ERR_INLINE_SECRET);
    assert_null(strstr(err.text, "MIIE"));
    assert_non_null(strstr(err_info(ERR_INLINE_SECRET)->hint, "providers can read it"));
}

/* The same text in UTF-16. Returns its bytes. */
static size_t widen(const char *text, bool big_endian, bool mark, char out[512])
{
    size_t at = 0;

    if (mark) {
        out[at++] = big_endian ? '\xfe' : '\xff';
        out[at++] = big_endian ? '\xff' : '\xfe';
    }
    for (; *text != '\0'; text++) {
        out[at++] = big_endian ? '\0' : *text;
        out[at++] = big_endian ? *text : '\0';
    }
    return at;
}

static void m22_utf8_with_any_line_end_is_read_and_utf16_is_not(void **state)
{
    static const char bom[] = "\xef\xbb\xbf" HEAD;
    static const char crlf[] = "version: 1\r\nresources: {gpu: 1}\r\ncommands:\r\n- |\r\n  a\r\n"
                               "  b\r\n";
    static const struct bad rows[] = {
        {HEAD "name: \xff\xfe\n", ERR_INVALID_ENCODING, "4:7", "UTF-8"},
        {HEAD "name: a\x01\n", ERR_INVALID_ENCODING, "4:8", "control"},
    };
    char wide[512];
    struct job_spec spec;
    struct err err = {0};
    char at[32];

    (void)state;
    check_good(bom, sizeof(bom) - 1);
    assert_int_equal(read_bytes(crlf, sizeof(crlf) - 1, &spec, &err, at), 0);
    assert_string_equal(spec.commands.items[0], "a\nb\n");
    spec_fini(&spec);
    for (int form = 0; form < 4; form++) {
        size_t length = widen(HEAD, (form & 1) != 0, (form & 2) != 0, wide);
        assert_int_equal(read_bytes(wide, length, &spec, &err, at), -ERR_INVALID_ENCODING);
        assert_non_null(strstr(err.text, "save it as UTF-8"));
    }
    CHECK_BAD(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(m01_a_file_has_one_document),
        cmocka_unit_test(m02_bad_syntax_is_named_by_line_and_column),
        cmocka_unit_test(m03_anchors_aliases_merges_and_tags_are_refused),
        cmocka_unit_test(m04_deep_nesting_is_refused_within_10_ms),
        cmocka_unit_test(m05_duplicate_keys_and_ambiguous_scalars_are_refused),
        cmocka_unit_test(m06_versions_are_named),
        cmocka_unit_test(m07_counts_have_bounds),
        cmocka_unit_test(m08_a_quantity_is_a_number_and_its_unit),
        cmocka_unit_test(m09_contradictions_are_refused),
        cmocka_unit_test(m12_an_image_has_a_digest_or_is_sent),
        cmocka_unit_test(m13_commands_are_few_and_whole),
        cmocka_unit_test(m14_variables_that_reach_us_are_refused),
        cmocka_unit_test(m15_paths_stay_in_job_and_out),
        cmocka_unit_test(m16_privileges_are_refused_by_name),
        cmocka_unit_test(m21_a_private_key_in_plain_text_is_refused),
        cmocka_unit_test(m22_utf8_with_any_line_end_is_read_and_utf16_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
