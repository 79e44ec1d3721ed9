#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/units.h"
#include "worker/devices/child/child.h"

/*
 * NVML by our own declarations: its header is in no free package. Only calls whose layout has not
 * changed since driver 450, under their versioned names (NVML API reference, "Device Queries").
 */
typedef struct nvml_device *nvml_device_t;

struct nvml_memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
};

struct nvml_pci {
    char bus_id_legacy[16];
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int pci_device_id;
    unsigned int pci_subsystem_id;
    char bus_id[32];
};

struct nvml_utilization {
    unsigned int gpu;
    unsigned int memory;
};

/* Of the _v2 and _v3 calls; the unversioned ones have another, so they are not used. */
struct nvml_process {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance;
    unsigned int compute_instance;
};

#define NVML_SUCCESS         0
#define NVML_NOT_AVAILABLE   (~0ull) /* NVML_VALUE_NOT_AVAILABLE */
#define NVML_MAX_PROCESSES   256u
#define NVML_TEXT            96u /* NVML_DEVICE_UUID_V2_BUFFER_SIZE and the name's */
#define NVML_TEMPERATURE_GPU 0

struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver_version)(char *, unsigned int);
    int (*count)(unsigned int *);
    int (*handle)(unsigned int, nvml_device_t *);
    int (*uuid)(nvml_device_t, char *, unsigned int);
    int (*name)(nvml_device_t, char *, unsigned int);
    int (*memory)(nvml_device_t, struct nvml_memory *);
    int (*pci)(nvml_device_t, struct nvml_pci *);
    int (*minor)(nvml_device_t, unsigned int *);
    /* The rest may be absent. */
    int (*mig_mode)(nvml_device_t, unsigned int *, unsigned int *);
    int (*utilization)(nvml_device_t, struct nvml_utilization *);
    int (*temperature)(nvml_device_t, int, unsigned int *);
    int (*power)(nvml_device_t, unsigned int *);
    int (*compute)(nvml_device_t, unsigned int *, struct nvml_process *);
    int (*graphics)(nvml_device_t, unsigned int *, struct nvml_process *);
};

static bool symbol_get(const struct nvml *nvml, void *slot, const char *first, const char *second)
{
    void *symbol = dlsym(nvml->library, first);

    if (symbol == NULL && second != NULL)
        symbol = dlsym(nvml->library, second);
    memcpy(slot, &symbol, sizeof(symbol)); /* ISO C has no cast from object to function pointer */
    return symbol != NULL;
}

static bool bind_all(struct nvml *nvml)
{
    bool whole = symbol_get(nvml, &nvml->init, "nvmlInit_v2", NULL);

    whole = symbol_get(nvml, &nvml->shutdown, "nvmlShutdown", NULL) && whole;
    whole = symbol_get(nvml, &nvml->driver_version, "nvmlSystemGetDriverVersion", NULL) && whole;
    whole = symbol_get(nvml, &nvml->count, "nvmlDeviceGetCount_v2", NULL) && whole;
    whole = symbol_get(nvml, &nvml->handle, "nvmlDeviceGetHandleByIndex_v2", NULL) && whole;
    whole = symbol_get(nvml, &nvml->uuid, "nvmlDeviceGetUUID", NULL) && whole;
    whole = symbol_get(nvml, &nvml->name, "nvmlDeviceGetName", NULL) && whole;
    whole = symbol_get(nvml, &nvml->memory, "nvmlDeviceGetMemoryInfo", NULL) && whole;
    whole = symbol_get(nvml, &nvml->pci, "nvmlDeviceGetPciInfo_v3", NULL) && whole;
    whole = symbol_get(nvml, &nvml->minor, "nvmlDeviceGetMinorNumber", NULL) && whole;
    (void)symbol_get(nvml, &nvml->mig_mode, "nvmlDeviceGetMigMode", NULL);
    (void)symbol_get(nvml, &nvml->utilization, "nvmlDeviceGetUtilizationRates", NULL);
    (void)symbol_get(nvml, &nvml->temperature, "nvmlDeviceGetTemperature", NULL);
    (void)symbol_get(nvml, &nvml->power, "nvmlDeviceGetPowerUsage", NULL);
    (void)symbol_get(nvml, &nvml->compute, "nvmlDeviceGetComputeRunningProcesses_v3",
                     "nvmlDeviceGetComputeRunningProcesses_v2");
    (void)symbol_get(nvml, &nvml->graphics, "nvmlDeviceGetGraphicsRunningProcesses_v3",
                     "nvmlDeviceGetGraphicsRunningProcesses_v2");
    return whole;
}

