/* Messages → events and effects → messages, field by field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/io/frame.h"
#include "common/io/hash.h"
#include "common/io/json.h"
#include "orchestrator/fleet/from_gateway.h"
#include "orchestrator/fleet/from_worker.h"
#include "orchestrator/fleet/to_gateway.h"
#include "orchestrator/fleet/to_worker.h"
#include "orchestrator/fleet/wire.h"
#include "proto/receipt.pb-c.h"

static const struct uuid node_uid = {{0x11, 0x22}};
static const uint8_t frame_bytes[] = {1, 2, 3, 4};

static struct worker_frame frame_of(const uint8_t *sign_key)
{
    return (struct worker_frame){.node = 7,
                                 .uid = &node_uid,
                                 .sign_key = sign_key,
                                 .seq = 42,
                                 .bytes = frame_bytes,
                                 .size = sizeof(frame_bytes)};
}

/* -- claims ---------------------------------------------------------------------------------- */

struct claim_parts {
    Sheaf__Claim claim;
    Sheaf__ClaimDevice device[17];
    Sheaf__ClaimDevice *pointer[17];
};

static void claim_make(struct claim_parts *parts)
{
    sheaf__claim__init(&parts->claim);
    parts->claim.name = wire_text("atlas-1");
    parts->claim.region = wire_text("eu-west");
    parts->claim.country = wire_text("DE");
    parts->claim.address = wire_text("10.0.0.1");
    parts->claim.port_low = 20000;
    parts->claim.port_high = 20015;
    parts->claim.probe_port = 20016;
    parts->claim.cpu_milli = 8000;
    parts->claim.memory_mib = 16384;
    parts->claim.disk_mib = 100000;
    parts->claim.runtime = wire_text("bwrap");
    parts->claim.version = wire_text("0.1.0");
    parts->claim.price_micro = 300000;
    parts->claim.notice_s = 60;
    parts->claim.devices = parts->pointer;
    for (int i = 0; i < 17; i++) {
        static char uuids[17][16];

        snprintf(uuids[i], sizeof(uuids[i]), "GPU-%d", i);
        sheaf__claim_device__init(&parts->device[i]);
        parts->device[i].uuid = uuids[i];
        parts->device[i].device_class = wire_text("gpu");
        parts->device[i].vendor = wire_text("nvidia");
        parts->device[i].model = wire_text("rtx 4090");
        parts->device[i].driver = wire_text("550");
        parts->device[i].memory_mib = 24564;
        parts->device[i].offered = true;
        parts->pointer[i] = &parts->device[i];
    }
    parts->claim.n_devices = 2;
}

static void test_claim_is_taken_whole(void **state)
{
    struct claim_parts parts;
    struct node_claim claim;
    struct err err = {0};

    (void)state;
    claim_make(&parts);
    assert_int_equal(from_worker_claim(&parts.claim, &claim, &err), 0);
    assert_string_equal(claim.name, "atlas-1");
    assert_string_equal(claim.region, "eu-west");
    assert_string_equal(claim.country, "DE");
    assert_string_equal(claim.address, "10.0.0.1");
    assert_int_equal(claim.port_low, 20000);
    assert_int_equal(claim.port_high, 20015);
    assert_int_equal(claim.probe_port, 20016);
    assert_int_equal(claim.cpu_milli, 8000);
    assert_int_equal(claim.memory_mib, 16384);
    assert_int_equal(claim.disk_mib, 100000);
    assert_string_equal(claim.runtime, "bwrap");
    assert_string_equal(claim.version, "0.1.0");
    assert_int_equal(claim.price, 300000);
    assert_int_equal(claim.notice_s, 60);
    assert_false(claim.paused);
    assert_int_equal(claim.device_count, 2);
    assert_string_equal(claim.device[1].uuid, "GPU-1");
    assert_int_equal(claim.device[1].class, DEVICE_GPU);
    assert_string_equal(claim.device[1].model, "rtx 4090");
    assert_int_equal(claim.device[1].memory_mib, 24564);
    assert_true(claim.device[1].offered);
}

enum claim_fault {
    FAULT_NAME,
    FAULT_COUNTRY,
    FAULT_ADDRESS,
    FAULT_PORTS_EQUAL,
    FAULT_PORT_LARGE,
    FAULT_PROBE_PORT,
    FAULT_REGION_BYTES,
    FAULT_RUNTIME_LONG,
    FAULT_MEMORY,
    FAULT_NOTICE,
    FAULT_PRICE_NEGATIVE,
    FAULT_PRICE_LARGE,
    FAULT_DEVICES,
    FAULT_DEVICE_TWICE,
    FAULT_DEVICE_CLASS,
    FAULT_DEVICE_EMPTY,
    FAULT_DEVICE_MEMORY,
    FAULT_COUNT,
};

static void claim_break(struct claim_parts *parts, enum claim_fault fault)
{
    static char too_long[200];
    Sheaf__Claim *claim = &parts->claim;

    memset(too_long, 'x', sizeof(too_long) - 1);
    if (fault == FAULT_NAME)
        claim->name = wire_text("Atlas 1");
    else if (fault == FAULT_COUNTRY)
        claim->country = wire_text("de");
    else if (fault == FAULT_ADDRESS)
        claim->address = wire_text("0.0.0.0");
    else if (fault == FAULT_PORTS_EQUAL)
        claim->port_low = claim->port_high;
    else if (fault == FAULT_PORT_LARGE)
        claim->port_high = 65536;
    else if (fault == FAULT_PROBE_PORT)
        claim->probe_port = 0;
    else if (fault == FAULT_REGION_BYTES)
        claim->region = wire_text("eu\xff");
    else if (fault == FAULT_RUNTIME_LONG)
        claim->runtime = too_long;
    else if (fault == FAULT_MEMORY)
        claim->memory_mib = UINT32_MAX;
    else if (fault == FAULT_NOTICE)
        claim->notice_s = UINT32_MAX;
    else if (fault == FAULT_PRICE_NEGATIVE)
        claim->price_micro = -1;
    else if (fault == FAULT_PRICE_LARGE)
        claim->price_micro = MICRO_MAX + 1;
    else if (fault == FAULT_DEVICES)
        claim->n_devices = 17;
    else if (fault == FAULT_DEVICE_TWICE)
        parts->device[1].uuid = parts->device[0].uuid;
    else if (fault == FAULT_DEVICE_CLASS)
        parts->device[0].device_class = wire_text("tpu");
    else if (fault == FAULT_DEVICE_EMPTY)
        parts->device[0].uuid = wire_text("");
    else
        parts->device[0].memory_mib = VERDICT_MAX_MIB + 1;
}

