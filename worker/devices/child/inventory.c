#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/devices/child/child.h"

static void append(struct host_info *host, const struct device_info *device)
{
    struct device_info *slot = host_add(host);

    if (slot != NULL) {
        uint32_t ordinal = slot->ordinal;
        *slot = *device;
        slot->ordinal = ordinal;
    }
}

static void append_part(struct host_info *host, const struct host_info *part)
{
    for (uint32_t i = 0; i < part->device_count; i++)
        append(host, &part->device[i]);
    for (uint32_t i = 0; i < part->warning_count; i++)
        host_warn(host, "%s", part->warning[i]);
}

/* The same card in both lists: by uuid, by PCI address, or the first free one of that model. */
static struct device_info *find_same(struct host_info *host, const struct device_info *device)
{
    for (uint32_t i = 0; i < host->device_count; i++) {
        if (strcmp(host->device[i].uuid, device->uuid) == 0)
            return &host->device[i];
    }
    for (uint32_t i = 0; i < host->device_count; i++) {
        if (device->pci[0] != '\0' && strcmp(host->device[i].pci, device->pci) == 0)
            return &host->device[i];
    }
    for (uint32_t i = 0; device->pci[0] == '\0' && i < host->device_count; i++) {
        if (host->device[i].opencl_device == DEVICES_NO_OPENCL
            && strcmp(host->device[i].model, device->model) == 0)
            return &host->device[i];
    }
    return NULL;
}

void inventory_merge(struct host_info *host, const struct host_info *opencl, bool want_cpu)
{
    for (uint32_t i = 0; i < opencl->device_count; i++) {
        const struct device_info *device = &opencl->device[i];
        struct device_info *same = device->gpu ? find_same(host, device) : NULL;
        if (same != NULL) {
            same->opencl_platform = device->opencl_platform;
            same->opencl_device = device->opencl_device;
        } else if (device->gpu) {
            append(host, device);
        }
    }
    /* The CPU device shares its memory with everything else: it stands in only where no GPU is. */
    for (uint32_t i = 0; i < opencl->device_count; i++) {
        if (!opencl->device[i].gpu && (want_cpu || host->device_count == 0)) {
            want_cpu = true;
            append(host, &opencl->device[i]);
        }
    }
    for (uint32_t i = 0; i < opencl->warning_count; i++)
        host_warn(host, "%s", opencl->warning[i]);
}

void inventory_list(struct host_info *ret_host)
{
    struct host_info *part = calloc(1, sizeof(*part));

    BUG_ON(part == NULL);
    memset(ret_host, 0, sizeof(*ret_host));
    host_list(ret_host);
    section_run("NVML", nvml_list, part);
    append_part(ret_host, part);
    amd_list(ret_host);
    section_run("OpenCL", opencl_list, part);
    inventory_merge(ret_host, part, getenv("POCL_DEVICES") != NULL);
    free(part);
}
