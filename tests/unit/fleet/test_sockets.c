/*
 * The fleet over real ZeroMQ with CURVE and ZAP: a worker and a gateway of a few lines each on the
 * other side, and an engine that commits whatever the test says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/pure/mem.h"
#include "common/pure/selftest.h"
#include "orchestrator/fleet/fleet_private.h"
#include "orchestrator/fleet/to_worker.h"
#include "orchestrator/fleet/wire.h"

#define WAIT_US  ((int64_t)10000000)
#define NEXT_ID  100 /* what was never ordered has this number, or a greater one */
#define NODE     ((uint64_t)7)
#define MAILBOX  64
#define TEST_MIB 64u

/* -- an engine that keeps what is posted ----------------------------------------------------- */

struct engine {
    struct world *world;
    struct policy policy;
    struct event_box *box[MAILBOX];
    uint32_t count;
    bool full;
    uint32_t refused;
};

bool engine_post(struct engine *engine, struct event_box *box)
{
    if (engine->full) {
        engine->refused++;
        event_box_free(box);
        return false;
    }
    assert_true(engine->count < MAILBOX);
    engine->box[engine->count++] = box;
    return true;
}

const struct world *engine_world(const struct engine *engine)
{
    return engine->world;
}

const struct policy *engine_policy(const struct engine *engine)
{
    return &engine->policy;
}

/* -- the stage ------------------------------------------------------------------------------- */

struct peer {
    struct zsock *socket;
    struct frame_arena arena;
    struct buf inbox[MAILBOX]; /* whole messages */
    uint32_t count;
    uint64_t seq;
    char nonce[SESSION_NONCE + 1];
};

struct stage {
    struct event_base *base;
    struct event *beat; /* wakes the loop to look at conditions */
    void *zmq;
    struct zap *zap;
    struct identity identity;
    struct identity worker;
    struct curve_pair gateway;
    struct engine engine;
    struct fleet *fleet;
    struct engine_hooks hooks;
    char folder[64];
    char gateways_path[96];
    struct uuid uid;
};

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

static struct row node_row_of(const struct stage *stage)
{
    struct row row = {.kind = ROW_NODE};

    row.node.id = NODE;
    row.node.uid = stage->uid;
    row.node.provider = 1;
    snprintf(row.node.name, sizeof(row.node.name), "atlas-1");
    row.node.state = NODE_PROBING;
    memcpy(row.node.curve_key, stage->worker.curve.public_key, KEY_SIZE);
    memcpy(row.node.sign_key, stage->worker.sign.public_key, KEY_SIZE);
    return row;
}

static struct row device_row_of(void)
{
    struct row row = {.kind = ROW_DEVICE};

    row.device.id = 70;
    row.device.node = NODE;
    row.device.nominal_mib = TEST_MIB;
    snprintf(row.device.uuid, sizeof(row.device.uuid), "GPU-0");
    snprintf(row.device.model, sizeof(row.device.model), "test");
    return row;
}

static void stage_world(struct stage *stage)
{
    struct row provider = {.kind = ROW_PROVIDER, .provider = {.id = 1, .name = "acme"}};
    struct row node = node_row_of(stage);
    struct row device = device_row_of();

    stage->engine.world = world_new();
    policy_default(&stage->engine.policy);
    world_apply(stage->engine.world, &provider);
    world_apply(stage->engine.world, &node);
    world_apply(stage->engine.world, &device);
    world_apply(stage->engine.world,
                &(struct row){.kind = ROW_CONTROL, .control = {.next_id = NEXT_ID}});
}

static int stage_open_beating(void **state, int64_t heartbeat_us)
{
    struct stage *stage = mem_new(1, sizeof(*stage));
    struct timeval often = {0, 5000};
    struct fleet_options options;
    struct err err = {0};

    snprintf(stage->folder, sizeof(stage->folder), "/tmp/sheaf-fleet-XXXXXX");
    assert_non_null(mkdtemp(stage->folder));
    snprintf(stage->gateways_path, sizeof(stage->gateways_path), "%s/gateways.json", stage->folder);
    stage->base = loop_new();
    stage->beat = event_new(stage->base, -1, EV_PERSIST, on_beat, NULL);
    event_add(stage->beat, &often);
    stage->zmq = zmq_ctx_new();
    stage->zap = zap_new(stage->zmq);
    stage->uid = uuid_new();
    curve_pair_make(&stage->identity.curve);
    sign_pair_make(&stage->identity.sign);
    curve_pair_make(&stage->worker.curve);
    sign_pair_make(&stage->worker.sign);
    curve_pair_make(&stage->gateway);
    stage_world(stage);
    options = (struct fleet_options){
        .base = stage->base,
        .zmq = stage->zmq,
        .zap = stage->zap,
        .identity = &stage->identity,
        .worker_bind = "tcp://127.0.0.1:0",
        .command_bind = "tcp://127.0.0.1:0",
        .hint_bind = "tcp://127.0.0.1:0",
        .gateways_path = stage->gateways_path,
        .term = 3,
        .heartbeat_us = heartbeat_us,
    };
    memcpy(options.gateway_key, stage->gateway.public_key, KEY_SIZE);
    stage->fleet = fleet_new(&options);
    stage->hooks = fleet_hooks(stage->fleet);
    if (fleet_open(stage->fleet, &stage->engine, &err) != 0)
        fail_msg("%s", err.text);
    *state = stage;
    return 0;
}

