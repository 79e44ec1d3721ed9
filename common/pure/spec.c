#include "common/pure/spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/buf.h"
#include "common/pure/mem.h"
#include "common/pure/units.h"
#include "common/pure/utf8.h"

#define SECOND_US        ((uint64_t)1000000)
#define MAX_DURATION_US  (SECOND_US * 30 * 86400) /* prices and keys do not live longer */
#define MAX_STOP_US      (3600 * SECOND_US)       /* a node must drain within its notice */
#define MAX_QUEUE_US     (SECOND_US * 365 * 86400)
#define MAX_RTT_US       (10 * SECOND_US) /* farther than any link we place on */
#define MAX_ATTEMPTS     20
#define MAX_PRIORITY     100
#define MAX_CPU_MILLI    4096000u /* 4096 cores */
#define MAX_MEMORY_BYTES ((uint64_t)1 << 50)
#define MAX_TEXT_BYTES   32768 /* one variable or command; execve takes 128 KiB for one */

static const char *const class_names[] = {
    [FAIL_NONE] = "none",
    [FAIL_USER] = "user",
    [FAIL_CAPACITY] = "no-capacity",
    [FAIL_INTERRUPTION] = "interruption",
    [FAIL_HARDWARE] = "hardware",
    [FAIL_PROVIDER] = "provider",
    [FAIL_UNREACHABLE] = "unreachable",
    [FAIL_PLATFORM] = "platform",
};

const char *fail_class_name(enum fail_class class)
{
    return (unsigned)class < FAIL_CLASS_COUNT ? class_names[class] : class_names[FAIL_NONE];
}

enum fail_class fail_class_parse(const char *name)
{
    for (int i = FAIL_NONE + 1; i < FAIL_CLASS_COUNT; i++) {
        if (strcmp(class_names[i], name) == 0)
            return (enum fail_class)i;
    }
    return FAIL_NONE;
}

const char *launch_name(enum launch launch)
{
    static const char *const names[] = {
        [LAUNCH_NODE] = "node",
        [LAUNCH_DEVICE] = "device",
        [LAUNCH_NONE] = "none",
    };

    return (unsigned)launch <= LAUNCH_NONE ? names[launch] : names[LAUNCH_NODE];
}

void spec_texts_add(struct spec_texts *texts, const char *text)
{
    texts->items = mem_resize(texts->items, texts->count + 1, sizeof(*texts->items));
    texts->items[texts->count++] = mem_strdup(text);
}

void spec_texts_addf(struct spec_texts *texts, const char *format, ...)
{
    struct buf text;
    va_list args;

    buf_init(&text, 0);
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    spec_texts_add(texts, text.data != NULL ? text.data : "");
    buf_fini(&text);
}

void spec_texts_fini(struct spec_texts *texts)
{
    for (uint32_t i = 0; i < texts->count; i++)
        free(texts->items[i]);
    free(texts->items);
    *texts = (struct spec_texts){0};
}

void spec_fini(struct job_spec *spec)
{
    if (spec == NULL)
        return;
    spec_texts_fini(&spec->env);
    spec_texts_fini(&spec->commands);
    spec_texts_fini(&spec->outputs);
    free(spec->files);
    spec->files = NULL;
    spec->file_count = 0;
}

void spec_init(struct job_spec *spec)
{
    *spec = (struct job_spec){
        .name = "job",
        .currency = "USD",
        .launch = LAUNCH_NODE,
        .ask =
            {
                .nodes = 1,
                .gpus_per_node = 1,
                .priority = 50,
                .max_duration_us = 3600 * SECOND_US,
                .stop_duration_us = 30 * SECOND_US,
                .max_attempts = 3,
                .retry_on = 1u << FAIL_CAPACITY | 1u << FAIL_INTERRUPTION | 1u << FAIL_HARDWARE
                            | 1u << FAIL_UNREACHABLE,
            },
    };
}

