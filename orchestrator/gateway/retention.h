#ifndef SHEAF_ORCHESTRATOR_GATEWAY_RETENTION_H
#define SHEAF_ORCHESTRATOR_GATEWAY_RETENTION_H

/*
 * What is over goes: log pieces and outputs of jobs that ended long enough ago, and content that
 * nobody needs. In small steps with pauses between, so that requests do not notice.
 *
 * Content is needed while a job that has not ended names it, while an output of a job whose time is
 * not over is stored in it, and while it was used (uploaded, begun again, fetched) within that
 * time: who begins an upload and is told that nothing has to be sent can count on it.
 */
#include <stdint.h>

#include "orchestrator/gateway/gateway.h"

struct retention;

struct retention_counters {
    uint64_t steps;    /* of logs: a batch each */
    uint64_t contents; /* files removed */
};

/* keep_us: from the end of a job, or the last use of a content, to its end here. */
struct retention *retention_new(struct gateway *gateway, int64_t keep_us);
void retention_free(struct retention *retention);
struct retention_counters retention_counters(const struct retention *retention);

#endif
