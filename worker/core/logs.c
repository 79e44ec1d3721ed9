#include "worker/core/logs.h"

#include <stddef.h>
#include <string.h>

bool log_stream_cut(struct log_stream *stream, uint64_t file_size, bool ended, int64_t at_us,
                    struct log_cut *ret_cut)
{
    uint64_t left = file_size > stream->next_offset ? file_size - stream->next_offset : 0;
    struct log_cut *cut;

    if (left == 0 && ended && stream->next_seq == 0)
        stream->closed = true; /* nobody wrote: there is no piece to be the last */
    if (stream->closed || stream->flight_count == LOGS_MAX_IN_FLIGHT || (left == 0 && !ended))
        return false;
    cut = &stream->flight[stream->flight_count++];
    cut->seq = stream->next_seq++;
    cut->offset = stream->next_offset;
    cut->size = left < LOGS_MAX_PIECE ? (uint32_t)left : LOGS_MAX_PIECE;
    cut->at_us = at_us;
    cut->last = ended && cut->size == left;
    stream->next_offset += cut->size;
    stream->closed = cut->last;
    *ret_cut = *cut;
    return true;
}

void log_stream_restore(struct log_stream *stream, const struct log_cut *cut)
{
    if (cut->seq != stream->next_seq || stream->flight_count == LOGS_MAX_IN_FLIGHT)
        return;
    stream->flight[stream->flight_count++] = *cut;
    stream->next_seq = cut->seq + 1;
    stream->next_offset = cut->offset + cut->size;
    stream->closed = cut->last;
}

void log_stream_ack(struct log_stream *stream, uint64_t seq)
{
    uint32_t gone = 0;

    while (gone < stream->flight_count && stream->flight[gone].seq <= seq)
        gone++;
    stream->flight_count -= gone;
    memmove(stream->flight, stream->flight + gone,
            stream->flight_count * sizeof(stream->flight[0]));
    stream->sent = stream->sent > gone ? stream->sent - gone : 0;
}

const struct log_cut *log_stream_next(const struct log_stream *stream)
{
    return stream->sent < stream->flight_count ? &stream->flight[stream->sent] : NULL;
}

void log_stream_sent(struct log_stream *stream)
{
    if (stream->sent < stream->flight_count)
        stream->sent++;
}

void log_stream_rewind(struct log_stream *stream)
{
    stream->sent = 0;
}

bool log_stream_done(const struct log_stream *stream)
{
    return stream->closed && stream->flight_count == 0;
}
