#ifndef SHEAF_ORCHESTRATOR_GATEWAY_BULK_H
#define SHEAF_ORCHESTRATOR_GATEWAY_BULK_H

/*
 * The bulk channel (proto/bulk.proto): workers bring logs and outputs and fetch files. Who speaks
 * is the authenticated CURVE key of each message, never what it says of itself; what a node may do,
 * the database says per attempt. Credit in bytes bounds what either side holds.
 */
#include "orchestrator/gateway/gateway.h"

struct bulk;

/* Binds (CURVE, ZAP domain "bulk"); ret_endpoint has 128 bytes. */
int bulk_new(struct gateway *gateway, const char *bind, char *ret_endpoint, struct bulk **ret_bulk,
             struct err *err) SHEAF_MUST_USE;
void bulk_free(struct bulk *bulk);
/* Nodes came or went: read their keys anew. */
void bulk_refresh(struct bulk *bulk);

/* The keys were read at least once: workers may be told of this gateway. */
bool bulk_is_ready(const struct bulk *bulk);

struct bulk_counters {
    uint64_t sessions;
    uint64_t keys;
    uint64_t pieces;
    uint64_t piece_bytes;
    uint64_t file_bytes_out;
    uint64_t file_bytes_in;
    uint64_t refused;
    uint64_t handshakes_refused;
    uint64_t outputs;
    uint64_t floods; /* connections ended because a message did not end */
};
struct bulk_counters bulk_counters(const struct bulk *bulk);

#endif
