#include "orchestrator/fleet/from_worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/clock.h"
#include "common/io/frame.h"
#include "common/io/keys.h"
#include "common/pure/mem.h"
#include "orchestrator/fleet/text.h"
#include "proto/receipt.pb-c.h"

void box_refresh(struct event_box *box)
{
    for (size_t i = 0; i < sizeof(box->event.fresh) / sizeof(box->event.fresh[0]); i++)
        box->event.fresh[i] = uuid_new();
}

/*
 * A box with `extra` zeroed bytes of its own in front of the copy of the frame. *ret_extra stays
 * valid as long as the box.
 */
static struct event_box *box_of(enum event_kind kind, const struct worker_frame *frame,
                                size_t extra, void **ret_extra)
{
    struct event_box *box = event_box_new(kind);
    uint8_t *memory = mem_new(extra + frame->size, 1);

    box->memory = memory;
    box->release = free;
    if (frame->size) {
        memcpy(memory + extra, frame->bytes, frame->size);
        box->bytes = memory + extra;
        box->bytes_length = (uint32_t)frame->size;
    }
    if (frame->seq) {
        box->event.ack_node = frame->node;
        box->event.ack_seq = frame->seq;
    }
    box_refresh(box);
    if (ret_extra)
        *ret_extra = memory;
    return box;
}

struct event_box *from_worker_plain(enum event_kind kind, uint64_t node)
{
    struct event_box *box = event_box_new(kind);

    box->event.node.node = node;
    box_refresh(box);
    return box;
}

struct event_box *from_worker_offence(uint64_t node, const struct err *err)
{
    struct worker_frame frame = {.node = node};
    void *detail;
    struct event_box *box = box_of(EV_NODE_OFFENCE, &frame, ROW_DETAIL, &detail);

    text_take(detail, ROW_DETAIL, err->text);
    box->event.offence.node = node;
    box->event.offence.reason = err->code;
    box->event.offence.detail = detail;
    return box;
}

/* -- inventory ------------------------------------------------------------------------------- */

static int claim_key(const char *text, const char *field, char *out, size_t size, struct err *err)
{
    if (!text_is_clean(text, size))
        return err_set_at(err, ERR_WIRE_INVENTORY, field,
                          "%s is too long or holds control characters", field);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int claim_max(uint64_t value, uint64_t max, const char *field, struct err *err)
{
    if (value > max)
        return err_set_at(err, ERR_WIRE_INVENTORY, field,
                          "%s is %" PRIu64 ", at most %" PRIu64 " is possible", field, value, max);
    return 0;
}

static int claim_device(const Sheaf__ClaimDevice *wire, struct claim_device *out, struct err *err)
{
    int rc;

    if ((rc = claim_key(wire->uuid, "devices.uuid", out->uuid, sizeof(out->uuid), err))
        || (rc = claim_key(wire->vendor, "devices.vendor", out->vendor, sizeof(out->vendor), err))
        || (rc = claim_key(wire->model, "devices.model", out->model, sizeof(out->model), err))
        || (rc = claim_key(wire->driver, "devices.driver", out->driver, sizeof(out->driver), err))
        || (rc = claim_max(wire->memory_mib, VERDICT_MAX_MIB, "devices.memory_mib", err)))
        return rc;
    out->class = device_class_parse(wire->device_class);
    if (out->class == DEVICE_CLASS_COUNT)
        return err_set_at(err, ERR_WIRE_INVENTORY, "devices.device_class", "unknown device class");
    if (out->uuid[0] == 0)
        return err_set_at(err, ERR_WIRE_INVENTORY, "devices.uuid", "the uuid is empty");
    if (out->model[0] == 0)
        return err_set_at(err, ERR_WIRE_INVENTORY, "devices.model", "the model is empty");
    if (wire->memory_mib == 0)
        return err_set_at(err, ERR_WIRE_INVENTORY, "devices.memory_mib", "it has no memory");
    out->memory_mib = wire->memory_mib;
    out->offered = wire->offered;
    return 0;
}

/* "devices.model" → "devices[3].model", in the pointer and in the text. */
static int name_device(int rc, size_t index, struct err *err)
{
    struct err plain;
    const char *field;

    if (err == NULL)
        return rc;
    plain = *err;
    field = strchr(plain.pointer, '.');
    snprintf(err->pointer, sizeof(err->pointer), "devices[%zu]%.64s", index, field ? field : "");
    snprintf(err->text, sizeof(err->text), "device %zu: %.200s", index, plain.text);
    return rc;
}

static int claim_devices(const Sheaf__Claim *wire, struct node_claim *out, struct err *err)
{
    if (wire->n_devices > CLAIM_MAX_DEVICES)
        return err_set_at(err, ERR_WIRE_INVENTORY, "devices", "%zu devices, at most %d",
                          wire->n_devices, CLAIM_MAX_DEVICES);
    for (size_t i = 0; i < wire->n_devices; i++) {
        int rc = claim_device(wire->devices[i], &out->device[i], err);

        if (rc)
            return name_device(rc, i, err);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(out->device[k].uuid, out->device[i].uuid) == 0)
                return err_set_at(err, ERR_WIRE_INVENTORY, "devices.uuid",
                                  "device %zu and %zu have one uuid", k, i);
        }
    }
    out->device_count = (uint32_t)wire->n_devices;
    return 0;
}

