#include "worker/devices/child/opencl.h"

#include <CL/cl_ext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pure/units.h"
#include "worker/devices/child/child.h"

#define OPENCL_MAX 16u
/* NVIDIA's extension cl_nv_device_attribute_query; the names are in no free header. */
#define NV_PCI_BUS_ID    0x4008
#define NV_PCI_SLOT_ID   0x4009
#define NV_PCI_DOMAIN_ID 0x400A
#define POCL_PLATFORM    "Portable Computing Language"

const char *opencl_error(cl_int code)
{
    static const struct {
        cl_int code;
        const char *name;
    } names[] = {
        {CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE"},
        {CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE"},
        {CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
        {CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES"},
        {CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY"},
        {CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE"},
        {CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE"},
        {CL_INVALID_KERNEL_NAME, "CL_INVALID_KERNEL_NAME"},
        {CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE"},
    };
    static char other[32];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].code == code)
            return names[i].name;
    }
    snprintf(other, sizeof(other), "OpenCL error %d", code);
    return other;
}

static bool info_text(cl_device_id device, cl_device_info what, char *out, size_t size)
{
    char text[1024] = "";

    if (clGetDeviceInfo(device, what, sizeof(text), text, NULL) != CL_SUCCESS)
        return false;
    text[sizeof(text) - 1] = '\0';
    snprintf(out, size, "%s", text);
    return out[0] != '\0';
}

static bool info_value(cl_device_id device, cl_device_info what, void *out, size_t size)
{
    size_t got = 0;

    return clGetDeviceInfo(device, what, size, out, &got) == CL_SUCCESS && got == size;
}

static bool has_extension(cl_device_id device, const char *name)
{
    char text[16384] = "";
    size_t length = strlen(name);

    if (clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, sizeof(text), text, NULL) != CL_SUCCESS)
        return false;
    text[sizeof(text) - 1] = '\0';
    for (const char *at = text; (at = strstr(at, name)) != NULL; at += length) {
        if ((at == text || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    }
    return false;
}

static void find_pci(cl_device_id device, char out[24])
{
    cl_device_pci_bus_info_khr bus;
    cl_device_topology_amd amd;
    cl_uint nv[3] = {0, 0, 0};

    if (has_extension(device, "cl_khr_pci_bus_info")
        && info_value(device, CL_DEVICE_PCI_BUS_INFO_KHR, &bus, sizeof(bus)))
        snprintf(out, 24, "%04x:%02x:%02x.%x", bus.pci_domain & 0xffff, bus.pci_bus & 0xff,
                 bus.pci_device & 0x1f, bus.pci_function & 7);
    else if (has_extension(device, "cl_nv_device_attribute_query")
             && info_value(device, NV_PCI_BUS_ID, &nv[1], sizeof(nv[1]))
             && info_value(device, NV_PCI_SLOT_ID, &nv[2], sizeof(nv[2]))) {
        (void)info_value(device, NV_PCI_DOMAIN_ID, &nv[0], sizeof(nv[0]));
        snprintf(out, 24, "%04x:%02x:%02x.0", nv[0] & 0xffff, nv[1] & 0xff, nv[2] >> 3 & 0x1f);
    } else if (has_extension(device, "cl_amd_device_attribute_query")
               && info_value(device, CL_DEVICE_TOPOLOGY_AMD, &amd, sizeof(amd))
               && amd.raw.type == CL_DEVICE_TOPOLOGY_TYPE_PCIE_AMD)
        snprintf(out, 24, "0000:%02x:%02x.%x", (unsigned char)amd.pcie.bus,
                 (unsigned char)amd.pcie.device, (unsigned char)amd.pcie.function);
}

static void name_device(cl_device_id device, struct device_info *info, uint32_t nth)
{
    cl_uchar uuid[CL_UUID_SIZE_KHR];
    char what[128];

    if (info->gpu && has_extension(device, "cl_khr_device_uuid")
        && info_value(device, CL_DEVICE_UUID_KHR, uuid, sizeof(uuid))) {
        format_uuid(info->uuid, "GPU", uuid);
        return;
    }
    if (info->gpu)
        snprintf(what, sizeof(what), "opencl %s %s %u", info->pci, info->model,
                 info->pci[0] != '\0' ? 0 : nth);
    else
        snprintf(what, sizeof(what), "cpu %u", nth);
    stable_uuid(info->uuid, info->gpu ? "GPU" : "CPU", what);
}

static void list_device(struct host_info *host, cl_device_id device, bool pocl, uint32_t platform,
                        uint32_t index)
{
    cl_device_type type = 0;
    cl_ulong memory = 0;
    struct device_info *info;
    uint32_t nth = 0;

    if (!info_value(device, CL_DEVICE_TYPE, &type, sizeof(type))
        || !info_value(device, CL_DEVICE_GLOBAL_MEM_SIZE, &memory, sizeof(memory)))
        return;
    /* Other vendors' CPU devices are the same processor once more. */
    if ((type & CL_DEVICE_TYPE_GPU) == 0 && !(pocl && (type & CL_DEVICE_TYPE_CPU) != 0))
        return;
    info = host_add(host);
    if (info == NULL)
        return;
    info->gpu = (type & CL_DEVICE_TYPE_GPU) != 0;
    (void)info_text(device, CL_DEVICE_VENDOR, info->vendor, sizeof(info->vendor));
    (void)info_text(device, CL_DEVICE_NAME, info->model, sizeof(info->model));
    (void)info_text(device, CL_DRIVER_VERSION, info->driver, sizeof(info->driver));
    info->memory_mib = (uint32_t)(memory / MIB);
    info->opencl_platform = platform;
    info->opencl_device = index;
    if (info->gpu)
        find_pci(device, info->pci);
    for (uint32_t i = 0; i + 1 < host->device_count; i++)
        nth += host->device[i].gpu == info->gpu;
    name_device(device, info, nth);
    if (info->gpu)
        add_render_node(info);
}

void opencl_list(struct host_info *host)
{
    cl_platform_id platforms[OPENCL_MAX];
    cl_uint platform_count = 0;

    if (clGetPlatformIDs(OPENCL_MAX, platforms, &platform_count) != CL_SUCCESS
        || platform_count == 0) {
        host_warn(host, "OpenCL: no driver: install pocl-opencl-icd or the one of the GPU");
        return;
    }
    for (cl_uint p = 0; p < platform_count && p < OPENCL_MAX; p++) {
        cl_device_id devices[OPENCL_MAX];
        cl_uint count = 0;
        char name[256] = "";

        (void)clGetPlatformInfo(platforms[p], CL_PLATFORM_NAME, sizeof(name), name, NULL);
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, OPENCL_MAX, devices, &count)
            != CL_SUCCESS)
            continue;
        for (cl_uint d = 0; d < count && d < OPENCL_MAX; d++)
            list_device(host, devices[d], strcmp(name, POCL_PLATFORM) == 0, p, d);
    }
}

bool opencl_find(const struct device_info *device, cl_platform_id *ret_platform,
                 cl_device_id *ret_device)
{
    cl_platform_id platforms[OPENCL_MAX];
    cl_device_id devices[OPENCL_MAX];
    cl_uint count = 0;

    if (clGetPlatformIDs(OPENCL_MAX, platforms, &count) != CL_SUCCESS
        || device->opencl_platform >= count || device->opencl_platform >= OPENCL_MAX)
        return false;
    *ret_platform = platforms[device->opencl_platform];
    count = 0;
    if (clGetDeviceIDs(*ret_platform, CL_DEVICE_TYPE_ALL, OPENCL_MAX, devices, &count) != CL_SUCCESS
        || device->opencl_device >= count || device->opencl_device >= OPENCL_MAX)
        return false;
    *ret_device = devices[device->opencl_device];
    return true;
}
