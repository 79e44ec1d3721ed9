#ifndef SHEAF_COMMON_PURE_ERR_H
#define SHEAF_COMMON_PURE_ERR_H

/*
 * One closed list of reasons (err_table.h) and the carrier that brings one to whoever handles it.
 * Knows nothing of logs, sockets or HTTP beyond the numbers in the table.
 *
 * A fallible function returns 0 or a negative code, `-ERR_SOMETHING`, and leaves its outputs
 * untouched on failure. Where a text helps, its last argument is a `struct err *` (may be NULL).
 */
#include <stdbool.h>
#include <stddef.h>

enum err_code {
    ERR_NONE = 0,
#define ERR(symbol, slug, number, http, actor, retry, title, hint) ERR_##symbol = (number),
#include "common/pure/err_table.h"
#undef ERR
    ERR_MAX = 256,
};

enum err_actor {
    ERR_ACTOR_NONE,
    ERR_ACTOR_TENANT,
    ERR_ACTOR_PROVIDER,
    ERR_ACTOR_OPERATOR,
    ERR_ACTOR_PLATFORM,
};

struct err_info {
    enum err_code code;
    int http_status; /* 0: not an HTTP refusal */
    enum err_actor actor;
    bool retryable;
    const char *slug;  /* stable, kebab-case */
    const char *title; /* one line, same for every occurrence */
    const char *hint;  /* the next step */
};

/* Text is cut at the end of the array; always terminated. */
struct err {
    enum err_code code;
    char pointer[96]; /* JSON pointer or key at fault; empty if none */
    char text[256];   /* detail of this occurrence */
};

#define SHEAF_MUST_USE     __attribute__((warn_unused_result))
#define SHEAF_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Fills err (if not NULL) and returns -code, so that failing is one line. */
int err_set(struct err *err, enum err_code code, const char *format, ...) SHEAF_PRINTF(3, 4);
/* The same with the JSON pointer or key at fault. */
int err_set_at(struct err *err, enum err_code code, const char *pointer, const char *format, ...)
    SHEAF_PRINTF(4, 5);

/* Row of the table; the row of ERR_INTERNAL for a number that is not in it. Never NULL. */
const struct err_info *err_info(enum err_code code);
/* "rank-failed" → ERR_RANK_FAILED; ERR_NONE for an unknown slug or "". */
enum err_code err_from_slug(const char *slug);
/* "" for ERR_NONE. */
const char *err_slug(enum err_code code);
const char *err_actor_name(enum err_actor actor);
/* Every row once, for docs and tests. Returns the row or NULL after the last. */
const struct err_info *err_row(size_t index);

/* A broken invariant of ours: prints module and text to stderr and aborts. Stays on in releases. */
#define BUG_ON(condition)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!!(condition), 0))                                                    \
            err_bug(__FILE__, __LINE__, #condition);                                               \
    } while (0)
_Noreturn void err_bug(const char *file, int line, const char *what);

#endif
