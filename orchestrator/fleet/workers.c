#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/log.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/fleet_private.h"
#include "orchestrator/fleet/to_worker.h"
#include "orchestrator/fleet/wire.h"

/* One frame of an authenticated worker, decoded. */
struct arrival {
    struct fleet *fleet;
    struct session *session;
    const Sheaf__Envelope *envelope;
    const uint8_t *peer;
    size_t peer_size;
    struct worker_frame frame;
};

/* -- out ------------------------------------------------------------------------------------- */

static bool session_send(struct fleet *fleet, const struct session *session,
                         const struct buf *bytes)
{
    int rc;

    if (bytes->full || fleet->workers == NULL)
        return false;
    rc = zsock_send(fleet->workers, session->peer, session->peer_size, bytes->data, bytes->length);
    if (rc)
        log_debug("fleet", "unsent", "node=%" PRIu64 " reason=%s", session->node,
                  err_slug((enum err_code) - rc));
    return rc == 0;
}

/* The session to send to; NULL while the worker is away. What is durable comes again. */
static struct session *session_open_of(struct fleet *fleet, uint64_t node)
{
    struct session *session = sessions_of(fleet->sessions, node);

    return session && session->open ? session : NULL;
}

/* nonce: of the session that the peer believes in. */
static void answer_error(const struct arrival *at, const ProtobufCBinaryData *nonce,
                         uint64_t ref_seq, bool close, const struct err *err)
{
    struct fleet *fleet = at->fleet;
    struct buf bytes;

    fleet->counters.worker_refused++;
    if (at->peer_size == 0 || !session_may_answer(at->session, clock_mono_us()))
        return;
    log_warn("fleet", "refused", "node=%" PRIu64 " code=%s close=%d detail=" LOG_Q,
             at->session->node, err_slug(err->code), close, err->text);
    buf_init(&bytes, FRAME_MAX);
    /* A foreign size is not sent back: an error is small, whatever came. */
    to_worker_error(nonce->data, nonce->len == SESSION_NONCE ? nonce->len : 0, err, ref_seq, close,
                    &bytes);
    /* A peer that is gone or does not read gets no error: nothing depends on it. */
    if (zsock_send(fleet->workers, at->peer, at->peer_size, bytes.data, bytes.length) != 0)
        log_debug("fleet", "unsent", "node=%" PRIu64 " error=%s", at->session->node,
                  err_slug(err->code));
    buf_fini(&bytes);
}

/* What no honest worker does is a row of the node's history; at most one a minute. */
static void tell_offence(struct fleet *fleet, struct session *session, const struct err *err)
{
    if (session_may_tell(session, clock_mono_us()))
        engine_post(fleet->engine, from_worker_offence(session->node, err));
}

static bool is_offence(enum err_code code)
{
    return code == ERR_WIRE_IDENTITY || code == ERR_WIRE_SIGNATURE || code == ERR_WIRE_USAGE;
}

static void refuse(const struct arrival *at, bool close, const struct err *err)
{
    if (is_offence(err->code))
        tell_offence(at->fleet, at->session, err);
    answer_error(at, &at->envelope->session, at->envelope->seq, close, err);
}

void workers_greet_again(struct fleet *fleet)
{
    struct err err = {0};

    err_set(&err, ERR_WIRE_STATE, "the orchestrator read its state anew; say hello");
    for (uint32_t i = 0; i < sessions_count(fleet->sessions); i++) {
        struct session *session = sessions_at(fleet->sessions, i);
        struct buf bytes;

        if (!session->open)
            continue;
        buf_init(&bytes, FRAME_MAX);
        to_worker_error(session->nonce, SESSION_NONCE, &err, 0, true, &bytes);
        session_send(fleet, session, &bytes);
        buf_fini(&bytes);
        session_close(session); /* unsent: its next heartbeat is told the same */
    }
}

