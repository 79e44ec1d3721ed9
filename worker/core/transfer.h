#ifndef SHEAF_WORKER_CORE_TRANSFER_H
#define SHEAF_WORKER_CORE_TRANSFER_H

/*
 * Files over the bulk channel: input archives in, output archives out, one of each at a time, with
 * resume after a lost connection. Hashes of what came in are the caller's to check.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/io/fs.h"
#include "common/io/hash.h"
#include "common/pure/err.h"
#include "worker/core/bulk.h"

/* A transfer that the gateway ends with an error is tried this often in all: within 16 s. */
#define TRANSFER_MAX_TRIES 6u

struct transfers;

/* err NULL = done. Once per transfer; not after transfer_cancel. */
typedef void (*transfer_on_done_f)(const struct err *err, void *arg);

struct transfers *transfers_new(struct event_base *base, struct bulk *bulk);
void transfers_free(struct transfers *transfers);

struct transfer_fetch {
    uint8_t attempt_uid[16];
    uint8_t sha256[SHA256_SIZE];
    uint64_t size;
    char path[FS_PATH]; /* grows there; what is there already is kept */
};
struct transfer_put {
    uint8_t attempt_uid[16];
    uint8_t sha256[SHA256_SIZE];
    uint64_t size;
    char path[FS_PATH]; /* archive to send */
    uint32_t rank;
    char name[256]; /* the output folder it holds */
};
/* owner groups transfers for transfer_cancel. */
void transfer_fetch(struct transfers *transfers, const struct transfer_fetch *fetch,
                    const void *owner, transfer_on_done_f on_done, void *arg);
void transfer_put(struct transfers *transfers, const struct transfer_put *put, const void *owner,
                  transfer_on_done_f on_done, void *arg);
void transfer_cancel(struct transfers *transfers, const void *owner);
/* Bytes that came for this owner's fetches, ever. */
uint64_t transfer_fetched(const struct transfers *transfers, const void *owner);

/* From the bulk channel's hooks. */
void transfers_up(struct transfers *transfers);
void transfers_credit(struct transfers *transfers);
void transfers_message(struct transfers *transfers, const Sheaf__Bulk *message);

#endif
