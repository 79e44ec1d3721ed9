/* The devices child's documents, whose texts went through a driver. */
#include "worker/devices/document.h"
#include "common/io/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static int pids[DOCUMENT_MAX_PIDS];
    static struct host_info host;
    struct selftest_result result;
    struct device_usage usage[DEVICES_MAX];
    struct device_info device;
    uint64_t seed;
    uint32_t count;
    json_t *value = NULL;
    struct err err = {0};

    if (json_read(bytes, size, &value, &err) != 0)
        return 0;
    if (document_to_host(value, &host, &err) == 0) {
        BUG_ON(host.device_count > DEVICES_MAX);
        json_t *written = document_from_host(&host);
        BUG_ON(document_to_host(written, &host, &err) != 0);
        json_decref(written);
    }
    (void)!document_to_ask(value, &device, &seed, &err);
    (void)!document_to_selftest(value, &result, &err);
    if (document_to_pids(value, pids, &count, &err) == 0)
        BUG_ON(count > DOCUMENT_MAX_PIDS);
    if (document_to_usage(value, usage, &count, &err) == 0)
        BUG_ON(count > DEVICES_MAX);
    json_decref(value);
    return 0;
}
