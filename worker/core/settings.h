#ifndef SHEAF_WORKER_CORE_SETTINGS_H
#define SHEAF_WORKER_CORE_SETTINGS_H

/* The worker's options in values, and how a path or a peer's declared delay is read from them. */
#include <stdbool.h>
#include <stdint.h>

#include "common/io/config.h"
#include "common/io/fs.h"
#include "common/io/log.h"
#include "common/pure/money.h"

#define SETTINGS_MAX_DECLARED 64
#define SETTINGS_MAX_DEVICES  16

/* A delay that stands where the network cannot show it (emulated regions on one loopback). */
struct declared_rtt {
    char peer[96]; /* node name, address, or address:probe-port */
    uint32_t us;
};

/* State of the worker that a package's service runs. */
#define SETTINGS_SYSTEM_STATE "/var/lib/sheaf/worker"

struct settings {
    char state[FS_PATH];
    char name[64];
    char address[64]; /* empty = the one that routes to the gateway */
    uint32_t port_low;
    uint32_t port_high;
    uint32_t probe_port;
    micro_t price;
    char region[64];
    char country[3];
    uint32_t notice_s;
    bool unsafe_process;
    char machine_id[FS_PATH]; /* file */
    uint32_t device[SETTINGS_MAX_DEVICES];
    uint32_t device_count; /* 0 = all */
    uint64_t orphan_ttl_us;
    bool orphan_stop;
    uint64_t cache_bytes;
    uint64_t log_bytes;
    uint64_t usage_every_us;
    uint64_t image_cache;       /* bytes; 0 = no images */
    char image_registries[512]; /* hosts, "all" or "none" */
    struct declared_rtt declared[SETTINGS_MAX_DECLARED];
    uint32_t declared_count;
    enum log_level log;
};

const struct config_option *settings_options(void);
/* ERR_CONFIG_INVALID with the key. */
int settings_read(const struct config *config, struct settings *ret_settings,
                  struct err *err) SHEAF_MUST_USE;
/*
 * Reads the options again, above those that join kept in the state folder: below file, environment
 * and flags. *settings is replaced.
 */
int settings_recall(struct config *config, struct settings *settings,
                    struct err *err) SHEAF_MUST_USE;
/* Keeps the options that were given in STATE/settings.yaml. ERR_IO, ERR_NO_SPACE. */
int settings_keep(const struct config *config, const struct settings *settings,
                  struct err *err) SHEAF_MUST_USE;
/* What a running worker takes over: the options with CONFIG_RELOAD. */
void settings_take(struct settings *settings, const struct settings *fresh);
/* max(measured, declared); measured 0 (no answer) stays 0. name may be empty. */
uint32_t settings_rtt(const struct settings *settings, const char *name, const char *address,
                      uint32_t port, uint32_t measured_us);
/* STATE/name. ERR_IO when too long. */
int settings_path(const struct settings *settings, const char *name, char out[FS_PATH],
                  struct err *err) SHEAF_MUST_USE;

#endif
