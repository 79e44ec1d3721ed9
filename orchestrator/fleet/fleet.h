#ifndef SHEAF_ORCHESTRATOR_FLEET_FLEET_H
#define SHEAF_ORCHESTRATOR_FLEET_FLEET_H

/*
 * The orchestrator's sockets: workers (ROUTER), gateways' commands (ROUTER) and hints (PUB). Turns
 * messages into events for the engine and effects into messages, always after the commit that
 * justifies them. Decides nothing.
 *
 *   fleet_new() → engine_new(fleet_hooks()) → fleet_open(): keys first, then the binds.
 */
#include <stdint.h>

#include "common/io/jointoken.h"
#include "common/io/keys.h"
#include "common/io/loop.h"
#include "orchestrator/fleet/endpoint.h"
#include "orchestrator/store/engine.h"

/* Missed heartbeats that make a node silent. */
#define FLEET_MISSED      3
#define FLEET_MAX_CONTROL 8 /* advertised control endpoints */

#define FLEET_WORKER_DOMAIN  "worker"
#define FLEET_GATEWAY_DOMAIN "gateway"

struct fleet;

struct fleet_options {
    struct event_base *base;
    void *zmq;
    struct zap *zap;
    const struct identity *identity; /* borrowed for the life of the fleet, as all pointers here */
    uint8_t gateway_key[KEY_SIZE];   /* CURVE key of the gateway link file */
    const char *worker_bind;
    const char *command_bind;
    const char *hint_bind;
    const char *advertise;     /* tcp://HOST:PORT, comma separated; NULL or empty: found out */
    const char *gateways_path; /* file that remembers the gateways */
    uint32_t term;
    int64_t heartbeat_us;
    void (*on_deposed)(void *arg);
    void *arg;
};

struct fleet *fleet_new(const struct fleet_options *options);
void fleet_free(struct fleet *fleet);
struct engine_hooks fleet_hooks(struct fleet *fleet);
/* Tells ZAP the keys of the loaded world, then binds. ERR_IO, ERR_CONFIG_INVALID (advertise). */
int fleet_open(struct fleet *fleet, struct engine *engine, struct err *err) SHEAF_MUST_USE;
/* Takes no more messages; effects of what is in flight are still sent. */
void fleet_close(struct fleet *fleet);

/* Makes a token of the orchestrator itself; the callback comes once, after the commit. */
typedef void (*fleet_on_token_f)(const struct err *err, const char *secret, void *arg);
void fleet_make_token(struct fleet *fleet, enum role role, const char *secret,
                      fleet_on_token_f on_token, void *arg);

/* Ports resolved; empty before fleet_open. */
struct fleet_endpoints {
    char worker[ENDPOINT_TEXT];
    char command[ENDPOINT_TEXT];
    char hints[ENDPOINT_TEXT];
    char control[FLEET_MAX_CONTROL][ENDPOINT_TEXT]; /* what a new worker dials */
    uint32_t control_count;
};
const struct fleet_endpoints *fleet_endpoints(const struct fleet *fleet);

struct fleet_counters {
    uint64_t worker_messages;
    uint64_t worker_dropped; /* of revoked or muted keys */
    uint64_t worker_wrong;   /* undecodable */
    uint64_t worker_refused; /* answered with an error */
    uint64_t worker_floods;  /* connections ended because a message did not end */
    uint64_t skewed;         /* workers whose clock is off, now */
    uint64_t orders;         /* sent */
    uint64_t orders_unsent;  /* no session, or its queue was full; the core repeats */
    uint64_t commands;
    uint64_t commands_refused; /* before they reached the core */
    uint64_t hints;
    uint64_t links_kept_back; /* samples that were no news */
    uint64_t sessions;        /* open now */
    uint64_t silent;          /* nodes now */
    uint64_t waiting;         /* commands in work now */
    uint64_t zap_refused;
    int64_t lag_us_max; /* of the loop, since the last call */
};
/* Resets lag_us_max. */
struct fleet_counters fleet_counters(struct fleet *fleet);

#endif