static int claim_place(const Sheaf__Claim *wire, struct node_claim *out, struct err *err)
{
    const char *country = wire->country;

    if (!name_is_valid(wire->name))
        return err_set_at(err, ERR_WIRE_INVENTORY, "name",
                          "the node's name has to be 1-63 of a-z 0-9 - and start with a letter");
    snprintf(out->name, sizeof(out->name), "%s", wire->name);
    if (country[0]
        && (strlen(country) != 2 || country[0] < 'A' || country[0] > 'Z' || country[1] < 'A'
            || country[1] > 'Z'))
        return err_set_at(err, ERR_WIRE_INVENTORY, "country", "two capital letters, or nothing");
    snprintf(out->country, sizeof(out->country), "%.2s", country);
    if (!text_is_address(wire->address) || strlen(wire->address) >= sizeof(out->address))
        return err_set_at(err, ERR_WIRE_INVENTORY, "address",
                          "a numeric address where peers reach this machine");
    snprintf(out->address, sizeof(out->address), "%s", wire->address);
    if (wire->port_low == 0 || wire->port_low >= wire->port_high || wire->port_high > 65535
        || wire->probe_port == 0 || wire->probe_port > 65535)
        return err_set_at(err, ERR_WIRE_INVENTORY, "ports",
                          "port_low < port_high and probe_port, all of 1-65535");
    out->port_low = wire->port_low;
    out->port_high = wire->port_high;
    out->probe_port = wire->probe_port;
    return 0;
}

int from_worker_claim(const Sheaf__Claim *wire, struct node_claim *ret_claim, struct err *err)
{
    struct node_claim out = {0};
    int rc;

    if (wire == NULL)
        return err_set(err, ERR_WIRE_INVENTORY, "the claim is missing");
    if ((rc = claim_place(wire, &out, err))
        || (rc = claim_key(wire->region, "region", out.region, sizeof(out.region), err))
        || (rc = claim_key(wire->runtime, "runtime", out.runtime, sizeof(out.runtime), err))
        || (rc = claim_key(wire->version, "version", out.version, sizeof(out.version), err))
        || (rc = claim_max(wire->cpu_milli, CLAIM_MAX_CPU_MILLI, "cpu_milli", err))
        || (rc = claim_max(wire->memory_mib, CLAIM_MAX_MIB, "memory_mib", err))
        || (rc = claim_max(wire->disk_mib, CLAIM_MAX_MIB, "disk_mib", err))
        || (rc = claim_max(wire->notice_s, CLAIM_MAX_NOTICE_S, "notice_s", err))
        || (rc = claim_devices(wire, &out, err)))
        return rc;
    if (wire->price_micro < 0 || wire->price_micro > MICRO_MAX)
        return err_set_at(err, ERR_WIRE_INVENTORY, "price_micro", "the price is out of range");
    out.cpu_milli = wire->cpu_milli;
    out.memory_mib = wire->memory_mib;
    out.disk_mib = wire->disk_mib;
    out.price = wire->price_micro;
    out.notice_s = wire->notice_s;
    out.paused = wire->paused;
    *ret_claim = out;
    return 0;
}