static void test_claim_with_any_fault_is_refused(void **state)
{
    (void)state;
    for (int fault = 0; fault < FAULT_COUNT; fault++) {
        struct claim_parts parts;
        struct node_claim claim = {.notice_s = 12345};
        struct err err = {0};

        claim_make(&parts);
        claim_break(&parts, (enum claim_fault)fault);
        if (from_worker_claim(&parts.claim, &claim, &err) != -ERR_WIRE_INVENTORY)
            fail_msg("fault %d was taken", fault);
        assert_int_equal(claim.notice_s, 12345); /* untouched */
        assert_true(err.text[0] != 0);
    }
}

/* -- events of workers ----------------------------------------------------------------------- */

static void test_hello_carries_claim_and_held_tasks(void **state)
{
    struct worker_frame frame = frame_of(NULL);
    Sheaf__Hello hello = SHEAF__HELLO__INIT;
    Sheaf__HeldTask task = SHEAF__HELD_TASK__INIT;
    Sheaf__HeldTask *tasks[] = {&task};
    struct event_box *box = NULL;
    struct claim_parts parts;
    struct err err = {0};

    (void)state;
    claim_make(&parts);
    hello.claim = &parts.claim;
    hello.boot = 9;
    hello.tasks = tasks;
    hello.n_tasks = 1;
    task.attempt = 5;
    task.term = 2;
    task.epoch = 3;
    task.rank = 4;
    task.state = wire_text("exited");
    task.exit_code = 137;
    frame.seq = 0;
    assert_int_equal(from_worker_hello(&frame, &hello, &box, &err), 0);
    assert_int_equal(box->event.kind, EV_NODE_HELLO);
    assert_int_equal(box->event.hello.node, 7);
    assert_int_equal(box->event.hello.boot, 9);
    assert_string_equal(box->event.hello.claim->name, "atlas-1");
    assert_int_equal(box->event.hello.task_count, 1);
    assert_int_equal(box->event.hello.task[0].attempt, 5);
    assert_int_equal(box->event.hello.task[0].term, 2);
    assert_int_equal(box->event.hello.task[0].epoch, 3);
    assert_int_equal(box->event.hello.task[0].rank, 4);
    assert_int_equal(box->event.hello.task[0].state, RANK_EXITED);
    assert_int_equal(box->event.hello.task[0].exit_code, 137);
    assert_int_equal(box->event.ack_seq, 0);
    assert_memory_equal(box->bytes, frame_bytes, sizeof(frame_bytes));
    assert_ptr_not_equal(box->bytes, frame_bytes);
    assert_false(uuid_is_nil(&box->event.fresh[3]));
    event_box_free(box);

    task.state = wire_text("asleep");
    assert_int_equal(from_worker_hello(&frame, &hello, &box, &err), -ERR_WIRE_UNKNOWN_TYPE);
    task.state = wire_text("exited");
    task.rank = SPEC_MAX_NODES;
    assert_int_equal(from_worker_hello(&frame, &hello, &box, &err), -ERR_WIRE_DECODE);
    hello.n_tasks = HELLO_MAX_TASKS + 1;
    assert_int_equal(from_worker_hello(&frame, &hello, &box, &err), -ERR_WIRE_DECODE);
    hello.n_tasks = 0;
    hello.claim = NULL;
    assert_int_equal(from_worker_hello(&frame, &hello, &box, &err), -ERR_WIRE_INVENTORY);
}

static void test_task_news_are_typed_and_bounded(void **state)
{
    static const struct {
        const char *news, *reason, *class;
        uint32_t rank, port;
        int32_t exit_code;
        int rc;
    } cases[] = {
        {"ready", "", "", 0, 20000, 0, 0},
        {"exited", "rank-failed", "user", 255, 0, 137, 0},
        {"gone", "", "", 0, 0, 0, -ERR_WIRE_UNKNOWN_TYPE},
        {"", "", "", 0, 0, 0, -ERR_WIRE_UNKNOWN_TYPE},
        {"exited", "no-such-slug", "", 0, 0, 0, -ERR_WIRE_UNKNOWN_TYPE},
        {"exited", "", "no-such-class", 0, 0, 0, -ERR_WIRE_UNKNOWN_TYPE},
        {"ready", "", "", 256, 0, 0, -ERR_WIRE_DECODE},
        {"ready", "", "", 0, 65536, 0, -ERR_WIRE_DECODE},
        {"exited", "", "", 0, 0, -1, -ERR_WIRE_DECODE},
        {"exited", "", "", 0, 0, 256, -ERR_WIRE_DECODE},
    };
    struct worker_frame frame = frame_of(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Sheaf__TaskEvent task = SHEAF__TASK_EVENT__INIT;
        struct event_box *box = NULL;
        struct err err = {0};

        task.attempt = 11;
        task.term = 2;
        task.epoch = 3;
        task.rank = cases[i].rank;
        task.news = wire_text(cases[i].news);
        task.reason = wire_text(cases[i].reason);
        task.fail_class = wire_text(cases[i].class);
        task.port = cases[i].port;
        task.exit_code = cases[i].exit_code;
        task.detail = wire_text("line\nbreak");
        if (from_worker_task(&frame, &task, &box, &err) != cases[i].rc)
            fail_msg("case %zu", i);
        if (cases[i].rc)
            continue;
        assert_int_equal(box->event.kind, EV_TASK);
        assert_int_equal(box->event.ack_node, 7);
        assert_int_equal(box->event.ack_seq, 42);
        assert_int_equal(box->event.task.attempt, 11);
        assert_int_equal(box->event.task.epoch, 3);
        assert_int_equal(box->event.task.rank, cases[i].rank);
        assert_int_equal(box->event.task.port, cases[i].port);
        assert_int_equal(box->event.task.reason, err_from_slug(cases[i].reason));
        assert_string_equal(task_news_name(box->event.task.news), cases[i].news);
        assert_string_equal(box->event.task.detail, "line break");
        event_box_free(box);
    }
}

