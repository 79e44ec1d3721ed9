#ifndef SHEAF_COMMON_PURE_MONEY_H
#define SHEAF_COMMON_PURE_MONEY_H

/*
 * Money is int64 micro-units of one asset; text is a decimal with at most six places. No float.
 */
#include <stdint.h>

#include "common/pure/err.h"

typedef int64_t micro_t; /* 10^-6 of the asset */

#define MICRO_PER_UNIT ((micro_t)1000000)
/* One step of nine digits above any bill we can imagine, 10^6 below overflow in sums. */
#define MICRO_MAX  ((micro_t)1000000000000000) /* 10^9 units */
#define PPM        1000000u
#define MONEY_TEXT 24

/* "2.40" → 2400000. Digits, at most one point, at most six places, no sign. ERR_INVALID_AMOUNT. */
int money_parse(const char *text, micro_t *ret_amount) SHEAF_MUST_USE;
/* At least two places, as many as needed: 2400000 → "2.40", -1 → "-0.000001". Returns out. */
char *money_format(micro_t amount, char out[MONEY_TEXT]);

/*
 * Cumulative bill of a lease: floor(rate x ms / 3 600 000), rate in micro-units per hour. Billing
 * the difference of two cumulative values never drifts by rounding. 128-bit inside, saturates at
 * MICRO_MAX.
 */
micro_t money_bill(micro_t rate_per_hour, uint64_t milliseconds);
/* floor(amount x ppm / 10^6); of cumulative amounts, for the same reason. */
micro_t money_share(micro_t amount, uint32_t ppm);
/* Smallest amount that pays rate for the time: ceil; what an escrow must hold. */
micro_t money_hold(micro_t rate_per_hour, uint64_t milliseconds);

#endif