bool name_is_valid(const char *name)
{
    size_t length = strnlen(name, SPEC_NAME_TEXT);

    if (length == 0 || length >= SPEC_NAME_TEXT || name[0] < 'a' || name[0] > 'z'
        || name[length - 1] == '-')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

uint32_t spec_world_size(const struct job_spec *spec)
{
    return spec->launch == LAUNCH_DEVICE ? spec->ask.nodes * spec->ask.gpus_per_node
                                         : spec->ask.nodes;
}

struct bound {
    const char *pointer;
    uint64_t value;
    uint64_t low;
    uint64_t high;
    const char *wanted;
};

#define BOUND_COUNT 18

struct bounds {
    struct bound row[BOUND_COUNT];
};

static struct bounds bounds_of(const struct job_ask *ask)
{
    return (struct bounds){{
        {"/nodes", ask->nodes, 1, SPEC_MAX_NODES, "1 to 256 nodes"},
        {"/resources/gpu", ask->gpus_per_node, 1, SPEC_MAX_GPUS_PER_NODE, "1 to 16 per node"},
        {"/resources/gpu/memory", ask->gpu_memory, 0, MAX_MEMORY_BYTES, "1 PiB at most"},
        {"/resources/gpu/name", ask->model_count, 0, SPEC_MAX_MODELS, "8 names at most"},
        {"/resources/cpu", ask->cpu_milli, 0, MAX_CPU_MILLI, "4096 cores at most"},
        {"/resources/memory", ask->memory, 0, MAX_MEMORY_BYTES, "1 PiB at most"},
        {"/resources/disk", ask->disk, 0, MAX_MEMORY_BYTES, "1 PiB at most"},
        {"/resources/shm_size", ask->shm, 0, MAX_MEMORY_BYTES, "1 PiB at most"},
        {"/network/max_rtt", ask->max_rtt_us, 0, MAX_RTT_US, "10s at most"},
        {"/budget/max_price", (uint64_t)ask->max_price, 0, (uint64_t)MICRO_MAX, "0 to 1000000000"},
        {"/budget/max_total", (uint64_t)ask->max_total, 0, (uint64_t)MICRO_MAX, "0 to 1000000000"},
        {"/placement/countries", ask->country_count, 0, SPEC_MAX_COUNTRIES, "16 at most"},
        {"/placement/exclude_nodes", ask->excluded_count, 0, SPEC_MAX_EXCLUDED, "8 at most"},
        {"/priority", ask->priority, 0, MAX_PRIORITY, "0 to 100"},
        {"/max_duration", ask->max_duration_us, SECOND_US, MAX_DURATION_US, "1s to 30d"},
        {"/stop_duration", ask->stop_duration_us, 0, MAX_STOP_US, "1h at most"},
        {"/queue_timeout", ask->queue_timeout_us, 0, MAX_QUEUE_US, "365d at most"},
        {"/retry/max_attempts", ask->max_attempts, 1, MAX_ATTEMPTS, "1 to 20"},
    }};
}

const char *spec_bound_text(const char *pointer)
{
    static const struct job_ask any;
    struct bounds bounds = bounds_of(&any);

    /* The count of the long form is the gpu of the short one. */
    if (strcmp(pointer, "/resources/gpu/count") == 0)
        pointer = "/resources/gpu";
    for (size_t i = 0; i < BOUND_COUNT; i++) {
        if (strcmp(bounds.row[i].pointer, pointer) == 0)
            return bounds.row[i].wanted;
    }
    return NULL;
}

static int check_bounds(const struct job_ask *ask, struct err *err)
{
    struct bounds bounds = bounds_of(ask);

    for (size_t i = 0; i < BOUND_COUNT; i++) {
        const struct bound *bound = &bounds.row[i];
        if (bound->value < bound->low || bound->value > bound->high)
            return err_set_at(err, ERR_OUT_OF_RANGE, bound->pointer, "%s", bound->wanted);
    }
    if (ask->retry_on >> FAIL_CLASS_COUNT != 0 || (ask->retry_on & 1u << FAIL_NONE) != 0)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/retry/on_events", "unknown failure class");
    return 0;
}

static int check_ask(const struct job_ask *ask, struct err *err)
{
    char pointer[64];
    int rc = check_bounds(ask, err);

    if (rc != 0)
        return rc;
    for (uint32_t i = 0; i < ask->country_count; i++) {
        const char *country = ask->countries[i];
        if (country[0] < 'A' || country[0] > 'Z' || country[1] < 'A' || country[1] > 'Z'
            || country[2] != '\0') {
            snprintf(pointer, sizeof(pointer), "/placement/countries/%u", i);
            return err_set_at(err, ERR_INVALID_NAME, pointer,
                              "two letters of ISO 3166 are wanted, e.g. DE");
        }
    }
    for (uint32_t i = 0; i < ask->excluded_count; i++) {
        if (!name_is_valid(ask->excluded[i])) {
            snprintf(pointer, sizeof(pointer), "/placement/exclude_nodes/%u", i);
            return err_set_at(err, ERR_INVALID_NAME, pointer, "not a node name");
        }
    }
    for (uint32_t i = 0; i < ask->model_count; i++) {
        if (ask->models[i][0] == '\0')
            return err_set_at(err, ERR_INVALID_NAME, "/resources/gpu/name", "an empty name");
        if (ask->cpu_device && strcmp(ask->models[i], "cpu") != 0)
            return err_set_at(err, ERR_CONTRADICTION, "/resources/gpu",
                              "cpu and GPU models cannot be mixed");
    }
    if (ask->shm != 0 && ask->memory != 0 && ask->shm > ask->memory)
        return err_set_at(err, ERR_CONTRADICTION, "/resources/shm_size",
                          "shm_size is part of memory and larger than it");
    if (ask->max_price != 0 && ask->max_total != 0 && ask->max_total < ask->max_price / 3600)
        return err_set_at(err, ERR_CONTRADICTION, "/budget/max_total",
                          "does not pay one second at max_price");
    return 0;
}

/* Set by us for each rank, or able to load code into what we start. */
static bool env_is_forbidden(const char *name, size_t length)
{
    static const char *const names[] = {
        "NVIDIA_VISIBLE_DEVICES",
        "CUDA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "NNODES",
        "NODE_RANK",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
    };
    static const char *const prefixes[] = {"LD_", "SHEAF_", "POCL_"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/* POSIX XBD 8.1, both cases. */
static bool env_name_is_valid(const char *name, size_t length)
{
    if (length == 0 || (name[0] >= '0' && name[0] <= '9'))
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || c == '_'))
            return false;
    }
    return true;
}

