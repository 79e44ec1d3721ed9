#ifndef SHEAF_ORCHESTRATOR_FLEET_FLEET_PRIVATE_H
#define SHEAF_ORCHESTRATOR_FLEET_FLEET_PRIVATE_H

#include "common/pure/map.h"
#include "orchestrator/fleet/fleet.h"
#include "orchestrator/fleet/from_gateway.h"
#include "orchestrator/fleet/from_worker.h"
#include "orchestrator/fleet/gateways.h"
#include "orchestrator/fleet/links.h"
#include "orchestrator/fleet/liveness.h"
#include "orchestrator/fleet/session.h"

/* A worker comes back within its longest reconnect pause (10 s) and a handshake. */
#define FLEET_BOOT_GRACE_US ((int64_t)30000000)
#define FLEET_TICK_US       ((int64_t)250000)
/*
 * What one connection may have sent of messages that are not whole yet, and all together. A message
 * has at most FRAME_MAX bytes, so that only a hostile or broken peer comes near; the wire's bytes
 * cost up to 2.7 times as much here (frames of 34 bytes).
 */
#define FLEET_HELD_ONE   ((uint64_t)8 << 20)
#define FLEET_HELD_ALL   ((uint64_t)16 << 20)
#define FLEET_HELD_SPARE ((uint64_t)1 << 20)
/* A key that flooded may not connect for so long. */
#define FLEET_FLOOD_US ((int64_t)60000000)
/* Time that one tick may count; beyond it we slept ourselves. */
#define FLEET_STALL_US ((int64_t)2000000)
/* Commands that wait for their commit; beyond it gateways are told to come back. */
#define FLEET_MAX_WAITING 4096u
/* A commit that takes longer is reported as a timeout; its outcome is in the database. */
#define FLEET_WAIT_US ((int64_t)60000000)
/* Self-tests waiting to be recomputed; a worker resends what is not acknowledged. */
#define FLEET_MAX_VERDICTS 1024u

/* A command whose reply has not come. */
struct waiting {
    uint64_t handle;
    uint8_t peer[SESSION_MAX_PEER];
    size_t peer_size; /* 0: the orchestrator itself */
    uint64_t gateway_request;
    struct command_note note;
    int64_t since_us; /* monotonic */
    fleet_on_token_f on_token;
    void *arg;
};

/* A self-test result on its way to a verdict. */
struct verdict_job {
    struct verdict verdict;
    uint64_t node;
    uint64_t seq;
    uint32_t device;
    uint32_t matmul_gflops;
    uint32_t copy_mib_s;
    uint8_t *bytes; /* the frame; owned */
    size_t size;
    struct verdict_job *next;
};

struct fleet {
    struct fleet_options options;
    struct engine *engine; /* NULL until fleet_open */
    struct fleet_endpoints endpoints;
    struct fleet_counters counters;
    uint8_t pair_secret[32];
    struct zsock *workers;
    struct zsock *commands;
    struct zsock *hints;
    struct sessions *sessions;
    struct liveness *liveness;
    struct links *links;
    struct gateways gateways;
    struct map waiting; /* handle → struct waiting */
    struct map hang_up; /* keys whose connections are ended, after the answers left */
    uint64_t last_handle;
    struct verdict_job *verdict_head;
    struct verdict_job *verdict_tail;
    uint32_t verdict_count;
    struct event *verdict_timer;
    struct event *tick_timer;
    int64_t tick_due_us;
};

/* workers.c */
int workers_open(struct fleet *fleet, struct err *err) SHEAF_MUST_USE;
/* Posts what a worker sent; full, and it counts on an acknowledgement: its session ends. */
bool workers_post(struct fleet *fleet, struct session *session, struct event_box *box);
void workers_order(struct fleet *fleet, const struct order *order);
void workers_welcome(struct fleet *fleet, uint64_t node);
void workers_welcome_all(struct fleet *fleet);
void workers_status(struct fleet *fleet, uint64_t node);
/* Closes every session, so that each worker says again what it holds. */
void workers_greet_again(struct fleet *fleet);
void workers_ack(struct fleet *fleet, uint64_t node, uint64_t seq);
void workers_tick(struct fleet *fleet, int64_t now_us);
/* Ends the connections of this key a moment later, so that its last answer leaves. */
void workers_hang_up(struct fleet *fleet, const uint8_t key[KEY_SIZE]);

/* selftests.c */
void selftests_open(struct fleet *fleet);
/* Queues a result for its verdict. ERR_TOO_MANY: not taken, nothing happened. */
int selftests_take(struct fleet *fleet, struct session *session, const struct worker_frame *frame,
                   const Sheaf__SelfTestResult *result, struct err *err) SHEAF_MUST_USE;
/* Seed for an order; the same until its answer came. */
uint64_t selftests_seed(struct session *session, uint32_t device);
void selftests_free(struct fleet *fleet);

/* commands.c */
int commands_open(struct fleet *fleet, struct err *err) SHEAF_MUST_USE;
void commands_reply(struct fleet *fleet, const struct reply *reply, uint64_t seq);
void commands_hint(struct fleet *fleet, const struct row *rows, uint32_t row_count, uint64_t seq);
void commands_tick(struct fleet *fleet, int64_t now_us);
void commands_free(struct fleet *fleet);

#endif
