#ifndef SHEAF_CLI_SUGGEST_H
#define SHEAF_CLI_SUGGEST_H

/* The nearest known word to a mistyped one (edit distance, transpositions count one). */
#include <stddef.h>

struct suggest {
    const char *word;
    const char *best; /* NULL until something is near enough: at most a third of the word off */
    size_t distance;
};
struct suggest suggest_for(const char *word);
void suggest_offer(struct suggest *suggest, const char *candidate);

#endif
