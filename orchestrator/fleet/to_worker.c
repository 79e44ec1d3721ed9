#include "orchestrator/fleet/to_worker.h"

#include <stdlib.h>
#include <string.h>

#include "common/io/frame.h"
#include "common/io/hash.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/wire.h"
#include "proto/worker.pb-c.h"

static void put_be64(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (56 - 8 * i));
}

void pair_key(const uint8_t secret[32], uint64_t a, uint64_t b, uint8_t out[32])
{
    uint8_t ids[16];

    put_be64(ids, a < b ? a : b);
    put_be64(ids + 8, a < b ? b : a);
    hmac_sha256(secret, 32, ids, sizeof(ids), out);
}

/* An envelope of this session with everything committed so far acknowledged. */
static Sheaf__Envelope envelope_of(const struct session *session)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;

    envelope.protocol = SESSION_PROTOCOL;
    envelope.session = wire_bytes(session->nonce, SESSION_NONCE);
    envelope.ack = session->acked;
    return envelope;
}

/* -- orders ---------------------------------------------------------------------------------- */

/* Peers of an order with the memory they need. */
struct peer_list {
    Sheaf__Peer *peers;
    Sheaf__Peer **pointers;
    uint8_t (*keys)[32];
    size_t count;
};

/* Rank of entry i: GO lists all ranks, PREPARE all but the receiver's own. */
static uint32_t peer_rank(const struct order *order, uint32_t i)
{
    if (order->kind == ORDER_PREPARE && i >= order->rank)
        return i + 1;
    return order->kind == ORDER_PROBE ? 0 : i;
}

static struct peer_list peer_list_make(const struct order_seal *seal, const struct order *order)
{
    struct peer_list list = {0};

    list.count = order->peer_count;
    list.peers = mem_new(list.count, sizeof(Sheaf__Peer));
    list.pointers = mem_new(list.count, sizeof(Sheaf__Peer *)); /* NOLINT: pointers are meant */
    list.keys = mem_new(list.count, sizeof(*list.keys));
    for (uint32_t i = 0; i < order->peer_count; i++) {
        const struct order_peer *from = &order->peers[i];
        Sheaf__Peer *peer = &list.peers[i];

        sheaf__peer__init(peer);
        peer->node = from->node;
        peer->name = wire_text(from->name);
        peer->address = wire_text(from->address);
        peer->port = from->port;
        peer->rank = peer_rank(order, i);
        if (order->kind == ORDER_PROBE) {
            peer->port_high = from->port_high;
            pair_key(seal->pair_secret, order->node, from->node, list.keys[i]);
            peer->pair_key = wire_bytes(list.keys[i], sizeof(list.keys[i]));
        }
        list.pointers[i] = peer;
    }
    return list;
}

static void peer_list_free(struct peer_list *list)
{
    free(list->peers);
    free(list->pointers);
    free(list->keys);
}

/* Everything an Order message may point to while it is encoded. */
struct order_parts {
    struct peer_list list;
    Sheaf__Prepare prepare;
    Sheaf__Go go;
    Sheaf__Stop stop;
    Sheaf__Forget forget;
    Sheaf__SelfTest selftest;
    Sheaf__Probe probe;
    uint32_t device[SPEC_MAX_GPUS_PER_NODE];
};

static void order_prepare(const struct order *order, struct order_parts *parts, Sheaf__Order *wire)
{
    Sheaf__Prepare *prepare = &parts->prepare;

    sheaf__prepare__init(prepare);
    prepare->attempt_uid = wire_bytes(order->attempt_uid.bytes, sizeof(order->attempt_uid.bytes));
    prepare->job_uid = wire_bytes(order->job_uid.bytes, sizeof(order->job_uid.bytes));
    prepare->job_name = wire_text(order->job_name ? order->job_name : "");
    prepare->project = wire_text(order->project ? order->project : "");
    if (order->spec)
        prepare->spec_json = wire_bytes(order->spec, strlen(order->spec));
    prepare->devices = parts->device;
    prepare->n_devices = order->device_count;
    prepare->ranks = order->ranks;
    prepare->peers = parts->list.pointers;
    prepare->n_peers = parts->list.count;
    wire->what_case = SHEAF__ORDER__WHAT_PREPARE;
    wire->prepare = prepare;
}

