#ifndef SHEAF_TESTS_STORE_SUPPORT_ROWS_H
#define SHEAF_TESTS_STORE_SUPPORT_ROWS_H

/*
 * A small consistent world as rows: every kind at least once, a job that runs on one of two nodes,
 * money that adds up. And a store with a loop to commit them by.
 */
#include "orchestrator/store/store_private.h"

#define FIXTURE_NOW ((usec_t)1790000000000000)

/* Ids of the fixture; the next free one is FIXTURE_NEXT. */
enum {
    FIXTURE_PROJECT = 1,
    FIXTURE_PROVIDER,
    FIXTURE_USER,
    FIXTURE_TOKEN,
    FIXTURE_JOIN,
    FIXTURE_EXTERNAL,
    FIXTURE_AVAILABLE,
    FIXTURE_ESCROW,
    FIXTURE_EARNED,
    FIXTURE_FEES,
    FIXTURE_NODE_A,
    FIXTURE_NODE_B,
    FIXTURE_NODE_EVENT,
    FIXTURE_DEVICE,
    FIXTURE_SLOT,
    FIXTURE_JOB,
    FIXTURE_ATTEMPT,
    FIXTURE_RANK,
    FIXTURE_LEASE,
    FIXTURE_DEPOSIT,
    FIXTURE_HOLD,
    FIXTURE_EARN,
    FIXTURE_FEE,
    FIXTURE_JOB_EVENT,
    FIXTURE_RECEIPT,
    FIXTURE_CONTENT,
    FIXTURE_OUTPUT,
    FIXTURE_NEXT,
};

#define FIXTURE_MAX 64

struct fixture {
    struct row row[FIXTURE_MAX];
    uint32_t count;
    struct job_spec spec;
    struct why why;
    uint8_t receipt[5];
};
void fixture_init(struct fixture *fixture);
void fixture_fini(struct fixture *fixture);
/* The fixture's row of a kind: the first one. */
struct row *fixture_row(struct fixture *fixture, enum row_kind kind);

/* A SHA-256-like filling: 32 bytes that differ by seed. */
void fill_hash(uint8_t out[32], uint8_t seed);
struct uuid test_uuid(uint8_t seed);

/* -- a store in its loop ---------------------------------------------------------------------- */

struct bench {
    struct event_base *base;
    struct store *store;
    /* of the last commit */
    bool done;
    enum commit_outcome outcome;
    uint64_t seq;
    struct err err;
};
/* Opens or fails the test. */
void bench_open(struct bench *bench, const char *conninfo);
void bench_close(struct bench *bench);
/* Sends without waiting; bench_wait runs the loop until the outcome is there (or 20 s). */
void bench_send(struct bench *bench, const struct batch *batch);
enum commit_outcome bench_wait(struct bench *bench);
/* Both, for rows alone. */
enum commit_outcome bench_commit(struct bench *bench, const struct row *rows, uint32_t count);
/* Runs the loop for a moment. */
void bench_spin(struct bench *bench, int milliseconds);

#endif
