#ifndef SHEAF_WORKER_DEVICES_DEVICES_H
#define SHEAF_WORKER_DEVICES_DEVICES_H

/*
 * What hardware this machine has, and what it can do. All device work happens in a short-lived
 * child (`sheaf-devices probe|selftest|usage`), because drivers are large and crash; the daemon
 * reads one JSON document from the child's stdout under a deadline and a size cap.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/spec.h"

#define DEVICES_MAX       16
#define DEVICES_NO_OPENCL UINT32_MAX

struct device_info {
    uint32_t ordinal;
    char uuid[64];
    bool gpu; /* else an OpenCL CPU device: class "cpu" */
    char vendor[64];
    char model[64];
    char driver[64];
    char pci[24];        /* "0000:65:00.0"; empty for class cpu */
    uint32_t memory_mib; /* as the driver claims */
    char nodes[8][64];   /* device nodes that a task needs, e.g. /dev/nvidia0 */
    uint32_t node_count;
    uint32_t opencl_platform; /* indexes for the child; DEVICES_NO_OPENCL in both = none */
    uint32_t opencl_device;
};

struct host_info {
    uint32_t cpu_milli;
    uint32_t memory_mib;
    uint32_t numa_nodes;
    char cpu_model[64];
    struct device_info device[DEVICES_MAX];
    uint32_t device_count;
    char warning[4][128]; /* e.g. "NVML: driver too old"; for doctor */
    uint32_t warning_count;
};

struct selftest_result {
    uint32_t device;
    uint64_t seed;
    uint32_t memory_mib;    /* filled and read back */
    uint64_t chunk_sum[16]; /* SELFTEST_SAMPLES */
    uint32_t matmul_gflops;
    uint64_t matmul_sum;
    uint32_t copy_mib_s;
    char failure[128]; /* empty = none */
};

/* Only devices that have telemetry are listed: never class cpu, where nothing foreign is told. */
struct device_usage {
    uint32_t device; /* ordinal, as long as no device fell off the bus since the probe */
    char uuid[64];   /* the sure name */
    uint32_t memory_used_mib;
    uint32_t foreign_mib; /* used by processes that are not `ours`; 0 when it cannot be told */
    uint32_t utilisation_pct;
    uint32_t temperature_c;
    uint32_t power_w;
};

/* Blocking; for join, doctor and start. Deadline 60 s. ERR_TIMEOUT, ERR_UNSUPPORTED_HERE. */
int devices_probe(struct host_info *ret_host, struct err *err) SHEAF_MUST_USE;

/*
 * Runs in the background; the callback comes once, also on failure (result NULL then). A child that
 * a driver or the memory limit killed, or that ran out of time, is a result with `failure` set: the
 * device failed. The caller frees the job, after the callback or within it.
 */
struct devices_job;
typedef void (*devices_on_selftest_f)(const struct selftest_result *result, const struct err *err,
                                      void *arg);
int devices_selftest(struct event_base *base, const struct device_info *device, uint64_t seed,
                     devices_on_selftest_f on_result, void *arg, struct devices_job **ret_job,
                     struct err *err) SHEAF_MUST_USE;
typedef void (*devices_on_usage_f)(const struct device_usage *usage, uint32_t count,
                                   const struct err *err, void *arg);
/* our_pids: process ids (any depth is looked up by the child) whose memory is not foreign. */
int devices_usage(struct event_base *base, const int *our_pids, uint32_t pid_count,
                  devices_on_usage_f on_result, void *arg, struct devices_job **ret_job,
                  struct err *err) SHEAF_MUST_USE;
/* Kills the child; no callback comes. NULL is fine. */
void devices_job_free(struct devices_job *job);

/* Environment for a task that got these devices, as NAME=value: CUDA_VISIBLE_DEVICES, POCL_*, … */
void devices_environment(const struct host_info *host, const uint32_t *ordinals, uint32_t count,
                         struct spec_texts *env);

#endif
