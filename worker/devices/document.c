#include "worker/devices/document.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Texts come from drivers: whatever is no printable ASCII becomes '?', so that JSON and logs hold.
 */
static json_t *text_of(const char *text)
{
    char clean[256];
    size_t length = strnlen(text, sizeof(clean) - 1);

    memcpy(clean, text, length);
    for (size_t i = 0; i < length; i++) {
        if (clean[i] < ' ' || clean[i] > '~')
            clean[i] = '?';
    }
    clean[length] = '\0';
    return json_string(clean);
}

static json_t *hex64(uint64_t value)
{
    char text[17];

    snprintf(text, sizeof(text), "%016llx", (unsigned long long)value);
    return json_string(text);
}

static void set(json_t *object, const char *key, json_t *value)
{
    BUG_ON(json_object_set_new(object, key, value) != 0);
}

static void set_number(json_t *object, const char *key, uint32_t value)
{
    set(object, key, json_integer(value));
}

static int read_number(const json_t *object, const char *key, uint32_t *ret_value, struct err *err)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value))
        return err_set_at(err, ERR_INVALID_TYPE, key, "%s: want an integer", key);
    if (json_integer_value(value) < 0 || json_integer_value(value) > UINT32_MAX)
        return err_set_at(err, ERR_OUT_OF_RANGE, key, "%s: out of range", key);
    *ret_value = (uint32_t)json_integer_value(value);
    return 0;
}

static int read_text(const json_t *object, const char *key, char *out, size_t size, struct err *err)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (text == NULL)
        return err_set_at(err, ERR_INVALID_TYPE, key, "%s: want a text", key);
    snprintf(out, size, "%s", text);
    return 0;
}

static int read_hex64(const json_t *value, const char *key, uint64_t *ret_value, struct err *err)
{
    const char *text = json_string_value(value);
    uint64_t number = 0;

    if (text == NULL || strlen(text) != 16)
        return err_set_at(err, ERR_INVALID_TYPE, key, "%s: want 16 hex digits", key);
    for (size_t i = 0; i < 16; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *at = strchr(digits, text[i]);
        if (at == NULL)
            return err_set_at(err, ERR_INVALID_TYPE, key, "%s: want 16 hex digits", key);
        number = number << 4 | (uint64_t)(at - digits);
    }
    *ret_value = number;
    return 0;
}

static json_t *read_array(const json_t *object, const char *key, size_t limit, struct err *err)
{
    json_t *array = json_object_get(object, key);

    if (!json_is_array(array)) {
        (void)err_set_at(err, ERR_INVALID_TYPE, key, "%s: want an array", key);
        return NULL;
    }
    if (json_array_size(array) > limit) {
        (void)err_set_at(err, ERR_OUT_OF_RANGE, key, "%s: more than %zu items", key, limit);
        return NULL;
    }
    return array;
}

static json_t *device_out(const struct device_info *device)
{
    json_t *object = json_object();
    json_t *nodes = json_array();

    set_number(object, "ordinal", device->ordinal);
    set(object, "uuid", text_of(device->uuid));
    set(object, "class", json_string(device->gpu ? "gpu" : "cpu"));
    set(object, "vendor", text_of(device->vendor));
    set(object, "model", text_of(device->model));
    set(object, "driver", text_of(device->driver));
    set(object, "pci", text_of(device->pci));
    set_number(object, "memory_mib", device->memory_mib);
    for (uint32_t i = 0; i < device->node_count; i++)
        BUG_ON(json_array_append_new(nodes, text_of(device->nodes[i])) != 0);
    set(object, "nodes", nodes);
    set_number(object, "opencl_platform", device->opencl_platform);
    set_number(object, "opencl_device", device->opencl_device);
    return object;
}

static int device_in(const json_t *object, struct device_info *device, struct err *err)
{
    char class[8] = "";
    const json_t *nodes;
    int rc;

    if ((rc = read_number(object, "ordinal", &device->ordinal, err)) != 0
        || (rc = read_text(object, "uuid", device->uuid, sizeof(device->uuid), err)) != 0
        || (rc = read_text(object, "class", class, sizeof(class), err)) != 0
        || (rc = read_text(object, "vendor", device->vendor, sizeof(device->vendor), err)) != 0
        || (rc = read_text(object, "model", device->model, sizeof(device->model), err)) != 0
        || (rc = read_text(object, "driver", device->driver, sizeof(device->driver), err)) != 0
        || (rc = read_text(object, "pci", device->pci, sizeof(device->pci), err)) != 0
        || (rc = read_number(object, "memory_mib", &device->memory_mib, err)) != 0
        || (rc = read_number(object, "opencl_platform", &device->opencl_platform, err)) != 0
        || (rc = read_number(object, "opencl_device", &device->opencl_device, err)) != 0)
        return rc;
    device->gpu = strcmp(class, "gpu") == 0;
    if (!device->gpu && strcmp(class, "cpu") != 0)
        return err_set_at(err, ERR_OUT_OF_RANGE, "class", "class: neither gpu nor cpu");
    nodes = read_array(object, "nodes", COUNT(device->nodes), err);
    if (nodes == NULL)
        return -ERR_INVALID_TYPE;
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const char *node = json_string_value(json_array_get(nodes, i));
        /* They are bound into sandboxes: nothing but a path below /dev may get in here. */
        if (node == NULL || strncmp(node, "/dev/", 5) != 0 || strstr(node, "..") != NULL
            || strlen(node) >= sizeof(device->nodes[0]))
            return err_set_at(err, ERR_OUT_OF_RANGE, "nodes", "nodes: not a device node");
        snprintf(device->nodes[device->node_count++], sizeof(device->nodes[0]), "%s", node);
    }
    return 0;
}

