#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/fleet_private.h"
#include "orchestrator/fleet/to_gateway.h"

static void waiting_free(struct waiting *waiting)
{
    explicit_bzero(&waiting->note, sizeof(waiting->note));
    free(waiting);
}

static struct waiting *waiting_new(struct fleet *fleet)
{
    struct waiting *waiting = mem_new(1, sizeof(*waiting));

    waiting->handle = ++fleet->last_handle;
    waiting->since_us = clock_mono_us();
    map_put_id(&fleet->waiting, waiting->handle, waiting);
    return waiting;
}

static void send_to(struct fleet *fleet, const void *peer, size_t peer_size,
                    const struct buf *bytes)
{
    /* A gateway that is gone asks again with the same idempotency key. */
    if (fleet->commands == NULL
        || zsock_send(fleet->commands, peer, peer_size, bytes->data, bytes->length) != 0)
        log_warn("fleet", "reply_lost", "bytes=%zu", bytes->length);
}

static void answer(struct fleet *fleet, const struct zmsg *message, uint64_t request,
                   const struct err *err)
{
    struct buf bytes;

    if (err->code != ERR_NONE)
        fleet->counters.commands_refused++;
    buf_init(&bytes, FRAME_MAX);
    to_gateway_error(request, err, &bytes);
    send_to(fleet, message->frame[0], message->size[0], &bytes);
    buf_fini(&bytes);
}

/* -- in -------------------------------------------------------------------------------------- */

static void take_hello(struct fleet *fleet, const Sheaf__GatewayHello *hello, struct err *err)
{
    struct gateway gateway;
    struct err disk = {0};

    if (from_gateway_hello(hello, &gateway, err) != 0 || !gateways_put(&fleet->gateways, &gateway))
        return;
    log_info("fleet", "gateway", "url=" LOG_Q " bulk=%u", gateway.url, gateway.bulk_count);
    if (gateways_save(&fleet->gateways, fleet->options.gateways_path, &disk) != 0)
        log_warn("fleet", "gateways_unsaved", "detail=" LOG_Q, disk.text);
    workers_welcome_all(fleet);
}

static void take_command(struct fleet *fleet, const struct zmsg *message,
                         const Sheaf__Command *command)
{
    struct event_box *box = NULL;
    struct command_note note;
    struct waiting *waiting;
    struct err err = {0};

    if (command->what_case == SHEAF__COMMAND__WHAT_HELLO)
        take_hello(fleet, command->hello, &err);
    else if (command->what_case != SHEAF__COMMAND__WHAT_PING) {
        if (fleet->waiting.count >= FLEET_MAX_WAITING)
            err_set(&err, ERR_UNAVAILABLE, "%u commands are in work", FLEET_MAX_WAITING);
        else if (from_gateway_command(command, fleet->last_handle + 1, clock_wall_us(), &box, &note,
                                      &err)
                 == 0) {
            waiting = waiting_new(fleet);
            memcpy(waiting->peer, message->frame[0], message->size[0]);
            waiting->peer_size = message->size[0];
            waiting->gateway_request = command->request;
            waiting->note = note;
            explicit_bzero(&note, sizeof(note));
            (void)engine_post(fleet->engine, box); /* refused: it has replied */
            return;
        }
    }
    answer(fleet, message, command->request, &err);
}

static void on_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct fleet *fleet = arg;
    const Sheaf__Command *command = NULL;
    struct frame_arena arena;

    (void)socket;
    fleet->counters.commands++;
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    if (message->count == 2 && !message->too_many && message->size[0] <= SESSION_MAX_PEER)
        command = (const Sheaf__Command *)(const void *)frame_decode(
            &sheaf__command__descriptor, message->frame[1], message->size[1], &arena);
    if (command) {
        take_command(fleet, message, command);
    } else {
        fleet->counters.commands_refused++;
        log_warn("fleet", "command_undecodable", "peer=" LOG_Q, message->peer);
    }
    frame_arena_fini(&arena);
}

/* -- out ------------------------------------------------------------------------------------- */

static void reply_here(const struct waiting *waiting, const struct reply *reply)
{
    waiting->on_token(&reply->err, waiting->note.secret, waiting->arg);
}