static int stage_open(void **state)
{
    return stage_open_beating(state, 5000000);
}

static int stage_open_fast(void **state)
{
    return stage_open_beating(state, 100000);
}

static int stage_close(void **state)
{
    struct stage *stage = *state;

    fleet_free(stage->fleet);
    for (uint32_t i = 0; i < stage->engine.count; i++)
        event_box_free(stage->engine.box[i]);
    world_free(stage->engine.world);
    event_free(stage->beat);
    zap_free(stage->zap);
    zmq_ctx_term(stage->zmq);
    event_base_free(stage->base);
    unlink(stage->gateways_path);
    rmdir(stage->folder);
    free(stage);
    return 0;
}

typedef bool (*condition_f)(const struct stage *stage, const struct peer *peer, uint64_t value);

static void until(struct stage *stage, const struct peer *peer, condition_f holds, uint64_t value)
{
    int64_t deadline_us = clock_mono_us() + WAIT_US;

    while (!holds(stage, peer, value)) {
        if (clock_mono_us() > deadline_us)
            fail_msg("nothing came within 10 s");
        event_base_loop(stage->base, EVLOOP_ONCE);
    }
}

static bool posted(const struct stage *stage, const struct peer *peer, uint64_t value)
{
    (void)peer;
    return stage->engine.count >= value;
}

static bool received(const struct stage *stage, const struct peer *peer, uint64_t value)
{
    (void)stage;
    return peer->count >= value;
}

static bool refused(const struct stage *stage, const struct peer *peer, uint64_t value)
{
    (void)peer;
    return zap_refused(stage->zap) >= value;
}

static bool dropped(const struct stage *stage, const struct peer *peer, uint64_t value)
{
    (void)peer;
    return stage->fleet->counters.worker_dropped >= value;
}

static bool heard(const struct stage *stage, const struct peer *peer, uint64_t value)
{
    (void)peer;
    return stage->fleet->counters.worker_messages >= value;
}

static const struct event *last_event(const struct stage *stage)
{
    return &stage->engine.box[stage->engine.count - 1]->event;
}

/* -- the other side -------------------------------------------------------------------------- */

static void on_peer_message(struct zsock *socket, const struct zmsg *message, void *arg)
{
    struct peer *peer = arg;

    (void)socket;
    assert_true(peer->count < MAILBOX);
    buf_init(&peer->inbox[peer->count], 0);
    buf_append(&peer->inbox[peer->count++], message->frame[message->count - 1],
               message->size[message->count - 1]);
}

static void peer_open(struct stage *stage, struct peer *peer, int type,
                      const struct curve_pair *pair, const char *endpoint)
{
    struct zsock_options options = {.type = type,
                                    .client = pair,
                                    .server_key = stage->identity.curve.public_key,
                                    .subscribe = type == ZMQ_SUB ? "" : NULL,
                                    .max_frame = FRAME_MAX};
    struct err err = {0};

    *peer = (struct peer){0};
    static unsigned opened;
    snprintf(peer->nonce, sizeof(peer->nonce), "%08x", ++opened);
    frame_arena_init(&peer->arena, FRAME_MAX_BUDGET);
    if (zsock_new(stage->base, stage->zmq, &options, on_peer_message, peer, &peer->socket, &err)
            != 0
        || zsock_connect(peer->socket, endpoint, &err) != 0)
        fail_msg("%s", err.text);
}

static void peer_close(struct peer *peer)
{
    zsock_free(peer->socket);
    frame_arena_fini(&peer->arena);
    for (uint32_t i = 0; i < peer->count; i++)
        buf_fini(&peer->inbox[i]);
}

static const ProtobufCMessage *peer_read(struct peer *peer, const ProtobufCMessageDescriptor *type,
                                         uint32_t index)
{
    const ProtobufCMessage *message =
        frame_decode(type, peer->inbox[index].data, peer->inbox[index].length, &peer->arena);

    assert_non_null(message);
    return message;
}

static const Sheaf__Envelope *worker_read(struct peer *peer, uint32_t index)
{
    return (const Sheaf__Envelope *)(const void *)peer_read(peer, &sheaf__envelope__descriptor,
                                                            index);
}

