#include "cli/suggest.h"

#include <string.h>

#define LONGEST 32u /* longer words are not offered */

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;

    return least < c ? least : c;
}

/* Optimal string alignment (Damerau 1964, restricted). */
static size_t distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t cost[LONGEST + 1][LONGEST + 1];

    for (size_t i = 0; i <= a_length; i++)
        cost[i][0] = i;
    for (size_t j = 0; j <= b_length; j++)
        cost[0][j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        for (size_t j = 1; j <= b_length; j++) {
            size_t change = a[i - 1] != b[j - 1];
            cost[i][j] = min3(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]
                && cost[i - 2][j - 2] + 1 < cost[i][j])
                cost[i][j] = cost[i - 2][j - 2] + 1;
        }
    }
    return cost[a_length][b_length];
}

struct suggest suggest_for(const char *word)
{
    size_t length = strcspn(word, "=");

    return (struct suggest){.word = word, .distance = length / 3 + 2};
}

void suggest_offer(struct suggest *suggest, const char *candidate)
{
    size_t word_length = strcspn(suggest->word, "=");
    size_t length = strlen(candidate);

    if (word_length > LONGEST || length > LONGEST)
        return;
    size_t off = distance(suggest->word, word_length, candidate, length);
    if (off < suggest->distance) {
        suggest->distance = off;
        suggest->best = candidate;
    }
}