struct receipt_parts {
    Sheaf__Receipt receipt;
    Sheaf__ReceiptLine line;
    Sheaf__ReceiptLine *lines[1];
    Sheaf__SignedReceipt sealed;
    struct sign_pair pair;
    uint8_t signature[SIGNATURE_SIZE];
    struct buf bytes;
};

static void receipt_seal(struct receipt_parts *parts)
{
    buf_clear(&parts->bytes);
    frame_encode(&parts->receipt.base, &parts->bytes);
    sign_bytes(&parts->pair, SIGN_DOMAIN_RECEIPT, parts->bytes.data, parts->bytes.length,
               parts->signature);
    sheaf__signed_receipt__init(&parts->sealed);
    parts->sealed.receipt = wire_bytes(parts->bytes.data, parts->bytes.length);
    parts->sealed.signature = wire_bytes(parts->signature, sizeof(parts->signature));
}

static void receipt_make(struct receipt_parts *parts)
{
    sign_pair_make(&parts->pair);
    buf_init(&parts->bytes, 0);
    sheaf__receipt__init(&parts->receipt);
    sheaf__receipt_line__init(&parts->line);
    parts->lines[0] = &parts->line;
    parts->receipt.node = wire_bytes(node_uid.bytes, 16);
    parts->receipt.seq = 3;
    parts->receipt.lines = parts->lines;
    parts->receipt.n_lines = 1;
    parts->line.attempt = 11;
    parts->line.term = 1;
    parts->line.epoch = 2;
    parts->line.used_ms = 61000;
    receipt_seal(parts);
}

static void test_receipt_is_verified_over_its_exact_bytes(void **state)
{
    struct receipt_parts parts;
    struct worker_frame frame;
    struct event_box *box = NULL;
    struct sign_pair other;
    struct err err = {0};

    (void)state;
    receipt_make(&parts);
    frame = frame_of(parts.pair.public_key);
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), 0);
    assert_int_equal(box->event.receipt.seq, 3);
    assert_int_equal(box->event.receipt.line_count, 1);
    assert_int_equal(box->event.receipt.line[0].used_ms, 61000);
    assert_int_equal(box->event.receipt.bytes_length, parts.bytes.length);
    assert_memory_equal(box->event.receipt.bytes, parts.bytes.data, parts.bytes.length);
    assert_memory_equal(box->event.receipt.signature, parts.signature, SIGNATURE_SIZE);
    event_box_free(box);

    parts.bytes.data[parts.bytes.length - 1] ^= 1;
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_SIGNATURE);
    receipt_seal(&parts);
    parts.sealed.signature.len = 63;
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_SIGNATURE);
    receipt_seal(&parts);
    sign_pair_make(&other);
    frame.sign_key = other.public_key;
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_SIGNATURE);
    buf_fini(&parts.bytes);
}

static void test_receipt_of_another_node_or_out_of_range_is_refused(void **state)
{
    static const uint8_t other_node[16] = {0x99};
    struct receipt_parts parts;
    struct worker_frame frame;
    struct event_box *box = NULL;
    struct err err = {0};

    (void)state;
    receipt_make(&parts);
    frame = frame_of(parts.pair.public_key);
    parts.receipt.node = wire_bytes(other_node, 16);
    receipt_seal(&parts);
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_IDENTITY);
    parts.receipt.node = wire_bytes(node_uid.bytes, 16);
    parts.receipt.seq = 0;
    receipt_seal(&parts);
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_DECODE);
    parts.receipt.seq = 1;
    parts.line.used_ms = WORKER_MAX_USED_MS + 1;
    receipt_seal(&parts);
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_USAGE);
    /* The same time twice. */
    Sheaf__ReceiptLine *twice[] = {&parts.line, &parts.line};
    parts.line.used_ms = 1;
    parts.receipt.lines = twice;
    parts.receipt.n_lines = 2;
    receipt_seal(&parts);
    assert_int_equal(from_worker_receipt(&frame, &parts.sealed, &box, &err), -ERR_WIRE_USAGE);
    buf_fini(&parts.bytes);
}

static void test_notices(void **state)
{
    struct worker_frame frame = frame_of(NULL);
    Sheaf__NodeNotice notice = SHEAF__NODE_NOTICE__INIT;
    struct event_box *box = NULL;
    struct err err = {0};

    (void)state;
    for (int verb = 0; verb < NODE_VERB_COUNT; verb++) {
        notice.verb = wire_text(node_verb_name((enum node_verb)verb));
        if (verb == NODE_REVOKE) { /* the operator's alone */
            assert_int_equal(from_worker_notice(&frame, &notice, &box, &err),
                             -ERR_WIRE_UNKNOWN_TYPE);
            continue;
        }
        notice.price_micro = 5;
        assert_int_equal(from_worker_notice(&frame, &notice, &box, &err), 0);
        assert_int_equal(box->event.kind, EV_NODE_SET);
        assert_int_equal(box->event.node_set.id, 7);
        assert_true(uuid_is_nil(&box->event.node_set.node));
        assert_int_equal(box->event.node_set.verb, verb);
        assert_int_equal(box->event.node_set.price, 5);
        assert_int_equal(box->event.caller.request, 0);
        event_box_free(box);
    }
    notice.verb = wire_text("device-use");
    notice.device = 3;
    notice.foreign = true;
    assert_int_equal(from_worker_notice(&frame, &notice, &box, &err), 0);
    assert_int_equal(box->event.kind, EV_DEVICE_USE);
    assert_int_equal(box->event.device_use.device, 3);
    assert_true(box->event.device_use.foreign);
    event_box_free(box);
    notice.device = 16;
    assert_int_equal(from_worker_notice(&frame, &notice, &box, &err), -ERR_WIRE_DECODE);
    notice.verb = wire_text("explode");
    assert_int_equal(from_worker_notice(&frame, &notice, &box, &err), -ERR_WIRE_UNKNOWN_TYPE);
    notice.verb = wire_text("price");
    notice.price_micro = -1;
    assert_int_equal(from_worker_notice(&frame, &notice, &box, &err), -ERR_WIRE_DECODE);
}

