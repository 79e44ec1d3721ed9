#ifndef SHEAF_WORKER_CORE_LOGS_H
#define SHEAF_WORKER_CORE_LOGS_H

/*
 * Cuts a growing log file into numbered pieces and remembers which are acknowledged. Pure: knows
 * sizes, not bytes. A piece's bounds never change once cut, so that a resend after a restart
 * carries the same bytes under the same number.
 */
#include <stdbool.h>
#include <stdint.h>

/* Raw bytes of one piece: even incompressible it stays under the protocol's 256 KiB. */
#define LOGS_MAX_PIECE 250000u
/* Pieces sent and not acknowledged, per stream. */
#define LOGS_MAX_IN_FLIGHT 16u

struct log_cut {
    uint64_t seq;
    uint64_t offset;
    uint32_t size;
    int64_t at_us;
    bool last; /* no piece follows */
};

struct log_stream {
    struct log_cut flight[LOGS_MAX_IN_FLIGHT]; /* cut and not acknowledged, by seq */
    uint32_t flight_count;
    uint32_t sent; /* of flight: sent in this session */
    uint64_t next_seq;
    uint64_t next_offset;
    bool closed; /* the last piece is cut */
};

/*
 * The next piece of a file that is now file_size bytes long; `ended` when nothing will be added to
 * it. False when there is nothing to cut, or the window is full. A stream that ends empty has no
 * piece at all.
 */
bool log_stream_cut(struct log_stream *stream, uint64_t file_size, bool ended, int64_t at_us,
                    struct log_cut *ret_cut);
/* Puts back what a journal says was cut, in order. Others than the next number are ignored. */
void log_stream_restore(struct log_stream *stream, const struct log_cut *cut);
/* All pieces up to seq are stored. */
void log_stream_ack(struct log_stream *stream, uint64_t seq);
/* The next piece to send; NULL when all were sent. log_stream_sent() moves on. */
const struct log_cut *log_stream_next(const struct log_stream *stream);
void log_stream_sent(struct log_stream *stream);
/* A new session: everything unacknowledged is to be sent again. */
void log_stream_rewind(struct log_stream *stream);
/* Everything is cut and acknowledged. */
bool log_stream_done(const struct log_stream *stream);

#endif