static const Sheaf__CommandReply *gateway_read(struct peer *peer, uint32_t index)
{
    return (const Sheaf__CommandReply *)(const void *)peer_read(
        peer, &sheaf__command_reply__descriptor, index);
}

static void peer_send(struct peer *peer, const ProtobufCMessage *message)
{
    struct buf bytes;

    buf_init(&bytes, 0);
    frame_encode(message, &bytes);
    assert_int_equal(zsock_send(peer->socket, NULL, 0, bytes.data, bytes.length), 0);
    buf_fini(&bytes);
}

static Sheaf__Envelope envelope_of(const struct peer *peer, uint64_t seq)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;

    envelope.protocol = 1;
    envelope.session = wire_bytes(peer->nonce, SESSION_NONCE);
    envelope.seq = seq;
    return envelope;
}

static void worker_hello(struct stage *stage, struct peer *peer)
{
    Sheaf__Envelope envelope = envelope_of(peer, 0);
    Sheaf__Hello hello = SHEAF__HELLO__INIT;
    Sheaf__Claim claim = SHEAF__CLAIM__INIT;

    claim.name = wire_text("atlas-1");
    claim.address = wire_text("127.0.0.1");
    claim.port_low = 20000;
    claim.port_high = 20015;
    claim.probe_port = 20016;
    hello.protocol_min = 1;
    hello.protocol_max = 1;
    hello.node = wire_bytes(stage->uid.bytes, 16);
    hello.boot = 1;
    hello.next_seq = 1;
    hello.claim = &claim;
    envelope.body_case = SHEAF__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    peer_send(peer, &envelope.base);
}

static void worker_beat(struct peer *peer)
{
    Sheaf__Envelope envelope = envelope_of(peer, 0);
    Sheaf__Heartbeat beat = SHEAF__HEARTBEAT__INIT;

    envelope.body_case = SHEAF__ENVELOPE__BODY_HEARTBEAT;
    envelope.heartbeat = &beat;
    peer_send(peer, &envelope.base);
}

static void worker_news(struct peer *peer, const char *news, uint64_t seq)
{
    Sheaf__Envelope envelope = envelope_of(peer, seq);
    Sheaf__TaskEvent task = SHEAF__TASK_EVENT__INIT;

    task.attempt = 5;
    task.news = wire_text(news);
    envelope.body_case = SHEAF__ENVELOPE__BODY_TASK_EVENT;
    envelope.task_event = &task;
    peer_send(peer, &envelope.base);
}

/* Connects, says hello, and gets the welcome that a commit would justify. */
static void worker_join(struct stage *stage, struct peer *peer)
{
    struct effect welcome = {.kind = FX_WELCOME, .node = {.node = NODE}};
    uint32_t before = stage->engine.count;

    peer_open(stage, peer, ZMQ_DEALER, &stage->worker.curve, fleet_endpoints(stage->fleet)->worker);
    worker_hello(stage, peer);
    until(stage, peer, posted, before + 1);
    assert_int_equal(last_event(stage)->kind, EV_NODE_HELLO);
    assert_int_equal(last_event(stage)->hello.node, NODE);
    stage->hooks.on_effect(&welcome, 1, stage->hooks.arg);
    until(stage, peer, received, 1);
    assert_int_equal(worker_read(peer, 0)->body_case, SHEAF__ENVELOPE__BODY_WELCOME);
}

/* -- workers --------------------------------------------------------------------------------- */

static void test_unknown_key_is_refused_at_the_handshake(void **state)
{
    struct stage *stage = *state;
    struct curve_pair stranger;
    struct peer peer;

    curve_pair_make(&stranger);
    peer_open(stage, &peer, ZMQ_DEALER, &stranger, fleet_endpoints(stage->fleet)->worker);
    worker_hello(stage, &peer);
    until(stage, &peer, refused, 1);
    /* The gateway's key opens its own door alone. */
    peer_close(&peer);
    peer_open(stage, &peer, ZMQ_DEALER, &stage->gateway, fleet_endpoints(stage->fleet)->worker);
    worker_hello(stage, &peer);
    until(stage, &peer, refused, 2);
    assert_int_equal(stage->engine.count, 0);
    assert_int_equal(stage->fleet->counters.worker_messages, 0);
    peer_close(&peer);
}

static void test_enrolled_key_is_welcomed(void **state)
{
    struct stage *stage = *state;
    const Sheaf__Welcome *welcome;
    struct peer peer;

    worker_join(stage, &peer);
    welcome = worker_read(&peer, 0)->welcome;
    assert_int_equal(welcome->protocol, 1);
    assert_int_equal(welcome->term, 3);
    assert_int_equal(welcome->heartbeat_ms, 5000);
    assert_int_equal(welcome->n_gateways, 0);
    assert_memory_equal(welcome->sign_key.data, stage->identity.sign.public_key, KEY_SIZE);
    assert_memory_equal(worker_read(&peer, 0)->session.data, peer.nonce, SESSION_NONCE);
    assert_int_equal(fleet_counters(stage->fleet).sessions, 1);
    peer_close(&peer);
}

