#ifndef SHEAF_WORKER_CORE_BULK_H
#define SHEAF_WORKER_CORE_BULK_H

/*
 * The bulk channel to one gateway at a time: logs, input files, outputs. Knows credit and
 * connections; what is sent and what comes is its user's. Control never waits for it.
 */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/io/keys.h"
#include "common/pure/id.h"
#include "proto/bulk.pb-c.h"

#define BULK_MAX_GATEWAYS 8
/* Bytes of file pieces that may be on their way to us. */
#define BULK_WINDOW ((uint64_t)4 << 20)

struct bulk;

struct bulk_gateway {
    char endpoint[128];
    uint8_t key[KEY_SIZE];
};

struct bulk_hooks {
    void (*on_up)(void *arg); /* a new session: send again what is not acknowledged */
    void (*on_credit)(void *arg);
    void (*on_message)(const Sheaf__Bulk *message,
                       void *arg); /* log_ack, piece, put_state, error */
    void *arg;
};

struct bulk *bulk_new(struct event_base *base, void *zmq_context, const struct curve_pair *client,
                      const struct uuid *node, const struct bulk_hooks *hooks);
void bulk_free(struct bulk *bulk);
/* Replaces the known gateways; goes on with the one in use if it is still among them. */
void bulk_set_gateways(struct bulk *bulk, const struct bulk_gateway *gateways, uint32_t count);
bool bulk_is_up(const struct bulk *bulk);
/* Bytes of `data` that the gateway takes now; 0 while down. */
uint64_t bulk_credit(const struct bulk *bulk);
/* Sends a message that carries `cost` bytes of data (0 = none). False: nothing was sent. */
bool bulk_send(struct bulk *bulk, Sheaf__Bulk *message, uint64_t cost);
/* Bytes of pieces were consumed: the gateway may send as many more. */
void bulk_consumed(struct bulk *bulk, uint64_t bytes);
/* Dials the next gateway (or the same one again) after a back-off. */
void bulk_redial(struct bulk *bulk, const char *why);

#endif
