#include "worker/core/bulk.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/log.h"
#include "common/io/loop.h"
#include "common/pure/mem.h"

#define BULK_PROTOCOL 1u
#define WELCOME_MS    5000u
#define BACKOFF_MIN   200u
#define BACKOFF_MAX   10000u
/* A new gateway may refuse us before it has read the keys, and ZeroMQ then gives up for good. */
#define REFUSED_CHECK_MS 2000u
/* A gateway that gives more than this wants to be told nothing about credit. */
#define CREDIT_MAX ((uint64_t)1 << 40)

struct bulk {
    struct event_base *base;
    void *zmq_context;
    const struct curve_pair *client;
    struct uuid node;
    struct bulk_hooks hooks;
    struct bulk_gateway gateway[BULK_MAX_GATEWAYS];
    uint32_t gateway_count;
    uint32_t current; /* index of the one in use */
    struct zsock *socket;
    struct event *timer;
    bool up;
    uint64_t credit;
    uint64_t owed; /* consumed and not granted again yet */
    uint32_t backoff_ms;
};

static void arm(struct bulk *bulk, uint32_t ms)
{
    struct timeval wait = {.tv_sec = (long)(ms / 1000), .tv_usec = (long)(ms % 1000) * 1000};

    evtimer_add(bulk->timer, &wait);
}

bool bulk_is_up(const struct bulk *bulk)
{
    return bulk->up;
}

uint64_t bulk_credit(const struct bulk *bulk)
{
    return bulk->up ? bulk->credit : 0;
}

static bool send_message(struct bulk *bulk, Sheaf__Bulk *message)
{
    struct buf bytes;
    int rc;

    message->protocol = BULK_PROTOCOL;
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&message->base, &bytes);
    rc = bytes.full ? -ERR_TOO_MANY : zsock_send(bulk->socket, NULL, 0, bytes.data, bytes.length);
    buf_fini(&bytes);
    return rc == 0;
}

bool bulk_send(struct bulk *bulk, Sheaf__Bulk *message, uint64_t cost)
{
    if (!bulk->up || bulk->credit < cost || !send_message(bulk, message))
        return false;
    bulk->credit -= cost;
    return true;
}

void bulk_consumed(struct bulk *bulk, uint64_t bytes)
{
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__BulkCredit credit = SHEAF__BULK_CREDIT__INIT;

    bulk->owed += bytes;
    if (!bulk->up || bulk->owed < BULK_WINDOW / 4)
        return;
    credit.bytes = bulk->owed;
    message.body_case = SHEAF__BULK__BODY_CREDIT;
    message.credit = &credit;
    if (send_message(bulk, &message))
        bulk->owed = 0;
}

static void drop_socket(struct bulk *bulk)
{
    zsock_free(bulk->socket);
    bulk->socket = NULL;
    bulk->up = false;
    bulk->credit = 0;
    bulk->owed = 0;
}

void bulk_redial(struct bulk *bulk, const char *why)
{
    log_info("bulk", "redial", "in_ms=%u reason=" LOG_Q, bulk->backoff_ms, why);
    drop_socket(bulk);
    if (bulk->gateway_count == 0)
        return;
    bulk->current = (bulk->current + 1) % bulk->gateway_count;
    arm(bulk, bulk->backoff_ms);
    bulk->backoff_ms = bulk->backoff_ms * 2 < BACKOFF_MAX ? bulk->backoff_ms * 2 : BACKOFF_MAX;
}

static void add_credit(struct bulk *bulk, uint64_t bytes)
{
    bulk->credit = bytes > CREDIT_MAX - bulk->credit ? CREDIT_MAX : bulk->credit + bytes;
}

static void deliver(struct bulk *bulk, const Sheaf__Bulk *message)
{
    if (message->body_case == SHEAF__BULK__BODY_WELCOME) {
        if (bulk->up)
            return;
        bulk->up = true;
        bulk->backoff_ms = BACKOFF_MIN;
        arm(bulk, REFUSED_CHECK_MS);
        add_credit(bulk, message->welcome->credit);
        log_info("bulk", "up", "endpoint=%s", bulk->gateway[bulk->current].endpoint);
        bulk->hooks.on_up(bulk->hooks.arg);
    } else if (!bulk->up) {
        log_debug("bulk", "early", "body=%d", (int)message->body_case);
    } else if (message->body_case == SHEAF__BULK__BODY_CREDIT) {
        add_credit(bulk, message->credit->bytes);
        bulk->hooks.on_credit(bulk->hooks.arg);
    } else if (message->body_case == SHEAF__BULK__BODY_ERROR && message->error->sha256.len == 0) {
        log_warn("bulk", "error", "code=%s detail=" LOG_Q, message->error->code,
                 message->error->detail);
        bulk_redial(bulk, "the gateway ended the session");
    } else {
        bulk->hooks.on_message(message, bulk->hooks.arg);
    }
}

