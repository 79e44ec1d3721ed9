#ifndef SHEAF_ORCHESTRATOR_FLEET_METRICS_H
#define SHEAF_ORCHESTRATOR_FLEET_METRICS_H

/*
 * /metrics (Prometheus text format 0.0.4) and /healthz by evhttp, for loopback: there is no
 * authentication and no TLS. Numbers alone, no names of tenants or nodes.
 */
#include "common/pure/buf.h"
#include "orchestrator/fleet/fleet.h"

struct metrics_facts {
    struct world_counts world;
    struct engine_counters engine;
    struct fleet_counters fleet;
    uint32_t term;
    uint64_t resident_bytes;
    int64_t up_us;
    bool reload_failed; /* the last SIGHUP found a configuration that is not valid */
};

/* Appends the exposition. */
void metrics_write(const struct metrics_facts *facts, struct buf *out);
/* Resident memory of this process; 0 when /proc does not say. */
uint64_t metrics_resident_bytes(void);

struct metrics;

/* Fills the facts at each request. False: not serving (no more), /healthz answers 503. */
typedef bool (*metrics_collect_f)(struct metrics_facts *ret_facts, void *arg);

/* endpoint is HOST:PORT; port 0 is resolved into ret_endpoint. ERR_CONFIG_INVALID, ERR_IO. */
int metrics_new(struct event_base *base, const char *endpoint, metrics_collect_f collect, void *arg,
                char ret_endpoint[ENDPOINT_TEXT], struct metrics **ret_metrics,
                struct err *err) SHEAF_MUST_USE;
void metrics_free(struct metrics *metrics);

#endif
