#ifndef SHEAF_WORKER_CORE_KEEP_H
#define SHEAF_WORKER_CORE_KEEP_H

/*
 * What the worker must not forget: its tasks and their orders, counters, messages that nobody
 * acknowledged, bounds of log pieces. Lives in memory and in STATE/journal; a change is first made
 * here, then committed, then acted on.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"
#include "common/pure/spec.h"
#include "worker/core/logs.h"
#include "worker/core/tasks.h"

/* Process streams of one task. */
#define KEEP_MAX_STREAMS (2u * SPEC_MAX_GPUS_PER_NODE)
/* Unacknowledged messages; beyond this the oldest receipts are merged away first, and at this the
 * worker takes no new work: an orchestrator that acknowledges nothing is not there. */
#define KEEP_MAX_OUTBOX 1024u

struct keep;

/* One process stream of a task. */
struct keep_stream {
    uint32_t rank;   /* process rank */
    uint32_t stream; /* 1 stdout, 2 stderr */
    struct log_stream log;
};

/* What belongs to a task beside its record. */
struct keep_task {
    uint64_t attempt;
    uint32_t epoch;
    uint8_t *prepare; /* encoded Order; owned */
    size_t prepare_size;
    uint8_t *go; /* likewise; NULL before it came */
    size_t go_size;
    struct keep_stream stream[KEEP_MAX_STREAMS];
    uint32_t stream_count;
};

/* A durable message: the encoded Envelope without session and ack, which the session adds. */
struct keep_message {
    uint64_t seq;
    uint8_t *bytes;
    size_t size;
};

struct keep_counters {
    uint64_t boot;        /* this start's number */
    uint64_t out_seq;     /* newest durable message of ours */
    uint64_t acked_seq;   /* newest that the orchestrator committed */
    uint64_t receipt_seq; /* newest receipt */
};

/*
 * Opens STATE/journal, replays it into tasks and counts the start. A torn tail is cut and logged.
 * tasks is borrowed for the life of the keep.
 */
int keep_open(const char *state_dir, struct tasks *tasks, struct keep **ret_keep,
              struct err *err) SHEAF_MUST_USE;
void keep_close(struct keep *keep);

const struct keep_counters *keep_counters(const struct keep *keep);
/* Makes everything changed so far durable, and shrinks the journal when it has grown. */
int keep_commit(struct keep *keep, struct err *err) SHEAF_MUST_USE;
/* Writes without waiting for the disk: enough for bounds of log pieces. */
int keep_flush(struct keep *keep, struct err *err) SHEAF_MUST_USE;

void keep_task_save(struct keep *keep, const struct rank_task *task);
void keep_task_order(struct keep *keep, uint64_t attempt, uint32_t epoch, bool go,
                     const void *order, size_t size);
void keep_task_drop(struct keep *keep, uint64_t attempt, uint32_t epoch);
/* NULL if nothing is kept. Borrowed until the task is dropped. */
struct keep_task *keep_task_find(struct keep *keep, uint64_t attempt, uint32_t epoch);
/* The stream's record, made if new; NULL when the task has none or too many. */
struct keep_stream *keep_task_stream(struct keep *keep, struct keep_task *task, uint32_t rank,
                                     uint32_t stream);

/* Takes the next number, stores the message and returns the number. */
uint64_t keep_message_add(struct keep *keep, const void *bytes, size_t size);
uint64_t keep_message_next_seq(const struct keep *keep);
void keep_message_ack(struct keep *keep, uint64_t seq);
uint32_t keep_message_count(const struct keep *keep);
const struct keep_message *keep_message_at(const struct keep *keep, uint32_t index);
uint64_t keep_receipt_next(struct keep *keep);

void keep_log_cut(struct keep *keep, const struct keep_task *task, const struct keep_stream *stream,
                  const struct log_cut *cut);
void keep_log_ack(struct keep *keep, const struct keep_task *task, const struct keep_stream *stream,
                  uint64_t seq);

#endif