static void test_link_samples_are_bounded(void **state)
{
    static const struct {
        uint64_t peer;
        uint32_t p50, p95, loss;
        int rc;
    } cases[] = {
        {8, 100, 200, 0, 0},
        {8, 0, 0, 1000000, 0},
        {0, 100, 200, 0, -ERR_WIRE_DECODE},
        {7, 100, 200, 0, -ERR_WIRE_DECODE}, /* itself */
        {8, 201, 200, 0, -ERR_WIRE_DECODE},
        {8, 100, 200, 1000001, -ERR_WIRE_DECODE},
        {8, 100, UINT32_MAX, 0, -ERR_WIRE_DECODE},
    };
    struct worker_frame frame = frame_of(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Sheaf__LinkSample sample = SHEAF__LINK_SAMPLE__INIT;
        struct event_box *box;
        struct ev_link link;
        struct err err = {0};

        sample.peer = cases[i].peer;
        sample.rtt_p50_us = cases[i].p50;
        sample.rtt_p95_us = cases[i].p95;
        sample.loss_ppm = cases[i].loss;
        sample.reach = true;
        assert_int_equal(from_worker_link(&frame, &sample, &link, &err), cases[i].rc);
        if (cases[i].rc)
            continue;
        box = from_worker_link_box(&link, &sample);
        assert_int_equal(box->event.kind, EV_LINK);
        assert_int_equal(box->event.link.from, 7);
        assert_int_equal(box->event.link.to, 8);
        assert_int_equal(box->event.link.rtt_p95_us, cases[i].p95);
        assert_true(box->event.link.reach);
        assert_true(box->bytes_length > 0);
        event_box_free(box);
    }
}

/* -- orders ---------------------------------------------------------------------------------- */

struct order_read {
    struct frame_arena arena;
    const Sheaf__Envelope *envelope;
    const Sheaf__Order *order;
};

static struct session session_of(void)
{
    struct session session = {.node = 7, .open = true, .acked = 4};

    memset(session.key, 0x5a, sizeof(session.key));
    memcpy(session.nonce, "nonce--1", 8);
    return session;
}

/* Encodes an order, checks its seal as a worker does, decodes it. */
static struct order_read order_round(const struct order *order, uint64_t seed,
                                     const struct sign_pair *pair)
{
    static const uint8_t pair_secret[32] = {1};
    struct order_seal seal = {pair, pair_secret, 1000000000};
    struct session session = session_of();
    struct order_read read = {0};
    const Sheaf__SignedOrder *sealed;
    struct buf bytes;

    buf_init(&bytes, 0);
    to_worker_order(&seal, &session, order, seed, &bytes);
    frame_arena_init(&read.arena, FRAME_MAX_BUDGET);
    read.envelope = (const Sheaf__Envelope *)(const void *)frame_decode(
        &sheaf__envelope__descriptor, bytes.data, bytes.length, &read.arena);
    assert_non_null(read.envelope);
    assert_int_equal(read.envelope->body_case, SHEAF__ENVELOPE__BODY_ORDER);
    assert_int_equal(read.envelope->seq, 0);
    assert_int_equal(read.envelope->ack, 4);
    assert_memory_equal(read.envelope->session.data, "nonce--1", 8);
    sealed = read.envelope->order;
    assert_int_equal(sealed->signature.len, SIGNATURE_SIZE);
    assert_true(sign_verify(pair->public_key, SIGN_DOMAIN_ORDER, sealed->order.data,
                            sealed->order.len, sealed->signature.data));
    read.order = (const Sheaf__Order *)(const void *)frame_decode(
        &sheaf__order__descriptor, sealed->order.data, sealed->order.len, &read.arena);
    assert_non_null(read.order);
    assert_memory_equal(read.order->worker_key.data, session.key, 32);
    assert_int_equal(read.order->expires_us, 1000000000 + ORDER_LIFE_US);
    assert_int_equal(read.order->attempt, order->attempt);
    assert_int_equal(read.order->term, order->term);
    assert_int_equal(read.order->epoch, order->epoch);
    assert_int_equal(read.order->rank, order->rank);
    buf_fini(&bytes);
    return read;
}

static void test_prepare_names_spec_devices_and_the_other_ranks(void **state)
{
    struct order_peer peers[] = {{.node = 1, .address = "10.0.0.1"},
                                 {.node = 3, .address = "10.0.0.3"}};
    struct order order = {
        .kind = ORDER_PREPARE,
        .node = 7,
        .attempt = 5,
        .attempt_uid = {{5}},
        .job_uid = {{6}},
        .term = 1,
        .epoch = 2,
        .rank = 1,
        .job_name = "ddp",
        .project = "demo",
        .spec = "{\"version\":1}",
        .device = {2, 3},
        .device_count = 2,
        .ranks = 3,
        .peers = peers,
        .peer_count = 2,
    };
    struct sign_pair pair;
    struct order_read read;

    (void)state;
    sign_pair_make(&pair);
    read = order_round(&order, 0, &pair);
    assert_int_equal(read.order->what_case, SHEAF__ORDER__WHAT_PREPARE);
    assert_int_equal(read.order->prepare->attempt_uid.data[0], 5);
    assert_int_equal(read.order->prepare->job_uid.data[0], 6);
    assert_string_equal(read.order->prepare->job_name, "ddp");
    assert_string_equal(read.order->prepare->project, "demo");
    assert_memory_equal(read.order->prepare->spec_json.data, order.spec, strlen(order.spec));
    assert_int_equal(read.order->prepare->n_devices, 2);
    assert_int_equal(read.order->prepare->devices[1], 3);
    assert_int_equal(read.order->prepare->ranks, 3);
    assert_int_equal(read.order->prepare->n_peers, 2);
    assert_int_equal(read.order->prepare->peers[0]->rank, 0);
    assert_int_equal(read.order->prepare->peers[1]->rank, 2); /* its own rank 1 is left out */
    assert_string_equal(read.order->prepare->peers[1]->address, "10.0.0.3");
    assert_int_equal(read.order->prepare->peers[1]->pair_key.len, 0);
    frame_arena_fini(&read.arena);
}

