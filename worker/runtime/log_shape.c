#include "worker/runtime/log_shape.h"

#include <inttypes.h>
#include <string.h>

#define SECOND_US ((int64_t)1000000)
#define TOKEN     ((uint64_t)1000000)

void log_shape_init(struct log_shape *shape, struct log_budget *budget)
{
    *shape = (struct log_shape){.budget = budget, .tokens = LOG_SHAPE_BURST * TOKEN};
}

/* Markers are ours: they are kept whatever the budget, and are few. */
static void tell_dropped(struct log_shape *shape, struct buf *out)
{
    if (shape->dropped == 0)
        return;
    buf_printf(out, "[sheaf: gap: %" PRIu64 " lines left out, more than %u a second]\n",
               shape->dropped, LOG_SHAPE_RATE);
    shape->dropped = 0;
}

static void refill(struct log_shape *shape, int64_t now_us)
{
    int64_t span_us = shape->refilled_us != 0 ? now_us - shape->refilled_us : 0;

    shape->refilled_us = now_us;
    if (span_us > LOG_SHAPE_BURST / LOG_SHAPE_RATE * SECOND_US)
        span_us = LOG_SHAPE_BURST / LOG_SHAPE_RATE * SECOND_US;
    if (span_us > 0)
        shape->tokens += (uint64_t)span_us * LOG_SHAPE_RATE;
    if (shape->tokens > LOG_SHAPE_BURST * TOKEN)
        shape->tokens = LOG_SHAPE_BURST * TOKEN;
}

/* Whether the line that begins here is kept. */
static bool begin_line(struct log_shape *shape, int64_t now_us, struct buf *out)
{
    if (shape->quiet_us != 0 && now_us < shape->quiet_us) {
        shape->dropped++;
        return false;
    }
    shape->quiet_us = 0;
    if (shape->tokens < TOKEN) {
        shape->quiet_us = now_us + SECOND_US;
        shape->dropped++;
        return false;
    }
    shape->tokens -= TOKEN;
    tell_dropped(shape, out);
    return true;
}

/* Of `size` bytes inside a line. */
static void keep(struct log_shape *shape, const char *bytes, size_t size, struct buf *out)
{
    size_t room = LOG_SHAPE_LINE - shape->line;
    size_t kept = size < room ? size : room;

    if (kept > shape->budget->left) {
        buf_append(out, bytes, (size_t)shape->budget->left);
        buf_puts(out, "\n[sheaf: truncated: the limit of this rank's log is reached]\n");
        shape->budget->left = 0;
        shape->full = true;
        return;
    }
    buf_append(out, bytes, kept);
    shape->budget->left -= kept;
    shape->line += kept;
    if (kept < size) {
        buf_printf(out, " [sheaf: line cut at %zu KiB]\n", LOG_SHAPE_LINE >> 10);
        shape->skipping = true;
    }
}

static const char *line_end(const char *bytes, const char *end)
{
    while (bytes < end && *bytes != '\n' && *bytes != '\r')
        bytes++;
    return bytes;
}

/* The end of the line; nothing of a line that was left out or cut (its marker ended it). */
static void end_line(struct log_shape *shape, const char *mark, struct buf *out)
{
    if (!shape->skipping && shape->budget->left > 0) {
        buf_append(out, mark, 1);
        shape->budget->left--;
    }
    shape->open = false;
    shape->skipping = false;
    shape->line = 0;
}

void log_shape_add(struct log_shape *shape, const char *bytes, size_t size, int64_t now_us,
                   struct buf *out)
{
    const char *end = bytes + size;

    refill(shape, now_us);
    while (bytes < end && !shape->full) {
        const char *stop = line_end(bytes, end);

        if (!shape->open) {
            shape->open = true;
            shape->skipping = !begin_line(shape, now_us, out);
        }
        if (!shape->skipping && stop > bytes)
            keep(shape, bytes, (size_t)(stop - bytes), out);
        if (stop < end && !shape->full)
            end_line(shape, stop, out);
        bytes = stop < end ? stop + 1 : end;
    }
}

void log_shape_end(struct log_shape *shape, struct buf *out)
{
    if (!shape->full)
        tell_dropped(shape, out);
}
