#ifndef SHEAF_WORKER_CORE_JOURNAL_H
#define SHEAF_WORKER_CORE_JOURNAL_H

/*
 * Append-only file of records that survives kill -9. A record is: length (4 bytes, little endian),
 * type (4), sum (16), payload. The sum is the first half of SHA-256 over the former record's sum,
 * length, type and payload, so that records cannot be reordered, left out or mistaken for old ones.
 *
 * After the first record that does not verify, nothing is believed: opening cuts the file there and
 * keeps the damaged rest beside it. Knows nothing of what records mean.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pure/err.h"

/* One order with its spec is the largest thing we keep. */
#define JOURNAL_MAX_RECORD ((size_t)1 << 20)

struct journal;

/* Called for each record in order; bytes are valid during the call alone. */
typedef void (*journal_on_record_f)(uint32_t type, const uint8_t *bytes, size_t size, void *arg);

/*
 * Opens or makes the file and replays it. ret_cut: bytes that were cut off (0 = intact); they are
 * kept in PATH.damaged. ERR_IO; ERR_STATE_CORRUPT when the file is no journal of ours.
 */
int journal_open(const char *path, journal_on_record_f on_record, void *arg,
                 struct journal **ret_journal, uint64_t *ret_cut, struct err *err) SHEAF_MUST_USE;
void journal_close(struct journal *journal);
/* Buffers one record. size ≤ JOURNAL_MAX_RECORD. */
void journal_add(struct journal *journal, uint32_t type, const void *bytes, size_t size);
/*
 * Writes what was added; with sync it is on the disk when this returns, else a kill -9 cannot take
 * it but a power cut can. ERR_IO, ERR_NO_SPACE: nothing of it may be acted on, and the journal
 * is good for nothing but closing.
 */
int journal_commit(struct journal *journal, bool sync, struct err *err) SHEAF_MUST_USE;
/* Bytes in the file. */
uint64_t journal_size(const struct journal *journal);
/*
 * Replaces the contents, atomically, by what `fill` adds. Nothing may be pending.
 */
typedef void (*journal_fill_f)(struct journal *journal, void *arg);
int journal_rewrite(struct journal *journal, journal_fill_f fill, void *arg,
                    struct err *err) SHEAF_MUST_USE;

#endif