/* -- hello ----------------------------------------------------------------------------------- */

static int held_task(const Sheaf__HeldTask *wire, struct held_task *out, struct err *err)
{
    out->state = rank_state_parse(wire->state);
    if (out->state == RANK_STATE_COUNT)
        return err_set(err, ERR_WIRE_UNKNOWN_TYPE, "hello holds a task of an unknown state");
    if (wire->rank >= SPEC_MAX_NODES)
        return err_set(err, ERR_WIRE_DECODE, "hello holds a task of an impossible rank");
    out->attempt = wire->attempt;
    out->term = wire->term;
    out->epoch = wire->epoch;
    out->rank = wire->rank;
    out->exit_code = wire->exit_code;
    return 0;
}

int from_worker_hello(const struct worker_frame *frame, const Sheaf__Hello *hello,
                      struct event_box **ret_box, struct err *err)
{
    struct event_box *box;
    struct node_claim *claim;
    struct ev_hello *out;
    void *extra;
    int rc;

    if (hello->n_tasks > HELLO_MAX_TASKS)
        return err_set(err, ERR_WIRE_DECODE, "%zu tasks held, at most %d", hello->n_tasks,
                       HELLO_MAX_TASKS);
    box = box_of(EV_NODE_HELLO, frame, sizeof(*claim), &extra);
    claim = extra;
    out = &box->event.hello;
    out->node = frame->node;
    out->boot = hello->boot;
    out->claim = claim;
    rc = from_worker_claim(hello->claim, claim, err);
    for (size_t i = 0; rc == 0 && i < hello->n_tasks; i++)
        rc = held_task(hello->tasks[i], &out->task[i], err);
    if (rc) {
        event_box_free(box);
        return rc;
    }
    out->task_count = (uint32_t)hello->n_tasks;
    *ret_box = box;
    return 0;
}

/* -- tasks --------------------------------------------------------------------------------------
 */

static enum task_news news_parse(const char *name)
{
    enum task_news news = TASK_PREPARING;

    while (news < TASK_NEWS_COUNT && strcmp(task_news_name(news), name) != 0)
        news++;
    return news;
}

int from_worker_task(const struct worker_frame *frame, const Sheaf__TaskEvent *task,
                     struct event_box **ret_box, struct err *err)
{
    enum task_news news = news_parse(task->news);
    enum err_code reason = err_from_slug(task->reason);
    enum fail_class class = fail_class_parse(task->fail_class);
    struct event_box *box;
    struct ev_task *out;
    void *detail;

    if (news == TASK_NEWS_COUNT)
        return err_set(err, ERR_WIRE_UNKNOWN_TYPE, "unknown task news");
    if ((task->reason[0] && reason == ERR_NONE) || (task->fail_class[0] && class == FAIL_NONE))
        return err_set(err, ERR_WIRE_UNKNOWN_TYPE, "unknown reason or class of a task event");
    if (task->rank >= SPEC_MAX_NODES || task->port > 65535 || task->exit_code < 0
        || task->exit_code > WORKER_MAX_EXIT_CODE)
        return err_set(err, ERR_WIRE_DECODE, "rank, port or exit code out of range");
    box = box_of(EV_TASK, frame, ROW_DETAIL, &detail);
    text_take(detail, ROW_DETAIL, task->detail);
    out = &box->event.task;
    out->node = frame->node;
    out->attempt = task->attempt;
    out->term = task->term;
    out->epoch = task->epoch;
    out->rank = task->rank;
    out->news = news;
    out->exit_code = task->exit_code;
    out->reason = reason;
    out->class = class;
    out->port = task->port;
    out->detail = detail;
    *ret_box = box;
    return 0;
}

/* -- receipts ------------------------------------------------------------------------------------
 */

