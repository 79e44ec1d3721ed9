#ifndef SHEAF_TESTS_SUPPORT_WORLD_BENCH_H
#define SHEAF_TESTS_SUPPORT_WORLD_BENCH_H

/*
 * A world on a bench: time and ids by hand, every emitted row kept as a database would keep it,
 * every invariant checked after every step. Aborts with a text when one breaks.
 */
#include "orchestrator/core/world.h"
#include "orchestrator/core/world_private.h"
#include "tests/support/world/shadow.h"

#define BENCH_SECOND    ((usec_t)1000000)
#define BENCH_MAX_NODES 24u
#define BENCH_UNIT      MICRO_PER_UNIT

struct bench {
    struct world *world;
    struct world_out out; /* of the last step */
    struct policy policy;
    usec_t now;
    uint32_t term;
    uint64_t uuid_count;
    struct shadow shadow;
    uint8_t tenant[32]; /* token hashes */
    uint8_t operator_[32];
    uint8_t gateway[32];
    uint8_t join[32];
    uint64_t node[BENCH_MAX_NODES]; /* ids in the order of enrolment */
    uint32_t node_count;
    struct job_ask ask; /* template of the next submission */
    const char *spec;
    bool quiet; /* no world_check after each step: the caller does it */
};

/* Project "lab" with a tenant token and 1000 units; provider "home"; a join token. */
void bench_init(struct bench *bench);
void bench_fini(struct bench *bench);
struct uuid bench_uuid(struct bench *bench);
/* One step; the outputs stay in bench->out until the next. */
void bench_step(struct bench *bench, struct event *event);
/* A command by a token (NULL = the system); returns the reply. */
struct reply bench_command(struct bench *bench, struct event *event, const uint8_t token[32]);
/* The reply of the last step; code ERR_MAX when there was none. */
struct reply bench_reply(const struct bench *bench);
bool bench_schedule(struct bench *bench);
/* Lets time pass with every deadline met on the way. */
void bench_wait(struct bench *bench, usec_t span);

/* -- nodes ----------------------------------------------------------------------------------- */
/* A claim of `devices` devices of `mib` each, one unit per device and hour. */
struct node_claim bench_claim(uint32_t number, uint32_t devices, uint32_t mib);
/* Enrols; returns the index. */
uint32_t bench_enrol(struct bench *bench, const struct node_claim *claim);
void bench_hello(struct bench *bench, uint32_t index, const struct node_claim *claim);
void bench_selftest(struct bench *bench, uint32_t index, uint32_t device, bool passed,
                    uint32_t mib);
/* Enrols, says hello, passes every self-test. */
uint32_t bench_node(struct bench *bench, uint32_t devices, uint32_t mib);
/* Both directions of a pair. */
void bench_link(struct bench *bench, uint32_t a, uint32_t b, uint32_t rtt_us, bool reach);
/* All pairs of the nodes from `first` to the last at this RTT. */
void bench_mesh(struct bench *bench, uint32_t first, uint32_t rtt_us);
void bench_node_event(struct bench *bench, enum event_kind kind, uint32_t index);

/* -- jobs ------------------------------------------------------------------------------------ */
struct reply bench_submit(struct bench *bench, uint32_t nodes, uint32_t gpus);
struct job *bench_job(const struct bench *bench, const struct uuid *uid);
void bench_task(struct bench *bench, const struct rank *rank, enum task_news news, int exit_code);
/* One item of news for every rank of the job's live attempt that is still in it. */
void bench_all(struct bench *bench, const struct uuid *uid, enum task_news news, int exit_code);
/* Places, prepares and starts the job: running afterwards. */
void bench_run(struct bench *bench, const struct uuid *uid);
void bench_receipt(struct bench *bench, uint32_t index, const struct uuid *uid, uint64_t used_ms);
struct reply bench_cancel(struct bench *bench, const struct uuid *uid);
/* Orders of a kind in the last output, to one node (or any: 0). */
uint32_t bench_orders(const struct bench *bench, enum order_kind kind, uint64_t node);
micro_t bench_balance(const struct bench *bench, enum account_purpose purpose);
/* The last state of a job, from the database when the world no longer holds it. */
const struct job_row *bench_job_row(const struct bench *bench, const struct uuid *uid);

#endif