void workers_order(struct fleet *fleet, const struct order *order)
{
    struct session *session = session_open_of(fleet, order->node);
    struct order_seal seal = {&fleet->options.identity->sign, fleet->pair_secret, clock_wall_us()};
    uint64_t seed = 0;
    struct buf bytes;
    bool sent;

    if (session == NULL) {
        fleet->counters.orders_unsent++;
        return;
    }
    if (order->kind == ORDER_SELFTEST)
        seed = selftests_seed(session, order->device[0]);
    buf_init(&bytes, FRAME_MAX);
    to_worker_order(&seal, session, order, seed, &bytes);
    sent = session_send(fleet, session, &bytes);
    buf_fini(&bytes);
    if (sent)
        fleet->counters.orders++;
    else
        fleet->counters.orders_unsent++;
    log_debug(
        "fleet", "order", "kind=%s node=%" PRIu64 " attempt=%" PRIu64 " epoch=%u rank=%u sent=%d",
        order_kind_name(order->kind), order->node, order->attempt, order->epoch, order->rank, sent);
}

void workers_welcome(struct fleet *fleet, uint64_t node)
{
    struct session *session = session_open_of(fleet, node);
    struct buf bytes;

    if (session == NULL)
        return;
    buf_init(&bytes, FRAME_MAX);
    to_worker_welcome(session, fleet->options.term, (uint32_t)(fleet->options.heartbeat_us / 1000),
                      &fleet->gateways, fleet->options.identity->sign.public_key, &bytes);
    session_send(fleet, session, &bytes);
    buf_fini(&bytes);
}

void workers_welcome_all(struct fleet *fleet)
{
    for (uint32_t i = 0; i < sessions_count(fleet->sessions); i++)
        workers_welcome(fleet, sessions_at(fleet->sessions, i)->node);
}

void workers_status(struct fleet *fleet, uint64_t node)
{
    struct session *session = session_open_of(fleet, node);
    struct buf bytes;

    if (session == NULL || world_node(engine_world(fleet->engine), node) == NULL)
        return;
    buf_init(&bytes, FRAME_MAX);
    to_worker_status(session, engine_world(fleet->engine), &bytes);
    session_send(fleet, session, &bytes);
    buf_fini(&bytes);
}

static void send_ack(struct fleet *fleet, const struct session *session)
{
    struct buf bytes;

    buf_init(&bytes, FRAME_MAX);
    to_worker_ack(session, &bytes);
    session_send(fleet, session, &bytes);
    buf_fini(&bytes);
}

void workers_ack(struct fleet *fleet, uint64_t node, uint64_t seq)
{
    struct session *session = sessions_of(fleet->sessions, node);

    if (session && session_ack(session, seq))
        send_ack(fleet, session);
}

/* -- in -------------------------------------------------------------------------------------- */

/*
 * A durable message that the engine has no room for is lost here. Acknowledgements are cumulative,
 * so nothing after it may be taken in this session: it ends, and the next hello is followed by
 * everything that is not acknowledged.
 */
bool workers_post(struct fleet *fleet, struct session *session, struct event_box *box)
{
    bool durable = box->event.ack_node != 0;

    if (engine_post(fleet->engine, box))
        return true;
    if (durable && session != NULL) {
        log_warn("fleet", "full", "node=%" PRIu64 " seq=%" PRIu64, session->node,
                 session->next_seq - 1);
        session_close(session);
    }
    return false;
}

/* As workers_post(); whoever sent it is told to say hello again, and not sooner than it must. */
static bool take(const struct arrival *at, struct event_box *box)
{
    struct err err = {0};

    if (workers_post(at->fleet, at->session, box))
        return true;
    err_set(&err, ERR_UNAVAILABLE, "too much waits for the database; say hello");
    refuse(at, true, &err);
    return false;
}

static void note_life(const struct arrival *at)
{
    if (!liveness_seen(at->fleet->liveness, at->session->node))
        return;
    log_info("fleet", "back", "node=%" PRIu64, at->session->node);
    (void)engine_post(at->fleet->engine, from_worker_plain(EV_NODE_BACK, at->session->node));
}