static void on_message(struct zsock *socket, const struct zmsg *raw, void *arg)
{
    struct bulk *bulk = arg;
    struct frame_arena arena;
    Sheaf__Bulk *message;

    if (socket != bulk->socket || raw->count != 1 || raw->too_many)
        return;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    message =
        (Sheaf__Bulk *)frame_decode(&sheaf__bulk__descriptor, raw->frame[0], raw->size[0], &arena);
    if (message)
        deliver(bulk, message);
    else
        log_warn("bulk", "decode", "bytes=%zu", raw->size[0]);
    frame_arena_fini(&arena);
}

static void dial(struct bulk *bulk)
{
    const struct bulk_gateway *gateway = &bulk->gateway[bulk->current];
    struct zsock_options options = {.type = ZMQ_DEALER,
                                    .client = bulk->client,
                                    .server_key = gateway->key,
                                    .max_frame = FRAME_MAX};
    Sheaf__Bulk message = SHEAF__BULK__INIT;
    Sheaf__BulkHello hello = SHEAF__BULK_HELLO__INIT;
    struct err err = {0};

    arm(bulk, WELCOME_MS);
    if (zsock_new(bulk->base, bulk->zmq_context, &options, on_message, bulk, &bulk->socket, &err)
            != 0
        || zsock_connect(bulk->socket, gateway->endpoint, &err) != 0) {
        log_warn("bulk", "dial", "endpoint=%s detail=" LOG_Q, gateway->endpoint, err.text);
        drop_socket(bulk);
        return;
    }
    hello.node.data = bulk->node.bytes;
    hello.node.len = sizeof(bulk->node.bytes);
    hello.credit = BULK_WINDOW;
    message.body_case = SHEAF__BULK__BODY_HELLO;
    message.hello = &hello;
    (void)send_message(bulk, &message); /* not taken: no welcome comes, and we dial again */
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct bulk *bulk = arg;

    (void)fd;
    (void)what;
    if (bulk->up && !zsock_was_refused(bulk->socket))
        arm(bulk, REFUSED_CHECK_MS);
    else if (bulk->socket)
        bulk_redial(bulk, bulk->up ? "the gateway refused our key" : "no welcome");
    else if (bulk->gateway_count > 0)
        dial(bulk);
}

struct bulk *bulk_new(struct event_base *base, void *zmq_context, const struct curve_pair *client,
                      const struct uuid *node, const struct bulk_hooks *hooks)
{
    struct bulk *bulk = mem_new(1, sizeof(*bulk));

    bulk->base = base;
    bulk->zmq_context = zmq_context;
    bulk->client = client;
    bulk->node = *node;
    bulk->hooks = *hooks;
    bulk->backoff_ms = BACKOFF_MIN;
    bulk->timer = evtimer_new(base, on_timer, bulk);
    BUG_ON(!bulk->timer);
    return bulk;
}

void bulk_free(struct bulk *bulk)
{
    if (!bulk)
        return;
    event_free(bulk->timer);
    zsock_free(bulk->socket);
    free(bulk);
}

static bool same_gateway(const struct bulk_gateway *a, const struct bulk_gateway *b)
{
    return strcmp(a->endpoint, b->endpoint) == 0 && memcmp(a->key, b->key, KEY_SIZE) == 0;
}

void bulk_set_gateways(struct bulk *bulk, const struct bulk_gateway *gateways, uint32_t count)
{
    struct bulk_gateway now = {{0}, {0}};
    bool kept = false;

    if (bulk->gateway_count > 0)
        now = bulk->gateway[bulk->current];
    bulk->gateway_count = count < BULK_MAX_GATEWAYS ? count : BULK_MAX_GATEWAYS;
    memcpy(bulk->gateway, gateways, bulk->gateway_count * sizeof(gateways[0]));
    for (uint32_t i = 0; i < bulk->gateway_count && !kept; i++) {
        kept = same_gateway(&now, &bulk->gateway[i]);
        if (kept)
            bulk->current = i;
    }
    if (kept && bulk->socket)
        return;
    bulk->backoff_ms = BACKOFF_MIN;
    if (!kept)
        bulk->current = 0;
    drop_socket(bulk);
    evtimer_del(bulk->timer);
    if (bulk->gateway_count > 0)
        dial(bulk);
}
