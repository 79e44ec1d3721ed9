#include "worker/core/claim.h"

#include <stdio.h>
#include <string.h>

#include "common/pure/units.h"

bool claim_is_listed(const struct settings *settings, uint32_t ordinal)
{
    for (uint32_t i = 0; i < settings->device_count; i++) {
        if (settings->device[i] == ordinal)
            return true;
    }
    return settings->device_count == 0;
}

static void device_id(const struct device_info *device, const uint8_t machine[SHA256_SIZE],
                      char out[64])
{
    struct sha256_stream *stream;
    uint8_t hash[SHA256_SIZE];
    char hex[33];

    if (device->gpu) {
        snprintf(out, 64, "%s", device->uuid);
        return;
    }
    stream = sha256_stream_new();
    sha256_stream_add(stream, machine, SHA256_SIZE);
    sha256_stream_add(stream, &device->ordinal, sizeof(device->ordinal));
    sha256_stream_add(stream, device->uuid, strlen(device->uuid));
    sha256_stream_end(stream, hash);
    sha256_stream_free(stream);
    snprintf(out, 64, "CPU-%s", hex_format(hash, 16, hex));
}

static char *borrow(const char *text)
{
    union {
        const char *in;
        char *out; /* protobuf-c has no const, and does not write */
    } both = {.in = text};

    return both.out;
}

static void add_device(const struct claim_facts *facts, uint32_t index, struct claim *claim)
{
    const struct device_info *device = &facts->host->device[index];
    Sheaf__ClaimDevice *wire = &claim->device[index];

    sheaf__claim_device__init(wire);
    device_id(device, facts->machine, claim->uuid[index]);
    wire->uuid = claim->uuid[index];
    wire->device_class = borrow(device->gpu ? "gpu" : "cpu");
    wire->vendor = borrow(device->vendor);
    wire->model = borrow(device->model);
    wire->driver = borrow(device->driver);
    wire->memory_mib = device->memory_mib;
    wire->offered = facts->offered[index];
    claim->pointer[index] = wire;
}

void claim_make(const struct claim_facts *facts, struct claim *claim)
{
    const struct settings *settings = facts->settings;
    Sheaf__Claim *wire = &claim->wire;

    memset(claim, 0, sizeof(*claim));
    sheaf__claim__init(wire);
    snprintf(claim->name, sizeof(claim->name), "%s", settings->name);
    snprintf(claim->version, sizeof(claim->version), "%s", SHEAF_VERSION);
    snprintf(claim->runtime, sizeof(claim->runtime), "%s", facts->runtime);
    wire->name = claim->name;
    wire->region = borrow(settings->region);
    wire->country = borrow(settings->country);
    wire->address = facts->address;
    wire->port_low = settings->port_low;
    wire->port_high = settings->port_high;
    wire->probe_port = settings->probe_port;
    wire->cpu_milli = facts->host->cpu_milli;
    wire->memory_mib = facts->host->memory_mib;
    wire->disk_mib = (uint32_t)(fs_free_bytes(settings->state) / MIB & UINT32_MAX);
    wire->runtime = claim->runtime;
    wire->version = claim->version;
    wire->price_micro = facts->owner->has_price ? facts->owner->price : settings->price;
    wire->notice_s = settings->notice_s;
    wire->paused = facts->owner->paused;
    wire->devices = claim->pointer;
    wire->n_devices = facts->host->device_count;
    for (uint32_t i = 0; i < facts->host->device_count; i++)
        add_device(facts, i, claim);
}