static void test_go_names_all_ranks_and_pairs(void **state)
{
    struct order_peer peers[] = {{.node = 7, .address = "10.0.0.7", .port = 20000},
                                 {.node = 9, .address = "10.0.0.9", .port = 20001}};
    const uint32_t pair_us[] = {0, 800, 800, 0};
    struct order order = {.kind = ORDER_GO,
                          .node = 7,
                          .attempt = 5,
                          .ranks = 2,
                          .peers = peers,
                          .peer_count = 2,
                          .pair_us = pair_us,
                          .price = 600000};
    struct sign_pair pair;
    struct order_read read;

    (void)state;
    sign_pair_make(&pair);
    read = order_round(&order, 0, &pair);
    assert_int_equal(read.order->what_case, SHEAF__ORDER__WHAT_GO);
    assert_int_equal(read.order->go->n_peers, 2);
    assert_int_equal(read.order->go->peers[1]->rank, 1);
    assert_int_equal(read.order->go->peers[1]->port, 20001);
    assert_int_equal(read.order->go->n_pair_us, 4);
    assert_int_equal(read.order->go->pair_us[1], 800);
    assert_int_equal(read.order->go->price_micro, 600000);
    frame_arena_fini(&read.arena);
}

static void test_the_largest_gang_fits_one_frame(void **state)
{
    struct order_peer *peers = calloc(ORDER_MAX_PEERS, sizeof(*peers));
    uint32_t *pair_us = calloc((size_t)ORDER_MAX_PEERS * ORDER_MAX_PEERS, sizeof(*pair_us));
    struct order order = {
        .kind = ORDER_GO, .peers = peers, .peer_count = ORDER_MAX_PEERS, .pair_us = pair_us};
    struct sign_pair pair;
    struct order_read read;

    (void)state;
    for (uint32_t i = 0; i < ORDER_MAX_PEERS; i++) {
        peers[i].node = UINT64_MAX;
        memset(peers[i].address, 'f', sizeof(peers[i].address) - 1);
        peers[i].port = 65535;
    }
    for (uint32_t i = 0; i < ORDER_MAX_PEERS * ORDER_MAX_PEERS; i++)
        pair_us[i] = 300000; /* 300 ms: three bytes each */
    sign_pair_make(&pair);
    read = order_round(&order, 0, &pair);
    assert_int_equal(read.order->go->n_pair_us, ORDER_MAX_PEERS * ORDER_MAX_PEERS);
    frame_arena_fini(&read.arena);
    free(peers);
    free(pair_us);
}

static void test_probe_gives_both_sides_one_key(void **state)
{
    struct order_peer peer_b = {.node = 9, .address = "10.0.0.9", .port = 1, .port_high = 2};
    struct order_peer peer_a = {.node = 7, .address = "10.0.0.7", .port = 1, .port_high = 2};
    struct order to_a = {.kind = ORDER_PROBE, .node = 7, .peers = &peer_b, .peer_count = 1};
    struct order to_b = {.kind = ORDER_PROBE, .node = 9, .peers = &peer_a, .peer_count = 1};
    struct sign_pair pair;
    struct order_read a, b;

    (void)state;
    sign_pair_make(&pair);
    a = order_round(&to_a, 0, &pair);
    b = order_round(&to_b, 0, &pair);
    assert_int_equal(a.order->what_case, SHEAF__ORDER__WHAT_PROBE);
    assert_int_equal(a.order->probe->samples, ORDER_PROBE_SAMPLES);
    assert_int_equal(a.order->probe->peers[0]->port_high, 2);
    assert_int_equal(a.order->probe->peers[0]->pair_key.len, 32);
    assert_memory_equal(a.order->probe->peers[0]->pair_key.data,
                        b.order->probe->peers[0]->pair_key.data, 32);
    frame_arena_fini(&a.arena);
    frame_arena_fini(&b.arena);
}

static void test_small_orders(void **state)
{
    struct order order = {.kind = ORDER_STOP, .attempt = 5, .reason = ERR_CANCELLED_BY_USER};
    struct sign_pair pair;
    struct order_read read;

    (void)state;
    sign_pair_make(&pair);
    read = order_round(&order, 0, &pair);
    assert_int_equal(read.order->what_case, SHEAF__ORDER__WHAT_STOP);
    assert_string_equal(read.order->stop->reason, "cancelled-by-user");
    frame_arena_fini(&read.arena);
    order.kind = ORDER_FORGET;
    read = order_round(&order, 0, &pair);
    assert_int_equal(read.order->what_case, SHEAF__ORDER__WHAT_FORGET);
    frame_arena_fini(&read.arena);
    order.kind = ORDER_SELFTEST;
    order.device[0] = 3;
    read = order_round(&order, 0xfeedfacecafebeef, &pair);
    assert_int_equal(read.order->what_case, SHEAF__ORDER__WHAT_SELFTEST);
    assert_int_equal(read.order->selftest->device, 3);
    assert_true(read.order->selftest->seed == 0xfeedfacecafebeef);
    frame_arena_fini(&read.arena);
}

/* -- commands -------------------------------------------------------------------------------- */

static const char spec_text[] =
    "{\"version\":1,\"name\":\"ddp\",\"nodes\":2,\"resources\":{\"gpu\":{\"memory\":\"24GB\"}},"
    "\"commands\":[\"python train.py\"]}";

static Sheaf__Command command_of(void)
{
    static const uint8_t credential[32] = {0xcc};
    static const uint8_t body_hash[32] = {0xbb};
    Sheaf__Command command = SHEAF__COMMAND__INIT;

    command.protocol = 1;
    command.request = 77;
    command.credential = wire_bytes(credential, 32);
    command.idempotency_key = wire_text("key-1");
    command.body_hash = wire_bytes(body_hash, 32);
    return command;
}

static int command_convert(const Sheaf__Command *command, struct event_box **ret_box,
                           struct command_note *ret_note, struct err *err)
{
    *ret_box = NULL;
    *err = (struct err){0};
    return from_gateway_command(command, 5, 1000000, ret_box, ret_note, err);
}