/* host: for warnings, may be NULL. False also where there is simply no NVIDIA driver. */
static bool nvml_open(struct nvml *nvml, struct host_info *host)
{
    const char *path = getenv("SHEAF_DEVICES_NVML");
    int rc;

    memset(nvml, 0, sizeof(*nvml));
    nvml->library = dlopen(path != NULL ? path : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL)
        return false;
    if (!bind_all(nvml)) {
        if (host != NULL)
            host_warn(host, "NVML: the driver is too old (450 or newer is needed)");
        return false;
    }
    rc = nvml->init();
    if (rc != NVML_SUCCESS && host != NULL)
        host_warn(host, "NVML: cannot start (error %d): is the kernel module loaded?", rc);
    return rc == NVML_SUCCESS;
}

/* What both lists agree on, so that ordinals do. */
static bool usable(const struct nvml *nvml, unsigned int index, nvml_device_t *device,
                   struct host_info *host)
{
    unsigned int mig = 0;
    unsigned int pending = 0;

    if (nvml->handle(index, device) != NVML_SUCCESS) {
        if (host != NULL)
            host_warn(host, "NVML: device %u does not answer", index);
        return false;
    }
    if (nvml->mig_mode != NULL && nvml->mig_mode(*device, &mig, &pending) == NVML_SUCCESS
        && mig != 0) {
        if (host != NULL)
            host_warn(host, "NVML: device %u is in MIG mode: it is not offered", index);
        return false;
    }
    return true;
}

static void describe(const struct nvml *nvml, nvml_device_t handle, const char *driver,
                     struct device_info *device, struct host_info *host)
{
    struct nvml_memory memory = {0};
    struct nvml_pci pci = {0};
    char text[NVML_TEXT] = "";
    char node[64];
    unsigned int minor = 0;

    device->gpu = true;
    snprintf(device->vendor, sizeof(device->vendor), "NVIDIA");
    snprintf(device->driver, sizeof(device->driver), "%.63s", driver);
    if (nvml->uuid(handle, text, sizeof(text)) == NVML_SUCCESS)
        snprintf(device->uuid, sizeof(device->uuid), "%.63s", text);
    text[0] = '\0';
    if (nvml->name(handle, text, sizeof(text)) == NVML_SUCCESS)
        snprintf(device->model, sizeof(device->model), "%.63s", text);
    if (nvml->memory(handle, &memory) == NVML_SUCCESS)
        device->memory_mib = (uint32_t)(memory.total / MIB);
    if (nvml->pci(handle, &pci) == NVML_SUCCESS)
        snprintf(device->pci, sizeof(device->pci), "%04x:%02x:%02x.0", pci.domain & 0xffff,
                 pci.bus & 0xff, pci.device & 0x1f);
    if (nvml->minor(handle, &minor) == NVML_SUCCESS) {
        snprintf(node, sizeof(node), "/dev/nvidia%u", minor);
        add_node(device, node);
    } else {
        host_warn(host, "NVML: device %u has no device node", device->ordinal);
    }
    add_node(device, "/dev/nvidiactl");
    add_node(device, "/dev/nvidia-uvm");
}

