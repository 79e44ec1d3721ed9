#ifndef SHEAF_COMMON_PURE_NEAREST_H
#define SHEAF_COMMON_PURE_NEAREST_H

/* "Did you mean": the known word that a mistyped one stands for. */
#include <stddef.h>

/*
 * The word with the smallest edit distance (insert, delete, replace, swap of neighbours), the first
 * of equals; NULL when none is near: more than a third of the letters, at least 1, differ.
 * O(count x length^2); words above 63 bytes are never near.
 */
const char *nearest_word(const char *word, const char *const *words, size_t count);

#endif