static int receipt_lines(const Sheaf__Receipt *wire, struct ev_receipt *out, struct err *err)
{
    if (wire->n_lines > HELLO_MAX_TASKS)
        return err_set(err, ERR_WIRE_DECODE, "%zu receipt lines, at most %d", wire->n_lines,
                       HELLO_MAX_TASKS);
    for (size_t i = 0; i < wire->n_lines; i++) {
        const Sheaf__ReceiptLine *line = wire->lines[i];

        if (line->used_ms > WORKER_MAX_USED_MS)
            return err_set(err, ERR_WIRE_USAGE, "a receipt of more than ten years");
        for (size_t k = 0; k < i; k++) {
            if (wire->lines[k]->attempt == line->attempt && wire->lines[k]->rank == line->rank)
                return err_set(err, ERR_WIRE_USAGE,
                               "two lines about rank %" PRIu32 " of attempt %" PRIu64, line->rank,
                               line->attempt);
        }
        out->line[i].attempt = line->attempt;
        out->line[i].term = line->term;
        out->line[i].epoch = line->epoch;
        out->line[i].rank = line->rank;
        out->line[i].used_ms = line->used_ms;
    }
    out->line_count = (uint32_t)wire->n_lines;
    return 0;
}

static int receipt_fill(const struct worker_frame *frame, const Sheaf__Receipt *wire,
                        struct ev_receipt *out, struct err *err)
{
    if (wire == NULL)
        return err_set(err, ERR_WIRE_DECODE, "the receipt could not be decoded");
    if (wire->node.len != sizeof(frame->uid->bytes)
        || memcmp(wire->node.data, frame->uid->bytes, sizeof(frame->uid->bytes)) != 0)
        return err_set(err, ERR_WIRE_IDENTITY, "a receipt of another node");
    if (wire->seq == 0 || wire->seq > INT64_MAX)
        return err_set(err, ERR_WIRE_DECODE, "receipt number out of range");
    out->node = frame->node;
    out->seq = wire->seq;
    return receipt_lines(wire, out, err);
}

int from_worker_receipt(const struct worker_frame *frame, const Sheaf__SignedReceipt *receipt,
                        struct event_box **ret_box, struct err *err)
{
    const ProtobufCBinaryData *bytes = &receipt->receipt;
    struct frame_arena arena;
    struct event_box *box;
    void *copy;
    int rc;

    if (receipt->signature.len != SIGNATURE_SIZE || bytes->len == 0
        || !sign_verify(frame->sign_key, SIGN_DOMAIN_RECEIPT, bytes->data, bytes->len,
                        receipt->signature.data))
        return err_set(err, ERR_WIRE_SIGNATURE, "the receipt is not signed by this node's key");
    box = box_of(EV_RECEIPT, frame, bytes->len, &copy);
    memcpy(copy, bytes->data, bytes->len);
    box->event.receipt.bytes = copy;
    box->event.receipt.bytes_length = (uint32_t)bytes->len;
    memcpy(box->event.receipt.signature, receipt->signature.data, SIGNATURE_SIZE);
    frame_arena_init(&arena, FRAME_MAX_BUDGET);
    rc = receipt_fill(frame,
                      (const Sheaf__Receipt *)(const void *)frame_decode(
                          &sheaf__receipt__descriptor, bytes->data, bytes->len, &arena),
                      &box->event.receipt, err);
    frame_arena_fini(&arena);
    if (rc) {
        event_box_free(box);
        return rc;
    }
    *ret_box = box;
    return 0;
}

/* -- notices, links, self-tests -------------------------------------------------------------------
 */

int from_worker_notice(const struct worker_frame *frame, const Sheaf__NodeNotice *notice,
                       struct event_box **ret_box, struct err *err)
{
    enum node_verb verb = node_verb_parse(notice->verb);
    struct event_box *box;
    void *reason;