static void test_commands_need_a_credential_and_their_key(void **state)
{
    Sheaf__Command command = command_of();
    Sheaf__Deposit deposit = SHEAF__DEPOSIT__INIT;
    struct command_note note;
    struct event_box *box;
    char too_long[200];
    struct err err;

    (void)state;
    memset(too_long, 'k', sizeof(too_long));
    too_long[128] = 0;
    command.what_case = SHEAF__COMMAND__WHAT_DEPOSIT;
    command.deposit = &deposit;
    deposit.project = wire_text("demo");
    deposit.asset = wire_text("USD");
    deposit.memo = wire_text("first");
    deposit.amount_micro = 5000000;
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.kind, EV_DEPOSIT);
    assert_int_equal(box->event.caller.request, 5);
    assert_false(box->event.caller.system);
    assert_int_equal(box->event.caller.token_hash[0], 0xcc);
    assert_int_equal(box->event.caller.body_hash[0], 0xbb);
    assert_string_equal(box->event.caller.key, "key-1");
    assert_string_equal(box->event.deposit.project, "demo");
    assert_string_equal(box->event.deposit.asset, "USD");
    assert_string_equal(box->event.deposit.memo, "first");
    assert_int_equal(box->event.deposit.amount, 5000000);
    event_box_free(box);

    command.credential.len = 31;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_AUTH_REQUIRED);
    command.credential.len = 32;
    command.idempotency_key = wire_text("");
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_IDEMPOTENCY_MISSING);
    command.idempotency_key = too_long;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);
    command.idempotency_key = wire_text("key-1");
    command.body_hash.len = 0;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_WIRE_DECODE);
    command.body_hash.len = 32;
    deposit.amount_micro = 0;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_INVALID_AMOUNT);
    assert_string_equal(err.pointer, "/amount");
    command.what_case = SHEAF__COMMAND__WHAT_PING;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_WIRE_UNKNOWN_TYPE);
}

static void test_submit_parses_again_and_hashes_canonical_form(void **state)
{
    Sheaf__Command command = command_of();
    Sheaf__SubmitJob submit = SHEAF__SUBMIT_JOB__INIT;
    struct command_note note;
    struct event_box *box;
    uint8_t hash[32];
    struct err err;

    (void)state;
    command.what_case = SHEAF__COMMAND__WHAT_SUBMIT;
    command.submit = &submit;
    submit.spec_json = wire_bytes(spec_text, strlen(spec_text));
    if (command_convert(&command, &box, &note, &err) != 0)
        fail_msg("%s %s", err.pointer, err.text);
    assert_int_equal(box->event.kind, EV_JOB_SUBMIT);
    assert_string_equal(box->event.submit.name, "ddp");
    assert_int_equal(box->event.submit.ask->nodes, 2);
    assert_int_equal(box->event.submit.content_count, 0);
    sha256(box->event.submit.spec, strlen(box->event.submit.spec), hash);
    assert_memory_equal(box->event.submit.spec_sha256, hash, 32);
    assert_false(uuid_is_nil(&box->event.submit.uid));
    event_box_free(box);

    submit.spec_json = wire_bytes("{\"version\":1,", 13);
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_MALFORMED_JSON);
    submit.spec_json = wire_bytes("", 0);
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_BODY_TOO_LARGE);
}

static void test_tokens_get_fresh_secrets_and_expiries(void **state)
{
    Sheaf__Command command = command_of();
    Sheaf__NewToken token = SHEAF__NEW_TOKEN__INIT;
    char *scopes[] = {wire_text("jobs:read"), wire_text("jobs:write")};
    struct command_note note = {0}, second = {0};
    struct event_box *box;
    uint8_t hash[32];
    struct err err;

    (void)state;
    command.what_case = SHEAF__COMMAND__WHAT_TOKEN;
    command.token = &token;
    token.project = wire_text("demo");
    token.scopes = scopes;
    token.n_scopes = 2;
    token.ttl_s = 60;
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.token.role, ROLE_TENANT);
    assert_int_equal(box->event.token.scopes, SCOPE_JOBS_READ | SCOPE_JOBS_WRITE);
    assert_int_equal(box->event.token.expires_us, 61000000);
    assert_memory_equal(note.secret, "sht_", 4);
    sha256(note.secret, strlen(note.secret), hash);
    assert_memory_equal(box->event.token.hash, hash, 32);
    assert_memory_equal(box->event.token.prefix, note.secret, 12);
    assert_int_equal(strlen(box->event.token.prefix), 12);
    event_box_free(box);
    assert_int_equal(command_convert(&command, &box, &second, &err), 0);
    assert_string_not_equal(note.secret, second.secret);
    event_box_free(box);

    token.scopes[1] = wire_text("jobs:burn");
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);
    token.n_scopes = 0;
    token.role = wire_text("emperor");
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);
    token.role = wire_text("tenant");
    token.ttl_s = COMMAND_MAX_TTL_S + 1;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);

    command.what_case = SHEAF__COMMAND__WHAT_JOIN_TOKEN;
    command.join_token = &token;
    token.provider = wire_text("acme");
    token.ttl_s = 0;
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_memory_equal(note.secret, "shj_", 4);
    assert_int_equal(box->event.token.uses, 1);
    assert_string_equal(box->event.token.provider, "acme");
    assert_int_equal(box->event.token.expires_us, 1000000 + (int64_t)COMMAND_JOIN_TTL_S * 1000000);
    event_box_free(box);
    token.uses = COMMAND_MAX_JOIN_USES + 1;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);
}

static void test_enrol_needs_a_proof_of_the_signing_key(void **state)
{
    Sheaf__Command command = command_of();
    Sheaf__Enrol enrol = SHEAF__ENROL__INIT;
    uint8_t curve_key[32] = {1}, machine[32] = {2}, proven[COMMAND_JOIN_PROOF_LEN];
    uint8_t proof[SIGNATURE_SIZE];
    struct claim_parts parts;
    struct sign_pair pair;
    struct command_note note;
    struct event_box *box;
    struct buf claim;
    struct err err;

    (void)state;
    claim_make(&parts);
    buf_init(&claim, 0);
    frame_encode(&parts.claim.base, &claim);
    sign_pair_make(&pair);
    memcpy(proven, curve_key, 32);
    memcpy(proven + 32, command.credential.data, 32);
    sign_bytes(&pair, SIGN_DOMAIN_ENROL, proven, sizeof(proven), proof);
    command.what_case = SHEAF__COMMAND__WHAT_ENROL;
    command.enrol = &enrol;
    command.idempotency_key = wire_text("");
    enrol.curve_key = wire_bytes(curve_key, 32);
    enrol.sign_key = wire_bytes(pair.public_key, 32);
    enrol.machine = wire_bytes(machine, 32);
    enrol.claim = wire_bytes(claim.data, claim.length);
    enrol.proof = wire_bytes(proof, sizeof(proof));
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.kind, EV_NODE_ENROL);
    assert_int_equal(box->event.enrol.join_hash[0], 0xcc);
    assert_int_equal(box->event.enrol.curve_key[0], 1);
    assert_int_equal(box->event.enrol.machine[0], 2);
    assert_string_equal(box->event.enrol.claim->name, "atlas-1");
    event_box_free(box);

    curve_key[0] ^= 1; /* the proof is for another key */
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_WIRE_SIGNATURE);
    curve_key[0] ^= 1;
    enrol.claim.len--;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_WIRE_DECODE);
    buf_fini(&claim);
}