static void test_nothing_is_taken_before_hello(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    peer_open(stage, &peer, ZMQ_DEALER, &stage->worker.curve,
              fleet_endpoints(stage->fleet)->worker);
    worker_news(&peer, "ready", 1);
    until(stage, &peer, received, 1);
    assert_int_equal(worker_read(&peer, 0)->body_case, SHEAF__ENVELOPE__BODY_ERROR);
    assert_string_equal(worker_read(&peer, 0)->error->code, "wrong-state");
    assert_true(worker_read(&peer, 0)->error->close);
    assert_int_equal(worker_read(&peer, 0)->error->ref_seq, 1);
    assert_int_equal(stage->engine.count, 0);
    peer_close(&peer);
}

static void test_durable_messages_are_acknowledged_after_the_commit(void **state)
{
    struct stage *stage = *state;
    struct effect ack = {.kind = FX_ACK, .node = {.node = NODE, .seq = 1}};
    struct peer peer;

    worker_join(stage, &peer);
    worker_news(&peer, "ready", 1);
    until(stage, &peer, posted, 2);
    assert_int_equal(last_event(stage)->kind, EV_TASK);
    assert_int_equal(last_event(stage)->ack_node, NODE);
    assert_int_equal(last_event(stage)->ack_seq, 1);
    assert_int_equal(peer.count, 1); /* nothing is said before the commit */
    stage->hooks.on_effect(&ack, 2, stage->hooks.arg);
    until(stage, &peer, received, 2);
    assert_int_equal(worker_read(&peer, 1)->body_case, SHEAF__ENVELOPE__BODY_ONLY_ACK);
    assert_int_equal(worker_read(&peer, 1)->ack, 1);
    worker_news(&peer, "ready", 1); /* resent: acknowledged again, decided once */
    until(stage, &peer, received, 3);
    assert_int_equal(worker_read(&peer, 2)->ack, 1);
    assert_int_equal(stage->engine.count, 2);
    peer_close(&peer);
}

static bool turned_away(const struct stage *stage, const struct peer *peer, uint64_t value)
{
    (void)peer;
    return stage->engine.refused >= value;
}

/* A cumulative acknowledgement of what follows would make the worker forget it. */
static void test_what_a_full_engine_drops_ends_the_session(void **state)
{
    struct stage *stage = *state;
    struct effect ack = {.kind = FX_ACK, .node = {.node = NODE, .seq = 2}};
    struct peer peer;

    worker_join(stage, &peer);
    stage->engine.full = true;
    worker_news(&peer, "ready", 1);
    until(stage, &peer, turned_away, 1);
    stage->engine.full = false;
    worker_news(&peer, "started", 2);
    until(stage, &peer, received, 3);
    assert_string_equal(worker_read(&peer, 1)->error->code, "temporarily-unavailable");
    assert_true(worker_read(&peer, 1)->error->close);
    assert_string_equal(worker_read(&peer, 2)->error->code, "wrong-state");
    assert_int_equal(stage->engine.count, 1); /* the hello: nothing behind the gap is taken */
    stage->hooks.on_effect(&ack, 2, stage->hooks.arg);
    assert_int_equal(sessions_of(stage->fleet->sessions, NODE)->acked, 0);
    peer_close(&peer);

    worker_join(stage, &peer); /* and sends again what was not acknowledged */
    worker_news(&peer, "ready", 1);
    worker_news(&peer, "started", 2);
    until(stage, &peer, posted, 4);
    assert_int_equal(last_event(stage)->ack_seq, 2);
    peer_close(&peer);
}

static void test_a_full_engine_takes_no_hello(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    stage->engine.full = true;
    peer_open(stage, &peer, ZMQ_DEALER, &stage->worker.curve,
              fleet_endpoints(stage->fleet)->worker);
    worker_hello(stage, &peer);
    until(stage, &peer, received, 1);
    assert_string_equal(worker_read(&peer, 0)->error->code, "temporarily-unavailable");
    assert_int_equal(fleet_counters(stage->fleet).sessions, 0);
    peer_close(&peer);
}

static void test_nonsense_is_answered_and_still_acknowledged(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    worker_join(stage, &peer);
    worker_news(&peer, "levitating", 1);
    until(stage, &peer, received, 2);
    assert_int_equal(worker_read(&peer, 1)->body_case, SHEAF__ENVELOPE__BODY_ERROR);
    assert_string_equal(worker_read(&peer, 1)->error->code, "unknown-type");
    assert_false(worker_read(&peer, 1)->error->close);
    /* A worker resends what is not acknowledged, for ever: an empty event carries the number. */
    until(stage, &peer, posted, 2);
    assert_int_equal(last_event(stage)->ack_seq, 1);
    peer_close(&peer);
}

