#ifndef SHEAF_COMMON_PURE_BUF_H
#define SHEAF_COMMON_PURE_BUF_H

/*
 * Growable byte string with a cap. Bytes are always followed by a 0 that is not counted, so that
 * `data` reads as a C string when it holds text. After the cap is hit the buffer keeps what it has
 * and `full` stays set: a writer appends freely and checks once.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/pure/err.h"

struct buf {
    char *data; /* never NULL after the first append; owned */
    size_t length;
    size_t capacity;
    size_t limit; /* 0 = BUF_DEFAULT_LIMIT */
    bool full;    /* an append was cut */
};

/* Far above any message of ours; a guard against our own loops, not a protocol limit. */
#define BUF_DEFAULT_LIMIT ((size_t)256 << 20)

void buf_init(struct buf *buf, size_t limit);
void buf_fini(struct buf *buf);
void buf_clear(struct buf *buf);
void buf_append(struct buf *buf, const void *bytes, size_t length);
void buf_puts(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *format, ...) SHEAF_PRINTF(2, 3);
void buf_vprintf(struct buf *buf, const char *format, va_list args) SHEAF_PRINTF(2, 0);
/* Drops the first n bytes (all if n is larger). O(remaining). */
void buf_drop(struct buf *buf, size_t n);
/* Moves the bytes out (terminated, caller frees); the buffer is empty afterwards. */
char *buf_take(struct buf *buf);

#endif