static void take_hello(struct arrival *at)
{
    const Sheaf__Envelope *envelope = at->envelope;
    const Sheaf__Hello *wire = envelope->hello;
    struct session_hello hello = {
        .peer = at->peer,
        .peer_size = at->peer_size,
        .nonce = envelope->session.data,
        .nonce_size = envelope->session.len,
        .protocol_min = wire->protocol_min,
        .protocol_max = wire->protocol_max,
        .node = wire->node.data,
        .node_size = wire->node.len,
        .boot = wire->boot,
        .next_seq = wire->next_seq,
    };
    struct event_box *box = NULL;
    struct err err = {0};
    int rc = session_check_hello(at->session, &hello, &err);

    if (rc == 0)
        rc = from_worker_hello(&at->frame, wire, &box, &err);
    if (rc) {
        refuse(at, true, &err);
        return;
    }
    if (at->session->open && at->session->peer_size
        && (at->session->peer_size != at->peer_size
            || memcmp(at->session->peer, at->peer, at->peer_size) != 0))
        log_info("fleet", "superseded", "node=%" PRIu64, at->session->node);
    if (!take(at, box))
        return;
    session_open(at->session, &hello);
    log_info("fleet", "hello", "node=%" PRIu64 " boot=%" PRIu64 " tasks=%zu", at->session->node,
             wire->boot, wire->n_tasks);
    note_life(at);
}

/* Nothing to decide, but the worker may forget it: acknowledged in its turn, after a commit. */
static void post_bare_ack(const struct arrival *at)
{
    struct event_box *box;

    if (at->frame.seq == 0)
        return;
    box = from_worker_plain(EV_NODE_BACK, at->session->node);
    box->event.ack_node = at->session->node;
    box->event.ack_seq = at->frame.seq;
    (void)take(at, box);
}

/*
 * A message that decodes but says something impossible. It is answered and acknowledged, because a
 * worker would resend it for ever.
 */
static void refuse_for_good(const struct arrival *at, const struct err *err)
{
    refuse(at, false, err);
    if (err->code != ERR_TOO_MANY)
        post_bare_ack(at);
}

static void finish(const struct arrival *at, int rc, struct event_box *box, const struct err *err)
{
    if (rc == 0)
        (void)take(at, box);
    else
        refuse_for_good(at, err);
}

static void take_links(const struct arrival *at)
{
    const Sheaf__LinkReport *report = at->envelope->links;
    const struct engine *engine = at->fleet->engine;
    struct err err = {0};

    if (report->n_links > ORDER_MAX_PEERS) {
        err_set(&err, ERR_WIRE_DECODE, "%zu links in one report, at most %d", report->n_links,
                ORDER_MAX_PEERS);
        refuse(at, false, &err);
        return;
    }
    for (size_t i = 0; i < report->n_links; i++) {
        struct ev_link link;
        int rc = from_worker_link(&at->frame, report->links[i], &link, &err);

        if (rc) {
            refuse(at, false, &err);
            return;
        }
        if (world_node(engine_world(engine), link.to) == NULL)
            continue; /* it left while it was measured */
        if (!links_news(at->fleet->links, &link, clock_mono_us(),
                        engine_policy(engine)->link_max_age_us)) {
            at->fleet->counters.links_kept_back++;
            continue;
        }
        (void)engine_post(at->fleet->engine, from_worker_link_box(&link, report->links[i]));
    }
}

static void take_selftest(const struct arrival *at)
{
    struct err err = {0};
    int rc = selftests_take(at->fleet, at->session, &at->frame, at->envelope->selftest, &err);

    if (rc)
        refuse_for_good(at, &err);
}

static void take_bye(const struct arrival *at)
{
    log_info("fleet", "bye", "node=%" PRIu64, at->session->node);
    session_close(at->session);
    (void)engine_post(at->fleet->engine, from_worker_plain(EV_NODE_BYE, at->session->node));
}