static void test_three_undecodable_frames_end_the_session(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    worker_join(stage, &peer);
    for (int i = 0; i < 3; i++)
        assert_int_equal(zsock_send(peer.socket, NULL, 0, "\xff\xff\xff", 3), 0);
    until(stage, &peer, received, 4);
    assert_false(worker_read(&peer, 2)->error->close);
    assert_true(worker_read(&peer, 3)->error->close);
    assert_int_equal(last_event(stage)->kind, EV_NODE_OFFENCE);
    assert_int_equal(last_event(stage)->offence.reason, ERR_WIRE_DECODE);
    worker_beat(&peer);
    until(stage, &peer, dropped, 1);
    assert_int_equal(stage->engine.count, 2);
    assert_int_equal(fleet_counters(stage->fleet).sessions, 0);
    peer_close(&peer);
}

static void test_the_newest_session_of_a_key_wins(void **state)
{
    struct stage *stage = *state;
    struct effect status = {.kind = FX_NODE_STATUS, .node = {.node = NODE}};
    struct peer old, young;

    worker_join(stage, &old);
    worker_join(stage, &young);
    stage->hooks.on_effect(&status, 2, stage->hooks.arg);
    until(stage, &young, received, 2);
    assert_int_equal(worker_read(&young, 1)->body_case, SHEAF__ENVELOPE__BODY_STATUS);
    assert_string_equal(worker_read(&young, 1)->status->name, "atlas-1");
    assert_string_equal(worker_read(&young, 1)->status->state, "probing");
    assert_int_equal(worker_read(&young, 1)->status->n_devices, 1);
    worker_news(&old, "ready", 1);
    until(stage, &old, received, 2);
    assert_string_equal(worker_read(&old, 1)->error->code, "wrong-state");
    assert_int_equal(stage->engine.count, 2); /* two hellos, nothing else */
    peer_close(&old);
    peer_close(&young);
}

static void test_frames_of_a_revoked_key_are_dropped_at_once(void **state)
{
    struct stage *stage = *state;
    struct effect keys = {.kind = FX_NODE_KEYS, .keys = {.node = NODE, .live = false}};
    struct peer peer;

    memcpy(keys.keys.curve_key, stage->worker.curve.public_key, KEY_SIZE);
    worker_join(stage, &peer);
    stage->hooks.on_effect(&keys, 2, stage->hooks.arg);
    worker_news(&peer, "ready", 1); /* over the connection that still stands */
    until(stage, &peer, dropped, 1);
    assert_int_equal(stage->engine.count, 1);
    assert_int_equal(peer.count, 1);
    assert_false(zap_is_allowed(stage->zap, FLEET_WORKER_DOMAIN, stage->worker.curve.public_key));
    keys.keys.live = true;
    stage->hooks.on_effect(&keys, 3, stage->hooks.arg);
    assert_true(zap_is_allowed(stage->zap, FLEET_WORKER_DOMAIN, stage->worker.curve.public_key));
    peer_close(&peer);
}

static void test_orders_reach_the_worker_signed(void **state)
{
    struct stage *stage = *state;
    struct effect effect = {.kind = FX_ORDER, .order = {.kind = ORDER_STOP, .node = NODE}};
    const Sheaf__SignedOrder *sealed;
    struct peer peer;

    stage->hooks.on_effect(&effect, 1, stage->hooks.arg); /* nobody is there: the core repeats */
    assert_int_equal(stage->fleet->counters.orders_unsent, 1);
    worker_join(stage, &peer);
    stage->hooks.on_effect(&effect, 2, stage->hooks.arg);
    until(stage, &peer, received, 2);
    assert_int_equal(worker_read(&peer, 1)->body_case, SHEAF__ENVELOPE__BODY_ORDER);
    sealed = worker_read(&peer, 1)->order;
    assert_true(sign_verify(stage->identity.sign.public_key, SIGN_DOMAIN_ORDER, sealed->order.data,
                            sealed->order.len, sealed->signature.data));
    peer_close(&peer);
}

static void selftest_answer(struct peer *peer, uint64_t seed, uint64_t seq)
{
    Sheaf__Envelope envelope = envelope_of(peer, seq);
    Sheaf__SelfTestResult result = SHEAF__SELF_TEST_RESULT__INIT;
    uint64_t sums[SELFTEST_SAMPLES];

    for (uint32_t i = 0; i < SELFTEST_SAMPLES; i++)
        sums[i] = selftest_chunk_sum(seed, selftest_sample_chunk(seed, i, TEST_MIB));
    result.seed = seed;
    result.memory_mib = TEST_MIB;
    result.chunk_sums = sums;
    result.n_chunk_sums = SELFTEST_SAMPLES;
    result.matmul_sum = selftest_matmul_sum(seed);
    result.matmul_gflops = 9;
    envelope.body_case = SHEAF__ENVELOPE__BODY_SELFTEST;
    envelope.selftest = &result;
    peer_send(peer, &envelope.base);
}

