#ifndef SHEAF_WORKER_CORE_ORDER_H
#define SHEAF_WORKER_CORE_ORDER_H

/*
 * Orders are believed only after this: the signature over the exact bytes under the pinned key,
 * then the decoding, then addressee and expiry. Fencing by epoch is the task table's.
 */
#include <stdint.h>

#include "common/io/frame.h"
#include "common/io/keys.h"
#include "proto/worker.pb-c.h"

/* An order whose expiry lies further ahead than this was not made by our orchestrator's rules. */
#define ORDER_MAX_AHEAD_US ((int64_t)60 * 60 * 1000000)

struct order_trust {
    uint8_t sign_key[KEY_SIZE];   /* Ed25519, pinned at join */
    uint8_t worker_key[KEY_SIZE]; /* our CURVE public key */
};

/*
 * ret_order lives in the arena. ERR_WIRE_SIGNATURE (bad signature), ERR_WIRE_DECODE, ERR_WIRE_ORDER
 * (expired, for another worker, or without content).
 */
int order_open(const struct order_trust *trust, const Sheaf__SignedOrder *signed_order,
               int64_t wall_us, struct frame_arena *arena, Sheaf__Order **ret_order,
               struct err *err) SHEAF_MUST_USE;
/* "prepare", "go", … for logs. */
const char *order_name(const Sheaf__Order *order);

#endif