/* A wrong clock harms its own node alone, which refuses our orders as expired: say so. */
static void take_clock(const struct arrival *at, uint64_t sent_us)
{
    int64_t wall_us = clock_wall_us();
    struct err err = {0};

    if (!session_clock(at->session, sent_us, wall_us))
        return;
    err_set(&err, ERR_CLOCK_SKEW, "the worker's clock is %" PRId64 " s off",
            (int64_t)(sent_us - (uint64_t)wall_us) / 1000000);
    log_warn("fleet", "clock_skew", "node=%" PRIu64 " detail=" LOG_Q, at->session->node, err.text);
    tell_offence(at->fleet, at->session, &err);
}

/*
 * A task that ended is an honest worker's late news: the core tells it to forget. One of another
 * node, or of a future that we never ordered, is a lie.
 */
static int check_fence(const struct arrival *at, const struct task_claim *task, bool *ret_future,
                       struct err *err)
{
    const struct world *world = engine_world(at->fleet->engine);
    enum attempt_claim claim = world_attempt_claim(world, at->session->node, task);

    *ret_future = claim == CLAIM_FUTURE || task->term > at->fleet->options.term;
    if (*ret_future)
        return err_set(err, ERR_WIRE_FENCE,
                       "attempt %" PRIu64 " term %u epoch %u was never ordered", task->attempt,
                       task->term, task->epoch);
    if (claim == CLAIM_FOREIGN)
        return err_set(err, ERR_WIRE_FENCE, "attempt %" PRIu64 " does not run on this node",
                       task->attempt);
    return 0;
}

static void take_task(const struct arrival *at)
{
    const Sheaf__TaskEvent *task = at->envelope->task_event;
    struct event_box *box = NULL;
    struct err err = {0};
    bool future = false;
    int rc = check_fence(at, &(struct task_claim){task->attempt, task->term, task->epoch}, &future,
                         &err);

    if (rc) {
        tell_offence(at->fleet, at->session, &err);
        refuse(at, future, &err);
        post_bare_ack(at);
        if (future)
            session_close(at->session);
        return;
    }
    rc = from_worker_task(&at->frame, task, &box, &err);
    finish(at, rc, box, &err);
}

static void take_body(const struct arrival *at)
{
    struct event_box *box = NULL;
    struct err err = {0};
    int rc;

    switch (at->envelope->body_case) {
    case SHEAF__ENVELOPE__BODY_HEARTBEAT:
        take_clock(at, at->envelope->heartbeat->sent_us);
        send_ack(at->fleet, at->session); /* a sign of our life for a sign of its */
        return;
    case SHEAF__ENVELOPE__BODY_ONLY_ACK:
        return;
    case SHEAF__ENVELOPE__BODY_TASK_EVENT:
        take_task(at);
        return;
    case SHEAF__ENVELOPE__BODY_RECEIPT:
        rc = from_worker_receipt(&at->frame, at->envelope->receipt, &box, &err);
        finish(at, rc, box, &err);
        return;
    case SHEAF__ENVELOPE__BODY_NOTICE:
        rc = from_worker_notice(&at->frame, at->envelope->notice, &box, &err);
        finish(at, rc, box, &err);
        return;
    case SHEAF__ENVELOPE__BODY_LINKS:
        take_links(at);
        return;
    case SHEAF__ENVELOPE__BODY_SELFTEST:
        take_selftest(at);
        return;
    case SHEAF__ENVELOPE__BODY_BYE:
        take_bye(at);
        return;
    case SHEAF__ENVELOPE__BODY_ERROR:
        log_warn("fleet", "worker_error", "node=%" PRIu64 " code=" LOG_Q " detail=" LOG_Q,
                 at->session->node, at->envelope->error->code, at->envelope->error->detail);
        return;
    case SHEAF__ENVELOPE__BODY__NOT_SET: /* or a body of a later protocol */
    case SHEAF__ENVELOPE__BODY_HELLO:
    case SHEAF__ENVELOPE__BODY_WELCOME:
    case SHEAF__ENVELOPE__BODY_ORDER:
    case SHEAF__ENVELOPE__BODY_STATUS:
    default:
        (void)err_set(&err, ERR_WIRE_UNKNOWN_TYPE, "not a message that a worker sends");
        refuse_for_good(at, &err);
    }
}

