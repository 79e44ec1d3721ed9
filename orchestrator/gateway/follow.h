#ifndef SHEAF_ORCHESTRATOR_GATEWAY_FOLLOW_H
#define SHEAF_ORCHESTRATOR_GATEWAY_FOLLOW_H

/*
 * Streams of job events and logs. A follower holds cursors, not data: it reads the database from
 * where it is whenever something woke it and its client took what it got. A slow client is behind,
 * costs no memory and holds nobody up; what was never stored is told as a gap.
 */
#include "orchestrator/gateway/gateway.h"

struct follow;

struct follow *follow_new(struct gateway *gateway);
void follow_free(struct follow *follow);
/* Something of this job was committed; NULL = of any job. */
void follow_wake(struct follow *follow, const struct uuid *job);
uint64_t follow_count(const struct follow *follow);

#endif
