#ifndef SHEAF_WORKER_DEVICES_CHILD_CHILD_H
#define SHEAF_WORKER_DEVICES_CHILD_CHILD_H

/*
 * The inside of `sheaf-devices`: short-lived, so it may load drivers that leak, spawn threads or
 * crash. Whatever lists hardware fills a struct host_info; nothing of this is linked into a daemon.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "worker/devices/devices.h"

/* -- lists of hardware: each appends what it finds, and a warning where something is amiss ---- */
void host_list(struct host_info *host);   /* cpu, memory, NUMA by hwloc, under cgroup limits */
void nvml_list(struct host_info *host);   /* NVIDIA by NVML */
void amd_list(struct host_info *host);    /* AMD by sysfs */
void opencl_list(struct host_info *host); /* every OpenCL GPU, and PoCL's CPU devices */

/* All of them merged, each driver stack in a process of its own; ordinals are set. */
void inventory_list(struct host_info *ret_host);
/* Pure: adds the OpenCL devices to those that NVML and sysfs know. */
void inventory_merge(struct host_info *host, const struct host_info *opencl, bool want_cpu);
/*
 * Runs `list` in a forked process and appends what it found; a crash becomes a warning that names
 * it. Deadline SECTION_DEADLINE_MS.
 */
#define SECTION_DEADLINE_MS 25000
void section_run(const char *name, void (*list)(struct host_info *), struct host_info *ret_part);

void host_warn(struct host_info *host, const char *format, ...) SHEAF_PRINTF(2, 3);
/* A zeroed device, or NULL with a warning when DEVICES_MAX is reached. */
struct device_info *host_add(struct host_info *host);

/* -- telemetry ------------------------------------------------------------------------------- */
struct pid_set {
    int *pids; /* ascending; owned */
    uint32_t count;
};
/* The given processes and all their descendants by /proc. */
void pid_set_expand(struct pid_set *set, const int *pids, uint32_t count);
bool pid_set_has(const struct pid_set *set, int pid);
void pid_set_fini(struct pid_set *set);
/* Append at most DEVICES_MAX in all; ordinals follow those of the lists. */
void nvml_usage(const struct pid_set *ours, struct device_usage *usage, uint32_t *count);
void amd_usage(const struct pid_set *ours, struct device_usage *usage, uint32_t *count);

/* -- the self-test --------------------------------------------------------------------------- */
/* device: as listed, but memory_mib as claimed. Fills result; what went wrong is in `failure`. */
void selftest_run(const struct device_info *device, uint64_t seed, struct selftest_result *result);

/* -- small things ---------------------------------------------------------------------------- */
/* First line of a small file, without newline; false when it cannot be read or is empty. */
bool text_read(char *out, size_t size, const char *format, ...) SHEAF_PRINTF(3, 4);
/* A decimal number alone in a file; 0 when there is none. */
uint64_t text_read_number(const char *format, ...) SHEAF_PRINTF(1, 2);
/* The number of the first line "KEY NUMBER" of a file, or `otherwise`. */
uint64_t text_read_key(const char *path, const char *key, uint64_t otherwise);
/* Number at the start of *text, which moves behind it; false when no digit is there. */
bool text_take_number(const char **text, int base, uint64_t *ret_number);
/* A text that is a process id and nothing else; 0 = it is not. */
int text_to_pid(const char *text);
/* Root of sysfs: /sys, or SHEAF_DEVICES_SYSFS for tests. */
const char *sysfs_root(void);
/* "PREFIX-8-4-4-4-12": hash of machine-id, $SHEAF_DEVICE_SALT and `what`. */
void stable_uuid(char out[64], const char *prefix, const char *what);
/* "PREFIX-8-4-4-4-12" of 16 bytes. */
void format_uuid(char out[64], const char *prefix, const uint8_t bytes[16]);
/* Adds /dev/dri/renderDN of a PCI device, if it has one. */
void add_render_node(struct device_info *device);
void add_node(struct device_info *device, const char *path);

#endif
