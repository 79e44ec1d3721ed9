#ifndef SHEAF_TESTS_UNIT_WORKER_SUPPORT_POOL_H
#define SHEAF_TESTS_UNIT_WORKER_SUPPORT_POOL_H

/*
 * A small orchestrator and gateway for a real worker: sockets with CURVE and ZAP, signed orders,
 * acknowledgements, a bulk channel that stores. The worker is agent_run() in a process of its own,
 * with the runtime "process".
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/io/json.h"
#include "common/io/keys.h"
#include "common/io/loop.h"
#include "common/pure/buf.h"
#include "common/pure/id.h"
#include "common/pure/spec.h"
#include "proto/bulk.pb-c.h"
#include "proto/worker.pb-c.h"

#define POOL_MAX_NEWS 64

struct pool_news {
    uint64_t attempt;
    uint32_t epoch;
    char news[16];
    char reason[64];
    int32_t exit_code;
    uint32_t port;
    uint64_t receipt_ms; /* of the newest receipt before it */
};

struct pool {
    char root[64];
    int zygote; /* socket to the process that starts workers */
    pid_t zygote_pid;
    struct event_base *base;
    void *zmq;
    struct zap *zap;
    struct zsock *control;
    struct zsock *bulk;
    char control_endpoint[128];
    char bulk_endpoint[128];
    struct curve_pair server;
    struct curve_pair gateway;
    struct sign_pair sign;
    struct identity worker;
    struct uuid node;
    bool mute; /* acknowledge nothing */
    /* what came */
    uint8_t peer[64];
    size_t peer_size;
    uint8_t session[8];
    int hellos;
    uint64_t boot;
    uint32_t held;
    char held_state[16];
    uint64_t next_seq;
    bool gap; /* a durable message was left out */
    struct pool_news news[POOL_MAX_NEWS];
    int news_count;
    char notice[16]; /* verb of the newest one */
    int errors;
    char error[64];
    uint64_t receipt_ms;
    uint64_t receipt_seq;
    bool receipt_wrong; /* badly signed, or something in it went back */
    struct buf log[2];  /* stdout, stderr */
    uint64_t log_seq[2];
    bool log_last[2];
    bool log_wrong;
    struct buf input; /* archive that a fetch gets */
    uint8_t input_sha256[32];
    struct buf output;
    int outputs;
    char output_path[64];
    uint8_t bulk_peer[64];
    size_t bulk_peer_size;
    uint8_t put_sha256[32];
};

/* Before any thread of the test. */
struct pool *pool_new(void);
void pool_free(struct pool *pool);
pid_t pool_start(struct pool *pool);
/* Signal, then waits for its end; the exit status as waitpid tells it. */
int pool_end(struct pool *pool, pid_t worker, int signal);
/* Asks the worker's control socket; the caller owns the answer. */
json_t *pool_ask(struct pool *pool, const char *verb);
/* Turns the loop until the condition holds, at most 20 s; fails the test else. */
void pool_wait(struct pool *pool, bool (*condition)(struct pool *pool, const void *arg),
               const void *arg, const char *what);
void pool_wait_hellos(struct pool *pool, int count);
const struct pool_news *pool_wait_news(struct pool *pool, uint64_t attempt, const char *news);
bool pool_has_news(const struct pool *pool, uint64_t attempt, const char *news);

/* An order with defaults: attempt, epoch, rank 0, one device. Signed and sent. */
void pool_prepare(struct pool *pool, uint64_t attempt, uint32_t epoch, const struct job_spec *spec);
void pool_go(struct pool *pool, uint64_t attempt, uint32_t epoch);
void pool_stop(struct pool *pool, uint64_t attempt, uint32_t epoch, const char *reason);
void pool_forget(struct pool *pool, uint64_t attempt, uint32_t epoch);
/* With another key. */
void pool_go_forged(struct pool *pool, uint64_t attempt, uint32_t epoch);
/* Packs one file (name, text) as the input archive "src". */
void pool_input(struct pool *pool, const char *name, const char *text);

#endif