static bool text_is_sane(const char *text)
{
    size_t length = strnlen(text, MAX_TEXT_BYTES + 1);

    return length <= MAX_TEXT_BYTES && utf8_is_valid(text, length);
}

bool spec_env_is_allowed(const char *item)
{
    size_t length = strcspn(item, "=");

    return item[length] == '=' && env_name_is_valid(item, length) && !env_is_forbidden(item, length)
           && text_is_sane(item);
}

/* The first line of a key in PEM (RFC 7468) or OpenPGP (RFC 9580), or an age identity. */
static bool holds_private_key(const char *text)
{
    static const char begin[] = "-----BEGIN ";

    for (const char *at = text; (at = strstr(at, begin)) != NULL;) {
        at += sizeof(begin) - 1;
        const char *end = strstr(at, "-----");
        const char *private = strstr(at, "PRIVATE KEY");
        if (end != NULL && private != NULL && private < end)
            return true;
    }
    return strstr(text, "AGE-SECRET-KEY-1") != NULL;
}

static int check_env(const struct spec_texts *env, struct err *err)
{
    char pointer[64];

    if (env->count > SPEC_MAX_ENV)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/env", "%d variables at most", SPEC_MAX_ENV);
    for (uint32_t i = 0; i < env->count; i++) {
        const char *text = env->items[i];
        size_t length = strcspn(text, "=");
        snprintf(pointer, sizeof(pointer), "/env/%u", i);
        if (text[length] != '=')
            return err_set_at(err, ERR_INVALID_TYPE, pointer, "NAME=value is wanted");
        if (!env_name_is_valid(text, length))
            return err_set_at(err, ERR_ENV_NOT_ALLOWED, pointer,
                              "not a variable name: letters, digits and _ are");
        if (env_is_forbidden(text, length))
            return err_set_at(err, ERR_ENV_NOT_ALLOWED, pointer, "%.*s is set by the platform",
                              (int)(length < 64 ? length : 64), text);
        if (!text_is_sane(text))
            return err_set_at(err, ERR_OUT_OF_RANGE, pointer, "%d bytes of UTF-8 at most",
                              MAX_TEXT_BYTES);
        if (holds_private_key(text))
            return err_set_at(err, ERR_INLINE_SECRET, pointer, "the value of %.*s is one",
                              (int)(length < 64 ? length : 64), text);
        for (uint32_t k = 0; k < i; k++) {
            if (strncmp(env->items[k], text, length + 1) == 0)
                return err_set_at(err, ERR_CONTRADICTION, pointer, "%.*s is given twice",
                                  (int)(length < 64 ? length : 64), text);
        }
    }
    return 0;
}