static void test_a_self_test_counts_for_its_seed_once(void **state)
{
    struct stage *stage = *state;
    struct effect effect = {.kind = FX_ORDER, .order = {.kind = ORDER_SELFTEST, .node = NODE}};
    const Sheaf__Envelope *envelope;
    const Sheaf__Order *order;
    struct peer peer;
    uint64_t seed;

    worker_join(stage, &peer);
    selftest_answer(&peer, 12345, 1); /* of its own seed */
    until(stage, &peer, posted, 2);
    assert_int_not_equal(last_event(stage)->kind, EV_SELFTEST);
    until(stage, &peer, received, 2);
    stage->hooks.on_effect(&effect, 2, stage->hooks.arg);
    stage->hooks.on_effect(&effect, 2, stage->hooks.arg); /* repeated: the same seed */
    until(stage, &peer, received, 4);
    envelope = worker_read(&peer, 2);
    assert_memory_equal(envelope->order->order.data, worker_read(&peer, 3)->order->order.data, 20);
    order = (const Sheaf__Order *)(const void *)frame_decode(
        &sheaf__order__descriptor, envelope->order->order.data, envelope->order->order.len,
        &peer.arena);
    seed = order->selftest->seed;
    selftest_answer(&peer, seed, 2);
    until(stage, &peer, posted, 3);
    assert_int_equal(last_event(stage)->kind, EV_SELFTEST);
    assert_true(last_event(stage)->selftest.passed);
    assert_int_equal(last_event(stage)->selftest.measured_mib, TEST_MIB);
    assert_int_equal(last_event(stage)->selftest.matmul_gflops, 9);
    assert_int_equal(last_event(stage)->ack_seq, 2);
    selftest_answer(&peer, seed, 3); /* replayed */
    until(stage, &peer, posted, 4);
    assert_int_not_equal(last_event(stage)->kind, EV_SELFTEST);
    peer_close(&peer);
}

static void test_link_reports_become_events_only_when_news(void **state)
{
    struct stage *stage = *state;
    struct row other = node_row_of(stage);
    Sheaf__LinkReport report = SHEAF__LINK_REPORT__INIT;
    Sheaf__LinkSample known = SHEAF__LINK_SAMPLE__INIT, stranger = SHEAF__LINK_SAMPLE__INIT;
    Sheaf__LinkSample *links[] = {&known, &stranger};
    struct peer peer;
    Sheaf__Envelope envelope;

    other.node.id = 8;
    other.node.uid = uuid_new();
    other.node.curve_key[0] ^= 1;
    snprintf(other.node.name, sizeof(other.node.name), "atlas-2");
    world_apply(stage->engine.world, &other);
    worker_join(stage, &peer);
    known.peer = 8;
    known.rtt_p50_us = 900;
    known.rtt_p95_us = 1000;
    stranger.peer = 99;
    report.links = links;
    report.n_links = 2;
    envelope = envelope_of(&peer, 0);
    envelope.body_case = SHEAF__ENVELOPE__BODY_LINKS;
    envelope.links = &report;
    peer_send(&peer, &envelope.base);
    until(stage, &peer, posted, 2);
    assert_int_equal(last_event(stage)->kind, EV_LINK);
    assert_int_equal(last_event(stage)->link.to, 8);
    peer_send(&peer, &envelope.base);
    until(stage, &peer, heard, 3);
    assert_int_equal(stage->engine.count, 2);
    assert_int_equal(stage->fleet->counters.links_kept_back, 1);
    peer_close(&peer);
}

static void test_bye_closes_the_session(void **state)
{
    struct stage *stage = *state;
    struct peer peer;
    Sheaf__Envelope envelope;
    Sheaf__Bye bye = SHEAF__BYE__INIT;

    worker_join(stage, &peer);
    envelope = envelope_of(&peer, 0);
    envelope.body_case = SHEAF__ENVELOPE__BODY_BYE;
    envelope.bye = &bye;
    peer_send(&peer, &envelope.base);
    until(stage, &peer, posted, 2);
    assert_int_equal(last_event(stage)->kind, EV_NODE_BYE);
    assert_int_equal(fleet_counters(stage->fleet).sessions, 0);
    peer_close(&peer);
}

static void test_three_missed_beats_are_silence_and_any_message_is_a_return(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    worker_join(stage, &peer);
    until(stage, &peer, posted, 2);
    assert_int_equal(last_event(stage)->kind, EV_NODE_SILENT);
    assert_int_equal(last_event(stage)->node.node, NODE);
    assert_int_equal(fleet_counters(stage->fleet).silent, 1);
    worker_beat(&peer);
    until(stage, &peer, posted, 3);
    assert_int_equal(last_event(stage)->kind, EV_NODE_BACK);
    assert_int_equal(fleet_counters(stage->fleet).silent, 0);
    peer_close(&peer);
}