static void order_go(const struct order *order, struct order_parts *parts, Sheaf__Order *wire)
{
    Sheaf__Go *go = &parts->go;

    sheaf__go__init(go);
    go->peers = parts->list.pointers;
    go->n_peers = parts->list.count;
    if (order->pair_us) {
        go->n_pair_us = (size_t)order->peer_count * order->peer_count;
        go->pair_us = (uint32_t *)(uintptr_t)order->pair_us;
    }
    go->price_micro = order->price;
    wire->what_case = SHEAF__ORDER__WHAT_GO;
    wire->go = go;
}

static void order_small(const struct order *order, uint64_t seed, struct order_parts *parts,
                        Sheaf__Order *wire)
{
    char *reason = wire_text(err_slug(order->reason));

    if (order->kind == ORDER_STOP) {
        sheaf__stop__init(&parts->stop);
        parts->stop.reason = reason;
        wire->what_case = SHEAF__ORDER__WHAT_STOP;
        wire->stop = &parts->stop;
    } else if (order->kind == ORDER_FORGET) {
        sheaf__forget__init(&parts->forget);
        parts->forget.reason = reason;
        wire->what_case = SHEAF__ORDER__WHAT_FORGET;
        wire->forget = &parts->forget;
    } else if (order->kind == ORDER_SELFTEST) {
        sheaf__self_test__init(&parts->selftest);
        parts->selftest.device = order->device[0];
        parts->selftest.seed = seed;
        wire->what_case = SHEAF__ORDER__WHAT_SELFTEST;
        wire->selftest = &parts->selftest;
    } else {
        sheaf__probe__init(&parts->probe);
        parts->probe.peers = parts->list.pointers;
        parts->probe.n_peers = parts->list.count;
        parts->probe.samples = ORDER_PROBE_SAMPLES;
        wire->what_case = SHEAF__ORDER__WHAT_PROBE;
        wire->probe = &parts->probe;
    }
}

static void order_sign(const struct order_seal *seal, const struct session *session,
                       const struct buf *bytes, struct buf *out)
{
    Sheaf__Envelope envelope = envelope_of(session);
    Sheaf__SignedOrder sealed = SHEAF__SIGNED_ORDER__INIT;
    uint8_t signature[SIGNATURE_SIZE];

    sign_bytes(seal->sign, SIGN_DOMAIN_ORDER, bytes->data, bytes->length, signature);
    sealed.order = wire_bytes(bytes->data, bytes->length);
    sealed.signature = wire_bytes(signature, sizeof(signature));
    envelope.body_case = SHEAF__ENVELOPE__BODY_ORDER;
    envelope.order = &sealed;
    frame_encode(&envelope.base, out);
}

void to_worker_order(const struct order_seal *seal, const struct session *session,
                     const struct order *order, uint64_t seed, struct buf *out)
{
    struct order_parts parts = {0};
    Sheaf__Order wire = SHEAF__ORDER__INIT;
    struct buf bytes;

    BUG_ON(order->peer_count > ORDER_MAX_PEERS || order->device_count > SPEC_MAX_GPUS_PER_NODE);
    parts.list = peer_list_make(seal, order);
    memcpy(parts.device, order->device, sizeof(parts.device));
    wire.worker_key = wire_bytes(session->key, sizeof(session->key));
    wire.term = order->term;
    wire.epoch = order->epoch;
    wire.expires_us = (uint64_t)(seal->now_us + ORDER_LIFE_US);
    wire.attempt = order->attempt;
    wire.rank = order->rank;
    if (order->kind == ORDER_PREPARE)
        order_prepare(order, &parts, &wire);
    else if (order->kind == ORDER_GO)
        order_go(order, &parts, &wire);
    else
        order_small(order, seed, &parts, &wire);
    buf_init(&bytes, FRAME_MAX);
    frame_encode(&wire.base, &bytes);
    BUG_ON(bytes.full);
    order_sign(seal, session, &bytes, out);
    buf_fini(&bytes);
    peer_list_free(&parts.list);
}

/* -- the session ----------------------------------------------------------------------------- */

void to_worker_welcome(const struct session *session, uint32_t term, uint32_t heartbeat_ms,
                       const struct gateways *gateways, const uint8_t sign_key[KEY_SIZE],
                       struct buf *out)
{
    Sheaf__Envelope envelope = envelope_of(session);
    Sheaf__Welcome welcome = SHEAF__WELCOME__INIT;
    Sheaf__Gateway item[GATEWAYS_MAX * GATEWAY_MAX_BULK];
    Sheaf__Gateway *pointer[GATEWAYS_MAX * GATEWAY_MAX_BULK];