static void take_message(const struct arrival *at)
{
    const Sheaf__Envelope *envelope = at->envelope;
    struct err err = {0};

    if (envelope->protocol != SESSION_PROTOCOL) {
        err_set(&err, ERR_WIRE_VERSION, "the message is of protocol %" PRIu32 ", we speak %u",
                envelope->protocol, SESSION_PROTOCOL);
        refuse(at, true, &err);
        return;
    }
    enum session_fate fate =
        session_message(at->session, at->peer, at->peer_size, envelope->session.data,
                        envelope->session.len, envelope->seq, &err);

    if (fate == SESSION_REFUSE) {
        refuse(at, true, &err);
        return;
    }
    note_life(at);
    if (fate == SESSION_ACKED)
        send_ack(at->fleet, at->session);
    else
        take_body(at);
}

static void take_wrong(struct arrival *at, enum err_code code, const char *what)
{
    /* The frame says no session; a peer only listens to answers of the one it has. */
    ProtobufCBinaryData nonce = wire_bytes(at->session->nonce, SESSION_NONCE);
    bool dropped = session_wrong(at->session, clock_mono_us());
    struct err err = {0};

    at->fleet->counters.worker_wrong++;
    err_set(&err, code, "%s%s", what, dropped ? "; too many of these: dropped for a minute" : "");
    if (dropped)
        tell_offence(at->fleet, at->session, &err);
    answer_error(at, &nonce, 0, dropped, &err);
}

/* NULL, or what is wrong with the message as it lies there. */
static const char *check_shape(const struct arrival *at, const struct zmsg *message)
{
    if (message->count != 2 || message->too_many)
        return "one frame is one message";
    if (message->size[1] == 0)
        return "an empty frame";
    if (message->size[1] > FRAME_MAX)
        return "more than 1 MiB";
    if (!at->session->open && message->size[1] > FRAME_MAX_FIRST)
        return "more than 256 KiB before a hello was taken";
    return NULL;
}

static void on_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct fleet *fleet = arg;
    struct arrival at = {.fleet = fleet};
    struct frame_arena arena;
    uint8_t key[KEY_SIZE];

    (void)socket;
    fleet->counters.worker_messages++;
    if (hex_parse(message->user_id, sizeof(key), key) == 0)
        at.session = sessions_arrive(fleet->sessions, key, clock_mono_us());
    if (at.session == NULL) {
        fleet->counters.worker_dropped++;
        return;
    }
    at.peer = message->frame[0];
    at.peer_size = message->size[0];
    const char *wrong = check_shape(&at, message);
    if (wrong != NULL) {
        take_wrong(&at, ERR_WIRE_ENVELOPE, wrong);
        return;
    }
    at.frame.bytes = message->frame[1];
    at.frame.size = message->size[1];
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    at.envelope = (const Sheaf__Envelope *)(const void *)frame_decode(
        &sheaf__envelope__descriptor, message->frame[1], message->size[1], &arena);
    if (at.envelope == NULL) {
        take_wrong(&at, ERR_WIRE_DECODE, "the message could not be decoded");
    } else {
        const struct node_row *node = world_node(engine_world(fleet->engine), at.session->node);

        at.frame.node = at.session->node;
        at.frame.uid = &at.session->uid;
        at.frame.sign_key = node ? node->sign_key : key; /* no node: no signature fits */
        at.frame.seq = at.envelope->seq;
        if (at.envelope->body_case == SHEAF__ENVELOPE__BODY_HELLO) {
            at.frame.seq = 0; /* answered by Welcome, never by an acknowledgement */
            take_hello(&at);
        } else {
            take_message(&at);
        }
    }
    frame_arena_fini(&arena);
}