static void test_the_rest_of_the_commands(void **state)
{
    static const uint8_t uuid[16] = {9}, hash[32] = {8};
    Sheaf__Command command = command_of();
    Sheaf__NodeSet node_set = SHEAF__NODE_SET__INIT;
    Sheaf__OutputStored output = SHEAF__OUTPUT_STORED__INIT;
    Sheaf__AddContent content = SHEAF__ADD_CONTENT__INIT;
    Sheaf__JobRef job = SHEAF__JOB_REF__INIT;
    Sheaf__NewNamed named = SHEAF__NEW_NAMED__INIT;
    struct command_note note;
    struct event_box *box;
    struct err err;

    (void)state;
    command.what_case = SHEAF__COMMAND__WHAT_CANCEL;
    command.cancel = &job;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_INVALID_ID);
    job.job = wire_bytes(uuid, 16);
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.cancel.job.bytes[0], 9);
    event_box_free(box);

    command.what_case = SHEAF__COMMAND__WHAT_NODE_SET;
    command.node_set = &node_set;
    node_set.node = wire_bytes(uuid, 16);
    node_set.verb = wire_text("drain");
    node_set.reason = wire_text("maintenance");
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.node_set.verb, NODE_DRAIN);
    assert_string_equal(box->event.node_set.reason, "maintenance");
    event_box_free(box);
    node_set.reason = wire_text("bad \x1b text");
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);

    command.what_case = SHEAF__COMMAND__WHAT_OUTPUT;
    command.output = &output;
    output.attempt_uid = wire_bytes(uuid, 16);
    output.sha256 = wire_bytes(hash, 32);
    output.path = wire_text("/out");
    output.size = 12;
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_string_equal(box->event.output.path, "/out");
    event_box_free(box);
    output.rank = SPEC_MAX_NODES;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);

    command.what_case = SHEAF__COMMAND__WHAT_CONTENT;
    command.content = &content;
    content.project = wire_text("demo");
    content.sha256 = wire_bytes(hash, 32);
    content.size = UINT64_MAX;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_OUT_OF_RANGE);
    content.size = 3;
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.content.size, 3);
    event_box_free(box);

    command.what_case = SHEAF__COMMAND__WHAT_USER;
    command.user = &named;
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_FIELD_MISSING);
    named.name = wire_text("Ann");
    assert_int_equal(command_convert(&command, &box, &note, &err), -ERR_INVALID_NAME);
    named.name = wire_text("ann");
    named.role = wire_text("operator");
    assert_int_equal(command_convert(&command, &box, &note, &err), 0);
    assert_int_equal(box->event.kind, EV_USER_CREATE);
    assert_int_equal(box->event.named.role, ROLE_OPERATOR);
    event_box_free(box);
}

static void test_gateway_hello_is_bounded(void **state)
{
    static const uint8_t key[32] = {3};
    Sheaf__GatewayHello hello = SHEAF__GATEWAY_HELLO__INIT;
    char *bulk[] = {wire_text("tcp://10.0.0.1:7611"), wire_text("tcp://[fd00::1]:7611"),
                    wire_text("tcp://a:1"), wire_text("tcp://b:1"), wire_text("tcp://c:1")};
    struct gateway gateway;
    struct err err = {0};

    (void)state;
    hello.url = wire_text("https://gw:8443");
    hello.bulk = bulk;
    hello.n_bulk = 2;
    assert_int_equal(from_gateway_hello(&hello, &gateway, &err), -ERR_OUT_OF_RANGE);
    hello.bulk_key = wire_bytes(key, 32);
    assert_int_equal(from_gateway_hello(&hello, &gateway, &err), 0);
    assert_int_equal(gateway.bulk_count, 2);
    assert_string_equal(gateway.bulk[1], "tcp://[fd00::1]:7611");
    hello.n_bulk = 5;
    assert_int_equal(from_gateway_hello(&hello, &gateway, &err), -ERR_OUT_OF_RANGE);
    hello.n_bulk = 1;
    hello.bulk[0] = wire_text("ipc:///tmp/x");
    assert_int_equal(from_gateway_hello(&hello, &gateway, &err), -ERR_OUT_OF_RANGE);
}

/* -- replies and hints ----------------------------------------------------------------------- */

static const uint8_t server_key[32] = {0x0a}, sign_key[32] = {0x0b};
static const char *const control[] = {"tcp://10.0.0.1:7601"};
static const struct answer_facts facts = {server_key, sign_key, "USD", control, 1};

struct reply_read {
    struct frame_arena arena;
    const Sheaf__CommandReply *reply;
    json_t *body; /* NULL = none */
};

static struct reply_read reply_round(const struct reply *reply, const struct command_note *note)
{
    struct reply_read read = {0};
    struct err err;
    struct buf bytes;

    buf_init(&bytes, 0);
    to_gateway_reply(77, reply, note, &facts, 9, &bytes);
    frame_arena_init(&read.arena, FRAME_MAX_BUDGET);
    read.reply = (const Sheaf__CommandReply *)(const void *)frame_decode(
        &sheaf__command_reply__descriptor, bytes.data, bytes.length, &read.arena);
    assert_non_null(read.reply);
    assert_int_equal(read.reply->request, 77);
    assert_int_equal(read.reply->commit, 9);
    if (read.reply->body_json.len)
        assert_int_equal(
            json_read(read.reply->body_json.data, read.reply->body_json.len, &read.body, &err), 0);
    buf_fini(&bytes);
    return read;
}

static void reply_done(struct reply_read *read)
{
    frame_arena_fini(&read->arena);
    json_decref(read->body);
}

