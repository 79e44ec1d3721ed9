#include "orchestrator/gateway/sse.h"

#include <inttypes.h>
#include <string.h>

#include "orchestrator/gateway/number.h"

/* Longest id of ours: 65 positions of 3 numbers. */
#define ID_MAX 4096

void sse_event(struct buf *out, const char *event, const char *id, const char *data)
{
    if (event != NULL)
        buf_printf(out, "event: %s\n", event);
    if (id != NULL)
        buf_printf(out, "id: %s\n", id);
    for (;;) {
        size_t length = strcspn(data, "\r\n");
        buf_puts(out, "data: ");
        buf_append(out, data, length);
        buf_puts(out, "\n");
        data += length;
        if (*data == '\0')
            break;
        data += data[0] == '\r' && data[1] == '\n' ? 2 : 1;
    }
    buf_puts(out, "\n");
}

void sse_comment(struct buf *out)
{
    buf_puts(out, ": still here\n\n");
}

/* -- text ----------------------------------------------------------------------------------- */

/* Bytes that a character starting with this byte has; 0 for a byte that starts none. */
static uint32_t utf8_length(uint8_t first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

/* Whether `byte` may stand at `index` behind `first`: RFC 3629 §4, no overlong forms. */
static bool utf8_follows(uint8_t first, uint32_t index, uint8_t byte)
{
    uint8_t low = 0x80;
    uint8_t high = 0xbf;

    if (index == 1) {
        low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : low;
        high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : high;
    }
    return byte >= low && byte <= high;
}

static void put_replacement(struct buf *out)
{
    buf_append(out, "\xef\xbf\xbd", 3);
}

void sse_text(struct sse_carry *carry, const void *bytes, size_t length, struct buf *out)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < length; i++) {
        if (carry->length > 0 && !utf8_follows(carry->bytes[0], carry->length, at[i])) {
            put_replacement(out);
            carry->length = 0;
        }
        if (carry->length == 0 && (utf8_length(at[i]) == 0 || at[i] == 0)) {
            put_replacement(out);
            continue;
        }
        carry->bytes[carry->length++] = at[i];
        if (carry->length == utf8_length(carry->bytes[0])) {
            buf_append(out, carry->bytes, carry->length);
            carry->length = 0;
        }
    }
}

/* -- log ids -------------------------------------------------------------------------------- */

void sse_log_id(struct buf *out, uint64_t epoch, const struct log_cursor *cursors, uint32_t count,
                uint32_t index)
{
    const struct log_cursor *at = &cursors[index];
    uint32_t others = 0;

    buf_printf(out, "%" PRIu64 ".%u.%u.%" PRIu64, epoch, at->rank, at->stream, at->next - 1);
    for (uint32_t i = 0; i < count && others < SSE_MAX_OTHERS; i++) {
        if (i == index || cursors[i].next == 0)
            continue;
        buf_printf(out, ",%u.%u.%" PRIu64, cursors[i].rank, cursors[i].stream, cursors[i].next - 1);
        others++;
    }
}

/* "rank.stream.seq" from *at on; moves *at behind it. */
static bool take_place(const char **at, uint32_t *ret_rank, uint32_t *ret_stream, uint64_t *ret_seq)
{
    uint64_t rank;
    uint64_t stream;

    if (!number_take(at, 10, 9, &rank) || *(*at)++ != '.' || !number_take(at, 10, 1, &stream)
        || *(*at)++ != '.' || !number_take(at, 10, 18, ret_seq))
        return false;
    *ret_rank = (uint32_t)rank;
    *ret_stream = (uint32_t)stream;
    return true;
}

bool sse_log_epoch(const char *id, uint64_t *ret_epoch)
{
    const char *at = id;
    uint64_t epoch;
    uint32_t rank;
    uint32_t stream;
    uint64_t seq;

    if (strlen(id) > ID_MAX || !number_take(&at, 10, 10, &epoch) || *at++ != '.'
        || !take_place(&at, &rank, &stream, &seq) || (*at != '\0' && *at != ','))
        return false;
    *ret_epoch = epoch;
    return true;
}

void sse_log_resume(const char *id, struct log_cursor *cursors, uint32_t count)
{
    const char *at = strchr(id, '.');

    while (at != NULL && *at != '\0') {
        uint32_t rank;
        uint32_t stream;
        uint64_t seq;
        at++; /* the dot behind the epoch, then each comma */
        if (!take_place(&at, &rank, &stream, &seq))
            return;
        for (uint32_t i = 0; i < count; i++) {
            if (cursors[i].rank == rank && cursors[i].stream == stream)
                cursors[i].next = seq + 1;
        }
    }
}