/* "/out" or "/out/a/b": no empty, "." or ".." part, no trailing slash, no control characters. */
static bool path_is_under(const char *path, const char *root)
{
    size_t root_length = strlen(root);
    size_t length = strnlen(path, SPEC_PATH_TEXT);

    if (length >= SPEC_PATH_TEXT || strncmp(path, root, root_length) != 0
        || !utf8_is_valid(path, length))
        return false;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)path[i] < ' ' || path[i] == 0x7f)
            return false;
    }
    for (const char *part = path + root_length; *part != '\0';) {
        if (*part != '/')
            return false;
        size_t size = strcspn(++part, "/");
        if (size == 0 || (size == 1 && part[0] == '.')
            || (size == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += size;
    }
    return true;
}

/* True when one is the other or holds it. */
static bool paths_overlap(const char *a, const char *b)
{
    size_t a_length = strlen(a);
    size_t b_length = strlen(b);
    size_t common = a_length < b_length ? a_length : b_length;

    if (strncmp(a, b, common) != 0)
        return false;
    return a_length == b_length || (a_length < b_length ? b : a)[common] == '/';
}

static int check_outputs(const struct spec_texts *outputs, struct err *err)
{
    char pointer[64];

    if (outputs->count > SPEC_MAX_OUTPUTS)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/outputs", "%d at most", SPEC_MAX_OUTPUTS);
    for (uint32_t i = 0; i < outputs->count; i++) {
        snprintf(pointer, sizeof(pointer), "/outputs/%u", i);
        if (!path_is_under(outputs->items[i], "/out"))
            return err_set_at(err, ERR_MOUNT_NOT_ALLOWED, pointer, "/out or a folder under it");
        for (uint32_t k = 0; k < i; k++) {
            if (paths_overlap(outputs->items[i], outputs->items[k]))
                return err_set_at(err, ERR_CONTRADICTION, pointer, "overlaps /outputs/%u", k);
        }
    }
    return 0;
}

static int check_files(const struct job_spec *spec, struct err *err)
{
    char pointer[64];

    if (spec->file_count > SPEC_MAX_FILES)
        return err_set_at(err, ERR_OUT_OF_RANGE, "/files", "%d at most", SPEC_MAX_FILES);
    for (uint32_t i = 0; i < spec->file_count; i++) {
        const char *path = spec->files[i].path;
        snprintf(pointer, sizeof(pointer), "/files/%u/path", i);
        if (!path_is_under(path, "/job") || strcmp(path, "/job") == 0)
            return err_set_at(err, ERR_MOUNT_NOT_ALLOWED, pointer, "a path under /job is wanted");
        for (uint32_t k = 0; k < i; k++) {
            if (paths_overlap(path, spec->files[k].path))
                return err_set_at(err, ERR_CONTRADICTION, pointer, "overlaps /files/%u", k);
        }
    }
    return 0;
}

static int check_commands(const struct job_spec *spec, struct err *err)
{
    const struct spec_texts *commands = &spec->commands;
    char pointer[64];
    size_t total = 0;

    if ((commands->count == 0 && !spec->ask.image) || commands->count > SPEC_MAX_COMMANDS)
        return err_set_at(err, ERR_INVALID_COMMAND, "/commands", "1 to %d commands",
                          SPEC_MAX_COMMANDS);
    for (uint32_t i = 0; i < commands->count; i++) {
        const char *text = commands->items[i];
        snprintf(pointer, sizeof(pointer), "/commands/%u", i);
        if (text[strspn(text, " \t\r\n")] == '\0')
            return err_set_at(err, ERR_INVALID_COMMAND, pointer, "empty");
        if (!text_is_sane(text))
            return err_set_at(err, ERR_INVALID_COMMAND, pointer, "%d bytes of UTF-8 at most",
                              MAX_TEXT_BYTES);
        if (holds_private_key(text))
            return err_set_at(err, ERR_INLINE_SECRET, pointer, "this command holds one");
        total += strlen(text);
    }
    if (total > SPEC_MAX_TEXT_BYTES)
        return err_set_at(err, ERR_INVALID_COMMAND, "/commands", "%d bytes together at most",
                          SPEC_MAX_TEXT_BYTES);
    return 0;
}

int spec_check_packed(const struct job_spec *spec, struct err *err)
{
    char pointer[64];

    for (uint32_t i = 0; i < spec->file_count; i++) {
        if (spec->files[i].size == 0) {
            snprintf(pointer, sizeof(pointer), "/files/%u/sha256", i);
            return err_set_at(err, ERR_FIELD_MISSING, pointer,
                              "upload the archive first, then name its sha256 and size");
        }
    }
    if (spec->ask.image && spec->image.archive && spec->image.size == 0)
        return err_set_at(err, ERR_FIELD_MISSING, "/image/sha256",
                          "upload the archive first, then name its sha256 and size");
    return 0;
}

uint32_t spec_content_count(const struct job_spec *spec)
{
    return spec->file_count + (spec->ask.image && spec->image.archive);
}

const uint8_t *spec_content(const struct job_spec *spec, uint32_t index)
{
    return index < spec->file_count ? spec->files[index].sha256 : spec->image.sha256;
}

uint64_t spec_content_size(const struct job_spec *spec, uint32_t index)
{
    return index < spec->file_count ? spec->files[index].size : spec->image.size;
}

int spec_check(const struct job_spec *spec, struct err *err)
{
    size_t currency = strnlen(spec->currency, SPEC_CURRENCY_TEXT);
    int rc;

    if (!name_is_valid(spec->name))
        return err_set_at(err, ERR_INVALID_NAME, "/name", "%.64s", spec->name);
    if (spec->project[0] != '\0' && !name_is_valid(spec->project))
        return err_set_at(err, ERR_INVALID_NAME, "/project", "%.64s", spec->project);
    if (currency < 3 || currency >= SPEC_CURRENCY_TEXT
        || strspn(spec->currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != currency)
        return err_set_at(err, ERR_INVALID_NAME, "/budget/currency",
                          "3 to 7 capital letters are wanted, e.g. USD");
    rc = check_ask(&spec->ask, err);
    if (rc == 0)
        rc = check_commands(spec, err);
    if (rc == 0)
        rc = check_env(&spec->env, err);
    if (rc == 0)
        rc = check_files(spec, err);
    if (rc == 0)
        rc = check_outputs(&spec->outputs, err);
    return rc;
}