/* -- connections ----------------------------------------------------------------------------- */

void workers_hang_up(struct fleet *fleet, const uint8_t key[KEY_SIZE])
{
    map_put(&fleet->hang_up, key, KEY_SIZE, fleet);
}

static void end_connections(struct fleet *fleet, const uint8_t key[KEY_SIZE])
{
    char user_id[2 * KEY_SIZE + 1];

    if (fleet->workers != NULL)
        zsock_end_peer(fleet->workers, hex_format(key, KEY_SIZE, user_id));
}

/* A connection that did not end its message was ended; its key stays out for a minute. */
static void on_flood(struct zsock *socket, const struct peers_cut *cut, void *arg)
{
    struct fleet *fleet = arg;
    struct session *session = NULL;
    struct err err = {0};
    uint8_t key[KEY_SIZE];

    (void)socket;
    if (cut->age_us > PEERS_IDLE_US)
        return; /* heartbeats of days; it comes back */
    fleet->counters.worker_floods++;
    if (hex_parse(cut->user_id, sizeof(key), key) == 0)
        session = sessions_arrive(fleet->sessions, key, clock_mono_us());
    log_warn("fleet", "flood", "node=%" PRIu64 " address=%s bytes=%" PRIu64,
             session ? session->node : 0, cut->address, cut->held);
    if (session == NULL)
        return;
    session_close(session);
    zap_suspend(fleet->options.zap, FLEET_WORKER_DOMAIN, key, FLEET_FLOOD_US);
    end_connections(fleet, key); /* its others */
    err_set(&err, ERR_FLOOD, "%" PRIu64 " bytes of a message that did not end, from %s", cut->held,
            cut->address);
    tell_offence(fleet, session, &err);
}

int workers_open(struct fleet *fleet, struct err *err)
{
    struct zsock_options options = {
        .type = ZMQ_ROUTER,
        .server = &fleet->options.identity->curve,
        .zap_domain = FLEET_WORKER_DOMAIN,
        /* A frame between the two is answered, not only cut off; the cap on memory is `held`. */
        .max_frame = 2 * FRAME_MAX,
        .held = {.one = FLEET_HELD_ONE, .all = FLEET_HELD_ALL, .spare = FLEET_HELD_SPARE},
        .on_cut = on_flood,
    };
    int rc = zsock_new(fleet->options.base, fleet->options.zmq, &options, on_message, fleet,
                       &fleet->workers, err);

    if (rc)
        return rc;
    return zsock_bind(fleet->workers, fleet->options.worker_bind, fleet->endpoints.worker, err);
}

static void on_silent(uint64_t node, void *arg)
{
    struct fleet *fleet = arg;

    log_warn("fleet", "silent", "node=%" PRIu64, node);
    (void)engine_post(fleet->engine, from_worker_plain(EV_NODE_SILENT, node));
}

/* One whole tick after it was asked for. */
static void hang_up_due(struct fleet *fleet)
{
    for (uint32_t i = 0; i < fleet->hang_up.count;) {
        struct map_entry *entry = &fleet->hang_up.entries[i];
        uint8_t key[KEY_SIZE];

        if (entry->value != NULL) {
            entry->value = NULL;
            i++;
            continue;
        }
        memcpy(key, entry->key, sizeof(key));
        map_remove(&fleet->hang_up, key, sizeof(key));
        end_connections(fleet, key);
    }
    for (uint32_t i = 0; i < sessions_count(fleet->sessions); i++) {
        struct session *session = sessions_at(fleet->sessions, i);

        if (session->hang_up)
            workers_hang_up(fleet, session->key);
        session->hang_up = false;
    }
}

void workers_tick(struct fleet *fleet, int64_t now_us)
{
    hang_up_due(fleet);
    liveness_tick(fleet->liveness, now_us, on_silent, fleet);
}
