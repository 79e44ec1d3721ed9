#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/pure/units.h"
#include "worker/devices/child/child.h"

/*
 * AMD GPUs by what the kernel's amdgpu driver says in sysfs; no library of AMD's is needed
 * (kernel documentation, gpu/amdgpu/driver-misc and thermal).
 */
#define AMD_PATH      256
#define KFD_MAX_NODES 64

/* Sorted, so that ordinals do not depend on the order of a directory. */
static uint32_t amd_cards(char path[DEVICES_MAX][AMD_PATH])
{
    struct dirent **entries = NULL;
    char folder[AMD_PATH];
    uint32_t count = 0;
    int found;

    snprintf(folder, sizeof(folder), "%s/bus/pci/drivers/amdgpu", sysfs_root());
    found = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < found; i++) {
        /* Bound devices are links named by their PCI address. */
        if (strchr(entries[i]->d_name, ':') != NULL && count < DEVICES_MAX) {
            snprintf(path[count], AMD_PATH, "%s/bus/pci/devices/%.32s", sysfs_root(),
                     entries[i]->d_name);
            if (text_read_number("%s/mem_info_vram_total", path[count]) >= MIB)
                count++;
        }
        free(entries[i]);
    }
    free(entries);
    return count;
}

static void amd_uuid(const char *path, const char *pci, char out[64])
{
    char id[32];

    /* 16 hex digits burnt into the card; small ones have none. */
    if (text_read(id, sizeof(id), "%s/unique_id", path))
        snprintf(out, 64, "GPU-%.31s", id);
    else
        stable_uuid(out, "GPU", pci);
}

void amd_list(struct host_info *host)
{
    char path[DEVICES_MAX][AMD_PATH];
    uint32_t count = amd_cards(path);
    struct utsname kernel;

    for (uint32_t i = 0; i < count; i++) {
        struct device_info *device = host_add(host);
        if (device == NULL)
            break;
        device->gpu = true;
        snprintf(device->vendor, sizeof(device->vendor), "AMD");
        snprintf(device->pci, sizeof(device->pci), "%.23s", strrchr(path[i], '/') + 1);
        if (!text_read(device->model, sizeof(device->model), "%s/product_name", path[i])) {
            char id[16] = "";
            (void)text_read(id, sizeof(id), "%s/device", path[i]);
            snprintf(device->model, sizeof(device->model), "AMD GPU %s", id);
        }
        if (uname(&kernel) == 0)
            snprintf(device->driver, sizeof(device->driver), "amdgpu %.50s", kernel.release);
        device->memory_mib = (uint32_t)(text_read_number("%s/mem_info_vram_total", path[i]) / MIB);
        amd_uuid(path[i], device->pci, device->uuid);
        add_node(device, "/dev/kfd");
        add_render_node(device);
    }
}

/* "0000:03:00.0" → bus << 8 | device << 3 | function, as the kernel's compute topology has it. */
static bool pci_location(const char *pci, uint64_t *ret_domain, uint64_t *ret_location)
{
    static const char separators[] = ":::.";
    uint64_t part[4];

    for (int i = 0; i < 4; i++) {
        if (i > 0 && *pci++ != separators[i])
            return false;
        if (!text_take_number(&pci, 16, &part[i]))
            return false;
    }
    *ret_domain = part[0];
    *ret_location = part[1] << 8 | part[2] << 3 | part[3];
    return true;
}

/* gpu_id of the kernel's compute topology; 0 = not a compute device. */
static uint64_t kfd_gpu_id(const char *pci)
{
    uint64_t domain;
    uint64_t location;

    if (!pci_location(pci, &domain, &location))
        return 0;
    for (int node = 0; node < KFD_MAX_NODES; node++) {
        char path[AMD_PATH];

        snprintf(path, sizeof(path), "%s/class/kfd/kfd/topology/nodes/%d/properties", sysfs_root(),
                 node);
        if (text_read_key(path, "location_id", 0) == location
            && text_read_key(path, "domain", 0) == domain)
            return text_read_number("%s/class/kfd/kfd/topology/nodes/%d/gpu_id", sysfs_root(),
                                    node);
    }
    return 0;
}

/* Compute processes alone: what a desktop holds is not told per process. */
static uint64_t kfd_foreign(uint64_t gpu_id, const struct pid_set *ours)
{
    char folder[AMD_PATH];
    struct dirent *entry;
    uint64_t foreign = 0;
    DIR *dir;

    snprintf(folder, sizeof(folder), "%s/class/kfd/kfd/proc", sysfs_root());
    dir = opendir(folder);
    if (dir == NULL)
        return 0;
    while ((entry = readdir(dir)) != NULL) {
        int pid = text_to_pid(entry->d_name);
        if (pid != 0 && !pid_set_has(ours, pid))
            foreign += text_read_number("%s/%d/vram_%llu", folder, pid, (unsigned long long)gpu_id);
    }
    closedir(dir);
    return foreign;
}

/* hwmon has a number of its own below the card: the first is the card's. */
static uint64_t hwmon_number(const char *path, const char *name)
{
    char folder[AMD_PATH + 16];
    struct dirent *entry;
    uint64_t value = 0;
    DIR *dir;

    snprintf(folder, sizeof(folder), "%s/hwmon", path);
    dir = opendir(folder);
    if (dir == NULL)
        return 0;
    while (value == 0 && (entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "hwmon", 5) == 0)
            value = text_read_number("%s/%s/%s", folder, entry->d_name, name);
    }
    closedir(dir);
    return value;
}

void amd_usage(const struct pid_set *ours, struct device_usage *usage, uint32_t *count)
{
    char path[DEVICES_MAX][AMD_PATH];
    uint32_t cards = amd_cards(path);

    for (uint32_t i = 0; i < cards && *count < DEVICES_MAX; i++) {
        struct device_usage *slot = &usage[*count];
        const char *pci = strrchr(path[i], '/') + 1;
        uint64_t gpu_id = kfd_gpu_id(pci);

        memset(slot, 0, sizeof(*slot));
        slot->device = (*count)++;
        amd_uuid(path[i], pci, slot->uuid);
        slot->memory_used_mib =
            (uint32_t)(text_read_number("%s/mem_info_vram_used", path[i]) / MIB);
        slot->foreign_mib = gpu_id != 0 ? (uint32_t)(kfd_foreign(gpu_id, ours) / MIB) : 0;
        slot->utilisation_pct = (uint32_t)text_read_number("%s/gpu_busy_percent", path[i]);
        slot->temperature_c = (uint32_t)(hwmon_number(path[i], "temp1_input") / 1000);
        slot->power_w = (uint32_t)(hwmon_number(path[i], "power1_average") / 1000000);
    }
}
