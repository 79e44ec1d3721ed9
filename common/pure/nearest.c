#include "common/pure/nearest.h"

#include <string.h>

#define MAX_WORD 63

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance (Damerau 1964, restricted to single swaps). */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][MAX_WORD + 1];

    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3];
        const unsigned *above2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned cost = a[i - 1] != b[j - 1];
            row[j] = least(least(above[j] + 1, row[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], above2[j - 2] + 1);
        }
    }
    return rows[a_length % 3][b_length];
}

const char *nearest_word(const char *word, const char *const *words, size_t count)
{
    size_t length = strnlen(word, MAX_WORD + 1);
    const char *best = NULL;
    unsigned best_distance = (unsigned)length / 3 + 1;

    if (length == 0 || length > MAX_WORD)
        return NULL;
    best_distance = best_distance > 1 ? best_distance : 2;
    for (size_t i = 0; i < count; i++) {
        size_t other = strnlen(words[i], MAX_WORD + 1);
        if (other == 0 || other > MAX_WORD)
            continue;
        unsigned found = distance(word, length, words[i], other);
        if (found < best_distance) {
            best = words[i];
            best_distance = found;
        }
    }
    return best;
}
