#ifndef SHEAF_ORCHESTRATOR_FLEET_TO_WORKER_H
#define SHEAF_ORCHESTRATOR_FLEET_TO_WORKER_H

/*
 * Effects of the core → envelopes for a worker, as bytes. Orders are signed here over their exact
 * bytes, bound to the worker's key, term, epoch and an expiry; pair keys of probes are derived here
 * and kept nowhere.
 */
#include "common/io/keys.h"
#include "common/pure/buf.h"
#include "orchestrator/core/world.h"
#include "orchestrator/fleet/gateways.h"
#include "orchestrator/fleet/session.h"

/* A worker's clock may be this far behind, and an order this long on its way. */
#define ORDER_LIFE_US ((int64_t)300 * 1000000)
/* Round trips per probe: p95 needs 20. */
#define ORDER_PROBE_SAMPLES 20u

/* Key of a pair of nodes: HMAC-SHA256 of both ids, lower first. The same for both sides. */
void pair_key(const uint8_t secret[32], uint64_t a, uint64_t b, uint8_t out[32]);

struct order_seal {
    const struct sign_pair *sign;
    const uint8_t *pair_secret; /* 32 bytes */
    int64_t now_us;             /* wall clock */
};

/* seed: of ORDER_SELFTEST. Appends one envelope. */
void to_worker_order(const struct order_seal *seal, const struct session *session,
                     const struct order *order, uint64_t seed, struct buf *out);
void to_worker_welcome(const struct session *session, uint32_t term, uint32_t heartbeat_ms,
                       const struct gateways *gateways, const uint8_t sign_key[KEY_SIZE],
                       struct buf *out);
/* node must be known to the world. */
void to_worker_status(const struct session *session, const struct world *world, struct buf *out);
void to_worker_ack(const struct session *session, struct buf *out);
/* nonce: of the session it belongs to; nonce_size 0 = none. */
void to_worker_error(const uint8_t *nonce, size_t nonce_size, const struct err *err,
                     uint64_t ref_seq, bool close, struct buf *out);

#endif
