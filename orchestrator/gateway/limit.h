#ifndef SHEAF_ORCHESTRATOR_GATEWAY_LIMIT_H
#define SHEAF_ORCHESTRATOR_GATEWAY_LIMIT_H

/*
 * How often somebody may ask: one bucket per key (an address, a token), which holds one second's
 * worth and fills steadily. The table is bounded; time is an argument. Knows no sockets.
 */
#include <stddef.h>
#include <stdint.h>

struct limiter;

/* per_second 0 = no limit. */
struct limiter *limiter_new(uint32_t per_second);
void limiter_free(struct limiter *limiter);

/*
 * Takes `cost` from the bucket of this key (at most 36 bytes). 0 when it was there; else nothing is
 * taken, and the answer is the whole seconds (1 at least) after which asking again makes sense.
 */
uint32_t limiter_take(struct limiter *limiter, const void *key, size_t size, uint32_t cost,
                      int64_t now_us);

/* Keys that are remembered now; those of full buckets may be forgotten. */
uint32_t limiter_keys(const struct limiter *limiter);

#endif
