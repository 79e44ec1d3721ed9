#ifndef SHEAF_ORCHESTRATOR_GATEWAY_GUARD_H
#define SHEAF_ORCHESTRATOR_GATEWAY_GUARD_H

/*
 * The framing guard: the one reader of HTTP/1.1 requests (RFC 9112), incremental and pure. Bytes
 * in, a verdict out; the verdict does not depend on how the bytes were cut. It is stricter than the
 * RFC wherever two readers could disagree: one length at most, no folding, no bare CR or LF, no
 * chunk extensions, no trailers. Knows no sockets, no routes and no answers.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/buf.h"
#include "common/pure/err.h"

#define GUARD_MAX_HEAD   ((size_t)32 << 10) /* request line and all fields; DESIGN threat 12 */
#define GUARD_MAX_FIELDS 100u
#define GUARD_MAX_BODY   ((uint64_t)32 << 20)
#define GUARD_MAX_METHOD 16u

enum guard_verdict {
    GUARD_MORE, /* all bytes used, the message is not complete */
    GUARD_HEAD, /* the head is complete: method, target, fields are valid until guard_next */
    GUARD_BODY, /* a piece of the body, without its framing */
    GUARD_DONE, /* the message is complete; bytes after it belong to the next one */
    GUARD_BAD,  /* refused for good: answer `err` and close */
};

enum guard_state {
    GUARD_IN_LINE, /* request line */
    GUARD_IN_FIELDS,
    GUARD_IN_SIZED_BODY,
    GUARD_IN_CHUNK_SIZE,
    GUARD_IN_CHUNK_DATA,
    GUARD_IN_CHUNK_END,
    GUARD_IN_TRAILER,
    GUARD_AT_END,
    GUARD_REFUSED,
};

/* Offsets into guard.head; both texts end with a 0 there. */
struct guard_field {
    uint32_t name;
    uint32_t value;
};

struct guard {
    enum guard_state state;
    struct buf head; /* raw bytes, with 0 put behind each token once its line is read */
    size_t line;     /* where the current line starts in head */
    bool carriage;   /* the last byte was CR */
    bool blank_seen; /* one empty line before the request line was skipped */
    uint32_t method;
    uint32_t target;
    uint32_t authority; /* of a target in absolute form; 0 = origin form */
    struct guard_field fields[GUARD_MAX_FIELDS];
    uint32_t field_count;
    uint32_t hosts;
    uint32_t lengths;
    uint32_t encodings;
    bool minor_zero; /* HTTP/1.0 */
    bool close;      /* no further request on this connection */
    bool keep;       /* HTTP/1.0 asked to keep it */
    bool expect;     /* 100-continue is wanted */
    bool chunked;
    uint64_t length;   /* of Content-Length */
    uint64_t left;     /* of the body, or of the chunk */
    uint64_t body;     /* bytes delivered or announced so far */
    uint64_t max_body; /* may be lowered at GUARD_HEAD by guard_limit_body */
    uint32_t digits;   /* of the chunk size */
    struct err err;    /* after GUARD_BAD */
};

void guard_init(struct guard *guard);
void guard_fini(struct guard *guard);
/* After GUARD_DONE: ready for the next message; forgets head and fields. */
void guard_next(struct guard *guard);

/*
 * Reads from bytes up to the next thing worth telling. *ret_used bytes were taken; call again with
 * the rest, also with length 0 after GUARD_HEAD (a message without a body is then GUARD_DONE).
 * With GUARD_BODY, *ret_piece points into bytes and has *ret_size of them.
 */
enum guard_verdict guard_read(struct guard *guard, const uint8_t *bytes, size_t length,
                              size_t *ret_used, const uint8_t **ret_piece, size_t *ret_size);

/* At GUARD_HEAD: a lower limit for this body. Refuses (ERR_BODY_TOO_LARGE) a length beyond it. */
int guard_limit_body(struct guard *guard, uint64_t max_body) SHEAF_MUST_USE;
/* Whether anything of a message was read: the difference between idle and slow. */
bool guard_is_idle(const struct guard *guard);

const char *guard_method(const struct guard *guard);
const char *guard_target(const struct guard *guard);
/* Value of the first field of this name (any case); NULL if absent. */
const char *guard_field(const struct guard *guard, const char *name);

#endif
