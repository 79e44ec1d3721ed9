#include "orchestrator/fleet/fleet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/hash.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/fleet_private.h"

/* -- keys and watches: the world's nodes ----------------------------------------------------- */

static void allow_node(struct fleet *fleet, const struct node_row *node)
{
    zap_allow(fleet->options.zap, FLEET_WORKER_DOMAIN, node->curve_key);
    sessions_allow(fleet->sessions, node->id, &node->uid, node->curve_key);
}

static void drop_key(struct fleet *fleet, const uint8_t key[KEY_SIZE])
{
    uint64_t node;

    zap_deny(fleet->options.zap, FLEET_WORKER_DOMAIN, key);
    workers_hang_up(fleet, key);
    node = sessions_revoke(fleet->sessions, key);
    if (node == 0)
        return;
    liveness_forget(fleet->liveness, node);
    links_forget(fleet->links, node);
    log_info("fleet", "key_dropped", "node=%" PRIu64, node);
}

static void load_node(const struct node_row *node, void *arg)
{
    struct fleet *fleet = arg;

    if (node->state == NODE_GONE)
        return;
    allow_node(fleet, node);
    /* A node that never connected is not silent: nobody expects it yet. */
    if (node->state != NODE_JOINING)
        liveness_watch(fleet->liveness, node->id, (node->conditions & NODE_UNKNOWN) != 0);
}

static void on_keys(struct fleet *fleet, uint64_t id, const uint8_t key[KEY_SIZE], bool live)
{
    const struct node_row *node = world_node(engine_world(fleet->engine), id);

    /* The effect is older than the world: a key that is gone meanwhile is not let in. */
    if (live && node && node->state != NODE_GONE
        && memcmp(node->curve_key, key, sizeof(node->curve_key)) == 0)
        allow_node(fleet, node);
    else if (!live)
        drop_key(fleet, key);
}

/* -- what the engine tells ------------------------------------------------------------------- */

static void on_effect(const struct effect *effect, uint64_t seq, void *arg)
{
    struct fleet *fleet = arg;

    if (fleet->engine == NULL)
        return; /* EV_BOOT, before any session: fleet_open and the core's repeats make up for it */
    switch (effect->kind) {
    case FX_ORDER:
        workers_order(fleet, &effect->order);
        break;
    case FX_REPLY:
        commands_reply(fleet, &effect->reply, seq);
        break;
    case FX_NODE_KEYS:
        on_keys(fleet, effect->keys.node, effect->keys.curve_key, effect->keys.live);
        break;
    case FX_ACK:
        workers_ack(fleet, effect->node.node, effect->node.seq);
        break;
    case FX_WELCOME:
        workers_welcome(fleet, effect->node.node);
        break;
    case FX_NODE_STATUS:
        workers_status(fleet, effect->node.node);
        break;
    }
}

static void on_commit(const struct row *rows, uint32_t row_count, uint64_t seq, void *arg)
{
    commands_hint(arg, rows, row_count, seq);
}

static void on_deposed(void *arg)
{
    struct fleet *fleet = arg;

    fleet_close(fleet);
    if (fleet->options.on_deposed)
        fleet->options.on_deposed(fleet->options.arg);
}

/*
 * After a reload the world is older than what we told it: keys are set anew, links are news again.
 * Nobody is connected in it, so every worker says hello again; it repeats what was not
 * acknowledged.
 */
static void on_reload(const struct world *world, void *arg)
{
    struct fleet *fleet = arg;
    uint32_t i = 0;

    links_clear(fleet->links);
    while (i < sessions_count(fleet->sessions)) {
        const struct session *session = sessions_at(fleet->sessions, i);
        const struct node_row *node = world_node(world, session->node);
        uint8_t key[KEY_SIZE];

        memcpy(key, session->key, sizeof(key));
        if (node && node->state != NODE_GONE && memcmp(node->curve_key, key, sizeof(key)) == 0)
            i++;
        else
            drop_key(fleet, key); /* the last entry takes the hole */
    }
    world_each_node(world, load_node, fleet);
    workers_greet_again(fleet);
}

struct engine_hooks fleet_hooks(struct fleet *fleet)
{
    return (struct engine_hooks){
        .on_effect = on_effect,
        .on_commit = on_commit,
        .on_deposed = on_deposed,
        .on_reload = on_reload,
        .arg = fleet,
    };
}

/* -- where workers find us ------------------------------------------------------------------- */