    if (strcmp(notice->verb, "device-use") == 0) {
        if (notice->device >= SPEC_MAX_GPUS_PER_NODE)
            return err_set(err, ERR_WIRE_DECODE, "device number out of range");
        box = box_of(EV_DEVICE_USE, frame, 0, NULL);
        box->event.device_use.node = frame->node;
        box->event.device_use.device = notice->device;
        box->event.device_use.foreign = notice->foreign;
        *ret_box = box;
        return 0;
    }
    if (verb == NODE_VERB_COUNT || verb == NODE_REVOKE) /* the operator's alone */
        return err_set(err, ERR_WIRE_UNKNOWN_TYPE, "unknown notice");
    if (notice->price_micro < 0 || notice->price_micro > MICRO_MAX)
        return err_set(err, ERR_WIRE_DECODE, "the price is out of range");
    box = box_of(EV_NODE_SET, frame, ROW_DETAIL, &reason);
    text_take(reason, ROW_DETAIL, notice->detail);
    box->event.node_set.id = frame->node;
    box->event.node_set.verb = verb;
    box->event.node_set.reason = reason;
    box->event.node_set.price = notice->price_micro;
    *ret_box = box;
    return 0;
}

int from_worker_link(const struct worker_frame *frame, const Sheaf__LinkSample *sample,
                     struct ev_link *ret_link, struct err *err)
{
    if (sample->peer == 0 || sample->peer == frame->node || sample->loss_ppm > PPM
        || sample->rtt_p50_us > sample->rtt_p95_us || sample->rtt_p95_us > INT32_MAX)
        return err_set(err, ERR_WIRE_DECODE, "a link sample out of range");
    ret_link->from = frame->node;
    ret_link->to = sample->peer;
    ret_link->rtt_p50_us = sample->rtt_p50_us;
    ret_link->rtt_p95_us = sample->rtt_p95_us;
    ret_link->loss_ppm = sample->loss_ppm;
    ret_link->reach = sample->reach;
    return 0;
}

struct event_box *from_worker_link_box(const struct ev_link *link, const Sheaf__LinkSample *sample)
{
    struct worker_frame frame = {.node = link->from};
    struct event_box *box;
    struct buf bytes;

    buf_init(&bytes, FRAME_MAX);
    frame_encode(&sample->base, &bytes);
    frame.bytes = (const uint8_t *)bytes.data;
    frame.size = bytes.length;
    box = box_of(EV_LINK, &frame, 0, NULL);
    box->event.link = *link;
    buf_fini(&bytes);
    return box;
}

int from_worker_selftest(const Sheaf__SelfTestResult *result, struct verdict *ret_verdict,
                         struct err *err)
{
    struct verdict out = {0};

    if (result->device >= SPEC_MAX_GPUS_PER_NODE || result->n_chunk_sums > SELFTEST_SAMPLES)
        return err_set(err, ERR_WIRE_DECODE, "device or number of chunk sums out of range");
    out.seed = result->seed;
    out.memory_mib = result->memory_mib;
    out.chunk_count = (uint32_t)result->n_chunk_sums;
    if (result->n_chunk_sums)
        memcpy(out.chunk_sum, result->chunk_sums, result->n_chunk_sums * sizeof(uint64_t));
    out.matmul_sum = result->matmul_sum;
    text_take(out.failure, sizeof(out.failure), result->failure);
    *ret_verdict = out;
    return 0;
}

struct event_box *from_worker_verdict(const struct worker_frame *frame, uint32_t device,
                                      uint32_t matmul_gflops, uint32_t copy_mib_s,
                                      const struct verdict *verdict)
{
    void *detail;
    struct event_box *box = box_of(EV_SELFTEST, frame, ROW_DETAIL, &detail);
    struct ev_selftest *out = &box->event.selftest;

    memcpy(detail, verdict->detail, ROW_DETAIL);
    out->node = frame->node;
    out->device = device;
    out->passed = verdict->passed;
    out->measured_mib = verdict->measured_mib;
    out->matmul_gflops = matmul_gflops > INT32_MAX ? INT32_MAX : matmul_gflops;
    out->copy_mib_s = copy_mib_s > INT32_MAX ? INT32_MAX : copy_mib_s;
    out->detail = detail;
    return box;
}
