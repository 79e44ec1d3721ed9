#ifndef SHEAF_ORCHESTRATOR_FLEET_FROM_WORKER_H
#define SHEAF_ORCHESTRATOR_FLEET_FROM_WORKER_H

/*
 * Messages of a worker → events of the core. Every field is bounded here: a text is clean UTF-8, an
 * enum is known, a number fits its column; what is not is refused with a reason, so that nothing a
 * worker sends can make the database refuse a batch.
 *
 * A box made here owns a copy of the frame and of everything its event points to.
 */
#include "orchestrator/fleet/verdict.h"
#include "orchestrator/store/engine.h"
#include "proto/worker.pb-c.h"

/* Whose frame it is, from the authenticated key; never from the message. */
struct worker_frame {
    uint64_t node;
    const struct uuid *uid;
    const uint8_t *sign_key; /* 32 bytes */
    uint64_t seq;            /* durable: acknowledged after the commit; 0 = none */
    const uint8_t *bytes;    /* for the journal */
    size_t size;
};

/* Also for joins. ERR_WIRE_INVENTORY says which field. */
int from_worker_claim(const Sheaf__Claim *claim, struct node_claim *ret_claim,
                      struct err *err) SHEAF_MUST_USE;
int from_worker_hello(const struct worker_frame *frame, const Sheaf__Hello *hello,
                      struct event_box **ret_box, struct err *err) SHEAF_MUST_USE;
/* ERR_WIRE_UNKNOWN_TYPE: unknown news, class or slug; ERR_WIRE_DECODE: numbers out of range. */
int from_worker_task(const struct worker_frame *frame, const Sheaf__TaskEvent *task,
                     struct event_box **ret_box, struct err *err) SHEAF_MUST_USE;
/*
 * Verifies the signature over the exact bytes before looking at them. ERR_WIRE_SIGNATURE,
 * ERR_WIRE_IDENTITY (a receipt of another node), ERR_WIRE_USAGE, ERR_WIRE_DECODE.
 */
int from_worker_receipt(const struct worker_frame *frame, const Sheaf__SignedReceipt *receipt,
                        struct event_box **ret_box, struct err *err) SHEAF_MUST_USE;
/* EV_NODE_SET or EV_DEVICE_USE. */
int from_worker_notice(const struct worker_frame *frame, const Sheaf__NodeNotice *notice,
                       struct event_box **ret_box, struct err *err) SHEAF_MUST_USE;
/* ERR_WIRE_DECODE. ret_link->to is as sent: the caller knows which nodes exist. */
int from_worker_link(const struct worker_frame *frame, const Sheaf__LinkSample *sample,
                     struct ev_link *ret_link, struct err *err) SHEAF_MUST_USE;
/* The journal gets this sample alone, not the whole report. */
struct event_box *from_worker_link_box(const struct ev_link *link, const Sheaf__LinkSample *sample);
/* What the worker answered, ready for verdict_step(); seed and claim are the caller's to check. */
int from_worker_selftest(const Sheaf__SelfTestResult *result, struct verdict *ret_verdict,
                         struct err *err) SHEAF_MUST_USE;
/* The event of a verdict that stands. gflops and copy speed are as the worker timed them. */
struct event_box *from_worker_verdict(const struct worker_frame *frame, uint32_t device,
                                      uint32_t matmul_gflops, uint32_t copy_mib_s,
                                      const struct verdict *verdict);
/* An event that only names the node: EV_NODE_BYE, EV_NODE_SILENT, EV_NODE_BACK. */
struct event_box *from_worker_plain(enum event_kind kind, uint64_t node);
/* EV_NODE_OFFENCE with the text of err. */
struct event_box *from_worker_offence(uint64_t node, const struct err *err);

/* Fills event.fresh. */
void box_refresh(struct event_box *box);

/* Bounds of numbers that a worker claims; each fits a 32-bit signed column. */
#define CLAIM_MAX_CPU_MILLI  100000000u /* 100 000 cores */
#define CLAIM_MAX_MIB        (1u << 30) /* a pebibyte of memory or disk */
#define CLAIM_MAX_NOTICE_S   2592000u   /* a month */
#define WORKER_MAX_USED_MS   ((uint64_t)10 * 366 * 86400 * 1000)
#define WORKER_MAX_EXIT_CODE 255

#endif
