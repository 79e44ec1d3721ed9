#ifndef SHEAF_ORCHESTRATOR_GATEWAY_SSE_H
#define SHEAF_ORCHESTRATOR_GATEWAY_SSE_H

/* Server-sent events (WHATWG HTML §9.2) and the text they carry. Pure: appends to a buffer. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/buf.h"

#define SSE_TYPE "text/event-stream; charset=utf-8"

/* event and id may be NULL. Line breaks in data become several data lines. */
void sse_event(struct buf *out, const char *event, const char *id, const char *data);
void sse_comment(struct buf *out);

/*
 * Bytes of a program as UTF-8 text: what is no UTF-8, and NUL, becomes U+FFFD. A character cut at
 * the end is kept in carry (≤ 3 bytes) and completed by the next piece.
 */
struct sse_carry {
    uint8_t bytes[4];
    uint32_t length;
};
void sse_text(struct sse_carry *carry, const void *bytes, size_t length, struct buf *out);

/* Position of one log stream: everything before seq `next` was sent. */
struct log_cursor {
    uint32_t rank;
    uint32_t stream; /* 1 stdout, 2 stderr */
    uint64_t next;
    bool last; /* no piece follows */
    struct sse_carry carry;
};
#define SSE_MAX_OTHERS 64u

/*
 * Id of a log event: "epoch.rank.stream.seq", then ",rank.stream.seq" for up to SSE_MAX_OTHERS
 * other streams that have come somewhere, so that a resume repeats none of them.
 */
void sse_log_id(struct buf *out, uint64_t epoch, const struct log_cursor *cursors, uint32_t count,
                uint32_t index);
/* The epoch of an id; false when it is none. */
bool sse_log_epoch(const char *id, uint64_t *ret_epoch);
/* Moves the cursors that the id names behind what it says was sent. */
void sse_log_resume(const char *id, struct log_cursor *cursors, uint32_t count);

#endif
