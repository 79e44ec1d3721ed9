#ifndef SHEAF_ORCHESTRATOR_GATEWAY_NUMBER_H
#define SHEAF_ORCHESTRATOR_GATEWAY_NUMBER_H

/* Numbers in paths, queries and header fields: digits alone, no sign, no space. Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Reads digits from *text up to the first other byte and moves *text there. False (and *text stays)
 * when there is none, or more than max_digits of them. base is 10 or 16 (lower case); max_digits ≤
 * 18 in base 10, ≤ 15 in base 16, so that nothing overflows an int64_t.
 */
bool number_take(const char **text, unsigned base, size_t max_digits, uint64_t *ret_value);
/* The whole text is such a number in base 10. */
bool number_read(const char *text, size_t max_digits, uint64_t *ret_value);

#endif