void nvml_list(struct host_info *host)
{
    struct nvml nvml;
    unsigned int count = 0;
    char driver[NVML_TEXT] = "";

    if (!nvml_open(&nvml, host))
        return;
    (void)nvml.driver_version(driver, sizeof(driver));
    (void)nvml.count(&count);
    for (unsigned int i = 0; i < count; i++) {
        struct device_info *device;
        nvml_device_t handle;
        if (!usable(&nvml, i, &handle, host))
            continue;
        device = host_add(host);
        if (device == NULL)
            break;
        describe(&nvml, handle, driver, device, host);
        if (device->uuid[0] == '\0' || device->memory_mib == 0) {
            host_warn(host, "NVML: device %u has no uuid or memory", i);
            host->device_count--;
        }
    }
    nvml.shutdown();
}

struct process_list {
    struct nvml_process item[2 * NVML_MAX_PROCESSES];
    unsigned int count;
};

/* A process that computes and draws is in both lists with the same sum: count it once. */
static void add_processes(int (*ask)(nvml_device_t, unsigned int *, struct nvml_process *),
                          nvml_device_t device, struct process_list *list)
{
    struct nvml_process found[NVML_MAX_PROCESSES];
    unsigned int count = NVML_MAX_PROCESSES;

    if (ask == NULL || ask(device, &count, found) != NVML_SUCCESS)
        return;
    for (unsigned int i = 0; i < count && i < NVML_MAX_PROCESSES; i++) {
        unsigned int k = 0;
        while (k < list->count && list->item[k].pid != found[i].pid)
            k++;
        if (k == list->count)
            list->item[list->count++] = found[i];
        else if (list->item[k].used == NVML_NOT_AVAILABLE
                 || (found[i].used != NVML_NOT_AVAILABLE && found[i].used > list->item[k].used))
            list->item[k].used = found[i].used;
    }
}

static uint32_t foreign_mib(const struct nvml *nvml, nvml_device_t device,
                            const struct pid_set *ours)
{
    struct process_list list = {.count = 0};
    unsigned long long foreign = 0;

    add_processes(nvml->compute, device, &list);
    add_processes(nvml->graphics, device, &list);
    for (unsigned int i = 0; i < list.count; i++) {
        if (list.item[i].used != NVML_NOT_AVAILABLE && !pid_set_has(ours, (int)list.item[i].pid))
            foreign += list.item[i].used;
    }
    return (uint32_t)(foreign / MIB);
}

void nvml_usage(const struct pid_set *ours, struct device_usage *usage, uint32_t *count)
{
    struct nvml nvml;
    unsigned int total = 0;

    if (!nvml_open(&nvml, NULL))
        return;
    (void)nvml.count(&total);
    for (unsigned int i = 0; i < total && *count < DEVICES_MAX; i++) {
        struct device_usage *slot = &usage[*count];
        struct nvml_memory memory = {0};
        struct nvml_utilization rates = {0};
        char uuid[NVML_TEXT] = "";
        nvml_device_t device;
        unsigned int value = 0;

        if (!usable(&nvml, i, &device, NULL)
            || nvml.uuid(device, uuid, sizeof(uuid)) != NVML_SUCCESS
            || nvml.memory(device, &memory) != NVML_SUCCESS || memory.total < MIB)
            continue;
        memset(slot, 0, sizeof(*slot));
        slot->device = (*count)++;
        snprintf(slot->uuid, sizeof(slot->uuid), "%.63s", uuid);
        slot->memory_used_mib = (uint32_t)(memory.used / MIB);
        slot->foreign_mib = foreign_mib(&nvml, device, ours);
        if (nvml.utilization != NULL && nvml.utilization(device, &rates) == NVML_SUCCESS)
            slot->utilisation_pct = rates.gpu;
        if (nvml.temperature != NULL
            && nvml.temperature(device, NVML_TEMPERATURE_GPU, &value) == NVML_SUCCESS)
            slot->temperature_c = value;
        if (nvml.power != NULL && nvml.power(device, &value) == NVML_SUCCESS)
            slot->power_w = value / 1000;
    }
    nvml.shutdown();
}