json_t *document_from_host(const struct host_info *host)
{
    json_t *document = json_object();
    json_t *warnings = json_array();
    json_t *devices = json_array();

    set_number(document, "cpu_milli", host->cpu_milli);
    set_number(document, "memory_mib", host->memory_mib);
    set_number(document, "numa_nodes", host->numa_nodes);
    set(document, "cpu_model", text_of(host->cpu_model));
    for (uint32_t i = 0; i < host->warning_count; i++)
        BUG_ON(json_array_append_new(warnings, text_of(host->warning[i])) != 0);
    set(document, "warnings", warnings);
    for (uint32_t i = 0; i < host->device_count; i++)
        BUG_ON(json_array_append_new(devices, device_out(&host->device[i])) != 0);
    set(document, "devices", devices);
    return document;
}

int document_to_host(const json_t *document, struct host_info *ret_host, struct err *err)
{
    struct host_info host = {0};
    const json_t *warnings = read_array(document, "warnings", COUNT(host.warning), err);
    const json_t *devices = read_array(document, "devices", DEVICES_MAX, err);
    int rc;

    if (warnings == NULL || devices == NULL)
        return -ERR_INVALID_TYPE;
    if ((rc = read_number(document, "cpu_milli", &host.cpu_milli, err)) != 0
        || (rc = read_number(document, "memory_mib", &host.memory_mib, err)) != 0
        || (rc = read_number(document, "numa_nodes", &host.numa_nodes, err)) != 0
        || (rc = read_text(document, "cpu_model", host.cpu_model, sizeof(host.cpu_model), err))
               != 0)
        return rc;
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const char *text = json_string_value(json_array_get(warnings, i));
        if (text == NULL)
            return err_set_at(err, ERR_INVALID_TYPE, "warnings", "warnings: want texts");
        snprintf(host.warning[host.warning_count++], sizeof(host.warning[0]), "%s", text);
    }
    for (size_t i = 0; i < json_array_size(devices); i++) {
        rc = device_in(json_array_get(devices, i), &host.device[host.device_count++], err);
        if (rc != 0)
            return rc;
    }
    *ret_host = host;
    return 0;
}

json_t *document_from_ask(const struct device_info *device, uint64_t seed)
{
    json_t *document = json_object();

    set(document, "uuid", text_of(device->uuid));
    set_number(document, "ordinal", device->ordinal);
    set_number(document, "memory_mib", device->memory_mib);
    set(document, "seed", hex64(seed));
    return document;
}

int document_to_ask(const json_t *document, struct device_info *ret_device, uint64_t *ret_seed,
                    struct err *err)
{
    struct device_info device = {0};
    uint64_t seed = 0;
    int rc;

    if ((rc = read_text(document, "uuid", device.uuid, sizeof(device.uuid), err)) != 0
        || (rc = read_number(document, "ordinal", &device.ordinal, err)) != 0
        || (rc = read_number(document, "memory_mib", &device.memory_mib, err)) != 0
        || (rc = read_hex64(json_object_get(document, "seed"), "seed", &seed, err)) != 0)
        return rc;
    *ret_device = device;
    *ret_seed = seed;
    return 0;
}

json_t *document_from_selftest(const struct selftest_result *result)
{
    json_t *document = json_object();
    json_t *sums = json_array();

    set_number(document, "device", result->device);
    set(document, "seed", hex64(result->seed));
    set_number(document, "memory_mib", result->memory_mib);
    for (size_t i = 0; i < COUNT(result->chunk_sum); i++)
        BUG_ON(json_array_append_new(sums, hex64(result->chunk_sum[i])) != 0);
    set(document, "chunk_sums", sums);
    set_number(document, "matmul_gflops", result->matmul_gflops);
    set(document, "matmul_sum", hex64(result->matmul_sum));
    set_number(document, "copy_mib_s", result->copy_mib_s);
    set(document, "failure", text_of(result->failure));
    return document;
}

