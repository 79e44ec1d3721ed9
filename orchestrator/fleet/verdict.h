#ifndef SHEAF_ORCHESTRATOR_FLEET_VERDICT_H
#define SHEAF_ORCHESTRATOR_FLEET_VERDICT_H

/*
 * Recomputes a device's self-test: the sampled chunk sums and the check sum of the product
 * (common/pure/selftest.h). About 15 ms of arithmetic, cut into steps of about 1 ms (one chunk) so
 * that the loop goes on; the product alone is one longer step. Pure: bytes in, verdict out.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/pure/selftest.h"
#include "orchestrator/core/row.h"

/* 4 TiB on one device: far above any, far below overflow. */
#define VERDICT_MAX_MIB (4u << 20)
/* A worker fills 90 % of what it claims (drivers keep the rest), in whole buffers. */
#define VERDICT_MIN_PERCENT 85u

struct verdict {
    /* what was asked and answered */
    uint64_t seed;
    uint32_t claimed_mib; /* never more than this is believed */
    uint32_t memory_mib;
    uint64_t chunk_sum[SELFTEST_SAMPLES];
    uint32_t chunk_count; /* as many as were sent */
    uint64_t matmul_sum;
    char failure[ROW_DETAIL]; /* the worker's own; empty = none */
    /* the machine */
    uint32_t next;
    /* the answer, once verdict_step() returned true */
    bool passed;
    uint32_t measured_mib;
    char detail[ROW_DETAIL]; /* why not, for people */
};

/* One step; true when the verdict stands. Calling it again after that changes nothing. */
bool verdict_step(struct verdict *verdict);

#endif