static void test_replies_carry_code_object_and_bodies(void **state)
{
    struct command_note note = {.kind = EV_JOIN_TOKEN_CREATE, .secret = "shj_x", .expires_us = 5};
    struct reply reply = {.request = 5, .object = {{4}}, .amount = 12};
    struct why *why = calloc(1, sizeof(*why));
    struct reply_read read;

    (void)state;
    read = reply_round(&reply, &note);
    assert_string_equal(read.reply->code, "");
    assert_int_equal(read.reply->object.len, 16);
    assert_string_equal(json_text(read.body, "secret"), "shj_x");
    assert_int_equal(strlen(json_text(read.body, "server_key")), 64);
    assert_int_equal(strlen(json_text(read.body, "sign_key")), 64);
    assert_int_equal(json_integer_value(json_object_get(read.body, "expires_us")), 5);
    reply_done(&read);

    reply.replayed = true; /* the secret was told once */
    read = reply_round(&reply, &note);
    assert_true(read.reply->replayed);
    assert_true(json_is_null(json_object_get(read.body, "secret")));
    reply_done(&read);

    reply.replayed = false;
    note.kind = EV_NODE_ENROL;
    read = reply_round(&reply, &note);
    assert_string_equal(json_string_value(json_array_get(json_object_get(read.body, "control"), 0)),
                        control[0]);
    assert_non_null(json_text(read.body, "node"));
    reply_done(&read);

    note.kind = EV_PLAN;
    reply.why = why;
    reply.amount = 1500000;
    read = reply_round(&reply, &note);
    assert_string_equal(json_text(read.body, "hold"), "1.50");
    assert_string_equal(json_text(read.body, "currency"), "USD");
    assert_true(json_is_object(json_object_get(read.body, "why")));
    reply_done(&read);

    reply = (struct reply){.request = 5};
    err_set_at(&reply.err, ERR_INSUFFICIENT_FUNDS, "/budget", "short of 3.00");
    note.kind = EV_TOKEN_CREATE;
    read = reply_round(&reply, &note);
    assert_string_equal(read.reply->code, "insufficient-funds");
    assert_string_equal(read.reply->pointer, "/budget");
    assert_string_equal(read.reply->detail, "short of 3.00");
    assert_int_equal(read.reply->object.len, 0);
    assert_null(read.body); /* no secret for a refusal */
    reply_done(&read);
    free(why);
}

static void test_hints_name_jobs_or_say_all(void **state)
{
    struct row *rows = calloc(HINT_MAX_JOBS + 2, sizeof(*rows));
    const Sheaf__ChangeHint *hint;
    struct frame_arena arena;
    struct buf bytes;

    (void)state;
    buf_init(&bytes, 0);
    rows[0].kind = ROW_CONTROL;
    assert_false(to_gateway_hint(rows, 1, 3, &bytes));
    assert_int_equal(bytes.length, 0);
    rows[0].kind = ROW_TOKEN; /* gateways forget what they know of tokens at any hint */
    assert_true(to_gateway_hint(rows, 1, 3, &bytes));
    buf_clear(&bytes);

    rows[0].kind = ROW_JOB;
    rows[0].job.id = 5;
    rows[0].job.uid.bytes[0] = 0x55;
    rows[1].kind = ROW_JOB_EVENT;
    rows[1].job_event.job = 5;
    rows[2].kind = ROW_NODE;
    assert_true(to_gateway_hint(rows, 3, 3, &bytes));
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    hint = (const Sheaf__ChangeHint *)(const void *)frame_decode(&sheaf__change_hint__descriptor,
                                                                 bytes.data, bytes.length, &arena);
    assert_int_equal(hint->seq, 3);
    assert_int_equal(hint->n_jobs, 1);
    assert_int_equal(hint->jobs[0].data[0], 0x55);
    assert_true(hint->nodes);
    assert_false(hint->all);
    frame_arena_fini(&arena);

    rows[1].job_event.job = 6; /* a job whose UUID is not in the batch */
    buf_clear(&bytes);
    assert_true(to_gateway_hint(rows, 3, 3, &bytes));
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    hint = (const Sheaf__ChangeHint *)(const void *)frame_decode(&sheaf__change_hint__descriptor,
                                                                 bytes.data, bytes.length, &arena);
    assert_true(hint->all);
    assert_int_equal(hint->n_jobs, 0);
    frame_arena_fini(&arena);

    for (uint64_t i = 0; i < HINT_MAX_JOBS + 1; i++) {
        rows[i] = (struct row){.kind = ROW_JOB};
        rows[i].job.id = i + 1;
    }
    buf_clear(&bytes);
    assert_true(to_gateway_hint(rows, HINT_MAX_JOBS + 1, 3, &bytes));
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    hint = (const Sheaf__ChangeHint *)(const void *)frame_decode(&sheaf__change_hint__descriptor,
                                                                 bytes.data, bytes.length, &arena);
    assert_true(hint->all);
    frame_arena_fini(&arena);
    buf_fini(&bytes);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claim_is_taken_whole),
        cmocka_unit_test(test_claim_with_any_fault_is_refused),
        cmocka_unit_test(test_hello_carries_claim_and_held_tasks),
        cmocka_unit_test(test_task_news_are_typed_and_bounded),
        cmocka_unit_test(test_receipt_is_verified_over_its_exact_bytes),
        cmocka_unit_test(test_receipt_of_another_node_or_out_of_range_is_refused),
        cmocka_unit_test(test_notices),
        cmocka_unit_test(test_link_samples_are_bounded),
        cmocka_unit_test(test_prepare_names_spec_devices_and_the_other_ranks),
        cmocka_unit_test(test_go_names_all_ranks_and_pairs),
        cmocka_unit_test(test_the_largest_gang_fits_one_frame),
        cmocka_unit_test(test_probe_gives_both_sides_one_key),
        cmocka_unit_test(test_small_orders),
        cmocka_unit_test(test_commands_need_a_credential_and_their_key),
        cmocka_unit_test(test_submit_parses_again_and_hashes_canonical_form),
        cmocka_unit_test(test_tokens_get_fresh_secrets_and_expiries),
        cmocka_unit_test(test_enrol_needs_a_proof_of_the_signing_key),
        cmocka_unit_test(test_the_rest_of_the_commands),
        cmocka_unit_test(test_gateway_hello_is_bounded),
        cmocka_unit_test(test_replies_carry_code_object_and_bodies),
        cmocka_unit_test(test_hints_name_jobs_or_say_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