static void reply_gateway(struct fleet *fleet, const struct waiting *waiting,
                          const struct reply *reply, uint64_t seq)
{
    const char *control[FLEET_MAX_CONTROL];
    struct answer_facts facts = {
        .server_key = fleet->options.identity->curve.public_key,
        .sign_key = fleet->options.identity->sign.public_key,
        .asset = engine_policy(fleet->engine)->asset,
        .control = control,
        .control_count = fleet->endpoints.control_count,
    };
    struct buf bytes;

    for (uint32_t i = 0; i < facts.control_count; i++)
        control[i] = fleet->endpoints.control[i];
    buf_init(&bytes, FRAME_MAX);
    to_gateway_reply(waiting->gateway_request, reply, &waiting->note, &facts, seq, &bytes);
    send_to(fleet, waiting->peer, waiting->peer_size, &bytes);
    explicit_bzero(bytes.data, bytes.length); /* it may hold a secret */
    buf_fini(&bytes);
}

void commands_reply(struct fleet *fleet, const struct reply *reply, uint64_t seq)
{
    struct waiting *waiting = map_remove_id(&fleet->waiting, reply->request);

    if (waiting == NULL)
        return; /* answered before a reload, or timed out */
    if (waiting->peer_size == 0)
        reply_here(waiting, reply);
    else
        reply_gateway(fleet, waiting, reply, seq);
    waiting_free(waiting);
}

void fleet_make_token(struct fleet *fleet, enum role role, const char *secret,
                      fleet_on_token_f on_token, void *arg)
{
    struct waiting *waiting = waiting_new(fleet);

    waiting->on_token = on_token;
    waiting->arg = arg;
    snprintf(waiting->note.secret, sizeof(waiting->note.secret), "%s", secret);
    (void)engine_post(fleet->engine, system_token(role, secret, waiting->handle));
}

void commands_hint(struct fleet *fleet, const struct row *rows, uint32_t row_count, uint64_t seq)
{
    struct buf bytes;

    if (fleet->hints == NULL)
        return;
    buf_init(&bytes, FRAME_MAX);
    if (to_gateway_hint(rows, row_count, seq, &bytes)) {
        fleet->counters.hints++;
        /* PUB never blocks and drops for slow readers; the table `change` is the truth. */
        if (zsock_send(fleet->hints, NULL, 0, bytes.data, bytes.length) != 0)
            log_debug("fleet", "hint_lost", "seq=%" PRIu64, seq);
    }
    buf_fini(&bytes);
}

void commands_tick(struct fleet *fleet, int64_t now_us)
{
    uint32_t i = 0;

    while (i < fleet->waiting.count) {
        struct waiting *waiting = map_at(&fleet->waiting, i);
        struct reply late = {.request = waiting->handle};

        if (now_us - waiting->since_us < FLEET_WAIT_US) {
            i++;
            continue;
        }
        err_set(&late.err, ERR_UNAVAILABLE,
                "no commit within a minute; ask again with the same idempotency key");
        commands_reply(fleet, &late, 0); /* removes it: the last entry takes the hole */
    }
}

/* -- life ------------------------------------------------------------------------------------ */

int commands_open(struct fleet *fleet, struct err *err)
{
    struct zsock_options options = {
        .type = ZMQ_ROUTER,
        .server = &fleet->options.identity->curve,
        .zap_domain = FLEET_GATEWAY_DOMAIN,
        .max_frame = FRAME_MAX,
    };
    int rc = zsock_new(fleet->options.base, fleet->options.zmq, &options, on_message, fleet,
                       &fleet->commands, err);

    if (rc
        || (rc = zsock_bind(fleet->commands, fleet->options.command_bind, fleet->endpoints.command,
                            err)))
        return rc;
    options.type = ZMQ_PUB;
    rc = zsock_new(fleet->options.base, fleet->options.zmq, &options, NULL, fleet, &fleet->hints,
                   err);
    if (rc)
        return rc;
    return zsock_bind(fleet->hints, fleet->options.hint_bind, fleet->endpoints.hints, err);
}

void commands_free(struct fleet *fleet)
{
    for (uint32_t i = 0; i < fleet->waiting.count; i++)
        waiting_free(map_at(&fleet->waiting, i));
    map_fini(&fleet->waiting);
}