    welcome.protocol = SESSION_PROTOCOL;
    welcome.term = term;
    welcome.heartbeat_ms = heartbeat_ms;
    welcome.committed_seq = session->acked;
    welcome.sign_key = wire_bytes(sign_key, KEY_SIZE);
    welcome.gateways = pointer;
    for (uint32_t i = 0; i < gateways->count; i++) {
        const struct gateway *gateway = &gateways->item[i];

        for (uint32_t k = 0; k < gateway->bulk_count; k++) {
            Sheaf__Gateway *to = &item[welcome.n_gateways];

            sheaf__gateway__init(to);
            to->bulk = wire_text(gateway->bulk[k]);
            to->curve_key = wire_bytes(gateway->bulk_key, KEY_SIZE);
            pointer[welcome.n_gateways++] = to;
        }
    }
    envelope.body_case = SHEAF__ENVELOPE__BODY_WELCOME;
    envelope.welcome = &welcome;
    frame_encode(&envelope.base, out);
}

static size_t condition_names(uint32_t conditions, char **out)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {NODE_UNKNOWN, "unknown"},         {NODE_LOST, "lost"},
        {NODE_QUARANTINED, "quarantined"}, {NODE_MAINTENANCE, "maintenance"},
        {NODE_PAUSED, "paused"},
    };
    size_t count = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (conditions & names[i].bit)
            out[count++] = wire_text(names[i].name);
    }
    return count;
}

void to_worker_status(const struct session *session, const struct world *world, struct buf *out)
{
    const struct node_row *node = world_node(world, session->node);
    Sheaf__Envelope envelope = envelope_of(session);
    Sheaf__NodeStatus status = SHEAF__NODE_STATUS__INIT;
    Sheaf__DeviceStatus item[CLAIM_MAX_DEVICES];
    Sheaf__DeviceStatus *pointer[CLAIM_MAX_DEVICES];
    char *conditions[8];

    status.name = wire_text(node->name);
    status.state = wire_text(node_state_name(node->state));
    status.conditions = conditions;
    status.n_conditions = condition_names(node->conditions, conditions);
    status.reason = wire_text(err_slug(node->reason));
    status.detail = wire_text(node->detail);
    status.price_micro = node->price;
    status.devices = pointer;
    for (uint32_t i = 0; i < CLAIM_MAX_DEVICES; i++) {
        const struct device_row *device = world_device(world, session->node, i);
        Sheaf__DeviceStatus *to = &item[status.n_devices];

        if (device == NULL)
            continue;
        sheaf__device_status__init(to);
        to->ordinal = i;
        to->tier = wire_text(tier_name(device->tier));
        to->measured_mib = device->measured_mib;
        to->offered = device->offered;
        pointer[status.n_devices++] = to;
    }
    envelope.body_case = SHEAF__ENVELOPE__BODY_STATUS;
    envelope.status = &status;
    frame_encode(&envelope.base, out);
}

void to_worker_ack(const struct session *session, struct buf *out)
{
    Sheaf__Envelope envelope = envelope_of(session);
    Sheaf__Ack ack = SHEAF__ACK__INIT;

    envelope.body_case = SHEAF__ENVELOPE__BODY_ONLY_ACK;
    envelope.only_ack = &ack;
    frame_encode(&envelope.base, out);
}

void to_worker_error(const uint8_t *nonce, size_t nonce_size, const struct err *err,
                     uint64_t ref_seq, bool close, struct buf *out)
{
    Sheaf__Envelope envelope = SHEAF__ENVELOPE__INIT;
    Sheaf__ErrorReply error = SHEAF__ERROR_REPLY__INIT;

    envelope.protocol = SESSION_PROTOCOL;
    if (nonce_size)
        envelope.session = wire_bytes(nonce, nonce_size);
    error.code = wire_text(err_slug(err->code));
    error.detail = wire_text(err->text);
    error.ref_seq = ref_seq;
    error.close = close;
    envelope.body_case = SHEAF__ENVELOPE__BODY_ERROR;
    envelope.error = &error;
    frame_encode(&envelope.base, out);
}