/* -- gateways -------------------------------------------------------------------------------- */

static Sheaf__Command command_of(uint64_t request)
{
    static const uint8_t credential[32] = {1};
    Sheaf__Command command = SHEAF__COMMAND__INIT;

    command.protocol = 1;
    command.request = request;
    command.credential = wire_bytes(credential, 32);
    return command;
}

static void test_gateway_announces_itself_to_all_workers(void **state)
{
    struct stage *stage = *state;
    static const uint8_t bulk_key[32] = {5};
    Sheaf__GatewayHello hello = SHEAF__GATEWAY_HELLO__INIT;
    char *bulk[] = {wire_text("tcp://10.0.0.1:7611")};
    Sheaf__Command command = command_of(1);
    struct gateways again = {0};
    struct peer worker, gateway;
    struct err err = {0};

    worker_join(stage, &worker);
    peer_open(stage, &gateway, ZMQ_DEALER, &stage->gateway, fleet_endpoints(stage->fleet)->command);
    hello.url = wire_text("https://gw:8443");
    hello.bulk = bulk;
    hello.n_bulk = 1;
    hello.bulk_key = wire_bytes(bulk_key, 32);
    command.what_case = SHEAF__COMMAND__WHAT_HELLO;
    command.hello = &hello;
    peer_send(&gateway, &command.base);
    until(stage, &gateway, received, 1);
    assert_string_equal(gateway_read(&gateway, 0)->code, "");
    until(stage, &worker, received, 2);
    assert_int_equal(worker_read(&worker, 1)->body_case, SHEAF__ENVELOPE__BODY_WELCOME);
    assert_int_equal(worker_read(&worker, 1)->welcome->n_gateways, 1);
    assert_string_equal(worker_read(&worker, 1)->welcome->gateways[0]->bulk, "tcp://10.0.0.1:7611");
    peer_send(&gateway, &command.base); /* the same again: nobody is bothered */
    until(stage, &gateway, received, 2);
    assert_int_equal(worker.count, 2);
    assert_int_equal(gateways_load(&again, stage->gateways_path, &err), 0);
    assert_int_equal(again.count, 1);
    assert_string_equal(again.item[0].bulk[0], "tcp://10.0.0.1:7611");
    peer_close(&worker);
    peer_close(&gateway);
}

static void test_commands_are_answered_after_their_commit(void **state)
{
    struct stage *stage = *state;
    Sheaf__Command command = command_of(41);
    Sheaf__NewToken token = SHEAF__NEW_TOKEN__INIT;
    struct effect effect = {.kind = FX_REPLY};
    struct peer gateway;

    peer_open(stage, &gateway, ZMQ_DEALER, &stage->gateway, fleet_endpoints(stage->fleet)->command);
    command.what_case = SHEAF__COMMAND__WHAT_TOKEN;
    command.token = &token;
    token.project = wire_text("demo");
    peer_send(&gateway, &command.base);
    until(stage, &gateway, posted, 1);
    assert_int_equal(last_event(stage)->kind, EV_TOKEN_CREATE);
    assert_int_equal(gateway.count, 0);
    assert_int_equal(fleet_counters(stage->fleet).waiting, 1);
    effect.reply.request = last_event(stage)->caller.request;
    effect.reply.object.bytes[0] = 6;
    stage->hooks.on_effect(&effect, 12, stage->hooks.arg);
    until(stage, &gateway, received, 1);
    assert_int_equal(gateway_read(&gateway, 0)->request, 41);
    assert_int_equal(gateway_read(&gateway, 0)->commit, 12);
    assert_int_equal(gateway_read(&gateway, 0)->object.data[0], 6);
    assert_true(gateway_read(&gateway, 0)->body_json.len > 0);
    stage->hooks.on_effect(&effect, 12, stage->hooks.arg); /* at least once: not told twice */
    assert_int_equal(fleet_counters(stage->fleet).waiting, 0);

    token.role = wire_text("emperor"); /* refused before the core */
    command.request = 42;
    peer_send(&gateway, &command.base);
    until(stage, &gateway, received, 2);
    assert_int_equal(gateway_read(&gateway, 1)->request, 42);
    assert_string_equal(gateway_read(&gateway, 1)->code, "out-of-range");
    assert_string_equal(gateway_read(&gateway, 1)->pointer, "/role");
    assert_int_equal(stage->engine.count, 1);
    peer_close(&gateway);
}