int document_to_selftest(const json_t *document, struct selftest_result *ret_result,
                         struct err *err)
{
    struct selftest_result result = {0};
    const json_t *sums = read_array(document, "chunk_sums", COUNT(result.chunk_sum), err);
    int rc;

    if (sums == NULL)
        return -ERR_INVALID_TYPE;
    if (json_array_size(sums) != COUNT(result.chunk_sum))
        return err_set_at(err, ERR_OUT_OF_RANGE, "chunk_sums", "chunk_sums: too few");
    if ((rc = read_number(document, "device", &result.device, err)) != 0
        || (rc = read_hex64(json_object_get(document, "seed"), "seed", &result.seed, err)) != 0
        || (rc = read_number(document, "memory_mib", &result.memory_mib, err)) != 0
        || (rc = read_number(document, "matmul_gflops", &result.matmul_gflops, err)) != 0
        || (rc = read_hex64(json_object_get(document, "matmul_sum"), "matmul_sum",
                            &result.matmul_sum, err))
               != 0
        || (rc = read_number(document, "copy_mib_s", &result.copy_mib_s, err)) != 0
        || (rc = read_text(document, "failure", result.failure, sizeof(result.failure), err)) != 0)
        return rc;
    for (size_t i = 0; i < COUNT(result.chunk_sum); i++) {
        rc = read_hex64(json_array_get(sums, i), "chunk_sums", &result.chunk_sum[i], err);
        if (rc != 0)
            return rc;
    }
    *ret_result = result;
    return 0;
}

json_t *document_from_pids(const int *pids, uint32_t count)
{
    json_t *document = json_object();
    json_t *array = json_array();

    for (uint32_t i = 0; i < count && i < DOCUMENT_MAX_PIDS; i++)
        BUG_ON(json_array_append_new(array, json_integer(pids[i])) != 0);
    set(document, "pids", array);
    return document;
}

int document_to_pids(const json_t *document, int *ret_pids, uint32_t *ret_count, struct err *err)
{
    const json_t *array = read_array(document, "pids", DOCUMENT_MAX_PIDS, err);

    if (array == NULL)
        return -ERR_INVALID_TYPE;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *pid = json_array_get(array, i);
        if (!json_is_integer(pid) || json_integer_value(pid) < 1
            || json_integer_value(pid) > INT32_MAX)
            return err_set_at(err, ERR_OUT_OF_RANGE, "pids", "pids: not a process id");
        ret_pids[i] = (int)json_integer_value(pid);
    }
    *ret_count = (uint32_t)json_array_size(array);
    return 0;
}

json_t *document_from_usage(const struct device_usage *usage, uint32_t count)
{
    json_t *document = json_object();
    json_t *array = json_array();

    for (uint32_t i = 0; i < count; i++) {
        json_t *object = json_object();
        set_number(object, "device", usage[i].device);
        set(object, "uuid", text_of(usage[i].uuid));
        set_number(object, "memory_used_mib", usage[i].memory_used_mib);
        set_number(object, "foreign_mib", usage[i].foreign_mib);
        set_number(object, "utilisation_pct", usage[i].utilisation_pct);
        set_number(object, "temperature_c", usage[i].temperature_c);
        set_number(object, "power_w", usage[i].power_w);
        BUG_ON(json_array_append_new(array, object) != 0);
    }
    set(document, "devices", array);
    return document;
}

static int usage_in(const json_t *object, struct device_usage *usage, struct err *err)
{
    int rc;

    if ((rc = read_number(object, "device", &usage->device, err)) != 0
        || (rc = read_text(object, "uuid", usage->uuid, sizeof(usage->uuid), err)) != 0
        || (rc = read_number(object, "memory_used_mib", &usage->memory_used_mib, err)) != 0
        || (rc = read_number(object, "foreign_mib", &usage->foreign_mib, err)) != 0
        || (rc = read_number(object, "utilisation_pct", &usage->utilisation_pct, err)) != 0
        || (rc = read_number(object, "temperature_c", &usage->temperature_c, err)) != 0
        || (rc = read_number(object, "power_w", &usage->power_w, err)) != 0)
        return rc;
    return 0;
}

int document_to_usage(const json_t *document, struct device_usage *ret_usage, uint32_t *ret_count,
                      struct err *err)
{
    const json_t *array = read_array(document, "devices", DEVICES_MAX, err);
    struct device_usage usage[DEVICES_MAX] = {0};

    if (array == NULL)
        return -ERR_INVALID_TYPE;
    for (size_t i = 0; i < json_array_size(array); i++) {
        int rc = usage_in(json_array_get(array, i), &usage[i], err);
        if (rc != 0)
            return rc;
    }
    memcpy(ret_usage, usage, sizeof(usage));
    *ret_count = (uint32_t)json_array_size(array);
    return 0;
}