static int find_control(struct fleet *fleet, struct err *err)
{
    struct fleet_endpoints *endpoints = &fleet->endpoints;

    if (fleet->options.advertise && fleet->options.advertise[0])
        return endpoint_list("advertise", fleet->options.advertise, endpoints->control,
                             FLEET_MAX_CONTROL, &endpoints->control_count, err);
    endpoint_public(endpoints->worker, endpoints->control[0]);
    endpoints->control_count = 1;
    return 0;
}

/* -- clocks ---------------------------------------------------------------------------------- */

static void arm_tick(struct fleet *fleet)
{
    static const struct timeval every = {FLEET_TICK_US / 1000000, FLEET_TICK_US % 1000000};

    fleet->tick_due_us = clock_mono_us() + FLEET_TICK_US;
    BUG_ON(event_add(fleet->tick_timer, &every) != 0);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *fleet = arg;
    int64_t now_us = clock_mono_us();
    int64_t lag_us = now_us - fleet->tick_due_us;

    (void)fd;
    (void)what;
    if (lag_us > fleet->counters.lag_us_max)
        fleet->counters.lag_us_max = lag_us;
    workers_tick(fleet, now_us);
    commands_tick(fleet, now_us);
    arm_tick(fleet);
}

/* -- life ------------------------------------------------------------------------------------ */

struct fleet *fleet_new(const struct fleet_options *options)
{
    struct fleet *fleet = mem_new(1, sizeof(*fleet));
    struct liveness_options liveness = {
        .silent_after_us = FLEET_MISSED * options->heartbeat_us,
        .boot_grace_us = FLEET_BOOT_GRACE_US,
        .stall_us = FLEET_STALL_US,
    };
    static const char purpose[] = "sheaf pair keys 1";

    fleet->options = *options;
    /* Derived, so that pair keys survive a restart without another secret to keep. */
    hmac_sha256(options->identity->sign.secret_key, KEY_SIZE, purpose, sizeof(purpose),
                fleet->pair_secret);
    fleet->sessions = sessions_new();
    fleet->liveness = liveness_new(&liveness);
    fleet->links = links_new();
    map_init(&fleet->waiting);
    map_init(&fleet->hang_up);
    selftests_open(fleet);
    fleet->tick_timer = evtimer_new(options->base, on_tick, fleet);
    BUG_ON(fleet->tick_timer == NULL);
    return fleet;
}

int fleet_open(struct fleet *fleet, struct engine *engine, struct err *err)
{
    struct err disk = {0};
    int rc;

    fleet->engine = engine;
    if (gateways_load(&fleet->gateways, fleet->options.gateways_path, &disk) != 0)
        log_warn("fleet", "gateways_unread", "detail=" LOG_Q, disk.text);
    world_each_node(engine_world(engine), load_node, fleet);
    zap_allow(fleet->options.zap, FLEET_GATEWAY_DOMAIN, fleet->options.gateway_key);
    if ((rc = workers_open(fleet, err)) || (rc = commands_open(fleet, err))
        || (rc = find_control(fleet, err)))
        return rc;
    liveness_tick(fleet->liveness, clock_mono_us(), NULL, NULL);
    arm_tick(fleet);
    return 0;
}

void fleet_close(struct fleet *fleet)
{
    if (fleet->tick_timer)
        event_del(fleet->tick_timer);
    zsock_free(fleet->workers);
    zsock_free(fleet->commands);
    zsock_free(fleet->hints);
    fleet->workers = NULL;
    fleet->commands = NULL;
    fleet->hints = NULL;
}

void fleet_free(struct fleet *fleet)
{
    if (fleet == NULL)
        return;
    fleet_close(fleet);
    selftests_free(fleet);
    commands_free(fleet);
    if (fleet->tick_timer)
        event_free(fleet->tick_timer);
    sessions_free(fleet->sessions);
    liveness_free(fleet->liveness);
    links_free(fleet->links);
    map_fini(&fleet->hang_up);
    explicit_bzero(fleet->pair_secret, sizeof(fleet->pair_secret));
    free(fleet);
}

const struct fleet_endpoints *fleet_endpoints(const struct fleet *fleet)
{
    return &fleet->endpoints;
}

struct fleet_counters fleet_counters(struct fleet *fleet)
{
    struct fleet_counters counters = fleet->counters;

    counters.sessions = sessions_open_count(fleet->sessions);
    for (uint32_t i = 0; i < sessions_count(fleet->sessions); i++)
        counters.skewed += sessions_at(fleet->sessions, i)->skewed ? 1 : 0;
    counters.silent = liveness_silent_count(fleet->liveness);
    counters.waiting = fleet->waiting.count;
    counters.zap_refused = zap_refused(fleet->options.zap);
    fleet->counters.lag_us_max = 0;
    return counters;
}