static void test_hints_are_published_after_commits(void **state)
{
    struct stage *stage = *state;
    struct row row = {.kind = ROW_JOB, .job = {.id = 5, .uid = {{0x55}}}};
    const Sheaf__ChangeHint *hint;
    struct peer gateway;
    int64_t deadline_us = clock_mono_us() + WAIT_US;

    peer_open(stage, &gateway, ZMQ_SUB, &stage->gateway, fleet_endpoints(stage->fleet)->hints);
    /* A subscription takes a moment that nobody reports: publish until one is heard. */
    while (gateway.count == 0 && clock_mono_us() < deadline_us) {
        stage->hooks.on_commit(&row, 1, 9, stage->hooks.arg);
        event_base_loop(stage->base, EVLOOP_ONCE);
    }
    assert_true(gateway.count > 0);
    hint = (const Sheaf__ChangeHint *)(const void *)peer_read(&gateway,
                                                              &sheaf__change_hint__descriptor, 0);
    assert_int_equal(hint->seq, 9);
    assert_int_equal(hint->n_jobs, 1);
    peer_close(&gateway);
}

static void note_token(const struct err *err, const char *secret, void *arg)
{
    char *out = arg;

    assert_int_equal(err->code, ERR_NONE);
    snprintf(out, SECRET_TEXT, "%s", secret);
}

static void test_set_up_tokens_are_the_systems_own(void **state)
{
    struct stage *stage = *state;
    struct effect effect = {.kind = FX_REPLY};
    char told[SECRET_TEXT] = "";

    fleet_make_token(stage->fleet, ROLE_OPERATOR, "sht_first", note_token, told);
    assert_int_equal(stage->engine.count, 1);
    assert_true(last_event(stage)->caller.system);
    assert_int_equal(last_event(stage)->token.role, ROLE_OPERATOR);
    assert_string_equal(told, ""); /* not before the commit */
    effect.reply.request = last_event(stage)->caller.request;
    stage->hooks.on_effect(&effect, 1, stage->hooks.arg);
    assert_string_equal(told, "sht_first");
}

static void test_a_heartbeat_is_answered(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    worker_join(stage, &peer);
    worker_beat(&peer);
    until(stage, &peer, received, 2);
    assert_int_equal(worker_read(&peer, 1)->body_case, SHEAF__ENVELOPE__BODY_ONLY_ACK);
    peer_close(&peer);
}

static void test_after_a_reload_workers_say_hello_again(void **state)
{
    struct stage *stage = *state;
    struct peer peer;

    worker_join(stage, &peer);
    stage->hooks.on_reload(stage->engine.world, stage->hooks.arg);
    until(stage, &peer, received, 2);
    assert_string_equal(worker_read(&peer, 1)->error->code, "wrong-state");
    assert_true(worker_read(&peer, 1)->error->close);
    assert_memory_equal(worker_read(&peer, 1)->session.data, peer.nonce, SESSION_NONCE);
    assert_int_equal(fleet_counters(stage->fleet).sessions, 0);
    peer_close(&peer);
}

static void test_a_reload_tells_keys_anew(void **state)
{
    struct stage *stage = *state;
    struct world *empty = world_new();

    stage->hooks.on_reload(stage->engine.world, stage->hooks.arg);
    assert_true(zap_is_allowed(stage->zap, FLEET_WORKER_DOMAIN, stage->worker.curve.public_key));
    stage->hooks.on_reload(empty, stage->hooks.arg);
    assert_false(zap_is_allowed(stage->zap, FLEET_WORKER_DOMAIN, stage->worker.curve.public_key));
    assert_int_equal(sessions_count(stage->fleet->sessions), 0);
    world_free(empty);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_unknown_key_is_refused_at_the_handshake),
        STAGED(test_enrolled_key_is_welcomed),
        STAGED(test_nothing_is_taken_before_hello),
        STAGED(test_durable_messages_are_acknowledged_after_the_commit),
        STAGED(test_what_a_full_engine_drops_ends_the_session),
        STAGED(test_a_full_engine_takes_no_hello),
        STAGED(test_nonsense_is_answered_and_still_acknowledged),
        STAGED(test_three_undecodable_frames_end_the_session),
        STAGED(test_the_newest_session_of_a_key_wins),
        STAGED(test_frames_of_a_revoked_key_are_dropped_at_once),
        STAGED(test_orders_reach_the_worker_signed),
        STAGED(test_a_self_test_counts_for_its_seed_once),
        STAGED(test_link_reports_become_events_only_when_news),
        STAGED(test_bye_closes_the_session),
        cmocka_unit_test_setup_teardown(
            test_three_missed_beats_are_silence_and_any_message_is_a_return, stage_open_fast,
            stage_close),
        STAGED(test_gateway_announces_itself_to_all_workers),
        STAGED(test_commands_are_answered_after_their_commit),
        STAGED(test_hints_are_published_after_commits),
        STAGED(test_set_up_tokens_are_the_systems_own),
        STAGED(test_a_heartbeat_is_answered),
        STAGED(test_after_a_reload_workers_say_hello_again),
        STAGED(test_a_reload_tells_keys_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
