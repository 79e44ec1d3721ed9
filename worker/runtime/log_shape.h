#ifndef SHEAF_WORKER_RUNTIME_LOG_SHAPE_H
#define SHEAF_WORKER_RUNTIME_LOG_SHAPE_H

/*
 * What of a process's output is kept: lines up to a length, so many of them a second, so many bytes
 * in all. What is left out is said in the log itself, in a line of its own that begins with
 * "[sheaf: ". Pure: bytes and time in, bytes out; knows no files.
 *
 * A line ends with \n or \r (progress bars). A line that has not ended yet is passed on as it
 * comes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/buf.h"

/* Of one line; longer ones are cut there. */
#define LOG_SHAPE_LINE ((size_t)16 << 10)
/* Lines a second in the long run, and as many at once; beyond them all is left out for a second. */
#define LOG_SHAPE_RATE  2000u
#define LOG_SHAPE_BURST 20000u

/* Shared by the streams of one rank. */
struct log_budget {
    uint64_t left; /* bytes that are still kept */
};

struct log_shape {
    struct log_budget *budget;
    size_t line;         /* bytes kept of the line that is open */
    bool open;           /* a line is open */
    bool skipping;       /* the rest of this line is left out */
    bool full;           /* the budget is spent, and that was said */
    uint64_t dropped;    /* lines left out and not told yet */
    int64_t quiet_us;    /* all is left out until then; 0 = no */
    int64_t refilled_us; /* 0 = never */
    uint64_t tokens;     /* millionths of a line */
};

void log_shape_init(struct log_shape *shape, struct log_budget *budget);
/* Appends what is kept of the bytes to out. now_us is monotonic. */
void log_shape_add(struct log_shape *shape, const char *bytes, size_t size, int64_t now_us,
                   struct buf *out);
/* The stream has ended: tells what was left out last. */
void log_shape_end(struct log_shape *shape, struct buf *out);

#endif
