#ifndef SHEAF_ORCHESTRATOR_FLEET_TO_GATEWAY_H
#define SHEAF_ORCHESTRATOR_FLEET_TO_GATEWAY_H

/* Replies of the core → CommandReply, committed rows → ChangeHint, as bytes. */
#include "common/pure/buf.h"
#include "orchestrator/core/event.h"
#include "orchestrator/fleet/from_gateway.h"

/* Public facts of this orchestrator that answers carry. */
struct answer_facts {
    const uint8_t *server_key; /* CURVE, 32 bytes */
    const uint8_t *sign_key;   /* Ed25519, 32 bytes */
    const char *asset;
    const char *const *control; /* endpoints that a new worker dials */
    uint32_t control_count;
};

/* gateway_request: the number that the gateway gave; seq: the commit that justifies the reply. */
void to_gateway_reply(uint64_t gateway_request, const struct reply *reply,
                      const struct command_note *note, const struct answer_facts *facts,
                      uint64_t seq, struct buf *out);
/* A refusal before anything was decided, or (code ERR_NONE) the answer to hello and ping. */
void to_gateway_error(uint64_t gateway_request, const struct err *err, struct buf *out);
/* False: nothing in these rows concerns a reader; no hint is sent. */
bool to_gateway_hint(const struct row *rows, uint32_t row_count, uint64_t seq, struct buf *out);

#define HINT_MAX_JOBS 64

#endif
